"""The conclusion's tables, from records whose changes can be counted by hand."""

from __future__ import annotations

import itertools

import pytest
from markdown_tables import PROVENANCE, body, rows

from dnabook import figures
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.records import Record
from dnabook.tables import conclusion as tables

EPSILON = 0.10
THESIS, AGAINST = "**as the thesis has it**", "**against the thesis**"


def trial(setting, seed, **values):
    return {"setting": setting, "seed": seed, "values": values, "provenance": PROVENANCE}


def pair(setting, seed, r2, pgd, fgsm=50, accuracy=0.9):
    """r2, pgd: 1 → 2 and 2 → 1, or one number for both. Of 100 images that fool the source, pgd transfer."""
    r2, pgd, fgsm = (each if isinstance(each, tuple) else (each, each) for each in (r2, pgd, fgsm))
    transfer = [
        {"attack": attack, "epsilon": e, "source": s, "source_fooled_clean": 100,
         "both_fooled_clean": rate if e == EPSILON else 99}
        for attack, rates in (("pgd-linf", pgd), ("fgsm-linf", fgsm))
        for e in (0.05, EPSILON) for s, rate in enumerate(rates, 1)
    ]  # fmt: skip
    predictability = [{"source": s, "heldout": value} for s, value in enumerate(r2, 1)]
    values = {"accuracy": [0.9, accuracy], "transfer": transfer, "predictability": predictability}
    return trial(setting, seed, **values)


def of(architecture, arm, seed, *numbers, **more):
    return pair({"architecture": architecture, "arm": arm}, seed, *numbers, **more)


def records(trials):
    """The same trials as the record of the features and as that of transfer."""
    return [Record(name, "smoke", {}, list(trials)) for name in ("feature_correlation", "transfer")]


def pushed(target, seed, r2, rate, accuracy=0.9):
    """r2: 1 → 2 and 2 → 1."""
    transfer = [
        {"attack": "fgsm-linf", "epsilon": e, "source": s, "source_fooled_clean": 100,
         "both_fooled_clean": rate if e == EPSILON else 1}
        for e in (0.05, EPSILON) for s in (1, 2)
    ]  # fmt: skip
    features = [
        {"epsilon": 0.0, "heldout_1_to_2": r2[0], "heldout_2_to_1": r2[1]},
        {"epsilon": EPSILON, "heldout_1_to_2": 0.0, "heldout_2_to_1": 0.0},
    ]
    values = {"accuracy": [0.9, accuracy], "transfer": transfer, "features": features}
    return trial({"target_distance": target}, seed, **values)


def distances(*trials):
    return Record("parameter_distance", "smoke", {"target_distances": [None, 1000, 3000]}, list(trials))


# --- Every pair, side by side --------------------------------------------------------------------


def ranks(trials, distance=None):
    features, transfer = records(trials)
    return tables.rank_correlations(features, transfer, distance or distances(), epsilon=EPSILON)


def test_rho_is_taken_of_each_attack_on_its_own():
    trials = [  # the ranks of PGD's rates are 2 3 1, so ρ = 1 − 6·2/24
        of("cnn", "regular", 0, 0.9, 50, 60),
        of("cnn", "decorrelated_late", 0, 0.8, 60, 50),
        of("cnn", "regular", 1, 0.7, 40, 40),
    ]
    text = ranks(trials)
    assert text.startswith("| Spearman's ρ of R² and transfer | pairs | seeds | FGSM-ℓ∞ | PGD-ℓ∞ |")
    cnn, fully_connected, _ = body(text)
    assert cnn == ["CNN, chapter 4", "3", "2", "1.00", "0.50"]
    assert fully_connected == ["fully connected, chapter 4", "0", "0", "–", "–"]


def test_two_pairs_have_no_rho_and_collapsed_ones_do_not_count():
    trials = [
        of("cnn", "regular", 0, 0.9, 60),
        of("cnn", "decorrelated", 0, 0.8, 50),
        of("cnn", "decorrelated", 1, 0.7, 40, accuracy=0.1),
    ]
    assert body(ranks(trials))[0] == ["CNN, chapter 4", "2", "1", "–", "–"]


def test_in_chapter_2_rho_is_taken_within_a_seed_and_then_averaged():
    """Within each seed transfer rises with R²; over pairs of several seeds it would not."""
    made = [
        pushed(target, seed, (r2 + step / 100, r2 + step / 100), rate + step)
        for seed, r2, rate in ((0, 0.9, 20), (1, 0.7, 60), (2, 0.5, 80))
        for step, target in enumerate((3000, 1000, None))
    ]
    cnn, _, apart = body(ranks([], distances(*made)))
    assert apart == ["CNN, chapter 2, within a seed", "9", "3", "1.00 ± 0.00", "–"]
    assert cnn[1] == "0"  # they are not among the pairs of chapter 4


def test_without_pairs_of_chapter_2_there_is_nothing_within_a_seed():
    made = distances(*(pushed(target, 0, (0.9, 0.9), 20) for target in (1000, 3000)))
    assert body(ranks([], made))[2][1:4] == ["2", "0", "no value"]


def test_pairs_are_counted_against_the_regular_one_of_their_seed():
    late = ((0.8, 50), (0.8, 70), (0.1, 1))  # the third has no regular one
    trials = [of("cnn", "regular", seed, 0.9, 60) for seed in (0, 1)]
    trials += [of("cnn", "decorrelated_late", seed, *numbers, 1) for seed, numbers in enumerate(late)]
    text = ranks(trials)
    assert "in *late* CNN pairs R² is lower in 2 of 2 and PGD's rate in 1; in" in text
    assert "in *decorrelated* fully connected ones no pair is left. " in text
    assert "Rates at ε = 0.10. " in text


def test_each_arm_is_counted_in_its_own_architecture():
    trials = [of("fully_connected", arm, 0, r2, 60) for arm, r2 in (("regular", 0.9), ("decorrelated", 0.2))]
    trials.append(of("cnn", "regular", 0, 0.1, 10))
    text = ranks(trials)
    assert "in *late* CNN pairs no pair is left; in" in text
    assert "fully connected ones R² is lower in 1 of 1 and PGD's rate in 0. " in text


# --- Where the thesis holds, and where not: pairs -------------------------------------------------


def changes(trials=(), distance=None, losses=(), beside=()):
    """losses: trials of `variants`; beside: those of the regular pairs that they are compared with."""
    names = sorted({trial["setting"]["variant"] for trial in losses})
    variants = Record("variants", "laptop", {"variants": names}, list(losses))
    made = [*records(trials), distance or distances(), (variants, *records(beside))]
    return tables.changes_of_transfer(*made, epsilon=EPSILON)


def test_late_pairs_are_tested_in_each_direction_apart():
    trials = [
        of("cnn", arm, seed, r2, pgd)
        for arm, r2, pgd in (("regular", (0.9, 0.8), (60, 70)), ("decorrelated_late", (0.5, 0.7), (40, 80)))
        for seed in (0, 1)
    ]
    text = changes(trials)
    assert text.startswith("| chapter | before → after | scale | reading | R², held out | transfer, % |")
    assert body(text) == [
        ["4", "CNN, regular → late, 1 → 2, where the loss looks", "smoke", THESIS,
         "0.90 → 0.50 (−0.40 ± 0.00)", "60 → 40 (−20 ± 0)"],
        ["4", "CNN, regular → late, 2 → 1", "smoke", AGAINST,
         "0.80 → 0.70 (−0.10 ± 0.00)", "70 → 80 (10 ± 0)"],
    ]  # fmt: skip


def test_fully_connected_pairs_are_tested_where_the_loss_looks():
    kinds = (("regular", (0.9, 0.8), (60, 10)), ("decorrelated", (-0.5, 0.7), (55, 90)))
    trials = [of("fully_connected", arm, seed, r2, pgd) for arm, r2, pgd in kinds for seed in (0, 1)]
    (row,) = body(changes(trials))
    assert row[1] == "fully connected, regular → decorrelated, 1 → 2"
    assert row[3:] == [THESIS, "0.90 → −0.50 (−1.40 ± 0.00)", "60 → 55 (−5 ± 0)"]


def test_the_corrected_loss_is_tested_by_the_mean_of_both_directions():
    trials = [of("cnn", "regular", seed, (0.9, 0.7), (60, 70)) for seed in (0, 1)]
    setting = {"architecture": "cnn", "variant": "corrected"}
    other = {"architecture": "cnn", "variant": "released"}
    losses = [pair(setting, seed, (0.5, 0.3), (30, 40)) for seed in (0, 1)] + [pair(other, 0, 0.1, 1)]
    (row,) = body(changes(losses=losses, beside=trials))
    assert row[:3] == ["4", "CNN, regular → corrected loss, both directions", "laptop"]
    assert row[3:] == [THESIS, "0.80 → 0.40 (−0.40 ± 0.00)", "65 → 35 (−30 ± 0)"]


def test_the_corrected_loss_is_compared_with_pairs_of_its_own_record_where_it_has_them():
    beside = [of("cnn", "regular", seed, (0.1, 0.1), (99, 99)) for seed in (0, 1)]
    losses = [
        pair({"architecture": "cnn", "variant": variant}, seed, r2, pgd)
        for variant, r2, pgd in (("none", (0.9, 0.7), (60, 70)), ("corrected", (0.5, 0.3), (30, 40)))
        for seed in (0, 1)
    ]
    (row,) = body(changes(losses=losses, beside=beside))
    assert row[3:] == [THESIS, "0.80 → 0.40 (−0.40 ± 0.00)", "65 → 35 (−30 ± 0)"]


def test_free_pairs_are_compared_with_the_farthest_on_natural_images():
    made = [
        pushed(target, seed, r2, rate)
        for target, r2, rate in ((None, (0.9, 0.7), 60), (1000, (0.1, 0.1), 5), (3000, (0.6, 0.4), 30))
        for seed in (0, 1)
    ]
    text = changes(distance=distances(*made))
    assert body(text) == [
        ["2", "CNN, free → pushed to D_t = 3000, FGSM, both directions", "smoke", THESIS,
         "0.80 → 0.50 (−0.30 ± 0.00)", "60 → 30 (−30 ± 0)"]
    ]  # fmt: skip
    assert text.endswith("ρ of R² and transfer is 1.00 ± 0.00 within a seed.")


@pytest.mark.parametrize(
    ("late", "verdict"),
    [
        ([(0.5, 40), (0.5, 40)], THESIS),
        ([(0.95, 70), (0.95, 70)], THESIS),
        ([(0.5, 70), (0.5, 70)], AGAINST),
        ([(0.5, 40), (0.5, 80)], "interval of transfer contains zero"),
        ([(0.5, 40), (1.3, 40)], "interval of R² contains zero"),
        ([(0.5, 40), (1.3, 80)], "interval of R² and transfer contains zero"),
        ([(0.5, 40)], "one seed, no verdict"),
    ],
)
def test_the_thesis_is_read_off_the_signs_of_two_changes_that_exclude_zero(late, verdict):
    trials = [of("cnn", "regular", seed, 0.9, 60) for seed in range(2)]
    trials += [of("cnn", "decorrelated_late", seed, *numbers) for seed, numbers in enumerate(late)]
    assert [row[3] for row in body(changes(trials))] == [verdict] * 2


def test_means_before_and_after_are_over_the_seeds_that_have_both():
    regular = ((0.9, 60), (0.1, 10), (0.1, 10))
    trials = [of("cnn", "regular", seed, *numbers) for seed, numbers in enumerate(regular)]
    trials.append(of("cnn", "decorrelated_late", 0, 0.5, 40))
    trials.append(of("cnn", "decorrelated_late", 1, 0.9, 90, accuracy=0.1))
    assert body(changes(trials))[0][4:] == ["0.90 → 0.50 (−0.40)", "60 → 40 (−20)"]


def test_a_test_without_a_seed_of_both_arms_is_left_out():
    trials = of("cnn", "regular", 0, 0.9, 60), of("cnn", "decorrelated_late", 1, 0.9, 60)
    assert body(changes(trials)) == []


# --- Where the thesis holds, and where not: codes -------------------------------------------------


def autoencoder(arm, seed, r2, saved, decoy=1):
    """r2: 1 → 2 and 2 → 1, or None. saved: of 100 digits under the strongest PGD at ε = 0.05."""
    attacked = [
        {"attack": attack, "epsilon": e, "objective": objective, "n": 100, "both": 0,
         "either": saved - 20 * i if (attack, objective) == ("pgd", "strongest") else decoy}
        for attack in ("fgsm", "pgd") for objective in ("printed", "strongest")
        for i, e in enumerate((0.05, 0.10, 0.15))
    ]  # fmt: skip
    quality = {} if r2 is None else {"heldout": list(r2)}
    return trial({"arm": arm}, seed, attacked=attacked, quality=quality)


def codes(mnist=(), layers=()):
    made = []
    for name, trials in (("autoencoder_mnist", mnist), ("shared_layers", layers)):
        arms = list(dict.fromkeys(t["setting"]["arm"] for t in trials))
        config = {"arms": arms, "epsilons": [0.05, 0.10, 0.15], "objectives": ["printed"]}
        made.append(Record(name, "smoke", config, list(trials)))
    return tables.changes_of_digits_saved(*made)


def both_seeds(**arms):
    return [autoencoder(arm, seed, *numbers) for arm, numbers in arms.items() for seed in (0, 1)]


def test_more_digits_saved_at_a_lower_r2_is_as_the_thesis_has_it():
    text = codes(both_seeds(dna_regular=((1.0, 0.9), 50), dna=((0.1, 0.8), 60)))
    assert "| ε | reading | R² 1 → 2 | R² 2 → 1 | digits saved, % |" in text.splitlines()[0]
    assert body(text) == [
        ["6", "DNA, λ = 0 → with the released loss", e, THESIS, "1.00 → 0.10 (−0.90 ± 0.00)",
         "0.90 → 0.80 (−0.10 ± 0.00)", saved]
        for e, saved in (("0.05", "50 → 60 (10 ± 0)"), ("0.10", "30 → 40 (10 ± 0)"))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("r2", "saved", "verdict"),
    [
        ((0.25, 0.25), 60, THESIS),
        ((0.25, 0.25), 40, AGAINST),
        ((0.25, 1.50), 60, AGAINST),  # the mean rises
        ((0.25, 1.25), 60, "interval of R² contains zero"),
        ((0.25, 0.25), 50, "interval of saved contains zero"),
    ],
)
def test_the_reading_takes_the_mean_of_both_directions(r2, saved, verdict):
    found = body(codes(layers=both_seeds(unshared_6_regular=((1.0, 0.5), 50), unshared_6=(r2, saved))))
    assert [row[:2] for row in found] == [["8", "two autoencoders → joined by the loss"]] * 2
    assert [row[3] for row in found] == [verdict] * 2


def test_arms_of_another_size_are_shown_and_not_judged():
    joined = {"dna": ((0.1, 0.8), 40), "dna_corrected": ((0.2, 0.2), 45)}
    found = body(codes(both_seeds(**joined, two_autoencoders=((0.9, 0.9), 60))))
    labels = [f"DNA, {loss} loss → two autoencoders" for loss in ("released", "corrected")]
    assert [row[1] for row in found[::2]] == labels
    assert {row[3] for row in found} == {"no test, sharing and size differ"}
    assert [row[6] for row in found[::2]] == ["40 → 60 (20 ± 0)", "45 → 60 (15 ± 0)"]


def test_a_dead_neck_leaves_its_seed_out_of_r2_alone():
    whole, dead = autoencoder("dna", 0, (0.1, 0.8), 60), autoencoder("dna", 1, None, 60)
    row = body(codes([*both_seeds(dna_regular=((1.0, 0.9), 50)), whole, dead]))[0]
    assert row[3:6] == ["one seed, no verdict", "1.00 → 0.10 (−0.90)", "0.90 → 0.80 (−0.10)"]
    assert row[6] == "50 → 60 (10 ± 0)"


def test_where_no_test_has_both_arms_the_text_says_so():
    assert codes(both_seeds(dna=((0.1, 0.8), 60))) == "These arms are not recorded at this scale."


def test_the_caption_names_both_records():
    text = codes(both_seeds(dna_regular=((1.0, 0.9), 50), dna=((0.1, 0.8), 60)))
    assert "R². Chapter 6: smoke scale · " in text
    assert text.endswith(". Chapter 8: shared_layers · smoke scale · no trials yet.")


# --- R² or the gradients? ------------------------------------------------------------------------


def moved(seeds=(0, 1, 2), accuracy=0.9, epsilons=(0.05, 0.2), held=False):
    """Gradients at right angles take 30 of 60 points within a pair and leave R²; features take 10, and R²."""
    arms = {"regular": (0.9, 0.4, 60), "features": (0.7, 0.3, 50), "gradients": (0.9, 0.1, 30)}
    if held:
        arms["gradients_held"] = (0.7, 0.4, 55)
    outside = {"features": 4, "gradients": 2}  # what each arm loses with a stranger on one side

    def values(seed):
        relation, movement, transfer = [], [], []
        cells = [(arm, arm) for arm in arms] + [("stranger", "stranger")]
        cells += [cell for arm in arms for cell in ((arm, "stranger"), ("stranger", arm))]
        for (source_arm, target_arm), s in itertools.product(cells, (1, 2)):
            of = {"source_arm": source_arm, "source": s, "target_arm": target_arm, "target": 3 - s}
            r2, cosine, rate = arms.get(
                source_arm if source_arm == target_arm else "regular", arms["regular"]
            )
            if source_arm != target_arm:
                (arm,) = {source_arm, target_arm} - {"stranger"}
                rate -= outside.get(arm, 0)
                cosine -= outside.get(arm, 0) / 100
            relation.append({**of, "heldout": r2 + 0.02 * s - 0.03, "gradient_cosine": cosine})
            for e in epsilons:
                movement.append({**of, "map": OWN_MAP, "epsilon": e, "explains": r2 - e})
                movement.append({**of, "map": NATURAL_MAP, "epsilon": e, "explains": cosine - e})
                fooled = {"source_fooled_clean": 100, "signs_clean": 5}
                transferred = rate + round(100 * e) - 20 + seed - 1 + 2 * s - 3
                transfer.append({**of, "epsilon": e, **fooled, "both_fooled_clean": transferred})
        tables = {"relation": relation, "movement": movement, "transfer": transfer}
        return {"accuracy": [accuracy] * (2 * len(arms) + 2), **tables}

    trials = [trial({"architecture": "cnn"}, seed, **values(seed)) for seed in seeds]
    config = {"arms": {arm: [0.0, 0.0, 0.0] for arm in arms}, "epsilons": list(epsilons)}
    return Record("features_or_gradients", "smoke", {**config, "steps": 40, "test_images": 250}, trials)


def test_each_arm_has_a_row_with_its_relation_and_its_transfer():
    """Three seeds one point apart: t(2) = 4.30 times 1 / √3."""
    text = tables.features_or_gradients(moved())
    found = rows(text)
    assert found["trained"] == [
        "R², held out", "movement explained, ε = 0.20", "by the natural map", "cosine of gradients",
        "transfer, ε = 0.05", "transfer, ε = 0.20", "points beyond signs, ε = 0.20",
    ]  # fmt: skip
    assert found["gradients at right angles"] == [
        "0.900 ± 0.000", "0.70 ± 0.00", "−0.10 ± 0.00", "0.10 ± 0.00", "15 ± 2 %", "30 ± 2 %", "25 ± 2"
    ]  # fmt: skip
    assert found["features decorrelated"][0] == "0.700 ± 0.000" and len(found) == 1 + 3
    assert "In 0 of 3 seeds a model collapsed. smoke scale · 3 seeds" in text
    lost = tables.features_or_gradients(moved(accuracy=0.2))
    assert "In 3 of 3 seeds" in lost and "no value" in rows(lost)["regular"][0]


def test_arms_are_compared_seed_by_seed_with_those_that_differ_in_one_thing():
    found = rows(tables.features_or_gradients_compared(moved()))
    assert found["change"][-3:] == ["transfer, ε = 0.05", "transfer, ε = 0.20", "beyond signs, ε = 0.20"]
    assert found["gradients at right angles, against regular"] == [
        "0.000 ± 0.000", "0.00 ± 0.00", "−0.30 ± 0.00", "−0.30 ± 0.00", "−30 ± 0", "−30 ± 0", "−30 ± 0"
    ]  # fmt: skip
    assert found["features decorrelated, against regular"][:2] == ["−0.200 ± 0.000", "−0.20 ± 0.00"]
    assert len(found) == 1 + 2  # the fourth arm is not recorded here
    found = rows(tables.features_or_gradients_compared(moved(held=True)))
    held = found["features decorrelated, gradients held, against features decorrelated"]
    assert (held[0], held[3], held[-1]) == ("0.000 ± 0.000", "0.10 ± 0.00", "5 ± 0") and len(found) == 1 + 4


def test_what_each_arm_loses_with_strangers_is_taken_from_what_it_loses_within():
    text = tables.features_or_gradients_among_strangers(moved())
    found = rows(text)
    assert found["gradients at right angles"] == ["−30 ± 0", "−2 ± 0", "−2 ± 0", "−26 ± 0"]
    assert found["features decorrelated"] == ["−10 ± 0", "−4 ± 0", "−4 ± 0", "−2 ± 0"]
    assert len(found) == 3 and "Over all 10 cells" in text
    assert text.endswith("of **1.00 ± 0.00** with the cosine.")


def test_the_figure_has_one_mean_for_each_arm_in_each_panel():
    record = moved()
    left, middle, right = figures.features_or_gradients(record).axes
    for axis, wanted in ((left, [0.9, 0.7, 0.9]), (middle, [0.7, 0.5, 0.7]), (right, [0.4, 0.3, 0.1])):
        across = [round(float(container[0].get_xdata()[0]), 6) for container in axis.containers]
        up = [round(float(container[0].get_ydata()[0]), 6) for container in axis.containers]
        assert across == wanted and up == [0.55, 0.45, 0.25]
        for container in axis.containers:  # seeds differ in transfer alone
            ((left_end, right_end),), ((low, high),) = (bars.get_segments() for bars in container[2])
            assert right_end[0] - left_end[0] == pytest.approx(0) and high[1] - low[1] > 0.04
        faint = [line for line in axis.lines if line.get_alpha()]
        assert len(faint) == 3 * len(record.seeds)
    assert "ε = 0.20" in left.get_ylabel()

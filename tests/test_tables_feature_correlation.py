"""The tables and the sentence of chapter 3, from records whose numbers can be counted by hand."""

import itertools

import pytest
from markdown_tables import PROVENANCE, cells, rows

from dnabook import figures
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.experiments.controls import COMPARED
from dnabook.records import Record
from dnabook.tables import feature_correlation as tables

PAIRS = [["cnn", "regular"], ["cnn", "decorrelated"], ["fully_connected", "regular"]]


def recorded(there=0.97, back=0.95, *, seeds=(0, 1), spread=0.0):
    """Regular CNNs predict each other as given, ± spread by seed; no decorrelated pair is like another."""

    def values(architecture, arm, seed):
        less = 0.5 * (arm != "regular") + 0.1 * (architecture != "cnn")
        moved = spread * (1 - 2 * seed)
        predictability = [
            {
                "source": source, "target": 3 - source, "heldout": r2 - less + moved, "in_sample": 0.11,
                "batch_in_sample": 0.99 - less - source / 100, "chance_floor": 0.22, "rank": source,
                "effective_rank": 12.0 + source,
            }
            for source, r2 in ((1, there), (2, back))
        ]  # fmt: skip
        features = [{"epsilon": e, "pearson": 0.3 + e + less + seed / 10} for e in (0.0, 0.1)]
        return {"accuracy": [0.95, 0.95], "predictability": predictability, "features": features}

    trials = [
        {
            "setting": {"architecture": architecture, "arm": arm}, "seed": seed,
            "values": values(architecture, arm, seed), "provenance": PROVENANCE,
        }
        for architecture, arm in PAIRS for seed in seeds
    ]  # fmt: skip
    config = {"pairs": PAIRS, "training": {"batch_size": 5}}
    return Record("feature_correlation", "smoke", config, trials)


def test_each_column_is_what_its_head_says_and_each_row_a_direction_of_regular_pairs():
    """The floor is rank / (N − 1): 1 / 4 from model 1, 2 / 4 from model 2."""
    text = tables.predictability(recorded())
    found = rows(text)
    assert found["pair"] == ["held out", "in sample, N = 5", "floor, N = 5", "effective rank of the source"]
    assert found["CNN, 1 → 2"] == ["0.97 ± 0.00", "0.98 ± 0.00", "0.25 ± 0.00", "13.00 ± 0.00"]
    assert found["CNN, 2 → 1"] == ["0.95 ± 0.00", "0.97 ± 0.00", "0.50 ± 0.00", "14.00 ± 0.00"]
    assert found["fully connected, 1 → 2"][:2] == ["0.87 ± 0.00", "0.88 ± 0.00"]
    assert list(found)[1:] == [
        "CNN, 1 → 2", "CNN, 2 → 1", "fully connected, 1 → 2", "fully connected, 2 → 1",
    ]  # fmt: skip
    assert text.endswith("|\n\nsmoke scale · 2 seeds · CPU · 2026-01-02.")


def test_one_seed_has_no_interval_and_an_architecture_without_trials_no_value():
    record = recorded(seeds=(0,))
    record.trials = [t for t in record.trials if t["setting"]["architecture"] == "cnn"]
    found = rows(tables.predictability(record))
    assert found["CNN, 1 → 2"] == ["0.97", "0.98", "0.25", "13.00"]
    assert found["fully connected, 2 → 1"] == ["no value"] * 4


@pytest.mark.parametrize(
    ("there", "back", "root", "reached"),
    [(0.99, 0.9604, "0.980", "reached"), (0.9025, 0.99, "0.950", "not quite reached")],
)
def test_the_multiple_correlation_is_of_the_direction_that_is_predicted_less(there, back, root, reached):
    text = tables.coefficients(recorded(there, back))
    both = f"**{there:.2f} ± 0.00** one way and **{back:.2f} ± 0.00** the other"
    assert text.startswith(
        f"Between regular CNNs held-out R² is {both}. "
        f"The multiple correlation √R² is {root}, so the paper's “0.975 on average” is {reached} on natural"
    )


def test_pearsons_coefficient_is_that_of_natural_images_with_its_interval():
    """0.30 and 0.40 by seed: 0.35, and t(1) = 12.71 times 0.05."""
    text = tables.coefficients(recorded(spread=0.01))
    assert "coefficient of the flattened features is 0.35 ± 0.64 and cannot be it." in text
    assert "**0.97 ± 0.13** one way and **0.95 ± 0.13** the other" in text


def test_with_one_seed_the_sentence_has_no_intervals():
    text = tables.coefficients(recorded(seeds=(0,)))
    assert "**0.97** one way and **0.95** the other" in text and "features is 0.30 and cannot" in text


# --- Without learning ----------------------------------------------------------------------------


RIDGES = [1e-6, 0.1]


def controls(seeds=(0, 1), accuracy=0.9):
    """R² falls by 0.1 from row to row and by 0.2 with the second architecture; a seed adds 0.02."""

    def values(architecture, seed):
        less = 0.2 * (architecture != "cnn") - 0.02 * seed
        predictability = [
            {
                "source": s,
                "target": t,
                "heldout": 0.95 - less - i / 10,
                "cka": 0.8 - less,
                "effective_rank": 7.5 + i,
            }
            for i, (s, t) in enumerate(COMPARED)
        ]
        maps = [{"map": f"ridge {r:g}", "natural": 0.9 - less - i / 100} for i, r in enumerate(RIDGES)]
        movement = [
            {"map": name, "epsilon": epsilon, "explains": -0.4 + i / 2 - epsilon - less}
            for epsilon in (0.1, 0.2) for i, name in enumerate([*(m["map"] for m in maps), "movements"])
        ]  # fmt: skip
        damage = [
            {"epsilon": e, "counted": 200, "attacked": 120 + back, "signs": 20 + back, "untrained": 1}
            for e in (0.1, 0.2) for back in (0, 40)
        ]  # fmt: skip
        transfer = [
            {
                "epsilon": e,
                "source_fooled_clean": 50,
                "both_fooled_clean": 5 + 10 * i + 2 * seed,
                "signs_clean": 6 + i,
            }
            for i, e in enumerate((0.1, 0.2))
        ]
        return {
            "accuracy": 2 * [accuracy], "accuracy_of_heads": [0.7, 0.8], "predictability": predictability,
            "maps": maps, "movement": movement, "damage": damage, "transfer": transfer,
        }  # fmt: skip

    trials = [
        {"setting": {"architecture": a}, "seed": seed, "values": values(a, seed), "provenance": PROVENANCE}
        for a in ("cnn", "fully_connected") for seed in seeds
    ]  # fmt: skip
    config = {"architectures": ["cnn", "fully_connected"], "epsilons": [0.1, 0.2], "ridges": RIDGES}
    config |= {"steps": 40, "test_images": 250}
    return Record("controls", "smoke", config, trials)


def test_every_two_that_are_compared_have_a_row_with_r2_cka_and_the_rank_of_what_is_predicted():
    """Means of two seeds 0.02 apart: t(1) = 12.71 times 0.01."""
    found = rows(tables.without_learning(controls()))
    assert found["features"] == ["R², held out", "CKA", "effective rank of the target"]
    assert found["CNN: trained → trained"] == ["0.96 ± 0.13", "0.81 ± 0.13", "7.5 ± 0.0"]
    assert found["CNN: pixels → trained"][0] == "0.76 ± 0.13"
    assert found["fully connected: untrained → untrained"] == ["0.36 ± 0.13", "0.61 ± 0.13", "11.5 ± 0.0"]
    assert len(found) == 1 + 2 * len(COMPARED)


def test_transfer_stands_beside_r2_for_trained_and_untrained_features():
    """Attacks on heads fool 5 or 7 of 50 by seed: 12 %, and t(1) = 12.71 times one point."""
    text = tables.untrained_features(controls())
    lines = cells(text)
    header = ["attacked", "it reads", "R² to the other", "transfer, ε = 0.10", "transfer, ε = 0.20"]
    assert lines[0] == header
    assert lines[1:5] == [
        ["CNN, trained", "90 ± 0 %", "0.96 ± 0.13", "70 ± 0 %", "70 ± 0 %"],
        ["random signs instead", "", "", "20 ± 0 %", "20 ± 0 %"],
        ["CNN, untrained features", "75 ± 0 %", "0.86 ± 0.13", "12 ± 25 %", "32 ± 25 %"],
        ["random signs instead", "", "", "12 ± 0 %", "14 ± 0 %"],
    ]
    assert lines[7][:3] == ["fully connected, untrained features", "75 ± 0 %", "0.66 ± 0.13"]
    assert text.endswith("PGD-40 on 250 images · CPU · 2026-01-02.")


def test_each_ridge_has_its_r2_on_natural_features_and_of_the_movement_at_every_epsilon():
    text = tables.movement(controls(seeds=(0,)))
    assert rows(text) == {
        "map": ["natural features", "movement, ε = 0.10", "movement, ε = 0.20"],
        "CNN, ridge 1e-06": ["0.90", "−0.50", "−0.60"],
        "CNN, ridge 0.1": ["0.89", "0.00", "−0.10"],
        "CNN, fitted on movements": ["", "0.50", "0.40"],
        "fully connected, ridge 1e-06": ["0.70", "−0.70", "−0.80"],
        "fully connected, ridge 0.1": ["0.69", "−0.20", "−0.30"],
        "fully connected, fitted on movements": ["", "0.30", "0.20"],
    }
    assert text.endswith("smoke scale · 1 seed · CPU · 2026-01-02.")


def test_pairs_that_collapsed_are_left_out_of_the_controls():
    collapsed = controls(accuracy=0.2)
    assert set(rows(tables.without_learning(collapsed))["CNN: trained → trained"]) == {"no value"}
    assert set(rows(tables.movement(collapsed))["CNN, ridge 0.1"]) == {"no value"}
    assert set(rows(tables.untrained_features(collapsed))["CNN, trained"]) == {"no value"}


def learned(seeds=(0, 1, 2), accuracy=0.9):
    """With each age R² grows by 0.1 and the cosine by 0.2; a hidden layer adds 0.05 to what has a head."""
    ages, heads, epsilons = (0, 0.1, 20), ("own", "hidden"), (0.1, 0.2)

    def values(seed):
        relation = [
            {"epochs": age, "source": s, "heldout": 0.7 + i / 10 + 0.02 * s - 0.03}
            for i, age in enumerate(ages) for s in (1, 2)
        ]  # fmt: skip
        sources, movement, transfer = [], [], []
        for (i, age), (j, head) in itertools.product(enumerate(ages), enumerate(heads)):
            of = {"epochs": age, "head": head, "source": 1}
            more = 0.05 * j
            sources.append({**of, "accuracy": 0.8 + more, "gradient_cosine": i / 5 + more})
            for e in epsilons:
                movement.append({**of, "map": NATURAL_MAP, "epsilon": e, "explains": e + i / 10 + more})
                movement.append({**of, "map": OWN_MAP, "epsilon": e, "explains": 0.8 + i / 20 + more / 2.5})
                fooled = {"source_fooled_clean": 100, "signs_clean": 20}
                both = 20 + 10 * i + 5 * j + round(10 * e) + seed - 1
                transfer.append({**of, "epsilon": e, **fooled, "both_fooled_clean": both})
        return {
            "accuracy": 2 * [accuracy], "relation": relation, "sources": sources, "movement": movement,
            "transfer": transfer,
        }  # fmt: skip

    trials = [
        {"setting": {"architecture": "cnn"}, "seed": seed, "values": values(seed), "provenance": PROVENANCE}
        for seed in seeds
    ]
    config = {"epochs": list(ages), "heads": list(heads), "epsilons": list(epsilons)}
    return Record("learned_features", "smoke", {**config, "steps": 40, "test_images": 250}, trials)


def test_each_age_and_head_has_a_row_with_all_that_may_rise_and_transfer_beyond_signs():
    """Three seeds one point apart: t(2) = 4.30 times 1 / √3."""
    text = tables.learned(learned())
    found = rows(text)
    assert found["attacked"] == [
        "it reads", "R², held out", "movement explained, ε = 0.20", "by a map of its own",
        "cosine of gradients", "points beyond signs, ε = 0.10", "points beyond signs, ε = 0.20",
    ]  # fmt: skip
    assert found["0 epochs, its own head"] == [
        "80 ± 0 %", "0.70 ± 0.00", "0.20 ± 0.00", "0.80 ± 0.00", "0.00 ± 0.00", "1 ± 2", "2 ± 2",
    ]  # fmt: skip
    assert found["20 epochs, a hidden layer"] == [
        "85 ± 0 %", "0.90 ± 0.00", "0.45 ± 0.00", "0.92 ± 0.00", "0.45 ± 0.00", "26 ± 2", "27 ± 2",
    ]  # fmt: skip
    assert len(found) == 1 + 3 * 2 and "PGD-40 on 250 images · CPU · 2026-01-02. Over these rows" in text
    assert text.endswith(  # R² is the same for both heads of an age: three pairs of ties among six ranks
        "at ε = 0.20 have a rank correlation of 0.96 ± 0.00 with R², of 1.00 ± 0.00 with the movement "
        "explained, of 1.00 ± 0.00 with what a map of its own explains, of 1.00 ± 0.00 with the cosine."
    )
    collapsed = rows(tables.learned(learned(accuracy=0.2)))
    assert set(collapsed["0.1 epochs, its own head"]) == {"no value"}


def test_the_figure_draws_what_the_table_says_of_the_largest_epsilon():
    left, middle, right = figures.learned_features(learned()).axes

    def curves(axis):
        return [[round(float(y), 6) for y in container[0].get_ydata()] for container in axis.containers]

    assert curves(left) == [[0.7, 0.8, 0.9], [0.8, 0.85, 0.9], [0.2, 0.3, 0.4], [0.25, 0.35, 0.45]]
    assert curves(middle) == [[0, 0.2, 0.4], [0.05, 0.25, 0.45]]
    assert curves(right) == [[0.02, 0.12, 0.22], [0.07, 0.17, 0.27]]
    assert [label.get_text() for label in right.get_xticklabels()] == ["0", "0.1", "20"]
    assert "ε = 0.20" in right.get_title()

"""Tables and sentences of chapter 4, from records whose numbers can be counted by hand."""

import pytest
from markdown_tables import PROVENANCE, rows
from scipy.stats import spearmanr

from dnabook.records import Record
from dnabook.tables import decorrelation as tables

EPSILONS = [0.05, 0.10, 0.15, 0.20]
PAIRS = [
    ["cnn", "regular"],
    ["cnn", "decorrelated"],
    ["cnn", "decorrelated_late"],
    ["fully_connected", "regular"],
]


def record(name, settings, values, *, seeds=(0, 1), **config):
    """A record with values(setting, seed) for every setting and seed."""
    trials = [
        {"setting": setting, "seed": seed, "values": values(setting, seed), "provenance": PROVENANCE}
        for setting in settings
        for seed in seeds
    ]
    return Record(name, "smoke", config, trials)


def kinds(pairs=PAIRS):
    return [{"architecture": architecture, "arm": arm} for architecture, arm in pairs]


def attacked(rate, epsilons=EPSILONS):
    """Rows of transfer: of 200 images that both read before, 100 fool the source, rate(ε, source) both.

    Under PGD; under FGSM none fools both.
    """
    return [
        {
            "attack": attack, "epsilon": epsilon, "source": source, "target": 3 - source, "n_clean": 200,
            "both_fooled_clean": rate(epsilon, source) if attack == "pgd-linf" else 0,
            "source_fooled_clean": 100,
        }
        for attack in ("fgsm-linf", "pgd-linf") for epsilon in epsilons for source in (1, 2)
    ]  # fmt: skip


def predicted(there, back, ranks=(1.0, 1.0)):
    readings = zip((1, 2), (there, back), ranks, strict=True)
    return [{"source": s, "heldout": r2, "effective_rank": rank} for s, r2, rank in readings]


# --- Features ------------------------------------------------------------------------------------


@pytest.fixture
def features():
    """Of decorrelated CNN pairs seed 1 collapses; no CNN pair that is decorrelated late learns."""

    def values(setting, seed):
        arm = setting["arm"]
        lost = arm == "decorrelated_late" or (arm == "decorrelated" and seed == 1)
        there, back, ranks = (0.6, 0.8, (10.0, 2.0)) if arm == "decorrelated" else (0.97, 0.96, (12.0, 11.0))
        return {
            "accuracy": [0.95, 0.10 if lost else 0.95],
            "predictability": predicted(*((-9, -9) if lost else (there, back)), ranks),
            "first_component": {"r_squared": 0.91 + seed / 100 if arm == "regular" else 0.37},
        }

    return record("feature_correlation", kinds(), values, pairs=PAIRS)


def test_of_features_each_column_is_what_its_head_says_and_collapsed_pairs_are_only_counted(features):
    found = rows(tables.features(features))
    assert found["pair"] == ["collapsed", "R² 1 → 2", "R² 2 → 1", "effective rank 1", "effective rank 2"]
    assert found["CNN, regular"] == ["0 of 2", "0.97 ± 0.00", "0.96 ± 0.00", "12.0 ± 0.0", "11.0 ± 0.0"]
    assert found["CNN, decorrelated"] == ["1 of 2", "0.60", "0.80", "10.0", "2.0"]
    assert found["CNN, decorrelated late"] == ["2 of 2", *["no value"] * 4]
    assert list(found)[1:] == [
        "CNN, regular", "CNN, decorrelated", "CNN, decorrelated late", "fully connected, regular",
    ]  # fmt: skip
    assert tables.features(features).endswith("|\n\nsmoke scale · 2 seeds · CPU · 2026-01-02.")


def test_first_components_are_those_of_cnn_pairs_that_learned_in_order_of_seeds(features):
    features.trials.reverse()
    assert tables.first_components(features) == (
        "R² of the first components, seed by seed, where both models learned. CNN, regular: 0.91, 0.92; "
        "CNN, decorrelated: 0.37; CNN, decorrelated late: no pair is left."
    )


# --- λ as a dial ---------------------------------------------------------------------------------


@pytest.fixture
def dial():
    """To λ = 0.2 R² falls by 40 and 10 points, transfer by 30 and 20, accuracy by 2: at 0.1 by far more."""

    def values(setting, seed):
        most, between = (setting["correlation_weight"] == weight for weight in (0.2, 0.1))

        def rate(epsilon, source):
            return 70 + seed - (40 - 10 * source) * most - 60 * between

        return {
            "accuracy": [0.96 - 0.02 * most] * 2,
            "predictability": predicted(0.97 - 0.4 * most - 0.9 * between, 0.96 - 0.1 * most - 0.9 * between),
            "transfer": [row for row in attacked(rate, [0.10]) if row["attack"] == "pgd-linf"],
        }

    weights = [0.0, 0.1, 0.2]
    settings = [{"correlation_weight": weight} for weight in weights]
    return record("correlation_weights", settings, values, weights=weights, epsilon=0.1)


def test_the_dial_s_sentence_compares_its_ends_pair_by_pair(dial):
    assert tables.dial(dial).startswith(
        "From λ = 0 to λ = 0.2, pair by pair, in points: held-out R² from model 1 to 2 **−40 ± 0** and back "
        "**−10 ± 0**, PGD-ℓ∞ transfer at ε = 0.10 **−25 ± 0** (from 1 to 2 **−30 ± 0**, back **−20 ± 0**), "
        "accuracy **−2 ± 0**. 0 of 6 pairs collapsed;"
    )


def test_a_collapsed_pair_of_the_dial_is_counted_and_compared_with_nothing(dial):
    last = dial.find({"correlation_weight": 0.2}, 1)["values"]
    last["accuracy"] = [0.1, 0.9]
    text = tables.dial(dial)
    assert "from model 1 to 2 **−40** and back **−10**" in text and "1 of 6 pairs collapsed;" in text
    for seed in (0, 1):
        dial.find({"correlation_weight": 0.0}, seed)["values"]["accuracy"] = [0.1, 0.9]
    assert "held-out R² from model 1 to 2 **no value**" in tables.dial(dial)


# --- Figure 3 ------------------------------------------------------------------------------------


@pytest.fixture
def pairs():
    """Late pairs transfer 10 points less from 1 to 2 and 20 back, twice that at ε = 0.05, and read better."""

    def values(setting, seed):
        late, early = (setting["arm"] == arm for arm in ("decorrelated_late", "decorrelated"))

        def rate(epsilon, source):
            fall = 10 * source * late * (2 if epsilon == 0.05 else 1)
            return round(200 * epsilon) + 40 + 2 * seed - fall - 5 * early

        accuracy = [0.95 + 0.01 * late, 0.95 + 0.02 * late]
        return {"accuracy": [0.1, 0.9] if early and seed else accuracy, "transfer": attacked(rate)}

    return record("transfer", kinds(), values, pairs=PAIRS, epsilons=EPSILONS)


def test_of_transfer_each_column_is_an_epsilon_and_each_row_a_kind_of_pair(pairs):
    found = rows(tables.transfer(pairs))
    assert found["pair"] == ["pairs left", "accuracy", "ε = 0.05", "ε = 0.10", "ε = 0.15", "ε = 0.20"]
    assert found["CNN, decorrelated"] == ["1", "95 %", "45 %", "55 %", "65 %", "75 %"]
    assert found["CNN, regular"][:3] == ["2", "95 ± 0 %", "51 ± 13 %"]
    late = [cell.split()[0] for cell in found["CNN, decorrelated late"]]
    assert late == ["2", "96", "21", "46", "56", "66"]
    assert "PGD-ℓ∞, conditioned rate. smoke scale · 2 seeds" in tables.transfer(pairs)


def test_late_pairs_are_compared_with_the_regular_ones_of_their_seeds_and_each_way(pairs):
    text = tables.late_pairs(pairs)
    assert "**1 of 2** CNN pairs trained with λ from the first step collapse" in text
    each = "**−30 ± 0** points at ε = 0.05, " + ", ".join(
        f"**−15 ± 0** points at ε = {epsilon:.2f}" for epsilon in EPSILONS[1:]
    )
    assert f"differ in transfer by {each}; at ε = 0.10 by −10 ± 0 from model 1 to 2" in text
    assert "and by −20 ± 0 back. Their accuracy differs by 1.5 ± 0.0 points." in text


def test_a_late_pair_that_transfers_more_and_a_single_seed_are_told_as_they_are(pairs):
    for trial in pairs.trials:
        if trial["setting"]["arm"] == "decorrelated_late":
            trial["values"]["transfer"] = attacked(lambda e, source: 100)
    pairs.trials = [trial for trial in pairs.trials if trial["seed"] == 0]
    assert tables.late_change(pairs, 0.20) == "20"
    assert "**20** points at ε = 0.20" in tables.late_pairs(pairs)


def test_where_no_late_pair_is_recorded_there_is_no_value(pairs):
    pairs.trials = [t for t in pairs.trials if t["setting"]["arm"] != "decorrelated_late"]
    text = tables.late_pairs(pairs)
    assert "**no value** points at ε = 0.05" in text and "accuracy differs by no value points" in text
    assert tables.late_change(pairs, 0.05, source=1) == "no value"


def test_of_three_epsilons_the_second_is_the_middle_one(pairs):
    pairs.config["epsilons"] = EPSILONS[1:]
    assert "; at ε = 0.15 by −10 ± 0 from model 1" in tables.late_pairs(pairs)


# --- Strangers -----------------------------------------------------------------------------------

RATES = {
    ("regular", "regular"): 70, ("regular", "stranger"): 64, ("stranger", "regular"): 66,
    ("decorrelated_late", "decorrelated_late"): 50, ("decorrelated_late", "stranger"): 58,
    ("stranger", "decorrelated_late"): 61, ("corrected", "corrected"): 30, ("corrected", "stranger"): 40,
    ("stranger", "corrected"): 43, ("stranger", "stranger"): 68, ("regular", "decorrelated_late"): 62,
    ("decorrelated_late", "regular"): 57, ("regular", "corrected"): 45, ("corrected", "regular"): 41,
    ("decorrelated_late", "corrected"): 36, ("corrected", "decorrelated_late"): 37,
}  # fmt: skip


@pytest.fixture
def between():
    """At ε = 0.10 what RATES says, at 0.05 half; R² is the rate, the cosine falls as the rate grows."""

    def values(setting, seed):
        cells = [
            {"source_arm": a, "target_arm": b, "source": s, "target": 3 - s, "rate": rate}
            for (a, b), rate in RATES.items()
            for s in (1, 2)
        ]
        transfer = [
            {**cell, **row} for cell in cells for row in attacked(lambda e, _, c=cell: c["rate"] * e * 10)
            if row["source"] == cell["source"] and row["attack"] == "pgd-linf"
        ]  # fmt: skip
        relation = [
            {**cell, "heldout": cell["rate"] / 100, "gradient_cosine": 1 / cell["rate"]} for cell in cells
        ]
        return {"accuracy": [0.95] * 8, "transfer": transfer, "relation": relation}

    arms = ["regular", "decorrelated_late", "corrected", "stranger"]
    return record("strangers", [{"architecture": "cnn"}], values, arms=arms, epsilons=[0.05, 0.10])


def test_of_strangers_a_row_says_who_is_attacked_and_who_reads(between):
    text = tables.strangers(between)
    found = rows(text)
    assert found["attacked → read by"] == [
        "R², held out", "cosine of gradients", "transfer, ε = 0.05", "transfer, ε = 0.10",
    ]  # fmt: skip
    assert found["late → stranger"] == ["0.58 ± 0.00", "0.02 ± 0.00", "29 ± 0 %", "58 ± 0 %"]
    expected = {f"{tables.LABELS[a]} → {tables.LABELS[b]}": f"{rate} ± 0 %" for (a, b), rate in RATES.items()}
    assert all(cells[-1] == expected[name] for name, cells in list(found.items())[1:])
    assert list(found)[1:] == [
        "regular → regular", "regular → stranger", "stranger → regular", "late → late", "late → stranger",
        "stranger → late", "corrected → corrected", "corrected → stranger", "stranger → corrected",
    ]  # fmt: skip
    assert "In 0 of 2 seeds a model collapsed. smoke scale · 2 seeds" in text


def test_a_seed_in_which_one_of_the_networks_collapsed_is_left_out_of_both_tables(between):
    between.trials[0]["values"]["accuracy"][5] = 0.1
    text = tables.strangers(between)
    assert rows(text)["late → late"] == ["0.50", "0.02", "25 %", "50 %"]
    assert "In 1 of 2 seeds a model collapsed." in text
    assert rows(tables.whose_change(between), 2)["late", "strangers"] == ["−20", "−6", "−5", "−9"]


def test_what_is_left_for_the_pair_is_the_first_change_less_the_two_between(between):
    text = tables.whose_change(between)
    found = rows(text, 2)
    assert found["pair", "others"] == [
        "within the pair", "it is attacked, they read", "they are attacked, it reads",
        "what is left for the pair",
    ]  # fmt: skip
    assert found["late", "strangers"] == ["−20 ± 0", "−6 ± 0", "−5 ± 0", "−9 ± 0"]
    assert found["corrected", "strangers"] == ["−40 ± 0", "−24 ± 0", "−23 ± 0", "7 ± 0"]
    own = "regular networks of the seed"
    assert found["late", own] == ["−20 ± 0", "−13 ± 0", "−8 ± 0", "1 ± 0"]
    assert found["corrected", own] == ["−40 ± 0", "−29 ± 0", "−25 ± 0", "14 ± 0"]
    assert "Change of transfer at ε = 0.10, in points" in text


def test_r2_goes_with_transfer_and_the_cosine_against_it_over_all_ordered_pairs_of_arms(between):
    turned = spearmanr(list(RATES.values()), [RATES[b, a] for a, b in RATES]).statistic
    assert 0.5 < turned < 0.99
    assert tables.whose_change(between).endswith(
        "Over all 16 ordered pairs of arms, within a seed, transfer has a rank correlation of "
        "**1.00 ± 0.00** with R² from the attacked network to the one that reads, of "
        f"**{turned:.2f} ± 0.00** with R² the other way round, and of **−1.00 ± 0.00** with the cosine of "
        "their gradients."
    )


def test_arms_that_were_not_recorded_have_no_rows(between):
    between.config["arms"] = ["regular", "stranger"]
    assert list(rows(tables.strangers(between)))[1:] == [
        "regular → regular", "regular → stranger", "stranger → regular",
    ]  # fmt: skip
    text = tables.whose_change(between)
    assert list(rows(text, 2)) == [("pair", "others")] and "Over all 4 ordered pairs" in text


# --- Variants of the loss ------------------------------------------------------------------------


@pytest.fixture
def variants():
    """The released loss costs every pair a model, "summed" has no trials; ε = 0.10 is the middle one."""

    def values(setting, seed):
        corrected = setting["variant"] == "corrected"
        rate = {0.05: 14, 0.10: 37, 0.15: 80}
        return {
            "accuracy": [0.96, 0.94] if corrected else [0.1, 0.9],
            "predictability": predicted(0.84, 0.81, (19.0, 15.0)),
            "transfer": attacked(lambda epsilon, source: rate[epsilon] + source, EPSILONS[:3]),
        }

    tried = [{"architecture": "cnn", "variant": variant} for variant in ("released", "corrected")]
    names = ["released", "summed", "corrected"]
    return record(
        "variants", tried, values, seeds=(0,), architectures=["cnn"], variants=names, epsilons=EPSILONS[:3]
    )


def test_of_the_variants_each_column_is_what_its_head_says(variants):
    text = tables.variants(variants)
    found = rows(text)
    assert found["pairs"] == [
        "collapsed", "accuracy", "R² 1 → 2", "R² 2 → 1", "effective rank 1", "effective rank 2",
        "transfer, ε = 0.10", "transfer, ε = 0.05", "both misread, ε = 0.05",
    ]  # fmt: skip
    assert found["CNN, corrected"] == [
        "0 of 1",
        "95 %",
        "0.84",
        "0.81",
        "19.0",
        "15.0",
        "38 %",
        "16 %",
        "8 %",
    ]
    assert "*None* is λ = 0. smoke scale · 1 seed" in text


def test_a_variant_whose_pairs_collapsed_or_that_has_no_trials_has_no_value(variants):
    found = rows(tables.variants(variants))
    assert found["CNN, released"] == ["1 of 1", *["no value"] * 8]
    assert found["CNN, summed"] == ["0 of 0", *["no value"] * 8]
    assert list(found)[1:] == ["CNN, released", "CNN, summed", "CNN, corrected"]


def test_a_record_with_one_epsilon_shows_it_as_the_middle_and_as_the_weakest(variants):
    variants.config["epsilons"] = [0.10]
    assert rows(tables.variants(variants))["CNN, corrected"][-3:] == ["38 %", "38 %", "19 %"]


# --- A fixed surrogate ---------------------------------------------------------------------------


@pytest.fixture
def defences():
    """The regular reader misreads 60 of 100 at ε = 0.10, half as many at 0.05; late 5 less, corrected 20."""

    def values(setting, seed):
        arms = {"regular": 0, "decorrelated_late": 5, "corrected": 20}
        less = {"surrogate": 10, "cnn": 0, "fully_connected": -10}
        cells = [
            {"source_arm": attacker, "source": n, "target_arm": arm, "target": 2, "rate": 60 - fall - more}
            for attacker, more in less.items() for n in (1, 2)[: 1 + (attacker != "surrogate")]
            for arm, fall in arms.items()
        ]  # fmt: skip
        transfer = [
            {
                **cell, "epsilon": e, "source_fooled_clean": 100, "both_fooled_clean": 10 * e * cell["rate"],
                "signs_clean": 4,
            }
            for cell in cells for e in (0.05, 0.10)
        ]  # fmt: skip
        relation = [{**c, "heldout": c["rate"] / 100, "gradient_cosine": c["rate"] / 1000} for c in cells]
        readers = [{"arm": arm, "accuracy": 0.97 - fall / 1000} for arm, fall in arms.items()]
        return {"accuracy": [0.95] * 8, "readers": readers, "transfer": transfer, "relation": relation}

    config = {"arms": ["regular", "decorrelated_late", "corrected"], "unseen": ["cnn", "fully_connected"]}
    return record("surrogate", [{"architecture": "cnn"}], values, epsilons=[0.05, 0.10], **config)


def test_each_attacker_and_reader_has_a_row_with_its_change_against_the_regular_reader(defences):
    text = tables.surrogate(defences)
    found = rows(text, 2)
    assert found["attacked", "read by"] == [
        "R², held out", "cosine of gradients", "transfer, ε = 0.05", "transfer, ε = 0.10", "signs, ε = 0.10",
    ]  # fmt: skip
    assert found["the surrogate", "regular"] == [
        "0.50 ± 0.00",
        "0.05 ± 0.00",
        "25 ± 0 %",
        "50 ± 0 %",
        "4 ± 0 %",
    ]
    assert found["unseen CNNs", "corrected"] == [
        "0.40 ± 0.00", "0.04 ± 0.00", "20 ± 0 % (−10 ± 0)", "40 ± 0 % (−20 ± 0)", "4 ± 0 %",
    ]  # fmt: skip
    assert found["unseen fully connected", "late"][3] == "65 ± 0 % (−5 ± 0)"
    assert len(found) == 1 + 3 * 3
    assert "without an attack: regular 97 ± 0 %, late 96 ± 0 %, corrected 95 ± 0 %." in text
    defences.trials[0]["values"]["accuracy"][3] = 0.1
    assert rows(tables.surrogate(defences), 2)["unseen CNNs", "late"][3] == "55 % (−5)"

"""Tables and sentences of chapter 2, from records whose numbers can be counted by hand."""

import pytest
from markdown_tables import PROVENANCE, rows

from dnabook.records import Record
from dnabook.tables import parametric_distance as tables

EPSILONS = [0.05, 0.10, 0.15, 0.20]
TARGETS = [None, 1000, 2000, 3000]


def distances(rate, seeds=(0, 1)):
    """A record of pairs at every target distance of which rate(ε, target, seed) of 100 images transfer."""

    def trial(target, seed):
        place = TARGETS.index(target)
        rows = [
            {
                "epsilon": epsilon, "source": source, "source_fooled_clean": 100,
                "both_fooled_clean": rate(epsilon, target or 0, seed), "n": 100, "target_wrong": place,
                "source_fooled": 120, "both_fooled": 10 * seed + place,
            }
            for epsilon in EPSILONS for source in (1, 2)
        ]  # fmt: skip
        features = [
            {"epsilon": e, "heldout_1_to_2": 0.99 - e - place / 100, "heldout_2_to_1": 0.97 - e - place / 100}
            for e in (0.0, *EPSILONS)
        ]
        values = {
            "accuracy": [0.94 + place / 100, 0.96 + place / 100], "distance": (target or 680) + 2.0 * seed,
            "initial_distance": 45.0, "transfer": rows, "features": features,
        }  # fmt: skip
        return {
            "setting": {"target_distance": target},
            "seed": seed,
            "values": values,
            "provenance": PROVENANCE,
        }

    trials = [trial(target, seed) for seed in seeds for target in TARGETS]
    return Record("parameter_distance", "smoke", {"target_distances": TARGETS, "epsilons": EPSILONS}, trials)


def falling(epsilon, target, seed):
    return 90 - target // 100 + round(20 * epsilon)


def test_rank_correlation_is_given_with_and_without_the_pairs_that_nothing_pushes():
    """Without the free pairs transfer falls with distance, but they are lowest and lie nearest: ρ = 0.2.

    Both counts of the paper rise with distance.
    """
    text = tables.rank_correlations(
        distances(lambda e, target, seed: falling(e, target, seed) if target else 1)
    )
    found = rows(text)
    assert list(found) == ["ε", "0.05", "0.10", "0.15", "0.20"]
    assert found["ε"] == [
        "ρ, distance against transfer",
        "pushed pairs",
        "as printed, pushed pairs",
        "all attacks counted",
        "all attacks counted, pushed pairs",
    ]
    assert found["0.10"] == ["0.20 ± 0.00", "−1.00 ± 0.00", *["1.00 ± 0.00"] * 3]
    assert "|\n\nsmoke scale · 2 seeds" in text


def test_each_row_of_rank_correlations_is_of_its_own_epsilon():
    def only_at_the_third_epsilon(epsilon, target, seed):
        return falling(epsilon, target if epsilon == 0.15 else -target, seed)

    found = rows(tables.rank_correlations(distances(only_at_the_third_epsilon)))
    assert [cells[0][:5] for cells in found.values()][1:] == ["1.00 ", "1.00 ", "−1.00", "1.00 "]


def test_transfer_falls_where_the_whole_interval_lies_below_zero():
    """At ε = 0.10 all pairs of every seed rank the same way, at 0.05 the free ones do not."""

    def rate(epsilon, target, seed):
        if epsilon == 0.10 or (epsilon == 0.05 and target):
            return falling(epsilon, target, seed)
        return 1 if epsilon == 0.05 else 10 + target // 100

    assert tables.where_transfer_falls(distances(rate, seeds=range(3))) == (
        "Where does the interval of ρ lie wholly below zero, so that the claim fails: the further apart, the "
        "less transfers? With all pairs **at ε = 0.10**; among pushed pairs alone, which are the paper's "
        "kind, **at ε = 0.05, 0.10**. Each is a try at 4 values of ε on the same pairs. With intervals "
        "widened to allow for that many tries (Bonferroni): at ε = 0.10 and at ε = 0.05, 0.10."
    )


def test_an_interval_that_is_widened_for_four_tries_may_contain_zero_where_the_plain_one_does_not():
    """ρ of all pairs is −1, −1, −1 and −0.2: −0.8 ± 0.6, ± 1.0 for four tries; of pushed ones −0.9 ± 0.6."""

    def rate(epsilon, target, seed):
        return {0: 60, 1000: 70, 2000: 80, 3000: 50}[target] if seed == 3 else falling(epsilon, target, seed)

    text = tables.where_transfer_falls(distances(rate, seeds=range(4)))
    assert "With all pairs **at ε = 0.05, 0.10, 0.15, 0.20**" in text
    assert text.endswith("(Bonferroni): at no ε and at ε = 0.05, 0.10, 0.15, 0.20.")


def test_the_papers_own_counts_are_told_of_pushed_pairs_with_what_the_rule_would_say():
    """As printed transfer falls with distance at the two smallest ε; as the legend counts, at the first."""
    record = distances(falling)
    for trial in record.trials:
        place = TARGETS.index(trial["setting"]["target_distance"])
        for row in trial["values"]["transfer"]:
            row["both_fooled"] = 50 - place if row["epsilon"] < 0.15 else 50 + place
            row["target_wrong"] = 50 - place if row["epsilon"] < 0.10 else (9, 50, 60, 50)[place]
    assert tables.by_the_papers_counts(record) == (
        "By the paper's own counts, among pushed pairs alone: with the rate as its Methods print it, the "
        "interval lies below zero **at ε = 0.05, 0.10**; as the legend of its Figure 1 counts, **at ε = "
        "0.05**. By the legend's count of these pairs the rule of C1 would say *not reproduced* at ε = 0.05; "
        "*reproduced* at ε = 0.10, 0.15, 0.20."
    )


def test_one_seed_has_no_interval_and_excludes_nothing():
    text = tables.where_transfer_falls(distances(falling, seeds=(0,)))
    assert (
        "With all pairs **at no ε**; among pushed pairs alone, which are the paper's kind, **at no ε**"
        in text
    )
    assert rows(tables.rank_correlations(distances(falling, seeds=(0,))))["0.20"] == [
        "−1.00",
        "−1.00",
        *["1.00"] * 3,
    ]


def test_a_row_for_each_target_distance_at_the_lower_epsilon_in_the_middle():
    found = rows(tables.by_distance(distances(falling)))
    assert found["D_t"] == ["accuracy", "transfer, ε = 0.10", "R², ε = 0.10"]
    assert list(found)[1:] == ["none", "1000", "2000", "3000"]
    assert found["none"] == ["95 ± 0 %", "92 ± 0 %", "0.880 ± 0.000"]
    assert found["3000"] == ["98 ± 0 %", "62 ± 0 %", "0.850 ± 0.000"]


def test_a_distance_without_pairs_has_no_value():
    record = distances(falling)
    record.trials = [trial for trial in record.trials if trial["setting"]["target_distance"] != 2000]
    found = rows(tables.by_distance(record))
    assert found["2000"] == ["no value"] * 3 and found["1000"][0] == "96 ± 0 %"


@pytest.mark.parametrize(("seeds", "end"), [((0, 1, 2), "682 ± 5"), ((1,), "682")])
def test_free_pairs_are_told_by_where_they_start_and_end(seeds, end):
    start = "45 ± 0" if len(seeds) > 1 else "45"
    text = tables.free_pairs(distances(falling, seeds))
    assert text == f"Free pairs start at a squared distance of {start} and end at {end}."

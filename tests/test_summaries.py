"""Means over pairs, hand-counted on a record small enough to read."""

from __future__ import annotations

import itertools
import math

import pytest

from dnabook import summaries
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.measures import MeanInterval
from dnabook.records import Record


def counts(epsilon, source, both, fooled, both_clean, fooled_clean):
    return {
        "attack": "pgd-linf", "epsilon": epsilon, "source": source, "target": 3 - source,
        "both_fooled": both, "source_fooled": fooled,
        "both_fooled_clean": both_clean, "source_fooled_clean": fooled_clean,
    }  # fmt: skip


def trial(seed, arm, accuracy, transfer, distance=0.0):
    predictability = [{"source": 1, "heldout": 0.9 - seed / 10}, {"source": 2, "heldout": 0.5}]
    values = {
        "accuracy": accuracy,
        "transfer": transfer,
        "predictability": predictability,
        "distance": distance,
    }
    provenance = {"seconds": 1.0, "device": "CPU", "date": "2026-01-02T03:04:05+00:00"}
    return {"setting": {"arm": arm}, "seed": seed, "values": values, "provenance": provenance}


@pytest.fixture
def record():
    return Record(
        "transfer",
        "smoke",
        {},
        [
            trial(0, "regular", [0.9, 1.0], [counts(0.1, 1, 5, 10, 1, 4), counts(0.1, 2, 9, 10, 4, 4)]),
            trial(1, "regular", [0.8, 0.9], [counts(0.1, 1, 1, 10, 1, 4), counts(0.1, 2, 5, 10, 0, 0)]),
            trial(1, "decorrelated", [0.9, 0.1], [counts(0.1, 1, 10, 10, 0, 0)]),
        ],
    )


def test_both_directions_weigh_the_same_within_a_pair_and_pairs_among_each_other(record):
    printed = summaries.transfer(record, conditioned=False, arm="regular", epsilon=0.1)
    assert printed.mean == pytest.approx(((0.5 + 0.9) / 2 + (0.1 + 0.5) / 2) / 2) and printed.n == 2


def test_a_direction_in_which_nothing_fools_the_source_does_not_count(record):
    conditioned = summaries.transfer(record, arm="regular", epsilon=0.1)
    assert conditioned.mean == pytest.approx(((1 / 4 + 4 / 4) / 2 + 1 / 4) / 2)


def test_one_direction_can_be_asked_for(record):
    assert summaries.transfer(record, arm="regular", source=2, conditioned=False).mean == pytest.approx(0.7)


def test_a_pair_in_which_either_model_stays_below_one_half_has_collapsed(record):
    assert summaries.collapsed(record, arm="decorrelated") == (1, 1)
    assert summaries.collapsed(record) == (1, 3)
    assert [t["setting"]["arm"] for t in summaries.healthy(record).trials] == ["regular", "regular"]
    assert len(record.trials) == 3


def test_accuracy_is_the_mean_of_both_models_over_pairs(record):
    assert summaries.accuracy(record, arm="regular").mean == pytest.approx(0.9)


def test_predictability_averages_one_direction_over_pairs(record):
    assert summaries.predictability(record, arm="regular", source=1).mean == pytest.approx(0.85)


def test_predictability_without_a_direction_counts_each_pair_once_with_the_mean_of_both(record):
    found = summaries.predictability(record, arm="regular")
    assert found.n == 2 and found.mean == pytest.approx(((0.9 + 0.5) / 2 + (0.8 + 0.5) / 2) / 2)
    expected = {0: pytest.approx(0.7), 1: pytest.approx(0.65)}
    assert summaries.heldout_by_seed(record, arm="regular") == expected


QUERIES = {
    "accuracy": summaries.accuracy,
    "transfer": lambda record, **where: summaries.transfer(record, epsilon=0.1, **where),
    "predictability": lambda record, **where: summaries.predictability(record, source=1, **where),
    "heldout_by_seed": lambda record, **where: summaries.heldout_by_seed(record, source=1, **where),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_that_two_trials_of_a_seed_match_is_refused(query, record):
    with pytest.raises(ValueError, match="several trials of a seed in transfer; say more of: arm"):
        query(record)
    query(record, arm="regular")
    record.trials.append(record.trials[0])
    with pytest.raises(ValueError, match="several trials of a seed"):
        query(record, arm="regular")


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_misspelt_name_is_not_passed_over(query, record):
    with pytest.raises(KeyError):
        query(record, arm="regular", weight=0.1)


def test_images_that_both_misread_are_counted_over_all_that_both_had_read():
    rows = [counts(0.1, 1, 5, 10, 3, 4), counts(0.1, 2, 9, 10, 6, 8)]
    rows = [{**row, "n_clean": n} for row, n in zip(rows, (12, 10), strict=True)]
    record = Record("transfer", "smoke", {}, [trial(0, "regular", [0.9, 1.0], rows)])
    found = summaries.both_misread_by_seed(record, arm="regular", epsilon=0.1)
    assert found == {0: pytest.approx((3 / 12 + 6 / 10) / 2)}
    assert summaries.both_misread_by_seed(record, source=2) == {0: pytest.approx(0.6)}


def test_a_relation_is_the_mean_of_both_directions_between_two_arms():
    rows = [
        {"source_arm": "a", "target_arm": target, "source": s, "target": 3 - s, "heldout": value}
        for target, s, value in (("a", 1, 0.9), ("a", 2, 0.7), ("b", 1, 0.1))
    ]
    one = trial(4, "regular", [0.9, 1.0], [])
    one["values"]["relation"] = rows
    record = Record("strangers", "smoke", {}, [one])
    found = summaries.reading_by_seed(record, "relation", "heldout", source_arm="a", target_arm="a")
    assert found == {4: pytest.approx(0.8)}


def test_a_change_is_shared_out_between_each_network_and_the_pair():
    """From 70 % within regular pairs to 30: 20 and 5 of the 40 are lost with strangers already."""
    rates = {
        ("regular", "regular"): 70, ("regular", "stranger"): 60, ("stranger", "regular"): 65,
        ("late", "late"): 30, ("late", "stranger"): 40, ("stranger", "late"): 60,
    }  # fmt: skip
    rows = [
        {**counts(0.1, source, 0, 100, rate, 100), "source_arm": arms[0], "target_arm": arms[1]}
        for arms, rate in rates.items()
        for source in (1, 2)
    ]
    record = Record("strangers", "smoke", {}, [trial(0, "regular", [0.9, 1.0], rows)])
    found = summaries.shares_of_the_change(record, "late", 0.1)
    assert [round(100 * by[0]) for by in found] == [-40, -20, -5, -15]
    assert found.pair[0] == pytest.approx(-0.15)


def test_a_change_can_be_shared_out_with_the_regular_networks_of_the_seed():
    """From 70 to 30, of which 25 and 10 are lost already where a regular network stands on the other side."""
    rates = {
        ("regular", "regular"): 70,
        ("late", "late"): 30,
        ("late", "regular"): 45,
        ("regular", "late"): 60,
    }
    rows = [
        {**counts(0.1, 1, 0, 100, rate, 100), "source_arm": arms[0], "target_arm": arms[1]}
        for arms, rate in rates.items()
    ]
    record = Record("strangers", "smoke", {}, [trial(0, "regular", [0.9, 1.0], rows)])
    found = summaries.shares_of_the_change(record, "late", 0.1, others="regular")
    assert [round(100 * by[0]) for by in found] == [-40, -25, -10, -5]


def test_rank_correlation_is_taken_within_each_seed():
    # Within each seed transfer falls with distance; across seeds it would rise.
    trials = [
        trial(seed, "regular", [0.9, 0.9], [counts(0.1, 1, 0, 0, both, 100)], distance)
        for seed, base in ((0, 10), (1, 60))
        for both, distance in ((base + 9, base), (base + 5, base + 1), (base, base + 2))
    ]
    rho = summaries.rank_correlation(Record("parameter_distance", "smoke", {}, trials), 0.1)
    assert rho.mean == pytest.approx(-1) and rho.n == 2


def test_a_relation_s_rank_correlation_with_transfer_is_taken_within_each_seed_over_all_pairs_of_arms():
    """R² rises with transfer in seed 0 and falls in seed 1; the cosine falls with it in both."""

    def values(seed):
        arms = {("a", "a"): 10, ("a", "b"): 20, ("b", "a"): 30, ("b", "b"): 40}
        rows = [
            {**counts(0.1, 1, 0, 0, rate, 100), "source_arm": source, "target_arm": target,
             "heldout": rate / 100 if seed == 0 else -rate, "gradient_cosine": 1 / rate}
            for (source, target), rate in arms.items()
        ]  # fmt: skip
        return {"transfer": rows, "relation": rows, "accuracy": [0.9, 0.9]}

    trials = [{"setting": {}, "seed": seed, "values": values(seed)} for seed in (0, 1)]
    record = Record("strangers", "smoke", {"arms": ["a", "b"]}, trials)
    heldout = summaries.relation_rank_correlation(record, "heldout", 0.1)
    assert heldout.mean == pytest.approx(0) and heldout.n == 2
    cosine = summaries.relation_rank_correlation(record, "gradient_cosine", 0.1)
    assert cosine == pytest.approx((-1, 0, 2))
    # The other way round (a, b) and (b, a) change places: the ranks 1 3 2 4, so 1 − 6·2/60 = 0.8.
    turned = summaries.relation_rank_correlation(record, "gradient_cosine", 0.1, back=True)
    assert turned == pytest.approx((-0.8, 0, 2))


def test_numbers_are_written_with_their_interval_where_there_is_one():
    assert summaries.plain(MeanInterval(0.983, 0.0141, 3)) == "0.98 ± 0.01"
    assert summaries.plain(MeanInterval(0.983, math.nan, 1)) == "0.98"
    assert summaries.plain(MeanInterval(math.nan, math.nan, 0)) == "no value"
    assert summaries.percent(MeanInterval(0.454, 0.031, 5)) == "45 ± 3 %"
    assert summaries.percent(MeanInterval(math.nan, math.nan, 0)) == "no value"
    assert summaries.percent(0.5) == "50 %"


def test_a_table_aligns_its_first_column_left_and_the_others_right():
    assert summaries.table(["a", "b"], [(1, "x")]) == "| a | b |\n| :-- | --: |\n| 1 | x |"


def test_a_mean_that_rounds_to_zero_has_no_minus_sign():
    assert summaries.plain(MeanInterval(-0.004, 0.1, 3), 1) == "0.0 ± 0.1"
    assert summaries.percent(MeanInterval(-0.001, 0.01, 3)) == "0 ± 1 %"
    assert summaries.plain(MeanInterval(-0.06, 0.1, 3), 1) == "−0.1 ± 0.1"


@pytest.mark.parametrize(
    ("effect", "word"),
    [
        (MeanInterval(0.2, 0.1, 3), "above"),
        (MeanInterval(-0.2, 0.1, 3), "below"),
        (MeanInterval(-0.2, 0.3, 3), "level with"),
        (MeanInterval(0.2, math.nan, 1), "level with"),
        (MeanInterval(math.nan, math.nan, 0), "level with"),
    ],
)
def test_two_arms_are_apart_only_where_the_interval_of_their_difference_excludes_zero(effect, word):
    assert summaries.order(effect) == word


def test_heldout_values_are_given_seed_by_seed_for_one_direction(record):
    found = summaries.heldout_by_seed(record, arm="regular", source=1)
    assert found == {seed: 0.9 - seed / 10 for seed in record.seeds}


def test_one_arm_against_another_says_where_it_lies_and_by_how_many_points():
    def trial(arm, seed, right):
        row = {"attack": "pgd", "epsilon": 0.1, "objective": "printed", "either": right, "n": 100}
        return {"setting": {"arm": arm}, "seed": seed, "values": {"attacked": [row]}}

    trials = [trial("dna", seed, 60 + seed) for seed in range(3)]
    trials += [trial("autoencoder", seed, 50 - seed) for seed in range(3)]
    record = Record("autoencoder_mnist", "smoke", {"objectives": ["printed"]}, trials)
    where = {"attack": "pgd", "epsilon": 0.1}
    text = summaries.against(record, "dna", "autoencoder", "the autoencoder", **where)
    assert text.startswith("**above** the autoencoder (12 ± 5 points)")
    assert (
        summaries.against(record, "dna", "dna", "itself", **where) == "**level with** itself (0 ± 0 points)"
    )


def reading(objective, right):
    return {"attack": "pgd", "epsilon": 0.1, "objective": objective, "either": right, "n": 100}


@pytest.fixture
def digits():
    """Two paths attacked by two objectives, one path by the first; the fixed table has the first only."""
    clean = {"attack": "none", "epsilon": 0.0, "either": 99, "n": 100}
    fixed = [clean, reading("printed", 70), reading("strongest", 70)]
    two = [reading("printed", 60), reading("corrected", 40), reading("strongest", 30)]
    one = [reading("printed", 20), reading("strongest", 20)]
    trials = [
        {"setting": {"arm": arm}, "seed": 0, "values": {"clean": clean, "attacked": rows, "fixed": fixed}}
        for arm, rows in (("dna", two), ("autoencoder", one))
    ]
    return Record("autoencoder_mnist", "smoke", {"objectives": ["printed", "corrected"]}, trials)


@pytest.mark.parametrize(
    ("arm", "objective", "table", "right"),
    [
        ("dna", "printed", "attacked", 0.6), ("dna", "corrected", "attacked", 0.4),
        ("dna", "strongest", "attacked", 0.3), ("dna", "released", "attacked", None),
        ("autoencoder", "printed", "attacked", 0.2), ("autoencoder", "corrected", "attacked", 0.2),
        ("autoencoder", "strongest", "attacked", 0.2), ("autoencoder", "released", "attacked", None),
        ("dna", "printed", "fixed", 0.7), ("dna", "strongest", "fixed", 0.7),
        ("dna", "corrected", "fixed", None), ("autoencoder", "corrected", "fixed", 0.7),
    ],
)  # fmt: skip
def test_only_a_single_path_answers_for_an_objective_that_it_was_not_attacked_by(
    digits, arm, objective, table, right
):
    def ask():
        where = {"arm": arm, "attack": "pgd", "epsilon": 0.1, "objective": objective, "table": table}
        return summaries.reconstruction_by_seed(digits, **where)

    if right is not None:
        assert ask() == {0: right}
        return
    with pytest.raises(ValueError, match=f"{objective!r} is not recorded of {arm}; known: printed"):
        ask()


@pytest.mark.parametrize("table, attack", [("attacked", None), ("fixed", None), ("fixed", "none")])
def test_clean_images_have_no_objective(digits, table, attack):
    where = {"arm": "dna", "objective": "corrected", "table": table, "attack": attack}
    assert summaries.reconstruction_by_seed(digits, **where) == {0: 0.99}


def test_an_arm_recorded_twice_for_a_seed_is_refused(digits):
    digits.trials.append(digits.trials[0])
    with pytest.raises(ValueError, match="several trials of a seed"):
        summaries.reconstruction(digits, arm="dna")


def test_quality_is_read_for_one_path_or_for_both_and_one_neck_has_no_r_squared_of_codes():
    qualities = {
        ("dna", 0): {"mse": [0.01, 0.03], "heldout": [-0.1, 0.9]},
        ("dna", 1): {"mse": [0.02, 0.04], "heldout": [math.nan, 0.7]},
        ("autoencoder", 0): {"mse": [0.015]},
    }
    trials = [
        {"setting": {"arm": arm}, "seed": seed, "values": {"quality": quality}}
        for (arm, seed), quality in qualities.items()
    ]
    record = Record("autoencoder_mnist", "smoke", {}, trials)
    both = summaries.quality_by_seed(record, "mse", arm="dna")
    assert both == {0: pytest.approx(0.02), 1: pytest.approx(0.03)}
    assert summaries.quality_by_seed(record, "mse", 1, arm="dna") == {0: 0.03, 1: 0.04}
    assert summaries.over(summaries.quality_by_seed(record, "heldout", 0, arm="dna")).mean == -0.1
    assert summaries.quality_by_seed(record, "mse", arm="autoencoder") == {0: pytest.approx(0.015)}
    assert summaries.quality_by_seed(record, "heldout", 0, arm="autoencoder") == {}
    with pytest.raises(ValueError, match="several trials of a seed"):
        summaries.quality_by_seed(record, "mse")


def test_natural_accuracy_is_that_of_an_epoch_over_both_models_of_each_pair():
    epochs = [{"epoch": 0, "accuracy": [0.9, 1.0]}, {"epoch": 1, "accuracy": [0.6, 0.8]}]
    trials = [
        {"setting": {"arm": arm}, "seed": seed, "values": {"accuracy": [1, 1], "epochs": epochs}}
        for arm, seed in (("a", 0), ("a", 3), ("b", 0))
    ]
    record = Record("dverge", "smoke", {}, trials)
    found = summaries.natural_by_seed(record, epoch=1, arm="a")
    assert found == {0: pytest.approx(0.7), 3: pytest.approx(0.7)}


def test_what_a_reader_notices_is_a_share_of_all_images_or_of_the_misread_ones():
    row = {
        "attack": "pgd",
        "epsilon": 0.1,
        "n": 200,
        "wrong": 50,
        "differ": 20,
        "unnoticed": 40,
        "auroc": 0.7,
    }
    other = {**row, "epsilon": 0.2, "wrong": 0, "unnoticed": 0}
    one = {"setting": {"arm": "dna"}, "seed": 3, "values": {"noticed": [row, other]}}
    record = Record("disagreement", "smoke", {}, [one])

    def read(reading, epsilon=0.1):
        return summaries.noticed_by_seed(record, reading, arm="dna", epsilon=epsilon)

    expected = {"wrong": 0.25, "differ": 0.1, "unnoticed": 0.2, "agreed": 0.8, "auroc": 0.7}
    assert {reading: read(reading)[3] for reading in expected} == expected
    assert math.isnan(read("agreed", 0.2)[3])


def test_transfer_beyond_random_signs_is_of_the_images_that_the_rate_counts():
    """From untrained features 30 of 50 against 20, and 10 of 20 against 15; from a trained one 80 of 100
    against 50. An attack that fooled nothing does not count."""
    rows = [(30, 20, 50), (10, 15, 20), (0, 0, 0)]
    values = {
        "transfer": [
            {"epsilon": 0.1, "both_fooled_clean": b, "signs_clean": s, "source_fooled_clean": n}
            for b, s, n in rows
        ],
        "damage": [
            {"epsilon": 0.1, "attacked": 80, "signs": 50, "counted": 100},
            {"epsilon": 0.1, "attacked": 0, "signs": 0, "counted": 0},
            {"epsilon": 0.2, "attacked": 9, "signs": 0, "counted": 9},
        ],
    }
    record = Record(
        "controls", "smoke", {}, [{"setting": {"architecture": "cnn"}, "seed": 4, "values": values}]
    )
    found = summaries.beyond_signs_by_seed(record, 0.1, architecture="cnn")
    assert found == {4: pytest.approx((0.2 - 0.25) / 2)}
    assert summaries.beyond_signs_by_seed(record, 0.1, learned=True) == {4: pytest.approx(0.3)}


def test_a_rank_correlation_is_taken_within_each_seed_that_all_cells_have():
    """Seed 0 agrees in order and seed 1 is turned round; seed 2 has no second cell's reading."""
    cells = [
        ({0: 1, 1: 1, 2: 5}, {0: 10, 1: 30, 2: 1}),
        ({0: 2, 1: 2}, {0: 20, 1: 20, 2: 2}),
        ({0: 3, 1: 3, 2: 7}, {0: 30, 1: 10, 2: 3}),
    ]
    found = summaries.rank_correlation_of(cells)
    assert (found.mean, found.n) == (0, 2)
    assert summaries.rank_correlation_of(cells[:0]).n == 0
    assert summaries.rank_correlation_by_seed(cells) == {0: pytest.approx(1), 1: pytest.approx(-1)}
    assert summaries.rank_correlation_by_seed(cells[:0]) == {}


# --- Capacity ------------------------------------------------------------------------------------


def test_a_slope_is_what_a_doubling_adds_by_least_squares_for_seeds_with_every_width():
    """Over log₂ width −2, −1, 0, 1 a line has its own slope; 1, 0, 0, 0 has (−1.5 · 1) / 5 = −0.3."""
    readings = {
        0.25: {0: 1.0, 1: 1.0, 2: 9.0}, 0.5: {0: 3.0, 1: 0.0}, 1: {0: 5.0, 1: 0.0, 2: 9.0},
        2: {0: 7.0, 1: 0.0, 2: 9.0},
    }  # fmt: skip
    found = summaries.slope_by_seed(lambda width: readings[width], (0.25, 0.5, 1, 2))
    assert found == {0: pytest.approx(2), 1: pytest.approx(-0.3)}
    with pytest.raises(ValueError, match=r"at least two widths, got \[1\]"):
        summaries.slope_by_seed(lambda width: readings[width], [1])


# --- Across architectures ------------------------------------------------------------------------


def between_kinds(told, beyond, seeds=(0,), accuracy=0.9):
    """A record of two kinds, a and b, in which told(cell, seed) gives a cell's readings, by name.

    A map has two, for ε = 0.1 and 0.2.  beyond(cell, e, seed): so many points more transfer than random signs
    do; the more these are, the fewer transfer at all. When attacked, the two networks of a kind lie 0.1 and
    10 points to either side.
    """

    def values(seed):
        found = {"accuracy": [0.9, 0.9, 0.9, accuracy], "relation": [], "movement": [], "transfer": []}
        networks = list(itertools.product("ab", (1, 2)))
        for (source_arm, source), (target_arm, target) in itertools.permutations(networks, 2):
            of = {"source_arm": source_arm, "source": source, "target_arm": target_arm, "target": target}
            cell, apart = source_arm + target_arm, 2 * source - 3
            readings = told(cell, seed)
            relation = ("heldout", "nonlinear", "cka", "gradient_cosine")
            relation = {name: readings[name] + apart / 10 for name in relation if name in readings}
            found["relation"].append({**of, **relation})
            for place, e in enumerate((0.1, 0.2)):
                for name in {NATURAL_MAP, OWN_MAP} & set(readings):
                    share = readings[name][place] + apart / 10
                    found["movement"].append({**of, "map": name, "epsilon": e, "explains": share})
                gap = beyond(cell, e, seed) + 10 * apart
                row = {"source_fooled_clean": 100, "both_fooled_clean": 50 - gap, "signs_clean": 50 - 2 * gap}
                found["transfer"].append({**of, "attack": "pgd-linf", "epsilon": e, **row})
        return found

    trials = [{"setting": {"architecture": "all"}, "seed": seed, "values": values(seed)} for seed in seeds]
    return Record("architectures", "smoke", {"kinds": ["a", "b"], "epsilons": [0.1, 0.2]}, trials)


CELLS = {"aa": 1, "ab": 2, "ba": 3, "bb": 4}  # attacked, reads; in the order in which more transfers


@pytest.mark.parametrize(
    ("reading", "epsilon", "expected"),
    [
        ("heldout", 0.1, 0.2), ("heldout", 0.2, 0.2), ("nonlinear", 0.1, 2.2), ("cka", 0.1, 3.2),
        ("gradient_cosine", 0.1, 4.2), (NATURAL_MAP, 0.1, 5.2), (NATURAL_MAP, 0.2, 6.2), (OWN_MAP, 0.1, 7.2),
        (OWN_MAP, 0.2, 8.2),
    ],
)  # fmt: skip
def test_what_foretells_is_read_from_its_table_by_map_and_epsilon_for_the_kinds_asked_for(
    reading, epsilon, expected
):
    """A whole number for the reading, tenths for the cell: 2 where a is attacked and b reads, else 3."""

    def told(cell, seed):
        tenth = CELLS[cell] / 10
        relation = {"heldout": 0, "nonlinear": 2, "cka": 3, "gradient_cosine": 4}
        moved = {NATURAL_MAP: (5 + tenth, 6 + tenth), OWN_MAP: (7 + tenth, 8 + tenth)}
        return {name: number + tenth for name, number in relation.items()} | moved

    record = between_kinds(told, lambda cell, e, seed: 0, seeds=(4,))
    there = summaries.foretold_by_seed(record, reading, epsilon, source_arm="a", target_arm="b")
    back = summaries.foretold_by_seed(record, reading, epsilon, source_arm="b", target_arm="a")
    assert there == {4: pytest.approx(expected)} and back == {4: pytest.approx(expected + 0.1)}
    within = summaries.foretold_by_seed(record, reading, epsilon, source_arm="b", target_arm="b")
    assert within == {4: pytest.approx(expected + 0.2)}


def test_a_perfect_order_foretells_by_one_a_reversed_one_by_minus_one_within_each_seed_and_at_each_epsilon():
    """At ε = 0.2 what transfers is reversed, and in seed 1 the cosine is. The rates alone say the opposite.

    CKA's ranks 1 3 2 4: 1 − 6·2/60 = 0.8; the natural map's 2 1 3 4 at 0.1 and 4 2 3 1 at 0.2, against
    4 3 2 1: 1 − 6·(0 + 1 + 1 + 0)/60 = 0.8.
    """

    def told(cell, seed):
        n = CELLS[cell]
        natural = {1: 2, 2: 1}.get(n, n), {1: 4, 2: 2, 3: 3, 4: 1}[n]
        return {
            "heldout": n, "nonlinear": -n, "cka": {2: 3, 3: 2}.get(n, n),
            "gradient_cosine": -n if seed else n, NATURAL_MAP: natural, OWN_MAP: (n, n),
        }  # fmt: skip

    record = between_kinds(told, lambda cell, e, seed: CELLS[cell] * (1 if e == 0.1 else -1), seeds=(0, 1))

    def found(reading, epsilon):
        rhos = summaries.foretelling_by_seed(record, reading, epsilon)
        return [round(rhos[seed], 6) for seed in (0, 1)]

    assert found("heldout", 0.1) == [1, 1] and found("heldout", 0.2) == [-1, -1]
    assert found("nonlinear", 0.1) == [-1, -1] and found("nonlinear", 0.2) == [1, 1]
    assert found("cka", 0.1) == [0.8, 0.8] and found("cka", 0.2) == [-0.8, -0.8]
    assert found("gradient_cosine", 0.1) == [1, -1] and found("gradient_cosine", 0.2) == [-1, 1]
    assert found(NATURAL_MAP, 0.1) == [0.8, 0.8] and found(NATURAL_MAP, 0.2) == [0.8, 0.8]
    assert found(OWN_MAP, 0.1) == [1, 1] and found(OWN_MAP, 0.2) == [-1, -1]


def test_r_squared_from_the_reader_is_that_of_the_cell_turned_round():
    """Transfer of aa, ab, ba, bb is 1 2 3 4. R² is 1 3 2 4: 0.8; turned, 1 2 3 4. Between kinds −1 and 1."""

    def told(cell, seed):
        return {"heldout": {2: 3, 3: 2}.get(CELLS[cell], CELLS[cell])}

    record = between_kinds(told, lambda cell, e, seed: CELLS[cell], seeds=(4,))
    cell = {"source_arm": "a", "target_arm": "b"}
    assert summaries.foretold_by_seed(record, "heldout", 0.1, **cell) == {4: pytest.approx(3)}
    assert summaries.foretold_by_seed(record, summaries.BACK, 0.1, **cell) == {4: pytest.approx(2)}
    for within, there, back in ((True, 0.8, 1), (False, -1, 1)):
        for reading, rho in (("heldout", there), (summaries.BACK, back)):
            found = summaries.foretelling_by_seed(record, reading, 0.1, within=within)
            assert found == {4: pytest.approx(rho)}


def test_between_kinds_alone_the_cells_within_one_do_not_count():
    """Over all cells the ranks 4 2 3 1: 1 − 6·18/60 = −0.8; of ab and ba, 2 and 3, the order is right."""
    record = between_kinds(
        lambda cell, seed: {"heldout": {1: 4, 4: 1}.get(CELLS[cell], CELLS[cell])},
        lambda cell, e, seed: CELLS[cell],
    )
    assert summaries.foretelling_by_seed(record, "heldout", 0.1) == {0: pytest.approx(-0.8)}
    assert summaries.foretelling_by_seed(record, "heldout", 0.1, within=False) == {0: pytest.approx(1)}


def test_a_seed_in_which_the_last_network_of_the_last_kind_collapsed_is_left_out_of_what_foretells():
    record = between_kinds(lambda cell, seed: {"heldout": CELLS[cell]}, lambda c, e, seed: CELLS[c], (0, 1))
    lost = between_kinds(
        lambda cell, seed: {"heldout": -CELLS[cell]}, lambda c, e, seed: CELLS[c], (2,), accuracy=0.49
    )
    record.trials += lost.trials
    assert set(summaries.foretelling_by_seed(record, "heldout", 0.1)) == {0, 1, 2}
    kept = summaries.healthy(record)
    assert summaries.foretelling_by_seed(kept, "heldout", 0.1) == {0: pytest.approx(1), 1: pytest.approx(1)}
    assert summaries.collapsed(record) == (1, 3)


@pytest.mark.parametrize("bonus", [(0, 0), (0.5, 0.25), (-0.5, 0.25)])
def test_what_a_kind_adds_as_a_source_or_as_a_reader_cancels_exactly_between_two_kinds(bonus):
    """Sources add 8 and 2, readers 1 and 16, a seed 4 each; what comes on top within a kind is averaged.

    All are sums of powers of two, so nothing is rounded.
    """
    source, reader, on_top = {"a": 8, "b": 2}, {"a": 1, "b": 16}, dict(zip("ab", bonus, strict=True))

    def of(source_arm, target_arm):
        own = on_top[source_arm] if source_arm == target_arm else 0
        return {seed: source[source_arm] + reader[target_arm] + 4 * seed + own for seed in (0, 1, 2)}

    expected = dict.fromkeys((0, 1, 2), sum(bonus) / 2)
    assert summaries.own_kind_by_seed(of, "a", "b") == summaries.own_kind_by_seed(of, "b", "a") == expected


def test_within_a_kind_and_between_are_compared_seed_by_seed_where_all_four_cells_have_the_seed():
    """(0.9 + 0.7) / 2 − (0.5 + 0.1) / 2 in seed 0, (0.4 + 0.6) / 2 − (0.7 + 0.9) / 2 in seed 1."""
    readings = {
        "aa": {0: 0.9, 1: 0.4, 2: 0.5}, "ab": {0: 0.5, 1: 0.7}, "ba": {0: 0.1, 1: 0.9, 2: 0.5, 3: 0.5},
        "bb": {1: 0.6, 0: 0.7, 2: 0.5},
    }  # fmt: skip

    def of(source_arm, target_arm):
        return readings[source_arm + target_arm]

    found = summaries.own_kind_by_seed(of, "a", "b")
    assert found == {0: pytest.approx(0.5), 1: pytest.approx(-0.3)} and list(found) == [0, 1]


def test_where_one_of_four_cells_is_not_a_number_its_kinds_cannot_be_compared():
    cells = {("cnn", "cnn"): 0.9, ("vit", "vit"): math.nan, ("cnn", "vit"): 0.5, ("vit", "cnn"): 0.1}
    found = summaries.own_kind_by_seed(
        lambda source_arm, target_arm: {0: cells[source_arm, target_arm]}, "cnn", "vit"
    )
    assert math.isnan(found[0]) and summaries.over(found).n == 0


def test_a_query_that_pairs_match_and_none_of_their_rows_does_is_an_error(record):
    with pytest.raises(
        ValueError, match=r"no row of transfer in transfer \(smoke\) matches .*'epsilon': 0\.3"
    ):
        summaries.transfer(record, arm="regular", epsilon=0.3)
    with pytest.raises(ValueError, match="no row of predictability"):
        summaries.predictability(record, arm="regular", source=3)
    assert summaries.transfer(record, arm="late", epsilon=0.1).n == 0  # of an arm that was never run


def test_a_seed_can_be_asked_for_like_any_setting(record):
    assert summaries.accuracy(record, arm="regular", seed=1).mean == pytest.approx(0.85)


def test_spearman_is_the_correlation_of_ranks_and_nan_of_fewer_than_two():
    assert summaries.spearman([1, 2, 5, 30], [0, 10, 11, 90]) == pytest.approx(1)
    assert summaries.spearman([1, 2, 3], [9, 5, 7]) == pytest.approx(-0.5)  # 1 − 6 (4 + 1 + 1) / (3 · 8)
    assert math.isnan(summaries.spearman([1], [2]))


@pytest.mark.parametrize(
    ("said", "which"), [({"epsilon": 0.1}, "attack"), ({"attack": "pgd-linf"}, "epsilon")]
)
def test_a_rate_over_attacks_or_epsilons_that_were_not_named_is_refused(said, which):
    rows = [
        {"attack": attack, "epsilon": epsilon, "source_fooled_clean": 10, "both_fooled_clean": 5}
        for attack in ("pgd-linf", "fgsm-linf") for epsilon in (0.1, 0.2)
    ]  # fmt: skip
    trial = {"setting": {"arm": "regular"}, "seed": 0, "values": {"accuracy": [0.9, 0.9], "transfer": rows}}
    record = Record("transfer", "laptop", {}, [trial])
    with pytest.raises(ValueError, match=f"say which {which}; "):
        summaries.transfer(record, **said)
    assert summaries.transfer(record, attack="pgd-linf", epsilon=0.1).mean == 0.5

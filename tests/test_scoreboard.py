"""Verdicts by their stated rule, and every claim judged on records small enough to check by hand."""

import math

import pytest

from dnabook import experiments, records, scoreboard, summaries
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.scoreboard import CLAIMS, DIRECTION, NOT, OPEN, REPRODUCED, absence, verdict, worst

EPSILONS = [0.05, 0.10, 0.15]


def interval(mean, half_width, n=3):
    return MeanInterval(mean, half_width, n)


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (interval(0.2, 0.1), REPRODUCED),
        (interval(0.2, 0.3), DIRECTION),
        (interval(0.0, 0.0), NOT),
        (interval(-0.2, 0.3), NOT),
        (interval(0.2, math.nan, n=1), OPEN),
        (interval(math.nan, math.nan, n=0), OPEN),
    ],
)
def test_a_positive_claim_is_judged_by_where_its_interval_lies(effect, expected):
    assert verdict(effect) == expected


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (interval(0.01, 0.01), REPRODUCED),
        (interval(0.05, 0.01), NOT),
        (interval(-0.05, 0.01), NOT),
        (interval(0.01, 0.50), OPEN),
        (interval(0.01, math.nan, n=1), OPEN),
    ],
)
def test_an_absence_needs_an_interval_within_the_margin(effect, expected):
    assert absence(effect, 0.02) == expected


def test_a_claim_of_several_parts_is_as_weak_as_its_weakest():
    assert worst([REPRODUCED, DIRECTION, REPRODUCED]) == DIRECTION
    assert worst([DIRECTION, OPEN, REPRODUCED]) == OPEN
    assert worst([OPEN, NOT]) == NOT
    assert worst([]) == OPEN


def row(right, *, attack="pgd", epsilon=0.05, objective="printed", n=100):
    """Counts of a rule-independent reader: `right` of n images by every rule, none by one path alone."""
    rules = ("first", "second", "either", "both", "mean_probability", "higher_confidence")
    return {
        "attack": attack, "epsilon": epsilon, "objective": objective, "exactly_one": 0, "n": n,
        **dict.fromkeys(rules, right),
    }  # fmt: skip


def autoencoders(**right):
    """A record in which an arm reads right[arm][seed] of 100 images under every attack, and 90 clean."""
    trials = [
        {
            "setting": {"arm": arm}, "seed": seed,
            "values": {
                "accuracy": [0.9, 0.9], "clean": row(90, attack="none", epsilon=0.0),
                "attacked": [
                    row(count, attack=attack, epsilon=epsilon, objective=objective)
                    for attack in ("fgsm", "pgd") for epsilon in EPSILONS
                    for objective in ("printed", "strongest")
                ],
                "quality": {"mse": [0.02]},
            },
        }
        for arm, counts in right.items() for seed, count in enumerate(counts)
    ]  # fmt: skip
    config = {"epsilons": EPSILONS, "attacks": ["fgsm", "pgd"], "arms": list(right)}
    return Record("autoencoder_mnist", "laptop", config, trials)


def claim(id):
    return next(c for c in CLAIMS if c.id == id)


@pytest.mark.parametrize(
    ("dna", "expected"),
    [((60, 61, 62), REPRODUCED), ((60, 50, 41), DIRECTION), ((30, 31, 32), NOT)],
)
def test_more_images_saved_is_judged_seed_by_seed(dna, expected):
    judged = claim("C10a").judge(autoencoders(autoencoder=(40, 41, 42), dna=dna))
    assert judged.verdict == expected and judged.n == 3
    if expected == REPRODUCED:
        assert "FGSM 20 ± 0, 20 ± 0, 20 ± 0" in judged.ours


def test_where_both_arms_read_less_than_one_image_in_a_hundred_nothing_is_judged():
    record = autoencoders(autoencoder=(40, 41), dna=(60, 61))

    def attacked(right):
        for trial in record.trials:
            for r in trial["values"]["attacked"]:
                if r["epsilon"] == 0.15:
                    r.update(dict.fromkeys(("first", "second", "either"), right[trial["setting"]["arm"]]))
        return claim("C10a").judge(record)

    assert attacked({"autoencoder": 0.9, "dna": 0.2}).verdict == REPRODUCED
    assert "FGSM 20 ± 0, 20 ± 0, -1 ± 0 (floor); PGD" in attacked({"autoencoder": 0.9, "dna": 0.2}).ours
    judged = attacked({"autoencoder": 1.1, "dna": 0.2})
    assert judged.verdict == NOT and "floor" not in judged.ours
    nothing = autoencoders(autoencoder=(0, 0), dna=(0, 0))
    assert claim("C10a").judge(nothing).verdict == OPEN


def test_more_unshared_layers_must_help_at_both_steps():
    record = autoencoders(unshared_2=(40, 41), unshared_4=(50, 51), unshared_6=(49, 50))
    assert claim("C14a").judge(record).verdict == NOT
    record = autoencoders(unshared_2=(40, 41), unshared_4=(50, 51), unshared_6=(60, 61))
    assert claim("C14a").judge(record).verdict == REPRODUCED


@pytest.mark.parametrize(
    ("necks", "expected"),
    [
        ({"code_16": (60, 61), "deeper_1": (30, 31)}, REPRODUCED),
        ({"code_16": (60, 61), "deeper_1": (70, 71)}, NOT),
        ({"code_16": (60, 61), "deeper_1": (30, 60)}, OPEN),  # too wide to say
        ({"code_16": (60,), "deeper_1": (30,)}, OPEN),
        ({}, OPEN),
    ],
)
def test_a_neck_that_does_not_help_must_be_shown_and_not_only_left_open(necks, expected):
    seeds = len(next(iter(necks.values()), (0, 0)))
    record = autoencoders(unshared_2=(40, 41)[:seeds], **necks)
    assert claim("C15").judge(record).verdict == expected


def test_claims_on_pgd_are_open_where_only_fgsm_is_recorded():
    record = autoencoders(autoencoder=(40, 41), dna=(60, 61))
    other = autoencoders(autoencoder=(40, 41), dna=(60, 61))
    other.config["attacks"] = ["fgsm"]
    assert claim("C13").judge(record, other).verdict == OPEN


def test_every_claim_names_known_experiments_and_an_existing_chapter():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    for c in CLAIMS:
        assert set(c.experiments) <= set(experiments.NAMES)
        assert c.chapter in scoreboard.CHAPTERS
    assert set(scoreboard.HEAD) <= {c.id for c in CLAIMS}


def test_the_table_says_what_is_still_to_be_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path))
    table = scoreboard.table()
    assert table.count("still to be run") == 2 * len(CLAIMS)
    assert len(table.splitlines()) == 2 + len(CLAIMS)
    assert scoreboard.brief().count(OPEN) == len(scoreboard.HEAD)


def test_the_table_shows_the_verdict_of_the_largest_scale(monkeypatch):
    by_scale = {
        "laptop": autoencoders(autoencoder=(40, 41), dna=(60, 61)),
        "paper": autoencoders(autoencoder=(40, 41), dna=(30, 31)),
    }
    monkeypatch.setattr(Record, "whole_seeds", [0, 1])
    monkeypatch.setattr(records, "current", lambda name, scale: by_scale.get(scale))
    only = [claim("C10a")]
    line = scoreboard.table(only).splitlines()[-1]
    assert f"| {NOT} |" in line and "20 ± 0" in line and "-10 ± 0" in line
    assert f"| {REPRODUCED} |" in scoreboard.table(only, scales=("laptop",))


def test_a_chapter_s_answer_names_the_other_scale_where_its_verdict_differs(monkeypatch):
    right = {"laptop": (60, 50, 41), "paper": (60, 61, 62)}
    made = {s: autoencoders(autoencoder=(40, 41, 42), dna=dna) for s, dna in right.items()}
    monkeypatch.setattr(Record, "whole_seeds", [0, 1, 2])
    monkeypatch.setattr(records, "current", lambda name, scale: made.get(scale))
    line = scoreboard.answers("C10a").splitlines()[-1]
    assert f". **{REPRODUCED}**: " in line
    assert line.endswith(f", paper scale; at laptop scale *{DIRECTION}* (n = 3).")
    made["laptop"] = made["paper"]
    assert scoreboard.answers("C10a").endswith(", paper scale.")


def test_a_difference_is_paired_by_seed_and_drops_what_has_no_partner():
    found = summaries.difference({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.6, 3: 0.1})
    assert found.n == 2 and found.mean == pytest.approx(0.1) and found.half_width == pytest.approx(0)


def test_reconstruction_reads_the_rule_the_attack_and_the_objective():
    record = autoencoders(dna=(60,))
    values = record.trials[0]["values"]
    values["attacked"][0].update(first=10, second=30, either=35)
    where = {"arm": "dna", "attack": "fgsm", "epsilon": 0.05}
    assert summaries.reconstruction(record, rule="mean_path", **where).mean == pytest.approx(0.2)
    assert summaries.reconstruction(record, **where).mean == pytest.approx(0.35)
    assert summaries.reconstruction(record, objective="strongest", **where).mean == pytest.approx(0.6)
    assert summaries.reconstruction(record, arm="dna").mean == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"pgd at ε = 0\.5"):
        summaries.reconstruction(record, arm="dna", attack="pgd", epsilon=0.5)


def test_an_objective_that_was_not_recorded_is_not_answered_by_another():
    record = autoencoders(dna=(60,))
    record.trials[0]["values"]["attacked"].append(row(20, objective="corrected"))
    where = {"arm": "dna", "attack": "pgd", "epsilon": 0.05}
    assert summaries.reconstruction(record, objective="corrected", **where).mean == pytest.approx(0.2)
    with pytest.raises(
        ValueError, match="'released' is not recorded of dna; known: printed, strongest, corr"
    ):
        summaries.reconstruction(record, objective="released", **where)


def test_the_fixed_classifier_has_a_clean_row_of_its_own():
    record = autoencoders(dna=(60,))
    record.trials[0]["values"]["fixed"] = [row(70, attack="none", epsilon=0.0)]
    assert summaries.reconstruction(record, arm="dna", table="fixed").mean == pytest.approx(0.7)
    assert summaries.reconstruction(record, arm="dna").mean == pytest.approx(0.9)


def test_a_plain_autoencoder_is_read_from_the_attack_it_has():
    record = autoencoders(autoencoder=(40,))
    rows = record.trials[0]["values"]["attacked"]
    rows[:] = [r for r in rows if r["objective"] == "strongest"]
    where = {"arm": "autoencoder", "attack": "pgd", "epsilon": 0.05}
    assert summaries.reconstruction(record, objective="corrected", **where).mean == pytest.approx(0.4)


def test_the_status_table_has_one_row_for_each_experiment_and_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path))
    table = summaries.status().splitlines()
    assert len(table) == 2 + 2 * len(experiments.NAMES)
    assert all("still to be run" in line for line in table[2:])

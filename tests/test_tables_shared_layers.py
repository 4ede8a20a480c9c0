"""The tables of chapter 8, from autoencoders whose shares can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import cells

from dnabook.records import Record
from dnabook.tables import shared_layers as tables

BASE = {  # of 100 digits, by either path under PGD as printed at ε = 0.10
    "unshared_2": 40, "unshared_4": 43, "unshared_6": 63, "unshared_6_regular": 50, "matched_6": 42,
    "code_16": 47,
}  # fmt: skip
PARAMETERS = {"unshared_2": 224_552, "unshared_6": 417_000, "matched_6": 416_999}


def counts(arm, shift, *, attack="none", epsilon=0.0, objective="printed"):
    """Under the strongest attack half of it, at another ε or attack 5 more, on clean images 30 more."""
    right = BASE[arm] + shift
    right = right // 2 if objective == "strongest" else right
    right += 30 if attack == "none" else 5 * (attack != "pgd" or epsilon != 0.10)
    return {"attack": attack, "epsilon": epsilon, "objective": objective, "either": right, "n": 100}


def layers(*arms, scale="laptop", seeds=(0, 1), shift=lambda arm, seed: 0):
    """A record of the given arms, or of all; shift: digits more, by arm and seed."""
    trials = [
        {
            "setting": {"arm": arm}, "seed": seed,
            "values": {
                "parameters": PARAMETERS.get(arm, 1000), "quality": {"mse": [0.01, 0.02 + len(arm) / 1000]},
                "clean": counts(arm, shift(arm, seed)),
                "attacked": [
                    counts(arm, shift(arm, seed), attack=attack, epsilon=epsilon, objective=objective)
                    for attack in ("fgsm", "pgd") for epsilon in (0.05, 0.10)
                    for objective in ("printed", "strongest")
                ],
            },
            "provenance": {"seconds": 1.0, "device": "CPU", "date": "2026-01-02T03:04:05+00:00"},
        }
        for arm in arms or BASE for seed in seeds
    ]  # fmt: skip
    return Record("shared_layers", scale, {"arms": list(arms or BASE), "objectives": ["printed"]}, trials)


@pytest.fixture(autouse=True)
def every_seed_is_whole(monkeypatch):
    monkeypatch.setattr(Record, "whole_seeds", property(lambda record: record.seeds))


def test_each_architecture_has_its_row_with_size_quality_and_what_it_saves():
    record = layers("unshared_2", "unshared_6", "matched_6")
    text = tables.architectures(record, epsilon=0.10)
    assert cells(text) == [
        ["architecture", "parameters", "squared error", "clean", "PGD, printed", "PGD, strongest"],
        ["unshared 2", "224,552", "0.0200 ± 0.0000", "70 ± 0 %", "40 ± 0 %", "20 ± 0 %"],
        ["unshared 6", "417,000", "0.0200 ± 0.0000", "93 ± 0 %", "63 ± 0 %", "31 ± 0 %"],
        ["matched 6", "416,999", "0.0195 ± 0.0000", "72 ± 0 %", "42 ± 0 %", "21 ± 0 %"],
    ]
    assert "\n\nRead by either path; PGD at ε = 0.10. *Regular* means λ = 0" in text
    assert text.endswith(f"{record.caption()}.")


def test_another_epsilon_can_be_asked_for():
    (_, row) = cells(tables.architectures(layers("unshared_2"), epsilon=0.05))
    assert row[-2:] == ["45 ± 0 %", "25 ± 0 %"]


def test_each_pair_of_architectures_has_a_row_for_either_attack():
    text = tables.differences(layers(), [None, layers()], epsilon=0.10)
    labels = list(tables.PAIRS)
    printed = [
        "above, 3 ± 0", "above, 20 ± 0", "above, 21 ± 0", "above, 2 ± 0", "above, 13 ± 0", "above, 7 ± 0",
    ]  # fmt: skip
    strongest = [
        "above, 1 ± 0", "above, 10 ± 0", "above, 10 ± 0", "above, 1 ± 0", "above, 6 ± 0", "above, 3 ± 0",
    ]  # fmt: skip
    assert cells(text) == [
        ["unshared layers", "attack", "laptop"],
        *([label, "printed", lead] for label, lead in zip(labels, printed, strict=True)),
        *([label, "strongest", lead] for label, lead in zip(labels, strongest, strict=True)),
    ]
    assert "\n\nPoints between two architectures, paired by seed, under PGD at ε = 0.10; " in text


def test_a_lead_has_its_sign_and_is_level_where_its_interval_contains_zero():
    def shift(arm, seed):
        return {"unshared_4": -10, "matched_6": 4 * seed}.get(arm, 0)

    found = cells(tables.differences(layers(shift=shift), [], epsilon=0.10))
    lead = {label: cell for label, attack, cell in found if attack == "printed"}
    assert lead["4 unshared against 2"] == "below, −7 ± 0"
    assert lead["2 with as many parameters as 6 against 2"] == "level, 4 ± 25"


def test_scales_stand_side_by_side_each_with_its_caption():
    small, large = layers(), layers(scale="paper", shift=lambda arm, seed: 5 * (arm == "unshared_6"))
    text = tables.differences(large, [small, large], epsilon=0.10)
    assert cells(text)[0] == ["unshared layers", "attack", "laptop", "paper"]
    assert cells(text)[2] == ["6 against 4", "printed", "above, 20 ± 0", "above, 25 ± 0"]
    assert text.endswith(f"counts as *level*. {small.caption()}; {large.caption()}.")


def test_a_scale_of_one_seed_is_left_out_and_one_that_is_alone_stands_for_itself():
    one, two = layers(seeds=(0,)), layers(scale="paper")
    assert cells(tables.differences(two, [one, two], epsilon=0.10))[0][2:] == ["paper"]
    alone = cells(tables.differences(one, [one, None], epsilon=0.10))
    assert alone[0][2:] == ["laptop"] and alone[1] == ["4 unshared against 2", "printed", "level, 3"]


def test_an_architecture_that_is_not_recorded_has_no_value():
    found = cells(tables.differences(layers("unshared_2", "unshared_6", "matched_6"), [], epsilon=0.10))
    leads = {label: cell for label, attack, cell in found if attack == "printed"}
    assert leads["6 against 2 with as many parameters"] == "above, 21 ± 0"
    assert leads["2 with a code of 16 against 64"] == leads["6 against 4"] == "level, no value"

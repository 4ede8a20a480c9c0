"""Chapter 1's tables and sentence, from records whose rates can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import PROVENANCE, rows

from dnabook.records import Record
from dnabook.tables import adversarial_examples as tables

ATTACKS, EPSILONS = ["fgsm-linf", "pgd-linf"], [0.05, 0.10, 0.20]
RATES = {"fgsm-linf": (10, 20, 30), "pgd-linf": (40, 50, 60)}  # of 100 images that fool the source


def trial(architecture, arm, seed=0, more=0):
    """From 1 to 2 as in RATES and `more`, from 2 to 1 four points more still; as printed all transfer."""
    rows = [
        {
            "attack": attack, "epsilon": epsilon, "source": source, "target": 3 - source,
            "both_fooled_clean": rate + more + 4 * (source == 2), "source_fooled_clean": 100,
            "both_fooled": 100, "source_fooled": 100,
        }
        for attack in ATTACKS
        for epsilon, rate in zip(EPSILONS, RATES[attack], strict=True)
        for source in (1, 2)
    ]  # fmt: skip
    setting = {"architecture": architecture, "arm": arm}
    values = {"accuracy": [0.9, 0.9], "transfer": rows}
    return {"setting": setting, "seed": seed, "values": values, "provenance": PROVENANCE}


@pytest.fixture
def record():
    others = [trial("cnn", "decorrelated", more=33), trial("fully_connected", "regular", more=33)]
    config = {"attacks": ATTACKS, "epsilons": EPSILONS}
    return Record("transfer", "smoke", config, [*others, trial("cnn", "regular")])


def test_the_rates_are_conditioned_and_of_regular_cnns_in_both_directions(record):
    assert tables.transfer_rates(record).splitlines() == [
        "| attack | ε\u00a0=\u00a00.05 | ε\u00a0=\u00a00.10 | ε\u00a0=\u00a00.20 |",  # unbroken
        "| :-- | --: | --: | --: |",
        "| FGSM, ℓ∞ | 12 % | 22 % | 32 % |",
        "| PGD, ℓ∞ | 42 % | 52 % | 62 % |",
        "",
        f"{record.caption()}.",
    ]


def test_two_seeds_give_an_interval(record):
    record.trials.append(trial("cnn", "regular", 1))
    assert "| PGD, ℓ∞ | 42 ± 0 % | 52 ± 0 % | 62 ± 0 % |" in tables.transfer_rates(record)


def test_the_sentence_gives_pgd_at_the_smallest_epsilon_and_at_the_largest(record):
    text = tables.shared_examples(record)
    assert "At ε = 0.05, PGD-ℓ∞ transfers to the other CNN in **42 %** of the cases" in text
    assert "and at ε = 0.20 in **62 %**. Two networks" in text


def test_a_record_of_one_epsilon_names_it_twice(record):
    record.config["epsilons"] = [0.10]
    text = tables.shared_examples(record)
    assert text.count("ε = 0.10") == 2 and text.count("**52 %**") == 2


# --- Plain damage --------------------------------------------------------------------------------


def control(architecture, seed=0, more=0, counted=200):
    """From 1 to 2 of 200 images 120, 40 and 20 are misread at ε = 0.05, twenty more each at 0.10; back `more`
    more of each."""
    rows = [
        {
            "epsilon": epsilon, "source": source, "target": 3 - source, "counted": counted,
            "attacked": 120 + extra, "signs": 40 + extra, "untrained": 20 + extra,
        }
        for epsilon, further in ((0.05, 0), (0.10, 20))
        for source, extra in ((1, further), (2, further + more))
    ]  # fmt: skip
    values = {"accuracy": [0.9, 0.9], "damage": rows}
    return {
        "setting": {"architecture": architecture},
        "seed": seed,
        "values": values,
        "provenance": PROVENANCE,
    }


def controls(*trials):
    config = {"architectures": ["cnn", "fully_connected"], "epsilons": [0.05, 0.10]}
    return Record("controls", "smoke", config, list(trials))


def test_what_is_misread_is_shared_out_by_what_was_done_to_the_images_both_directions_averaged():
    text = tables.plain_damage(controls(control("cnn", more=8), control("fully_connected")))
    assert rows(text) == {
        "pairs": ["attacked through the first", "random signs", "attacked through an untrained one"],
        "CNN, ε = 0.05": ["62 %", "22 %", "12 %"],
        "CNN, ε = 0.10": ["72 %", "32 %", "22 %"],
        "fully connected, ε = 0.05": ["60 %", "20 %", "10 %"],
        "fully connected, ε = 0.10": ["70 %", "30 %", "20 %"],
    }
    assert text.endswith("smoke scale · 1 seed · CPU · 2026-01-02.")


def test_pairs_that_collapsed_and_attacks_that_fooled_nothing_do_not_count():
    collapsed = control("cnn", seed=2, more=70)
    collapsed["values"]["accuracy"] = [0.9, 0.1]
    nothing = control("cnn", seed=3, counted=0)
    text = tables.plain_damage(controls(control("cnn"), control("cnn", 1), collapsed, nothing))
    assert rows(text)["CNN, ε = 0.05"] == ["60 ± 0 %", "20 ± 0 %", "10 ± 0 %"]
    assert rows(text)["fully connected, ε = 0.05"] == ["no value"] * 3

"""Chapter 1's table and sentence, from a record whose rates can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import PROVENANCE

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
        "| attack | ε = 0.05 | ε = 0.10 | ε = 0.20 |",
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

"""The note, the table and the list of chapter 7, from autoencoders whose shares can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import rows

from dnabook.records import Record
from dnabook.tables import cifar10 as tables

STEPS = [2, 8]
BASE = {"autoencoder": 30, "dna": 50, "dna_regular": 40}  # of 100, by either path, as printed at 2/255
RULES = {
    "either": 0,
    "first": -4,
    "second": -8,
    "both": -15,
    "mean_probability": -9,
    "higher_confidence": -11,
}
MSE = {"autoencoder": [0.003], "dna": [0.004, 0.006], "dna_regular": [0.003, 0.004]}
HELDOUT = {"dna": [-0.05, 0.15], "dna_regular": [0.98, 0.97]}


def counts(arm, seed, *, attack="none", epsilon=0.0, objective="printed"):
    """At 8/255 and under the strongest attack 20 fewer (λ = 0: 26), clean 30 more. One path answers alike."""
    easier = 30 * (attack == "none") + 7 * (attack == "fgsm") - 20 * (epsilon > 0.02)
    level, one = BASE[arm] + easier + (arm == "dna_regular") * (20 * seed - 10), arm == "autoencoder"
    harder = 0 if one else -(20 + 6 * (arm == "dna_regular")) * (objective == "strongest")
    right = {rule: max(0, level + harder + (not one) * less) for rule, less in RULES.items()}
    return {
        **right, "attack": attack, "epsilon": epsilon, "objective": objective, "exactly_one": BASE[arm] // 10,
        "n": 100,
    }  # fmt: skip


def photographs(*arms, attacks=("fgsm", "pgd"), train_images=60_000):
    """Two seeds of the given arms, or of all."""
    trials = [
        {
            "setting": {"arm": arm}, "seed": seed,
            "values": {
                "images": "cifar10 (JPEG)", "clean": counts(arm, seed),
                "attacked": [
                    counts(arm, seed, attack=attack, epsilon=step / 255, objective=objective)
                    for attack in attacks for step in STEPS for objective in ("printed", "strongest")
                ],
                "quality": {"mse": MSE[arm], **({"heldout": HELDOUT[arm]} if arm in HELDOUT else {})},
            },
            "provenance": {"seconds": 1.0, "device": "GPU", "date": "2026-01-02T03:04:05+00:00"},
        }
        for arm in arms or BASE for seed in (0, 1)
    ]  # fmt: skip
    training = {"train_images": train_images, "epochs": 40, "classifier_epochs": 6}
    config = {
        "arms": list(arms or BASE), "attacks": list(attacks), "epsilons_255": STEPS,
        "objectives": ["printed"], "training": training,
    }  # fmt: skip
    return Record("autoencoder_cifar", "smoke", config, trials)


@pytest.mark.parametrize("train_images, shown", [(60_000, "50,000"), (300, "300")])
def test_the_note_names_data_and_epochs_and_never_more_images_than_there_are(train_images, shown):
    text = tables.images(photographs(train_images=train_images))
    assert text.startswith("> **Data.** The recorded results of this page are on *cifar10 (JPEG)*, ")
    told = (
        f"{shown} training images, 40 epochs for the autoencoders and 6 for their classifiers (smoke scale)"
    )
    assert told in text and "\n" not in text


def test_the_note_names_every_data_set_once():
    record = photographs()
    record.trials[0]["values"]["images"] = "color-mnist"
    assert "*cifar10 (JPEG), color-mnist*" in tables.images(record)


def test_each_arm_has_its_column_and_each_measure_its_row():
    record = photographs("autoencoder", "dna")
    text = tables.arms(record)
    found = rows(text)
    assert found == {
        "measure": ["autoencoder", "DNA"],
        "squared error, pixels in [0, 1]": ["0.0030 ± 0.0000", "0.0050 ± 0.0000"],
        "R² 1 → 2": ["–", "−0.05 ± 0.00"],
        "R² 2 → 1": ["–", "0.15 ± 0.00"],
        "clean, either": ["60 ± 0 %", "80 ± 0 %"],
        "clean, mean probability": ["60 ± 0 %", "71 ± 0 %"],
        "clean, exactly one path": ["–", "5 ± 0 %"],
        "PGD printed 2/255": ["30 ± 0 %", "50 ± 0 %"],
        "PGD printed 8/255": ["10 ± 0 %", "30 ± 0 %"],
        "PGD strongest 2/255": ["30 ± 0 %", "30 ± 0 %"],
        "PGD strongest 8/255": ["10 ± 0 %", "10 ± 0 %"],
        "PGD strongest 2/255, mean probability": ["30 ± 0 %", "21 ± 0 %"],
    }
    assert text.endswith(f"|\n\n{record.caption()}.")


def test_the_arm_without_the_loss_has_the_last_column():
    found = rows(tables.arms(photographs()))
    assert found["measure"] == ["autoencoder", "DNA", "DNA, λ = 0"]
    assert found["R² 1 → 2"] == ["–", "−0.05 ± 0.00", "0.98 ± 0.00"]
    assert found["PGD printed 2/255"][2] == "40 ± 127 %"


def test_where_pgd_is_not_recorded_table_and_list_are_of_fgsm():
    record = photographs(attacks=("fgsm",))
    assert rows(tables.arms(record))["FGSM printed 2/255"][:2] == ["37 ± 0 %", "57 ± 0 %"]
    assert tables.seed_by_seed(record).startswith("Compared seed by seed under FGSM at 2/255")


def test_the_list_says_where_the_dna_lies_against_each_control():
    assert tables.seed_by_seed(photographs()) == (
        "Compared seed by seed under PGD at 2/255, an interval that contains zero counting as *level "
        "with*:\n\n"
        "- As printed, the DNA lies **above** the autoencoder (20 ± 0 points) and **level with** the DNA "
        "with λ = 0 (10 ± 127 points).\n"
        "- Under the strongest attack it lies **level with** the autoencoder (0 ± 0 points) and **level "
        "with** the DNA with λ = 0 (16 ± 127 points); read by mean probability, **below** the autoencoder "
        "(−9 ± 0 points).\n"
        "- On clean images, by mean probability, it lies **above** the autoencoder (11 ± 0 points)."
    )


def test_a_control_that_is_not_recorded_has_no_value():
    text = tables.seed_by_seed(photographs("autoencoder", "dna"))
    assert text.count("**level with** the DNA with λ = 0 (no value points)") == 2

"""Tables and sentences of chapter 6, from autoencoders whose shares can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import PROVENANCE, rows

from dnabook.records import Record
from dnabook.tables import dual_neck_autoencoder as tables

EPSILONS = [0.05, 0.10]
BASE = {  # of 100 digits, read by either path under PGD as printed at ε = 0.05
    "autoencoder": 20, "dna": 60, "dna_regular": 20, "two_autoencoders": 70, "dna_corrected": 54,
    "dna_printed": 40,
}  # fmt: skip
RULES = {
    "either": 0, "first": -4, "second": -8, "both": -15, "mean_probability": -9, "higher_confidence": -11,
}  # fmt: skip
OBJECTIVES = {"printed": 0, "corrected": -10, "strongest": -12}
QUALITY = {"mse": [0.010, 0.030], "heldout": [-0.10, 0.90]}
TRAINING = {
    "epochs": 12, "classifier_epochs": 5, "batch_size": 500, "learning_rate": 0.002,
    "correlation_weight": 0.05,
}  # fmt: skip


def counts(arm, seed, *, attack="none", epsilon=0.0, objective="printed"):
    """Ten digits fewer at ε = 0.10, 25 more on clean images. One path answers alike, whatever is asked."""
    easier = 25 * (attack == "none") + 1 * (attack == "fgsm") - 10 * (epsilon == 0.10)
    level = BASE[arm] + easier + (arm == "dna_regular") * (1 - 2 * seed)
    one = arm == "autoencoder"
    right = {rule: level + (not one) * (less + OBJECTIVES[objective]) for rule, less in RULES.items()}
    exactly = 0 if one else BASE[arm] // 10 - OBJECTIVES[objective] + round(100 * epsilon)
    return {
        **right, "attack": attack, "epsilon": epsilon, "objective": objective, "exactly_one": exactly,
        "n": 100,
    }  # fmt: skip


def digits(*arms, objectives=("printed", "corrected"), seeds=(0, 1)):
    """A record of the given arms, or of all."""
    trials = [
        {
            "setting": {"arm": arm}, "seed": seed,
            "values": {
                "clean": counts(arm, seed),
                "attacked": [
                    counts(arm, seed, attack=attack, epsilon=epsilon, objective=objective)
                    for attack in ("fgsm", "pgd") for epsilon in EPSILONS
                    for objective in (*objectives, "strongest")
                ],
                "quality": {"mse": [0.015]} if arm == "autoencoder" else QUALITY,
            },
            "provenance": PROVENANCE,
        }
        for arm in arms or BASE for seed in seeds
    ]  # fmt: skip
    config = {
        "arms": list(arms or BASE), "objectives": list(objectives), "epsilons": EPSILONS,
        "attacks": ["fgsm", "pgd"], "training": TRAINING,
    }  # fmt: skip
    return Record("autoencoder_mnist", "smoke", config, trials)


def exact(*shares):
    return [f"{share} ± 0 %" for share in shares]


def test_the_sentence_tells_clean_and_attacked_digits_and_how_the_arms_were_trained():
    record = digits()
    assert tables.clean_and_attacked(record, epsilon=0.05) == (
        "Clean digits: DNA 85 ± 0 % by either path and 79 ± 0 % by the mean of its paths, autoencoder "
        "45 ± 0 %. PGD at ε = 0.05: DNA **60 ± 0 %**, autoencoder **20 ± 0 %**. "
        f"({record.caption()})\n\n"
        "All arms are trained alike: λ = 0.05 where there is one, 12 epochs in batches of 500 with Adam at "
        "0.002, then the classifier for 5 epochs."
    )


def test_each_rule_has_its_row_clean_as_printed_and_at_the_strongest():
    record = digits()
    text = tables.rules(record, epsilon=0.10)
    found = rows(text)
    assert found == {
        "read by": ["clean", "PGD, printed", "PGD, strongest"],
        "either path": exact(85, 50, 38),
        "mean of the paths": exact(79, 44, 32),
        "both paths": exact(70, 35, 23),
        "mean probability, no label needed": exact(76, 41, 29),
        "higher confidence, no label needed": exact(74, 39, 27),
        "autoencoder, its one path": exact(45, 10, 10),
    }
    assert list(found)[-1] == "autoencoder, its one path"
    assert text.endswith(f"The DNA; PGD at ε = 0.10. {record.caption()}.")


def test_each_arm_has_its_row_with_its_quality_and_what_it_saves():
    record = digits("autoencoder", "dna", "two_autoencoders", "dna_corrected", "dna_printed")
    text = tables.controls(record, epsilon=0.05)
    codes = ["0.0200 ± 0.0000", "−0.10 ± 0.00", "0.90 ± 0.00"]
    assert rows(text) == {
        "": [
            "squared error", "R² 1 → 2", "R² 2 → 1", "clean, either", "printed, either", "strongest, either",
            "strongest, mean probability",
        ],
        "autoencoder": ["0.0150 ± 0.0000", "–", "–", *exact(45, 20, 20, 20)],
        "DNA (released Eq. 4)": [*codes, *exact(85, 60, 48, 39)],
        "two autoencoders, λ = 0": [*codes, *exact(95, 70, 58, 49)],
        "DNA, corrected loss": [*codes, *exact(79, 54, 42, 33)],
        "DNA (printed Eq. 4)": [*codes, *exact(65, 40, 28, 19)],
    }  # fmt: skip
    assert text.endswith(f"PGD at ε = 0.05; R² of the codes, held out. {record.caption()}.")


def test_one_seed_has_no_interval():
    found = rows(tables.controls(digits(seeds=(0,)), epsilon=0.05))
    assert found["DNA, λ = 0"] == ["0.0200", "−0.10", "0.90", "46 %", "21 %", "9 %", "0 %"]


def test_the_list_says_where_each_arm_lies_against_its_own_control():
    assert tables.seed_by_seed(digits(), epsilon=0.05) == (
        "Compared seed by seed, an interval that contains zero counting as *level with*:\n\n"
        "- As printed, the DNA lies **above** the autoencoder (40 ± 0 points), and with λ = 0 it lies "
        "**level with** the autoencoder (0 ± 13 points).\n"
        "- Under the strongest attack the DNA lies **above** the autoencoder (28 ± 0 points), two "
        "autoencoders lie **above** the DNA (10 ± 0 points), and the DNA with the corrected loss lies "
        "**below** the one with the released (−6 ± 0 points).\n"
        "- Read by mean probability, for which no label is needed, the DNA then lies **above** the "
        "autoencoder (19 ± 0 points)."
    )


def test_an_arm_that_is_not_recorded_has_no_value_in_the_list_and_no_row_in_the_table():
    record = digits("autoencoder", "dna")
    text = tables.seed_by_seed(record, epsilon=0.05)
    assert "two autoencoders lie **level with** the DNA (no value points)" in text
    assert list(rows(tables.controls(record, epsilon=0.05))) == ["", "autoencoder", "DNA (released Eq. 4)"]


@pytest.mark.parametrize("objectives", [("printed",), ("printed", "corrected")])
def test_one_path_alone_is_counted_for_each_recorded_objective_and_epsilon(objectives):
    record = digits("autoencoder", "dna", "two_autoencoders", objectives=objectives)
    text = tables.exactly_one(record)
    columns = [f"{objective}, ε = {epsilon}" for objective in objectives for epsilon in ("0.05", "0.10")]
    assert rows(text) == {
        "autoencoder": columns,
        "DNA (released Eq. 4)": exact(11, 16, 21, 26)[: len(columns)],
        "two autoencoders, λ = 0": exact(12, 17, 22, 27)[: len(columns)],
    }
    told = "Share of images of which exactly one path is read correctly under PGD"
    assert text.endswith(f"{told}. {record.caption()}.")


# --- Do two answers give an attack away? ---------------------------------------------------------

AIMS = ("printed", "consensus")
UNNOTICED = {"dna": 10, "dna_regular": 30, "two_autoencoders": 5}  # of 100, under Eq. 10 at ε = 0.05


def noticing(*arms, seeds=(0, 1), spread=0):
    """Of 100 digits 40 are misread, UNNOTICED[arm] of them by both paths alike; more the later the row."""

    def row(arm, seed, attack, epsilon):
        later = ("none", "noise", *AIMS).index(attack) + 2 * (epsilon == 0.10)
        unnoticed = UNNOTICED[arm] + 2 * (later - 2) + spread * seed * (arm == "dna")
        return {
            "attack": attack, "epsilon": epsilon, "n": 100, "wrong": 40, "differ": 50 + later,
            "unnoticed": unnoticed, "auroc": 0.5 + later / 100,
        }  # fmt: skip

    trials = [
        {
            "setting": {"arm": arm}, "seed": seed, "provenance": PROVENANCE,
            "values": {
                "noticed": [
                    row(arm, seed, "none", 0.0),
                    *(row(arm, seed, attack, e) for attack in ("noise", *AIMS) for e in EPSILONS),
                ]
            },
        }
        for arm in arms for seed in seeds
    ]  # fmt: skip
    config = {"arms": list(arms), "objectives": list(AIMS), "epsilons": EPSILONS}
    return Record("disagreement", "smoke", config, trials)


def test_each_attack_has_a_row_for_each_autoencoder_and_nothing_stands_for_unattacked_digits():
    text = tables.disagreement(noticing(*UNNOTICED), epsilon=0.05)
    found = rows(text, 2)
    assert found["attack on", "autoencoder"] == [
        "wrong", "paths differ", "wrong and unnoticed", "agreed where wrong", "AUROC",
    ]  # fmt: skip
    assert found["Eq. 10 as printed", "DNA, λ = 0"] == [
        "40 ± 0 %", "52 ± 0 %", "30 ± 0 %", "75 ± 0 %", "0.52 ± 0.00",
    ]  # fmt: skip
    assert found["nothing", "DNA"][1:3] == ["50 ± 0 %", "6 ± 0 %"]
    assert found["both paths alike", "two autoencoders"][2:4] == ["7 ± 0 %", "18 ± 0 %"]
    assert len(found) == 1 + 4 * 3 and "PGD at ε = 0.05." in text


def test_unnoticed_digits_are_compared_seed_by_seed_with_both_controls():
    assert tables.fewer_unnoticed(noticing(*UNNOTICED), epsilon=0.10).endswith(
        "- Against the one with λ = 0: Eq. 10 as printed **below** (−20 ± 0 points); both paths alike "
        "**below** (−20 ± 0 points).\n"
        "- Against two autoencoders: Eq. 10 as printed **above** (5 ± 0 points); both paths alike **above** "
        "(5 ± 0 points)."
    )
    wide = tables.fewer_unnoticed(noticing(*UNNOTICED, spread=60), epsilon=0.05)
    assert "Eq. 10 as printed **level with** (10 ± 381 points)" in wide


def test_a_control_that_is_not_recorded_has_no_line():
    text = tables.fewer_unnoticed(noticing("dna", "dna_regular"), epsilon=0.05)
    assert "λ = 0" in text and "two autoencoders" not in text

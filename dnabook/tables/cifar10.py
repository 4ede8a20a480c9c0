"""Chapter 7: on which images its record stands, and what the DNA and its controls save of them."""

from __future__ import annotations

from typing import Any

from dnabook import summaries
from dnabook.records import Record
from dnabook.summaries import PLAIN
from dnabook.tables import quality, right

NAMES = {"autoencoder": "autoencoder", "dna": "DNA", "dna_regular": "DNA, λ = 0"}


def images(record: Record) -> str:
    """The note at the top of the page: data, number of images and epochs behind the record, and its scale."""
    sets = sorted({trial["values"]["images"] for trial in record.trials})
    how = record.config["training"]
    return (
        f"> **Data.** The recorded results of this page are on *{', '.join(sets)}*, "
        f"{min(how['train_images'], 50_000):,} training images, {how['epochs']} epochs for the autoencoders "
        f"and {how['classifier_epochs']} for their classifiers ({record.scale} scale). The live cells use "
        "some of their test images, kept beside the weights, so the page needs no download. *JPEG* is "
        "CIFAR-10 re-encoded; *color-mnist* are coloured digits of CIFAR-10's shape, which stand in where a "
        "new record is made and CIFAR-10 cannot be had."
    )


def arms(record: Record) -> str:
    """A column an arm: squared error, R² of the codes, images read clean, as printed and at the strongest.

    "The recorded result: Figure 8". The attack is the record's last, PGD where it was recorded.
    """
    names = record.config["arms"]
    readings = _readings(record)
    what = ("squared error, pixels in [0, 1]", "R² 1 → 2", "R² 2 → 1")
    rows = [
        *zip(what, *(quality(record, arm) for arm in names), strict=True),
        *([label, *(_read(record, arm, where) for arm in names)] for label, where in readings.items()),
    ]
    table = summaries.table(["measure", *(NAMES[arm] for arm in names)], rows)
    return f"{table}\n\n{record.caption()}."


def _readings(record: Record) -> dict[str, dict[str, Any]]:
    """Of the rows: what `summaries.reconstruction` is asked, by label."""
    attack, steps = record.config["attacks"][-1], record.config["epsilons_255"]
    printed = {step: {"attack": attack, "epsilon": step / 255} for step in steps}
    strongest = {step: {**where, "objective": "strongest"} for step, where in printed.items()}
    label_free = {"rule": "mean_probability"}
    return {
        "clean, either": {},
        "clean, mean probability": label_free,
        "clean, exactly one path": {"rule": "exactly_one"},
        **{f"{attack.upper()} printed {step}/255": where for step, where in printed.items()},
        **{f"{attack.upper()} strongest {step}/255": where for step, where in strongest.items()},
        f"{attack.upper()} strongest {steps[0]}/255, mean probability": {**strongest[steps[0]], **label_free},
    }


def _read(record: Record, arm: str, where: dict[str, Any]) -> str:
    no_second_path = arm == PLAIN and where.get("rule") == "exactly_one"
    return "–" if no_second_path else right(record, arm, **where)


def seed_by_seed(record: Record) -> str:
    """A list of where the DNA lies against its controls, at the smallest ε and on clean images.

    "The recorded result: Figure 8", below the table.
    """
    attack, step = record.config["attacks"][-1], record.config["epsilons_255"][0]
    printed = {"attack": attack, "epsilon": step / 255}
    strongest = {**printed, "objective": "strongest"}

    def lies(other: str, **where: Any) -> str:
        name = {PLAIN: "the autoencoder", "dna_regular": "the DNA with λ = 0"}[other]
        return summaries.against(record, "dna", other, name, **where)

    return (
        f"Compared seed by seed under {attack.upper()} at {step}/255, an interval that contains zero "
        "counting as *level with*:\n\n"
        f"- As printed, the DNA lies {lies(PLAIN, **printed)} and {lies('dna_regular', **printed)}.\n"
        f"- Under the strongest attack it lies {lies(PLAIN, **strongest)} and "
        f"{lies('dna_regular', **strongest)}; read by mean probability, "
        f"{lies(PLAIN, rule='mean_probability', **strongest)}.\n"
        f"- On clean images, by mean probability, it lies {lies(PLAIN, rule='mean_probability')}."
    )

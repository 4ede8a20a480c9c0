"""Chapter 6: what the Dual Neck Autoencoder saves, by which rule, under which attack, beside controls."""

from __future__ import annotations

from typing import Any

from dnabook import summaries
from dnabook.records import Record
from dnabook.summaries import PLAIN, BySeed, difference, order, over, percent, plain, points
from dnabook.tables import AUTOENCODERS, quality, right

RULES = {
    "either": "either path",
    "mean_path": "mean of the paths",
    "both": "both paths",
    "mean_probability": "mean probability, no label needed",
    "higher_confidence": "higher confidence, no label needed",
}


TWO_PATHS = {"dna": "DNA", "dna_regular": "DNA, λ = 0", "two_autoencoders": "two autoencoders"}
ATTACKED = {
    "none": "nothing",
    "noise": "random signs",
    "printed": "Eq. 10 as printed",
    "corrected": "the smaller loss",
    "mean_probability": "the mean probability",
    "consensus": "both paths alike",
}


def clean_and_attacked(record: Record, *, epsilon: float) -> str:
    """Digits that the DNA and the autoencoder read, clean and under PGD as printed, and how all were trained.

    "The recorded result: Figure 6".
    """
    attacked = {"attack": "pgd", "epsilon": epsilon}
    trained = (
        "All arms are trained alike: λ = {correlation_weight} where there is one, {epochs} epochs in batches "
        "of {batch_size} with Adam at {learning_rate}, then the classifier for {classifier_epochs} epochs."
    )
    return (
        f"Clean digits: DNA {right(record, 'dna')} by either path and "
        f"{right(record, 'dna', rule='mean_path')} by the mean of its paths, autoencoder "
        f"{right(record, PLAIN)}. PGD at ε = {epsilon:.2f}: DNA **{right(record, 'dna', **attacked)}**, "
        f"autoencoder **{right(record, PLAIN, **attacked)}**. ({record.caption()})\n\n"
        + trained.format(**record.config["training"])
    )


def rules(record: Record, *, epsilon: float) -> str:
    """Digits read correctly by every rule, clean, under PGD as printed and under the strongest PGD.

    "The attack that fits the rule". The last row is the plain autoencoder's one path.
    """
    attacked = {"attack": "pgd", "epsilon": epsilon}
    columns = {
        "clean": {}, "PGD, printed": attacked, "PGD, strongest": {**attacked, "objective": "strongest"},
    }  # fmt: skip
    readers = [(label, "dna", rule) for rule, label in RULES.items()]
    readers.append(("autoencoder, its one path", PLAIN, "either"))
    rows = [
        [label, *(right(record, arm, rule=rule, **where) for where in columns.values())]
        for label, arm, rule in readers
    ]
    table = summaries.table(["read by", *columns], rows)
    return f"{table}\n\nThe DNA; PGD at ε = {epsilon:.2f}. {record.caption()}."


def controls(record: Record, *, epsilon: float) -> str:
    """Every arm's squared error, R² of its codes, and digits read: clean, PGD as printed, at its strongest.

    "What the correlation loss adds".
    """
    attacked = {"attack": "pgd", "epsilon": epsilon}
    strongest = {**attacked, "objective": "strongest"}
    columns = {
        "clean, either": {}, "printed, either": attacked, "strongest, either": strongest,
        "strongest, mean probability": {**strongest, "rule": "mean_probability"},
    }  # fmt: skip
    rows = [
        [
            AUTOENCODERS[arm],
            *quality(record, arm),
            *(right(record, arm, **where) for where in columns.values()),
        ]
        for arm in record.config["arms"]
    ]
    table = summaries.table(["", "squared error", "R² 1 → 2", "R² 2 → 1", *columns], rows)
    return f"{table}\n\nPGD at ε = {epsilon:.2f}; R² of the codes, held out. {record.caption()}."


def seed_by_seed(record: Record, *, epsilon: float) -> str:
    """A list of where arms lie against each other under PGD: as printed, at its strongest, without labels.

    "What the correlation loss adds", below the table.
    """
    printed = {"attack": "pgd", "epsilon": epsilon}
    strongest = {**printed, "objective": "strongest"}
    label_free = {**strongest, "rule": "mean_probability"}

    def lies(a: str, b: str, name: str, where: dict[str, Any]) -> str:
        return summaries.against(record, a, b, name, **where)

    plain, with_loss = "the autoencoder", "the DNA"
    return (
        "Compared seed by seed, an interval that contains zero counting as *level with*:\n\n"
        f"- As printed, the DNA lies {lies('dna', PLAIN, plain, printed)}, and with λ = 0 it lies "
        f"{lies('dna_regular', PLAIN, plain, printed)}.\n"
        f"- Under the strongest attack the DNA lies {lies('dna', PLAIN, plain, strongest)}, two "
        f"autoencoders lie {lies('two_autoencoders', 'dna', with_loss, strongest)}, and the DNA with the "
        f"corrected loss lies {lies('dna_corrected', 'dna', 'the one with the released', strongest)}.\n"
        "- Read by mean probability, for which no label is needed, the DNA then lies "
        f"{lies('dna', PLAIN, plain, label_free)}."
    )


def exactly_one(record: Record) -> str:
    """Share of images of which one path is read and the other is not, for each objective and ε of PGD.

    "Figure 7, with images drawn at random". Rows are the arms with two paths.
    """
    columns = {
        f"{objective}, ε = {epsilon:.2f}": {"attack": "pgd", "epsilon": epsilon, "objective": objective}
        for objective in ("printed", "corrected") if objective in record.config["objectives"]
        for epsilon in record.config["epsilons"]
    }  # fmt: skip
    rows = [
        [AUTOENCODERS[arm], *(right(record, arm, rule="exactly_one", **where) for where in columns.values())]
        for arm in record.config["arms"]
        if arm != PLAIN
    ]
    told = "Share of images of which exactly one path is read correctly under PGD"
    return f"{summaries.table(['autoencoder', *columns], rows)}\n\n{told}. {record.caption()}."


def disagreement(record: Record, *, epsilon: float) -> str:
    """Of `disagreement`: what a reader without labels misreads and notices, for each attack and autoencoder.

    "What a user could do", below the live table.
    """

    def told(reading: str, arm: str, attack: str) -> BySeed:
        where = {"attack": attack, "epsilon": epsilon if attack != "none" else 0.0}
        return summaries.noticed_by_seed(record, reading, arm=arm, **where)

    attacks, shares = (
        ("none", "noise", *record.config["objectives"]),
        ("wrong", "differ", "unnoticed", "agreed"),
    )
    rows = [
        [
            ATTACKED[attack], TWO_PATHS[arm],
            *(percent(over(told(reading, arm, attack))) for reading in shares),
            plain(over(told("auroc", arm, attack))),
        ]
        for attack in attacks for arm in record.config["arms"]
    ]  # fmt: skip
    header = [
        "attack on", "autoencoder", "wrong", "paths differ", "wrong and unnoticed", "agreed where wrong",
        "AUROC",
    ]  # fmt: skip
    return (
        f"{summaries.table(header, rows, left=2)}\n\nPGD at ε = {epsilon:.2f}. *Wrong*: by the mean "
        "probability. *Unnoticed*: the paths agree. *AUROC*: the chance that a misread image has a larger "
        "divergence between the paths' probabilities (Jensen and Shannon's) than one that nobody attacked; a "
        f"half is guessing. {record.caption()}."
    )


def fewer_unnoticed(record: Record, *, epsilon: float) -> str:
    """Of `disagreement`: by how much fewer digits are wrong and unnoticed with the DNA, attack by attack.

    "What a user could do", below the table.
    """
    lines = []
    for other, name in (("dna_regular", "the one with λ = 0"), ("two_autoencoders", "two autoencoders")):
        if other in record.config["arms"]:
            gaps = []
            for attack in record.config["objectives"]:
                where = {"attack": attack, "epsilon": epsilon}
                dna, control = (
                    summaries.noticed_by_seed(record, "unnoticed", arm=arm, **where) for arm in ("dna", other)
                )
                gap = difference(dna, control)
                gaps.append(f"{ATTACKED[attack]} **{order(gap)}** ({points(gap)} points)")
            lines.append(f"- Against {name}: {'; '.join(gaps)}.")
    return (
        f"Digits wrong and unnoticed at ε = {epsilon:.2f}, the DNA seed by seed, an interval that contains "
        "zero counting as *level with*:\n\n" + "\n".join(lines)
    )

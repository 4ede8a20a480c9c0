"""The chapters' tables and computed sentences, from records: Markdown text, one module a chapter.

The numbers of its tables, lists and computed sentences are made here. `tables.decorrelation` belongs to
`book/04_decorrelation.md`, and so on. Functions take records, as `records.best` gives them, and return text
for `IPython.display.Markdown`. Statistics are in `summaries`; here they are put in rows and in words.
"""

from __future__ import annotations

import math
from typing import Any

from dnabook import figures, summaries
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import percent

AUTOENCODERS = {  # the arms of `autoencoder_mnist`
    "autoencoder": "autoencoder",
    "dna": "DNA (released Eq. 4)",
    "dna_regular": "DNA, λ = 0",
    "two_autoencoders": "two autoencoders, λ = 0",
    "dna_corrected": "DNA, corrected loss",
    "dna_printed": "DNA (printed Eq. 4)",
}


def pair_name(setting: dict[str, Any]) -> str:
    """How a pair of `pairs.PAIRS` is called: architecture and arm, "CNN, regular"."""
    return f"{figures.ARCHITECTURES[setting['architecture']]}, {figures.ARMS[setting['arm']][0]}"


def damaged(controls: Record, how: str, **where: Any) -> MeanInterval:
    """Of `controls`, the share of the counted images that the target misreads, over pairs that have learned.

    how: "attacked", the conditioned transfer rate; "signs"; or "untrained", of `experiments.controls.damage`.
    """
    rows = summaries.healthy(controls).rows("damage", **where)
    shares = ((row["seed"], row[how] / row["counted"] if row["counted"] else math.nan) for row in rows)
    return summaries.over(summaries.by_seed(shares))


def pairs(record: Record) -> list[dict[str, str]]:
    """The kinds of pairs of a record, in its order: {"architecture": …, "arm": …}."""
    return [{"architecture": architecture, "arm": arm} for architecture, arm in record.config["pairs"]]


def collapsed(record: Record, **where: Any) -> str:
    """How many of the pairs that match collapsed, "2 of 5"."""
    lost, of = summaries.collapsed(record, **where)
    return f"{lost} of {of}"


def chance_floor(row: dict[str, Any], n: int) -> float:
    """In-sample R² of unrelated targets on n images, with a row's rank r: r/(n − 1), at most 1."""
    return min(row["rank"] / (n - 1), 1.0)


def right(record: Record, arm: str, **where: Any) -> str:
    """Share of images that an arm reads correctly, "45 ± 3 %"; where: of `summaries.reconstruction`."""
    return percent(summaries.reconstruction(record, arm=arm, **where))


def quality(record: Record, arm: str) -> list[str]:
    """Cells on clean images: squared error, R² of the codes from 1 to 2 and back, or "–" with one neck."""
    error = summaries.over(summaries.quality_by_seed(record, "mse", arm=arm))
    codes = [summaries.over(summaries.quality_by_seed(record, "heldout", part, arm=arm)) for part in (0, 1)]
    ahead, back = ["–", "–"] if arm == summaries.PLAIN else map(summaries.plain, codes)
    return [summaries.plain(error, 4), ahead, back]

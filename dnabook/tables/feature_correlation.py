"""Chapter 3: how well one network's features follow from the other's, and which number may be the paper's."""

from __future__ import annotations

from dnabook import figures, summaries
from dnabook.measures import mean_interval
from dnabook.records import Record
from dnabook.summaries import plain


def predictability(record: Record) -> str:
    """Of `feature_correlation`: R² held out and in sample, its chance floor and the source's effective rank.

    "The recorded result", its table: regular pairs alone, each direction a row. In sample and floor are of as
    many images as a training batch holds.
    """
    batch = record.config["training"]["batch_size"]
    readings = {
        "held out": lambda row: row["heldout"],
        f"in sample, N = {batch}": lambda row: row["batch_in_sample"],
        f"floor, N = {batch}": lambda row: row["rank"] / (batch - 1),
        "effective rank": lambda row: row["effective_rank"],
    }
    rows = []
    for architecture in dict.fromkeys(architecture for architecture, _ in record.config["pairs"]):
        for source in (1, 2):
            where = {"architecture": architecture, "arm": "regular", "source": source}
            found = list(record.rows("predictability", **where))
            values = (mean_interval([reading(row) for row in found]) for reading in readings.values())
            name = f"{figures.ARCHITECTURES[architecture]}, {source} → {3 - source}"
            rows.append([name, *map(plain, values)])
    return f"{summaries.table(['pair', *readings], rows)}\n\n{record.caption()}."


def coefficients(record: Record) -> str:
    """Of `feature_correlation`: R² between regular CNNs, its root beside the paper's 0.975, and Pearson's.

    "The recorded result", below its table. The root is that of the direction with the smaller R².
    """
    regular = {"architecture": "cnn", "arm": "regular"}
    both = [summaries.predictability(record, source=source, **regular) for source in (1, 2)]
    natural = record.rows("features", epsilon=0.0, **regular)
    pearson = mean_interval([row["pearson"] for row in natural])
    multiple = min(value.mean for value in both) ** 0.5
    reached = "reached" if multiple > 0.975 else "not quite reached"
    return (
        f"Between regular CNNs held-out R² is **{plain(both[0])}** one way and **{plain(both[1])}** the "
        f"other. The multiple correlation √R² is {multiple:.3f}, so the paper's “0.975 on average” is "
        f"{reached} on natural images, if that is the coefficient it means. The raw Pearson coefficient of "
        f"the flattened features is {plain(pearson)} and cannot be it. (The claims at the top pool all "
        "distances of chapter 2 and attacked images with natural ones; this is of regular pairs on natural "
        "images.)"
    )

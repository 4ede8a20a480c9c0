"""Chapter 3: how well features follow from each other, the paper's number, and what needs no learning."""

from __future__ import annotations

import itertools
from typing import Any

from dnabook import figures, summaries
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.experiments.controls import COMPARED
from dnabook.measures import mean_interval
from dnabook.records import Record
from dnabook.summaries import BySeed, by_seed, over, percent, plain
from dnabook.tables import chance_floor, damaged


def predictability(record: Record) -> str:
    """Of `feature_correlation`: R² held out and in sample, its chance floor and the source's effective rank.

    "The recorded result", its table: regular pairs alone, each direction a row. In sample and floor are of as
    many images as a training batch holds.
    """
    batch = record.config["training"]["batch_size"]
    readings = {
        "held out": lambda row: row["heldout"],
        f"in sample, N = {batch}": lambda row: row["batch_in_sample"],
        f"floor, N = {batch}": lambda row: chance_floor(row, batch),
        "effective rank of the source": lambda row: row["effective_rank"],
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


def without_learning(record: Record) -> str:
    """Of `controls`: R² and CKA between trained networks, untrained ones and pixels, and what is predicted.

    "The recorded result", its second table: a row for each architecture and each source and target.
    """
    kept, rows = summaries.healthy(record), []
    for architecture in record.config["architectures"]:
        for source, target in COMPARED:
            where = {"architecture": architecture, "source": source, "target": target}
            r2, cka, rank = (
                summaries.predictability(kept, reading, **where)
                for reading in ("heldout", "cka", "effective_rank")
            )
            name = f"{figures.ARCHITECTURES[architecture]}: {source} → {target}"
            rows.append([name, plain(r2), plain(cka), plain(rank, 1)])
    header = ["features", "R², held out", "CKA", "effective rank of the target"]
    return f"{summaries.table(header, rows)}\n\n{record.caption(attack=False)}."


def untrained_features(record: Record) -> str:
    """Of `controls`: R² and transfer to a trained network, from another and from one with untrained features.

    "The recorded result", its third table: conditioned rates of PGD-ℓ∞, both directions averaged, R² from
    the attacked network's features to the other's; below each the harm of random signs on the same images.
    """
    kept, rows, epsilons = summaries.healthy(record), [], record.config["epsilons"]
    for architecture in record.config["architectures"]:
        where = {"architecture": architecture}
        attacked, signs, heads, signs_for_heads = [], [], [], []
        for epsilon in epsilons:
            attacked.append(damaged(kept, "attacked", epsilon=epsilon, **where))
            signs.append(damaged(kept, "signs", epsilon=epsilon, **where))
            counts = list(kept.rows("transfer", epsilon=epsilon, **where))
            for shares, share in ((heads, summaries.rate), (signs_for_heads, summaries.signs_rate)):
                shares.append(over(by_seed((row["seed"], share(row)) for row in counts)))
        r2 = {
            source: plain(summaries.predictability(kept, source=source, target="trained", **where))
            for source in ("trained", "untrained")
        }
        read = summaries.accuracy(kept, **where), summaries.accuracy(kept, of="accuracy_of_heads", **where)
        name, instead = figures.ARCHITECTURES[architecture], ["random signs instead", "", ""]
        rows += [
            [f"{name}, trained", percent(read[0]), r2["trained"], *map(percent, attacked)],
            [*instead, *map(percent, signs)],
            [f"{name}, untrained features", percent(read[1]), r2["untrained"], *map(percent, heads)],
            [*instead, *map(percent, signs_for_heads)],
        ]
    header = ["attacked", "it reads", "R² to the other", *(f"transfer, ε = {e:.2f}" for e in epsilons)]
    return f"{summaries.table(header, rows)}\n\n{record.caption()}."


def movement(record: Record) -> str:
    """Of `controls`: how well maps between natural features predict how an attack moves them.

    "The recorded result", its fourth table: a row for each architecture and ridge, and one for maps fitted on
    movements themselves.
    """
    kept, rows, epsilons = summaries.healthy(record), [], record.config["epsilons"]
    for architecture in record.config["architectures"]:
        for name in (*(f"ridge {ridge:g}" for ridge in record.config["ridges"]), "movements"):
            where = {"architecture": architecture, "map": name}
            natural = _mean(kept, "maps", "natural", **where) if name != "movements" else ""
            moved = (_mean(kept, "movement", "explains", epsilon=epsilon, **where) for epsilon in epsilons)
            how = name if name != "movements" else "fitted on movements"
            rows.append([f"{figures.ARCHITECTURES[architecture]}, {how}", natural, *moved])
    header = ["map", "natural features", *(f"movement, ε = {epsilon:.2f}" for epsilon in epsilons)]
    return f"{summaries.table(header, rows)}\n\n{record.caption(attack=False)}."


def learned(record: Record) -> str:
    """Of `learned_features`: what its figure shows, how much is read, and what goes with transfer.

    "What rises with transfer": a row for each age of the features and each head, and a sentence on ranks.
    """
    kept, rows, epsilons = summaries.healthy(record), [], record.config["epsilons"]
    strong = epsilons[-1]
    cells: dict[str, list[tuple[BySeed, BySeed]]] = {}
    for epochs, head in itertools.product(record.config["epochs"], record.config["heads"]):
        where = {"epochs": epochs, "head": head}
        moved = {**where, "map": NATURAL_MAP, "epsilon": strong}
        read, beyond = (
            summaries.reading_by_seed(kept, "sources", "accuracy", **where),
            [summaries.beyond_signs_by_seed(kept, epsilon, **where) for epsilon in epsilons],
        )
        readings = {
            "R²": summaries.reading_by_seed(kept, "relation", "heldout", epochs=epochs),
            "the movement explained": summaries.reading_by_seed(kept, "movement", "explains", **moved),
            "what a map of its own explains": summaries.reading_by_seed(
                kept, "movement", "explains", **{**moved, "map": OWN_MAP}
            ),
            "the cosine": summaries.reading_by_seed(kept, "sources", "gradient_cosine", **where),
        }
        for name, values in readings.items():
            cells.setdefault(name, []).append((values, beyond[-1]))
        shown = (plain(over(values)) for values in readings.values())
        rows.append([
            f"{epochs:g} epoch{'s' * (epochs != 1)}, {figures.HEADS[head]}", percent(over(read)),
            *shown, *(summaries.points(over(each)) for each in beyond),
        ])  # fmt: skip
    header = [
        "attacked", "it reads", "R², held out", f"movement explained, ε = {strong:.2f}",
        "by a map of its own", "cosine of gradients",
        *(f"points beyond signs, ε = {e:.2f}" for e in epsilons),
    ]  # fmt: skip
    rhos = [f"{plain(summaries.rank_correlation_of(pairs))} with {name}" for name, pairs in cells.items()]
    return (
        f"{summaries.table(header, rows)}\n\n{record.caption()}. Over these rows, within a seed, the points "
        f"at ε = {strong:.2f} have a rank correlation of {', of '.join(rhos)}."
    )


def _mean(record: Record, table: str, reading: str, **where: Any) -> str:
    return plain(over(summaries.reading_by_seed(record, table, reading, **where)))

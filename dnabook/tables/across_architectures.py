"""Tables of chapter 9: networks of different kinds, what transfers between them, and what foretells it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from dnabook import summaries
from dnabook.experiments.controls import NATURAL_MAP
from dnabook.figures import KINDS
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import FORETELLERS, BySeed, over, percent, plain, points, table

SHORT = {
    "heldout": "R², linear",
    "nonlinear": "R², kernel",
    NATURAL_MAP: "movement explained",
    "gradient_cosine": "cosine",
}


def networks(record: Record) -> str:
    """How well each kind reads the digits, and how many of those that it reads its own attack turns wrong."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for place, kind in enumerate(record.config["kinds"]):
        both = slice(2 * place, 2 * place + 2)
        read = {t["seed"]: summaries.mean(t["values"]["accuracy"][both]) for t in kept.trials}
        misled = [over(_misled(kept, epsilon, kind)) for epsilon in epsilons]
        rows.append([KINDS[kind][0], percent(over(read)), *map(percent, misled)])
    header = ["kind", "accuracy", *(f"misread when attacked itself, ε = {e:.2f}" for e in epsilons)]
    lost, of = summaries.collapsed(record)
    return (
        f"{table(header, rows)}\n\nTwo networks a seed, averaged. In {lost} of {of} seeds a network "
        f"collapsed, and that seed is left out. {record.caption()}."
    )


def _misled(record: Record, epsilon: float, kind: str) -> BySeed:
    """Of the digits that both networks of a kind read, the share that PGD on one makes it misread."""
    rows = record.rows("transfer", epsilon=epsilon, source_arm=kind, target_arm=kind)
    return summaries.by_seed((row["seed"], row["source_fooled_clean"] / row["n_clean"]) for row in rows)


def cells(record: Record) -> str:
    """For each kind that is attacked and each that reads: what might foretell transfer, and transfer."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for source, target in itertools.product(record.config["kinds"], repeat=2):
        where = {"source_arm": source, "target_arm": target}
        told = [summaries.foretold_by_seed(kept, each, epsilons[-1], **where) for each in SHORT]
        rate = summaries.transfer_by_seed(kept, epsilon=epsilons[-1], **where)
        beyond = [summaries.beyond_signs_by_seed(kept, epsilon, **where) for epsilon in epsilons]
        rows.append([
            f"{KINDS[source][0]} → {KINDS[target][0]}", *map(plain, map(over, told)),
            percent(over(rate)), *map(points, map(over, beyond)),
        ])  # fmt: skip
    header = [
        "attacked → reads", *SHORT.values(), f"transfer, ε = {epsilons[-1]:.2f}",
        *(f"points beyond signs, ε = {e:.2f}" for e in epsilons),
    ]  # fmt: skip
    return (
        f"{table(header, rows)}\n\nPGD-ℓ∞. Movements are those under FGSM-ℓ∞ at ε = {epsilons[-1]:.2f}. A "
        f"negative share says that the map's prediction is worse than none. {record.caption()}."
    )


def foretelling(record: Record) -> str:
    """Spearman's ρ of each reading with what transfers beyond random signs, over all cells and between kinds.

    Below it, by how much the ρ of two readings, over all cells, lies above that of R².
    """
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for reading, name in FORETELLERS.items():
        rhos = [
            over(summaries.foretelling_by_seed(kept, reading, epsilon, within=within))
            for within in (True, False) for epsilon in epsilons
        ]  # fmt: skip
        rows.append([name, *map(plain, rhos)])
    header = [
        "Spearman's ρ with points beyond signs", *(f"all cells, ε = {e:.2f}" for e in epsilons),
        *(f"between kinds, ε = {e:.2f}" for e in epsilons),
    ]  # fmt: skip
    beaten = "; ".join(
        f"that of the {name} " + ", ".join(
            f"**{plain(_above_r_squared(kept, reading, epsilon))}**" for epsilon in epsilons
        )
        for reading, name in (("nonlinear", "kernel regression"), (NATURAL_MAP, "movement explained"))
    )  # fmt: skip
    number = len(record.config["kinds"])
    return (
        f"{table(header, rows)}\n\nOver {number**2} cells, the kind that is attacked and the kind that "
        f"reads, or the {number**2 - number} between kinds; within each seed, then the mean over seeds. Over "
        f"all cells, at rising ε, ρ is higher than that of R² by: {beaten}. {record.caption()}."
    )


def _above_r_squared(record: Record, reading: str, epsilon: float) -> MeanInterval:
    rhos = (summaries.foretelling_by_seed(record, each, epsilon) for each in (reading, "heldout"))
    return summaries.difference(*rhos)


def own_kind(record: Record) -> str:
    """By how much each reading, and transfer, is higher within two kinds than between them."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for two in itertools.combinations(record.config["kinds"], 2):
        told = {each: partial(summaries.foretold_by_seed, kept, each, epsilons[-1]) for each in SHORT}
        beyond = [partial(summaries.beyond_signs_by_seed, kept, epsilon) for epsilon in epsilons]
        rows.append([
            " and ".join(KINDS[kind][0] for kind in two),
            *(plain(_within(of, two)) for of in told.values()), *(points(_within(of, two)) for of in beyond),
        ])  # fmt: skip
    header = ["kinds", *SHORT.values(), *(f"points beyond signs, ε = {e:.2f}" for e in epsilons)]
    return (
        f"{table(header, rows)}\n\nMean within both kinds less the mean between them, seed by seed. The "
        f"movement is that at ε = {epsilons[-1]:.2f}. {record.caption()}."
    )


def _within(of: Callable[..., BySeed], two: tuple[str, str]) -> MeanInterval:
    return over(summaries.own_kind_by_seed(of, *two))

"""Tables of chapter 9: networks of different kinds and widths, what transfers, and what foretells it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from dnabook import figures, summaries
from dnabook.experiments.between import NATURAL_MAP
from dnabook.figures import KINDS
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import BACK, FORETELLERS, WIDENED, BySeed, over, percent, plain, points, table

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
        pair = {"source_arm": kind, "target_arm": kind}
        misled = [over(_misled(kept, epsilon=epsilon, **pair)) for epsilon in epsilons]
        rows.append([KINDS[kind][0], percent(over(read)), *map(percent, misled)])
    header = ["kind", "accuracy", *(f"misread when attacked itself, ε = {e:.2f}" for e in epsilons)]
    return (
        f"{table(header, rows)}\n\nTwo networks a seed, averaged. {_lost(record, 'seed')} {record.caption()}."
    )


def _lost(record: Record, unit: str) -> str:
    """What became of the trials in which a network collapsed, in a sentence; unit: what a trial is."""
    lost, of = summaries.collapsed(record)
    if not lost:
        return "No network collapsed."
    which = "that" if lost == 1 else "each such"
    return f"In {lost} of {of} {unit}s a network collapsed, and {which} {unit} is left out."


def _misled(record: Record, **where: Any) -> BySeed:
    """Of the digits that both networks of a pair read, the share that PGD on one makes it misread."""
    rows = record.rows("transfer", **where)
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

    Below it, by how much the ρ of two readings, over all cells, lies above that of R², and the second's above
    that of R² the other way round.
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

    def ahead(reading: str, of: str) -> str:
        return ", ".join(f"**{plain(_above(kept, reading, of, epsilon))}**" for epsilon in epsilons)

    number = len(record.config["kinds"])
    return (
        f"{table(header, rows)}\n\nOver {number**2} cells, the kind that is attacked and the kind that "
        f"reads, or the {number**2 - number} between kinds; within each seed, then the mean over seeds. Over "
        f"all cells, at rising ε, ρ is higher than that of R² from the attacked network to the reader by: "
        f"that of the kernel regression {ahead('nonlinear', 'heldout')}; that of the movement explained "
        f"{ahead(NATURAL_MAP, 'heldout')}. It is higher than that of R² the other way round by: that of the "
        f"movement explained {ahead(NATURAL_MAP, BACK)}. {record.caption()}."
    )


def _above(record: Record, one: str, other: str, epsilon: float) -> MeanInterval:
    """By how much the ρ of a reading lies above another's, over all cells."""
    rhos = (summaries.foretelling_by_seed(record, each, epsilon) for each in (one, other))
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


# --- Wider and narrower --------------------------------------------------------------------------


def sizes(record: Record) -> str:
    """For each width the parameters and features of a network, and what it reads, attacked and not."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for where in _pairs(record):
        values = record.values(**where)[0]
        misled = [over(_misled(kept, epsilon=epsilon, **where)) for epsilon in epsilons]
        rows.append([
            figures.ARCHITECTURES[where["architecture"]], f"{where['width']:g}", f"{values['parameters']:,}",
            f"{values['features']:,}", percent(summaries.accuracy(kept, **where)), *map(percent, misled),
        ])  # fmt: skip
    header = [
        "network", "width", "parameters", "features", "accuracy",
        *(f"misread when attacked itself, ε = {e:.2f}" for e in epsilons),
    ]  # fmt: skip
    return (
        f"{table(header, rows)}\n\nTwo networks a pair, averaged. {_lost(record, 'pair')} {record.caption()}."
    )


def _pairs(record: Record) -> list[dict[str, Any]]:
    both = itertools.product(record.config["architectures"], record.config["widths"])
    return [{"architecture": architecture, "width": width} for architecture, width in both]


def widths(record: Record) -> str:
    """For each width what holds between the two networks of a pair, and what transfers."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for where in _pairs(record):
        told = [summaries.foretold_by_seed(kept, each, epsilons[-1], **where) for each in WIDENED]
        rate = summaries.transfer_by_seed(kept, epsilon=epsilons[-1], **where)
        beyond = [summaries.beyond_signs_by_seed(kept, epsilon, **where) for epsilon in epsilons]
        name = f"{figures.ARCHITECTURES[where['architecture']]}, {where['width']:g}"
        rows.append([
            name, *map(plain, map(over, told)), percent(over(rate)), *map(points, map(over, beyond)),
        ])  # fmt: skip
    header = [
        "network, width", *WIDENED.values(), f"transfer, ε = {epsilons[-1]:.2f}",
        *(f"points beyond signs, ε = {e:.2f}" for e in epsilons),
    ]  # fmt: skip
    return f"{table(header, rows)}\n\n{_how_many(record)} {record.caption()}."


def _how_many(record: Record) -> str:
    many, few = record.config["feature_images"], record.config["kernel_images"]
    return (
        f"R² on {many:,} training images, and on {few:,} of them where it says few; half are fitted, the "
        "others scored. PGD-ℓ∞. Movements are those under FGSM-ℓ∞ at "
        f"ε = {record.config['epsilons'][-1]:.2f}."
    )


def doublings(record: Record) -> str:
    """What a doubling of the width adds to each reading and to what transfers: slopes over log₂ width."""
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for architecture in record.config["architectures"]:
        told = [
            partial(summaries.foretold_by_seed, kept, each, epsilons[-1], architecture=architecture)
            for each in WIDENED
        ]  # fmt: skip
        beyond = [
            partial(summaries.beyond_signs_by_seed, kept, epsilon, architecture=architecture)
            for epsilon in epsilons
        ]
        rows.append([
            figures.ARCHITECTURES[architecture], *(plain(_slope(record, of), 3) for of in told),
            *(points(_slope(record, of)) for of in beyond),
        ])  # fmt: skip
    header = ["network", *WIDENED.values(), *(f"points beyond signs, ε = {e:.2f}" for e in epsilons)]
    return (
        f"{table(header, rows)}\n\nWhat each doubling of the width adds, on average: slopes by least squares "
        f"over log₂ of the width, seed by seed. {record.caption()}."
    )


def _slope(record: Record, of: Callable[..., BySeed]) -> MeanInterval:
    return over(summaries.slope_by_seed(of, record.config["widths"]))

"""Chapter 8: what unsharing layers brings, what as many parameters bring, and what the necks' shape does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dnabook import summaries
from dnabook.records import Record
from dnabook.summaries import difference, order, over, plain, points, quality_by_seed, reconstruction_by_seed
from dnabook.tables import right

PAIRS = {  # the first of each against the second
    "4 unshared against 2": ("unshared_4", "unshared_2"),
    "6 against 4": ("unshared_6", "unshared_4"),
    "6 against 2 with as many parameters": ("unshared_6", "matched_6"),
    "2 with as many parameters as 6 against 2": ("matched_6", "unshared_2"),
    "6 against 6 with λ = 0": ("unshared_6", "unshared_6_regular"),
    "2 with a code of 16 against 64": ("code_16", "unshared_2"),
}


def architectures(record: Record, *, epsilon: float) -> str:
    """Every architecture's parameters, squared error, and digits read clean, as printed and at the strongest.

    "The recorded result: Figure 10".
    """
    columns = {"clean": {}, **{f"PGD, {name}": where for name, where in _attacks(epsilon).items()}}
    rows = []
    for arm in record.config["arms"]:
        parameters = f"{record.values('parameters', arm=arm)[0]:,}"
        error = plain(over(quality_by_seed(record, "mse", arm=arm)), 4)
        shares = (right(record, arm, **where) for where in columns.values())
        rows.append([arm.replace("_", " "), parameters, error, *shares])
    table = summaries.table(["architecture", "parameters", "squared error", *columns], rows)
    return (
        f"{table}\n\nRead by either path; PGD at ε = {epsilon:.2f}. *Regular* means λ = 0, *matched* as many "
        "parameters as four or six unshared layers, *code* the units of the neck (64 in the paper), *deeper* "
        f"the layers added on either side of each neck. {record.caption()}."
    )


def differences(record: Record, others: Iterable[Record | None], *, epsilon: float) -> str:
    """By how many points one architecture is ahead of another, attack by attack, a column a scale.

    "The recorded result: Figure 10", below the table. others: the records to compare, one a scale; those with
    fewer than two whole seeds, or None, are left out, and `record` stands alone where none is left.
    """
    compared = [each for each in others if each and len(each.whole_seeds) > 1] or [record]
    rows = [
        [label, attack, *(_lead(each, *pair, where) for each in compared)]
        for attack, where in _attacks(epsilon).items()
        for label, pair in PAIRS.items()
    ]
    table = summaries.table(["unshared layers", "attack", *(r.scale for r in compared)], rows, left=2)
    return (
        f"{table}\n\nPoints between two architectures, paired by seed, under PGD at ε = {epsilon:.2f}; an "
        f"interval that contains zero counts as *level*. {'; '.join(each.caption() for each in compared)}."
    )


def _attacks(epsilon: float) -> dict[str, dict[str, Any]]:
    """PGD by the objectives that the tables show."""
    return {
        objective: {"attack": "pgd", "epsilon": epsilon, "objective": objective}
        for objective in ("printed", "strongest")
    }


def _lead(record: Record, a: str, b: str, where: dict[str, Any]) -> str:
    lead = difference(*(reconstruction_by_seed(record, arm=arm, **where) for arm in (a, b)))
    return f"{order(lead, level='level')}, {points(lead)}"

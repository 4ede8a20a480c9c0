"""Chapter 2: does less transfer between pairs that lie further apart, and what else changes with distance."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from dnabook import claims, summaries
from dnabook.measures import MeanInterval, mean_interval
from dnabook.records import Record
from dnabook.summaries import percent, plain

PRINTED = partial(summaries.rate, conditioned=False)  # the count that the paper's Methods print
MARGIN = 0.3  # within which ρ's interval must lie for C1, as in `claims`


def rank_correlations(record: Record) -> str:
    """Of `parameter_distance`: Spearman's ρ of distance with transfer, by three counts of transfer.

    Conditioned, of all pairs and of pushed ones; of pushed ones as the paper's Methods print it; and of both
    as the legend of its Figure 1 counts: `summaries.misread`.

    "The recorded result: Figure 1", first table.
    """
    pushed = _pushed(record)
    columns = (
        _correlations(record), _correlations(pushed), _correlations(pushed, of=PRINTED),
        *(_correlations(pairs, of=summaries.misread) for pairs in (record, pushed)),
    )  # fmt: skip
    rows = [[f"{e:.2f}", *(plain(rho[e]) for rho in columns)] for e in record.config["epsilons"]]
    header = [
        "ε", "ρ, distance against transfer", "pushed pairs", "as printed, pushed pairs",
        "all attacks counted", "all attacks counted, pushed pairs",
    ]  # fmt: skip
    return f"{summaries.table(header, rows)}\n\n{record.caption()}."


def where_transfer_falls(record: Record) -> str:
    """Of `parameter_distance`: the ε at which the interval of ρ lies wholly below zero.

    "The recorded result: Figure 1", below its first table: for all pairs and for pushed ones, and the same
    with intervals that allow for as many tries as there are ε.
    """
    pushed, tries = _pushed(record), len(record.config["epsilons"])
    allowed = 1 - 0.05 / tries
    return (
        "Where does the interval of ρ lie wholly below zero, so that the claim fails: the further apart, the "
        f"less transfers? With all pairs **{_below_zero(record)}**; among pushed pairs alone, which are the "
        f"paper's kind, **{_below_zero(pushed)}**. Each is a try at {tries} values of ε on the same pairs. "
        "With intervals widened to allow for that many tries (Bonferroni): "
        f"{_below_zero(record, allowed)} and {_below_zero(pushed, allowed)}."
    )


def by_the_papers_counts(record: Record) -> str:
    """Of `parameter_distance`: what the paper's kind of pairs show by either of its counts.

    "The recorded result: Figure 1", below its first table: where the interval of ρ lies below zero, and what
    the rule of C1 would say by the legend's count.
    """
    pushed, told = _pushed(record), {}
    for epsilon, rho in _correlations(pushed, of=summaries.misread).items():
        told.setdefault(claims.absence(rho, MARGIN), []).append(f"{epsilon:.2f}")
    said = [f"*{verdict}* at ε = {', '.join(at)}" for verdict, at in told.items()]
    return (
        "By the paper's own counts, among pushed pairs alone: with the rate as its Methods print it, the "
        f"interval lies below zero **{_below_zero(pushed, of=PRINTED)}**; as the legend of its Figure 1 "
        f"counts, **{_below_zero(pushed, of=summaries.misread)}**. By the legend's count of these pairs the "
        f"rule of C1 would say {'; '.join(said)}."
    )


def by_distance(record: Record) -> str:
    """Of `parameter_distance`: accuracy, transfer and held-out R² at one ε, a row for each target distance.

    "The recorded result: Figure 1", second table.
    """
    middle, rows = summaries.middle_epsilon(record), []
    for target in record.config["target_distances"]:
        where = {"target_distance": target, "epsilon": middle}
        r2 = mean_interval(
            [(row["heldout_1_to_2"] + row["heldout_2_to_1"]) / 2 for row in record.rows("features", **where)]
        )
        accuracy = summaries.accuracy(record, target_distance=target)
        shares = map(percent, (accuracy, summaries.transfer(record, **where)))
        rows.append([target or "none", *shares, plain(r2, 3)])
    columns = (f"{name}, ε = {middle:.2f}" for name in ("transfer", "R²"))
    return summaries.table(["D_t", "accuracy", *columns], rows)


def free_pairs(record: Record) -> str:
    """Of `parameter_distance`: how far apart pairs start and end that nothing pushes.

    "The recorded result: Figure 1", its last sentence.
    """
    initial, free = (
        mean_interval(record.values(name, target_distance=None)) for name in ("initial_distance", "distance")
    )
    return f"Free pairs start at a squared distance of {plain(initial, 0)} and end at {plain(free, 0)}."


def _pushed(record: Record) -> Record:
    """The record without its free pairs."""
    trials = [trial for trial in record.trials if trial["setting"]["target_distance"]]
    return dataclasses.replace(record, trials=trials)


def _correlations(record: Record, **options: Any) -> dict[float, MeanInterval]:
    """ρ at every ε."""
    return {e: summaries.rank_correlation(record, e, **options) for e in record.config["epsilons"]}


def _below_zero(record: Record, confidence: float = 0.95, **options: Any) -> str:
    """Where ρ's interval of that confidence excludes zero from below, "at ε = 0.05, 0.10" or "at no ε"."""
    rhos = _correlations(record, confidence=confidence, **options).items()
    found = [f"{epsilon:.2f}" for epsilon, rho in rhos if rho.mean + rho.half_width < 0]
    return f"at ε = {', '.join(found)}" if found else "at no ε"

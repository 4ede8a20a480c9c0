"""Records as the few numbers that a sentence or a plotted point needs: means over seeds, with intervals.

The unit is an independently seeded pair. A rate is computed within a pair first, both directions weighing
the same, and then averaged over pairs with a Student-t interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from scipy import stats

from dnabook.measures import MeanInterval, mean_interval
from dnabook.records import Record

LEARNED = 0.5  # accuracy below which a model counts as collapsed: five times chance


def healthy(record: Record) -> Record:
    """The record without the pairs in which a model collapsed (test accuracy below 0.5)."""
    return dataclasses.replace(record, trials=[t for t in record.trials if not _collapsed(t)])


def collapsed(record: Record, **where: Any) -> tuple[int, int]:
    """How many pairs of a setting collapsed, and how many there are."""
    trials = [t for t in record.trials if _matches({**t["setting"], "seed": t["seed"]}, where)]
    return sum(map(_collapsed, trials)), len(trials)


def accuracy(record: Record, **where: Any) -> MeanInterval:
    """Test accuracy, the mean of both models, over the pairs of a setting."""
    return mean_interval([sum(pair) / 2 for pair in record.values("accuracy", **where)])


def transfer(record: Record, *, conditioned: bool = True, **where: Any) -> MeanInterval:
    """Transfer rate over the pairs that match, for instance attack="pgd-linf", epsilon=0.1, arm="regular".

    conditioned: count only images that both models classify rightly before the attack; False: the printed
    definition. Both directions are averaged unless `source` is given.
    """
    by_seed: dict[int, list[float]] = {}
    for row in record.rows("transfer", **where):
        by_seed.setdefault(row["seed"], []).append(rate(row, conditioned=conditioned))
    return mean_interval([mean(rates) for rates in by_seed.values()])


def rate(row: dict[str, Any], *, conditioned: bool = True) -> float:
    """The transfer rate of one row of counts; nan when nothing fools the source."""
    suffix = "_clean" if conditioned else ""
    fooled = row[f"source_fooled{suffix}"]
    return row[f"both_fooled{suffix}"] / fooled if fooled else math.nan


def predictability(record: Record, reading: str = "heldout", **where: Any) -> MeanInterval:
    """A reading of R² ("heldout", "in_sample", "batch_in_sample", "chance_floor", …) over matching pairs.

    Give `source=1` for the direction 1 → 2 that the correlation loss acts on, `source=2` for the other.
    """
    return mean_interval([row[reading] for row in record.rows("predictability", **where)])


def rank_correlation(record: Record, epsilon: float) -> MeanInterval:
    """Spearman's ρ between a pair's parameter distance and its transfer at ε, within each seed, over seeds.

    Pairs of one seed share their initial weights and batches and differ only in D_t; seeds are independent.
    """
    rhos = []
    for seed in record.seeds:
        trials = [t["values"] for t in record.trials if t["seed"] == seed and not _collapsed(t)]
        transfers = [mean([rate(r) for r in t["transfer"] if r["epsilon"] == epsilon]) for t in trials]
        if len(trials) > 2:
            rhos.append(float(stats.spearmanr([t["distance"] for t in trials], transfers).statistic))
    return mean_interval(rhos)


def percent(value: MeanInterval | float) -> str:
    """A share as text, "45 ± 3 %", or without the interval where there is none."""
    if not isinstance(value, MeanInterval):
        return f"{100 * value:.0f} %"
    if value.n == 0:
        return plain(value)
    return f"{plain(MeanInterval(100 * value.mean, 100 * value.half_width, value.n), 0)} %"


def plain(value: MeanInterval, digits: int = 2) -> str:
    """A mean with its interval as text, "0.98 ± 0.01"; "no value" where no trial has one."""
    if value.n == 0:
        return "no value"
    text = f"{value.mean:.{digits}f}"
    return text if math.isnan(value.half_width) else f"{text} ± {value.half_width:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _collapsed(trial: dict[str, Any]) -> bool:
    return min(trial["values"]["accuracy"]) < LEARNED


def _matches(row: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in where.items())


def mean(values: list[float]) -> float:
    """The mean of the values that are not nan; nan when there is none."""
    values = [value for value in values if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan

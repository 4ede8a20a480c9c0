"""Figures 1 and 2: how linearly one model's features follow from another's, before and after decorrelation.

For a regular pair and for pairs trained with the correlation loss (Eq. 8): R² in both directions, in sample
at the training batch size and held out, beside its chance floor, ranks and live units; and the scatter of
first principal components that Figure 2 draws. Chapters 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dnabook import data, measures
from dnabook.experiments import Context
from dnabook.experiments.pairs import (
    DIRECTIONS,
    PAIRS,
    TRAINING,
    Training,
    accuracies,
    feature_pair,
    feature_row,
    first_component,
    train,
)

TITLE = "Linear predictability of features, regular and decorrelated pairs (Figs. 1 and 2)"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    pairs: tuple[tuple[str, str], ...] = PAIRS
    test_images: int = 10_000
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20)
    points: int = 250  # of the scatter


SCALES = {
    "smoke": Config(TRAINING["smoke"], PAIRS[:2], test_images=2000, epsilons=(0.10,), points=50),
    "laptop": Config(TRAINING["laptop"], test_images=5000, epsilons=(0.10,)),
    "paper": Config(),
}


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture and arm."""
    return [{"architecture": architecture, "arm": arm} for architecture, arm in config.pairs]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train one pair (or take the one that `transfer` trained) and compare its features.

    Values: "accuracy"; "predictability", a row for each direction with every reading of R² on all test
    images and, as "batch_in_sample", on as many as a training batch holds; "first_component" with its R²
    and the scatter's points; "features", the rows of
    `pairs.feature_row`.
    """
    pair, _ = train(config.training, setting["architecture"], setting["arm"], seed, context)
    test = data.load("mnist", "test", limit=config.test_images, device=context.device)
    z = feature_pair(pair, test.x)
    batch = config.training.batch_size
    rows = []
    for source, target in DIRECTIONS:
        z1, z2 = z[source - 1], z[target - 1]
        reading = measures.predictability(z1, z2)._asdict()
        in_batch = measures.r_squared(z1[:batch], z2[:batch])
        rows.append({"source": source, "target": target, **reading, "batch_in_sample": in_batch})
    return {
        "data": test.digest,
        "accuracy": accuracies(pair, test),
        "predictability": rows,
        "first_component": first_component(z, test.y, config.points),
        "features": [feature_row(pair, test, epsilon, seed) for epsilon in (0.0, *config.epsilons)],
    }

"""Figure 1: do models that are far apart in parameters transfer less? (Eq. 5, chapter 2)

Pairs of CNNs are trained towards a set squared distance D_t, or without any such term. Then FGSM is run
across each pair, and the linear predictability of one model's features from the other's is measured on
natural and on attacked images. The paper gives no learning rate or batch size here; we take Figure 3's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dnabook import data, losses, measures, training
from dnabook.experiments import Context
from dnabook.experiments.pairs import accuracies, feature_row, new_pair, transfer_rows

TITLE = "Transfer and feature correlation against parameter distance (Fig. 1)"


@dataclass(frozen=True)
class Config:
    target_distances: tuple[float | None, ...] = (None, 1000, 1500, 2000, 2500, 3000)  # D_t; None: λ = 0
    distance_weight: float = 1e-5  # λ in Eq. 5
    epochs: int = 10
    batch_size: int = 1000
    learning_rate: float = 5e-3
    train_images: int = 60_000
    test_images: int = 10_000
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20)


SCALES = {
    "smoke": Config(
        target_distances=(None, 1000), epochs=3, batch_size=100, train_images=4000, test_images=500,
        epsilons=(0.05, 0.20),
    ),
    "laptop": Config(
        target_distances=(None, 1000, 2000, 3000), epochs=4, batch_size=200, train_images=20_000,
        test_images=2000,
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a target distance."""
    return [{"target_distance": distance} for distance in config.target_distances]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train one pair by Eq. 5 and measure it.

    Values: "accuracy" of both models, squared "distance" and "initial_distance", "history",
    "transfer" (rows of `pairs.transfer_rows`), "features" (one row for each ε, 0 being natural images,
    each attacked image crafted on model 1: held-out R² both ways, Pearson, CKA).
    """
    images = data.load("mnist", limit=config.train_images, device=context.device)
    test = data.load("mnist", "test", limit=config.test_images, device=context.device)
    pair = new_pair("cnn", seed, context)
    initial = measures.parameter_distance(*pair).item()
    target = setting["target_distance"]
    if target is None:
        objective = losses.classification(*pair)
    else:
        objective = losses.parametric_distance(*pair, target_distance=target, weight=config.distance_weight)
    history = training.fit(
        objective,
        objective.parameters(),
        data.Batches(images, config.batch_size, seed=seed),
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        cuda_graph=True,
        progress=context.progress,
        checkpoint=context.checkpoint(parameter_distance=dataclasses.asdict(config), **setting),
    )
    return {
        "data": test.digest,
        "accuracy": accuracies(pair, test),
        "initial_distance": initial,
        "distance": measures.parameter_distance(*pair).item(),
        "history": {name: [round(v, 4) for v in values] for name, values in history.items()},
        "transfer": transfer_rows(
            pair, test, ("fgsm-linf",), config.epsilons, steps=1, seed=seed, context=context
        ),
        "features": [feature_row(pair, test, epsilon, seed) for epsilon in (0.0, *config.epsilons)],
    }

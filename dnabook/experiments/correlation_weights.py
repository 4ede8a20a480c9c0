"""How much correlation loss is enough? CNN pairs trained with growing λ in Eq. 8 (chapter 4).

The paper has one λ, 0.05. Here λ is a dial: for each weight a pair is trained and its accuracy, linear
predictability both ways, first components (Figure 2) and transfer are measured. The loss is the released one,
but it comes late (`pairs.ARMS`): from the first step on it kills CNN pairs, and a dead pair has no scatter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dnabook import data
from dnabook.experiments import Context
from dnabook.experiments.pairs import (
    TRAINING,
    Pair,
    Training,
    accuracies,
    feature_pair,
    first_component,
    predictability_rows,
    train,
    transfer_rows,
)
from dnabook.models import CNN

TITLE = "Features, transfer and accuracy against the weight of the correlation loss (λ in Eq. 8)"
KEEPS_WEIGHTS = True  # of the first seed, for live cells


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    architecture: str = "cnn"
    weights: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # λ
    epsilon: float = 0.10
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 2000
    points: int = 250  # of the scatter


SCALES = {
    "smoke": Config(
        TRAINING["smoke"], weights=(0.0, 0.05), steps=5, feature_images=1000, test_images=250, points=50
    ),
    "laptop": Config(
        dataclasses.replace(TRAINING["laptop"], epochs=3, plain_epochs=1), steps=20, feature_images=5000,
        test_images=250,
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each λ."""
    return [{"correlation_weight": weight} for weight in config.weights]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a pair with one λ, compare its features and attack it; λ = 0 keeps the others' two stages.

    Values: "accuracy" of both models on all test images; "predictability", for each direction held-out R² and
    live units; "first_component" as in `feature_correlation`; "transfer", PGD-ℓ∞ rows of
    `pairs.transfer_rows` at one ε; "history". Keeps both models, named by λ.
    """
    weight = setting["correlation_weight"]
    how = dataclasses.replace(config.training, correlation_weight=weight)
    pair, history = train(how, config.architecture, "decorrelated_late", seed, context)
    context.keep(**{name_of(weight, number): model for number, model in enumerate(pair, 1)})
    test = data.load("mnist", "test", device=context.device)
    z = feature_pair(pair, test.x[: config.feature_images])
    rows = transfer_rows(
        pair, test[: config.test_images], ("pgd-linf",), (config.epsilon,), steps=config.steps, seed=seed,
        context=context,
    )  # fmt: skip
    return {
        "data": test.digest, "accuracy": accuracies(pair, test),
        "predictability": predictability_rows(z),
        "first_component": first_component(z, test.y, config.points),
        "transfer": rows, "history": history,
    }  # fmt: skip


def pair_of(weights: Mapping[str, Any], weight: float) -> Pair:
    """The CNNs with λ = weight from a record's kept weights, in eval mode. Raises KeyError if it has none."""
    pair = (CNN(), CNN())
    for number, model in enumerate(pair, 1):
        model.load_state_dict(weights[name_of(weight, number)])
        model.eval()
    return pair


def name_of(weight: float, number: int) -> str:
    """What the kept weights of model 1 or 2 of the pair with λ = weight are called."""
    return f"lambda_{weight:g}_model_{number}"

"""Has the correlation loss changed how two models relate, or each of them alone? (chapter 4)

A control that the paper does not have. Attacks pass between a regular pair of CNNs, decorrelated ones that
began alike, and a second regular pair that shares neither initial weights nor batches with any of them. If
the loss changed the relation, only attacks within a decorrelated pair would transfer less.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import data, measures
from dnabook.experiments import Context, between
from dnabook.experiments.between import Network
from dnabook.experiments.pairs import DIRECTIONS, TRAINING, UNRELATED, Training, train

TITLE = "Attacks between regular, decorrelated and unrelated CNNs: the relation, or each model?"

ARMS = {  # arm of `pairs.ARMS`, variant of the loss, what is added to the seed
    "regular": ("regular", "released", 0),
    "decorrelated_late": ("decorrelated_late", "released", 0),
    "corrected": ("decorrelated", "corrected", 0),
    "stranger": ("regular", "released", UNRELATED),
}


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    arms: tuple[str, ...] = tuple(ARMS)
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], ("regular", "stranger"), epsilons=(0.10,), steps=5,
                    feature_images=1000, test_images=250),
    "laptop": Config(TRAINING["laptop"], steps=20, feature_images=5000, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a seed: all pairs are needed at once."""
    return [{"architecture": "cnn"}]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a pair of each arm, and attack every model for the other number's models of all arms.

    Values: "accuracy" of all models on all test images, arm by arm; "relation", for each source and target
    the held-out R² from the source's features to the target's and the mean cosine of their input gradients;
    "transfer", rows of `between.attacked_through`. Models of one number share their initial
    weights, so only 1 → 2 and 2 → 1 are taken.
    """
    test = data.load("mnist", "test", device=context.device)
    models: dict[Network, nn.Module] = {}
    for arm in config.arms:
        kind, variant, more = ARMS[arm]
        how = dataclasses.replace(config.training, variant=variant)
        pair, _ = train(how, setting["architecture"], kind, seed + more, context)
        models.update({(arm, number): model for number, model in enumerate(pair, 1)})
    accuracy = [measures.accuracy(model, test.x, test.y) for model in models.values()]
    return {"data": test.digest, "accuracy": accuracy, **compared(models, test, config, seed, context)}


def compared(
    models: dict[Network, nn.Module], test: data.Images, config: Config, seed: int, context: Context
) -> dict[str, list[dict[str, Any]]]:
    """The rows "relation" and "transfer" of `run`, between models of different numbers."""
    cells = [
        ((source_arm, source), (target_arm, target))
        for source_arm, target_arm, (source, target) in itertools.product(
            config.arms, config.arms, DIRECTIONS
        )
    ]
    few = test[: config.test_images]
    relations = between.relations(models, cells, test[: config.feature_images], few)
    transfers = between.transfers(models, cells, few, config.epsilons, config.steps, seed, context)
    return {"relation": list(relations), "transfer": list(transfers)}

"""Has the correlation loss changed how two models relate, or each of them alone? (chapter 4)

A control that the paper does not have. Attacks pass between a regular pair of CNNs, decorrelated ones that
began alike, and a second regular pair that shares neither initial weights nor batches with any of them. If
the loss changed the relation, only attacks within a decorrelated pair would transfer less.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import attacks, data, measures
from dnabook.experiments import Context
from dnabook.experiments.pairs import DIRECTIONS, TRAINING, Training, attack, counted, train

TITLE = "Attacks between regular, decorrelated and unrelated CNNs: the relation, or each model?"

ARMS = {  # arm of `pairs.ARMS`, variant of the loss, what is added to the seed
    "regular": ("regular", "released", 0),
    "decorrelated_late": ("decorrelated_late", "released", 0),
    "corrected": ("decorrelated", "corrected", 0),
    "stranger": ("regular", "released", 1000),
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
    "transfer", PGD-ℓ∞ rows with the counts of `pairs.counted`. Models of one number share their initial
    weights, so only 1 → 2 and 2 → 1 are taken.
    """
    test = data.load("mnist", "test", device=context.device)
    models: dict[tuple[str, int], nn.Module] = {}
    for arm in config.arms:
        kind, variant, more = ARMS[arm]
        how = dataclasses.replace(config.training, variant=variant)
        pair, _ = train(how, setting["architecture"], kind, seed + more, context)
        models.update({(arm, number): model for number, model in enumerate(pair, 1)})
    return {
        "data": test.digest,
        "accuracy": [measures.accuracy(model, test.x, test.y) for model in models.values()],
        "relation": list(_relations(models, test, config)),
        "transfer": list(_transfers(models, test[: config.test_images], config, seed, context)),
    }


def _relations(
    models: dict[tuple[str, int], nn.Module], test: data.Images, config: Config
) -> Iterator[dict[str, Any]]:
    few = test[: config.test_images]
    z = {name: measures.features(model, test.x[: config.feature_images]) for name, model in models.items()}
    for source, target in _cells(config.arms):
        yield {
            **_named(source, target),
            "heldout": measures.r_squared(z[source], z[target], heldout=True),
            "gradient_cosine": measures.gradient_cosine(models[source], models[target], few.x, few.y),
        }


def _transfers(
    models: dict[tuple[str, int], nn.Module], images: data.Images, config: Config, seed: int, context: Context
) -> Iterator[dict[str, Any]]:
    x, y = images.x, images.y
    right = {name: measures.predictions(model, x) == y for name, model in models.items()}
    combinations = list(itertools.product(config.epsilons, models))
    for epsilon, source in context.progress(combinations, "attacks"):
        method = attack("pgd-linf", epsilon, images, steps=config.steps, seed=seed)
        x_adv = attacks.craft(method, models[source], x, y)
        wrong = {name: measures.predictions(model, x_adv) != y for name, model in models.items()}
        for _, target in (cell for cell in _cells(config.arms) if cell[0] == source):
            clean = right[source] & right[target]
            counts = counted(wrong[source], wrong[target], clean)
            yield {"attack": "pgd-linf", "epsilon": epsilon, **_named(source, target), **counts}


def _cells(arms: tuple[str, ...]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Every (arm, number) that is attacked with every (arm, number) of the other number that reads it."""
    for source_arm, target_arm, (source, target) in itertools.product(arms, arms, DIRECTIONS):
        yield (source_arm, source), (target_arm, target)


def _named(source: tuple[str, int], target: tuple[str, int]) -> dict[str, Any]:
    return {"source_arm": source[0], "source": source[1], "target_arm": target[0], "target": target[1]}

"""Decorrelated from a fixed surrogate: does it protect against attacks on networks like it? (chapter 4)

The paper's discussion proposes it and tests nothing: train a surrogate as usual, then the network to be
deployed with a correlation loss between both, presuming that an attacker's own network is like the surrogate.
Here the attackers are the surrogate itself, and regular networks of other seeds that the defence never saw.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import data, losses, measures
from dnabook.experiments import Context
from dnabook.experiments.controls import attacked_through, shuffled
from dnabook.experiments.pairs import TRAINING, Training, new_pair, train, train_in_stages

TITLE = "Decorrelated from a fixed surrogate, attacked through it and through networks like it"

READERS = {  # arm of `pairs.ARMS` and variant of the loss; the first is the regular pair's model 2
    "regular": ("regular", "released"),
    "decorrelated_late": ("decorrelated_late", "released"),
    "corrected": ("decorrelated", "corrected"),
}
UNSEEN = 1000  # is added to the seed of the attackers' own networks

Attackers = dict[tuple[str, int], nn.Module]  # by kind and number


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    arms: tuple[str, ...] = tuple(READERS)
    unseen: tuple[str, ...] = ("cnn", "fully_connected")
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], ("regular", "corrected"), unseen=("cnn",), epsilons=(0.10,), steps=5,
                    feature_images=1000, test_images=250),
    "laptop": Config(TRAINING["laptop"], steps=20, feature_images=5000, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a seed: every network that is attacked is read by all."""
    return [{"architecture": "cnn"}]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train (or take) the regular pair of `transfer`, of which model 1 is the surrogate; defend; attack.

    All readers begin with model 2's weights and see its batches. Values: "accuracy" of all attackers, then of
    all readers, on all test images; "readers", the latter by arm; "relation", for each attacker and reader
    held-out R² from the attacker's features to the reader's, on test images in random order, and the mean
    cosine of their input gradients; "transfer", for each the row of `controls.attacked_through`.
    """
    (surrogate, undefended), _ = train(config.training, "cnn", "regular", seed, context)
    attackers: Attackers = {("surrogate", 1): surrogate}
    for architecture in config.unseen:
        pair, _ = train(config.training, architecture, "regular", seed + UNSEEN, context)
        attackers |= {(architecture, number): model for number, model in enumerate(pair, 1)}
    readers = {
        arm: undefended if arm == "regular" else defended(config.training, arm, surrogate, seed, context)
        for arm in config.arms
    }
    test = data.load("mnist", "test", device=context.device)
    read = {arm: measures.accuracy(model, test.x, test.y) for arm, model in readers.items()}
    known = [measures.accuracy(model, test.x, test.y) for model in attackers.values()]
    few = test[: config.test_images]
    return {
        "data": test.digest,
        "accuracy": [*known, *read.values()],
        "readers": [{"arm": arm, "accuracy": accuracy} for arm, accuracy in read.items()],
        "relation": list(_relations(attackers, readers, test, few, config, seed)),
        "transfer": list(_transfers(attackers, readers, few, config, seed, context)),
    }


def defended(how: Training, arm: str, surrogate: nn.Module, seed: int, context: Context) -> nn.Module:
    """Model 2 of the seed's pair, trained by an arm of `READERS`, its features against the surrogate's.

    how: the surrogate was trained so too, but for the arm.
    """
    (kind, variant), against = READERS[arm], dataclasses.asdict(how)
    how = dataclasses.replace(how, variant=variant)
    fixed, model = copy.deepcopy(surrogate).requires_grad_(False), new_pair("cnn", seed, context)[1]

    def objective(weight: float) -> losses.Objective:
        return losses.decorrelation_from(fixed, model, correlation_weight=weight, variant=variant)

    train_in_stages(how, kind, objective, seed, context, architecture="cnn", against=against)
    return model


def _relations(
    attackers: Attackers, readers: dict[str, nn.Module], test: data.Images, few: data.Images, config: Config,
    seed: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    x = shuffled(test, config.feature_images, seed).x
    z1, z2 = (
        {name: measures.features(model, x) for name, model in models.items()}
        for models in (attackers, readers)
    )
    for (attacker, number), arm in itertools.product(attackers, readers):
        across = attackers[attacker, number], readers[arm]
        yield {
            "attacker": attacker,
            "number": number,
            "arm": arm,
            "heldout": measures.r_squared(z1[attacker, number], z2[arm], heldout=True),
            "gradient_cosine": measures.gradient_cosine(*across, few.x, few.y),
        }


def _transfers(
    attackers: Attackers, readers: dict[str, nn.Module], images: data.Images, config: Config, seed: int,
    context: Context,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    combinations = list(itertools.product(config.epsilons, attackers))
    for epsilon, (attacker, number) in context.progress(combinations, "attacks"):
        source = attackers[attacker, number]
        rows = attacked_through(source, list(readers.values()), images, epsilon, config.steps, seed)
        for arm, row in zip(readers, rows, strict=True):
            yield {"attacker": attacker, "number": number, "arm": arm, **row}

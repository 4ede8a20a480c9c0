"""Decorrelated from a fixed surrogate: does it protect against attacks on networks like it? (chapter 4)

The paper's discussion proposes it and tests nothing: train a surrogate as usual, then the network to be
deployed with a correlation loss between both, presuming that an attacker's own network is like the surrogate.
Here the attackers are the surrogate itself, and regular networks of other seeds that the defence never saw.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import data, losses, measures
from dnabook.experiments import Context, between
from dnabook.experiments.between import Network
from dnabook.experiments.pairs import TRAINING, UNRELATED, Training, new_pair, train, train_in_stages

TITLE = "Decorrelated from a fixed surrogate, attacked through it and through networks like it"

READERS = {  # arm of `pairs.ARMS` and variant of the loss; the first is the regular pair's model 2
    "regular": ("regular", "released"),
    "decorrelated_late": ("decorrelated_late", "released"),
    "corrected": ("decorrelated", "corrected"),
}


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
    all readers, on all test images; "readers", the latter by arm. Then rows for each attacker and reader:
    "relation", readings of `between.relations` on test images in random order; "transfer", rows of
    `between.attacked_through`. An attacker's kind stands where arms do elsewhere.
    """
    (surrogate, undefended), _ = train(config.training, "cnn", "regular", seed, context)
    attackers: dict[Network, nn.Module] = {("surrogate", 1): surrogate}
    for architecture in config.unseen:
        pair, _ = train(config.training, architecture, "regular", seed + UNRELATED, context)
        attackers |= {(architecture, number): model for number, model in enumerate(pair, 1)}
    readers: dict[Network, nn.Module] = {
        (arm, 2): undefended if arm == "regular" else defended(config.training, arm, surrogate, seed, context)
        for arm in config.arms
    }
    test = data.load("mnist", "test", device=context.device)
    known, read = (
        [measures.accuracy(model, test.x, test.y) for model in networks.values()]
        for networks in (attackers, readers)
    )
    mixed, few = test.shuffled(seed)[: config.feature_images], test[: config.test_images]
    networks, cells = attackers | readers, list(itertools.product(attackers, readers))
    return {
        "data": test.digest,
        "accuracy": known + read,
        "readers": [{"arm": arm, "accuracy": share} for (arm, _), share in zip(readers, read, strict=True)],
        "relation": list(between.relations(networks, cells, mixed, few)),
        "transfer": list(
            between.transfers(networks, cells, few, config.epsilons, config.steps, seed, context)
        ),
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

"""R² of the features or the cosine of the gradients: which must fall for transfer to fall? (conclusion)

Where the correlation loss lowers transfer, both fall, so neither is shown to matter. Here pairs of CNNs begin
alike and see the same batches, and one of the two is moved while the other is left, or held where regular
pairs have it. If linear predictability is what transfer needs, transfer stays where R² stays, and falls where
R² falls though the gradients are held. If aligned gradients are, it is the other way round.

In a first design the gradients were turned from the first step on. At paper scale it lost a network in both
seeds that were run, a constant network in one and a loss that was not a number in the other.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import data, losses, measures
from dnabook.experiments import Context, between
from dnabook.experiments.between import Cell, Network
from dnabook.experiments.pairs import (
    CORRECTED,
    DIRECTIONS,
    UNRELATED,
    Pair,
    Training,
    new_pair,
    train_in_stages,
)

TITLE = "R² of the features or the cosine of the gradients: which must fall for transfer to fall?"

STRANGER = "stranger"  # the name in all rows of a regular pair that no loss ever saw
ARMS = {  # λ of the correlation loss; λ_G of the gradients' alignment; the cosine at which that holds them
    "regular": (0.0, 0.0, 0.0),
    "features": (0.05, 0.0, 0.0),
    "gradients": (0.0, 1.0, 0.0),
    "gradients_held": (0.05, 3.0, 0.33),  # about the cosine of regular pairs at paper scale
}

Terms = tuple[float, float, float]


@dataclass(frozen=True)
class Config:
    training: Training = CORRECTED["paper"]
    arms: dict[str, Terms] = field(default_factory=ARMS.copy)
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(CORRECTED["smoke"], {arm: ARMS[arm] for arm in ("regular", "gradients")},
                    epsilons=(0.10,), steps=5, feature_images=1000, test_images=250),
    "laptop": Config(CORRECTED["laptop"], steps=20, feature_images=5000, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a seed: all pairs are compared with the same strangers."""
    return [{"architecture": "cnn"}]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a pair of each arm and a regular one of another seed, and attack within pairs and across.

    Values: "accuracy" of all networks on all test images, arm by arm, the strangers' last. Then rows from
    network 1 to 2 and from 2 to 1, within each arm, from it to the strangers and from them to it:
    "relation", held-out R² from the attacked network's features to the reader's, on test images in random
    order, and the mean cosine of their input gradients; "movement", rows of `between.movement` with one
    ridge; "transfer", rows of `between.attacked_through`.
    """
    networks: dict[Network, nn.Module] = {}
    for arm, terms in config.arms.items():
        pair = trained(config.training, terms, seed, context)
        networks |= {(arm, number): model for number, model in enumerate(pair, 1)}
    strangers = trained(config.training, ARMS["regular"], seed + UNRELATED, context)
    networks |= {(STRANGER, number): model for number, model in enumerate(strangers, 1)}
    test = data.load("mnist", "test", device=context.device)
    mixed, few = test.shuffled(seed)[: config.feature_images], test[: config.test_images]
    cells = _cells(networks)
    return {
        "data": test.digest,
        "accuracy": [measures.accuracy(model, test.x, test.y) for model in networks.values()],
        "relation": list(between.relations(networks, cells, mixed, few)),
        "movement": list(between.movements(networks, cells, mixed, config.epsilons, seed, context)),
        "transfer": list(
            between.transfers(networks, cells, few, config.epsilons, config.steps, seed, context)
        ),
    }


def trained(how: Training, terms: Terms, seed: int, context: Context) -> Pair:
    """The seed's pair of CNNs, trained with an arm's terms, as `ARMS` has them.

    λ acts from the first step, λ_G only after a few epochs: networks that have not learned yet can die of it.
    There Adam starts anew in all arms, in those without λ_G as well.
    """
    weight, alignment_weight, target_cosine = terms
    how, pair = dataclasses.replace(how, correlation_weight=1.0), new_pair("cnn", seed, context)

    def objective(switch: float) -> losses.Objective:
        return losses.alignment(
            *pair, correlation_weight=weight, alignment_weight=switch * alignment_weight,
            target_cosine=target_cosine,
        )  # fmt: skip

    train_in_stages(how, "decorrelated_late", objective, seed, context, architecture="cnn", terms=terms)
    return pair


def _cells(networks: dict[Network, nn.Module]) -> list[Cell]:
    """Who is attacked and who reads: the other of the same pair, or a stranger on either side."""
    arms = list(dict.fromkeys(arm for arm, _ in networks))
    return [
        ((attacked, source), (reads, target))
        for attacked, reads, (source, target) in itertools.product(arms, arms, DIRECTIONS)
        if attacked == reads or STRANGER in (attacked, reads)
    ]

"""Does R² foretell transfer between networks of different kinds? (chapter 9; C21, C22)

The paper's discussion expects less transfer where the architecture makes other features, between CNNs and
transformers, and asks whether transfer goes with linear correlation or with mutual information; it tests
neither. Two networks of each kind are trained alike and attacked, and all read the attacks of all others. For
each of these cells we ask what foretells transfer: a linear map of the features, one that need not be linear,
how the features move under an attack, or the gradients.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from torch import nn

from dnabook import data, measures
from dnabook.experiments import Context, between
from dnabook.experiments.between import Network
from dnabook.experiments.pairs import CORRECTED, Training, train

TITLE = "CNNs, fully connected networks and transformers: does R² foretell what transfers between them?"

KINDS = ("cnn", "fully_connected", "vit")
OTHERS = {"nonlinear": measures.nonlinear_r_squared, "cka": measures.cka}  # beside the linear R²


@dataclass(frozen=True)
class Config:
    training: Training = CORRECTED["paper"]  # whose Eq. 8 adds up the cross-entropies
    kinds: tuple[str, ...] = KINDS
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(CORRECTED["smoke"], ("cnn", "vit"), epsilons=(0.10,), steps=5, feature_images=1000,
                    test_images=250),
    "laptop": Config(CORRECTED["laptop"], steps=20, feature_images=5000, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a seed: every network reads the attacks on every other."""
    return [{"architecture": "all"}]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train two networks of each kind, and attack each for all others.

    Values: "accuracy" of all networks on all test images, kind by kind. Then rows for every two of them, both
    ways: "relation", readings of `between.relations` with `OTHERS`; "movement", rows of `between.movement`
    with one ridge; "transfer", rows of `between.attacked_through`. The kind stands where arms do elsewhere.
    """
    networks: dict[Network, nn.Module] = {}
    for kind in config.kinds:
        pair, _ = train(config.training, kind, "regular", seed, context)
        networks |= {(kind, number): model for number, model in enumerate(pair, 1)}
    test = data.load("mnist", "test", device=context.device)
    mixed, few = test.shuffled(seed)[: config.feature_images], test[: config.test_images]
    cells = list(itertools.permutations(networks, 2))
    return {
        "data": test.digest,
        "accuracy": [measures.accuracy(model, test.x, test.y) for model in networks.values()],
        "relation": list(between.relations(networks, cells, mixed, few, OTHERS)),
        "movement": list(between.movements(networks, cells, mixed, config.epsilons, seed, context)),
        "transfer": list(
            between.transfers(networks, cells, few, config.epsilons, config.steps, seed, context)
        ),
    }

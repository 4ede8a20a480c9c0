"""Do wider networks follow from each other less, and pass fewer attacks on to each other? (chapter 9; C24)

The paper's discussion expects both of models of high capacity, whose features "may naturally be non-linearly
related, but have weaker linear correlation", and tests neither. Here regular pairs of the networks of Figure
11 are trained with all hidden layers narrower and wider than there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from dnabook import data, measures
from dnabook.experiments import Context, between
from dnabook.experiments.between import Network, Reading
from dnabook.experiments.pairs import TRAINING, Training, accuracies, train

TITLE = "CNNs and fully connected networks, narrow and wide: do R² and transfer fall as they grow?"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    architectures: tuple[str, ...] = ("cnn", "fully_connected")
    widths: tuple[float, ...] = (0.25, 0.5, 1, 2)
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 60_000  # of the training set: the test set is small for 1,568 units
    kernel_images: int = 10_000  # the first of them, for the kernel, beside which a line is fitted on as many
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], ("cnn",), (0.5, 1), epsilons=(0.10,), steps=5, feature_images=2000,
                    kernel_images=1000, test_images=250),
    "laptop": Config(TRAINING["laptop"], widths=(0.25, 0.5, 1), steps=20, feature_images=20_000,
                     kernel_images=5000, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture and width."""
    both = itertools.product(config.architectures, config.widths)
    return [{"architecture": architecture, "width": width} for architecture, width in both]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a regular pair of a width, compare its features and attack across it.

    Values: "accuracy" of both networks on all test images; the number of "parameters" and of "features" of
    one. Then rows for both directions: "relation", readings of `between.relations` on training images in
    random order, with a linear R² ("few_images") and a kernel's ("nonlinear") on the first `kernel_images` of
    them; "movement", rows of `between.movement` with one ridge, on as many test images in random order;
    "transfer", rows of `between.attacked_through` on the first `test_images` test images.
    """
    width = setting["width"]
    options = {} if width == 1 else {"width": width}  # at 1 it is the pair of `transfer`, trained or taken
    pair, _ = train(config.training, setting["architecture"], "regular", seed, context, **options)
    networks: dict[Network, nn.Module] = {("regular", number): model for number, model in enumerate(pair, 1)}
    cells = list(itertools.permutations(networks, 2))
    test = data.load("mnist", "test", device=context.device)
    many = data.load("mnist", device=context.device).shuffled(seed)[: config.feature_images]
    mixed, few = test.shuffled(seed)[: config.kernel_images], test[: config.test_images]

    def on_few(reading: Reading) -> Reading:
        return lambda z1, z2: reading(z1[: config.kernel_images], z2[: config.kernel_images])

    linear = partial(measures.r_squared, heldout=True)
    others = {"few_images": on_few(linear), "nonlinear": on_few(measures.nonlinear_r_squared)}
    return {
        "data": test.digest,
        "accuracy": accuracies(pair, test),
        "parameters": sum(p.numel() for p in pair[0].parameters()),
        "features": measures.features(pair[0], few.x[:1]).numel(),
        "relation": list(between.relations(networks, cells, many, few, others)),
        "movement": list(between.movements(networks, cells, mixed, config.epsilons, seed, context)),
        "transfer": list(
            between.transfers(networks, cells, few, config.epsilons, config.steps, seed, context)
        ),
    }

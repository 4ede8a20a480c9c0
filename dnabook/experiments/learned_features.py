"""What rises with transfer as features learn? A control for the thesis, which the paper does not have.

The features of CNNs are trained for some epochs and then left as they are; heads are trained behind them, and
the whole is attacked. At each age of the features: how well do those of a regular CNN follow from them, how
well the way that an attack moves them, and how much of the attack transfers to it? Two kinds of head tell
whether it is the features or the head that keeps an attack from transferring. Chapter 3.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dnabook import data, measures
from dnabook.experiments import Context
from dnabook.experiments.between import NATURAL_RIDGE, attacked_through, movement
from dnabook.experiments.pairs import (
    DIRECTIONS,
    TRAINING,
    UNRELATED,
    Pair,
    Training,
    accuracies,
    feature_pair,
    new_pair,
    train,
    train_heads,
)
from dnabook.models import seeded
from dnabook.products import Linear

TITLE = "What rises with transfer as features learn: CNNs whose features stopped learning early"

HEADS = ("own", "hidden")  # Figure 11's, as it was drawn with the features; a hidden layer of 200 units


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    epochs: tuple[float, ...] = (0, 0.1, 1, 3, 20)  # for which the features are trained; heads have all
    heads: tuple[str, ...] = HEADS
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], epochs=(0, 4), epsilons=(0.10,), steps=5, feature_images=2000,
                    test_images=250),
    "laptop": Config(TRAINING["laptop"], epochs=(0, 0.1, 1, 4), steps=20, feature_images=5000,
                     test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial a seed: what is attacked at any age is read by the same pair."""
    return [{"architecture": "cnn"}]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train the regular pair of `transfer` (or take it), and pairs drawn elsewhere up to each age.

    Values: "accuracy" of the regular pair on all test images. From network 1 of an aged pair to 2 of the
    regular one, and from 2 to 1: "relation", rows of held-out R² and of the source's effective rank for each
    of `epochs`, on test images in random order; and for each of `heads` behind these features "sources", the
    accuracy of what is attacked and the `measures.gradient_cosine` with who reads, "movement", rows of
    `between.movement` with one ridge, and "transfer", rows of `between.attacked_through`.
    """
    architecture = setting["architecture"]
    readers, _ = train(config.training, architecture, "regular", seed, context)
    test = data.load("mnist", "test", device=context.device)
    mixed, few = test.shuffled(seed)[: config.feature_images], test[: config.test_images]
    z = feature_pair(readers, mixed.x)
    relations, sources, movements, transfers = [], [], [], []
    for epochs in config.epochs:
        aged = features_after(epochs, config.training, architecture, seed + UNRELATED, context)
        z_aged = feature_pair(aged, mixed.x)
        for source, target in DIRECTIONS:
            z1, z2 = z_aged[source - 1], z[target - 1]
            relation = {"heldout": measures.r_squared(z1, z2, heldout=True)}
            relation["effective_rank"] = measures.effective_rank(z1)
            relations.append({"epochs": epochs, "source": source, "target": target, **relation})
        for head in context.progress(config.heads, f"heads behind {epochs:g} epochs"):
            pair = with_heads(head, aged, architecture, seed + UNRELATED, context)
            made = {"architecture": architecture, "trained": epochs, "head": head}
            train_heads(config.training, pair, seed + UNRELATED, context, **made)
            read = accuracies(pair, test)
            for source, target in DIRECTIONS:
                across = pair[source - 1], readers[target - 1]
                where = {"epochs": epochs, "head": head, "source": source, "target": target}
                cosine = measures.gradient_cosine(*across, few.x, few.y)
                sources.append({**where, "accuracy": read[source - 1], "gradient_cosine": cosine})
                moved = movement(across, mixed, config.epsilons, (NATURAL_RIDGE,), seed)["movement"]
                movements += [{**where, **row} for row in moved]
                for epsilon in config.epsilons:
                    (row,) = attacked_through(across[0], across[1:], few, epsilon, config.steps, seed)
                    transfers.append({**where, **row})
    tables = {"relation": relations, "sources": sources, "movement": movements, "transfer": transfers}
    return {"data": test.digest, "accuracy": accuracies(readers, test), **tables}


def features_after(epochs: float, how: Training, architecture: str, seed: int, context: Context) -> Pair:
    """The regular pair of a seed after some epochs, 0 for as it was drawn; below 1 a part of the images."""
    if not epochs:
        return new_pair(architecture, seed, context)
    images = round(min(epochs, 1) * how.train_images)
    how = dataclasses.replace(how, epochs=max(round(epochs), 1), train_images=images)
    return train(how, architecture, "regular", seed, context)[0]


def with_heads(kind: str, pair: Pair, architecture: str, seed: int, context: Context) -> Pair:
    """Copies of a CNN pair with untrained heads of `HEADS`, drawn from the seed."""
    heads = [model.tail for model in new_pair(architecture, seed, context)]
    if kind == "hidden":
        with seeded(seed):
            heads = [
                nn.Sequential(nn.Flatten(), Linear(784, 200), nn.ReLU(), Linear(200, 10)).to(context.device)
                for _ in pair
            ]
    copies = copy.deepcopy(pair)
    for model, head in zip(copies, heads, strict=True):
        model.tail = head
    return copies

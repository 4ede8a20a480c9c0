"""What there is without learning: controls for Figures 1 to 3, which the paper does not have.

Beside a regular pair stand what has learned nothing: two untrained networks, the pixels, and random signs of
an attack's size. How much of R² between features, and of the harm of a transferred attack, needs no training?
Does the map between natural features predict how an attack moves them? And what transfers from networks whose
features stay as they were drawn, and of which only the heads have learned to read? Chapters 1 and 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dnabook import attacks, data, measures
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.experiments.between import attacked_through, movement, random_signs
from dnabook.experiments.pairs import (
    DIRECTIONS,
    TRAINING,
    UNRELATED,
    Pair,
    Training,
    accuracies,
    attack,
    feature_pair,
    new_pair,
    train,
    train_heads,
)

TITLE = "What features and attacks share without learning: untrained networks, pixels, random signs"

COMPARED = (  # what predicts, what is predicted
    ("trained", "trained"),
    ("untrained", "trained"),
    ("pixels", "trained"),
    ("trained", "untrained"),
    ("untrained", "untrained"),
)


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    architectures: tuple[str, ...] = ("cnn", "fully_connected")
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20)
    steps: int = 40
    ridges: tuple[float, ...] = (measures.HELDOUT_RIDGE, 1e-3, 1e-1)
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], ("cnn",), epsilons=(0.10,), steps=5, feature_images=2000,
                    test_images=250),
    "laptop": Config(TRAINING["laptop"], epsilons=(0.05, 0.10, 0.15), steps=20, feature_images=5000,
                     test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture."""
    return [{"architecture": architecture} for architecture in config.architectures]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train the regular pair of `transfer` (or take it), and the heads of an untrained one, and compare.

    Values: "accuracy" of the trained pair on all test images, "accuracy_of_heads" of that with untrained
    features; "predictability", rows of held-out R² and CKA for every two of `COMPARED`, with the target's
    effective rank, on test images in random order; "maps" and "movement" as `movement` gives them; "damage",
    rows of `damage` on the first `test_images` test images; "transfer", on the same, rows of PGD-ℓ∞ from
    networks with untrained features to trained ones.
    """
    architecture = setting["architecture"]
    pair, _ = train(config.training, architecture, "regular", seed, context)
    untrained = new_pair(architecture, seed + UNRELATED, context)
    heads = new_pair(architecture, seed + UNRELATED, context)
    train_heads(config.training, heads, seed + UNRELATED, context, architecture=architecture)
    test = data.load("mnist", "test", device=context.device)
    mixed = test.shuffled(seed)[: config.feature_images]
    combinations = list(itertools.product(config.epsilons, DIRECTIONS))
    few, damaged, transferred = test[: config.test_images], [], []
    for epsilon, direction in context.progress(combinations, "attacks"):
        damaged.append(damage(pair, untrained, few, epsilon, direction, config.steps, seed))
        source, target = direction
        across = heads[source - 1], [pair[target - 1]]
        (row,) = attacked_through(*across, few, epsilon, config.steps, seed)
        transferred.append({"source": source, "target": target, **row})
    return {
        "data": test.digest,
        "accuracy": accuracies(pair, test),
        "accuracy_of_heads": accuracies(heads, test),
        "predictability": list(predictability(pair, heads, mixed.x)),
        **movement(pair, mixed, config.epsilons, config.ridges, seed),
        "damage": damaged,
        "transfer": transferred,
    }


def predictability(pair: Pair, untrained: Pair, x: Tensor) -> Iterator[dict[str, Any]]:
    """Held-out R² and CKA from each source of `COMPARED` to each target, and the target's effective rank.

    Sources are the first network of a pair, targets the second, so nothing predicts itself.
    """
    pixels = x.flatten(1)
    z = {"trained": feature_pair(pair, x), "untrained": feature_pair(untrained, x), "pixels": 2 * (pixels,)}
    for source, target in COMPARED:
        z1, z2 = z[source][0], z[target][1]
        yield {
            "source": source,
            "target": target,
            "heldout": measures.r_squared(z1, z2, heldout=True),
            "cka": measures.cka(z1, z2),
            "effective_rank": measures.effective_rank(z2),
        }


def damage(
    pair: Pair, untrained: Pair, images: Images, epsilon: float, direction: tuple[int, int], steps: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What an attack on one model does to the other, beside what needs no trained model.

    Of the images that both models read and that PGD-ℓ∞ turns wrong for the source ("counted"), how many the
    target misreads when they are attacked so ("attacked"), when each pixel moves by ±ε at random ("signs"),
    and when they are attacked through an untrained network ("untrained"). attacked / counted is the
    conditioned transfer rate.
    """
    source, target = direction
    x, y, reader = images.x, images.y, pair[target - 1]

    def crafted(model: nn.Module) -> Tensor:
        return attacks.craft(attack("pgd-linf", epsilon, images, steps=steps, seed=seed), model, x, y)

    versions = {
        "attacked": crafted(pair[source - 1]),
        "signs": random_signs(x, epsilon, seed),
        "untrained": crafted(untrained[source - 1]),
    }
    taken = measures.predictions(pair[source - 1], versions["attacked"]) != y
    for model in pair:
        taken &= measures.predictions(model, x) == y
    wrong = {name: measures.predictions(reader, moved) != y for name, moved in versions.items()}
    return {
        "epsilon": epsilon, "source": source, "target": target, "counted": int(taken.sum()),
        **{name: int((each & taken).sum()) for name, each in wrong.items()},
    }  # fmt: skip

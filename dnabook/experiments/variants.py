"""What the differences between text, released code and correct reading do to a pair (errata).

Pairs trained with each variant of Eqs. 8 and 9, and the released ℓ2 attacks beside the corrected ones.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from dnabook import attacks, data, measures
from dnabook.experiments import Context
from dnabook.experiments.pairs import (
    TRAINING,
    Pair,
    Training,
    accuracies,
    attack,
    feature_pair,
    predictability_rows,
    train,
    transfer_rows,
)

TITLE = "Printed, released and corrected: the loss of Eq. 9 and the ℓ2 attacks (errata)"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    architectures: tuple[str, ...] = ("cnn", "fully_connected")
    variants: tuple[str, ...] = ("none", "printed", "released", "summed", "corrected")
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15)
    steps: int = 40
    feature_images: int = 10_000
    test_images: int = 2000


SCALES = {
    "smoke": Config(
        TRAINING["smoke"], ("cnn",), ("released", "corrected"), epsilons=(0.10,), steps=5,
        feature_images=1000, test_images=250,
    ),
    "laptop": Config(
        TRAINING["laptop"], variants=("printed", "released", "corrected"), steps=20, feature_images=5000,
        test_images=250,
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture and variant; "none" is λ = 0."""
    return [{"architecture": a, "variant": v} for a in config.architectures for v in config.variants]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a pair with one variant of the loss, measure its features and attack it.

    Values: "accuracy" of both models on all test images; "predictability", for each direction held-out R²,
    live units and effective rank of the source; "transfer", PGD-ℓ∞ rows of `pairs.transfer_rows`; "l2", for
    FGSM and PGD in ℓ2, released and corrected, how many of `n` images are read wrongly by model 1 and the
    mean length of the change.
    """
    variant = setting["variant"]
    arm = "regular" if variant == "none" else "decorrelated"
    how = config.training if variant == "none" else dataclasses.replace(config.training, variant=variant)
    pair, history = train(how, setting["architecture"], arm, seed, context)
    test = data.load("mnist", "test", device=context.device)
    z = feature_pair(pair, test.x[: config.feature_images])
    attacked = test[: config.test_images]
    rows = transfer_rows(pair, attacked, ("pgd-linf",), config.epsilons, steps=config.steps, seed=seed,
                         context=context)  # fmt: skip
    l2 = [_l2_row(pair, attacked, name, e, config, seed) for name in ("fgsm", "pgd") for e in config.epsilons]
    return {
        "data": test.digest, "accuracy": accuracies(pair, test),
        "predictability": predictability_rows(z),
        "transfer": rows, "l2": l2, "history": history,
    }  # fmt: skip


def _l2_row(
    pair: Pair, images: data.Images, name: str, epsilon: float, config: Config, seed: int
) -> dict[str, Any]:
    """Released and corrected ℓ2 attack on model 1: images fooled, and how far they moved."""
    radius = attacks.l2_radius(epsilon, images.x)
    released = partial(attacks.released_fgsm_l2, radius=radius)
    if name == "pgd":
        generator = torch.Generator().manual_seed(seed)
        released = partial(attacks.released_pgd_l2, radius=radius, steps=config.steps, generator=generator)
    corrected = attack(f"{name}-l2", epsilon, images, steps=config.steps, seed=seed)
    row: dict[str, Any] = {"attack": name, "epsilon": epsilon, "radius": radius, "n": len(images)}
    for label, how in (("released", released), ("corrected", corrected)):
        x_adv = attacks.craft(how, pair[0], images.x, images.y, chunk=len(images))
        row[f"{label}_fooled"] = int((measures.predictions(pair[0], x_adv) != images.y).sum())
        row[f"{label}_length"] = (x_adv - images.x).flatten(1).norm(dim=1).mean().item()
    return row

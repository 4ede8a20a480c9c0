"""Figure 3: does decorrelating features cut the transfer of attacks? (Eq. 8, chapter 4)

Regular and decorrelated pairs of CNNs and of fully connected networks, FGSM and PGD in ℓ∞ and ℓ2, both
directions apart. The attacks are the corrected ones: the released ℓ2 attacks hardly move an image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dnabook import data
from dnabook.experiments import Context
from dnabook.experiments.pairs import ATTACKS, PAIRS, TRAINING, Training, accuracies, train, transfer_rows

TITLE = "Transfer across regular and decorrelated pairs, four attacks (Fig. 3)"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    pairs: tuple[tuple[str, str], ...] = PAIRS
    attacks: tuple[str, ...] = ATTACKS
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20)
    steps: int = 40
    test_images: int = 2000  # the paper does not say how many


SCALES = {
    "smoke": Config(
        TRAINING["smoke"], PAIRS[:2],
        attacks=("fgsm-linf", "pgd-linf"), epsilons=(0.05, 0.20), steps=5, test_images=250,
    ),
    "laptop": Config(TRAINING["laptop"], epsilons=(0.05, 0.10, 0.15), steps=20, test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture and arm."""
    return [{"architecture": architecture, "arm": arm} for architecture, arm in config.pairs]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train one pair and attack each model in turn.

    Values: "accuracy" of both models on all test images, "history", "transfer" (rows of
    `pairs.transfer_rows` on the first `test_images` test images).
    """
    pair, history = train(config.training, setting["architecture"], setting["arm"], seed, context)
    test = data.load("mnist", "test", device=context.device)
    rows = transfer_rows(
        pair, test[: config.test_images], config.attacks, config.epsilons, steps=config.steps, seed=seed,
        context=context,
    )  # fmt: skip
    return {"data": test.digest, "accuracy": accuracies(pair, test), "history": history, "transfer": rows}

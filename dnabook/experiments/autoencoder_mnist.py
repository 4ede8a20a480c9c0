"""Figures 6 and 7: are attacked digits reconstructed correctly more often by a DNA? (chapter 6)

The paper's DNA and plain autoencoder, and the controls that it lacks: a DNA without correlation loss, two
whole autoencoders, and the printed and the corrected reading of Eq. 4. Every objective of Eq. 10 attacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dnabook import data, measures
from dnabook.autoencoders import Reconstructor
from dnabook.experiments import Context
from dnabook.experiments.reconstruction import (
    ARMS,
    MNIST_TRAINING,
    DigitsConfig,
    attack_rows,
    clean_row,
    examine,
    train,
    train_on_images,
)

TITLE = "Attacked digits through a DNA and through a plain autoencoder (Figs. 6, 7)"
KEEPS_WEIGHTS = True  # of the first seed, for live cells


KEPT = ("dna", "dna_regular")  # whose weights chapter 6 loads


@dataclass(frozen=True)
class Config(DigitsConfig):
    arms: tuple[str, ...] = tuple(ARMS)


SCALES = {
    "smoke": Config(
        MNIST_TRAINING["smoke"], ("autoencoder", "dna"), epsilons=(0.05, 0.15),
        objectives=("printed", "corrected"), steps=5, step_size=None, test_images=250,
    ),
    "laptop": Config(MNIST_TRAINING["laptop"], steps=20, step_size=None, test_images=500),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each arm of `reconstruction.ARMS`."""
    return [{"arm": arm} for arm in config.arms]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train an autoencoder and its classifier, and attack both together.

    Values: those of `reconstruction.examine`; "fixed", clean and PGD rows read by a classifier trained on the
    images themselves; "classifier_alone", that classifier's accuracy.
    """
    images = data.load("mnist", limit=config.training.train_images, device=context.device)
    test = data.load("mnist", "test", device=context.device)
    autoencoder, classifier, history = train(config.training, ARMS[setting["arm"]], images, seed, context)
    if setting["arm"] in KEPT:
        context.keep(**{setting["arm"]: autoencoder, f"{setting['arm']}_classifier": classifier})
    model = Reconstructor(autoencoder, classifier).eval()
    values = examine(model, test, config, config.epsilons, history=history, seed=seed, context=context)

    alone = train_on_images(config.training, images, seed, context)
    fixed = Reconstructor(autoencoder, alone).eval()
    fixed_rows = attack_rows(
        fixed, test[: config.test_images], ("pgd",), config.epsilons, config.objectives[:1],
        steps=config.steps, step_size=config.step_size, seed=seed, context=context,
    )  # fmt: skip
    return {
        **values, "fixed": [clean_row(fixed, test), *fixed_rows],
        "classifier_alone": measures.accuracy(alone, test.x, test.y),
    }  # fmt: skip

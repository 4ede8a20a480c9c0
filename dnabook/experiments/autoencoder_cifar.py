"""Figures 8 and 9: the Dual Neck Autoencoder on CIFAR-10 (chapter 7).

Attacks are stated and made in pixels of [0, 1], everything is measured in eval mode. Where CIFAR-10 cannot be
had, coloured MNIST digits of its shape stand in, and the record says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from dnabook import data, training
from dnabook.autoencoders import Reconstructor
from dnabook.experiments import Context
from dnabook.experiments.reconstruction import ARMS, Training, as_run, examine, train

TITLE = "Attacked photographs through a DNA and through a plain autoencoder (Figs. 8, 9)"
KEEPS_WEIGHTS = True  # of the first seed, for live cells

FIGURE = ({"arm": "autoencoder"}, {"arm": "dna"})  # what Figure 8 compares; the rest is a control

EXAMPLES = 200  # test images kept beside the weights

PAPER = Training(batch_size=1250, augment=True, bfloat16=True)


@dataclass(frozen=True)
class Config:
    training: Training = PAPER
    images: str = "cifar10"
    arms: tuple[str, ...] = ("autoencoder", "dna", "dna_regular")
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    epsilons_255: tuple[int, ...] = (2, 4, 8)  # ε in 255ths of the pixel range
    objectives: tuple[str, ...] = ("printed", "corrected")
    steps: int = 40
    step_size: float | None = None  # 2.5 ε / steps: the released 3/255 steps over the whole smallest ball
    clean_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(
        Training(epochs=1, classifier_epochs=1, batch_size=100, classifier_batch_size=50, learning_rate=3e-3,
                 train_images=300, augment=True),
        images="color-mnist", arms=("autoencoder", "dna"), attacks=("fgsm",), epsilons_255=(8,),
        objectives=("printed",), steps=2, clean_images=100, test_images=25,
    ),
    "laptop": Config(
        Training(epochs=12, classifier_epochs=6, batch_size=625, classifier_batch_size=125,
                 learning_rate=3e-3, train_images=10_000, schedule="one_cycle", augment=True, bfloat16=True),
        steps=10, clean_images=2000, test_images=200,
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each arm of `reconstruction.ARMS`."""
    return [{"arm": arm} for arm in config.arms]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train an autoencoder and its classifier, and attack both together.

    Values: "images", the data set that was found, "bfloat16", whether it was trained in that, and those of
    `reconstruction.examine`, clean values on the first `clean_images` test images.
    """
    load = partial(data.load_or_stand_in, config.images, device=context.device)
    images, test = load(limit=config.training.train_images), load(split="test", limit=config.clean_images)
    if images.name != test.name:
        raise data.DownloadError(
            f"training images are {images.name}, test images {test.name}: CIFAR-10 came in between; run again"
        )
    with training.fast_convolutions():
        return _run(config, setting, seed, context, images, test)


def _run(
    config: Config,
    setting: dict[str, Any],
    seed: int,
    context: Context,
    images: data.Images,
    test: data.Images,
) -> dict[str, Any]:
    autoencoder, classifier, history = train(config.training, ARMS[setting["arm"]], images, seed, context)
    if setting["arm"] == "dna":
        some = test[:EXAMPLES]  # so that the chapter's live cells have photographs where none can be had
        pixels = (some.x * 255).round().to(torch.uint8)
        context.keep(dna=autoencoder, dna_classifier=classifier, examples=pixels, labels=some.y)
    model = Reconstructor(autoencoder, classifier).eval()
    epsilons = tuple(e / 255 for e in config.epsilons_255)
    values = examine(model, test, config, epsilons, history=history, seed=seed, context=context)
    bfloat16 = as_run(config.training, context.device).bfloat16
    return {"images": test.name, "bfloat16": bfloat16, **values}

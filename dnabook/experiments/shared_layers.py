"""Figure 10: does a DNA save more images when its paths share fewer layers? (chapter 8)

Two, four or six unshared layers, each attacked anew. Unsharing adds parameters, so two controls have as many
parameters and share all but the necks. The sweep of neck widths and depths is the one that the paper
describes without showing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dnabook import data
from dnabook.autoencoders import Reconstructor
from dnabook.experiments import Context
from dnabook.experiments.reconstruction import (
    MNIST_TRAINING,
    Arm,
    DigitsConfig,
    examine,
    train,
)

TITLE = "DNAs that share fewer layers, and wider or deeper necks (Fig. 10)"

ARMS = {
    "unshared_2": Arm(),
    "unshared_4": Arm(unshared=4),
    "unshared_6": Arm(unshared=6),
    "unshared_4_regular": Arm(unshared=4, decorrelated=False),
    "unshared_6_regular": Arm(unshared=6, decorrelated=False),
    "matched_4": Arm(shape=(("hidden", 114),)),  # 242,228 parameters; four unshared layers have 242,492
    "matched_6": Arm(shape=(("hidden", 200),)),  # 399,264 parameters; six have 400,176
    "code_16": Arm(shape=(("code", 16),)),
    "code_128": Arm(shape=(("code", 128),)),
    "deeper_1": Arm(shape=(("extra_layers", 1),)),
    "deeper_2": Arm(shape=(("extra_layers", 2),)),
}


@dataclass(frozen=True)
class Config(DigitsConfig):
    arms: tuple[str, ...] = tuple(ARMS)
    objectives: tuple[str, ...] = ("printed", "corrected")


SCALES = {
    "smoke": Config(
        MNIST_TRAINING["smoke"], ("unshared_2", "unshared_6", "matched_6"), epsilons=(0.10,),
        objectives=("printed",), steps=5, step_size=None, test_images=250,
    ),
    "laptop": Config(
        MNIST_TRAINING["laptop"],
        ("unshared_2", "unshared_4", "unshared_6", "unshared_6_regular", "matched_6", "code_16", "code_128",
         "deeper_1"),
        steps=20, step_size=None, test_images=500,
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture."""
    return [{"arm": arm} for arm in config.arms]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train one architecture and its classifier, and attack both together.

    Values: "parameters" of the autoencoder, and those of `reconstruction.examine`.
    """
    images = data.load("mnist", limit=config.training.train_images, device=context.device)
    test = data.load("mnist", "test", device=context.device)
    autoencoder, classifier, history = train(config.training, ARMS[setting["arm"]], images, seed, context)
    model = Reconstructor(autoencoder, classifier).eval()
    values = examine(model, test, config, config.epsilons, history=history, seed=seed, context=context)
    return {"parameters": sum(p.numel() for p in autoencoder.parameters()), **values}

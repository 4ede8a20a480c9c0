"""Do two answers give an attack away? (chapter 6; a proposal of the paper's discussion)

A reader without labels distrusts an image on which the two paths differ. A DNA, the same without correlation
loss, and two whole autoencoders are attacked by someone who knows of this, and by someone who does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnabook import attacks, data, measures
from dnabook.autoencoders import Reconstructor
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.experiments.reconstruction import (
    ARMS,
    BATCH,
    MNIST_TRAINING,
    Training,
    clean_row,
    method,
    right,
    train,
)

TITLE = "Do a DNA's two answers give an attack away? (discussion)"

OBJECTIVES: dict[str, Callable] = {
    "printed": partial(attacks.paths, variant="printed"),
    "corrected": partial(attacks.paths, variant="corrected"),
    "mean_probability": attacks.mean_probability,
    "consensus": attacks.consensus,
}


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    arms: tuple[str, ...] = ("dna", "dna_regular", "two_autoencoders")
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    epsilons: tuple[float, ...] = (0.05, 0.10)
    steps: int = 40
    step_size: float | None = 3 / 255
    test_images: int = 1000


SCALES = {
    "smoke": Config(
        MNIST_TRAINING["smoke"], ("dna", "dna_regular"), ("printed", "consensus"), epsilons=(0.10,), steps=5,
        step_size=None, test_images=250,
    ),
    "laptop": Config(MNIST_TRAINING["laptop"], steps=20, step_size=None, test_images=500),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each autoencoder with two paths."""
    return [{"arm": arm} for arm in config.arms]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train an autoencoder and its classifier, and count where the two paths differ.

    Values: "accuracy" on clean images, [of the first path, of the last]; "noticed", rows of `noticed` for the
    images as they are ("none", ε = 0), with every pixel moved by ± ε at random ("noise"), and attacked by PGD
    with each objective.
    """
    images = data.load("mnist", limit=config.training.train_images, device=context.device)
    test = data.load("mnist", "test", device=context.device)
    autoencoder, classifier, history = train(config.training, ARMS[setting["arm"]], images, seed, context)
    model, few = Reconstructor(autoencoder, classifier).eval(), test[: config.test_images]
    clean = measures.in_batches(model, few.x)
    rows = [{"attack": "none", "epsilon": 0.0, **noticed(clean, few.y, clean)}]
    combinations = [(name, e) for name in ("noise", *config.objectives) for e in config.epsilons]
    for name, epsilon in context.progress(combinations, "attacks"):
        moved = (
            attacks.random_signs(few.x, epsilon, generator=torch.Generator().manual_seed(seed))
            if name == "noise"
            else _attacked(model, few, name, epsilon, config, seed)
        )
        found = noticed(measures.in_batches(model, moved), few.y, clean)
        rows.append({"attack": name, "epsilon": epsilon, **found})
    whole = clean_row(model, test)
    return {
        "data": test.digest, "accuracy": [whole[path] / len(test) for path in ("first", "second")],
        "noticed": rows, "history": history,
    }  # fmt: skip


def _attacked(
    model: Reconstructor, images: Images, name: str, epsilon: float, config: Config, seed: int
) -> Tensor:
    how = method("pgd", epsilon, steps=config.steps, step_size=config.step_size, seed=seed)
    chunk = BATCH if images.x.device.type == "cpu" else 4 * BATCH
    return attacks.craft(how, model, images.x, images.y, objective=OBJECTIVES[name], chunk=chunk)


def noticed(logits: Tensor, y: Tensor, clean: Tensor) -> dict[str, Any]:
    """What a reader without labels sees of images, from the logits of both paths (N, P, 10).

    "differ": images on which the paths' answers differ.  "wrong": images that the mean probability misreads.
    "unnoticed": those of them on which the paths agree.  "n": all images.  "auroc": how well the divergence
    of the paths' probabilities tells the misread images from unattacked ones, `clean` (M, P, 10): the chance
    that one of the former has the larger divergence. nan where nothing is misread.
    """
    answers = logits.argmax(2)
    differ = (answers != answers[:, :1]).any(1)
    wrong = ~right(logits, y)["mean_probability"]
    return {
        "differ": int(differ.sum()), "wrong": int(wrong.sum()), "unnoticed": int((wrong & ~differ).sum()),
        "n": len(y), "auroc": _auroc(divergence(logits[wrong]), divergence(clean)),
    }  # fmt: skip


def divergence(logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the paths' class probabilities, (N, P, 10) -> (N,), in nats."""
    probabilities = logits.double().softmax(2)
    mean = probabilities.mean(1)
    return torch.special.entr(mean).sum(1) - torch.special.entr(probabilities).sum(2).mean(1)


def _auroc(positive: Tensor, negative: Tensor) -> float:
    """The chance that one of `positive` is larger than one of `negative`, ties counting half."""
    from scipy import stats  # as in `measures.wilson_interval`

    if not len(positive):
        return math.nan
    pairs = len(positive) * len(negative)
    return float(stats.mannwhitneyu(positive.cpu(), negative.cpu()).statistic) / pairs

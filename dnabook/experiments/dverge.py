"""Figure 4: does DVERGE get further from a decorrelated pair than from a regular one? (chapter 5)

Pairs trained as for Figure 3 go through ten epochs of DVERGE; after each, PGD-ℓ∞ transfer and natural
accuracy. The control spends the same number of forward and backward passes on plain training instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from dnabook import data, losses, training
from dnabook import dverge as method
from dnabook.dverge import PRESETS, Preset
from dnabook.experiments import Context
from dnabook.experiments.pairs import TRAINING, Pair, Training, accuracies, train, transfer_rows

TITLE = "DVERGE from regular and from decorrelated pairs (Fig. 4)"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    arms: tuple[tuple[str, str], ...] = (
        ("regular", "paper"), ("decorrelated", "paper"), ("decorrelated_late", "paper"),
        ("regular", "official"), ("regular", "plain"),
    )  # fmt: skip
    epochs: int = 10
    batch_size: int = 1000
    learning_rate: float = 5e-3
    train_images: int = 60_000
    distil_steps: int | None = None  # instead of the preset's, the step growing in proportion
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15)
    steps: int = 40
    test_images: int = 2000


SCALES = {
    "smoke": Config(
        TRAINING["smoke"], (("regular", "paper"), ("regular", "official"), ("regular", "plain")),
        epochs=2, batch_size=250, train_images=500, distil_steps=2, epsilons=(0.10,), steps=5,
        test_images=250,
    ),
    "laptop": Config(
        TRAINING["laptop"], batch_size=250, train_images=6000, distil_steps=10, steps=20, test_images=250
    ),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each initial pair and way of going on: a DVERGE preset, or "plain" training."""
    return [{"arm": arm, "preset": preset} for arm, preset in config.arms]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train a pair of CNNs, go on with DVERGE or plainly, and attack it after every epoch.

    Values: "epochs", one entry for each epoch from 0 on with "accuracy" of both models on all test images and
    its rows in "transfer" (as `pairs.transfer_rows`, with "epoch"); "accuracy" at the end; "history".
    A trial that was interrupted goes on after the last epoch that it had attacked.
    """
    pair, history = train(config.training, "cnn", setting["arm"], seed, context)
    test = data.load("mnist", "test", device=context.device)
    attacked = test[: config.test_images]
    place = context.checkpoint(dverge=asdict(config), **setting)
    state = (place and place.load()) or {"epochs": [], "rows": [], "memories": []}
    epochs, rows = state["epochs"], state["rows"]
    preset = None if setting["preset"] == "plain" else preset_of(config, setting["preset"])
    memories = [method.Memory(each) for each in state["memories"]]
    memories = memories or [method.Memory() for _ in range(preset.turns if preset else 1)]

    def measure(epoch: int) -> None:
        epochs.append({"epoch": epoch, "accuracy": accuracies(pair, test)})
        found = transfer_rows(pair, attacked, ("pgd-linf",), config.epsilons, steps=config.steps, seed=seed,
                              context=context)  # fmt: skip
        rows.extend({"epoch": epoch, **row} for row in found)

    if not epochs:
        measure(0)
    coming = range(len(epochs), config.epochs + 1)
    going_on = _dverge(config, preset, pair, seed, context, memories) if preset else (
        _plain(config, pair, seed, context, memories[0]))  # fmt: skip
    for epoch in context.progress(coming, "DVERGE" if preset else "plain training"):
        terms = next(going_on)
        measure(epoch)
        epochs[-1].update({name: round(value, 5) for name, value in terms.items()})
        if place:
            place.save({"epochs": epochs, "rows": rows, "memories": [memory.state for memory in memories]})
    return {
        "data": test.digest, "accuracy": epochs[-1]["accuracy"], "history": history, "epochs": epochs,
        "transfer": rows,
    }  # fmt: skip


def preset_of(config: Config, name: str) -> Preset:
    """The preset as this configuration runs it: fewer steps are longer ones, so they reach as far."""
    preset = PRESETS[name]
    if config.distil_steps is None:
        return preset
    scale = preset.steps / config.distil_steps
    return Preset(**{**vars(preset), "steps": config.distil_steps, "step_size": preset.step_size * scale})


def _dverge(
    config: Config, preset: Preset, pair: Pair, seed: int, context: Context, memories: list[method.Memory]
) -> Iterator[dict]:
    images = data.load("mnist", limit=config.train_images, device=context.device)
    return method.train(
        pair,
        lambda turn: data.Batches(images, config.batch_size, seed=1000 * turn + seed),
        epochs=config.epochs,
        preset=preset,
        learning_rate=config.learning_rate,
        seed=seed,
        memories=memories,
        cuda_graph=True,
    )


def _plain(config: Config, pair: Pair, seed: int, context: Context, memory: method.Memory) -> Iterator[dict]:
    """As many passes as the paper's preset makes: an epoch of DVERGE costs steps + 1 plain ones."""
    images = data.load("mnist", limit=config.train_images, device=context.device)
    batches = data.Batches(images, config.batch_size, seed=seed)
    objective, each = losses.classification(*pair), preset_of(config, "paper").steps + 1
    while True:
        history = training.fit(
            objective, objective.parameters(), batches, epochs=memory.epochs + each,
            learning_rate=config.learning_rate, checkpoint=memory, cuda_graph=True,
        )  # fmt: skip
        yield {"loss_1": history["loss"][-1]}

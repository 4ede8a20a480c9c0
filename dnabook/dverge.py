"""DVERGE (Yang et al., 2020): two models trained to be blind to each other's non-robust features (Figure 4).

A *distilled* image looks like its source but makes a model's hidden layer see a target: PGD towards the
target's features, inside a small ball around the source. Each model then learns to read the other's
distilled images as what they look like. Chapter 5.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dnabook import attacks, training
from dnabook.losses import Objective, Terms
from dnabook.models import channels_last, evaluating

FEATURES = "features"  # the layer whose features the paper compares
RANDOM = "random"  # one of `layers`, drawn anew for each epoch


@dataclass(frozen=True)
class Preset:
    """How images are distilled and how the models take turns; the defaults are the paper's simplification.

    epsilon, steps, step_size, momentum   of the PGD that distils, in ℓ∞, pixels in [0, 1].
    layer         "features": the layer that the paper compares; "random": before each epoch one of the
                  model's convolutions and linear layers but the last, its output before the ReLU.
    simultaneous  True: both models are distilled on a batch, then both learn from it. False: model 1 learns
                  for an epoch from model 2 as it is, then model 2 from the new model 1.
    """

    epsilon: float = 0.15
    steps: int = 20
    step_size: float = 3 / 255
    momentum: float = 0.0
    layer: str = FEATURES
    simultaneous: bool = False

    def __post_init__(self) -> None:
        if self.layer not in (FEATURES, RANDOM):
            raise ValueError(f"layer is {FEATURES!r} or {RANDOM!r}, got {self.layer!r}")

    @property
    def turns(self) -> int:
        """How often an epoch trains: once where both models learn together, else twice."""
        return 1 if self.simultaneous else 2


PRESETS = {
    "paper": Preset(),
    "official": Preset(0.07, steps=10, step_size=0.007, momentum=1.0, layer=RANDOM, simultaneous=True),
}


@dataclass(frozen=True, eq=False)
class FeatureObjective(attacks.OfModel):
    """−‖f(x) − f(x_target)‖² for each image, f being a model's layer."""

    wanted: Tensor
    layer: str | int

    def __call__(self, x: Tensor) -> Tensor:
        return -(activations(self.model, x, self.layer) - self.wanted).square().flatten(1).sum(1)


def activations(model: nn.Module, x: Tensor, layer: str | int = FEATURES) -> Tensor:
    """A layer's output for images (N, …): the compared features, or that of the layer at a position of
    `layers(model)`, in its own shape (N, …).

    Raises ValueError when there is no such layer.
    """
    if layer == FEATURES:
        return model.features(x)
    if layer not in layers(model):
        raise ValueError(f"layer is {FEATURES!r} or one of {layers(model)}, got {layer!r}")
    for module in [*model.body, *model.tail][: layer + 1]:
        x = module(x)
    return x


def layers(model: nn.Module) -> list[int]:
    """Positions, in `body` and `tail` together, of the convolutions and linear layers but the last.

    The model is a `Classifier` whose body and tail are `nn.Sequential`.
    """
    modules = [*model.body, *model.tail]
    return [i for i, module in enumerate(modules) if isinstance(module, nn.Conv2d | nn.Linear)][:-1]


def distil_features(
    model: nn.Module, source: Tensor, target: Tensor, preset: Preset = PRESETS["paper"], *,
    layer: str | int = FEATURES,
) -> Tensor:  # fmt: skip
    """Images that stay within ε of `source` while the model's layer sees `target`: x' of DVERGE.

    argmin over x' of ‖f(x') − f(target)‖² subject to ‖x' − source‖∞ ≤ ε, by PGD that begins at the source.
    source, target: (N, C, H, W) in [0, 1].  Returns (N, C, H, W), detached.
    Raises ValueError when the two differ in shape.
    """
    if source.shape != target.shape:
        raise ValueError(f"source and target need one shape, got {source.shape} and {target.shape}")
    with torch.no_grad(), evaluating(model), channels_last(model) as call:  # as `pgd` will see it
        wanted = call(activations, model, target, layer)
    return attacks.pgd(
        FeatureObjective(model, wanted, layer), source, attacks.Linf(preset.epsilon), steps=preset.steps,
        step_size=preset.step_size, random_start=False, momentum=preset.momentum,
    )  # fmt: skip


def diversification(
    learners: tuple[nn.Module, ...], teachers: tuple[nn.Module, ...], preset: Preset = PRESETS["paper"], *,
    layer: str | int = FEATURES,
) -> Objective:  # fmt: skip
    """Cross-entropy of each learner on images distilled from its teacher, with the label of the source.

    learners[i] learns from teachers[i]; only learners are trained. The target of each image is the next one
    in the batch, which is shuffled anew every epoch.
    """

    def terms(x: Tensor, y: Tensor) -> Terms:
        target = x.roll(-1, 0)
        distilled = [distil_features(teacher, x, target, preset, layer=layer) for teacher in teachers]
        each = [cross_entropy(model(d), y) for model, d in zip(learners, distilled, strict=True)]
        return {"loss": torch.stack(each).sum()}

    return Objective(tuple(learners), terms)


def train(
    pair: tuple[nn.Module, nn.Module],
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    *,
    epochs: int = 10,
    preset: Preset = PRESETS["paper"],
    learning_rate: float = 5e-3,
    seed: int = 0,
    memories: Sequence[Memory] | None = None,
    cuda_graph: bool = False,
) -> Iterator[dict[str, float]]:
    """DVERGE on a trained pair, in place: yields the mean losses after each epoch, both models in eval mode.

    batches   batches(0) and batches(1) give model 1 and model 2 their batches, each with its own
              `.generator`, as `data.Batches` does. Simultaneous presets use batches(0) alone.
    seed      draws the layers of a preset that picks them at random.
    memories  `preset.turns` of them. Where they hold the states of an earlier call that was interrupted after
              an epoch, the pair gets its weights back and training goes on with the next one.
    cuda_graph  as in `training.fit`.
    Adam keeps its state from epoch to epoch. (The official code uses SGD with momentum.)
    Raises ValueError on another number of memories, and, for a preset that draws layers, on models without or
    with different ones.
    """
    model1, model2 = pair
    turns = [((model1,), (model2,)), ((model2,), (model1,))]
    if preset.simultaneous:
        turns = [((model1, model2), (model2, model1))]
    own = [batches(i) for i in range(len(turns))]
    memories = [Memory() for _ in turns] if memories is None else memories
    if preset.layer == RANDOM and not layers(model1) == layers(model2) != []:
        raise ValueError(
            "a random layer needs two models with the same convolutions and linear layers before the last, "
            f"found {layers(model1)} and {layers(model2)}"
        )
    if len(memories) != len(turns):
        raise ValueError(f"this preset needs {len(turns)} memories, got {len(memories)}")
    for (learners, _), memory in zip(turns, memories, strict=True):
        if memory.state:
            for model, weights in zip(learners, memory.state["models"], strict=True):
                model.load_state_dict(weights)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        losses = {}
        layer: str | int = FEATURES
        if preset.layer == RANDOM:
            choices = layers(model1)
            layer = choices[int(torch.randint(len(choices), (), generator=generator, device="cpu"))]
        if epoch <= min(memory.epochs for memory in memories):
            continue
        for i, (learners, teachers) in enumerate(turns):
            objective = diversification(learners, teachers, preset, layer=layer)
            history = training.fit(
                objective, objective.parameters(), own[i], epochs=epoch, learning_rate=learning_rate,
                checkpoint=memories[i], cuda_graph=cuda_graph,
            )  # fmt: skip
            losses[f"loss_{i + 1}"] = history["loss"][-1]
        yield losses


class Memory:
    """A checkpoint that is only remembered: `fit` goes on with the next epoch and the same Adam.

    PyTorch's own generators go on as they are: nothing was interrupted, so nothing is drawn again.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state

    @property
    def epochs(self) -> int:
        """How many epochs the state has behind it."""
        return self.state["epochs"] if self.state else 0

    def load(self) -> dict[str, Any] | None:
        return self.state

    def save(self, state: dict[str, Any]) -> None:
        self.state = copy.deepcopy({key: value for key, value in state.items() if key != "random"})

"""The two classifiers of Figure 11, cut at the layer whose features the paper compares, and a transformer.

Each model is `head ∘ features`: `features(x) -> z` stops where Figure 11 puts the correlation loss,
`head(z) -> logits` finishes. Features are returned, never stored on the model. Parameters stand in the
order of the layers, so weights trained elsewhere load by position. Used in chapters 1 to 5.

Figure 11 pools after the ReLU. Here the ReLU comes after the pooling, on a quarter of the values: the larger
of two numbers cut at zero is the larger cut at zero, so outputs and gradients are the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dnabook.products import Linear


class Classifier(nn.Module):
    """What all have in common: `body` gives the features z, `tail` the logits of z."""

    body: nn.Module
    tail: nn.Module

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def head(self, z: Tensor) -> Tensor:
        return self.tail(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class CNN(Classifier):
    """Figure 11a: three 3×3 convolutions for MNIST, no batch normalisation; 6,218 parameters.

    features: (N, 1, 28, 28) -> (N, 16, 7, 7), after the second pooling: M = 784 when flattened.
    head:     (N, 16, 7, 7) -> (N, 10) logits.
    width: what the 8, 16 and 32 channels of the figure are multiplied by; see `scaled`.
    """

    def __init__(self, width: float = 1) -> None:
        super().__init__()
        first, second, third = scaled(width, 8, 16, 32)
        self.body = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.tail = nn.Sequential(
            nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(),
            Linear(third, 10),
        )  # fmt: skip


class FullyConnected(Classifier):
    """Figure 11b: 784-500-500-200-200-100-10, each hidden layer Linear, ReLU, BatchNorm; 807,510 parameters.

    features: (N, 1, 28, 28) -> (N, 200), the output of the fourth block after its normalisation.
    head:     (N, 200) -> (N, 10) logits.
    width: what the 500, 200 and 100 units of the hidden layers are multiplied by; see `scaled`.
    """

    def __init__(self, width: float = 1) -> None:
        super().__init__()
        wide, middle, last = scaled(width, 500, 200, 100)
        self.body = nn.Sequential(
            nn.Flatten(), *_block(784, wide), *_block(wide, wide), *_block(wide, middle),
            *_block(middle, middle),
        )  # fmt: skip
        self.tail = nn.Sequential(*_block(middle, last), Linear(last, 10))


def scaled(width: float, *sizes: int) -> list[int]:
    """Sizes of layers times a width. Raises ValueError unless all are whole numbers of at least 1."""
    products = [size * width for size in sizes]
    if not all(0.5 < each < math.inf and math.isclose(each, round(each)) for each in products):
        raise ValueError(
            f"{', '.join(map(str, sizes))} times the width must be whole numbers ≥ 1; got {width}"
        )
    return [round(each) for each in products]


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs)


class VisionTransformer(Classifier):
    """A small vision transformer (Dosovitskiy et al., 2021), only mentioned in the paper; 28,138 parameters.

    16 patches of 7×7 pixels become tokens of 32 numbers, to which a learned place is added; three blocks of
    attention with four heads; the mean over the tokens is read by one linear layer. No dropout.
    features: (N, 1, 28, 28) -> (N, 16, 32), after the second block: M = 512 when flattened.
    head:     (N, 16, 32) -> (N, 10) logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_Patches(7, 16, 32), _attention(32), _attention(32))
        self.tail = nn.Sequential(_attention(32), nn.LayerNorm(32), _MeanOverTokens(), Linear(32, 10))


class _Patches(nn.Module):
    """Square patches of one-channel images, each mapped linearly to a token, plus a learned place of each."""

    def __init__(self, size: int, number: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Linear(size * size, width)
        self.place = nn.Parameter(0.02 * torch.randn(number, width))

    def forward(self, x: Tensor) -> Tensor:
        patches = functional.unfold(x, self.size, stride=self.size)  # (N, 49, 16)
        if patches.shape[2] * self.size**2 != x[0].numel():
            raise ValueError(
                f"images must be cut whole into squares of {self.size} pixels, got {tuple(x.shape)}"
            )
        return self.embed(patches.transpose(1, 2)) + self.place  # (N, 16, 32)


class _MeanOverTokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def _attention(width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True,
        norm_first=True,
    )  # fmt: skip


def layout(device: torch.device) -> torch.memory_format:
    """How the digits' networks lie in memory: channels last on a processor, first elsewhere.

    On an H100 a training step of two CNNs took 2.6 ms with channels first and 4.5 ms with channels last.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


ARCHITECTURES = {"cnn": CNN, "fully_connected": FullyConnected, "vit": VisionTransformer}


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Within the block every submodule is in eval mode; afterwards each has its own mode back.

    Restoring module by module keeps a frozen BatchNorm frozen inside a training model.
    """
    before = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within the block PyTorch's own generators start at the seed; afterwards they go on as if nothing was.

    That of the CPU, which draws the weights of new models, and of one GPU where `device` names it. Other GPUs
    are left alone. New tensors are made on the CPU meanwhile, whatever the default device, so that a seed
    gives the same weights everywhere.
    """
    gpu = [device] if device is not None and device.type == "cuda" else []
    elsewhere = torch.get_default_device().type != "cpu"
    with torch.device("cpu") if elsewhere else nullcontext(), torch.random.fork_rng(devices=gpu):
        torch.default_generator.manual_seed(seed)
        for each in gpu:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


VIEW_FAILED = "view size is not compatible"  # how torch's own error of `view` begins


@contextmanager
def channels_last(*models: nn.Module) -> Iterator[Callable[..., Any]]:
    """Within the block the models' convolutions have their channels last, where that is faster.

    That is on a processor with oneDNN: an attack on the CNN takes half the time. Yields `call`, through which
    the block calls what calls the models: `call(function, *inputs)` is `function(*inputs)`. A model that
    takes its feature maps apart with `view` cannot lie so. Its first call fails; then all models lie as
    before, with the buffers and random numbers that they had, and the call is made again. Any other error is
    raised as it is, and nothing called again. Afterwards every parameter lies as before, with the values that
    it has by then.
    """
    before = {weight: weight.data for weight in _laid_first(models)}
    for weight in before:
        _lay(weight, weight.data.to(memory_format=torch.channels_last))
    tried = not before

    def call(function: Callable[..., Any], *inputs: Any) -> Any:
        nonlocal tried
        if tried:
            return function(*inputs)
        tried = True
        state = torch.get_rng_state()
        buffers = [(buffer, buffer.clone()) for model in models for buffer in model.buffers()]
        try:
            return function(*inputs)
        except RuntimeError as error:  # only the layout's: after another, a second call might hide it
            if VIEW_FAILED not in str(error):
                raise
        _lay_back(before)
        before.clear()
        torch.set_rng_state(state)
        for buffer, value in buffers:
            buffer.copy_(value)
        return function(*inputs)

    try:
        yield call
    finally:
        _lay_back(before)


def _laid_first(models: tuple[nn.Module, ...]) -> list[nn.Parameter]:
    """The models' weights of convolutions on a processor; none where all have their channels last anyway."""
    found = [p for model in models for p in model.parameters() if p.dim() == 4 and p.device.type == "cpu"]
    known = all(p.is_contiguous(memory_format=torch.channels_last) for p in found)
    return [] if known or not torch.backends.mkldnn.is_available() else found


def _lay_back(before: dict[nn.Parameter, Tensor]) -> None:
    """The weights in the memory that they had, with today's values."""
    for weight, data in before.items():
        _lay(weight, data.copy_(weight.data))


def _lay(weight: nn.Parameter, data: Tensor) -> None:
    """The weight's values are those in this memory, and its gradient, if it has one, lies alike."""
    gradient, weight.grad = weight.grad, None
    weight.data = data
    if gradient is not None:
        weight.grad = torch.empty_like(data).copy_(gradient)

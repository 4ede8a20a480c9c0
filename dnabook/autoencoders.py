"""The autoencoders and classifiers of Figures 5, 10, 12 and 13.

A `NeckedAutoencoder` is six layers in a row: two encode, two squeeze and widen again (the neck), two decode.
Its middle `unshared` layers exist once for each neck, the others once for all. With one neck it is the plain
autoencoder, with two the Dual Neck Autoencoder (DNA) of Figure 5, and with all six layers unshared two
autoencoders side by side (Figure 10): the baseline is the same code. Chapters 6 to 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dnabook.products import Linear

UNSHARED = (2, 4, 6)


class NeckedAutoencoder(nn.Module):
    """One encoder and decoder around `necks` necks (Figure 5); more layers can be unshared (Figure 10).

    layers    six functions, each making one layer; after the third the code z is read.
    necks     how many paths: 1 is a plain autoencoder, 2 the paper's DNA.
    unshared  how many middle layers each path has for itself: 2 (the necks), 4 or 6 (nothing is shared).
    span      width of the interval that the layers work in: 2 for inputs in [−1, 1], 1 for [0, 1].

    Images come and go as (N, C, H, W) in [0, 1], whatever the span; training compares them in its units.
    Raises ValueError on another number of layers, necks or unshared layers, and on another span.
    """

    def __init__(
        self, layers: Sequence[Callable[[], nn.Module]], *, necks: int = 2, unshared: int = 2, span: int = 1
    ) -> None:
        super().__init__()
        if len(layers) != 6:
            raise ValueError(f"an autoencoder here has six layers, got {len(layers)}")
        if necks < 1:
            raise ValueError(f"necks must be at least 1, got {necks}")
        if unshared not in UNSHARED:
            raise ValueError(f"unshared must be one of {UNSHARED}, got {unshared}")
        if span not in (1, 2):
            raise ValueError(f"span is 1 for [0, 1] or 2 for [−1, 1], got {span}")
        shared = (6 - unshared) // 2  # layers on either side that all paths go through
        self.span = span
        self.encoder = nn.Sequential(*(make() for make in layers[:shared]))
        self.squeeze = nn.ModuleList(
            nn.Sequential(*(make() for make in layers[shared:3])) for _ in range(necks)
        )
        self.widen = nn.ModuleList(
            nn.Sequential(*(make() for make in layers[3 : 6 - shared])) for _ in range(necks)
        )
        self.decoder = nn.Sequential(*(make() for make in layers[6 - shared :]))

    @property
    def necks(self) -> int:
        return len(self.squeeze)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """The code of each neck, (N, 64) for MNIST and (N, 7, 8, 8) for CIFAR-10."""
        common = self.encoder(self._inwards(x))
        return tuple(squeeze(common) for squeeze in self.squeeze)

    def decode(self, codes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The reconstruction of each code by its own path, (N, C, H, W) in [0, 1]."""
        pairs = zip(self.widen, codes, strict=True)
        return tuple(self._outwards(self.decoder(widen(z))) for widen, z in pairs)

    def path(self, x: Tensor, number: int) -> Tensor:
        """The reconstruction by one path, 0 for the first: `forward(x)[number]` without the others' work."""
        code = self.squeeze[number](self.encoder(self._inwards(x)))
        return self._outwards(self.decoder(self.widen[number](code)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One reconstruction for each neck."""
        return self.decode(self.encode(x))

    def _inwards(self, x: Tensor) -> Tensor:
        return 2 * x - 1 if self.span == 2 else x

    def _outwards(self, x: Tensor) -> Tensor:
        return (x + 1) / 2 if self.span == 2 else x


# --- MNIST: Figure 12 ----------------------------------------------------------------------------


def mnist_autoencoder(
    necks: int = 2, unshared: int = 2, *, code: int = 64, hidden: int = 100, extra_layers: int = 0
) -> NeckedAutoencoder:
    """Figure 12: 784-100-128, necks 128-64-128, 128-100-784; ReLU throughout, Sigmoid at the end.

    For images (N, 1, 28, 28); `encode` gives codes (N, code).
    216,664 parameters with two necks, 200,088 with one.
    code          units in the neck, 64 in the paper.
    hidden        units of the outermost layers, 100 in the paper; wider ones match parameter counts.
    extra_layers  further 128-128 layers on both sides of every neck.
    """
    deeper = [_linear(128, 128) for _ in range(extra_layers)]

    def squeeze() -> nn.Module:
        return nn.Sequential(*(make() for make in [*deeper, _linear(128, code)]))

    def widen() -> nn.Module:
        return nn.Sequential(*(make() for make in [_linear(code, 128), *deeper]))

    def last() -> nn.Module:
        return nn.Sequential(Linear(hidden, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))

    first = _linear(784, hidden, flatten=True)
    layers = [first, _linear(hidden, 128), squeeze, widen, _linear(128, hidden), last]
    return NeckedAutoencoder(layers, necks=necks, unshared=unshared)


def _linear(inputs: int, outputs: int, *, flatten: bool = False) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        before = [nn.Flatten()] if flatten else []
        return nn.Sequential(*before, Linear(inputs, outputs), nn.ReLU())

    return make


def mnist_classifier() -> nn.Sequential:
    """Figure 12d: three 3×3 convolutions, each pooled, and a linear layer; 8,778 parameters.

    The ReLU follows the pooling, as in `models`, which changes no number.
    (N, 1, 28, 28) in [0, 1] -> (N, 10) logits.
    """
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), Linear(288, 10),
    )  # fmt: skip


# --- CIFAR-10: Figure 13 -------------------------------------------------------------------------


class Block(nn.Module):
    """BatchNorm, ReLU, 3×3 convolution, twice, plus the input (by a 1×1 convolution where widths differ).

    (N, inputs, H, W) to (N, outputs, H, W).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def cifar10_autoencoder(necks: int = 2, unshared: int = 2) -> NeckedAutoencoder:
    """Figure 13: residual blocks 3-16-32, necks 32-32-7-32-32 at 8×8, transposed convolutions back; Tanh.

    The code (N, 7, 8, 8) is signed, M = 448. 134,058 parameters with two necks, 82,400 with one.
    """
    layers = [
        lambda: nn.Sequential(Block(3, 16), nn.MaxPool2d(2)),
        lambda: nn.Sequential(Block(16, 32), nn.MaxPool2d(2)),
        lambda: nn.Sequential(Block(32, 32), Block(32, 7)),
        lambda: nn.Sequential(Block(7, 32), Block(32, 32)),
        lambda: nn.Sequential(nn.ConvTranspose2d(32, 32, 2, stride=2), Block(32, 16)),
        lambda: nn.Sequential(nn.ConvTranspose2d(16, 16, 2, stride=2), Block(16, 3), nn.Tanh()),
    ]
    return NeckedAutoencoder(layers, necks=necks, unshared=unshared, span=2)


class CIFAR10Classifier(nn.Module):
    """Figure 13d: a convolution and three residual blocks, each pooled, and a linear layer; 4,829,194
    parameters.

    (N, 3, 32, 32) in [0, 1], taken to [−1, 1] inside, -> (N, 10) logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            Block(64, 128), nn.MaxPool2d(2),
            Block(128, 256), nn.MaxPool2d(2),
            Block(256, 512), nn.MaxPool2d(4),
            nn.Flatten(), Linear(512, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(2 * x - 1)


class Reconstructor(nn.Module):
    """A classifier C behind an autoencoder F: x -> C(F(x)ₙ), the logits of each path, (N, paths, 10)."""

    def __init__(self, autoencoder: NeckedAutoencoder, classifier: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.classifier = autoencoder, classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, paths, 10)."""
        images = self.autoencoder(x)
        logits = self.classifier(torch.cat(images))
        return logits.unflatten(0, (len(images), len(x))).transpose(0, 1)

"""What dnabook is timed against: the loss by pseudo-inverse, and a training loop in the released style.

Written for this comparison from Algorithm 1 and from what is usual: a DataLoader that turns every image from
bytes through Pillow into a tensor, a pseudo-inverse that autograd differentiates, a loss read back each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor


def correlation_loss(z1: Tensor, z2: Tensor, eta: float = 5e-4, epsilon: float = 1e-3) -> Tensor:
    """Algorithm 1 with the projection that can be run: QR for the mask, `pinv` for the regression."""
    z1, z2 = z1.flatten(1), z2.flatten(1)
    diagonal = torch.linalg.qr(z1.detach()).R.diagonal().abs()
    z1 = z1[:, diagonal > eta * diagonal.max()]
    augmented = torch.cat([z1, torch.ones_like(z1[:, :1])], 1)
    residual = z2 - augmented @ (torch.linalg.pinv(augmented) @ z2)
    ss_total = (z2 - z2.mean(0)).square().sum()
    return torch.log(ss_total + epsilon) - torch.log(residual.square().sum() + epsilon)


class Pictures(Dataset):
    """Images (N, C, H, W) given out one by one, each decoded as torchvision's data sets do it."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        pixels = (x.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        self.arrays, self.labels = pixels.squeeze(3).numpy(), y.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.arrays[index])), self.labels[index]


def pair_loss(pair: tuple[nn.Module, nn.Module], weight: float = 0.05) -> Callable[[Tensor, Tensor], Tensor]:
    """Eq. 8 as released, √(CE1² + CE2²) + λ L_R."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        z1, z2 = pair[0].features(x), pair[1].features(x)
        each = [cross_entropy(model.head(z), y) for model, z in zip(pair, (z1, z2), strict=True)]
        return torch.sqrt(each[0] ** 2 + each[1] ** 2) + weight * correlation_loss(z1, z2)

    return loss


def dna_loss(autoencoder: nn.Module, weight: float = 0.05) -> Callable[[Tensor, Tensor], Tensor]:
    """Eq. 4 as released, √(MSE1² + MSE2²) + λ L_R."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        codes = autoencoder.encode(x)
        each = [
            mse_loss(autoencoder.span * image, autoencoder.span * x) for image in autoencoder.decode(codes)
        ]
        return torch.sqrt(each[0] ** 2 + each[1] ** 2) + weight * correlation_loss(*codes)

    return loss


def steps(
    loss: Callable[[Tensor, Tensor], Tensor],
    models: list[nn.Module],
    loader: DataLoader,
    device: torch.device,
    learning_rate: float,
) -> Iterator[float]:
    """One optimiser step after another, yielding each loss as a number, over and over the loader."""
    optimizer = torch.optim.Adam([p for model in models for p in model.parameters()], lr=learning_rate)
    while True:
        for x, y in loader:
            value = loss(x.to(device), y.to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            yield value.item()

"""Ordinary least squares between two feature matrices (Eq. 6), once, for the loss and the measures.

Z2 ≈ [Z1, 1] W is solved from the centred normal equations by Cholesky in float64: no pseudo-inverse and
no SVD, and on a GPU every shape is known beforehand, so it is never asked for a number in between.
Dependent columns are found as Algorithm 1 finds them, from the diagonal of R in Z1 = QR, which is the
Cholesky factor of Z1ᵀZ1. Used by `losses.correlation_loss` and `measures.r_squared`; explained in chapter 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

RIDGE = 1e-12  # of the largest diagonal entry: far below float32 features' own rounding
ETA = 1e-5  # above √RIDGE, which is what the ridge leaves of a dependent column's diagonal entry


class Fit(NamedTuple):
    """The regression of Z2 (N, M2) on [Z1 (N, M1), 1].

    weight: (M1, M2), rows of dropped columns are zero.  mean1: (M1,).  mean2: (M2,).
    kept: (M1,) bool, the columns of Z1 that entered.  Prediction: (z1 − mean1) @ weight + mean2.
    """

    weight: Tensor
    mean1: Tensor
    mean2: Tensor
    kept: Tensor

    def residual(self, z1: Tensor, z2: Tensor) -> Tensor:
        """z2 minus its prediction from z1, (N, M2)."""
        return (z2 - self.mean2) - (z1 - self.mean1) @ self.weight


def matrices(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Both feature sets as floating (N, M) matrices; (N, C, H, W) is flattened.

    Raises ValueError unless both have the same N ≥ 2 rows and at least one column.
    """
    if z1.dim() < 2 or z2.dim() < 2 or len(z1) != len(z2) or len(z1) < 2:
        raise ValueError(
            f"features need shapes (N, …) with the same N ≥ 2, got {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    if not (z1.is_floating_point() and z2.is_floating_point()):
        raise ValueError(f"features must be floating point, got {z1.dtype} and {z2.dtype}")
    z1, z2 = z1.flatten(1), z2.flatten(1)
    if z1.shape[1] == 0 or z2.shape[1] == 0:
        raise ValueError(f"features have no columns: {tuple(z1.shape)} and {tuple(z2.shape)}")
    return z1, z2


def double(z: Tensor) -> Tensor:
    """z in float64, where it is; from mps, which has no float64, on the CPU."""
    return (z.cpu() if z.device.type == "mps" else z).double()


def fit(z1: Tensor, z2: Tensor, *, eta: float = ETA, ridge: float = RIDGE) -> Fit:
    """The least-squares fit of z2 (N, M2) on [z1 (N, M1), 1].

    A column of z1 is dropped when its diagonal entry of R in z1 = QR is at most `eta` times the largest
    in magnitude (it depends on the columns before it; an eta up to √RIDGE = 1e-6 finds none of these), or
    when it is constant (it repeats the ones).
    `ridge`, times the largest sum of squares of a column that is left, is added to the diagonal of Z1ᵀZ1,
    all columns less their means.
    Any N ≥ 2 works, N < M1 and constant, zero or duplicated columns included.
    """
    return _fits(z1, z2, eta, ridge, both=False)[0]


def fit_both(z1: Tensor, z2: Tensor, *, eta: float = ETA, ridge: float = RIDGE) -> tuple[Fit, Fit]:
    """The fits of z2 on z1 and of z1 on z2, as `fit` makes them, for less: they share Z1ᵀZ2."""
    first, second = _fits(z1, z2, eta, ridge, both=True)
    return first, second


@torch.no_grad()
def _fits(z1: Tensor, z2: Tensor, eta: float, ridge: float, *, both: bool) -> list[Fit]:
    z1, z2 = matrices(z1, z2)
    like = z1  # its device and type are the result's
    z1, z2 = double(z1), double(z2)
    mean1, mean2 = z1.mean(0), z2.mean(0)
    c1, c2 = z1 - mean1, z2 - mean2
    cross = c1.T @ c2 if both else None  # (M1, M2)
    fits = []
    for c, mean, target, target_mean in ((c1, mean1, c2, mean2), (c2, mean2, c1, mean1))[: 1 + both]:
        product = cross.T if fits else cross
        weight, kept = _weight(c, mean, target, product, eta, ridge)
        fits.append(Fit(weight.to(like), mean.to(like), target_mean.to(like), kept.to(like.device)))
    return fits


def _weight(
    c: Tensor, mean: Tensor, target: Tensor, product: Tensor | None, eta: float, ridge: float
) -> tuple[Tensor, Tensor]:
    """W (M1, M2) from centred columns C (N, M1) to the target (N, M2), and which columns entered.

    product: CᵀT where it is known already. Where asking is free, dropped columns are left out of the work; a
    GPU is not asked: there a dropped column is a row and a column of zeros with a positive number on the
    diagonal, and its weight comes out as 0.
    """
    gram = _gram(c)
    kept = _independent(gram, mean, len(c), eta)
    steered = _asking_is_free(c) and _asking_is_free(target)
    if steered and not kept.all():
        weight = c.new_zeros(c.shape[1], target.shape[1])
        if kept.any():
            index = kept.nonzero().squeeze(1)
            product = c[:, index].T @ target if product is None else product[index]
            weight[index] = torch.cholesky_solve(product, _cholesky_(gram[index][:, index], ridge))
        return weight, kept
    product = c.T @ target if product is None else product
    if not steered:
        keep = kept.to(gram.dtype)
        gram.mul_(keep[:, None]).mul_(keep)
        gram.diagonal().add_((1 - keep) * gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny))
        product = product * keep[:, None]
    return torch.cholesky_solve(product, _cholesky_(gram, ridge)), kept


def _independent(gram: Tensor, mean: Tensor, n: int, eta: float) -> Tensor:
    """Which columns enter, (M,) bool, from the Gram matrix of the centred columns and their means."""
    uncentred = torch.addr(gram, mean, mean, alpha=n)  # Z1ᵀZ1, without a second product
    size = uncentred.diagonal().max()
    r = _cholesky_(uncentred).diagonal()  # |diag(R)|
    return (r > eta * r.max()) & (gram.diagonal() > 1e-12 * size)


def _asking_is_free(z: Tensor) -> bool:
    """Whether numbers may steer the work: on a processor, outside the transforms of `torch.func`."""
    return z.device.type == "cpu" and not is_functorch_wrapped_tensor(z)


def _gram(z: Tensor, block: int = 256) -> Tensor:
    """ZᵀZ (M, M) of Z (N, M), block by block: above the diagonal blocks it is left at 0."""
    m = z.shape[1]
    if m <= block or not _asking_is_free(z):
        return z.T @ z
    gram = z.new_zeros(m, m)
    for start in range(0, m, block):
        end = min(start + block, m)
        torch.mm(z[:, start:end].T, z[:, :end], out=gram[start:end, :end])
    return gram


def _cholesky_(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """Lower Cholesky factor of a Gram matrix, `ridge` × its largest entry added to its diagonal in place."""
    gram.diagonal().add_(ridge * gram.diagonal().max() + torch.finfo(gram.dtype).tiny)
    return torch.linalg.cholesky_ex(gram)[0]

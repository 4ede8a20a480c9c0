"""Ordinary least squares between two feature matrices (Eq. 6), once, for the loss and the measures.

Z2 ≈ [Z1, 1] W is solved from the centred normal equations by Cholesky in float64: no pseudo-inverse and
no SVD, every shape known beforehand, so a GPU is never asked for a number in between. Dependent columns
are found as Algorithm 1 finds them, from the diagonal of R in Z1 = QR, which is the Cholesky factor of
Z1ᵀZ1. Used by `losses.correlation_loss` and `measures.r_squared`; explained in chapter 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-12  # of the largest diagonal entry: far below float32 features' own rounding


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


@torch.no_grad()
def fit(z1: Tensor, z2: Tensor, *, eta: float = 1e-6, ridge: float = RIDGE) -> Fit:
    """The least-squares fit of z2 (N, M2) on [z1 (N, M1), 1].

    A column of z1 is dropped when its diagonal entry of R in z1 = QR is at most `eta` times the largest
    in magnitude (it depends on the columns before it), or when it is constant (it repeats the ones).
    `ridge`, times the largest sum of squares of a column, is added to the diagonal of Z1ᵀZ1.
    Any N ≥ 2 works, N < M1 and constant, zero or duplicated columns included.
    """
    z1, z2 = matrices(z1, z2)
    dtype, n = z1.dtype, len(z1)
    work = torch.float32 if z1.device.type == "mps" else torch.float64
    z1, z2 = z1.to(work), z2.to(work)
    mean1, mean2 = z1.mean(0), z2.mean(0)
    c1, c2 = z1 - mean1, z2 - mean2
    gram = c1.T @ c1  # (M1, M1)
    uncentred = gram + n * torch.outer(mean1, mean1)  # Z1ᵀZ1, without a second product
    r = _cholesky(uncentred).diagonal()  # |diag(R)|
    size = uncentred.diagonal().max()
    kept = (r > eta * r.max()) & (gram.diagonal() > 1e-12 * size)
    keep = kept.to(work)
    gram = gram * torch.outer(keep, keep)
    filler = gram.diagonal().max().clamp_min(torch.finfo(work).tiny)
    gram = gram + torch.diag((1 - keep) * filler)  # dropped columns: a diagonal that can be inverted
    weight = torch.cholesky_solve((c1 * keep).T @ c2, _cholesky(gram, ridge))
    return Fit((keep[:, None] * weight).to(dtype), mean1.to(dtype), mean2.to(dtype), kept)


def _cholesky(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """Lower Cholesky factor of a Gram matrix with `ridge` × its largest entry added to the diagonal."""
    ridge = ridge if gram.dtype == torch.float64 else max(ridge, 1e-6)  # float32 cannot resolve less
    shift = ridge * gram.diagonal().max() + torch.finfo(gram.dtype).tiny
    factor, _ = torch.linalg.cholesky_ex(
        gram + shift * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )
    return factor

"""Ordinary least squares between two feature matrices (Eq. 6), once, for the loss and the measures.

Z2 ≈ [Z1, 1] W is solved from the centred normal equations by Cholesky in float64: no pseudo-inverse and
no SVD, and on a GPU every shape is known beforehand, so it is never asked for a number in between.
Dependent columns are found as Algorithm 1 finds them, from the diagonal of R in Z1 = QR, which is the
Cholesky factor of Z1ᵀZ1. The loss needs the residual alone (`residual_sums`), and where Z1 has more than
half as many columns as rows a processor finds it without W, from what the columns do not span.
Used by `losses.correlation_loss` and `measures.r_squared`; explained in chapter 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.function import once_differentiable

from dnabook.products import linear

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
    Raises ValueError as `matrices` does.
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

    product: CᵀT where it is known already. A dropped column is a row and a column of zeros with a positive
    number on the diagonal, so its weight comes out as 0, and a GPU is not asked which they are.
    """
    gram = _gram(c)
    kept = _independent(gram, mean, len(c), eta)
    product = c.T @ target if product is None else product
    keep = kept.to(gram.dtype)
    gram.mul_(keep[:, None]).mul_(keep)
    gram.diagonal().add_((1 - keep) * gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny))
    return torch.cholesky_solve(product * keep[:, None], _cholesky_(gram, ridge)), kept


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


# --- The residual as a loss ----------------------------------------------------------------------


def residual_sums(z1: Tensor, z2: Tensor, *, eta: float = ETA, both: bool = False) -> list[Tensor]:
    """The sum of squares that regressing z2 (N, M2) on [z1 (N, M1), 1] leaves, with gradients to both.

    One scalar in a list; with `both` a second, of z1 on [z2, 1]. Columns are dropped as `fit` drops them.
    Gradients hold the weights fixed, which is exact, because they are optimal; there are none of second
    order on a processor.
    """
    z1, z2 = matrices(z1, z2)
    if _asking_is_free(z1) and _asking_is_free(z2):
        directions = ((z1, z2), (z2, z1))[: 1 + both]
        return [_ResidualSum.apply(a, b, eta) for a, b in directions]
    like = z1
    z1, z2 = _exact_enough(z1, z2, columns=max(z1.shape[1], both * z2.shape[1]))
    c1, c2 = z1 - z1.mean(0), z2 - z2.mean(0)
    fits = fit_both(z1, z2, eta=eta) if both else (fit(z1, z2, eta=eta),)
    pairs = ((c1, c2), (c2, c1))
    return [(b - a @ each.weight).square().sum().to(like) for each, (a, b) in zip(fits, pairs, strict=False)]


class _ResidualSum(torch.autograd.Function):
    """`residual_sums` of one direction on a processor, its gradients computed beside it."""

    @staticmethod
    def forward(ctx: Any, z1: Tensor, z2: Tensor, eta: float) -> Tensor:
        columns = _columns(z1)
        whole = len(columns) == z1.shape[1]
        predictors, c2 = z1 if whole else z1[:, columns], z2 - z2.mean(0)
        n, m = predictors.shape
        way = _by_complement if m < n < 1.8 * m else _by_weight  # where it is the faster
        total, gradient1, gradient2 = way(predictors, c2, eta, any(ctx.needs_input_grad))
        if any(ctx.needs_input_grad):
            if not whole:
                gradient1 = z1.new_zeros(z1.shape).index_copy_(1, columns, gradient1)
            ctx.save_for_backward(gradient1, gradient2)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return *(slope * gradient for gradient in ctx.saved_tensors), None


def _columns(z: Tensor) -> Tensor:
    """Which columns of Z (N, M) say anything: those that vary, and the first constant that is not 0.

    The others are multiples of that one: they enter no fit, and the diagonal of R knows nothing of them.
    """
    mean, kind = z.mean(0), torch.float64
    spread = torch.linalg.vector_norm(z - mean, dim=0, dtype=kind)
    level = len(z) ** 0.5 * mean.abs().to(kind)
    largest = torch.hypot(spread, level).max()
    chosen = ~(spread <= 1e-6 * largest)  # one that is not a number is not passed over
    chosen[(~chosen & (level > 0)).nonzero()[:1]] = True
    chosen[0] |= ~chosen.any()  # all are 0: there is a column to drop
    return chosen.nonzero().squeeze(1)


def _by_weight(z1: Tensor, c2: Tensor, eta: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The residual sum of squares and its gradients, from the weights of `fit`."""
    like = z1
    z1, c2 = _exact_enough(z1, c2, columns=z1.shape[1])
    weight = fit(z1, c2, eta=eta).weight
    residual = c2 - linear(z1 - z1.mean(0), weight.T)
    gradient1 = -2 * linear(residual, weight) if wanted else z1
    return residual.square().sum().to(like), gradient1.to(like), (2 * residual).to(like)


def _exact_enough(z1: Tensor, z2: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Both in float64 where a regression has as many columns as rows, or more: its fit is then exact, and
    what float32 leaves of it is rounding, of which large weights would make a gradient."""
    return (double(z1), double(z2)) if len(z1) <= columns else (z1, z2)


def _by_complement(z1: Tensor, c2: Tensor, eta: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The same without the weights, from a basis of what the columns of z1 do not span; for N > M.

    The few directions that are left make the products small: with Z1 = QR, B a basis of what Q leaves
    (N, N − M) and C = BᵀZ2, the residual is BC and its product with the weights B (C Z2ᵀ Q) R⁻ᵀ. What
    dependence between columns would blow up, Q and R⁻¹, is in float64; products are in z1's own type.
    """
    n, m = z1.shape
    wide = z1.T.contiguous().double()  # LAPACK reads column by column
    mean = wide.mean(1)
    factor, tau = torch.geqrf(wide.sub_(mean[:, None]).T)
    r = factor[:m].triu()
    kept = _kept(r, mean, n, eta)
    dropped = (~kept).nonzero().squeeze(1)
    r[:, dropped] = 0  # in their place unit columns: R stays triangular, and what follows solves for the kept
    r[dropped, dropped] = 1
    count = len(dropped)
    inside = r.new_zeros(m, count)  # directions that only dropped columns span
    inside[dropped, torch.arange(count, device=z1.device)] = 1
    inside = torch.linalg.qr(torch.linalg.solve_triangular(r.T, inside, upper=False)).Q.to(z1)
    factor, tau = factor.to(z1), tau.to(z1)
    basis = z1.new_zeros(n, count + n - m)
    basis[:m, :count] = inside
    basis[m:, count:].fill_diagonal_(1)
    basis = torch.ormqr(factor, tau, basis)
    rest = linear(basis.T, c2.T)  # C (N − kept, M2)
    residual = linear(basis, rest.T)
    if not wanted:
        return rest.square().sum(), z1, residual
    scale = rest.abs().max().clamp_min(torch.finfo(rest.dtype).tiny)
    crossed = torch.ormqr(factor, tau, linear(rest / scale, c2), left=False)[:, :m]
    crossed = crossed - linear(linear(crossed, inside.T), inside)
    crossed = torch.linalg.solve_triangular(r, crossed.T.double(), upper=True).to(z1)  # W Cᵀ, of the kept
    crossed[dropped] = 0
    return rest.square().sum(), -2 * scale * linear(basis, crossed), 2 * residual


def _kept(r: Tensor, mean: Tensor, n: int, eta: float) -> Tensor:
    """Which columns enter, (M,) bool, from R (M, M) of the centred columns and their means.

    The rule of `fit` asks for the diagonal of R of the columns as they come. From one to the other leads an
    update of rank one, N mean meanᵀ, of RᵀR, whose effect on the diagonal is known in closed form.
    """
    least = 100 * torch.finfo(r.dtype).eps * r.diagonal().abs().max()
    varies = r.diagonal().abs() > least
    steady = r.clone()
    steady.diagonal().copy_(torch.where(varies, r.diagonal(), least))
    share = torch.linalg.solve_triangular(steady.T, n**0.5 * mean[:, None], upper=False).squeeze(1)
    before = 1 + torch.cat([share.new_zeros(1), share.square().cumsum(0)[:-1]])  # by the columns on its left
    ones = share * steady.diagonal()  # what a column has of the direction of the ones
    full = torch.hypot(r.diagonal(), ones / before.sqrt())
    return (full > eta * full.max()) & varies

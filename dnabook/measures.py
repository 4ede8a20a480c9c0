"""What is measured on one model or a pair: accuracy, linear predictability, transfer, distance.

Each R² comes with what it should be compared to: its value for unrelated features of the same rank, its
value on images the regression has not seen, and its value in the other direction. Each rate comes with
its counts. Eqs. 6 and 7 and "Defining Transferability" of the paper; used in chapters 1 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dnabook import regression
from dnabook.models import channels_last, evaluating

# --- Predictions ---------------------------------------------------------------------------------


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 500) -> Tensor:
    """`function` of each slice of x, concatenated: the memory of one slice, the result of all.

    Without gradients. A function that is a model reads in eval mode; its modes are restored.
    """
    with evaluating(*[function] if isinstance(function, nn.Module) else ()):
        return torch.cat([function(part) for part in x.split(size)])


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    """The model's class for each image, (N,), in eval mode; modes are restored.

    Raises ValueError for images that are not floating point, and for a model that does not give one row of
    logits (classes,) for each image: the paths of an autoencoder are read by `reconstruction.right`.
    """
    _check_floating(x)

    def classes(part: Tensor) -> Tensor:
        logits = model(part)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"a classifier gives logits (N, classes) of two classes or more, got {got}")
        return logits.argmax(1)

    with evaluating(model), channels_last(model) as call:
        return in_batches(partial(call, classes), x)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The model's hidden features of each image, flattened to (N, M), in eval mode.

    Raises ValueError for images that are not floating point.
    """
    _check_floating(x)

    def flat(part: Tensor) -> Tensor:
        return model.features(part).flatten(1)

    with evaluating(model), channels_last(model) as call:
        return in_batches(partial(call, flat), x)


def _check_floating(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(f"images are floating point, in [0, 1], got {x.dtype}; divide bytes by 255")


def check_labels(x: Tensor, y: Tensor) -> None:
    """Raises ValueError unless y is (N,), a class for each of the N images x: (N, 1) would broadcast."""
    if y.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} images need labels of shape ({len(x)},), got {tuple(y.shape)}")


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images x (N, C, H, W) that the model assigns to their class y (N,), in [0, 1].

    Raises ValueError unless there is one label for each image.
    """
    check_labels(x, y)
    return regression.double(predictions(model, x) == y).mean().item()


def gradient_cosine(model1: nn.Module, model2: nn.Module, x: Tensor, y: Tensor) -> float:
    """How far two models' losses rise in the same direction of the image: the mean cosine, in [−1, 1].

    x: (N, C, H, W);  y: (N,). The gradients are those of each image's cross-entropy, in eval mode; an image
    whose gradient is 0 in one of the models counts as 0. Demontis et al. (2019) explain transfer by it.
    Raises ValueError unless there is one label for each image, and for images that are not floating point.
    """
    _check_floating(x)
    check_labels(x, y)
    cosines = [
        torch.cosine_similarity(*(_directions(model, *part) for model in (model1, model2)))
        for part in zip(x.split(500), y.split(500), strict=True)
    ]
    return regression.double(torch.cat(cosines)).mean().item()


def _directions(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad(), evaluating(model), channels_last(model) as call:
        return loss_directions(call(model, leaf), leaf, y)


def loss_directions(logits: Tensor, x: Tensor, y: Tensor, *, create_graph: bool = False) -> Tensor:
    """Where each image's cross-entropy rises: its gradient, (N, D), the largest entry scaled to ±1.

    logits: (N, K), computed from x (N, C, H, W), which needs a gradient;  y: (N,).
    create_graph  lets a loss of these directions be differentiated; the scaling is then held fixed.
    A gradient of 0 stays 0, and so becomes one that its type cannot hold, or, in a graph, whose derivative it
    cannot: in float32 a largest entry below 10⁻¹⁹.
    The cross-entropy is in float64. In float32 a probability above 1 − 10⁻⁷ is 1, and its gradient 0.
    """
    loss = cross_entropy(regression.double(logits), y.to(logits.device), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x, create_graph=create_graph)
    gradient = gradient.flatten(1)
    largest = gradient.detach().abs().amax(1, keepdim=True)
    smallest = torch.finfo(gradient.dtype).tiny ** (0.5 if create_graph else 1)
    return torch.where(largest < smallest, 0, gradient / largest.clamp_min(smallest))


# --- Linear predictability: Eqs. 6 and 7 ---------------------------------------------------------

# A unit that fires on a handful of the fitted images gets a wild weight from plain least squares, and a
# few of them can ruin a held-out score. This ridge steadies the score and leaves well-fed units alone.
HELDOUT_RIDGE = 1e-5
KERNEL_RIDGE = 1e-2  # of `nonlinear_r_squared`


def r_squared(
    z1: Tensor,
    z2: Tensor,
    *,
    heldout: bool = False,
    centred: bool = True,
    adjusted: bool = False,
) -> float:
    """Share of the variance of z2 that a linear map of [z1, 1] explains: 1 − SS_res / SS_total (Eq. 7).

    z1: (N, M1) or (N, C, H, W);  z2: likewise with the same N. It has a direction: z1 predicts z2.
    heldout   fits on the first half of the rows (with a small ridge), scores on the second; below 0 means
              worse than the mean. Give rows in random order, or the halves may differ. The ridge is relative
              to the largest variance of a unit of z1: where one unit or one direction has nearly all of it,
              what the others say is shrunk, and the score too low.
    centred   SS_total about the column means; False: about zero, as the paper prints it, which counts a
              shared mean as agreement.
    adjusted  1 − (1 − R²)(N − 1)/(N − r − 1): unrelated features then score 0 on average, not r/(N − 1).

    In sample, a unit of z1 tells nothing when its diagonal entry of R in z1 = QR is below 1e-5 of the largest
    (`regression.ETA`): it depends on the units before it, or is that small beside the largest, whose mean
    counts. Standardise units whose sizes lie further apart.
    Returns nan when SS_total is 0 but for the rounding of z2's type (z2 constant; uncentred, z2 zero), and
    for `adjusted` when N − 1 ≤ r.
    Raises ValueError on mismatched shapes, on fewer than 4 rows held out, on `adjusted` with `heldout` or
    without `centred`.
    """
    z1, z2 = regression.matrices(z1, z2)
    if adjusted and (heldout or not centred):
        raise ValueError("adjusted corrects an in-sample R² about the means, not one held out or uncentred")
    n = len(z1)
    if heldout and n < 4:
        raise ValueError(f"a held-out R² needs at least 4 rows, got {n}")
    half = n // 2
    fitted, scored = (slice(half), slice(half, n)) if heldout else (slice(n), slice(n))
    kind, z1, z2 = z2.dtype, regression.double(z1), regression.double(z2)
    how = {"ridge": HELDOUT_RIDGE, "eta": 0.0} if heldout else {}  # the ridge copes with dependent columns
    fit = regression.fit(z1[fitted], z2[fitted], **how)
    target = z2[scored]
    ss_res = fit.residual(z1[scored], target).square().sum()
    ss_total = (target - target.mean(0) if centred else target).square().sum()
    if _constant(ss_total, target, kind):
        return math.nan
    r2 = (1 - ss_res / ss_total).item()
    return _adjusted(r2, n, rank(z1)) if adjusted else r2


def nonlinear_r_squared(z1: Tensor, z2: Tensor) -> float:
    """Share of the variance of z2 that a smooth function of z1 explains, held out; 1 at most.

    z1: (N, M1) or (N, C, H, W);  z2: likewise with the same N ≥ 4, in random order. The function is a kernel
    ridge regression on the first half of the rows, scored on the second as `r_squared(…, heldout=True)` is.
    Its Gaussian kernel exp(−‖a − b‖² / 2s²) has for s² the median squared distance of the first thousand of
    the fitted rows, pairs that coincide left out, and 1 everywhere on its diagonal, to which `KERNEL_RIDGE`
    is added. So the score does not change when z1 is shifted, turned or scaled; it is a lower bound of what
    any function could explain.
    Memory grows with N²: 0.9 GB for 10,000 rows. Returns nan when z2 does not vary in the second half, and
    when a feature is not finite. Raises ValueError on mismatched shapes, and on fewer than 4 rows.
    """
    z1, z2 = regression.matrices(z1, z2)
    kind, z1, z2 = z2.dtype, regression.double(z1), regression.double(z2)
    if len(z1) < 4:
        raise ValueError(f"a held-out R² needs at least 4 rows, got {len(z1)}")
    if not (z1.isfinite().all() and z2.isfinite().all()):
        return math.nan
    half, z1 = len(z1) // 2, z1 - z1.mean(0)
    fitted, scored, mean = z1[:half], z1[half:], z2[:half].mean(0)
    apart = torch.nn.functional.pdist(fitted[:1000]).square()
    apart = apart[apart > 0]
    spread = apart.median() if len(apart) else 1.0

    def kernel(rows: Tensor) -> Tensor:
        return torch.exp(torch.cdist(rows, fitted).square().div_(-2 * spread))

    factor = torch.linalg.cholesky(kernel(fitted).add_(KERNEL_RIDGE * torch.eye(half).to(z1)))
    predicted = mean + kernel(scored) @ torch.cholesky_solve(z2[:half] - mean, factor)
    target = z2[half:]
    ss_total = (target - target.mean(0)).square().sum()
    if _constant(ss_total, target, kind):
        return math.nan
    return (1 - (target - predicted).square().sum() / ss_total).item()


def _constant(ss_total: Tensor, target: Tensor, kind: torch.dtype) -> bool:
    """Whether what varies of a target that came in this type is no more than its rounding, or float32's."""
    eps = torch.finfo(torch.promote_types(kind, torch.float32)).eps
    return bool(ss_total <= (8 * eps) ** 2 * target.square().sum())


def _adjusted(r2: float, n: int, r: int) -> float:
    """An in-sample R² over n rows from features of rank r, less what chance adds; nan when N − 1 ≤ r."""
    return 1 - (1 - r2) * (n - 1) / (n - 1 - r) if n - 1 > r else math.nan


def rank(z: Tensor) -> int:
    """Number of linearly independent columns of the centred features z (N, M), at most N − 1.

    0 where a feature is not finite.
    """
    gram = _gram(z)
    if not gram.isfinite().all():
        return 0
    eigenvalues = torch.linalg.eigvalsh(gram)
    return int((eigenvalues > 1e-12 * eigenvalues.max()).sum())  # singular values above 1e-6 of the largest


def chance_floor(z1: Tensor) -> float:
    """In-sample R² that features of z1's rank reach on unrelated targets, on average: r/(N − 1)."""
    return rank(z1) / (len(z1) - 1)


def effective_rank(z: Tensor) -> float:
    """How many directions share the variance of z (N, M): (Σλ)² / Σλ² over its covariance eigenvalues.

    Also called the participation ratio: M when all directions vary alike, 1 when a single one varies,
    nan when none does.
    """
    gram = _gram(z)
    return (gram.trace().square() / gram.square().sum()).item()


def _gram(z: Tensor) -> Tensor:
    """The smaller of ZᵀZ and ZZᵀ of the centred features, in float64: both have Z's squared spectrum."""
    z = _centred(z)
    return z.T @ z if z.shape[1] <= len(z) else z @ z.T


def _centred(z: Tensor) -> Tensor:
    """Features as (N, M) in float64, less their column means; constant columns become exactly zero."""
    z, _ = regression.matrices(z, z)
    z = regression.double(z)
    return (z - z.mean(0)) * (z.amax(0) > z.amin(0))


def live_units(z: Tensor) -> int:
    """Number of columns of z (N, M) that take more than one value: the units that are not dead."""
    z, _ = regression.matrices(z, z)
    return int((z.amax(0) > z.amin(0)).sum())


class Predictability(NamedTuple):
    """R² of z2 from z1, with what it takes to judge it. All but the counts are shares of variance."""

    in_sample: float
    adjusted: float
    heldout: float
    chance_floor: float
    rank: int
    effective_rank: float
    live_units: int
    n: int


def predictability(z1: Tensor, z2: Tensor) -> Predictability:
    """Every reading of R² from z1 (N, M1) to z2 (N, M2), N ≥ 4, beside z1's chance floor, rank, live units.

    Raises ValueError on mismatched shapes, and on fewer than 4 rows. R² is nan where a feature is not finite.
    """
    z1, z2 = regression.matrices(z1, z2)
    n, r, in_sample = len(z1), rank(z1), r_squared(z1, z2)
    return Predictability(
        in_sample=in_sample,
        adjusted=_adjusted(in_sample, n, r),
        heldout=r_squared(z1, z2, heldout=True),
        chance_floor=r / (n - 1),
        rank=r,
        effective_rank=effective_rank(z1),
        live_units=live_units(z1),
        n=n,
    )


def first_component(z: Tensor) -> Tensor:
    """Projection of the centred features z (N, M) on their direction of largest variance, (N,).

    The sign is the one that makes the largest loading positive. Figure 2 plots it for both models.
    All nan when a feature is not finite.
    """
    z = _centred(z)
    if not z.isfinite().all():
        return torch.full_like(z[:, 0], math.nan)
    _, vectors = torch.linalg.eigh(z.T @ z)
    direction = vectors[:, -1]
    return z @ (direction * direction[direction.abs().argmax()].sign())


def pearson(z1: Tensor, z2: Tensor) -> float:
    """Pearson correlation of two feature tensors of the same shape, all entries flattened to one list.

    It compares unit i with unit i, so a permutation of the units ruins it; R² does not care.
    Returns nan when either is constant. Raises ValueError when their shapes differ.
    """
    if z1.shape != z2.shape:
        raise ValueError(f"pearson needs equal shapes, got {tuple(z1.shape)} and {tuple(z2.shape)}")
    if any(z.numel() and (z == z.flatten()[0]).all() for z in (z1, z2)):
        return math.nan  # whose deviations from the mean are rounding
    a, b = (z.flatten() - z.mean() for z in (regression.double(z1), regression.double(z2)))
    return (a @ b / (a.norm() * b.norm())).item()


def cka(z1: Tensor, z2: Tensor) -> float:
    """Debiased linear centred kernel alignment of z1 (N, M1) and z2 (N, M2); 0 on average when unrelated.

    The ratio HSIC(1, 2) / √(HSIC(1, 1) HSIC(2, 2)) with the unbiased estimator of Song et al. (2007), in
    its feature form, so memory grows with M² and not with N². Being unbiased it can fall below 0.
    Returns nan when either set has no variance. Raises ValueError for N < 4.
    """
    z1, z2 = regression.matrices(z1, z2)
    if len(z1) < 4:
        raise ValueError(f"the unbiased estimator needs at least 4 rows, got {len(z1)}")
    a, b = _centred(z1), _centred(z2)
    own = _hsic(a, a) * _hsic(b, b)
    return (_hsic(a, b) / own.sqrt()).item() if own > 0 else math.nan


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased HSIC of centred features, times n(n − 3): three sums that need no N × N kernel."""
    n = len(a)
    rows_a, rows_b = a.square().sum(1), b.square().sum(1)  # (N,)
    return (
        (a.T @ b).square().sum()
        - n / (n - 2) * (rows_a @ rows_b)
        + rows_a.sum() * rows_b.sum() / ((n - 1) * (n - 2))
    )


def parameter_distance(model1: nn.Module, model2: nn.Module) -> Tensor:
    """‖θ1 − θ2‖²: the squared distance between two models' parameters, as a scalar with gradient (Eq. 5).

    Buffers such as BatchNorm's running statistics do not count.
    Raises ValueError unless the parameters have the same shapes in the same order.
    """
    pairs = list(zip(model1.parameters(), model2.parameters(), strict=False))
    shapes = [[tuple(p.shape) for p in model.parameters()] for model in (model1, model2)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"models differ in their parameters: {shapes[0]} and {shapes[1]}")
    return torch.stack([(p1 - p2).square().sum() for p1, p2 in pairs]).sum()


# --- Transfer ------------------------------------------------------------------------------------


class TransferCounts(NamedTuple):
    """Of `source_fooled` images that fool the source, `both_fooled` fool the target too."""

    both_fooled: int
    source_fooled: int

    @property
    def rate(self) -> float:
        return self.both_fooled / self.source_fooled if self.source_fooled else math.nan


def transfer_counts(
    source: nn.Module, target: nn.Module, x_adv: Tensor, y: Tensor, x: Tensor | None = None
) -> TransferCounts:
    """The two counts behind `transfer_rate`, for an interval or a sum over batches; raises what it raises."""
    check_labels(x_adv, y)
    wrong_source, wrong_target = (predictions(m, x_adv) != y for m in (source, target))
    counted = torch.ones_like(wrong_source)
    if x is not None:
        check_labels(x, y)
        counted = (predictions(source, x) == y) & (predictions(target, x) == y)
    fooled = wrong_source & counted
    return TransferCounts(int((fooled & wrong_target).sum()), int(fooled.sum()))


def transfer_rate(
    source: nn.Module, target: nn.Module, x_adv: Tensor, y: Tensor, x: Tensor | None = None
) -> float:
    """Share of the samples fooling `source` that fool `target` too: P(F_j(x') ≠ y | F_i(x') ≠ y).

    x_adv: (N, C, H, W), crafted on `source`;  y: (N,) class indices.
    x: the clean images. When given, only images that both models classify correctly before the attack count;
    the printed definition, without x, also counts what either model gets wrong by itself.
    Returns a float in [0, 1], or nan when nothing fools `source`.
    Raises ValueError unless there is one label for each image of x_adv and of x.
    Paper: "Defining Transferability". Used from chapter 1 on.
    """
    return transfer_counts(source, target, x_adv, y, x).rate


class TransferMatrix(NamedTuple):
    """Transfer among K models: row i holds what attacks crafted on model i do to model j.

    rates, low, high: (K, K), the rate and its 95 % Wilson interval over images; nan where nothing fools i.
    both_fooled: (K, K) and source_fooled: (K, K), the counts. The diagonal is 1, where
    anything fools i.
    """

    rates: Tensor
    low: Tensor
    high: Tensor
    both_fooled: Tensor
    source_fooled: Tensor


def transfer_matrix(
    models: Sequence[nn.Module], x_adv: Sequence[Tensor], y: Tensor, x: Tensor | None = None
) -> TransferMatrix:
    """All pairwise transfer rates: x_adv[i] (N, C, H, W) was crafted on models[i]; y: (N,).

    x, the clean images, has the meaning it has in `transfer_rate`.
    Raises ValueError unless there is one x_adv for each model and one label for each image.
    """
    if len(models) != len(x_adv):
        raise ValueError(f"one x_adv for each model: got {len(models)} models, {len(x_adv)} x_adv")
    for images in x_adv if x is None else (*x_adv, x):
        check_labels(images, y)
    k = len(models)
    wrong = torch.stack([torch.stack([predictions(m, adv) != y for m in models]) for adv in x_adv])
    if x is None:
        right = torch.ones(k, len(y), dtype=torch.bool, device=y.device)
    else:
        right = torch.stack([predictions(m, x) == y for m in models])  # (K, N)
    source = wrong[range(k), range(k)]  # (K, N): model i on its own images
    counted = source[:, None] & right[:, None] & right[None]  # (K, K, N)
    both, fooled = (counted & wrong).sum(-1).cpu(), counted.sum(-1).cpu()
    intervals = [
        wilson_interval(*pair)
        for pair in zip(both.flatten().tolist(), fooled.flatten().tolist(), strict=True)
    ]
    bounds = torch.tensor(intervals, device="cpu").reshape(k, k, 2)
    rates = torch.where(fooled > 0, both / fooled, math.nan)
    return TransferMatrix(rates, bounds[..., 0], bounds[..., 1], both, fooled)


# --- Intervals -----------------------------------------------------------------------------------


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion `count / total`; (nan, nan) when total is 0.

    Raises ValueError when `count` does not lie in 0 … total.
    """
    if not 0 <= count <= total:
        raise ValueError(f"count must be in 0..total, got {count} of {total}")
    if total == 0:
        return math.nan, math.nan
    from scipy import stats  # a second to import, which the process of a trial need not pay

    interval = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


class MeanInterval(NamedTuple):
    """Mean over n independent trials and half the width of its Student-t interval."""

    mean: float
    half_width: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> MeanInterval:
    """Mean over trials with its t interval; nan values are left out; half_width is nan for n = 1.

    Raises ValueError when `confidence` does not lie between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, got {confidence}")
    values = [float(v) for v in values if not math.isnan(v)]
    n = len(values)
    if n == 0:
        return MeanInterval(math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return MeanInterval(mean, math.nan, 1)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    quantile = float(special.stdtrit(n - 1, (1 + confidence) / 2))  # of Student's t
    return MeanInterval(mean, quantile * deviation / math.sqrt(n), n)

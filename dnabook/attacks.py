"""FGSM (Eq. 2) and PGD (Eq. 3) in ℓ∞ and ℓ2 balls, maximising any per-sample objective (Eq. 1).

Geometry and search are apart: a ball knows how to start, which way is steepest and how to project; `pgd`
is the only loop. An objective maps images (N, C, H, W) to losses (N,); they are summed before
differentiating, so an image's perturbation does not depend on the batch it sits in. Chapter 1.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dnabook import graphs, regression
from dnabook.autoencoders import Reconstructor
from dnabook.measures import check_labels
from dnabook.memory import keep_freed_memory
from dnabook.models import channels_last, evaluating

PerSample = Callable[[Tensor], Tensor]  # (N, C, H, W) -> (N,)


# --- Balls ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linf:
    """Perturbations of at most `epsilon` in every pixel: ‖δ‖∞ ≤ ε.

    epsilon: a float or an (N,) tensor, one for each image, in the units of the input.
    """

    epsilon: float | Tensor

    def __post_init__(self) -> None:
        _check_size("epsilon", self.epsilon)

    def size(self, x: Tensor) -> Tensor:
        """ε shaped to broadcast over x."""
        return _per_sample(self.epsilon, x)

    def random_start(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A perturbation drawn uniformly from the ball."""
        return self.size(x) * (2 * _draw(torch.rand, x.shape, x, generator) - 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit step that raises the loss most: the gradient's signs; 0 where it is 0."""
        return gradient.sign()

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation in the ball."""
        size = self.size(delta)
        return torch.minimum(torch.maximum(delta, -size), size)


@dataclass(frozen=True, eq=False)
class L2:
    """Perturbations of Euclidean length at most `radius` an image: ‖δ‖₂ ≤ r.

    radius: a float or an (N,) tensor. `L2(l2_radius(epsilon, x))` gives the paper's √D·ε.
    """

    radius: float | Tensor

    def __post_init__(self) -> None:
        _check_size("radius", self.radius)

    def size(self, x: Tensor) -> Tensor:
        """The radius shaped to broadcast over x."""
        return _per_sample(self.radius, x)

    def random_start(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A perturbation drawn uniformly from the ball: a uniform direction, a length r·u^(1/D)."""
        direction = self.steepest(_draw(torch.randn, x.shape, x, generator))
        u = _draw(torch.rand, (len(x),), x, generator)
        return self.size(x) * _per_sample(u ** (1 / x.shape[1:].numel()), x) * direction

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit step that raises the loss most: the gradient over its own image's norm; 0 stays 0."""
        return _unit(gradient, 2)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation in the ball."""
        norms = _norms(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * (self.size(delta) / norms).clamp_max(1)


Ball = Linf | L2  # a third is another frozen dataclass with these four methods


def l2_radius(epsilon: float, x: Tensor) -> float:
    """The paper's ℓ2 radius for an ℓ∞ ε: √D · ε with D pixels an image; 28ε on MNIST, 55.4ε on CIFAR-10.

    It is the length of a perturbation that changes every pixel by ε.
    """
    return math.sqrt(x[0].numel()) * epsilon


# --- Objectives ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OfModel:
    """What per-sample losses of one model share: attacks put it in eval mode while they use it."""

    model: nn.Module

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return (self.model,)


@dataclass(frozen=True, eq=False)
class ModelObjective(OfModel):
    """Plus or minus the cross-entropy of a classifier with labels (N,)."""

    labels: Tensor
    sign: int

    def __call__(self, x: Tensor) -> Tensor:
        check_labels(x, self.labels)
        logits = self.model(x)
        if logits.shape[-1] < 2:
            raise ValueError(f"cross-entropy needs logits of two classes or more, got {tuple(logits.shape)}")
        return self.sign * cross_entropy(logits, self.labels, reduction="none")


def untargeted(model: nn.Module, y: Tensor) -> ModelObjective:
    """Cross-entropy of each image with its true class y (N,): raising it drives the model off y.

    In the model's own type, as elsewhere: where float32 logits lie more than 15 apart, the gradient knows
    nothing of the true class, and from about 100 on there is none. Give such a model, and x, in float64.
    Raises ValueError on a negative class, which cross-entropy would pass over in silence.
    """
    _check_classes(y)
    return ModelObjective(model, y, 1)


def targeted(model: nn.Module, y: Tensor) -> ModelObjective:
    """Minus the cross-entropy with a wanted class y (N,): raising it drives the model towards y.

    Raises ValueError on a negative class.
    """
    _check_classes(y)
    return ModelObjective(model, y, -1)


def _check_classes(y: Tensor) -> None:
    if not graphs.recording(y) and y.numel() and y.min() < 0:
        raise ValueError(f"classes are 0 or more, got {int(y.min())}")


PATH_VARIANTS = ("corrected", "released", "printed")


@dataclass(frozen=True, eq=False)
class PathObjective(OfModel):
    """A loss of all paths of a reconstructor with labels (N,); `paths` describes the variants."""

    labels: Tensor
    variant: str
    batch: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        check_labels(x, self.labels)
        logits = _of_paths(self.model(x))
        labels = self.labels[:, None].expand(logits.shape[:2])
        # In float32 the loss of a path that is sure is exactly 0, and so is the gradient of its square.
        logits = regression.double(logits)
        losses = cross_entropy(logits.transpose(1, 2), labels.to(logits.device), reduction="none")  # (N, P)
        if losses.shape[1] == 1:
            return losses.squeeze(1)
        if self.variant == "printed":
            return losses.square().sum(1)
        if self.variant == "released":
            parts = losses.split(self.batch or len(losses))
            return torch.cat([(part * part.detach().mean(0)).sum(1) for part in parts])
        return losses.amin(1)


def paths(
    reconstructor: Reconstructor, y: Tensor, variant: str = "corrected", *, batch: int | None = None
) -> PathObjective:
    """A loss to raise so that every path of an autoencoder is read wrongly (Eqs. 10 and 11).

    y: the true classes (N,). With one path every variant is its cross-entropy, Eq. 11. Losses are taken in
    float64, or images that are read with certainty would have no gradient under "printed".
    variant   "printed", Eq. 10: CE1² + CE2², image by image. Raising it pays most on the path that is
              already wrong, which helps the other one survive.
              "released": (mean CE1)² + (mean CE2)² over the batch, whose gradient weighs the paths by their
              mean losses. The only objective here for which an image's attack depends on its batch.
              "corrected": min(CE1, CE2), the path that still resists: an attack made for a reader who
              counts an image as saved when either path is right.
    batch     of "released": how many images make one, so that many can be attacked at once; None: all.
    Raises ValueError on an unknown variant and on a negative class.
    """
    if variant not in PATH_VARIANTS:
        raise ValueError(f"variant is one of {', '.join(PATH_VARIANTS)}; got {variant!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    _check_classes(y)
    return PathObjective(reconstructor, y, variant, batch)


def _of_paths(logits: Tensor) -> Tensor:
    if logits.dim() != 3:
        raise ValueError(
            f"a reconstructor gives logits (N, paths, classes), got {tuple(logits.shape)}; for a classifier "
            "there is `untargeted`"
        )
    return logits


@dataclass(frozen=True, eq=False)
class UserObjective(OfModel):
    """A loss aimed at a reader who has the paths' answers and no label: `mean_probability`, `consensus`."""

    labels: Tensor
    agreed: bool

    def __call__(self, x: Tensor) -> Tensor:
        check_labels(x, self.labels)
        logs, labels = _of_paths(self.model(x)).log_softmax(2), self.labels[:, None]  # (N, P, 10), (N, 1)
        if self.agreed:
            return logs.amin(1).scatter(1, labels, -torch.inf).amax(1)
        return -logs.logsumexp(1).gather(1, labels).squeeze(1)


def mean_probability(reconstructor: Reconstructor, y: Tensor) -> UserObjective:
    """Minus the log of the probability that all paths together give the true class (N,), up to a constant.

    Raising it misleads a reader who averages the paths' probabilities. Raises ValueError on a negative class.
    """
    _check_classes(y)
    return UserObjective(reconstructor, y, agreed=False)


def consensus(reconstructor: Reconstructor, y: Tensor) -> UserObjective:
    """max over wrong classes k of min over paths i of log pᵢ(k): how far all are led to one wrong class.

    Raising it misleads a reader who distrusts an image on which the paths differ. y: the true classes (N,).
    Raises ValueError on a negative class.
    """
    _check_classes(y)
    return UserObjective(reconstructor, y, agreed=True)


# --- Attacks -------------------------------------------------------------------------------------


def fgsm(objective: PerSample, x: Tensor, ball: Ball, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """One steepest step to the ball's surface, clipped to the bounds: x + ε sgn(∇ₓJ) in ℓ∞ (Eq. 2).

    In ℓ2 the step is r ∇ₓJ/‖∇ₓJ‖₂, each image by its own norm. Arguments, result and errors as in `pgd`.
    """
    _check_ball(ball)
    whole = ball.size(x).flatten().expand(len(x))
    return pgd(objective, x, ball, steps=1, step_size=whole, random_start=False, bounds=bounds)


def pgd(
    objective: PerSample,
    x: Tensor,
    ball: Ball,
    *,
    steps: int = 40,
    step_size: float | Tensor | None = None,
    random_start: bool = True,
    restarts: int = 1,
    momentum: float = 0.0,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    box_first: bool = False,
    bfloat16: bool = False,
    cuda_graph: bool = False,
) -> Tensor:
    """Images in the ball around x that raise the objective, by projected gradient ascent (Eq. 3).

    In three lines:
    `objective = untargeted(model, y)`,
    `x_adv = pgd(objective, x, Linf(0.1))`,
    `fooled = measures.predictions(model, x_adv) != y`.

    objective     maps (N, C, H, W) to losses (N,): `untargeted`, `targeted`, `paths`, or any function. If it
                  has `.models`, as those three have, they run in eval mode meanwhile. A plain function is
                  called as it is: a model in training mode is attacked in that mode, and every step moves
                  its BatchNorm statistics.
    x             (N, C, H, W), floating point, within `bounds`. It is not changed.
    ball          `Linf(epsilon)` or `L2(radius)`, in the units of x.
    step_size     length of a step in the ball's norm; None: 2.5 × the ball's size / steps.
    random_start  begins at a uniform point of the ball, else at x; `start` gives the first images itself.
    restarts      independent random starts; each image keeps its highest final loss.
    momentum      μ of MI-FGSM: gradients, each divided by its ℓ1 norm, are accumulated with decay μ.
    generator     makes the random starts repeatable; its device may differ from x's.
    box_first     clips to the bounds before projecting on the ball, as ART does; default: after.
    bfloat16      takes the gradients through convolutions and matrix products in bfloat16 (autocast). Images,
                  steps and the choice between restarts stay in x's type, so the ball and the bounds hold as
                  ever; pixels whose gradient is near 0 may go the other way. Worth it where
                  `training.has_bfloat16(device)`, much slower elsewhere. Not for float64 images.
    cuda_graph    on a GPU, records the third step and replays it: several times as fast on small networks,
                  for an objective that asks the GPU for no number (`graphs.Replay`). Elsewhere nothing
                  changes.

    Returns (N, C, H, W), detached, in the ball and in the bounds. A ball of size 0 returns x; an image whose
    gradient is 0 is left where it is. No gradient is left on x, on the parameters or on `start`.
    On a processor the models' convolutions have their channels last meanwhile (`models.channels_last`); on a
    Linux processor freed memory then stays with the process (`memory.keep_freed_memory`).
    Raises ValueError on steps or restarts below 1, on x outside the bounds, on restarts without a random
    start, and on an objective that does not return (N,); TypeError on a ball that is a bare number;
    FloatingPointError, at the end, when a gradient was nan: its sign is 0, so a broken model, which no step
    moves, would look like a robust one.
    """
    _check_images(x, bounds)
    _check_ball(ball)
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
    if restarts > 1 and (not random_start or start is not None):
        raise ValueError("restarts repeat the same search unless random_start is True and start is None")
    if start is not None and start.shape != x.shape:
        raise ValueError(f"start needs x's shape {tuple(x.shape)}, got {tuple(start.shape)}")
    if step_size is not None:
        _check_size("step_size", step_size)
    if bfloat16 and x.dtype == torch.float64:
        raise ValueError("bfloat16=True is for float32 images: of float64 ones all stays in float64")
    keep_freed_memory(x.device)
    x = x.detach()
    sizes = {name: value.to(x) for name, value in vars(ball).items() if isinstance(value, Tensor)}
    ball = replace(ball, **sizes)  # brought to x once, not at every step
    step = 2.5 * ball.size(x) / steps if step_size is None else _per_sample(step_size, x)
    keep_in = _keep_box_first if box_first else _keep_ball_first

    def advance(x_adv: Tensor, broken: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradient = _gradient(objective, x_adv, bfloat16)
        broken = broken | gradient.isnan().any()
        if momentum:
            velocity = gradient = momentum * velocity + _unit(gradient, 1)
        return keep_in(x, x_adv + step * ball.steepest(gradient), ball, bounds), broken, velocity

    advance = graphs.Replay(advance) if cuda_graph and x.is_cuda else advance
    best, best_loss = x, x.new_full((len(x),), -math.inf)
    broken = torch.zeros((), dtype=torch.bool, device=x.device)
    with _attacked(objective) as call:
        for _ in range(restarts):
            x_adv = x if start is None else start.detach().to(x)
            if random_start and start is None:
                x_adv = x + ball.random_start(x, generator)
            x_adv, velocity = keep_in(x, x_adv, ball, bounds), torch.zeros_like(x)
            for _ in range(steps):
                x_adv, broken, velocity = call(advance, x_adv, broken, velocity)
            if restarts == 1:
                best = x_adv.clone() if isinstance(advance, graphs.Replay) else x_adv  # it is overwritten
                break
            with torch.no_grad():
                loss = objective(x_adv)
            better = ~(loss <= best_loss)  # a loss that is nan does not leave x as it was
            best = torch.where(_per_sample(better, x).bool(), x_adv, best)
            best_loss = torch.where(better, loss, best_loss)
    _check_gradients(broken)
    return best


def craft(
    attack: Callable[[PerSample, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    objective: Callable[[nn.Module, Tensor], PerSample] = untargeted,
    chunk: int | None = None,
) -> Tensor:
    """Adversarial images for all of x (N, C, H, W), a chunk at a time.

    attack: any `(objective, x) -> x_adv`, for example `partial(pgd, ball=Linf(0.1))`.
    objective: makes the loss of a chunk from the model and the chunk's labels: `untargeted`, `paths`, ….
    The chunk bounds the memory. None: 250 on a processor, which is about as fast there as one large batch,
    and 2,000 elsewhere, so that a GPU has enough to do between two launches. The attack sees one chunk at a
    time, so sizes of its own for each image, (N,), do not go with it.
    Raises ValueError unless y is (N,), the chunk at least 1, and the objective content with all labels.
    """
    check_labels(x, y)
    if chunk is None:
        chunk = 250 if x.device.type == "cpu" else 2000
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    objective(model, y)  # a label that it refuses is told before any work
    parts = zip(x.split(chunk), y.split(chunk), strict=True)
    return torch.cat([attack(objective(model, part_y), part_x) for part_x, part_y in parts])


def random_signs(
    x: Tensor, epsilon: float | Tensor, *, bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Images with every pixel moved by ε up or down at random, then clipped: harm that needs no model.

    The yardstick beside an attack in the same ℓ∞ ball. x: (N, C, H, W).  epsilon: a float or an (N,) tensor.
    Raises ValueError as `pgd` does on x and ε.
    """
    _check_images(x, bounds)
    _check_size("epsilon", epsilon)
    device = x.device if generator is None else generator.device
    signs = torch.randint(2, x.shape, generator=generator, device=device).to(x) * 2 - 1
    return (x.detach() + _per_sample(epsilon, x) * signs).clamp(*bounds)


# --- The released ℓ2 attacks ---------------------------------------------------------------------


def released_fgsm_l2(
    objective: PerSample, x: Tensor, radius: float, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """The authors' FGSM in ℓ2, kept to measure what it misses: x + r ∇J/‖∇J‖, the norm of the *whole batch*.

    Each image moves by about r/√N instead of r. Arguments and errors as in `fgsm`.
    """
    _check_images(x, bounds)
    _check_size("radius", radius)
    x = x.detach()
    with _attacked(objective) as call:
        gradient = call(_gradient, objective, x)
    _check_gradients(gradient.isnan().any())
    return (
        x + _per_sample(radius, x) * gradient / gradient.norm().clamp_min(torch.finfo(x.dtype).tiny)
    ).clamp(*bounds)


def released_pgd_l2(
    objective: PerSample,
    x: Tensor,
    radius: float,
    *,
    steps: int = 40,
    step_size: float = 3 / 255,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """The authors' PGD in ℓ2, kept to measure what it misses: it ends where its random start put it.

    The start is uniform in ±r a *pixel*, far outside the ball, and the first gradient is taken there; steps
    follow the raw gradient of the *mean* loss, unnormalised, so they hardly move. Errors as in `pgd`.
    """
    _check_images(x, bounds)
    _check_size("step_size", step_size)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    x, ball = x.detach(), _MeanGradient(radius)
    noise = (x + _per_sample(radius, x) * (2 * _draw(torch.rand, x.shape, x, generator) - 1)).clamp(*bounds)
    with _attacked(objective) as call:
        first = noise + step_size * ball.steepest(call(_gradient, objective, noise))
    start = _keep_box_first(x, first, ball, bounds)
    if steps == 1:
        return start
    return pgd(objective, x, ball, steps=steps - 1, step_size=step_size, random_start=False, bounds=bounds,
               start=start, box_first=True)  # fmt: skip


class _MeanGradient(L2):
    """An ℓ2 ball whose step is the gradient of the mean loss, as it comes."""

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient / len(gradient)


# --- Details -------------------------------------------------------------------------------------


@contextmanager
def _attacked(objective: PerSample) -> Iterator[Callable]:
    """Within the block the objective's models are in eval mode, and their parameters ask for no gradient and
    lie in memory as is fast. Yields what `channels_last` does."""
    models = getattr(objective, "models", ())
    learning = [p for model in models for p in model.parameters() if p.requires_grad]
    with evaluating(*models), channels_last(*models) as call:
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield call
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)


def _gradient(objective: PerSample, x: Tensor, bfloat16: bool = False) -> Tensor:
    """∇ of the summed losses, (N, C, H, W): each image's own gradient, whatever its neighbours."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        with torch.autocast(x.device.type, torch.bfloat16) if bfloat16 else nullcontext():
            losses = objective(x)
        if losses.shape != (len(x),):
            raise ValueError(f"an objective returns losses ({len(x)},), got {tuple(losses.shape)}")
        return torch.autograd.grad(losses.sum(), x)[0]


def _check_gradients(broken: Tensor) -> None:
    """Raises when one of the gradients was nan: one question to a GPU, at the end of an attack."""
    if not graphs.recording(broken) and broken:
        raise FloatingPointError(
            "a gradient of the objective was nan; are the model's parameters and its logits finite?"
        )


def _keep_ball_first(x: Tensor, x_adv: Tensor, ball: Ball, bounds: tuple[float, float]) -> Tensor:
    return (x + ball.project(x_adv - x)).clamp(*bounds)  # clipping moves towards x: still in the ball


def _keep_box_first(x: Tensor, x_adv: Tensor, ball: Ball, bounds: tuple[float, float]) -> Tensor:
    x_adv = x + ball.project(x_adv.clamp(*bounds) - x)  # shrinking moves towards x: still in the box
    return x_adv.clamp(*bounds)  # but for rounding


def _unit(gradient: Tensor, p: int) -> Tensor:
    """Each image's gradient over its own ℓp norm; 0 stays 0.

    Divided by its largest entry first, so that no norm is too large or too small for its type. Where entries
    are infinite, these alone count.
    """
    flat, tiny = gradient.flatten(1), torch.finfo(gradient.dtype).tiny
    infinite = flat.isinf()
    flat = torch.where(infinite.any(1, keepdim=True), infinite * flat.sign(), flat)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(tiny)
    wide = torch.promote_types(gradient.dtype, torch.float32)
    norms = torch.linalg.vector_norm(flat, p, dim=1, keepdim=True, dtype=wide).clamp_min(tiny)
    return (flat / norms).to(gradient.dtype).view_as(gradient)


def _norms(delta: Tensor) -> Tensor:
    """Euclidean length of each image, (N, 1, …): scaled first, so that tiny ones do not underflow."""
    flat = delta.flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(delta.dtype).tiny)
    return _per_sample((largest * (flat / largest).norm(dim=1, keepdim=True)).squeeze(1), delta)


def _per_sample(value: float | Tensor, x: Tensor) -> Tensor:
    """A number or an (N,) tensor as (1 or N, 1, …), ready to broadcast over x."""
    value = value.to(x) if isinstance(value, Tensor) else x.new_full((), value)  # filled: no copy to a GPU
    if value.dim() > 1 or (value.dim() == 1 and len(value) != len(x)):
        raise ValueError(f"expected a number or a tensor ({len(x)},), got {tuple(value.shape)}")
    return value.reshape(-1, *[1] * (x.dim() - 1))


def _draw(distribution, shape, x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return distribution(tuple(shape), generator=generator, device=device, dtype=x.dtype).to(x.device)


def _check_size(name: str, value: float | Tensor) -> None:
    if not isinstance(value, Tensor | numbers.Real):  # of numpy's types, numbers are
        raise TypeError(f"{name} is a number or a tensor (N,), got {type(value).__name__}")
    value = value if isinstance(value, Tensor) else torch.tensor(float(value), device="cpu")
    if not graphs.recording(value) and not (value.isfinite() & (value >= 0)).all():
        raise ValueError(f"{name} must be finite and at least 0, got {value}")


def _check_ball(ball: Ball) -> None:
    if not hasattr(ball, "project"):
        raise TypeError(f"ball is Linf(epsilon) or L2(radius), got {ball!r}")


def _check_images(x: Tensor, bounds: tuple[float, float]) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"images are floating point (N, …), got {x.dtype} {tuple(x.shape)}")
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "an attack takes gradients, which torch.inference_mode forbids; torch.no_grad does not"
        )
    if not len(x) or graphs.recording(x):
        return
    if any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in bounds) or not bounds[0] < bounds[1]:
        raise ValueError(
            f"bounds are two numbers, the lower one first, got {bounds}; a model of normalised images takes "
            "pixels in [0, 1] with the normalisation as its first layer"
        )
    low, high = x.aminmax()
    if not (low >= bounds[0]) & (high <= bounds[1]):  # one question to a GPU
        raise ValueError(
            f"images lie in [{low.item()}, {high.item()}], outside the bounds {bounds}: clamp what is only "
            "rounding, rescale what comes in another range, or give `bounds` and sizes in their units"
        )

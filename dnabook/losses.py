"""The correlation loss (Algorithm 1, Eq. 9) and the training objectives built from it (Eqs. 4, 5 and 8).

An objective maps a batch to named scalar terms; "loss" is the one that `training.fit` minimises, the
others are logged. `objective.models` are the modules it trains. Chapters 2 and 4 walk through this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from dnabook import measures, regression
from dnabook.autoencoders import NeckedAutoencoder
from dnabook.memory import keep_freed_memory
from dnabook.models import evaluating
from dnabook.products import linear

Terms = dict[str, Tensor]


VARIANTS = ("corrected", "released", "printed")


def correlation_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    epsilon: float = 1e-3,
    eta: float = 5e-4,
    variant: str = "corrected",
) -> Tensor:
    """log(SS_total + ε) − log(SS_res + ε): how well features predict each other linearly, as a loss (Eq. 9).

    z1: (N, M1) or (N, C, H, W);  z2: likewise with the same N ≥ 2.  Returns a scalar with gradients to both.
    SS_res is what the least-squares map of [z1, 1] leaves of z2; up to ε the loss is −log(1 − R²), so it is
    0 when z1 says nothing linear about z2 and grows without bound as the prediction becomes exact.

    epsilon   the stability constant of the logarithms.
    eta       a column of z1 is dropped when its diagonal entry of R in z1 = QR is below eta × the largest.
    variant   "corrected": the mean of both directions, every unit first divided by its standard deviation, a
              dead unit counted as explained, ε relative to SS_total: constant features and one inflated unit
              gain nothing, and what only blinds one direction gains half. `FLOOR`, 1 % of the units' mean
              variance, is added to each unit's own, so units of far less than that count as explained too:
              a value compares only with those of features whose units vary alike. (50 independent units, one
              of them scaled by 100, read about 1, not 0.)
              "released": from z1 to z2 only, SS_total about the column means, ε absolute, as in the authors'
              code, except that the largest diagonal entry is the largest in magnitude (theirs: signed).
              "printed": Algorithm 1 as nearly as it runs: SS_total about zero and ‖·‖₂ read as the
              spectral norm of a matrix; its (I − (Z'Z)⁻¹Z') has shapes that cannot be subtracted, so the
              projection is the least-squares one. Each norm is a singular value decomposition, for which a
              GPU is waited for at every step.

    N ≤ M1 lets z1 fit z2 exactly: SS_res is then 0 and the loss is near its ceiling, log(SS_total/ε + 1), or
    log(1/ε + 1) when corrected. Constant, dead or duplicated columns of z1 are dropped. A constant z2 gives
    0 when released, and the ceiling when corrected, where a dead unit counts as explained: as the other
    direction is then near 0, the mean of both is half the ceiling, 3.5, and all of it when both are constant.
    With ε above 0 never nan, nor are the gradients, as long as sums of squares stay finite: in float32 for
    features up to about 1e15. Computed in the wider type of both inputs, at least float32.
    The gradient holds the regression weights fixed, which is exact because they are optimal. Second
    derivatives are therefore not those of the loss; on a processor asking for them raises a RuntimeError,
    but for "printed".
    On a Linux processor freed memory then stays with the process (`memory.keep_freed_memory`).
    Raises ValueError on mismatched shapes, an unknown variant, a negative ε, and an η outside [0, 1).
    """
    z1, z2 = regression.matrices(z1, z2)
    _check_variant(variant)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    if not 0 <= eta < 1:
        raise ValueError(f"eta must be at least 0 and below 1, got {eta}")
    keep_freed_memory(z1.device)
    kind = torch.promote_types(torch.promote_types(z1.dtype, z2.dtype), torch.float32)
    with torch.autocast(z1.device.type, enabled=False):  # sums of squares need float32
        return _correlation_loss(z1.to(kind), z2.to(kind), epsilon, eta, variant)


def _correlation_loss(z1: Tensor, z2: Tensor, epsilon: float, eta: float, variant: str) -> Tensor:
    if variant == "corrected":
        z1, z2 = _standardised(z1), _standardised(z2)
        unexplained = zip(regression.residual_sums(z1, z2, eta=eta, both=True), (z2, z1), strict=True)
        return sum(_share(left / z.numel(), epsilon) for left, z in unexplained) / 2
    z2_centred = z2 - z2.mean(0)
    if variant == "released":
        ss_total, (ss_res,) = z2_centred.square().sum(), regression.residual_sums(z1, z2, eta=eta)
    else:
        weight = regression.fit(z1, z2, eta=eta).weight  # W of Eq. 6, (M1, M2); no gradient flows through it
        residual = z2_centred - linear(z1 - z1.mean(0), weight.T)  # (N, M2)
        ss_res, ss_total = (torch.linalg.matrix_norm(z, 2).square() for z in (residual, z2))
    return torch.log(ss_total + epsilon) - torch.log(ss_res + epsilon)


FLOOR = 1e-2  # of the mean variance: a unit below it is not blown up to full size


def _standardised(z: Tensor) -> Tensor:
    """Every unit centred and divided by its standard deviation over the batch; a dead unit stays 0."""
    centred = z - z.mean(0)
    variance = centred.square().mean(0)  # (M,)
    kind = torch.finfo(z.dtype)
    rounding = (1000 * kind.eps) ** 2 * z.detach().square().mean()  # what centring a constant may leave
    floor = torch.maximum(FLOOR * variance.mean(), rounding).clamp_min(kind.tiny**0.5)  # its rsqrt³ is finite
    return centred * torch.rsqrt(variance + floor)


def _share(unexplained: Tensor, epsilon: float) -> Tensor:
    """log(1 + ε) − log(1 − R² + ε), R² a mean over standardised units, of which a dead one is explained."""
    return math.log1p(epsilon) - torch.log(unexplained + epsilon)


def _check_variant(variant: str, known: tuple[str, ...] = VARIANTS) -> None:
    if variant not in known:
        raise ValueError(f"variant is one of {', '.join(known)}; got {variant!r}")


def _check_split(*models: nn.Module, parts: tuple[str, ...] = ("features", "head")) -> None:
    for model in models:
        if lacking := [name for name in parts if not callable(getattr(model, name, None))]:
            raise ValueError(
                f"a {type(model).__name__} has no {' and no '.join(lacking)}: features(x) must give what is "
                "compared and head(features) the logits, as models.Classifier does from its body and tail"
            )


# --- Objectives ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A batch loss together with the models it trains: calling it with (x, y) gives its named terms."""

    models: tuple[nn.Module, ...]
    terms: Callable[[Tensor, Tensor], Terms]

    def __call__(self, x: Tensor, y: Tensor) -> Terms:
        return self.terms(x, y)

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the models, in order; those that two of them share once."""
        return list(dict.fromkeys(p for model in self.models for p in model.parameters()))


def classification(*models: nn.Module) -> Objective:
    """Cross-entropy of each model, summed: models trained side by side without any coupling.

    Raises ValueError where there is no model.
    """
    if not models:
        raise ValueError("there is no model to train")

    def terms(x: Tensor, y: Tensor) -> Terms:
        each = [cross_entropy(model(x), y) for model in models]
        return _named(torch.stack(each).sum(), each)

    return Objective(models, terms)


def parametric_distance(
    model1: nn.Module, model2: nn.Module, *, target_distance: float, weight: float = 1e-5
) -> Objective:
    """Eq. 5: CE1 + CE2 + λ (D_t − ‖θ1 − θ2‖²)².

    target_distance: D_t, a squared distance (1000 to 3000 in the paper).  weight: λ.
    Raises ValueError unless both have parameters of the same shapes.
    """
    measures.parameter_distance(model1, model2)  # raises

    def terms(x: Tensor, y: Tensor) -> Terms:
        each = [cross_entropy(model(x), y) for model in (model1, model2)]
        distance = measures.parameter_distance(model1, model2)
        loss = each[0] + each[1] + weight * (target_distance - distance).square()
        return _named(loss, each, distance=distance)

    return Objective((model1, model2), terms)


def decorrelation(
    model1: nn.Module,
    model2: nn.Module,
    *,
    correlation_weight: float = 0.05,
    variant: str = "corrected",
) -> Objective:
    """Eq. 8: cross-entropies of a pair plus λ L_R of their features.

    Models are split in two, as `models.Classifier` is: `features(x)` gives those that are compared, and
    `head(features)` the logits. Raises ValueError for one that is not, and on an unknown variant.
    correlation_weight: λ. At 0 the correlation loss is neither computed nor logged.
    variant   "corrected": CE1 + CE2 + λ L_R, with the corrected correlation loss.
              "released": √(CE1² + CE2²) + λ L_R, as in the authors' code: at equal cross-entropies it weighs
              them by 0.71, so the same λ counts for more. L_R looks from model 1 to model 2.
              "printed": CE1 + CE2 + λ L_R, with Algorithm 1 as printed.
              "summed": CE1 + CE2 + λ L_R, with the released correlation loss: it tells what the root does.
    """
    _check_variant(variant, (*VARIANTS, "summed"))
    _check_split(model1, model2)
    looks = "released" if variant == "summed" else variant

    def terms(x: Tensor, y: Tensor) -> Terms:
        z1, z2 = model1.features(x), model2.features(x)
        each = [cross_entropy(model1.head(z1), y), cross_entropy(model2.head(z2), y)]
        pair = torch.stack(each)
        loss = torch.linalg.vector_norm(pair) if variant == "released" else pair.sum()
        if not correlation_weight:
            return _named(loss, each)
        correlation = correlation_loss(z1, z2, variant=looks)
        return _named(loss + correlation_weight * correlation, each, correlation=correlation)

    return Objective((model1, model2), terms)


def decorrelation_from(
    surrogate: nn.Module, model: nn.Module, *, correlation_weight: float = 0.05, variant: str = "corrected"
) -> Objective:
    """Cross-entropy of a model plus λ L_R between a fixed surrogate's features and its own.

    The paper's discussion proposes it as a defence, and tests none. Only `model` is trained: the surrogate is
    called in eval mode, and no gradient reaches it.
    correlation_weight: λ. At 0 the surrogate is not called and no correlation loss is computed or logged.
    variant: of `correlation_loss`; "released" and "printed" look from the surrogate to the model.
    Raises ValueError on an unknown variant, for a model that is not split as `decorrelation` needs it, for a
    surrogate without `features`, and when both are one model.
    """
    _check_variant(variant)
    _check_split(model)
    _check_split(surrogate, parts=("features",))
    if surrogate is model:
        raise ValueError("a model cannot be its own surrogate; give a copy that stays as it is")

    def terms(x: Tensor, y: Tensor) -> Terms:
        z = model.features(x)
        error = cross_entropy(model.head(z), y)
        if not correlation_weight:
            return _named(error, [error])
        with torch.no_grad(), evaluating(surrogate):
            z_fixed = surrogate.features(x)
        correlation = correlation_loss(z_fixed, z, variant=variant)
        return _named(error + correlation_weight * correlation, [error], correlation=correlation)

    return Objective((model,), terms)


def alignment(
    model1: nn.Module,
    model2: nn.Module,
    *,
    target_cosine: float = 0.0,
    alignment_weight: float = 1.0,
    correlation_weight: float = 0.0,
    images: int = 250,
) -> Objective:
    """Cross-entropies of a pair plus λ_G · mean (cos(∇ₓCE1, ∇ₓCE2) − c)² and λ L_R. Not a loss of the paper.

    As Eq. 5 holds the models' distance at D_t, it holds the cosine of their input gradients at c. The mean is
    over the first `images` of a batch: derivatives of gradients cost several times a plain step. Gradients
    are those of `measures.loss_directions` and of `measures.gradient_cosine`, of models in eval mode, where
    no image has a part in another's. Kariyappa & Qureshi (2019) train ensembles with the cosines themselves,
    which opposite gradients lower further.
    target_cosine: c in [−1, 1]; 0 turns the gradients to right angles.  alignment_weight: λ_G.
    correlation_weight: λ of the corrected correlation loss between both models' features.
    A weight of 0 leaves its term out, which is then neither computed nor logged.
    Raises ValueError on a cosine outside [−1, 1], on fewer than one image, and for models that are not split
    as `decorrelation` needs them.
    """
    _check_split(model1, model2)
    if not -1 <= target_cosine <= 1:
        raise ValueError(f"a cosine lies in [-1, 1], got {target_cosine}")
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    models = (model1, model2)

    def terms(x: Tensor, y: Tensor) -> Terms:
        z = [model.features(x) for model in models]
        each = [cross_entropy(model.head(features), y) for model, features in zip(models, z, strict=True)]
        loss, others = torch.stack(each).sum(), {}
        if correlation_weight:
            others["correlation"] = correlation_loss(*z)
            loss = loss + correlation_weight * others["correlation"]
        if alignment_weight:
            few, labels = x[:images].detach().requires_grad_(), y[:images]
            with evaluating(*models), sdpa_kernel(SDPBackend.MATH):  # the attention with second derivatives
                logits = [model(few) for model in models]
            directions = [measures.loss_directions(each, few, labels, create_graph=True) for each in logits]
            others["alignment"] = (torch.cosine_similarity(*directions) - target_cosine).square().mean()
            loss = loss + alignment_weight * others["alignment"]
        return _named(loss, each, **others)

    return Objective(models, terms)


def reconstruction(
    autoencoder: NeckedAutoencoder, *, correlation_weight: float = 0.05, variant: str = "corrected"
) -> Objective:
    """Eq. 4: the paths' mean squared errors and λ L_R of their codes; with one neck the plain MSE.

    correlation_weight: λ. At 0, and with one neck, the correlation loss is neither computed nor logged.
    Errors are in the units that the autoencoder works in, [−1, 1] for CIFAR-10, so λ weighs as in the paper.
    With more than two necks L_R is the mean over all pairs.
    variant   "corrected" and "released": √(MSE1² + MSE2²) + λ L_R, each with its own correlation loss.
              "printed": MSE1² + MSE2² + λ L_R: at the errors reached, about 0.02, the squares all but vanish
              beside λ L_R, so this is another optimum.
    """
    _check_variant(variant)

    def terms(x: Tensor, y: Tensor) -> Terms:
        codes = autoencoder.encode(x)
        each = [(autoencoder.span * (image - x)).square().mean() for image in autoencoder.decode(codes)]
        named = {f"mse_{i}": mse for i, mse in enumerate(each, 1)}
        errors = torch.stack(each)
        loss = errors.square().sum() if variant == "printed" else torch.linalg.vector_norm(errors)
        if len(each) == 1:
            return {"loss": each[0], **named}
        if not correlation_weight:
            return {"loss": loss, **named}
        pairs = [correlation_loss(a, b, variant=variant) for a, b in combinations(codes, 2)]
        correlation = torch.stack(pairs).mean()
        return {"loss": loss + correlation_weight * correlation, **named, "correlation": correlation}

    return Objective((autoencoder,), terms)


def reading(classifier: nn.Module, autoencoder: NeckedAutoencoder | None = None) -> Objective:
    """Cross-entropy of a classifier on an autoencoder's reconstructions; without one, on the images.

    Only the classifier is trained. Each image of a batch goes through one path, every path reading its share,
    so the classifier sees as many images and makes as many updates whatever the number of paths. (The
    released code gives a DNA's classifier two updates a batch and the plain autoencoder's one.)
    """

    def terms(x: Tensor, y: Tensor) -> Terms:
        if autoencoder is None:
            return {"loss": cross_entropy(classifier(x), y)}
        paths = range(autoencoder.necks)
        with torch.no_grad(), evaluating(autoencoder):
            images = torch.cat([autoencoder.path(x[path :: len(paths)], path) for path in paths])
        labels = torch.cat([y[path :: len(paths)] for path in paths])
        return {"loss": cross_entropy(classifier(images), labels)}

    return Objective((classifier,), terms)


def _named(loss: Tensor, cross_entropies: list[Tensor], **others: Tensor) -> Terms:
    named = {f"cross_entropy_{i}": ce for i, ce in enumerate(cross_entropies, 1)}
    return {"loss": loss, **named, **others}

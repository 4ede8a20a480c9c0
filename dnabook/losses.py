"""The correlation loss (Algorithm 1, Eq. 9) and the training objectives built from it (Eqs. 5 and 8).

An objective maps a batch to named scalar terms; "loss" is the one that `training.fit` minimises, the
others are logged. `objective.models` are the modules it trains. Chapters 2 and 4 walk through this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dnabook import measures, regression

Terms = dict[str, Tensor]


def correlation_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    epsilon: float = 1e-3,
    eta: float = 5e-4,
    variant: str = "released",
) -> Tensor:
    """log(SS_total + ε) − log(SS_res + ε): how well z1 predicts z2 linearly, as a loss (Eq. 9, Algorithm 1).

    z1: (N, M1) or (N, C, H, W);  z2: likewise with the same N ≥ 2.  Returns a scalar with gradients to both.
    SS_res is what the least-squares map of [z1, 1] leaves of z2; up to ε the loss is −log(1 − R²), so it is
    0 when z1 says nothing linear about z2 and grows without bound as the prediction becomes exact.

    epsilon   the stability constant, absolute, as in the paper.
    eta       a column of z1 is dropped when its diagonal entry of R in z1 = QR is below eta × the largest.
    variant   "released": SS_total about the column means, sums of squares, as in the authors' code, except
              that the largest diagonal entry is the largest in magnitude (theirs is the largest signed).
              "printed": Algorithm 1 as nearly as it runs: SS_total about zero and ‖·‖₂ read as the
              spectral norm of a matrix; its (I − (Z'Z)⁻¹Z') has shapes that cannot be subtracted, so the
              projection is the least-squares one.

    N ≤ M1 lets z1 fit z2 exactly: SS_res is then 0 and the loss is near its ceiling log(SS_total/ε + 1).
    Constant, dead or duplicated columns are dropped; a constant z2 gives 0. Never nan on finite input.
    The gradient holds the regression weights fixed, which is exact because they are optimal; second
    derivatives are therefore not those of the loss.
    Raises ValueError on mismatched shapes or an unknown variant.
    """
    z1, z2 = regression.matrices(z1, z2)
    if variant not in ("released", "printed"):
        raise ValueError(f'variant is "released" or "printed", got {variant!r}')
    weight = regression.fit(z1, z2, eta=eta).weight  # W of Eq. 6, (M1, M2); no gradient flows through it
    z1_centred, z2_centred = z1 - z1.mean(0), z2 - z2.mean(0)  # centring is regressing on the ones column
    residual = z2_centred - z1_centred @ weight  # (N, M2)
    if variant == "released":
        ss_res, ss_total = residual.square().sum(), z2_centred.square().sum()
    else:
        ss_res, ss_total = (torch.linalg.matrix_norm(z, 2).square() for z in (residual, z2))
    return torch.log(ss_total + epsilon) - torch.log(ss_res + epsilon)


# --- Objectives ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A batch loss together with the models it trains: calling it with (x, y) gives its named terms."""

    models: tuple[nn.Module, ...]
    terms: Callable[[Tensor, Tensor], Terms]

    def __call__(self, x: Tensor, y: Tensor) -> Terms:
        return self.terms(x, y)

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the models, in order."""
        return [p for model in self.models for p in model.parameters()]


def classification(*models: nn.Module) -> Objective:
    """Cross-entropy of each model, summed: models trained side by side without any coupling."""

    def terms(x: Tensor, y: Tensor) -> Terms:
        each = [cross_entropy(model(x), y) for model in models]
        return _named(torch.stack(each).sum(), each)

    return Objective(models, terms)


def parametric_distance(
    model1: nn.Module, model2: nn.Module, *, target_distance: float, weight: float = 1e-5
) -> Objective:
    """Eq. 5: CE1 + CE2 + λ (D_t − ‖θ1 − θ2‖²)².

    target_distance: D_t, a squared distance (1000 to 3000 in the paper).  weight: λ.
    """

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
    variant: str = "released",
) -> Objective:
    """Eq. 8: cross-entropies of a pair plus λ L_R of their features, L_R from model 1 to model 2.

    correlation_weight: λ. At 0 the correlation loss is neither computed nor logged.
    variant   "printed": CE1 + CE2 + λ L_R, with Algorithm 1 as printed.
              "released": √(CE1² + CE2²) + λ L_R, as in the authors' code: at equal cross-entropies it weighs
              them by 0.71, so the same λ counts for more.
    """
    if variant not in ("released", "printed"):
        raise ValueError(f'variant is "released" or "printed", got {variant!r}')

    def terms(x: Tensor, y: Tensor) -> Terms:
        z1, z2 = model1.features(x), model2.features(x)
        each = [cross_entropy(model1.head(z1), y), cross_entropy(model2.head(z2), y)]
        pair = torch.stack(each)
        loss = pair.sum() if variant == "printed" else torch.linalg.vector_norm(pair)
        if not correlation_weight:
            return _named(loss, each)
        correlation = correlation_loss(z1, z2, variant=variant)
        return _named(loss + correlation_weight * correlation, each, correlation=correlation)

    return Objective((model1, model2), terms)


def _named(loss: Tensor, cross_entropies: list[Tensor], **others: Tensor) -> Terms:
    named = {f"cross_entropy_{i}": ce for i, ce in enumerate(cross_entropies, 1)}
    return {"loss": loss, **named, **others}

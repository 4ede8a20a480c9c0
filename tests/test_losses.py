"""The correlation loss against Algorithm 1 in plain numpy, its symmetries, and Eqs. 4, 5 and 8 by hand."""

import contextlib
import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dnabook import CNN, autoencoders, data, losses, measures, models, regression, training
from dnabook.losses import correlation_loss

PAPER = ("released", "printed")  # what Algorithm 1 is read as; "corrected" is ours
VARIANTS = losses.VARIANTS
released = partial(correlation_loss, variant="released")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def features(n, m, seed=0, dtype=torch.float64):
    """Features after a ReLU: non-negative, about half of them zero."""
    return draw(n, m, seed=seed).relu().to(dtype)


def algorithm_1(z1, z2, variant="released", epsilon=1e-3, eta=5e-4):
    """Algorithm 1 step by step: QR mask, column of ones, pseudo-inverse, two sums of squares, two logs.

    "corrected": the same on standardised units, sums become means, and both directions are averaged.
    """
    z1, z2 = (z.flatten(1).double().numpy() for z in (z1, z2))
    if variant == "corrected":
        z1, z2 = standardised(z1), standardised(z2)
        unexplained = [(left_over(*pair, eta) ** 2).mean() for pair in ((z1, z2), (z2, z1))]
        return np.mean([math.log(1 + epsilon) - math.log(u + epsilon) for u in unexplained])
    residual = left_over(z1, z2, eta)
    if variant == "released":
        ss_res, ss_total = np.linalg.norm(residual) ** 2, np.linalg.norm(z2 - z2.mean(0)) ** 2
    else:
        ss_res, ss_total = np.linalg.norm(residual, 2) ** 2, np.linalg.norm(z2, 2) ** 2
    return math.log(ss_total + epsilon) - math.log(ss_res + epsilon)


def left_over(z1, z2, eta):
    """What the columns of z1 that pass the mask, and a column of ones, leave of z2."""
    diagonal = np.zeros(z1.shape[1])  # N < M: R has N rows, so the columns after the N-th depend on them
    r = np.diag(np.linalg.qr(z1, mode="r"))
    diagonal[: len(r)] = np.abs(r)
    kept = diagonal > eta * diagonal.max()
    design = np.column_stack([z1[:, kept], np.ones(len(z1))])
    return z2 - design @ (np.linalg.pinv(design, rcond=1e-9) @ z2)


def standardised(z):
    """Units of variance v / (v + a hundredth of the mean variance); constant ones are exactly 0."""
    z = z - z[0]  # so that centring leaves no rounding of a constant
    variance = z.var(0)
    return (z - z.mean(0)) / np.sqrt(variance + max(0.01 * variance.mean(), 1e-200))


def algorithm_1_torch(z1, z2, variant="released", epsilon=1e-3, eta=5e-4):
    """The same through torch.linalg.pinv, so that autograd differentiates the regression itself."""
    if variant == "corrected":
        variances = [z.var(0, correction=0) for z in (z1, z2)]
        z1, z2 = (
            (z - z.mean(0)) / (v + 0.01 * v.mean()).sqrt() for z, v in zip((z1, z2), variances, strict=True)
        )
        each = [
            math.log(1 + epsilon) - torch.log((b - a @ (torch.linalg.pinv(a) @ b)).square().mean() + epsilon)
            for a, b in ((z1, z2), (z2, z1))
        ]
        return (each[0] + each[1]) / 2
    diagonal = torch.linalg.qr(z1.detach()).R.diagonal().abs()
    kept = diagonal > eta * diagonal.max()
    design = torch.cat([z1[:, kept], torch.ones_like(z1[:, :1])], 1)
    residual = z2 - design @ (torch.linalg.pinv(design) @ z2)
    if variant == "released":
        ss_res, ss_total = residual.square().sum(), (z2 - z2.mean(0)).square().sum()
    else:
        ss_res, ss_total = (torch.linalg.svdvals(z)[0] ** 2 for z in (residual, z2))
    return torch.log(ss_total + epsilon) - torch.log(ss_res + epsilon)


CEILING = math.log(1 / 1e-3 + 1)  # of the corrected loss
Z = features(60, 8)
AWKWARD = {
    "generic": Z,
    "one column": Z[:, :1],
    "two rows": Z[:2],
    "fewer rows than columns": features(12, 20),
    "as many rows as columns": features(12, 12),
    "zero columns": torch.cat([torch.zeros(60, 2).double(), Z, torch.zeros(60, 1).double()], 1),
    "constant columns": torch.cat([Z[:, :4], torch.full((60, 2), 0.7).double(), Z[:, 4:]], 1),
    "constant column first": torch.cat([torch.full((60, 1), 0.7).double(), Z], 1),
    "duplicated columns": torch.cat([Z, Z[:, :3]], 1),
    "dependent columns": torch.cat([Z, Z[:, :2] @ torch.tensor([[1.0, -2], [3, 0.5]]).double()], 1),
    "all zero": torch.zeros(60, 3).double(),
    "all constant": torch.full((60, 3), 0.7).double(),
    "negative and large": -100 * Z,
    "tiny": 1e-4 * Z,
}


# --- The correlation loss: value -----------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", AWKWARD)
def test_correlation_loss_equals_algorithm_1_on(case, variant):
    z1 = AWKWARD[case]
    z2 = features(len(z1), 5, seed=1) + 0.3 * z1[:, :1]
    expected = algorithm_1(z1, z2, variant)
    assert correlation_loss(z1, z2, variant=variant).item() == pytest.approx(expected, abs=1e-6)


@given(
    n=st.integers(2, 30), m1=st.integers(1, 12), m2=st.integers(1, 6), seed=st.integers(0, 10**6),
    variant=st.sampled_from(VARIANTS),
)  # fmt: skip
def test_correlation_loss_equals_algorithm_1_for_any_number_of_rows_and_columns(n, m1, m2, seed, variant):
    z1, z2 = draw(n, m1, seed=seed) + 0.5, features(n, m2, seed=seed + 1)
    expected = algorithm_1(z1, z2, variant)
    assert correlation_loss(z1, z2, variant=variant).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("eta", [1e-2, 1e-4])
@pytest.mark.parametrize("epsilon", [1.0, 1e-6])
def test_epsilon_and_eta_are_those_of_algorithm_1(epsilon, eta):
    z1 = features(60, 8) * torch.logspace(0, -3, 8).double()  # column norms fall from 1 to 1e-3
    z2 = features(60, 5, seed=1) + 1000 * z1[:, -1:]
    expected = algorithm_1(z1, z2, epsilon=epsilon, eta=eta)
    assert released(z1, z2, epsilon=epsilon, eta=eta).item() == pytest.approx(expected, abs=1e-6)


def test_eta_decides_whether_a_faint_informative_column_counts():
    faint = 1e-3 * draw(60, 1)
    z1, z2 = torch.cat([draw(60, 1, seed=1), faint], 1), 1000 * faint
    assert released(z1, z2, eta=1e-2) < 0.2 < 5 < released(z1, z2, eta=1e-4)


def test_released_is_minus_log_one_minus_r_squared_up_to_epsilon():
    z1, z2 = features(60, 8), features(60, 5, seed=1)
    expected = -math.log(1 - measures.r_squared(z1, z2))
    assert released(z1, z2, epsilon=0.0).item() == pytest.approx(expected, abs=1e-9)


def test_printed_counts_a_shared_mean_as_agreement_and_released_does_not():
    z1, z2 = draw(200, 3), 10 + draw(200, 3, seed=1)
    assert released(z1, z2) < 0.05
    assert correlation_loss(z1, z2, variant="printed") > 4


def test_printed_measures_the_largest_direction_only():
    z1 = draw(50, 2)
    z2 = torch.cat([100 * z1[:, :1], draw(50, 1, seed=1)], 1)  # the large column is known, the small is not
    left = z2[:, 1:] - torch.from_numpy(np.column_stack([z1, np.ones(50)]) @ np.linalg.lstsq(
        np.column_stack([z1, np.ones(50)]), z2[:, 1:].numpy(), rcond=None)[0])  # fmt: skip
    top = torch.linalg.svdvals(z2)[0] ** 2
    expected = math.log(top + 1e-3) - math.log(left.square().sum() + 1e-3)
    assert correlation_loss(z1, z2, variant="printed").item() == pytest.approx(expected, abs=1e-6)


def test_an_exact_affine_relation_reaches_the_ceiling():
    z1 = features(60, 8)
    z2 = z1 @ draw(8, 5, seed=1) - 3
    total = (z2 - z2.mean(0)).square().sum().item()
    assert released(z1, z2).item() == pytest.approx(math.log(total / 1e-3 + 1), abs=1e-6)


@pytest.mark.parametrize("n, m", [(2, 1), (10, 9), (10, 30)])
def test_no_more_rows_than_columns_reach_the_ceiling_whatever_the_features(n, m):
    z1, z2 = draw(n, m), draw(n, 4, seed=1)
    total = (z2 - z2.mean(0)).square().sum().item()
    assert released(z1, z2).item() == pytest.approx(math.log(total / 1e-3 + 1), abs=1e-3)


def test_a_constant_target_gives_zero():
    for z2 in (torch.full((60, 3), 0.7).double(), torch.zeros(60, 3).double()):
        assert released(features(60, 8), z2).item() == pytest.approx(0, abs=1e-12)
        assert released(features(60, 8).float(), z2.float()).item() == pytest.approx(0, abs=1e-6)
    assert correlation_loss(features(60, 8), torch.zeros(60, 3).double(), variant="printed").item() == 0


def test_features_that_say_nothing_give_zero():
    for z1 in (torch.zeros(60, 3), torch.full((60, 3), 0.7)):
        assert released(z1, features(60, 5)).item() == pytest.approx(0, abs=1e-12)


def test_independent_gaussians_score_their_chance_floor_not_zero():
    n, m = 100, 40
    scores = [released(draw(n, m, seed=2 * i), draw(n, 30, seed=2 * i + 1)).item() for i in range(20)]
    assert np.mean(scores) == pytest.approx(-math.log(1 - m / (n - 1)), rel=0.02)


# --- The correlation loss: symmetries ------------------------------------------------------------


@given(seed=st.integers(0, 10**6), shift=st.floats(-3, 3), scale=st.floats(0.3, 3))
def test_correlation_loss_is_unchanged_by_invertible_affine_maps_of_z1(seed, shift, scale):
    z1, z2 = features(60, 8, seed=seed), features(60, 5, seed=seed + 1)
    orthogonal = torch.linalg.qr(draw(8, 8, seed=seed + 2)).Q
    invertible = orthogonal @ torch.diag(torch.linspace(0.5, 2, 8).double()) @ orthogonal.T.roll(1, 0)
    expected = released(z1, z2).item()
    assert released(scale * z1 @ invertible + shift, z2).item() == pytest.approx(expected, abs=1e-7)


def test_correlation_loss_is_unchanged_by_permuting_and_flipping_the_units_of_z1():
    z1, z2 = features(60, 8), features(60, 5, seed=1)
    changed = z1[:, torch.tensor([3, 1, 0, 7, 2, 6, 5, 4])] * torch.tensor([1, -1, 2, 1, -1, 1, 3, 1.0])
    torch.testing.assert_close(released(changed, z2), released(z1, z2))


def test_correlation_loss_is_unchanged_by_orthogonal_maps_and_shifts_of_z2():
    z1, z2 = features(60, 8), features(60, 5, seed=1)
    orthogonal = torch.linalg.qr(draw(5, 5, seed=2)).Q
    torch.testing.assert_close(released(z1, z2 @ orthogonal + 3), released(z1, z2))


def test_correlation_loss_changes_when_one_unit_of_z2_is_inflated():
    z1 = features(60, 8)
    z2 = torch.cat([z1[:, :4], draw(60, 1, seed=1)], 1)
    inflated = z2 * torch.tensor([1, 1, 1, 1, 100.0]).double()
    assert released(z1, inflated) < 0.3 < 0.8 < released(z1, z2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_correlation_loss_is_unchanged_by_permuting_the_rows_of_both(variant):
    z1 = features(60, 8)
    z2 = z1[:, :5] + features(60, 5, seed=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    expected = correlation_loss(z1, z2, variant=variant)
    torch.testing.assert_close(correlation_loss(z1[order], z2[order], variant=variant), expected)
    assert correlation_loss(z1[order], z2, variant=variant) < expected - 0.1


@pytest.mark.parametrize("epsilon", [-1e-3, math.nan])
def test_a_negative_stability_constant_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon must be at least 0, got"):
        correlation_loss(torch.randn(9, 2), torch.randn(9, 2), epsilon=epsilon)


def test_correlation_loss_is_unchanged_by_duplicated_columns_of_z1():
    z1, z2 = features(60, 8), features(60, 5, seed=1)
    torch.testing.assert_close(released(torch.cat([z1, z1, z1[:, :2]], 1), z2), released(z1, z2))


def test_correlation_loss_flattens_feature_maps():
    maps1, maps2 = features(40, 12).reshape(40, 3, 2, 2), features(40, 8, seed=1).reshape(40, 2, 2, 2)
    torch.testing.assert_close(released(maps1, maps2), released(maps1.flatten(1), maps2.flatten(1)))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_correlation_loss_does_not_depend_on_the_scale_of_z1(scale, dtype, tolerance):
    z1, z2 = features(60, 8, dtype=dtype), features(60, 5, seed=1, dtype=dtype)
    expected = released(z1, z2).item()
    assert released(scale * z1, z2).item() == pytest.approx(expected, abs=tolerance)


def test_collapsing_the_rank_of_z1_satisfies_the_loss_while_z2_still_determines_z1():
    """The loss has a direction: one live unit cannot predict forty, but forty predict that one exactly."""
    z2 = features(400, 40)
    z1 = torch.cat([z2[:, :1], torch.zeros(400, 39).double()], 1)
    assert released(z1, z2) < 0.06
    assert released(z2, z1) > 10
    assert measures.r_squared(z2, z1, heldout=True) > 0.99


def test_inflating_one_direction_of_z2_satisfies_the_loss_while_z2_still_determines_z1():
    z1 = features(400, 5)
    z2 = torch.cat([z1, 100 * draw(400, 1, seed=1)], 1)
    assert released(z1, z2) < 0.05
    assert released(z2, z1) > 10


# --- The corrected variant -----------------------------------------------------------------------


def test_the_default_is_the_corrected_variant(small):
    model1, model2, x, y = small
    z1, z2 = features(60, 8), features(60, 5, seed=1)
    assert correlation_loss(z1, z2) == correlation_loss(z1, z2, variant="corrected") != released(z1, z2)
    default, corrected = (
        losses.decorrelation(model1, model2, **options)(x, y) for options in ({}, {"variant": "corrected"})
    )
    assert default == corrected


@given(n=st.integers(2, 40), m1=st.integers(1, 9), m2=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_the_corrected_loss_is_symmetric_in_its_arguments(n, m1, m2, seed):
    z1 = features(n, m1, seed=seed)
    z2 = features(n, m2, seed=seed + 1) + z1[:, :1]
    torch.testing.assert_close(correlation_loss(z1, z2), correlation_loss(z2, z1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("epsilon, eta", [(1e-3, 5e-4), (1.0, 1e-2), (1e-6, 1e-4)])
def test_epsilon_and_eta_of_the_corrected_loss_are_those_of_the_reference(epsilon, eta):
    z1 = features(60, 8)
    z1 = torch.cat([z1, z1[:, :1] + 1e-3 * draw(60, 1)], 1)  # kept at 1e-4 and dropped at 1e-2
    z2 = features(60, 5, seed=1) + z1[:, :5]
    expected = algorithm_1(z1, z2, "corrected", epsilon, eta)
    assert correlation_loss(z1, z2, epsilon=epsilon, eta=eta).item() == pytest.approx(expected, abs=1e-6)


@given(
    seed=st.integers(0, 10**6), side=st.sampled_from([0, 1]), powers=st.floats(-9, 9), shift=st.floats(-9, 9)
)
def test_the_corrected_loss_is_unchanged_by_scaling_and_shifting_a_whole_side(seed, side, powers, shift):
    pair = [features(60, 8, seed=seed), features(60, 5, seed=seed + 1)]
    expected = correlation_loss(*pair).item()
    pair[side] = 2**powers * (pair[side] + shift)
    assert correlation_loss(*pair).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("floor", [0.0, losses.FLOOR])
@given(seed=st.integers(0, 10**6))
def test_the_corrected_loss_is_unchanged_by_scaling_every_unit_up_to_the_floor(side, floor, seed):
    """A unit of variance v counts v / (v + floor): that, and nothing else, its scale can change."""
    pair = [features(60, 8, seed=seed), features(60, 5, seed=seed + 1)]
    scaled = list(pair)
    scaled[side] = pair[side] * (4 * torch.rand(pair[side].shape[1]).double() - 2) + draw(
        pair[side].shape[1], seed=seed
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "FLOOR", 0.0)
        exact = correlation_loss(*pair).item()
        patch.setattr(losses, "FLOOR", floor)
        found = correlation_loss(*scaled).item()
    slack = max(math.log(1 + (floor * z.var(0).mean() / z.var(0).min()).item()) for z in scaled)
    assert exact - 1e-9 <= found <= exact + slack + 1e-9


@pytest.mark.parametrize("k", range(5))
def test_every_dead_unit_counts_as_explained(k):
    """k of 5 units of z2 die: the share of its variance that z1 leaves unexplained falls by k / 5."""
    z1, z2 = draw(2000, 4), draw(2000, 5, seed=1)
    alive = correlation_loss(z1, z2, epsilon=0.0).item()
    z2[:, :k] = 0.7
    expected = alive + math.log(5 / (5 - k)) / 2  # in one of the two directions
    assert correlation_loss(z1, z2, epsilon=0.0).item() == pytest.approx(expected, abs=0.01)


CONSTANTS = {"dead": 0.0, "one": 1.0, "a tenth": 0.1, "0.7": 0.7, "large": 1234.567, "negative": -0.3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize("n", [7, 60, 1000])
def test_constant_features_are_at_the_ceiling_and_their_gradients_are_finite(n, value, dtype):
    """Half of the ceiling when the other side lives, which they cannot predict, and all of it when not."""
    constant = torch.full((n, 3), value, dtype=dtype).requires_grad_()
    alive = draw(n, 4, dtype=dtype).requires_grad_()
    unsaid = correlation_loss(alive, torch.zeros(n, 3, dtype=dtype)).item() - CEILING / 2
    assert 0 <= unsaid < 0.03  # the direction in which nothing is said, but for the floor
    for pair in ((alive, constant), (constant, alive)):
        loss = correlation_loss(*pair)
        assert loss.item() == pytest.approx(CEILING / 2 + unsaid, abs=0.02)
        for gradient in torch.autograd.grad(loss, pair):
            assert gradient.isfinite().all()
    loss = correlation_loss(constant, 2 * constant)
    assert loss.item() == pytest.approx(CEILING, abs=0.04)
    assert torch.autograd.grad(loss, constant)[0].isfinite().all()


@pytest.mark.parametrize("n", [3, 10])
def test_fewer_rows_than_units_on_both_sides_reach_the_corrected_ceiling(n):
    assert correlation_loss(draw(n, 30), draw(n, 20, seed=1)).item() == pytest.approx(CEILING, abs=1e-3)


def test_features_that_determine_each_other_reach_the_corrected_ceiling():
    z = draw(60, 8)
    assert correlation_loss(z, z @ draw(8, 8, seed=1) - 3).item() == pytest.approx(CEILING, abs=1e-3)


def test_many_independent_features_score_the_chance_floor_and_the_variance_floor_only():
    n, m = 20_000, 20
    z1, z2 = draw(n, m), 5 * draw(n, m, seed=1) - 2
    expected = math.log(1 + losses.FLOOR) - math.log(1 - m / (n - 1))
    assert correlation_loss(z1, z2).item() == pytest.approx(expected, abs=2e-3)


def test_the_corrected_loss_is_the_mean_of_minus_log_one_minus_r_squared_in_both_directions():
    z1, z2 = (torch.from_numpy(standardised(features(200, m, seed=m).numpy())) for m in (8, 5))
    z1, z2 = (z / z.square().mean(0).sqrt() for z in (z1, z2))  # units of variance one
    both = [-math.log(1 - measures.r_squared(*pair)) for pair in ((z1, z2), (z2, z1))]
    expected = np.mean(both) + math.log(1 + losses.FLOOR)
    assert correlation_loss(z1, z2, epsilon=0.0).item() == pytest.approx(expected, abs=1e-9)


@pytest.fixture
def related():
    """Two layers of 20 units, each half its own and half the other's."""
    shared = draw(1000, 20)
    return shared + 0.5 * draw(1000, 20, seed=1), shared @ draw(20, 20, seed=2) / 20**0.5 + 0.5 * draw(
        1000, 20, seed=3
    )


def collapse_of_z1(z1, z2):
    """All units of z1 but two go constant: released 1.01 to 0.08, corrected 0.83 to 1.51."""
    return torch.cat([z1[:, :2], torch.full_like(z1[:, 2:], 0.7)], 1), z2


def inflation_of_z2(z1, z2):
    """One unit of z2 unknown to z1 outgrows all others: released 1.01 to 0.02, corrected 0.83 to 1.81."""
    return z1, torch.cat([z2[:, 1:], 1e3 * draw(len(z2), 1, seed=9)], 1)


def constancy_of_z2(z1, z2):
    """All units of z2 go constant: released 1.01 to 0.00, corrected 0.83 to 3.46."""
    return z1, torch.full_like(z2, 0.7)


@pytest.mark.parametrize("cheat", [collapse_of_z1, inflation_of_z2, constancy_of_z2])
def test_a_cheat_lowers_the_released_loss_and_raises_the_corrected_one(cheat, related):
    """Each leaves the side that can still predict the other as it is, and is no decorrelation."""
    before, after = (
        [correlation_loss(*pair, variant=v).item() for v in ("released", "corrected")]
        for pair in (related, cheat(*related))
    )
    shown = "released {0:.2f} to {2:.2f}, corrected {1:.2f} to {3:.2f}".format(*before, *after)
    assert after[0] < 0.25 * before[0], shown
    assert after[1] > before[1] + 0.5, shown


def test_a_constant_side_costs_half_the_ceiling_so_it_pays_only_from_nearly_perfect_prediction():
    """What the mean of both directions leaves open: above 3.5 a dead side is the lower of the two."""
    z = draw(1000, 5)
    tight, loose = (z + noise * draw(1000, 5, seed=1) for noise in (0.1, 0.3))
    dead = correlation_loss(z, torch.zeros_like(z))
    assert correlation_loss(z, loose) < dead < correlation_loss(z, tight)
    assert measures.r_squared(z, loose) < 1 - math.exp(-CEILING / 2) < measures.r_squared(z, tight)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_loss_is_computed_in_single_precision(variant, dtype):
    z1, z2 = features(60, 8).to(dtype).requires_grad_(), features(60, 5, seed=1).to(dtype).requires_grad_()
    expected = correlation_loss(z1.float(), z2.float(), variant=variant)
    with torch.autocast("cpu", torch.bfloat16):
        found = correlation_loss(z1, z2, variant=variant)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    gradients = torch.autograd.grad(found, (z1, z2))
    assert all(g.dtype == dtype and g.isfinite().all() and g.norm() > 0 for g in gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_of_two_types_are_compared_in_the_wider_one(variant):
    z1, z2 = features(60, 8, dtype=torch.float32), features(60, 5, seed=1)
    for pair in ((z1, z2), (z2, z1)):
        found = correlation_loss(*pair, variant=variant)
        assert found.dtype == torch.float64
        assert torch.equal(found, correlation_loss(*(z.double() for z in pair), variant=variant))


def test_units_far_below_the_mean_variance_count_as_explained_as_documented():
    """Of 50 independent units a side, one scaled by 100, each other one keeps v / (v + floor)."""
    pair = [draw(5000, 50), draw(5000, 50, seed=1)]
    for z in pair:
        z[:, 0] *= 100
    floor = losses.FLOOR * (49 + 1e4) / 50
    expected = -math.log((49 / (1 + floor) + 1) / 50)
    assert 1 < expected < 1.1
    assert correlation_loss(*pair).item() == pytest.approx(expected, abs=0.05)


# --- The correlation loss: gradients -------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n, m1, m2", [(12, 3, 2), (12, 1, 4), (30, 8, 3)])
def test_correlation_loss_passes_gradcheck_in_both_inputs(variant, n, m1, m2):
    z1, z2 = draw(n, m1).requires_grad_(), (draw(n, m2, seed=1) + draw(n, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: correlation_loss(a, b, variant=variant), (z1, z2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_those_through_the_pseudo_inverse(variant):
    z1 = features(80, 12).requires_grad_()
    z2 = (features(80, 6, seed=1) + z1[:, :6].detach()).requires_grad_()
    got = torch.autograd.grad(correlation_loss(z1, z2, variant=variant), (z1, z2))
    expected = torch.autograd.grad(algorithm_1_torch(z1, z2, variant), (z1, z2))
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
        assert other.norm() > 1e-3


def test_gradients_in_single_precision_agree_with_double():
    z1, z2 = features(200, 40, dtype=torch.float32), features(200, 10, seed=1, dtype=torch.float32)
    single = [z.clone().requires_grad_() for z in (z1, z2)]
    double = [z.double().requires_grad_() for z in (z1, z2)]
    got, expected = (torch.autograd.grad(released(*z), z) for z in (single, double))
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize("asking_is_free", [True, False], ids=["processor", "anywhere"])
@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("n", [100, 200])
def test_gradients_in_single_precision_agree_with_double_where_the_fit_is_exact(
    n, variant, asking_is_free, mnist_test, monkeypatch
):
    """Fewer images than the 784 features of a CNN: what is left is rounding, far more of it in float32."""
    monkeypatch.setattr(regression, "_asking_is_free", lambda z: asking_is_free and z.device.type == "cpu")
    x, (one, other) = mnist_test.x[:n], (CNN(), CNN())
    found = []
    for kind in (torch.float32, torch.float64):
        z1, z2 = (model.to(kind).features(x.to(kind)) for model in (one, other))
        (gradient,) = torch.autograd.grad(correlation_loss(z1, z2, variant=variant), z1)
        found.append(gradient.double().flatten())
    single, double = found
    assert torch.nn.functional.cosine_similarity(single, double, dim=0) > 0.99
    assert single.norm().item() == pytest.approx(double.norm().item(), rel=0.05)


def test_descending_the_loss_lowers_r_squared_from_z1_to_z2():
    """A step of either input alone against its gradient makes z2 less predictable."""
    z1 = features(80, 6)
    z2 = z1[:, :4] + features(80, 4, seed=1)
    before = measures.r_squared(z1, z2)
    leaves = [z.clone().requires_grad_() for z in (z1, z2)]
    step1, step2 = torch.autograd.grad(released(*leaves), leaves)
    assert measures.r_squared(z1 - step1, z2) < before - 1e-3
    assert measures.r_squared(z1, z2 - step2) < before - 1e-3


def test_duplicated_columns_of_z1_get_no_gradient_and_the_kept_ones_all_of_it():
    z, z2 = features(60, 4), features(60, 3, seed=1)
    alone, doubled = z.clone().requires_grad_(), torch.cat([z, z], 1).requires_grad_()
    expected = torch.autograd.grad(released(alone, z2), alone)[0]
    gradient = torch.autograd.grad(released(doubled, z2), doubled)[0]
    torch.testing.assert_close(gradient[:, :4], expected)
    assert (gradient[:, 4:] == 0).all()


KINDS = ("live", "dead", "constant", "duplicate", "sparse")


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    n=st.integers(2, 12), m1=st.integers(1, 10), m2=st.integers(1, 6), seed=st.integers(0, 10**6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=10, max_size=10),
    scale1=st.sampled_from([1e-4, 1.0, 1e4]), scale2=st.sampled_from([1e-4, 1.0, 1e4]),
)  # fmt: skip
def test_value_and_gradients_are_finite_on_dead_constant_and_duplicated_units(
    variant, n, m1, m2, seed, kinds, scale1, scale2
):
    def awkward(m, seed, scale):
        z = scale * features(n, m, seed=seed, dtype=torch.float32)
        for column, kind in enumerate(kinds[:m]):
            if kind == "dead":
                z[:, column] = 0
            elif kind == "constant":
                z[:, column] = 0.7 * scale
            elif kind == "duplicate":
                z[:, column] = z[:, 0]
            elif kind == "sparse":
                z[1:, column] = 0
        return z.requires_grad_()

    z1, z2 = awkward(m1, seed, scale1), awkward(m2, seed + 1, scale2)
    loss = correlation_loss(z1, z2, variant=variant)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert loss.isfinite() and z1.grad.isfinite().all() and z2.grad.isfinite().all()
    z2 = z2.detach().double()
    ceiling = CEILING if variant == "corrected" else math.log(z2.square().sum() / 1e-3 + 1)
    assert -1e-3 <= loss.item() <= ceiling + 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("power", [-30, -15, 15])
def test_value_and_gradients_are_finite_in_single_precision_up_to_the_documented_size(variant, power):
    pair = [(10.0**power * features(300, 200, seed=s, dtype=torch.float32)).requires_grad_() for s in (0, 1)]
    loss = correlation_loss(*pair, variant=variant)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, pair))


# --- The correlation loss: what it refuses -------------------------------------------------------


@pytest.mark.parametrize(
    "z1, z2",
    [
        (torch.rand(4, 2), torch.rand(5, 2)),
        (torch.rand(1, 2), torch.rand(1, 2)),
        (torch.rand(4), torch.rand(4)),
        (torch.ones(4, 2, dtype=torch.int64), torch.rand(4, 2)),
    ],
    ids=["row mismatch", "one row", "one dimension", "integers"],
)
def test_correlation_loss_refuses(z1, z2):
    with pytest.raises(ValueError, match="features"):
        correlation_loss(z1, z2)


@pytest.mark.parametrize("eta", [-1e-9, 1, math.nan])
def test_an_eta_that_would_drop_all_columns_or_none_is_refused(eta):
    with pytest.raises(ValueError, match="eta must be at least 0 and below 1"):
        correlation_loss(features(20, 3), features(20, 2), eta=eta)


@pytest.mark.parametrize("objective", [losses.decorrelation, losses.decorrelation_from, losses.alignment])
def test_models_that_are_not_split_are_refused_before_any_work(objective):
    whole = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ValueError, match="a Sequential has no features and no head"):
        objective(CNN(), whole)
    with pytest.raises(ValueError, match="a Sequential has no features"):
        objective(whole, CNN())


def test_an_unknown_variant_is_refused_by_name():
    model = models.CNN()
    with pytest.raises(ValueError, match="corrected, released, printed; got 'exact'"):
        correlation_loss(torch.rand(4, 2), torch.rand(4, 2), variant="exact")
    with pytest.raises(ValueError, match="'exact'"):
        losses.decorrelation(model, model, variant="exact")
    with pytest.raises(ValueError, match="'exact'"):
        losses.reconstruction(autoencoders.mnist_autoencoder(), variant="exact")


# --- Objectives ----------------------------------------------------------------------------------


class Small(nn.Module):
    """head ∘ features in double precision, 5 pixels to 3 features to 4 classes."""

    def __init__(self, seed):
        super().__init__()
        self.body, self.tail = nn.Linear(5, 3).double(), nn.Linear(3, 4).double()
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(draw(*parameter.shape, seed=10 * seed + number))

    def features(self, x):
        return self.body(x).relu()

    def head(self, z):
        return self.tail(z)

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def small():
    """Two small models and a batch of 20 for them."""
    return Small(1), Small(2), draw(20, 5), torch.arange(20) % 4


def cross_entropy_by_hand(model, x, y):
    logits = model(x).detach().numpy()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -logs[range(len(y)), y.numpy()].mean()


@pytest.mark.parametrize("variant", [*VARIANTS, "summed"])
def test_equation_8_adds_the_weighted_correlation_loss_to_the_cross_entropies(small, variant):
    model1, model2, x, y = small
    terms = losses.decorrelation(model1, model2, correlation_weight=0.3, variant=variant)(x, y)
    ce1, ce2 = (cross_entropy_by_hand(m, x, y) for m in (model1, model2))
    looks = "released" if variant == "summed" else variant
    correlation = algorithm_1(model1.features(x).detach(), model2.features(x).detach(), looks)
    together = math.sqrt(ce1**2 + ce2**2) if variant == "released" else ce1 + ce2
    assert terms["loss"].item() == pytest.approx(together + 0.3 * correlation, abs=1e-6)
    assert terms["correlation"].item() == pytest.approx(correlation, abs=1e-6)
    assert terms["cross_entropy_1"].item() == pytest.approx(ce1)
    assert terms["cross_entropy_2"].item() == pytest.approx(ce2)


def test_released_weighs_equal_cross_entropies_by_0_71(small):
    model, _, x, y = small
    released, printed = (
        losses.decorrelation(model, model, correlation_weight=0, variant=v)(x, y)["loss"] for v in PAPER
    )
    assert (released / printed).item() == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_weight_zero_no_correlation_is_computed_or_logged(small, variant, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("computed at λ = 0")

    monkeypatch.setattr(losses, "correlation_loss", never)
    model1, model2, x, y = small
    terms = losses.decorrelation(model1, model2, correlation_weight=0.0, variant=variant)(x, y)
    assert set(terms) == {"loss", "cross_entropy_1", "cross_entropy_2"}
    with pytest.raises(AssertionError, match="λ = 0"):
        losses.decorrelation(model1, model2, correlation_weight=0.1)(x, y)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_correlation_of_equation_8_trains_both_bodies_and_goes_both_ways_only_when_corrected(
    small, variant
):
    model1, model2, x, y = small
    z1, z2 = model1.features(x), model2.features(x)
    there, back = correlation_loss(z1, z2, variant=variant), correlation_loss(z2, z1, variant=variant)
    assert (abs(there - back) < 1e-12) == (variant == "corrected")
    terms = losses.decorrelation(model1, model2, variant=variant)(x, y)
    torch.testing.assert_close(terms["correlation"], there)
    terms["correlation"].backward()
    for model in (model1, model2):
        assert model.body.weight.grad.norm() > 1e-4
        assert model.tail.weight.grad is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_from_a_fixed_surrogate_the_loss_is_one_cross_entropy_and_the_weighted_correlation(small, variant):
    surrogate, model, x, y = small
    objective = losses.decorrelation_from(surrogate, model, correlation_weight=0.3, variant=variant)
    terms = objective(x, y)
    z1, z2 = surrogate.features(x).detach(), model.features(x).detach()
    correlation, error = algorithm_1(z1, z2, variant), cross_entropy_by_hand(model, x, y)
    assert set(terms) == {"loss", "cross_entropy_1", "correlation"}
    assert terms["loss"].item() == pytest.approx(error + 0.3 * correlation, abs=1e-6)
    assert terms["correlation"].item() == pytest.approx(correlation, abs=1e-6)
    terms["correlation"].backward()
    assert model.body.weight.grad.norm() > 1e-4 and model.tail.weight.grad is None
    assert objective.models == (model,) and surrogate.body.weight.grad is None


def test_a_surrogate_is_read_as_it_is_and_keeps_its_mode_and_statistics(mnist_train):
    surrogate, model = models.FullyConnected(), models.FullyConnected()
    before = copy.deepcopy(surrogate.state_dict())
    x, y = mnist_train.x[:64], mnist_train.y[:64]
    terms = losses.decorrelation_from(surrogate, model)(x, y)
    with torch.no_grad():
        z = surrogate.eval().features(x)
    surrogate.train()
    assert terms["correlation"].item() == pytest.approx(
        correlation_loss(z, model.features(x)).item(), abs=1e-4
    )
    assert surrogate.training and all(
        torch.equal(value, before[name]) for name, value in surrogate.state_dict().items()
    )


def test_at_weight_zero_the_surrogate_is_not_called(small):
    surrogate, model, x, y = small
    surrogate.features = lambda x: pytest.fail("the surrogate was called")
    terms = losses.decorrelation_from(surrogate, model, correlation_weight=0)(x, y)
    assert set(terms) == {"loss", "cross_entropy_1"}
    assert terms["loss"].item() == pytest.approx(cross_entropy_by_hand(model, x, y))
    with pytest.raises(ValueError, match="own surrogate"):
        losses.decorrelation_from(model, model)
    with pytest.raises(ValueError, match="variant"):
        losses.decorrelation_from(surrogate, model, variant="exact")


def linear_reader(*rows):
    """Two classes of two pixels: its gradient points along the difference of the rows, whatever the image."""
    model = models.Classifier()
    model.body, model.tail = nn.Flatten(), nn.Linear(2, 2, bias=False)
    model.tail.weight.data = torch.tensor(rows, dtype=torch.float64)
    return model


@pytest.mark.parametrize("target", [0.0, 0.5, -1.0])
@pytest.mark.parametrize(
    ("rows", "cosine"),
    [([[1, 0], [0, 1]], 1), ([[0, 1], [1, 0]], -1), ([[1, 1], [0, 0]], 0), ([[0, 0], [0, 3]], 0.5**0.5)],
    ids=["the same", "opposite", "at a right angle", "half a right angle"],
)
def test_alignment_is_the_mean_squared_distance_of_the_gradients_cosine_from_its_target(rows, cosine, target):
    one, other = linear_reader([1, 0], [0, 1]), linear_reader(*rows)
    x, y = draw(7, 1, 1, 2), torch.arange(7) % 2
    terms = losses.alignment(one, other, target_cosine=target, alignment_weight=0.3)(x, y)
    ce1, ce2 = (cross_entropy_by_hand(m, x, y) for m in (one, other))
    assert set(terms) == {"loss", "cross_entropy_1", "cross_entropy_2", "alignment"}
    assert terms["alignment"].item() == pytest.approx((cosine - target) ** 2, abs=1e-12)
    assert terms["loss"].item() == pytest.approx(ce1 + ce2 + 0.3 * (cosine - target) ** 2)
    assert not x.requires_grad and x.grad is None


def test_alignment_is_taken_of_the_first_images_of_a_batch(small):
    model1, model2, x, y = small
    some = losses.alignment(model1, model2, images=7)(x, y)
    assert some["alignment"].item() == losses.alignment(model1, model2)(x[:7], y[:7])["alignment"].item()
    assert some["cross_entropy_1"].item() == losses.alignment(model1, model2)(x, y)["cross_entropy_1"].item()


def test_alignment_and_decorrelation_add_up(small):
    model1, model2, x, y = small
    both = losses.alignment(model1, model2, alignment_weight=0.3, correlation_weight=0.7)(x, y)
    alone = losses.alignment(model1, model2, alignment_weight=0.3)(x, y)
    correlation = correlation_loss(model1.features(x), model2.features(x)).item()
    assert both["correlation"].item() == pytest.approx(correlation)
    assert both["loss"].item() == pytest.approx(alone["loss"].item() + 0.7 * correlation)
    with pytest.raises(ValueError, match="cosine"):
        losses.alignment(model1, model2, target_cosine=1.5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        losses.alignment(model1, model2, images=0)


def test_the_alignment_that_is_trained_is_the_one_that_is_measured(small):
    """Of one image the measure is a cosine; its squared distance from 0.2 is what the objective adds."""
    model1, model2, x, y = small
    each = [
        measures.gradient_cosine(model1, model2, *one) for one in zip(x[:, None], y[:, None], strict=True)
    ]
    alignment = losses.alignment(model1, model2, target_cosine=0.2)(x, y)["alignment"].item()
    assert alignment == pytest.approx(np.mean((np.array(each) - 0.2) ** 2), abs=1e-6)


def test_in_the_alignment_no_image_has_a_part_in_another_s_gradient_through_batch_normalisation(mnist_test):
    """Taken of 40 images or of 5, and measured: all the same. In training mode it would differ by a third."""
    x, y = mnist_test.x[:40], mnist_test.y[:40]
    with models.seeded(0):
        pair = [models.FullyConnected() for _ in range(2)]
    for model in pair:
        model.train()(x)  # once, so that its statistics are those of digits
    seen = [int(m.num_batches_tracked) for m in pair[0].modules() if isinstance(m, nn.BatchNorm1d)]
    terms = losses.alignment(*pair, images=5)(x, y)
    each = [measures.gradient_cosine(*pair, x[i : i + 1], y[i : i + 1]) for i in range(5)]
    assert terms["alignment"].item() == pytest.approx(np.mean(np.square(each)), rel=1e-3)
    terms["loss"].backward()
    now = [int(m.num_batches_tracked) for m in pair[0].modules() if isinstance(m, nn.BatchNorm1d)]
    assert now == [n + 1 for n in seen] and pair[0].training  # the batch counts once
    assert math.isfinite(losses.alignment(*pair, images=1)(x, y)["alignment"].item())


def test_transformers_can_be_aligned():
    with models.seeded(0):
        pair = [models.VisionTransformer() for _ in range(2)]
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6)
    losses.alignment(*pair)(x, y)["alignment"].backward()
    assert all(p.grad.isfinite().all() for model in pair for p in model.body.parameters())
    assert any(p.grad.abs().max() > 0 for p in pair[0].body.parameters())


def test_models_that_have_no_distance_and_no_models_are_refused_at_once():
    with pytest.raises(ValueError, match="differ in their parameters"):
        losses.parametric_distance(CNN(), models.FullyConnected(), target_distance=1.0)
    with pytest.raises(ValueError, match="no model"):
        losses.classification()


def test_the_gradient_of_the_alignment_is_that_of_finite_differences(small):
    model1, model2, x, y = small
    objective = losses.alignment(model1, model2)
    for weight in (model1.body.weight, model1.tail.weight, model2.body.weight, model2.tail.weight):
        (gradient,) = torch.autograd.grad(objective(x, y)["alignment"], weight)
        direction = draw(*weight.shape, seed=4)
        values = []
        for step in (1e-6, -1e-6):
            weight.data += step * direction
            values.append(objective(x, y)["alignment"].item())
            weight.data -= step * direction
        slope = (values[0] - values[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5) and abs(slope) > 1e-4


@pytest.mark.parametrize("sure", [0, 200], ids=["no logit depends on the image", "too sure for float32"])
def test_an_image_without_a_gradient_has_no_alignment_and_gives_no_nan(small, sure):
    model1, model2, x, _ = small
    model1, model2, x = model1.float(), model2.float(), x.float()
    y = torch.zeros(len(x), dtype=torch.long)
    model2.tail.weight.data *= bool(sure)
    model2.tail.bias.data[0] += sure
    terms = losses.alignment(model1, model2, target_cosine=0.5)(x, y)
    assert terms["alignment"].item() == 0.25
    terms["loss"].backward()
    assert all(p.grad.isfinite().all() for model in (model1, model2) for p in model.parameters())
    before = [p.grad.clone() for p in model2.parameters()]
    losses.alignment(model1, model2, alignment_weight=0)(x, y)["loss"].backward()
    for p, gradient in zip(model2.parameters(), before, strict=True):  # which the alignment did not move
        torch.testing.assert_close(p.grad, 2 * gradient)


def test_without_weights_there_is_no_alignment_and_no_gradient_of_images(small, monkeypatch):
    monkeypatch.setattr(losses.measures, "loss_directions", None)
    model1, model2, x, y = small
    terms = losses.alignment(model1, model2, alignment_weight=0)(x, y)
    plain = losses.classification(model1, model2)(x, y)
    assert terms.keys() == plain.keys() and terms["loss"] == plain["loss"]


def test_gradients_turn_to_where_they_are_held():
    """On digits, against a pair that began alike and was left to itself."""
    images, found = data.load("mnist", limit=1000), {}
    for name, objective_of in (
        ("regular", losses.classification),
        ("right angles", partial(losses.alignment, alignment_weight=3.0)),
        ("aligned", partial(losses.alignment, alignment_weight=3.0, target_cosine=0.8)),
    ):
        with models.seeded(3):
            pair = CNN(), CNN()
        objective = objective_of(*pair)
        batches = data.Batches(images, 1000, seed=0)
        training.fit(objective, objective.parameters(), batches, epochs=8, learning_rate=1e-2)
        found[name] = measures.gradient_cosine(*pair, images.x, images.y)
    assert abs(found["right angles"]) < found["regular"] - 0.1
    assert found["aligned"] > found["regular"] + 0.1


def test_equation_8_runs_on_the_paper_s_networks(mnist_train):
    for architecture in models.ARCHITECTURES.values():
        pair = architecture(), architecture()
        terms = losses.decorrelation(*pair)(mnist_train.x[:16], mnist_train.y[:16])
        terms["loss"].backward()
        assert all(p.grad.isfinite().all() for model in pair for p in model.parameters())


def test_equation_5_is_cross_entropies_plus_the_squared_miss_of_the_distance(small):
    model1, model2, x, y = small
    terms = losses.parametric_distance(model1, model2, target_distance=70.0, weight=1e-3)(x, y)
    ce1, ce2 = (cross_entropy_by_hand(m, x, y) for m in (model1, model2))
    flat1, flat2 = (nn.utils.parameters_to_vector(m.parameters()).detach().numpy() for m in (model1, model2))
    distance = ((flat1 - flat2) ** 2).sum()
    assert terms["distance"].item() == pytest.approx(distance)
    assert terms["loss"].item() == pytest.approx(ce1 + ce2 + 1e-3 * (70 - distance) ** 2)
    assert terms["cross_entropy_1"].item() == pytest.approx(ce1)
    assert terms["cross_entropy_2"].item() == pytest.approx(ce2)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("parameter", ["body.weight", "body.bias", "tail.weight", "tail.bias"])
def test_the_gradient_of_equation_5_is_its_finite_difference(small, number, parameter):
    model1, model2, x, y = small
    objective = losses.parametric_distance(model1, model2, target_distance=70.0, weight=1e-3)
    theta = dict((model1, model2)[number].named_parameters())[parameter]
    gradient = torch.autograd.grad(objective(x, y)["loss"], theta)[0].flatten()[1].item()
    sides = []
    for step in (1e-5, -2e-5):  # to θ + h, then to θ − h
        with torch.no_grad():
            theta.view(-1)[1] += step
        sides.append(objective(x, y)["loss"].item())
    assert gradient == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("target, moves", [(1000.0, "apart"), (1.0, "together")])
def test_equation_5_drives_the_models_towards_the_target_distance(small, target, moves):
    model1, model2, x, y = small
    objective = losses.parametric_distance(model1, model2, target_distance=target, weight=1.0)
    before = measures.parameter_distance(model1, model2).item()
    gradients = torch.autograd.grad(objective(x, y)["loss"], objective.parameters())
    with torch.no_grad():
        for parameter, gradient in zip(objective.parameters(), gradients, strict=True):
            parameter -= 1e-6 * gradient
    after = measures.parameter_distance(model1, model2).item()
    assert after > before if moves == "apart" else after < before


def test_classification_sums_the_cross_entropies_of_any_number_of_models(small):
    model1, model2, x, y = small
    terms = losses.classification(model1, model2, model1)(x, y)
    each = [cross_entropy_by_hand(m, x, y) for m in (model1, model2, model1)]
    assert terms["loss"].item() == pytest.approx(sum(each))
    assert [terms[f"cross_entropy_{i}"].item() for i in (1, 2, 3)] == pytest.approx(each)


def test_an_objective_hands_out_the_parameters_of_all_its_models_in_order(small):
    model1, model2, _, _ = small
    for objective in (
        losses.classification(model1, model2),
        losses.decorrelation(model1, model2),
        losses.parametric_distance(model1, model2, target_distance=1.0),
    ):
        assert objective.models == (model1, model2)
        expected = [*model1.parameters(), *model2.parameters()]
        assert all(a is b for a, b in zip(objective.parameters(), expected, strict=True))


# --- Equation 4: reconstruction ------------------------------------------------------------------


def toy(necks=2, span=1, unshared=2):
    """A double-precision autoencoder of vectors, 6 → 3 → 6; its last layer ends in the span's interval."""
    widths = [(6, 5), (5, 4), (4, 3), (3, 4), (4, 5)]
    layers = [lambda i=i, o=o: nn.Sequential(nn.Linear(i, o), nn.Tanh()) for i, o in widths]
    layers.append(lambda: nn.Sequential(nn.Linear(5, 6), nn.Sigmoid() if span == 1 else nn.Tanh()))
    return autoencoders.NeckedAutoencoder(layers, necks=necks, span=span, unshared=unshared).double()


def codes_and_errors_by_hand(autoencoder, x):
    """Each path's code, and its squared error in the units the layers work in, without `span`."""
    if autoencoder.span == 2:
        x = x * 2 - 1
    codes = [squeeze(autoencoder.encoder(x)) for squeeze in autoencoder.squeeze]
    images = [autoencoder.decoder(w(z)) for w, z in zip(autoencoder.widen, codes, strict=True)]
    errors = [float(((image - x).detach().numpy() ** 2).sum()) / x.numel() for image in images]
    return [z.detach() for z in codes], errors


@pytest.fixture
def vectors():
    return draw(40, 6).sigmoid()


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equation_4_adds_the_weighted_correlation_of_the_codes_to_the_errors(variant, span, vectors):
    autoencoder = toy(span=span)
    (z1, z2), (e1, e2) = codes_and_errors_by_hand(autoencoder, vectors)
    terms = losses.reconstruction(autoencoder, correlation_weight=0.3, variant=variant)(vectors, None)
    correlation = algorithm_1(z1, z2, variant)
    together = e1**2 + e2**2 if variant == "printed" else math.sqrt(e1**2 + e2**2)
    assert set(terms) == {"loss", "mse_1", "mse_2", "correlation"}
    assert [terms["mse_1"].item(), terms["mse_2"].item()] == pytest.approx([e1, e2])
    assert terms["correlation"].item() == pytest.approx(correlation, abs=1e-6)
    assert terms["loss"].item() == pytest.approx(together + 0.3 * correlation, abs=1e-6)


@pytest.mark.parametrize("make, error", [("mnist_autoencoder", 0.25), ("cifar10_autoencoder", 1.0)])
def test_grey_instead_of_black_is_an_error_of_a_quarter_on_mnist_and_of_one_on_cifar10(make, error):
    autoencoder = getattr(autoencoders, make)()
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.zero_()  # Sigmoid(0) and Tanh(0) are both the middle of their interval
    black = torch.zeros(3, 1, 28, 28) if make[0] == "m" else torch.zeros(3, 3, 32, 32)
    terms = losses.reconstruction(autoencoder)(black, None)
    assert [terms["mse_1"].item(), terms["mse_2"].item()] == [error, error]


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_with_one_neck_every_variant_of_equation_4_is_the_mean_squared_error(
    variant, span, vectors, monkeypatch
):
    monkeypatch.setattr(losses, "correlation_loss", None)  # calling it fails
    autoencoder = toy(necks=1, span=span)
    _, [error] = codes_and_errors_by_hand(autoencoder, vectors)
    terms = losses.reconstruction(autoencoder, correlation_weight=0.3, variant=variant)(vectors, None)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx({
        "loss": error, "mse_1": error,
    })  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_weight_zero_equation_4_computes_no_correlation(variant, vectors, monkeypatch):
    monkeypatch.setattr(losses, "correlation_loss", None)
    autoencoder = toy()
    _, (e1, e2) = codes_and_errors_by_hand(autoencoder, vectors)
    terms = losses.reconstruction(autoencoder, correlation_weight=0.0, variant=variant)(vectors, None)
    assert set(terms) == {"loss", "mse_1", "mse_2"}
    assert terms["loss"].item() == pytest.approx(
        e1**2 + e2**2 if variant == "printed" else math.hypot(e1, e2)
    )


def test_with_three_necks_the_correlation_is_the_mean_over_the_three_pairs(vectors):
    autoencoder = toy(necks=3)
    (z1, z2, z3), errors = codes_and_errors_by_hand(autoencoder, vectors)
    terms = losses.reconstruction(autoencoder)(vectors, None)
    each = [correlation_loss(*pair).item() for pair in ((z1, z2), (z1, z3), (z2, z3))]
    assert terms["correlation"].item() == pytest.approx(np.mean(each))
    expected = math.sqrt(sum(e**2 for e in errors)) + 0.05 * np.mean(each)
    assert terms["loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_correlation_of_equation_4_trains_the_encoder_and_every_squeeze_but_nothing_behind_the_code(
    variant, vectors
):
    autoencoder = toy()
    losses.reconstruction(autoencoder, variant=variant)(vectors, None)["correlation"].backward()
    for part in (autoencoder.encoder, *autoencoder.squeeze):
        assert all(p.grad.norm() > 1e-6 for p in part.parameters())
    for part in (autoencoder.decoder, *autoencoder.widen):
        assert all(p.grad is None for p in part.parameters())


def test_equation_4_runs_on_the_paper_s_networks(mnist_train):
    for autoencoder, x in (
        (autoencoders.mnist_autoencoder(), mnist_train.x[:80]),
        (autoencoders.cifar10_autoencoder(), torch.rand(4, 3, 32, 32)),
    ):
        losses.reconstruction(autoencoder)(x, None)["loss"].backward()
        assert all(p.grad.isfinite().all() for p in autoencoder.parameters())


# --- Reading reconstructions ---------------------------------------------------------------------


class Spy(nn.Module):
    """A linear classifier that keeps the images it was shown."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(6, 4).double(), []

    def forward(self, x):
        self.seen.append(x)
        return self.linear(x)


@pytest.mark.parametrize("necks", [1, 2, 3])
def test_each_image_is_read_once_by_one_path_and_every_path_reads_its_share(necks, vectors):
    autoencoder, classifier, x = toy(necks=necks), Spy(), vectors[:7]
    y = torch.tensor([0, 1, 2, 3, 0, 1, 3])
    loss = losses.reading(classifier, autoencoder)(x, y)["loss"]
    [seen] = classifier.seen
    images = torch.stack(autoencoder(x)).detach()  # (paths, N, 6)
    which = (images[:, :, None] - seen).abs().amax(-1) < 1e-12  # (paths, N, N): path p of image i is j
    assert which.any(0).any(1).all() and which.sum() == 7  # all images, each once
    assert all(share in (7 // necks, 7 // necks + 1) for share in which.sum((1, 2)))
    _, order, position = which.nonzero().T
    labels = torch.empty_like(y).scatter(0, position, y[order])
    assert loss.item() == pytest.approx(cross_entropy_by_hand(classifier, seen, labels))


def test_without_an_autoencoder_the_images_themselves_are_read(small):
    model, _, x, y = small
    terms = losses.reading(model)(x, y)
    assert set(terms) == {"loss"}
    assert terms["loss"].item() == pytest.approx(cross_entropy_by_hand(model, x, y))


def test_reading_trains_the_classifier_only_and_leaves_the_autoencoder_s_modes_and_statistics_alone():
    """In training, so that a BatchNorm read in its own mode would show."""
    torch.manual_seed(1)
    autoencoder = autoencoders.cifar10_autoencoder().train()
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    autoencoder.squeeze[0].eval()  # one part is frozen
    modes = [module.training for module in autoencoder.modules()]
    before = copy.deepcopy(autoencoder.state_dict())
    objective, x, y = losses.reading(classifier, autoencoder), torch.rand(6, 3, 32, 32), torch.arange(6)
    assert objective.models == (classifier,)
    objective(x, y)["loss"].backward()
    assert all(p.grad is None for p in autoencoder.parameters())
    assert all(p.grad.norm() > 0 for p in classifier.parameters())
    training.fit(objective, objective.parameters(), [(x, y)] * 3, epochs=1)
    assert [module.training for module in autoencoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())
    with torch.no_grad(), models.evaluating(autoencoder):
        images = torch.cat([autoencoder(x[::2])[0], autoencoder(x[1::2])[1]])
    expected = nn.functional.cross_entropy(classifier(images), torch.tensor([0, 2, 4, 1, 3, 5]))
    torch.testing.assert_close(objective(x, y)["loss"], expected)


@pytest.mark.parametrize("variant", losses.VARIANTS)
@pytest.mark.parametrize("n", [12, 60])  # by either way of a processor
@pytest.mark.parametrize("side", [0, 1])
def test_a_feature_that_is_not_a_number_is_not_passed_over(variant, n, side):
    z = list(torch.rand(2, n, 8))
    z[side][3, 2] = math.nan
    try:
        assert correlation_loss(*z, variant=variant).isnan()
    except torch.linalg.LinAlgError:
        assert variant == "printed"  # its singular values cannot be found then


@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_on_trained_features_the_float32_gradient_is_within_a_ten_thousandth_of_the_float64_one(variant):
    images, pair = data.load("mnist", limit=4000, device="cpu"), (CNN(), CNN())
    objective = losses.decorrelation(*pair, correlation_weight=0)
    training.fit(objective, objective.parameters(), data.Batches(images, 100), epochs=2)
    z = [model.features(images.x[:1000]).detach().requires_grad_() for model in pair]
    exact = [features.detach().double().requires_grad_() for features in z]
    found, wanted = (torch.autograd.grad(correlation_loss(*v, variant=variant), v) for v in (z, exact))
    apart = sum((a.double() - b).square().sum() for a, b in zip(found, wanted, strict=True))
    assert apart.sqrt() < 1e-4 * sum(b.square().sum() for b in wanted).sqrt()


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("kind", ["pair", "dna"])
def test_a_step_asks_the_device_for_no_number(variant, kind, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    with torch.device("meta"):  # what asks for a value raises there
        x, y = torch.rand(300, 1, 28, 28), torch.zeros(300, dtype=torch.long)
        if kind == "pair":
            objective = losses.decorrelation(
                models.FullyConnected(), models.FullyConnected(), variant=variant
            )
        else:
            objective = losses.reconstruction(autoencoders.mnist_autoencoder(), variant=variant)
    objective(x, y)["loss"].backward()
    assert all(p.grad.shape == p.shape for p in objective.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in objective.parameters())

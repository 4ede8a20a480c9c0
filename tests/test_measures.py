"""Measures against numpy, scipy and counting by hand; each with the trap that it must not fall into."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from dnabook import CNN, measures


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(n, m, seed=0):
    """Features after a ReLU: non-negative, about half of them zero."""
    return draw(n, m, seed=seed).relu()


def orthonormal(n, m, seed=0):
    """An (n, m) design with centred, orthonormal columns."""
    z = draw(n, m, seed=seed)
    return torch.linalg.qr(z - z.mean(0)).Q


def related(n, m1, m2, noise=1.0):
    z1 = features(n, m1)
    return z1, z1 @ draw(m1, m2, seed=1) + noise * draw(n, m2, seed=2) + 1


def numpy_r_squared(z1, z2, fitted, scored, centred=True):
    """1 − SS_res / SS_total with numpy's least squares, fitted on some rows and scored on others."""
    design = np.column_stack([z1.numpy(), np.ones(len(z1))])
    weight = np.linalg.lstsq(design[fitted], z2.numpy()[fitted], rcond=None)[0]
    target = z2.numpy()[scored]
    residual = target - design[scored] @ weight
    total = target - target.mean(0) if centred else target
    return 1 - (residual**2).sum() / (total**2).sum()


# --- R² ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m1, m2", [(60, 8, 5), (60, 1, 1), (500, 30, 3)])
def test_r_squared_is_that_of_numpy_lstsq_with_an_intercept(n, m1, m2):
    z1, z2 = related(n, m1, m2)
    everything = slice(n)
    assert measures.r_squared(z1, z2) == pytest.approx(numpy_r_squared(z1, z2, everything, everything))


def test_r_squared_of_one_variable_is_the_square_of_pearson_s_correlation():
    z1, z2 = related(50, 1, 1)
    expected = stats.pearsonr(z1[:, 0], z2[:, 0]).statistic ** 2
    assert measures.r_squared(z1, z2) == pytest.approx(expected)


@pytest.mark.parametrize("n", [400, 401])
def test_held_out_r_squared_fits_the_first_half_and_scores_the_second(n):
    z1, z2 = related(n, 8, 5)
    expected = numpy_r_squared(z1, z2, slice(n // 2), slice(n // 2, n))
    assert measures.r_squared(z1, z2, heldout=True) == pytest.approx(expected, abs=1e-5)
    assert measures.r_squared(z1, z2, heldout=True) < measures.r_squared(z1, z2)
    swapped = [torch.cat([z[n // 2 :], z[: n // 2]]) for z in (z1, z2)]
    assert measures.r_squared(*swapped, heldout=True) != pytest.approx(expected, abs=1e-5)


def test_held_out_r_squared_of_unrelated_features_is_below_zero_where_the_in_sample_one_is_high():
    z1, z2 = draw(200, 80), draw(200, 20, seed=1)
    assert measures.r_squared(z1, z2) > 0.35
    assert measures.r_squared(z1, z2, heldout=True) < -0.5


def test_held_out_scores_about_the_mean_of_the_scored_rows():
    z1 = torch.zeros(8, 1).double()
    z2 = torch.tensor([0.0, 0, 0, 0, 4, 4, 6, 6]).double()[:, None]  # predicted 0; their own mean is 5
    assert measures.r_squared(z1, z2, heldout=True) == pytest.approx(1 - (16 + 16 + 36 + 36) / 4)


def test_uncentred_r_squared_credits_a_shared_mean():
    z1, z2 = draw(500, 5), 3 + draw(500, 5, seed=1)
    everything = slice(500)
    uncentred = measures.r_squared(z1, z2, centred=False)
    assert uncentred == pytest.approx(numpy_r_squared(z1, z2, everything, everything, centred=False))
    assert uncentred > 0.85
    assert measures.r_squared(z1, z2) < 0.05


@pytest.mark.parametrize("heldout", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_r_squared_of_a_constant_target_is_nan(heldout, dtype):
    z1, z2 = features(20, 3).to(dtype), torch.full((20, 2), 0.1, dtype=dtype)
    assert math.isnan(measures.r_squared(z1, z2, heldout=heldout))
    assert math.isnan(measures.r_squared(z1, torch.zeros_like(z2), heldout=heldout, centred=False))


def test_r_squared_from_constant_features_is_zero():
    assert measures.r_squared(torch.full((20, 2), 0.1), features(20, 3).float()) == pytest.approx(0, abs=1e-9)


def test_r_squared_has_a_direction():
    z2 = features(300, 20)
    z1 = z2[:, :1]
    assert measures.r_squared(z2, z1) == pytest.approx(1)
    assert measures.r_squared(z1, z2) < 0.15


def test_r_squared_is_unchanged_by_affine_maps_of_the_predictor_and_permuted_units():
    z1, z2 = related(100, 8, 5)
    expected = measures.r_squared(z1, z2)
    assert measures.r_squared(z1 @ draw(8, 8, seed=3) - 7, z2) == pytest.approx(expected)
    assert measures.r_squared(z1.flip(1), z2.roll(1, 1)) == pytest.approx(expected)


def test_r_squared_is_unchanged_by_dead_constant_and_duplicated_units_of_the_predictor():
    z1, z2 = related(100, 8, 5)
    more = torch.cat([z1, torch.zeros(100, 2).double(), torch.full((100, 1), 10.0).double(), z1], 1)
    assert measures.r_squared(more, z2) == pytest.approx(measures.r_squared(z1, z2))


@pytest.mark.parametrize("constant", [0.0, 10.0, 1000.0])
def test_held_out_r_squared_is_unchanged_by_a_constant_unit_of_the_predictor(constant):
    z1, z2 = related(100, 40, 5)
    more = torch.cat([z1, torch.full((100, 1), constant).double()], 1)
    expected = measures.r_squared(z1, z2, heldout=True)
    assert measures.r_squared(more, z2, heldout=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n, m", [(60, 20), (200, 50)])
def test_adjusted_r_squared_of_unrelated_features_is_zero_on_average_and_in_sample_the_chance_floor(n, m):
    pairs = [(features(n, m, seed=2 * i), features(n, 30, seed=2 * i + 1)) for i in range(30)]
    in_sample = np.mean([measures.r_squared(*pair) for pair in pairs])
    adjusted = np.mean([measures.r_squared(*pair, adjusted=True) for pair in pairs])
    assert in_sample == pytest.approx(m / (n - 1), abs=0.01)
    assert in_sample == pytest.approx(measures.chance_floor(pairs[0][0]), abs=0.01)
    assert adjusted == pytest.approx(0, abs=0.01)


def test_adjusted_r_squared_is_the_textbook_formula_with_the_rank_of_the_predictor():
    z1, z2 = related(60, 8, 5, noise=3)
    doubled = torch.cat([z1, z1, torch.zeros(60, 1)], 1)
    expected = 1 - (1 - measures.r_squared(z1, z2)) * 59 / (59 - 8)
    assert measures.r_squared(z1, z2, adjusted=True) == pytest.approx(expected)
    assert measures.r_squared(doubled, z2, adjusted=True) == pytest.approx(expected)


def test_adjusted_r_squared_is_nan_when_no_degrees_of_freedom_are_left():
    assert math.isnan(measures.r_squared(draw(10, 9), draw(10, 2, seed=1), adjusted=True))
    assert math.isfinite(measures.r_squared(draw(10, 8), draw(10, 2, seed=1), adjusted=True))


def test_in_sample_r_squared_of_low_rank_features_in_single_precision_counts_only_their_true_directions():
    low = draw(300, 5) @ draw(5, 2000, seed=1)  # rounded, it has 299 directions, all but five of noise
    target = draw(300, 50, seed=2).float()
    assert measures.r_squared(low.float(), target) == pytest.approx(
        measures.r_squared(low[:, :5], target), abs=1e-6
    )


def test_one_hugely_inflated_unit_hides_the_others_from_a_held_out_r_squared_as_documented():
    z = draw(2000, 20)
    target = z[:, 1:] @ draw(19, 5, seed=1)
    scores = [
        measures.r_squared(torch.cat([scale * z[:, :1], z[:, 1:]], 1), target, heldout=True)
        for scale in (1, 300)
    ]
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert scores[1] < 0.9


def test_r_squared_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="adjusted"):
        measures.r_squared(draw(20, 2), draw(20, 2), heldout=True, adjusted=True)
    with pytest.raises(ValueError, match="not one held out or uncentred"):
        measures.r_squared(draw(20, 2), draw(20, 2), centred=False, adjusted=True)
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        measures.r_squared(draw(3, 2), draw(3, 2), heldout=True)
    with pytest.raises(ValueError, match=r"\(20, 2\) and \(19, 2\)"):
        measures.r_squared(draw(20, 2), draw(19, 2))


def test_r_squared_flattens_feature_maps():
    z1, z2 = related(60, 8, 6)
    maps = measures.r_squared(z1.reshape(60, 2, 2, 2), z2.reshape(60, 3, 2, 1))
    assert maps == pytest.approx(measures.r_squared(z1, z2))


# --- Rank, floor, live units ---------------------------------------------------------------------


def test_rank_counts_independent_columns_only():
    z = features(60, 6)
    extra = [torch.zeros(60, 2), torch.full((60, 1), 0.1), z[:, :2], (z[:, 0] + z[:, 1])[:, None]]
    assert measures.rank(z) == 6
    assert measures.rank(torch.cat([z, *extra], 1)) == 6
    assert measures.rank(torch.cat([z, *extra], 1).float()) in (6, 7)  # the sum is rounded in float32


@pytest.mark.parametrize("n, m, expected", [(5, 20, 4), (20, 20, 19), (21, 20, 20), (2, 3, 1)])
def test_rank_is_at_most_one_less_than_the_rows_because_features_are_centred(n, m, expected):
    assert measures.rank(draw(n, m)) == expected
    assert measures.chance_floor(draw(n, m)) == pytest.approx(expected / (n - 1))


def test_rank_and_chance_floor_of_constant_features_are_zero():
    for value in (0.0, 0.1):
        assert measures.rank(torch.full((11, 3), value)) == 0
        assert measures.chance_floor(torch.full((11, 3), value)) == 0


@given(n=st.integers(2, 15), m=st.integers(1, 15), r=st.integers(1, 15), seed=st.integers(0, 10**6))
def test_rank_of_a_product_of_factors_is_its_inner_dimension(n, m, r, seed):
    z = draw(n, r, seed=seed) @ draw(r, m, seed=seed + 1)
    assert measures.rank(z) == min(n - 1, m, r)


@pytest.mark.parametrize("m", [1, 4, 9])
def test_effective_rank_of_isotropic_features_is_their_number(m):
    assert measures.effective_rank(3 * orthonormal(40, m) + 5) == pytest.approx(m)


def test_effective_rank_of_a_single_direction_is_one():
    assert measures.effective_rank(draw(40, 1) @ draw(1, 9, seed=1) + 2) == pytest.approx(1)


def test_effective_rank_is_the_participation_ratio_of_the_variances():
    scaled = orthonormal(40, 3) * torch.tensor([1, 2, 3]).double()
    assert measures.effective_rank(scaled) == pytest.approx((1 + 4 + 9) ** 2 / (1 + 16 + 81))
    assert measures.effective_rank(draw(5, 12)) <= 4  # fewer rows than columns


def test_effective_rank_of_features_without_variance_is_nan():
    assert math.isnan(measures.effective_rank(torch.full((10, 3), 0.1)))


def test_live_units_counts_the_columns_that_vary():
    z = torch.tensor([[0, 0, 0.1, -1, 0, 2], [0, 1, 0.1, -1, 0, 2], [0, 0, 0.1, -2, 1e-30, 2]])
    assert measures.live_units(z) == 3
    assert measures.live_units(z.reshape(3, 3, 2, 1)) == 3
    assert measures.live_units(torch.zeros(4, 2)) == 0


def test_predictability_gathers_the_readings_of_r_squared_with_what_to_judge_them_by():
    z1, z2 = related(60, 8, 5)
    z1 = torch.cat([z1, torch.zeros(60, 2)], 1)
    reading = measures.predictability(z1, z2)
    assert reading.in_sample == pytest.approx(measures.r_squared(z1, z2))
    assert reading.adjusted == pytest.approx(measures.r_squared(z1, z2, adjusted=True))
    assert reading.heldout == pytest.approx(measures.r_squared(z1, z2, heldout=True))
    assert reading.chance_floor == pytest.approx(8 / 59)
    assert (reading.rank, reading.live_units, reading.n) == (8, 8, 60)
    assert reading.effective_rank == pytest.approx(measures.effective_rank(z1))
    assert math.isnan(measures.predictability(draw(10, 9), draw(10, 2, seed=1)).adjusted)


# --- Components, correlation, alignment ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_first_component_is_numpy_s_first_singular_vector_with_its_largest_loading_positive(seed):
    z = draw(50, 6, seed=seed) @ draw(6, 6, seed=seed + 100)
    u, s, vh = np.linalg.svd((z - z.mean(0)).numpy(), full_matrices=False)
    sign = np.sign(vh[0][np.abs(vh[0]).argmax()])
    np.testing.assert_allclose(measures.first_component(z).numpy(), sign * u[:, 0] * s[0], atol=1e-9)


def test_first_component_of_what_is_not_finite_is_nan():
    z = draw(50, 4)
    z[3, 1] = math.inf
    assert measures.first_component(z).isnan().all()


@given(seed=st.integers(0, 10**6), main=st.integers(0, 3))
def test_first_component_rises_with_its_main_unit(seed, main):
    z = draw(50, 4, seed=seed)
    z[:, main] *= -10
    projected = measures.first_component(z)
    assert np.corrcoef(projected, z[:, main])[0, 1] > 0.9
    assert projected.mean().item() == pytest.approx(0, abs=1e-9)


def test_pearson_is_numpy_s_on_all_entries_in_a_list():
    z1, z2 = features(30, 4), features(30, 4, seed=1) + features(30, 4)
    expected = np.corrcoef(z1.flatten(), z2.flatten())[0, 1]
    assert measures.pearson(z1, z2) == pytest.approx(expected)
    assert measures.pearson(z1, z2) == pytest.approx(stats.pearsonr(z1.flatten(), z2.flatten()).statistic)
    assert measures.pearson(z1, -2 * z1 + 1) == pytest.approx(-1)


def test_permuted_units_ruin_pearson_and_leave_r_squared_at_one():
    z = draw(200, 10)
    permuted = z.roll(1, 1)
    assert measures.pearson(z, z) == pytest.approx(1)
    assert abs(measures.pearson(z, permuted)) < 0.1
    assert measures.r_squared(z, permuted) == pytest.approx(1)


def test_pearson_of_constant_features_is_nan_and_of_unequal_shapes_refused():
    assert math.isnan(measures.pearson(torch.full((10, 3), 0.1), torch.rand(10, 3)))
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 2\)"):
        measures.pearson(torch.rand(10, 3), torch.rand(10, 2))


def song_hsic(k1, k2):
    """The unbiased HSIC of Song et al. (2007), Eq. 5, term by term from two N × N kernels."""
    n = len(k1)
    k1, k2 = k1 - np.diag(np.diag(k1)), k2 - np.diag(np.diag(k2))
    ones = np.ones(n)
    terms = (
        np.trace(k1 @ k2)
        + (ones @ k1 @ ones) * (ones @ k2 @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k1 @ k2 @ ones)
    )
    return terms / (n * (n - 3))


def song_cka(z1, z2):
    k1, k2 = (z.numpy() @ z.numpy().T for z in (z1, z2))
    return song_hsic(k1, k2) / math.sqrt(song_hsic(k1, k1) * song_hsic(k2, k2))


def biased_cka(z1, z2):
    a, b = ((z - z.mean(0)).numpy() for z in (z1, z2))
    return np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))


@pytest.mark.parametrize("n, m1, m2", [(4, 3, 3), (20, 5, 7), (12, 30, 2), (100, 8, 8)])
def test_cka_equals_the_unbiased_estimator_of_song_et_al_from_its_kernels(n, m1, m2):
    z1, z2 = related(n, m1, m2)
    assert measures.cka(z1, z2) == pytest.approx(song_cka(z1, z2), rel=1e-9)  # uncentred kernels: the same


def test_cka_of_unrelated_features_is_zero_on_average_where_the_biased_one_is_not():
    pairs = [(features(30, 20, seed=2 * i), features(30, 20, seed=2 * i + 1)) for i in range(30)]
    assert np.mean([measures.cka(*pair) for pair in pairs]) == pytest.approx(0, abs=0.03)
    assert np.mean([biased_cka(*pair) for pair in pairs]) > 0.3


def test_cka_is_one_up_to_scale_rotation_and_shift_and_lower_under_other_linear_maps():
    z = features(60, 8)
    rotation = torch.linalg.qr(draw(8, 8, seed=1)).Q
    assert measures.cka(z, -2 * z @ rotation + 3) == pytest.approx(1)
    assert measures.cka(z, z * torch.tensor([10.0] + [1] * 7)) < 0.8


def test_cka_is_symmetric_and_sensitive_to_which_row_is_which():
    z1, z2 = related(60, 8, 5)
    assert measures.cka(z1, z2) == pytest.approx(measures.cka(z2, z1))
    assert measures.cka(z1, z2.roll(1, 0)) < measures.cka(z1, z2) - 0.2


def test_cka_of_constant_features_is_nan_and_of_three_rows_refused():
    assert math.isnan(measures.cka(torch.full((10, 3), 0.1), torch.rand(10, 3)))
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        measures.cka(torch.rand(3, 2), torch.rand(3, 2))


# --- Gradients of the input ----------------------------------------------------------------------


def reader(*rows):
    """A classifier of two pixels, linear, so that its gradient is known: Wᵀ(p − 1_y)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, len(rows), bias=False))
    model[1].weight.data = torch.tensor(rows)
    return model


def test_the_cosine_of_gradients_by_hand():
    """With two classes the gradient points along the rows' difference, (−1, 1) against (0, 1) say."""
    x, y = torch.rand(700, 1, 1, 2), torch.arange(700) % 2  # more than one slice
    one, other = reader([1.0, 0.0], [0.0, 1.0]), reader([0.0, 0.0], [0.0, 1.0])
    assert measures.gradient_cosine(one, other, x, y) == pytest.approx(1 / math.sqrt(2), abs=1e-6)
    assert measures.gradient_cosine(one, one, x, y) == pytest.approx(1, abs=1e-6)
    opposite = reader([0.0, 1.0], [1.0, 0.0])
    assert measures.gradient_cosine(one, opposite, x, y) == pytest.approx(-1, abs=1e-6)


def test_a_gradient_of_any_size_has_a_direction_and_one_of_zero_none():
    x, y = torch.ones(4, 1, 1, 2), torch.zeros(4, dtype=torch.long)
    one, sure = reader([1.0, 0.0], [0.0, 1.0]), reader([14.0, 0.0], [0.0, -7.0])  # wrong by e⁻²¹
    assert measures.gradient_cosine(one, sure, x, y) == pytest.approx(0.316228, abs=1e-5)  # (−1, 1), (−2, −1)
    assert measures.gradient_cosine(one, reader([1.0, 1.0], [1.0, 1.0]), x, y) == 0


def test_gradients_are_taken_in_eval_mode_and_leave_none_behind():
    models = [CNN(), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10)).train()]
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6)
    before = models[1][1].running_mean.clone()
    found = measures.gradient_cosine(*models, x, y)
    assert found == pytest.approx(measures.gradient_cosine(models[1], models[0], x, y), abs=1e-6)
    assert models[1].training and torch.equal(models[1][1].running_mean, before)
    assert all(p.grad is None for model in models for p in model.parameters()) and not x.requires_grad
    with pytest.raises(ValueError, match="labels"):
        measures.gradient_cosine(*models, x, y[:3])
    with pytest.raises(ValueError, match="floating"):
        measures.gradient_cosine(*models, x.byte(), y)


# --- Parameter distance --------------------------------------------------------------------------


def test_parameter_distance_by_hand():
    one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[1.0, 2.0]])), one.bias.fill_(3)
        other.weight.copy_(torch.tensor([[0.0, 4.0]])), other.bias.fill_(3.5)
    assert measures.parameter_distance(one, other).item() == pytest.approx(1 + 4 + 0.25)
    assert measures.parameter_distance(one, one).item() == 0


def test_the_gradient_of_parameter_distance_is_twice_the_difference_with_opposite_signs():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    measures.parameter_distance(one, other).backward()
    for p1, p2 in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p1.grad, 2 * (p1 - p2).detach())
        torch.testing.assert_close(p2.grad, -2 * (p1 - p2).detach())


def test_buffers_do_not_count_as_parameters():
    one, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    one.running_mean += 100
    assert measures.parameter_distance(one, other).item() == 0


@pytest.mark.parametrize(
    "one, other",
    [
        (nn.Linear(2, 3), nn.Linear(3, 2)),
        (nn.Linear(2, 1), nn.Linear(2, 1, bias=False)),
        (nn.Linear(1, 4), nn.Linear(4, 1)),  # the same number of parameters
    ],
)
def test_models_of_different_shape_have_no_distance(one, other):
    with pytest.raises(ValueError, match="differ in their parameters"):
        measures.parameter_distance(one, other)


# --- Predictions ---------------------------------------------------------------------------------


class Lookup(nn.Module):
    """Answers from a table: image number k, written into its pixels, gets class answers[k]."""

    def __init__(self, answers):
        super().__init__()
        self.register_buffer("logits", nn.functional.one_hot(torch.tensor(answers), 10).float())

    def forward(self, x):
        return self.logits[x.flatten(1)[:, 0].long()]


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)


class Normalised(nn.Module):
    """Its output depends on its mode: BatchNorm uses the batch in training, running statistics in eval."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.frozen = nn.BatchNorm1d(3)
        self.body[2].running_mean += 0.5

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.frozen(self.features(x))


def test_accuracy_by_hand():
    model = Lookup([1, 2, 3, 4])
    assert measures.accuracy(model, numbered(0, 1, 2, 3), torch.tensor([1, 2, 0, 4])) == 0.75


@pytest.mark.parametrize("n", [1, 499, 500, 501])
def test_predictions_in_batches_are_those_of_all_images_at_once(n):
    answers = torch.arange(n) * 7 % 10
    model = Lookup(answers.tolist())
    assert measures.predictions(model, numbered(*range(n))).equal(answers)


def test_features_are_flattened_and_hold_no_gradient(trained_cnn, mnist_test):
    z = measures.features(trained_cnn, mnist_test.x[:7])
    assert z.shape == (7, 784) and not z.requires_grad
    torch.testing.assert_close(z, trained_cnn.features(mnist_test.x[:7]).flatten(1).detach())


X, Y = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
MEASURES = {
    "predictions": lambda model: measures.predictions(model, X),
    "features": lambda model: measures.features(model, X),
    "accuracy": lambda model: measures.accuracy(model, X, Y),
    "transfer_counts": lambda model: measures.transfer_counts(model, Lookup([0, 1, 2]), X, Y, X),
    "transfer_rate": lambda model: measures.transfer_rate(Lookup([0, 1, 2]), model, X, Y),
    "transfer_matrix": lambda model: measures.transfer_matrix([model], [X], Y, X).both_fooled,
}


@pytest.mark.parametrize("measure", MEASURES)
def test_models_are_measured_in_eval_mode_and_get_every_mode_and_statistic_back(measure):
    model = Normalised().eval()
    expected = MEASURES[measure](model)
    model.train()
    model.frozen.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = MEASURES[measure](model)
    assert result.equal(expected) if isinstance(result, torch.Tensor) else result == expected
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {name: name != "frozen" for name in modes}
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_a_model_reads_in_batches_in_eval_mode_and_without_gradients():
    model, x = Normalised(), numbered(0, 1, 2)
    expected = model.eval()(x)
    model.train()
    found = measures.in_batches(model, x, size=2)
    torch.testing.assert_close(found, expected)
    assert model.training and not found.requires_grad


def test_modes_come_back_when_a_measure_fails():
    model = Normalised().train()
    with pytest.raises(RuntimeError):
        measures.predictions(model, torch.rand(3, 1, 5, 5))
    assert all(module.training for module in model.modules())


# --- Transfer ------------------------------------------------------------------------------------

# Images 0 to 5 are attacked, of true class 0; 6 to 11 are their clean originals.
# The source is fooled by 0 to 3 and wrong by itself on the original of 3;
# the target is fooled by 0, 1, 3, 4 and wrong by itself on the original of 1.
SOURCE = Lookup([1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0])
TARGET = Lookup([2, 1, 0, 1, 1, 0, 0, 2, 0, 0, 0, 0])
ATTACKED, CLEAN, ZEROS = numbered(*range(6)), numbered(*range(6, 12)), torch.zeros(6, dtype=torch.int64)


def test_printed_transfer_rate_by_hand():
    counts = measures.transfer_counts(SOURCE, TARGET, ATTACKED, ZEROS)
    assert counts == (3, 4)  # of 0, 1, 2, 3 the target misses 0, 1, 3
    assert counts.rate == measures.transfer_rate(SOURCE, TARGET, ATTACKED, ZEROS) == 0.75


def test_transfer_rate_among_images_both_models_get_right_by_hand():
    counts = measures.transfer_counts(SOURCE, TARGET, ATTACKED, ZEROS, CLEAN)
    assert counts == (1, 2)  # 1 and 3 were already wrong; of 0 and 2 the target misses 0
    assert measures.transfer_rate(SOURCE, TARGET, ATTACKED, ZEROS, CLEAN) == 0.5


def test_transfer_rate_has_a_direction():
    assert measures.transfer_counts(TARGET, SOURCE, ATTACKED, ZEROS) == (3, 4)
    fooled_once = Lookup([1] + [0] * 11)
    assert measures.transfer_counts(fooled_once, TARGET, ATTACKED, ZEROS) == (1, 1)
    assert measures.transfer_counts(TARGET, fooled_once, ATTACKED, ZEROS) == (1, 4)


def test_transfer_rate_is_nan_when_nothing_fools_the_source():
    robust = Lookup([0] * 12)
    assert math.isnan(measures.transfer_rate(robust, TARGET, ATTACKED, ZEROS))
    assert measures.transfer_counts(robust, TARGET, ATTACKED, ZEROS) == (0, 0)
    wrong_by_itself = Lookup([1] * 12)
    assert math.isnan(measures.transfer_rate(wrong_by_itself, TARGET, ATTACKED, ZEROS, CLEAN))


def test_a_null_attack_has_a_printed_rate_but_no_conditioned_one():
    """On unchanged images the printed definition counts the errors that both models make anyway."""
    one, other = Lookup([1, 1, 0, 0]), Lookup([1, 0, 0, 0])
    x, y = numbered(0, 1, 2, 3), torch.zeros(4, dtype=torch.int64)
    assert measures.transfer_rate(one, other, x, y) == 0.5
    assert math.isnan(measures.transfer_rate(one, other, x, y, x))


@pytest.mark.parametrize("y", [ZEROS[:5], ZEROS[:, None], torch.zeros(6, 10), ZEROS[0]])
def test_labels_are_one_for_each_image_and_nothing_that_broadcasts(y):
    """(N, 1) against (N,) would be compared as N × N."""
    refused = partial(pytest.raises, ValueError, match=r"6 images need labels of shape \(6,\), got \(")
    with refused():
        measures.accuracy(SOURCE, ATTACKED, y)
    with refused():
        measures.transfer_rate(SOURCE, TARGET, ATTACKED, y)
    with refused():
        measures.transfer_matrix([SOURCE, TARGET], [ATTACKED, ATTACKED], y)


def test_transfer_refuses_another_number_of_clean_images_than_labels():
    with pytest.raises(ValueError, match=r"5 images need labels of shape \(5,\), got \(6,\)"):
        measures.transfer_rate(SOURCE, TARGET, ATTACKED, ZEROS, CLEAN[:5])


@pytest.mark.parametrize("clean", [None, CLEAN], ids=["printed", "conditioned"])
def test_transfer_matrix_holds_every_pairwise_rate_and_ones_on_its_diagonal(clean):
    robust = Lookup([0] * 12)
    models = [SOURCE, TARGET, Lookup([0, 1, 2, 3, 4, 5] + [0] * 6), robust]
    x_adv = [ATTACKED, numbered(1, 0, 2, 4, 3, 5), ATTACKED, ATTACKED]  # crafted on different models
    matrix = measures.transfer_matrix(models, x_adv, ZEROS, clean)
    for i, source in enumerate(models):
        for j, target in enumerate(models):
            counts = measures.transfer_counts(source, target, x_adv[i], ZEROS, clean)
            assert (int(matrix.both_fooled[i, j]), int(matrix.source_fooled[i, j])) == counts
            assert matrix.rates[i, j].item() == pytest.approx(counts.rate, nan_ok=True)
            bounds = matrix.low[i, j].item(), matrix.high[i, j].item()
            assert bounds == pytest.approx(measures.wilson_interval(*counts), nan_ok=True, abs=1e-6)
    assert matrix.rates.diagonal()[:3].tolist() == [1, 1, 1]
    assert matrix.rates[3].isnan().all()  # nothing fools the robust model


def test_transfer_matrix_takes_row_i_from_the_images_crafted_on_model_i():
    x_adv = [ATTACKED[:3], ATTACKED[3:]]
    matrix = measures.transfer_matrix([SOURCE, TARGET], x_adv, ZEROS[:3])
    assert matrix.both_fooled.tolist() == [[3, 2], [1, 2]]
    assert matrix.source_fooled.tolist() == [[3, 3], [2, 2]]


def test_transfer_matrix_refuses_a_wrong_number_of_image_sets_or_images():
    with pytest.raises(ValueError, match="got 2 models, 1 x_adv"):
        measures.transfer_matrix([SOURCE, TARGET], [ATTACKED], ZEROS)
    with pytest.raises(ValueError, match=r"5 images need labels of shape \(5,\), got \(6,\)"):
        measures.transfer_matrix([SOURCE, TARGET], [ATTACKED, ATTACKED[:5]], ZEROS)
    with pytest.raises(ValueError, match=r"1 images need labels of shape \(1,\), got \(6,\)"):
        measures.transfer_matrix([SOURCE, TARGET], [ATTACKED, ATTACKED], ZEROS, ATTACKED[:1])


# --- Intervals -----------------------------------------------------------------------------------


@given(total=st.integers(1, 5000), share=st.floats(0, 1), confidence=st.sampled_from([0.68, 0.95, 0.99]))
def test_wilson_interval_is_its_formula_and_holds_the_share(total, share, confidence):
    count = round(share * total)
    low, high = measures.wilson_interval(count, total, confidence)
    z, p = stats.norm.ppf((1 + confidence) / 2), count / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert 0 <= low <= p + 1e-12 and p - 1e-12 <= high <= 1


def test_wilson_interval_of_none_and_of_all_stays_open_on_one_side():
    z2 = stats.norm.ppf(0.975) ** 2
    assert measures.wilson_interval(0, 10) == pytest.approx((0, z2 / (10 + z2)), abs=1e-12)
    assert measures.wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1), abs=1e-12)


def test_wilson_interval_of_nothing_is_nan_and_of_an_impossible_count_refused():
    assert all(math.isnan(bound) for bound in measures.wilson_interval(0, 0))
    for count, total in ((3, 2), (-1, 2), (1, 0)):
        with pytest.raises(ValueError, match=f"got {count} of {total}"):
            measures.wilson_interval(count, total)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("values", [[1.0, 2.0], [0.1, 0.4, 0.2, 0.35, 0.3], [1e6, 1e6 + 1, 1e6 + 3]])
def test_mean_interval_is_scipy_s_student_t_interval(values, confidence):
    interval = measures.mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)
    assert interval.half_width == pytest.approx((high - low) / 2, rel=1e-6)
    assert interval.n == len(values)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_a_confidence_that_is_no_share_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence lies between 0 and 1, got"):
        measures.mean_interval([1.0, 2.0], confidence)


def test_mean_interval_leaves_nan_out_and_knows_no_width_for_one_trial():
    assert measures.mean_interval([1.0, math.nan, 3.0]) == measures.mean_interval([1.0, 3.0])
    one = measures.mean_interval([0.25])
    assert (one.mean, one.n) == (0.25, 1) and math.isnan(one.half_width)
    none = measures.mean_interval([math.nan])
    assert none.n == 0 and math.isnan(none.mean) and math.isnan(none.half_width)
    assert measures.mean_interval([2.0, 2.0]).half_width == 0


def test_constant_features_have_no_rank_and_no_alignment_in_either_precision():
    for dtype in (torch.float32, torch.float64):
        constant = torch.full((7, 3), 0.1, dtype=dtype)
        assert measures.rank(constant) == 0
        assert math.isnan(measures.effective_rank(constant))
        assert math.isnan(measures.cka(constant, torch.randn(7, 3, dtype=dtype)))


# --- mps -----------------------------------------------------------------------------------------


class Mps(torch.Tensor):
    """A tensor that says it is on mps, where there is no float64; only `cpu` takes it from there."""

    device = torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("mps has no float64")


ON_MPS = {
    "accuracy": lambda z1, z2, y: measures.accuracy(nn.Identity(), z1, y),
    "transfer_rate": lambda z1, z2, y: measures.transfer_rate(nn.Identity(), nn.Tanh(), z1, y),
    "r_squared": lambda z1, z2, y: measures.r_squared(z1, z2, adjusted=True),
    "heldout": lambda z1, z2, y: measures.r_squared(z1, z2, heldout=True),
    "predictability": lambda z1, z2, y: measures.predictability(z1, z2),
    "rank": lambda z1, z2, y: measures.rank(z1),
    "effective_rank": lambda z1, z2, y: measures.effective_rank(z1),
    "first_component": lambda z1, z2, y: measures.first_component(z1).tolist(),
    "pearson": lambda z1, z2, y: measures.pearson(z1, z1 + z2),
    "cka": lambda z1, z2, y: measures.cka(z1, z2),
}


@pytest.mark.parametrize("measure", ON_MPS)
def test_what_is_measured_on_mps_goes_through_the_cpu_to_double_precision(measure):
    inputs = features(60, 5).float(), features(60, 5, seed=1).float(), torch.arange(60) % 5
    expected = ON_MPS[measure](*inputs)
    assert ON_MPS[measure](*(tensor.as_subclass(Mps) for tensor in inputs)) == expected


def test_a_held_out_fit_keeps_every_column_and_leaves_dependent_ones_to_its_ridge():
    x = draw(60, 80, seed=1)  # 30 fitted rows for 80 columns: any 30 of them would fit exactly, and wildly
    y = draw(60, 5, seed=2)
    one, two = x[:30] - x[:30].mean(0), y[:30] - y[:30].mean(0)
    ridge = measures.HELDOUT_RIDGE * one.square().sum(0).max()
    weight = torch.linalg.solve(one.T @ one + ridge * torch.eye(80, dtype=x.dtype), one.T @ two)
    left = y[30:] - y[:30].mean(0) - (x[30:] - x[:30].mean(0)) @ weight
    total = (y[30:] - y[30:].mean(0)).square().sum()
    expected = 1 - left.square().sum() / total
    assert measures.r_squared(x, y, heldout=True) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x: x.new_zeros(len(x), 2, 10), r"\(4, 2, 10\)"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x.new_zeros(len(x), 1), r"\(4, 1\)"),  # its only class would always be right
    ],
)
def test_a_model_that_gives_no_row_of_logits_is_refused(answer, got):
    class Model(torch.nn.Module):
        def forward(self, x):
            return answer(x)

    with pytest.raises(ValueError, match=f"logits \\(N, classes\\) of two classes or more, got {got}"):
        measures.accuracy(Model(), torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long))


def test_bytes_are_refused_with_what_to_do():
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    for measure in (measures.predictions, measures.features):
        with pytest.raises(ValueError, match=r"got torch\.uint8; divide bytes by 255"):
            measure(CNN(), images)


# --- What need not be linear ---------------------------------------------------------------------


def test_a_kernel_sees_what_no_linear_map_does():
    z1 = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    z2 = torch.stack([z1[:, 0].square(), torch.sin(2 * z1[:, 1])], 1)
    assert measures.r_squared(z1, z2, heldout=True) < 0.1
    assert measures.nonlinear_r_squared(z1, z2) > 0.95


def test_the_kernel_s_score_is_that_of_its_formula_by_hand():
    generator = torch.Generator().manual_seed(1)
    z1 = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    z2 = z1[:, :2].tanh() + 0.1 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    squared = (z1[:, None] - z1[None]).square().sum(2).numpy()
    inside = squared[:30, :30][np.triu_indices(30, 1)]
    median = np.sort(inside)[(len(inside) - 1) // 2]  # as torch takes it, the lower of two
    kernel = np.exp(-squared / (2 * median))
    y = z2.numpy()
    mean = y[:30].mean(0)
    predicted = mean + kernel[30:, :30] @ np.linalg.solve(kernel[:30, :30] + 1e-2 * np.eye(30), y[:30] - mean)
    wanted = 1 - ((y[30:] - predicted) ** 2).sum() / ((y[30:] - y[30:].mean(0)) ** 2).sum()
    assert measures.nonlinear_r_squared(z1, z2) == pytest.approx(wanted, rel=1e-9)


def test_the_kernel_s_score_does_not_change_when_the_predictor_is_shifted_turned_or_scaled():
    generator = torch.Generator().manual_seed(2)
    z1 = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    z2 = z1.square()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    score = measures.nonlinear_r_squared(z1, z2)
    assert measures.nonlinear_r_squared(50 * z1 @ turn + 3, z2) == pytest.approx(score, abs=1e-9)
    assert measures.nonlinear_r_squared(z1, 50 * z2 @ turn + 3) == pytest.approx(score, abs=1e-9)


def test_a_kernel_says_next_to_nothing_of_unrelated_features_or_from_a_constant():
    generator = torch.Generator().manual_seed(3)
    z1, z2 = (torch.randn(1000, 5, generator=generator) for _ in range(2))
    assert -0.5 < measures.nonlinear_r_squared(z1, z2) < 0.02
    assert measures.nonlinear_r_squared(torch.ones(1000, 5), z2) == pytest.approx(0, abs=0.01)
    assert math.isnan(measures.nonlinear_r_squared(z1, torch.ones(1000, 5)))


def test_a_kernel_needs_four_rows_and_as_many_of_both():
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        measures.nonlinear_r_squared(torch.rand(3, 2), torch.rand(3, 2))
    with pytest.raises(ValueError, match="same N"):
        measures.nonlinear_r_squared(torch.rand(8, 2), torch.rand(9, 2))


@pytest.mark.parametrize("silent", [0.7, 0.72, 0.9])
def test_a_kernel_sees_a_unit_that_is_silent_on_most_images(silent):
    """Most pairs of images coincide then; a median over all pairs would be 0."""
    generator = torch.Generator().manual_seed(5)
    z = torch.rand(2000, 1, generator=generator) * (torch.rand(2000, 1, generator=generator) > silent)
    assert measures.nonlinear_r_squared(z, z) > 0.999


@pytest.mark.parametrize("shift", [1e6, 1e7])
def test_a_large_shift_costs_the_kernel_nothing(shift):
    generator = torch.Generator().manual_seed(6)
    z1, z2 = (torch.randn(300, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    z2 = z2 + z1.square()
    score = measures.nonlinear_r_squared(z1, z2)
    assert measures.nonlinear_r_squared(z1 + shift, z2) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_r_squared_of_any_kind(value):
    z1, z2 = torch.rand(40, 3), torch.rand(40, 3)
    spoilt = z1.clone()
    spoilt[3, 1] = spoilt[30, 1] = value
    for pair in ((spoilt, z2), (z2, spoilt)):
        assert math.isnan(measures.nonlinear_r_squared(*pair))
        found = measures.predictability(*pair)
        assert math.isnan(found.in_sample) and math.isnan(found.heldout)
    assert measures.predictability(spoilt, z2).rank == 0


def test_what_varies_more_than_its_type_rounds_is_not_constant():
    """Around two million float64 still tells 10⁻⁹ apart, and float32 not a tenth."""
    z1 = torch.randn(200, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    assert measures.r_squared(z1, z1 + 2e6) == pytest.approx(1, abs=1e-6)
    assert measures.nonlinear_r_squared(z1, z1 + 2e6) > 0.9
    rounded = (1e-3 * z1 + 2e6).float()
    assert math.isnan(measures.r_squared(z1, rounded))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_pearson_is_nan_where_either_side_is_constant(value):
    """The mean of equal numbers may differ from them by rounding."""
    constant, other = torch.full((7, 3), value, dtype=torch.float64), draw(7, 3)
    assert math.isnan(measures.pearson(constant, other)) and math.isnan(measures.pearson(other, constant))

"""The least-squares fit under the loss and the measures: numpy's answer, on every shape of features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnabook import regression


def relu_features(n, m, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, m, generator=generator, dtype=torch.float64).relu().to(dtype)


def numpy_residual(z1, z2):
    design = np.column_stack([z1.double().numpy(), np.ones(len(z1))])
    return z2.double().numpy() - design @ (np.linalg.pinv(design, rcond=1e-10) @ z2.double().numpy())


@pytest.mark.parametrize(
    "n, m1, m2",
    [(50, 7, 4), (50, 1, 1), (9, 8, 3), (6, 20, 3), (2, 1, 1), (2, 5, 2), (700, 600, 3), (300, 520, 2)],
)
def test_residual_is_that_of_the_pseudo_inverse_with_an_intercept(n, m1, m2):
    z1, z2 = relu_features(n, m1), relu_features(n, m2, seed=1)
    residual = regression.fit(z1, z2).residual(z1, z2)
    np.testing.assert_allclose(residual.numpy(), numpy_residual(z1, z2), atol=1e-6)


def test_weights_and_means_are_those_of_numpy_lstsq_with_an_intercept():
    z1, z2 = relu_features(40, 5), relu_features(40, 3, seed=1)
    fit = regression.fit(z1, z2)
    design = np.column_stack([z1.numpy(), np.ones(40)])
    expected = np.linalg.lstsq(design, z2.numpy(), rcond=None)[0]
    np.testing.assert_allclose(fit.weight.numpy(), expected[:-1], atol=1e-9)
    intercept = fit.mean2 - fit.mean1 @ fit.weight
    np.testing.assert_allclose(intercept.numpy(), expected[-1], atol=1e-9)
    assert fit.kept.all()


def test_residual_on_new_rows_uses_the_means_of_the_fitted_rows():
    z1, z2 = relu_features(40, 5), relu_features(40, 3, seed=1)
    fit = regression.fit(z1[:20], z2[:20])
    predicted = (z1[20:] - z1[:20].mean(0)) @ fit.weight + z2[:20].mean(0)
    torch.testing.assert_close(fit.residual(z1[20:], z2[20:]), z2[20:] - predicted)


def test_dead_constant_duplicated_and_dependent_columns_are_dropped_and_the_others_kept():
    z = relu_features(60, 4)
    dead, constant = torch.zeros(60, 1), torch.full((60, 1), 0.3)
    columns = [z, dead.double(), constant.double(), z[:, :1], (2 * z[:, 1] - z[:, 2])[:, None]]
    fit = regression.fit(torch.cat(columns, 1), relu_features(60, 3, seed=1), eta=5e-4)
    assert fit.kept.tolist() == [True] * 4 + [False] * 4
    assert (fit.weight[~fit.kept] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_columns_are_dropped_at_the_default_eta_too(dtype):
    z, target = relu_features(60, 4, dtype=dtype), relu_features(60, 3, seed=1, dtype=dtype)
    fit = regression.fit(torch.cat([z, z, (z[:, 1] - 2 * z[:, 0])[:, None]], 1), target)
    assert fit.kept.tolist() == [True] * 4 + [False] * 5
    kept, _ = (each.kept for each in regression.fit_both(torch.cat([z, z], 1), target))
    assert kept.tolist() == [True] * 4 + [False] * 4


def test_dropped_columns_leave_the_residual_as_it_was():
    z, target = relu_features(60, 4), relu_features(60, 3, seed=1)
    more = torch.cat([torch.zeros(60, 2).double(), z, z, torch.full((60, 1), 0.3).double()], 1)
    expected = regression.fit(z, target, eta=5e-4).residual(z, target)
    residual = regression.fit(more, target, eta=5e-4).residual(more, target)
    torch.testing.assert_close(residual, expected, atol=1e-9, rtol=0)


def test_a_column_below_eta_times_the_largest_is_dropped_and_one_above_is_kept():
    z = torch.linalg.qr(relu_features(30, 3) - 0.5).Q  # orthonormal: |diag(R)| are the column norms
    target = relu_features(30, 2, seed=1)
    scale = torch.tensor([1.0, 4e-4, 6e-4], dtype=torch.float64)
    assert regression.fit(z * scale, target, eta=5e-4).kept.tolist() == [True, False, True]
    assert regression.fit(-z * scale, target, eta=5e-4).kept.tolist() == [True, False, True]


def test_more_ridge_shrinks_the_weights_by_its_share_of_the_largest_column():
    z = torch.linalg.qr(relu_features(30, 3)).Q
    z = torch.linalg.qr(z - z.mean(0)).Q  # centred and orthonormal: Z1ᵀZ1 = I
    target = relu_features(30, 2, seed=1)
    plain, shrunk = (regression.fit(z, target, ridge=r).weight for r in (0.0, 0.25))
    torch.testing.assert_close(shrunk, plain / 1.25)


@given(
    n=st.integers(2, 12),
    m1=st.integers(1, 15),
    m2=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_residuals_are_orthogonal_to_the_kept_features_and_to_the_ones(n, m1, m2, seed, scale):
    z1, z2 = scale * relu_features(n, m1, seed), relu_features(n, m2, seed + 1)
    fit = regression.fit(z1, z2, eta=5e-4)
    residual = fit.residual(z1, z2)
    assert fit.weight.isfinite().all()
    torch.testing.assert_close(residual.sum(0), torch.zeros(m2).double(), atol=1e-7, rtol=0)
    products = (z1 - z1.mean(0)).T[fit.kept] @ residual / scale
    torch.testing.assert_close(products, torch.zeros_like(products), atol=1e-4, rtol=0)


def test_fit_holds_no_gradient():
    z1, z2 = relu_features(10, 3).requires_grad_(), relu_features(10, 2, seed=1).requires_grad_()
    assert not any(tensor.requires_grad for tensor in regression.fit(z1, z2))


def test_fit_returns_the_dtype_of_its_input_and_solves_in_double_precision():
    z1, z2 = relu_features(200, 30), relu_features(200, 5, seed=1)
    exact, single = (
        regression.fit(z1.float().double(), z2.float().double()),
        regression.fit(z1.float(), z2.float()),
    )
    assert single.weight.dtype == torch.float32
    torch.testing.assert_close(single.weight, exact.weight.float(), atol=0, rtol=1e-6)


def test_matrices_flattens_feature_maps():
    maps = torch.rand(6, 4, 3, 3)
    z1, z2 = regression.matrices(maps, maps[:, 0, 0])
    assert z1.shape == (6, 36) and z2.shape == (6, 3)
    torch.testing.assert_close(z1[2], maps[2].reshape(-1))


@pytest.mark.parametrize(
    "z1, z2, message",
    [
        (torch.rand(4, 2), torch.rand(5, 2), r"same N ≥ 2, got \(4, 2\) and \(5, 2\)"),
        (torch.rand(1, 2), torch.rand(1, 2), "same N ≥ 2"),
        (torch.rand(0, 2), torch.rand(0, 2), "same N ≥ 2"),
        (torch.rand(4), torch.rand(4, 2), "same N ≥ 2"),
        (torch.rand(4, 2), torch.rand(4), "same N ≥ 2"),
        (torch.ones(4, 2, dtype=torch.int64), torch.rand(4, 2), "floating point, got torch.int64"),
        (torch.rand(4, 2), torch.ones(4, 2, dtype=torch.bool), "floating point"),
        (torch.rand(4, 0), torch.rand(4, 2), "no columns"),
        (torch.rand(4, 2), torch.rand(4, 3, 0), "no columns"),
    ],
)
def test_features_that_do_not_fit_are_refused_with_their_shapes(z1, z2, message):
    with pytest.raises(ValueError, match=message):
        regression.matrices(z1, z2)


@pytest.mark.parametrize("n, m1, m2", [(50, 7, 4), (9, 8, 12), (6, 20, 3), (2, 1, 5)])
def test_both_fits_at_once_are_the_two_fits(n, m1, m2):
    z1, z2 = relu_features(n, m1), relu_features(n, m2, seed=1)
    z1[:, 0] = 0  # a column to drop
    both = regression.fit_both(z1, z2, eta=5e-4)
    for fit, (a, b) in zip(both, ((z1, z2), (z2, z1)), strict=True):
        alone = regression.fit(a, b, eta=5e-4)
        assert (fit.kept == alone.kept).all()
        torch.testing.assert_close(fit.residual(a, b), alone.residual(a, b), atol=1e-6, rtol=0)


def test_where_no_column_is_left_every_weight_is_zero():
    z1, z2 = torch.ones(8, 3).double(), relu_features(8, 2)
    fit = regression.fit(z1, z2)
    assert not fit.kept.any() and not fit.weight.any() and fit.weight.shape == (3, 2)
    torch.testing.assert_close(fit.residual(z1, z2), z2 - z2.mean(0))
    (total,) = regression.residual_sums(z1, z2)
    torch.testing.assert_close(total, (z2 - z2.mean(0)).square().sum())


def residual_sums_and_gradients(z1, z2, **how):
    z = [features.clone().requires_grad_() for features in (z1, z2)]
    return [(total, *torch.autograd.grad(total, z)) for total in regression.residual_sums(*z, **how)]


@pytest.mark.parametrize("n, m1, m2", [(60, 9, 5), (60, 40, 5), (60, 48, 70), (400, 300, 30), (3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spoilt", [False, True])
def test_the_residual_of_a_processor_and_its_gradients_are_those_of_the_weights(
    n, m1, m2, dtype, spoilt, monkeypatch
):
    z1, z2 = relu_features(n, m1, dtype=dtype), relu_features(n, m2, seed=1, dtype=dtype)
    if spoilt and m1 > 8:  # dead, two constants, one that repeats another, one that is their sum, a faint one
        z1[:, 1], z1[:, 2], z1[:, 5], z1[:, 4], z1[:, 7] = 0, 0.3, 2, z1[:, 0], z1[:, 0] + z1[:, 3]
        z1[:, 8] *= 1e-5
        z2[:, 0] = z1[:, 6]
    found = residual_sums_and_gradients(z1, z2, eta=5e-4, both=True)
    if spoilt and m1 > 8:
        assert not found[0][1][:, [1, 2, 4, 5, 7, 8]].any()
    monkeypatch.setattr(regression, "_asking_is_free", lambda z: False)
    exact = residual_sums_and_gradients(z1.double(), z2.double(), eta=5e-4, both=True)
    scale = z2.square().sum().item()
    for ours, theirs in zip(found, exact, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == dtype
            tolerance = {torch.float64: 1e-8, torch.float32: 1e-5}[dtype] * max(1, b.abs().max().item())
            torch.testing.assert_close(a.double(), b, atol=tolerance * max(1, scale / 100), rtol=0)


@pytest.mark.parametrize("n, m", [(60, 59), (60, 60), (60, 61), (12, 20), (2, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_as_many_columns_as_rows_less_one_leave_nothing(n, m, dtype):
    z1, z2 = relu_features(n, m, dtype=dtype), relu_features(n, 5, seed=1, dtype=dtype)
    z1[0, 0], z1[1, 0] = 1, 2  # so that it varies
    for total, *gradients in residual_sums_and_gradients(z1, z2):
        assert total < 1e-8 * z2.square().sum()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_residual_sum_has_the_gradient_of_finite_differences_by_either_way():
    for n, m in ((30, 5), (14, 9)):
        z1, z2 = relu_features(n, m).requires_grad_(), relu_features(n, 3, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda a, b: regression.residual_sums(a, b, both=True), (z1, z2))


def test_one_direction_is_the_first_of_both_and_without_a_gradient_it_is_the_same_number():
    z1, z2 = relu_features(30, 20), relu_features(30, 6, seed=1)
    first, second = regression.residual_sums(z1, z2, both=True)
    assert torch.equal(first, regression.residual_sums(z1, z2)[0])
    assert torch.equal(second, regression.residual_sums(z2, z1)[0])
    assert torch.equal(first, regression.residual_sums(z1.requires_grad_(), z2)[0].detach())


@given(n=st.integers(12, 30), m=st.integers(1, 10), seed=st.integers(0, 10**6), mean=st.floats(-3, 3))
def test_from_r_of_the_centred_columns_follows_what_r_of_the_columns_says(n, m, seed, mean):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, m, generator=generator, dtype=torch.float64) + mean
    z = z * 10 ** (4 * torch.rand(m, generator=generator, dtype=torch.float64) - 4)
    diagonal = torch.linalg.qr(z).R.diagonal().abs()
    r = torch.linalg.qr(z - z.mean(0)).R
    for eta in (1e-3, 1e-2, 1e-1, 0.5):
        if ((diagonal / diagonal.max() / eta).log().abs() > 1e-6).all():  # none on the edge
            assert (
                regression._kept(r, z.mean(0), n, eta).tolist() == (diagonal > eta * diagonal.max()).tolist()
            )


@pytest.mark.parametrize("m", [5, 300])
def test_stacked_by_vmap_the_residuals_are_those_of_each(m):
    z1 = torch.stack([relu_features(400, m, seed) for seed in range(3)])
    z2 = torch.stack([relu_features(400, 4, seed + 3) for seed in range(3)])
    z1[1, :, 0] = 0  # dropped from one of them only
    found = torch.vmap(lambda a, b: regression.fit(a, b).residual(a, b))(z1, z2)
    for residual, a, b in zip(found, z1, z2, strict=True):
        torch.testing.assert_close(residual, regression.fit(a, b).residual(a, b), atol=1e-6, rtol=0)


@pytest.mark.parametrize("axes", [(0, None), (None, 0)])
def test_stacked_on_one_side_only_the_residuals_are_those_of_each(axes):
    z1, z2 = relu_features(40, 5), relu_features(40, 4, seed=1)
    several = [
        torch.stack([z, 2 * z + 1]) if axis == 0 else z for z, axis in zip((z1, z2), axes, strict=True)
    ]
    found = torch.vmap(lambda a, b: regression.fit(a, b).residual(a, b), axes)(*several)
    both = torch.vmap(lambda a, b: regression.fit_both(a, b)[1].residual(b, a), axes)(*several)
    for i in range(2):
        a, b = (z[i] if axis == 0 else z for z, axis in zip(several, axes, strict=True))
        torch.testing.assert_close(found[i], regression.fit(a, b).residual(a, b), atol=1e-6, rtol=0)
        torch.testing.assert_close(both[i], regression.fit(b, a).residual(b, a), atol=1e-6, rtol=0)

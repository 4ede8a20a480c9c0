"""Attacks: closed forms on linear objectives, balls and boxes, random starts, side effects, parity, paths."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import dnabook
from dnabook import attacks, memory
from dnabook.attacks import (
    L2,
    PATH_VARIANTS,
    Linf,
    consensus,
    craft,
    fgsm,
    l2_radius,
    mean_probability,
    paths,
    pgd,
    random_signs,
    released_fgsm_l2,
    released_pgd_l2,
    targeted,
    untargeted,
)
from dnabook.autoencoders import Reconstructor, cifar10_autoencoder, mnist_autoencoder, mnist_classifier
from dnabook.models import CNN, FullyConnected

WIDE = (-10.0, 10.0)


def linear(w):
    """The per-sample objective w·x."""
    return lambda x: (x * w).flatten(1).sum(1)


def bumpy(x):
    """A per-sample objective with many local maxima, made of exact elementwise operations and one sum."""
    return torch.sin(40 * x).flatten(1).sum(1)


def flat(x):
    """An objective whose gradient is zero everywhere."""
    return (0 * x).flatten(1).sum(1)


def images(n=4, shape=(1, 6, 6), seed=0, dtype=torch.float64):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def lengths(delta):
    return delta.flatten(1).norm(dim=1)


@pytest.fixture
def w():
    return torch.randn(1, 6, 6, dtype=torch.float64)


@pytest.fixture
def smooth():
    """A random float64 model without kinks or ties, whose gradient signs do not hang on rounding."""
    layers = nn.Conv2d(1, 4, 5), nn.Tanh(), nn.Conv2d(4, 4, 5, 2), nn.Tanh(), nn.Flatten(), nn.Linear(400, 10)
    return nn.Sequential(*layers).double()


@pytest.fixture
def digits(mnist_test):
    return mnist_test.x[:24].double(), mnist_test.y[:24]


# --- Closed forms --------------------------------------------------------------------------------

LINF_SEARCHES = {
    "fgsm": fgsm,
    "pgd": partial(pgd, random_start=False),
    "pgd from a random start": pgd,
    "pgd with momentum": partial(pgd, random_start=False, momentum=0.9),
    "pgd with restarts": partial(pgd, restarts=3),
    "pgd, box first": partial(pgd, random_start=False, box_first=True),
}


@pytest.mark.parametrize("attack", LINF_SEARCHES.values(), ids=LINF_SEARCHES)
def test_linf_attacks_reach_the_exact_optimum_of_a_linear_model(attack, w):
    x, objective = images(), linear(w)
    gain = objective(attack(objective, x, Linf(0.3), bounds=WIDE)) - objective(x)
    torch.testing.assert_close(gain, torch.full_like(gain, 0.3 * w.abs().sum()))


@pytest.mark.parametrize("attack", [fgsm, partial(pgd, random_start=False)], ids=["fgsm", "pgd"])
def test_l2_attacks_reach_the_exact_optimum_of_a_linear_model(attack, w):
    x, objective = images(), linear(w)
    x_adv = attack(objective, x, L2(1.7), bounds=WIDE)
    gain = objective(x_adv) - objective(x)
    torch.testing.assert_close(gain, torch.full_like(gain, 1.7 * w.norm()))
    torch.testing.assert_close(x_adv - x, (1.7 * w / w.norm()).expand_as(x))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_l2_pgd_converges_to_the_linear_optimum_from_a_random_start(momentum, w):
    x, objective = images(), linear(w)
    x_adv = pgd(objective, x, L2(1.7), step_size=1.0, momentum=momentum, bounds=WIDE)
    gain = objective(x_adv) - objective(x)
    torch.testing.assert_close(gain, torch.full_like(gain, 1.7 * w.norm()))


@pytest.mark.parametrize("box_first", [False, True])
@pytest.mark.parametrize("random_start", [False, True])
def test_linf_pgd_reaches_the_linear_optimum_of_ball_and_box_together(random_start, box_first, w):
    x = images()
    x_adv = pgd(linear(w), x, Linf(0.3), random_start=random_start, box_first=box_first)
    torch.testing.assert_close(x_adv, (x + 0.3 * w.sign()).clamp(0, 1))


def test_pgd_stops_within_a_step_of_a_maximum_inside_the_ball():
    x, peak = images(), images(seed=1) * 0.2 - 0.1
    x_adv = pgd(
        lambda z: -(z - x - peak).square().flatten(1).sum(1), x, Linf(0.2), step_size=0.01, bounds=WIDE
    )
    assert (x_adv - x - peak).abs().max() <= 0.01 + 1e-12


def test_the_loss_of_a_linear_model_never_falls_with_more_steps(w):
    x, objective = images(), linear(w)
    for ball in (Linf(0.3), L2(1.0)):
        losses = [
            objective(pgd(objective, x, ball, steps=steps, step_size=0.05, random_start=False))
            for steps in range(1, 12)
        ]
        assert (torch.stack(losses).diff(dim=0) >= -1e-12).all()


def test_a_single_step_has_the_given_length_in_the_norm_of_the_ball(w):
    x = images()
    one = partial(pgd, linear(w), x, steps=1, step_size=0.07, random_start=False, bounds=WIDE)
    torch.testing.assert_close((one(Linf(1.0)) - x).abs(), torch.full_like(x, 0.07))
    torch.testing.assert_close(lengths(one(L2(1.0)) - x), torch.full((len(x),), 0.07, dtype=x.dtype))


def test_the_default_step_is_two_and_a_half_times_the_ball_over_the_steps(w):
    x = images()
    for ball, size in ((Linf(0.3), 0.3), (L2(1.0), 1.0)):
        default = pgd(bumpy, x, ball, steps=7, random_start=False)
        stated = pgd(bumpy, x, ball, steps=7, step_size=2.5 * size / 7, random_start=False)
        torch.testing.assert_close(default, stated)


def test_fgsm_is_the_sign_of_the_gradient_of_the_cross_entropy(smooth, digits):
    x, y = digits
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(cross_entropy(smooth(leaf), y), leaf)
    expected = (x + 0.1 * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(untargeted(smooth, y), x, Linf(0.1)), expected)


def test_momentum_accumulates_gradients_divided_by_their_l1_norms():
    x = images(n=3, shape=(1, 2, 2))
    slopes = torch.randn(3, *x.shape, dtype=x.dtype)  # one gradient for each step, of very different lengths
    slopes *= torch.tensor([100.0, 1.0, 0.01], dtype=x.dtype).reshape(3, 1, 1, 1, 1)
    calls = iter(slopes)
    x_adv = pgd(
        lambda z: (z * next(calls)).flatten(1).sum(1), x, L2(5.0), steps=3, step_size=0.1, random_start=False,
        momentum=0.5, bounds=WIDE,
    )  # fmt: skip
    velocity, expected = torch.zeros_like(x), x
    for slope in slopes:
        velocity = 0.5 * velocity + slope / slope.abs().sum((1, 2, 3), keepdim=True)
        expected = expected + 0.1 * velocity / lengths(velocity).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(x_adv, expected)


# --- Balls and boxes -----------------------------------------------------------------------------

BOXES = [(0.0, 1.0), (-1.0, 1.0), (0.1, 0.7), (-0.42421296, 2.8214867)]


@given(
    norm=st.sampled_from([Linf, L2]),
    size=st.floats(0, 3),
    steps=st.integers(1, 6),
    step_size=st.none() | st.floats(0, 5),
    momentum=st.sampled_from([0.0, 0.5, 1.0]),
    random_start=st.booleans(),
    box_first=st.booleans(),
    bounds=st.sampled_from(BOXES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_every_perturbation_stays_in_the_ball_and_in_the_box(
    norm, size, steps, step_size, momentum, random_start, box_first, bounds, dtype, seed
):
    low, high = torch.tensor(bounds, dtype=dtype)
    x = (low + (high - low) * images(seed=seed, dtype=dtype)).clamp(low, high)
    x_adv = pgd(
        bumpy, x, norm(size), steps=steps, step_size=step_size, momentum=momentum, bounds=bounds,
        random_start=random_start, box_first=box_first, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    reach = (x_adv - x).flatten(1).abs().amax(1) if norm is Linf else lengths(x_adv - x)
    rounding = 20 * torch.finfo(dtype).eps * max(1, size)
    assert (reach <= size + rounding).all()
    assert ((x_adv >= low) & (x_adv <= high)).all()  # without tolerance: it may be attacked again
    assert x_adv.dtype == dtype


def test_ball_first_and_box_first_are_the_two_orders_worked_out_by_hand():
    x = torch.tensor([[[[0.9, 0.5]]]], dtype=torch.float64)
    step = partial(pgd, linear(torch.ones(2)), x, L2(0.5), steps=1, step_size=1.0, random_start=False)
    half = 0.5 / 2**0.5  # the step ends at (1.6, 1.2); the ball takes it to x + (half, half)
    torch.testing.assert_close(step().flatten(), x.new_tensor([1.0, 0.5 + half]))
    shrunk = 0.5 / (0.1**2 + 0.5**2) ** 0.5  # the box takes it to (1, 1), which is x + (0.1, 0.5)
    expected = x.new_tensor([0.9 + 0.1 * shrunk, 0.5 + 0.5 * shrunk])
    torch.testing.assert_close(step(box_first=True).flatten(), expected)


@pytest.mark.parametrize("box_first", [False, True])
@pytest.mark.parametrize("bounds", BOXES)
def test_no_rounding_leads_out_of_the_box_so_the_result_may_be_attacked_again(bounds, box_first):
    low, high = torch.tensor(bounds)
    x = (low + (high - low) * images(n=200, dtype=torch.float32)).clamp(low, high)
    slopes = linear(torch.randn(1, 6, 6).sign())
    for ball in (Linf(5.0), L2(50.0)):  # larger than the box: every pixel ends on an edge
        search = partial(
            pgd, slopes, ball=ball, steps=2, random_start=False, bounds=bounds, box_first=box_first
        )
        x_adv = search(x)
        assert torch.minimum(x_adv - low, high - x_adv).max() < 1e-6
        assert ((x_adv >= low) & (x_adv <= high)).all()
        search(x_adv)


@given(norm=st.sampled_from([Linf, L2]), size=st.floats(0.01, 3), seed=st.integers(0, 1000))
def test_projecting_moves_nothing_inside_the_ball_and_is_the_nearest_point_outside(norm, size, seed):
    ball, points = norm(size), 4 * images(n=8, shape=(1, 1, 3), seed=seed) - 2
    projected = ball.project(points)
    torch.testing.assert_close(ball.project(projected), projected)
    inside = (points.abs().flatten(1).amax(1) if norm is Linf else lengths(points)) <= size
    assert torch.equal(projected[inside], points[inside])
    others = ball.random_start(points.repeat(50, 1, 1, 1), torch.Generator().manual_seed(seed))
    rivals = lengths(others - points.repeat(50, 1, 1, 1))
    assert (lengths(points - projected).repeat(50) <= rivals + 1e-12).all()


def test_steepest_is_the_unit_vector_that_aligns_best_with_the_gradient():
    gradient = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    for ball, dual in ((Linf(1.0), gradient.abs().sum((1, 2, 3))), (L2(1.0), lengths(gradient))):
        torch.testing.assert_close((gradient * ball.steepest(gradient)).sum((1, 2, 3)), dual)
    torch.testing.assert_close(Linf(1.0).steepest(gradient).abs(), torch.ones_like(gradient))
    torch.testing.assert_close(lengths(L2(1.0).steepest(gradient)), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0)], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [fgsm, pgd, partial(pgd, momentum=1.0, restarts=2)])
def test_a_ball_of_size_zero_returns_the_images_themselves(ball, attack):
    x = images(dtype=torch.float32)
    assert torch.equal(attack(bumpy, x, ball), x)


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0)], ids=["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_zero_gradient_leaves_an_image_where_it_is_and_its_neighbours_move(ball, momentum):
    x = images(dtype=torch.float32)
    search = partial(pgd, random_start=False, momentum=momentum)
    assert torch.equal(search(flat, x, ball), x)
    alive = torch.tensor([1.0, 0, 1, 0]).reshape(4, 1, 1, 1)
    x_adv = search(lambda z: bumpy(z * alive), x, ball)
    assert torch.equal(x_adv[1::2], x[1::2])
    assert (lengths(x_adv - x)[::2] > 0.1).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_of_any_magnitude_are_normalised_in_float32(scale, momentum, w):
    x, w = images(dtype=torch.float32), w.float()
    for ball in (Linf(0.3), L2(1.0)):
        search = partial(pgd, x=x, ball=ball, steps=5, random_start=False, momentum=momentum, bounds=WIDE)
        torch.testing.assert_close(search(linear(scale * w)), search(linear(w)))


def test_a_tiny_gradient_does_not_underflow_in_a_large_batch():
    x = torch.zeros(256, 1, 2, 2)
    x_adv = fgsm(linear(torch.full((2, 2), 1e-37)), x, L2(1.0))  # a mean over the batch would lose it
    torch.testing.assert_close(x_adv, torch.full_like(x, 0.5))


def test_each_image_gets_a_step_of_full_length_however_small_its_gradient(w):
    x = images(dtype=torch.float32)
    weights = w.float() * torch.tensor([1e-30, 1e-10, 1.0, 1e20]).reshape(4, 1, 1, 1)
    x_adv = fgsm(linear(weights), x, L2(1.0), bounds=WIDE)
    torch.testing.assert_close(lengths(x_adv - x), torch.ones(4))


def test_the_l2_radius_is_the_length_of_a_change_of_epsilon_in_every_pixel():
    mnist, cifar = torch.zeros(2, 1, 28, 28), torch.zeros(2, 3, 32, 32)
    assert l2_radius(0.1, mnist) == pytest.approx(28 * 0.1)
    assert l2_radius(0.1, cifar) == pytest.approx(55.4 * 0.1, abs=0.005)
    for x in (mnist, cifar):
        assert l2_radius(0.1, x) == pytest.approx(float(torch.full_like(x, 0.1)[0].norm()), rel=1e-5)


def test_inputs_between_minus_one_and_one_with_twice_the_epsilon_give_the_rescaled_attack():
    x = images()
    plain = pgd(bumpy, x, Linf(0.1), random_start=False)
    scaled = pgd(lambda z: bumpy((z + 1) / 2), 2 * x - 1, Linf(0.2), random_start=False, bounds=(-1.0, 1.0))
    torch.testing.assert_close((scaled + 1) / 2, plain)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixel:
    """A third ball: one pixel an image may change, the one with the steepest slope, by at most `width`."""

    width: float | torch.Tensor

    def size(self, x):
        return Linf(self.width).size(x)

    def steepest(self, gradient):
        flat = gradient.flatten(1)
        chosen = nn.functional.one_hot(flat.abs().argmax(1), flat.shape[1])
        return (chosen * flat.sign()).reshape(gradient.shape)

    def project(self, delta):
        return Linf(self.width).project(delta)


@pytest.mark.parametrize("width", [0.3, torch.tensor([0.0, 0.1, 0.2, 0.3])])
@pytest.mark.parametrize("attack", [fgsm, partial(pgd, random_start=False)], ids=["fgsm", "pgd"])
def test_a_third_ball_may_call_its_size_what_it_likes(attack, width, w):
    x, objective = images(), linear(w)
    gain = objective(attack(objective, x, Pixel(width), bounds=WIDE)) - objective(x)
    torch.testing.assert_close(gain, (width * w.abs().max()).expand(4).to(gain))


# --- Each image on its own -----------------------------------------------------------------------

SEARCHES = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=6, random_start=False),
    "momentum": partial(pgd, steps=6, random_start=False, momentum=0.9),
}


@pytest.mark.parametrize("attack", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("ball", [Linf(0.2), L2(1.0)], ids=["linf", "l2"])
def test_an_image_is_attacked_alike_alone_and_in_a_batch(attack, ball, smooth, digits):
    x, y = digits[0][:5], digits[1][:5]
    together = attack(untargeted(smooth, y), x, ball)
    alone = [attack(untargeted(smooth, y[i : i + 1]), x[i : i + 1], ball) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_an_image_is_attacked_alike_alone_and_in_a_batch_by_a_batchnorm_model_in_training_mode(mnist_test):
    model, x, y = FullyConnected().double().train(), mnist_test.x[:4].double(), mnist_test.y[:4]
    together = fgsm(untargeted(model, y), x, Linf(0.1))
    alone = [fgsm(untargeted(model, y[i : i + 1]), x[i : i + 1], Linf(0.1)) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_neighbour_with_a_huge_gradient_does_not_shorten_the_step_of_another(w):
    x = images(n=2)
    x_adv = fgsm(linear(w * torch.tensor([1.0, 1e6]).reshape(2, 1, 1, 1)), x, L2(1.0), bounds=WIDE)
    torch.testing.assert_close(lengths(x_adv - x), torch.ones(2, dtype=x.dtype))


@pytest.mark.parametrize("attack", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_of_epsilons_equals_one_attack_for_each(attack, norm, dtype):
    x, epsilons = images(dtype=dtype), torch.tensor([0.0, 0.05, 0.2, 1.0])
    together = attack(bumpy, x, norm(epsilons))
    alone = [attack(bumpy, x[i : i + 1], norm(float(epsilons[i]))) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together[0], x[0])


def test_a_tensor_of_step_sizes_moves_each_image_by_its_own():
    x, sizes = images(), torch.tensor([0.0, 0.01, 0.02, 0.03], dtype=torch.float64)
    x_adv = pgd(bumpy, x, Linf(1.0), steps=1, step_size=sizes, random_start=False, bounds=WIDE)
    torch.testing.assert_close((x_adv - x).abs().amax((1, 2, 3)), sizes)


# --- Random starts and restarts ------------------------------------------------------------------


def starts(x, ball, generator=None):
    """The random starts themselves: one step of length zero."""
    return pgd(bumpy, x, ball, steps=1, step_size=0.0, bounds=WIDE, generator=generator) - x


def test_linf_starts_are_uniform_in_every_pixel():
    delta = starts(torch.zeros(3000, 1, 1, 2), Linf(0.3), torch.Generator().manual_seed(1)).flatten(1)
    for pixel in delta.T:
        assert stats.kstest(pixel.numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > 0.01
    assert abs(float(torch.corrcoef(delta.T)[0, 1])) < 0.05


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 1, 5), (1, 4, 4)])
def test_l2_starts_have_a_uniform_radius_to_the_power_of_the_dimension(shape):
    dimension = shape[1] * shape[2]
    delta = starts(torch.zeros(3000, *shape), L2(0.7), torch.Generator().manual_seed(1))
    assert stats.kstest((lengths(delta) / 0.7).pow(dimension).numpy(), "uniform").pvalue > 0.01


def test_l2_starts_point_in_every_direction_alike():
    delta = starts(torch.zeros(3000, 1, 1, 2), L2(0.7), torch.Generator().manual_seed(1)).flatten(1)
    angle = torch.atan2(delta[:, 0], delta[:, 1])
    assert stats.kstest(angle.numpy(), stats.uniform(-torch.pi, 2 * torch.pi).cdf).pvalue > 0.01
    assert abs(float(torch.corrcoef(torch.stack([angle, delta.norm(dim=1)]))[0, 1])) < 0.05


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0)], ids=["linf", "l2"])
def test_random_starts_repeat_with_the_generator_and_differ_without_reseeding(ball):
    x, generator = images(), torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    first, second = (pgd(bumpy, x, ball, generator=generator) for _ in range(2))
    assert torch.equal(first, pgd(bumpy, x, ball, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)  # the global state is left alone
    assert not torch.equal(pgd(bumpy, x, ball), pgd(bumpy, x, ball))


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0)], ids=["linf", "l2"])
def test_without_a_random_start_an_attack_is_deterministic_and_draws_nothing(ball):
    x, state = images(), torch.get_rng_state()
    first, second = (pgd(bumpy, x, ball, random_start=False) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0)], ids=["linf", "l2"])
def test_equal_images_get_different_random_starts(ball):
    delta = starts(torch.zeros(2, 1, 6, 6), ball)
    assert (delta[0] - delta[1]).abs().max() > 1e-3


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0)], ids=["linf", "l2"])
def test_restarts_keep_for_each_image_the_best_of_the_same_single_runs(ball):
    x = images(n=12)
    restarted = pgd(bumpy, x, ball, steps=3, restarts=4, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    runs = torch.stack([pgd(bumpy, x, ball, steps=3, generator=generator) for _ in range(4)])
    losses = torch.stack([bumpy(run) for run in runs])
    best = losses.argmax(0)
    assert len(best.unique()) > 1  # different images keep different starts
    assert torch.equal(restarted, runs[best, torch.arange(12)])
    assert (bumpy(restarted) >= losses[0]).all()  # never worse than one start


@pytest.mark.parametrize("offset", [-1e12, 0.0, 1e12])
def test_restarts_rank_losses_of_any_magnitude(offset, w):
    x = images(dtype=torch.float32)
    x_adv = pgd(lambda z: linear(w.float())(z) + offset, x, Linf(0.3), restarts=2, bounds=WIDE)
    torch.testing.assert_close(x_adv, x + 0.3 * w.float().sign())


def test_a_given_start_is_where_the_search_begins():
    x = images()
    start = (x + 0.05).clamp(0, 1)
    still = pgd(bumpy, x, Linf(0.3), steps=1, step_size=0.0, start=start)
    torch.testing.assert_close(still, start)


def test_a_given_start_outside_ball_and_box_is_brought_inside_first():
    x = images()
    still = pgd(bumpy, x, Linf(0.3), steps=1, step_size=0.0, start=torch.full_like(x, 9.0))
    torch.testing.assert_close(still, (x + 0.3).clamp(0, 1))


# --- Objectives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [Linf(0.1), L2(2.0)], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [fgsm, partial(pgd, steps=10)], ids=["fgsm", "pgd"])
def test_untargeted_attacks_leave_the_class_and_targeted_ones_approach_another(
    attack, ball, trained_cnn, mnist_test
):
    x, y = mnist_test.x[:50], mnist_test.y[:50]
    wanted = (y + 1) % 10
    away, towards = (
        attack(untargeted(trained_cnn, y), x, ball),
        attack(targeted(trained_cnn, wanted), x, ball),
    )
    with torch.no_grad():
        clean, away, towards = (trained_cnn(images) for images in (x, away, towards))
    assert cross_entropy(away, y) > cross_entropy(clean, y) + 0.5
    assert cross_entropy(towards, wanted) < cross_entropy(clean, wanted) - 0.5
    assert (away.argmax(1) == y).sum() < (clean.argmax(1) == y).sum()
    assert (towards.argmax(1) == wanted).sum() > (clean.argmax(1) == wanted).sum()


def test_pgd_raises_the_loss_more_than_fgsm(trained_cnn, mnist_test):
    x, objective = mnist_test.x[:50], untargeted(trained_cnn, mnist_test.y[:50])
    for ball in (Linf(0.1), L2(2.0)):
        assert (
            objective(pgd(objective, x, ball, steps=10)).mean() > objective(fgsm(objective, x, ball)).mean()
        )


@pytest.mark.parametrize("ball", [Linf(0.1), L2(2.0)], ids=["linf", "l2"])
def test_pgd_in_bfloat16_ends_in_the_ball_with_the_losses_of_float32(ball, trained_cnn, mnist_test):
    x, objective = mnist_test.x, untargeted(trained_cnn, mnist_test.y)
    plain, coarse = (pgd(objective, x, ball, random_start=False, bfloat16=how) for how in (False, True))
    assert coarse.dtype == torch.float32 and coarse.min() >= 0 and coarse.max() <= 1
    size = (coarse - x).abs().amax((1, 2, 3)) if isinstance(ball, Linf) else lengths(coarse - x)
    assert (size <= ball.size(x).flatten() * (1 + 1e-5)).all()
    assert not torch.equal(coarse, plain)
    before, reached, wanted = (objective(images).detach() for images in (x, coarse, plain))
    assert wanted.mean() > before.mean() + 1
    torch.testing.assert_close(reached.mean(), wanted.mean(), rtol=0.01, atol=0)
    assert (reached - wanted).abs().median() < 0.02 * wanted.median()


def test_bfloat16_is_for_the_gradients_alone(trained_cnn, mnist_test):
    seen, model = [], copy.deepcopy(trained_cnn)
    model.body[3].register_forward_hook(lambda _, given, out: seen.append(out.dtype))
    objective, x = untargeted(model, mnist_test.y[:5]), mnist_test.x[:5]
    search = partial(pgd, objective, x, Linf(0.1), steps=2)
    search(restarts=2, bfloat16=True)
    assert seen == 2 * [torch.bfloat16, torch.bfloat16, torch.float32]  # the last tells which restart to keep
    seen.clear()
    search()
    assert seen == 2 * [torch.float32]
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):  # the caller's own is left alone
        search()
    assert seen == 2 * [torch.bfloat16]


def test_bfloat16_is_refused_for_images_that_autocast_leaves_alone(trained_cnn, digits):
    x, y = digits
    with pytest.raises(ValueError, match="bfloat16=True is for float32 images"):
        pgd(untargeted(trained_cnn, y), x, Linf(0.1), bfloat16=True)


def test_a_restart_whose_final_loss_is_nan_is_not_passed_over_for_the_clean_images(mnist_test):
    x = mnist_test.x[:3]

    def overflows(z):  # where images have moved; there, too, the gradient is a number
        size = z.flatten(1).sum(1)
        return torch.where((z != x).flatten(1).any(1), size + torch.nan, size)

    found = pgd(overflows, x, Linf(0.1), steps=1, restarts=2, start=None)
    assert (found != x).flatten(1).any(1).all()


def test_model_objectives_are_the_signed_cross_entropies_of_the_images(trained_cnn, mnist_test):
    x, y = mnist_test.x[:5], mnist_test.y[:5]
    expected = -torch.log_softmax(trained_cnn(x), 1)[torch.arange(5), y]
    torch.testing.assert_close(untargeted(trained_cnn, y)(x), expected)
    torch.testing.assert_close(targeted(trained_cnn, y)(x), -expected)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))])
def test_bounds_that_are_not_two_rising_numbers_are_refused(bounds, smooth, digits):
    x, y = digits
    with pytest.raises(ValueError, match="bounds are two numbers, the lower one first"):
        fgsm(untargeted(smooth, y), x, Linf(0.1), bounds=bounds)


@pytest.mark.parametrize("objective", [untargeted, targeted])
def test_one_logit_is_refused_because_its_loss_is_always_zero(objective, digits):
    x, _ = digits
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 1))
    with pytest.raises(ValueError, match="two classes or more"):
        objective(model, torch.zeros(len(x), dtype=torch.long))(x.float())


OBJECTIVES = {"untargeted": untargeted, "targeted": targeted, "paths": paths}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_dnabook_itself_hands_out_what_three_lines_of_an_attack_need(objective):
    assert dnabook.untargeted is untargeted and dnabook.targeted is targeted and dnabook.craft is craft
    model = nn.Linear(3, 10)
    assert objective(model, torch.arange(3)).models == (model,)


@pytest.mark.parametrize("attack", [fgsm, pgd], ids=["fgsm", "pgd"])
def test_a_plain_function_is_called_in_its_model_s_own_mode(attack, mnist_test):
    """What the docstring of pgd warns of: in training mode it moves BatchNorm statistics."""
    model, x, y = FullyConnected().train(), mnist_test.x[:4], mnist_test.y[:4]
    state = copy.deepcopy(model.state_dict())
    attack(untargeted(model, y), x, Linf(0.1))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    attack(lambda z: cross_entropy(model(z), y, reduction="none"), x, Linf(0.1))
    assert not torch.equal(model.body[3].running_mean, state["body.3.running_mean"])


# --- Nothing else changes ------------------------------------------------------------------------

ALL = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=2),
    "restarts": partial(pgd, steps=2, restarts=2),
    "momentum": partial(pgd, steps=2, momentum=0.9),
    "box first": partial(pgd, steps=2, box_first=True),
}


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=["linf", "l2"])
def test_no_gradient_is_left_anywhere_and_the_result_is_detached(attack, ball, mnist_test):
    model, y = CNN(), mnist_test.y[:3]
    x = mnist_test.x[:3].clone().requires_grad_(True)
    before = x.detach().clone()
    model.tail[-1].bias.grad = torch.full((10,), 7.0)
    x_adv = attack(untargeted(model, y), x, ball)
    assert not x_adv.requires_grad and x_adv.grad_fn is None
    assert x.requires_grad and x.grad is None and torch.equal(x.detach(), before)
    assert torch.equal(model.tail[-1].bias.grad, torch.full((10,), 7.0))
    assert all(p.grad is None for p in list(model.parameters())[:-1])
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=["linf", "l2"])
def test_a_model_on_a_processor_is_attacked_with_its_channels_last(attack, ball, mnist_test, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    model, x, y = CNN(), mnist_test.x[:3], mnist_test.y[:3]
    plain, last = copy.deepcopy(model), copy.deepcopy(model).to(memory_format=torch.channels_last)
    seen = []
    model.tail.register_forward_pre_hook(lambda _, given: seen.append(given[0].stride()[1]))

    def crafted(each):
        torch.manual_seed(0)
        return attack(untargeted(each, y), x, ball)

    found, expected = crafted(model), crafted(last)
    assert set(seen) == {1}
    assert torch.equal(found, expected) and found.is_contiguous()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()


def test_images_in_colour_come_back_as_they_lay(mnist_test):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 24 * 24, 10))
    x = mnist_test.x[:3].expand(-1, 3, -1, -1).contiguous()
    assert pgd(untargeted(model, mnist_test.y[:3]), x, Linf(0.1), steps=2).is_contiguous()


def test_no_gradient_is_left_on_the_start(w):
    x = images()
    start = (x + 0.01).clamp(0, 1).requires_grad_(True)
    x_adv = pgd(linear(w), x, Linf(0.1), start=start)
    assert start.requires_grad and start.grad is None and not x_adv.requires_grad


def test_the_images_share_no_memory_with_the_result():
    x = images()
    for ball in (Linf(0.0), Linf(0.1), L2(0.1)):
        before = x.clone()
        pgd(bumpy, x, ball).fill_(0)
        assert torch.equal(x, before)


def test_attacks_work_where_gradients_are_switched_off(w):
    x = images()
    with torch.no_grad():
        x_adv = fgsm(linear(w), x, Linf(0.1), bounds=WIDE)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(x_adv, x + 0.1 * w.sign())


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(torch.full((4,), 0.5))], ids=["linf", "l2"])
def test_a_default_device_set_elsewhere_does_not_matter(attack, ball):
    x = images()
    torch.manual_seed(3)
    expected = attack(bumpy, x, ball)
    with torch.device("meta"):  # stands for any device other than the images'
        torch.manual_seed(3)
        found = attack(bumpy, x, ball)
    assert torch.equal(found, expected)


def test_attacks_work_on_a_model_with_frozen_parameters(trained_cnn, mnist_test):
    frozen = copy.deepcopy(trained_cnn).requires_grad_(False)
    x, y = mnist_test.x[:3], mnist_test.y[:3]
    expected = fgsm(untargeted(trained_cnn, y), x, Linf(0.1))
    assert torch.equal(fgsm(untargeted(frozen, y), x, Linf(0.1)), expected)


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_parameters_ask_for_no_gradient_while_they_are_attacked_and_then_as_before(
    attack, trained_cnn, mnist_test
):
    model, x, y = copy.deepcopy(trained_cnn), mnist_test.x[:3], mnist_test.y[:3]
    frozen = next(iter(model.parameters())).requires_grad_(False)
    asked = []
    model.register_forward_hook(lambda *_: asked.extend(p.requires_grad for p in model.parameters()))
    attack(untargeted(model, y), x, Linf(0.1))
    assert asked and not any(asked)
    assert not frozen.requires_grad and all(p.requires_grad for p in list(model.parameters())[1:])
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attack(untargeted(model, y), x, Linf(0.1))
    assert not frozen.requires_grad and all(p.requires_grad for p in list(model.parameters())[1:])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
@pytest.mark.parametrize("ball", [Linf(0.25), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 100), (torch.float16, 3000), (torch.float16, math.inf), (torch.float32, 3e37),
     (torch.float32, 1e-37), (torch.float32, math.inf), (torch.float64, 1e307)],
)  # fmt: skip
def test_a_gradient_too_large_for_its_norm_moves_the_image_the_way_it_points(dtype, size, ball, momentum):
    """Half of the pixels have a gradient ±size, the others ±1: of infinite ones these alone count."""
    sign = torch.ones(1, 1, 28, 28, dtype=dtype)
    sign[..., ::2] = -1
    slope = sign * size
    slope[:, :, 14:] = 0 if size < math.inf else sign[:, :, 14:]
    x = torch.full_like(sign, 0.5)

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.flatten(1).sum(1)

        @staticmethod
        def backward(ctx, g):
            return slope

    x_adv = pgd(Slope.apply, x, ball, steps=2, random_start=False, momentum=momentum)
    moved = (x_adv - x)[:, :, :14]
    assert torch.equal(moved.sign(), sign[:, :, :14])
    per_pixel = 0.25 if isinstance(ball, Linf) else 0.5 / math.sqrt(14 * 28)
    torch.testing.assert_close(moved, per_pixel * sign[:, :, :14], rtol=2e-2, atol=0)
    if isinstance(ball, L2):
        assert (x_adv - x)[:, :, 14:].abs().max() == 0


def modes(model):
    return [module.training for module in model.modules()]


@pytest.fixture
def partly_frozen():
    """A training model with one frozen BatchNorm in it."""
    model = FullyConnected().train()
    model.body[3].eval()
    assert isinstance(model.body[3], nn.BatchNorm1d)
    return model


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_every_submodule_gets_its_own_mode_back_and_batchnorm_statistics_stay(
    attack, partly_frozen, mnist_test
):
    model, x, y = partly_frozen, mnist_test.x[:3], mnist_test.y[:3]
    before, state = modes(model), copy.deepcopy(model.state_dict())
    attack(untargeted(model, y), x, Linf(0.1))
    assert modes(model) == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_model_is_in_eval_mode_while_it_is_attacked(partly_frozen, mnist_test):
    seen = []
    for module in partly_frozen.modules():
        module.register_forward_hook(lambda module, *_: seen.append(module.training))
    pgd(untargeted(partly_frozen, mnist_test.y[:3]), mnist_test.x[:3], Linf(0.1), steps=2, restarts=2)
    assert seen and not any(seen)


def test_modes_come_back_when_the_objective_fails(partly_frozen, mnist_test):
    before = modes(partly_frozen)
    partly_frozen.tail[-1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pgd(untargeted(partly_frozen, mnist_test.y[:3]), mnist_test.x[:3], Linf(0.1))
    assert modes(partly_frozen) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_the_type_of_the_images_is_kept(attack, dtype):
    x = images(dtype=dtype)
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4])  # float32, whatever the images are
    for ball in (Linf(0.1), L2(0.1), Linf(sizes), L2(sizes.double())):
        assert attack(bumpy, x, ball).dtype == dtype


def test_a_start_of_another_type_does_not_change_the_type_of_the_result():
    x = images(dtype=torch.float32)
    assert pgd(bumpy, x, Linf(0.1), start=x.double()).dtype == torch.float32


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_no_images_give_no_images(attack, ball):
    assert attack(bumpy, images()[:0], ball).shape == (0, 1, 6, 6)


class Copies(TorchDispatchMode):
    """Counts what copies a number or another device's or type's tensor: on a GPU each would wait."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._schema.name in (
            "aten::lift_fresh",
            "aten::_to_copy",
            "aten::_local_scalar_dense",
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "ball",
    [Linf(0.1), L2(0.5), Linf(torch.full((4,), 0.1)), L2(torch.tensor(0.5))],
    ids=["linf", "l2", "epsilons", "radius"],
)
def test_no_step_makes_a_tensor_of_a_number_or_brings_one_from_elsewhere(ball, momentum):
    counts = []
    for steps in (1, 6):
        with Copies() as copies:  # the images are float64, the sizes float32
            pgd(bumpy, images(), ball, steps=steps, step_size=0.05, momentum=momentum)
        counts.append(copies.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_freed_memory_is_asked_for_only_where_the_cpu_works(device, monkeypatch):
    asked, libraries = [], []
    monkeypatch.setattr(attacks, "keep_freed_memory", asked.append)
    pgd(bumpy, images(), Linf(0.1), steps=1)
    assert asked == [torch.device("cpu")]
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libraries.append(name) or 1 / 0)
    with pytest.raises(ZeroDivisionError) if device == "cpu" else contextlib.nullcontext():
        memory.keep_freed_memory.__wrapped__(torch.device(device))
    assert libraries == ["libc.so.6"] * (device == "cpu")


def test_freed_memory_is_left_to_the_system_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("DNABOOK_MALLOC", "system")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: 1 / 0)
    memory.keep_freed_memory.__wrapped__(torch.device("cpu"))


def test_an_attack_without_gradients_says_so():
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode forbids"):
        pgd(bumpy, images(), Linf(0.1), steps=1)


# --- Bugs that other libraries have had ----------------------------------------------------------


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])
def test_many_steps_of_any_length_stay_in_the_ball_about_the_original(ball, w):
    x = images()  # projecting about the previous iterate would walk away: one library once did
    for step_size in (0.01, 1.0):
        delta = pgd(linear(w), x, ball, steps=60, step_size=step_size, bounds=WIDE) - x
        reach = delta.abs().max() if isinstance(ball, Linf) else lengths(delta).max()
        assert reach <= (0.1 if isinstance(ball, Linf) else 0.5) + 1e-12


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])
def test_a_random_start_and_a_full_step_together_stay_in_the_ball(ball, w):
    size = 0.1 if isinstance(ball, Linf) else 0.5
    delta = pgd(linear(w), images(), ball, steps=1, step_size=size, bounds=WIDE) - images()
    assert (delta.abs().max() if isinstance(ball, Linf) else lengths(delta).max()) <= size + 1e-12


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])
def test_the_random_start_is_really_added(ball):
    assert (lengths(starts(images(), ball)) > 0.05).all()


def test_l2_norms_are_taken_over_whole_images_not_over_the_batch_or_a_channel():
    x = images(n=3, shape=(3, 4, 4))
    delta = fgsm(linear(torch.randn(3, 3, 4, 4, dtype=x.dtype)), x, L2(1.0), bounds=WIDE) - x
    torch.testing.assert_close(lengths(delta), torch.ones(3, dtype=x.dtype))
    assert (delta.flatten(2).norm(dim=2) < 1).all()


def test_an_attack_of_size_zero_keeps_the_accuracy_of_a_batchnorm_model(mnist_test):
    model, x, y = FullyConnected().eval(), mnist_test.x[:20], mnist_test.y[:20]
    with torch.no_grad():
        before = model(x)
    x_adv = pgd(untargeted(model.train(), y), x, Linf(0.0))
    with torch.no_grad():
        assert torch.equal(model.eval()(x_adv), before)


# --- Other libraries -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def foolbox():
    return pytest.importorskip("foolbox")


@pytest.fixture(scope="session")
def torchattacks():
    return pytest.importorskip("torchattacks")


@pytest.fixture(params=["smooth model, float64", "trained CNN, float32"])
def setting(request, trained_cnn, smooth, mnist_test):
    """A model, images, labels, and how many pixels must agree.

    All of them where the model is smooth and exact. In float32 99%: a sign flips where a gradient is nothing
    but rounding, and in a constant background the largest of four equal values is a matter of rounding too,
    which in ℓ2 moves every pixel of that image by a little.
    """
    x, y = mnist_test.x[:24], mnist_test.y[:24]
    if "CNN" in request.param:
        return copy.deepcopy(trained_cnn), x, y, 0.99
    return smooth, x.double(), y, 1.0


def assert_same_pixels(found, expected, x, share, atol=1e-6):
    apart, length = (found - expected).flatten(1), (expected - x).flatten(1).norm(dim=1)
    same = (apart.abs() <= atol).double().mean(1)  # of each image
    turned = (same < share) & (apart.norm(dim=1) <= 0.02 * length) & (share < 1)  # elsewhere at a tie
    assert same[~turned].mean() >= share and turned.sum() <= len(x) / 10
    assert (found - x).abs().flatten(1).amax(1).min() > 0.01  # both moved


BALLS = {"linf": (Linf(0.15), 0.15, 0.02), "l2": (L2(2.0), 2.0, 0.3)}  # and its size and the length of a step


@pytest.mark.parametrize("given_start", [False, True], ids=["from x", "from a given start"])
@pytest.mark.parametrize("norm", BALLS)
def test_pgd_agrees_with_foolbox(norm, given_start, setting, foolbox):
    (model, x, y, share), (ball, size, step) = setting, BALLS[norm]
    reference = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    start = (x + ball.random_start(x)).clamp(0, 1)

    class FromStart(reference):
        def get_random_start(self, x0, epsilon):
            return type(x0)(start)

    attack = FromStart(abs_stepsize=step, steps=10, random_start=given_start)
    expected, _, _ = attack(foolbox.PyTorchModel(model.eval(), (0, 1), device="cpu"), x, y, epsilons=size)
    begin = {"start": start} if given_start else {"random_start": False}
    found = pgd(untargeted(model, y), x, ball, steps=10, step_size=step, **begin)
    assert_same_pixels(found, expected, x, share)


@pytest.mark.parametrize("norm", BALLS)
def test_fgsm_agrees_with_foolbox(norm, setting, foolbox):
    (model, x, y, share), (ball, size, _) = setting, BALLS[norm]
    attack = foolbox.attacks.FGSM() if norm == "linf" else foolbox.attacks.L2FastGradientAttack()
    expected, _, _ = attack(foolbox.PyTorchModel(model.eval(), (0, 1), device="cpu"), x, y, epsilons=size)
    assert_same_pixels(fgsm(untargeted(model, y), x, ball), expected, x, share)


@pytest.mark.parametrize("norm", BALLS)
def test_targeted_pgd_agrees_with_foolbox(norm, setting, foolbox):
    (model, x, y, share), (ball, size, step) = setting, BALLS[norm]
    wanted = (y + 3) % 10
    reference = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = reference(abs_stepsize=step, steps=10, random_start=False)
    criterion = foolbox.criteria.TargetedMisclassification(wanted)
    wrapped = foolbox.PyTorchModel(model.eval(), (0, 1), device="cpu")
    expected, _, _ = attack(wrapped, x, criterion, epsilons=size)
    found = pgd(targeted(model, wanted), x, ball, steps=10, step_size=step, random_start=False)
    assert_same_pixels(found, expected, x, share)


@pytest.mark.parametrize("name", ["FGSM", "PGD", "PGDL2", "MIFGSM"])
def test_attacks_agree_with_torchattacks(name, setting, torchattacks):
    model, x, y, share = setting
    still, steps = {"steps": 10, "random_start": False}, {"steps": 10}
    options, ours = {
        "FGSM": ({"eps": 0.15}, partial(fgsm, ball=Linf(0.15))),
        "PGD": (
            {"eps": 0.15, "alpha": 0.02, **still},
            partial(pgd, ball=Linf(0.15), step_size=0.02, **still),
        ),
        "PGDL2": ({"eps": 2.0, "alpha": 0.3, **still}, partial(pgd, ball=L2(2.0), step_size=0.3, **still)),
        "MIFGSM": (
            {"eps": 0.15, "alpha": 0.02, "decay": 0.8, **steps},  # it divides by the mean of |g|: same signs
            partial(pgd, ball=Linf(0.15), step_size=0.02, momentum=0.8, **still),
        ),
    }[name]
    expected = getattr(torchattacks, name)(model, **options)(x, y)
    assert_same_pixels(ours(untargeted(model, y), x), expected, x, share, atol=1e-5)  # it adds 1e-10 to norms


# --- craft ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 5, 24, 250])
def test_crafting_in_chunks_equals_one_batch(chunk, smooth, digits):
    x, y = digits
    attack = partial(pgd, ball=L2(1.0), steps=3, random_start=False)
    found = craft(attack, smooth, x, y, chunk=chunk)
    torch.testing.assert_close(found, attack(untargeted(smooth, y), x))


def test_crafting_refuses_a_label_in_the_last_chunk_before_it_attacks_the_first(trained_cnn, mnist_test):
    y, attacked = mnist_test.y.clone(), []
    y[-1] = -1
    with pytest.raises(ValueError, match="classes are 0 or more"):
        craft(lambda objective, x: attacked.append(x) or x, trained_cnn, mnist_test.x, y, chunk=50)
    assert not attacked


def test_crafting_hands_over_no_more_than_a_chunk_at_a_time(trained_cnn, mnist_test):
    sizes = []
    craft(lambda objective, x: sizes.append(len(x)) or x, trained_cnn, mnist_test.x, mnist_test.y, chunk=80)
    assert sizes == [80, 80, 40]


@pytest.mark.parametrize("chunk", [1, 5, 12])
@pytest.mark.parametrize("variant", ["printed", "corrected"])
def test_crafting_hands_each_chunk_its_own_labels_in_the_objective_asked_for(chunk, variant, readers, faces):
    (x, y), attack = faces, partial(pgd, ball=L2(1.0), steps=3, random_start=False)
    objective = partial(paths, variant=variant)
    found = craft(attack, readers, x, y, objective=objective, chunk=chunk)
    torch.testing.assert_close(found, attack(paths(readers, y, variant), x))
    if variant == "corrected":
        assert torch.equal(craft(attack, readers, x, y, objective=paths, chunk=chunk), found)


def test_crafting_targeted_images_needs_only_another_objective(smooth, digits):
    x, y = digits
    attack = partial(fgsm, ball=Linf(0.1))
    found = craft(attack, smooth, x, y, objective=targeted, chunk=10)
    torch.testing.assert_close(found, attack(targeted(smooth, y), x))


# --- The paths of an autoencoder -----------------------------------------------------------------


class Readers(nn.Module):
    """Stands for a reconstructor: one softmax regression a path, (N, 1, 6, 6) -> (N, paths, 10)."""

    def __init__(self, number):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(number, 36, 10, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("nd,pdk->npk", x.flatten(1), self.weight)


@pytest.fixture
def readers():
    return Readers(2)


@pytest.fixture
def faces():
    return images(n=12), torch.arange(12) % 10


def cross_entropies_by_hand(model, x, y):
    """(N, paths), in numpy, and their gradients (N, paths, C, H, W) with respect to the images."""
    w, flat = model.weight.detach().numpy(), x.detach().flatten(1).numpy()
    logits = np.stack([flat @ each for each in w], 1)
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    losses = -np.log(p[np.arange(len(y)), :, y.numpy()])
    miss = p - np.eye(10)[y.numpy()][:, None]
    gradients = np.stack([miss[:, i] @ each.T for i, each in enumerate(w)], 1)
    return losses, gradients.reshape(len(x), len(w), *x.shape[1:])


def gradient_of(objective, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


@pytest.mark.parametrize("number", [2, 3])
def test_the_objectives_of_all_paths_equal_their_hand_computation(number, faces):
    model, (x, y) = Readers(number), faces
    each, gradients = cross_entropies_by_hand(model, x, y)
    mean = each.mean(0)
    values = {"printed": (each**2).sum(1), "released": (each * mean).sum(1), "corrected": each.min(1)}
    weights = {  # of each path's gradient
        "printed": 2 * each,
        "released": np.broadcast_to(mean, each.shape),
        "corrected": each == each.min(1, keepdims=True),
    }
    for variant in PATH_VARIANTS:
        objective = paths(model, y, variant)
        torch.testing.assert_close(objective(x).detach(), torch.from_numpy(values[variant]))
        expected = (weights[variant][:, :, None, None, None] * gradients).sum(1)
        torch.testing.assert_close(gradient_of(objective, x), torch.from_numpy(expected))


def test_the_default_is_the_corrected_objective(readers, faces):
    x, y = faces
    assert torch.equal(paths(readers, y)(x), paths(readers, y, "corrected")(x))


@pytest.mark.parametrize("variant", PATH_VARIANTS)
def test_with_one_path_every_variant_has_the_direction_of_the_cross_entropy(variant, faces):
    model, (x, y) = Readers(1), faces
    flatten = nn.Sequential(nn.Flatten(), nn.Linear(36, 10, bias=False).double())
    with torch.no_grad():
        flatten[1].weight.copy_(model.weight[0].T)
    plain, ours = gradient_of(untargeted(flatten, y), x), gradient_of(paths(model, y, variant), x)
    assert torch.equal(ours.sign(), plain.sign())
    torch.testing.assert_close(L2(1.0).steepest(ours), L2(1.0).steepest(plain))
    for attack, ball in ((fgsm, Linf(0.1)), (partial(pgd, random_start=False), L2(1.0))):
        expected = attack(untargeted(flatten, y), x, ball)
        torch.testing.assert_close(attack(paths(model, y, variant), x, ball), expected)


@pytest.mark.parametrize("variant", PATH_VARIANTS)
def test_with_one_path_every_variant_is_its_cross_entropy(variant, faces):
    model, (x, y) = Readers(1), faces
    each, gradients = cross_entropies_by_hand(model, x, y)
    objective = paths(model, y, variant)
    torch.testing.assert_close(objective(x).detach(), torch.from_numpy(each[:, 0]))
    torch.testing.assert_close(gradient_of(objective, x), torch.from_numpy(gradients[:, 0]))


@pytest.mark.parametrize("variant", PATH_VARIANTS)
@pytest.mark.parametrize("number", [1, 2])
def test_an_image_that_is_read_with_certainty_is_attacked_in_float32_too(number, variant):
    """The logits lie 30 apart: a probability in float32 is 1 and its loss 0, and so would be the gradient."""
    x, y = torch.full((3, 1, 6, 6), 0.5), torch.arange(3)
    model = Readers(number).float()
    with torch.no_grad():
        model.weight.zero_()[:, :, 0] = 30 / 18  # class 0 has a logit of 30 wherever x is ½
        model.weight[:, :18, 1] = -30 / 18  # what the right direction is differs from pixel to pixel
    sure = x[:1], y[:1]
    losses = cross_entropy(model(sure[0])[:, 0], sure[1])
    assert losses == 0
    gradient = gradient_of(paths(model, sure[1], variant), sure[0])
    assert (gradient < 0).all()  # less of any pixel makes class 0 less likely
    moved = fgsm(paths(model, sure[1], variant), sure[0], Linf(0.1))
    torch.testing.assert_close(moved, sure[0] - 0.1)


def test_the_corrected_gradient_comes_only_from_the_path_that_still_resists(readers, faces):
    x, y = faces
    losses, gradients = cross_entropies_by_hand(readers, x, y)
    survivor = losses.argmin(1)
    assert set(survivor) == {0, 1}  # either path survives somewhere
    expected = torch.from_numpy(gradients[np.arange(12), survivor])
    torch.testing.assert_close(gradient_of(paths(readers, y), x), expected)


def test_the_released_gradient_is_that_of_the_squared_batch_means(readers, faces):
    x, y = faces
    leaf = x.clone().requires_grad_()
    logits = readers(leaf)
    means = torch.stack([cross_entropy(logits[:, path], y) for path in (0, 1)])
    (expected,) = torch.autograd.grad(means.square().sum(), leaf)
    torch.testing.assert_close(gradient_of(paths(readers, y, "released"), x), len(x) / 2 * expected)


@pytest.mark.parametrize("variant", PATH_VARIANTS)
def test_only_the_released_objective_attacks_an_image_differently_in_another_batch(variant, readers, faces):
    x, y = faces
    ball = L2(1.0)
    together = fgsm(paths(readers, y, variant), x, ball)
    alone = torch.cat([
        fgsm(paths(readers, y[i : i + 1], variant), x[i : i + 1], ball) for i in range(12)
    ])  # fmt: skip
    assert ((together - alone).abs().max() < 1e-12) == (variant != "released")


def test_the_corrected_attack_leaves_the_fewest_images_to_a_reader_who_needs_one_right_path(readers):
    x = images(n=200)
    y = readers(x).sum(1).argmax(1)
    saved = {}
    for variant in PATH_VARIANTS:
        x_adv = pgd(paths(readers, y, variant), x, L2(0.5), random_start=False)
        saved[variant] = int((readers(x_adv).argmax(2) == y[:, None]).any(1).sum())
    assert saved["corrected"] < min(saved["printed"], saved["released"])


@pytest.mark.parametrize("variant", PATH_VARIANTS)
def test_path_objectives_read_real_reconstructors_in_eval_mode_and_leave_them_as_they_were(variant):
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    model = Reconstructor(cifar10_autoencoder(), classifier).train()
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([3, 7])
    state = copy.deepcopy(model.state_dict())
    x_adv = fgsm(paths(model, y, variant), x, Linf(0.1))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (x_adv - x).abs().max() == pytest.approx(0.1, abs=1e-6)
    alone = fgsm(paths(model, y[:1], "corrected"), x[:1], Linf(0.1))  # batch statistics would show
    if variant == "corrected":
        assert ((alone - x_adv[:1]).abs() < 1e-6).double().mean() > 0.99


def test_path_objectives_of_a_digit_autoencoder_are_the_cross_entropies_of_its_reconstructions(mnist_test):
    autoencoder, classifier = mnist_autoencoder(), mnist_classifier()
    x, y = mnist_test.x[:5], mnist_test.y[:5]
    ce1, ce2 = (cross_entropy(classifier(image).double(), y, reduction="none") for image in autoencoder(x))
    model = Reconstructor(autoencoder, classifier)
    torch.testing.assert_close(paths(model, y)(x), torch.minimum(ce1, ce2))
    torch.testing.assert_close(paths(model, y, "printed")(x), ce1**2 + ce2**2)


# --- Objectives aimed at a reader without labels -------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_objectives_aimed_at_a_reader_equal_their_hand_computation(number, faces):
    model, (x, y) = Readers(number), faces
    w, flat = model.weight.detach().numpy(), x.flatten(1).numpy()
    logits = np.stack([flat @ each for each in w], 1)
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)  # (N, paths, 10)
    rows = np.arange(len(y))
    averaged = -np.log(p.mean(1)[rows, y.numpy()]) - np.log(number)
    torch.testing.assert_close(mean_probability(model, y)(x).detach(), torch.from_numpy(averaged))
    least = np.log(p).min(1)
    least[rows, y.numpy()] = -np.inf
    torch.testing.assert_close(consensus(model, y)(x).detach(), torch.from_numpy(least.max(1)))


def test_consensus_leads_both_paths_to_one_wrong_class(faces):
    """Path 1 is sure of class 1 and path 2 of class 2, but both give class 3 a little."""
    logits = torch.full((1, 2, 10), -20.0)
    logits[0, 0, 1], logits[0, 1, 2], logits[0, :, 3] = 5.0, 5.0, 3.0
    found = consensus(lambda x: logits, torch.tensor([0]))(faces[0][:1])
    torch.testing.assert_close(found, logits.log_softmax(2)[:, 0, 3])
    assert consensus(lambda x: logits, torch.tensor([3]))(faces[0][:1]) < -20  # that class is the true one


def test_raising_them_misleads_who_they_are_aimed_at(readers, faces):
    x, y = faces
    ball, keep = Linf(0.3), {"random_start": False}
    for aim in (mean_probability, consensus):
        x_adv = pgd(aim(readers, y), x, ball, **keep)
        assert (aim(readers, y)(x_adv) > aim(readers, y)(x)).all()
    answers = readers(pgd(consensus(readers, y), x, Linf(1.0), **keep)).argmax(2)
    assert (answers[:, 0] == answers[:, 1]).float().mean() > 0.5 and (answers != y[:, None]).all()


@pytest.mark.parametrize("aim", [mean_probability, consensus])
def test_objectives_aimed_at_a_reader_refuse_negative_classes(aim, readers):
    with pytest.raises(ValueError, match="classes are 0 or more, got -1"):
        aim(readers, torch.tensor([0, -1]))


# --- Without a model -----------------------------------------------------------------------------


def test_random_signs_move_every_pixel_by_epsilon_but_at_the_bounds(mnist_test):
    x = mnist_test.x[:20]
    moved = random_signs(x, 0.1, generator=torch.Generator().manual_seed(0))
    inside = (x > 0.1) & (x < 0.9)
    torch.testing.assert_close((moved - x).abs()[inside], torch.full_like(x[inside], 0.1))
    assert moved.min() >= 0 and moved.max() <= 1 and 0.4 < (moved > x)[inside].float().mean() < 0.6
    assert torch.equal(moved, random_signs(x, 0.1, generator=torch.Generator().manual_seed(0)))
    sizes = torch.linspace(0, 0.1, 20)  # one an image
    each = random_signs(x, sizes, generator=torch.Generator().manual_seed(0))
    assert torch.equal(each[-1], moved[-1]) and torch.equal(each[0], x[0])
    assert not random_signs(x.clone().requires_grad_(), 0.1).requires_grad
    assert not torch.equal(moved, random_signs(x, 0.1, generator=torch.Generator().manual_seed(1)))
    wide = random_signs(2 * x - 1, 0.2, bounds=(-1.0, 1.0), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide, 2 * moved - 1)


@pytest.mark.parametrize("size", [[0.05, 0.1], np.array([0.05, 0.1]), "0.1", None])
def test_a_size_that_is_neither_a_number_nor_a_tensor_is_refused_by_its_name(size):
    with pytest.raises(TypeError, match=r"epsilon is a number or a tensor \(N,\), got"):
        Linf(size)


@pytest.mark.parametrize("size", [1, np.float32(0.5), np.int64(1), torch.tensor(0.5)])
def test_numbers_of_every_kind_are_sizes(size, mnist_test):
    delta = torch.full_like(mnist_test.x[:1], 9.0)
    torch.testing.assert_close(Linf(size).project(delta), delta / 9 * float(size))


def test_an_attack_on_paths_says_what_it_needs_of_a_model(mnist_test):
    x, y = mnist_test.x[:2], mnist_test.y[:2]
    for objective in (paths(CNN(), y), mean_probability(CNN(), y), consensus(CNN(), y)):
        with pytest.raises(ValueError, match=r"logits \(N, paths, classes\), got \(2, 10\)"):
            objective(x)


def test_random_signs_refuse_what_an_attack_refuses(mnist_test):
    with pytest.raises(ValueError, match="outside the bounds"):
        random_signs(2 * mnist_test.x[:2], 0.1)
    with pytest.raises(ValueError, match="epsilon must be finite and at least 0"):
        random_signs(mnist_test.x[:2], -0.1)


# --- The released ℓ2 attacks ---------------------------------------------------------------------


def test_the_released_fgsm_moves_the_whole_batch_by_one_radius(smooth, digits):
    x, y = digits
    objective = untargeted(smooth, y)
    delta = released_fgsm_l2(objective, x, 1.7, bounds=WIDE) - x
    gradient = gradient_of(objective, x)
    torch.testing.assert_close(delta, 1.7 * gradient / gradient.square().sum().sqrt())
    assert float(delta.norm()) == pytest.approx(1.7)
    assert float(lengths(delta).square().mean().sqrt()) == pytest.approx(1.7 / len(x) ** 0.5)
    clipped = released_fgsm_l2(objective, x, 1.7)
    torch.testing.assert_close(clipped, (x + delta).clamp(0, 1))


def test_the_released_fgsm_moves_images_of_equal_gradients_by_the_radius_over_the_root_of_their_number(w):
    for n in (1, 4, 25):
        x = images(n=n)
        delta = released_fgsm_l2(linear(w), x, 1.7, bounds=WIDE) - x
        torch.testing.assert_close(lengths(delta), torch.full((n,), 1.7 / n**0.5, dtype=x.dtype))
        torch.testing.assert_close(n**0.5 * delta, fgsm(linear(w), x, L2(1.7), bounds=WIDE) - x)


def test_the_released_attacks_take_a_radius_for_each_image_along_the_right_axis():
    """28 images of 28 pixels: a radius that lay along a side of the image would fit as well."""
    x = torch.full((28, 1, 28, 28), 0.5)
    radius = torch.zeros(28)
    radius[3] = 1.0
    w = torch.ones(28, 28)
    for attack in (released_fgsm_l2, partial(released_pgd_l2, steps=1)):
        delta = (attack(linear(w), x, radius) - x).flatten(1).abs()
        moved = delta.amax(1)
        assert moved.argmax() == 3 and moved[3] > 0.005
        assert (delta[3] > 1e-3).float().mean() > 0.9  # all over the image
        assert (moved.sort().values[:-1] < 0.002).all()


def authors_pgd(model, x, y, radius, steps, step_size, noise):
    """The released loop: a start that is only clipped, raw mean gradients, into the box, then the ball."""
    x_adv = (x + noise).clamp(0, 1)
    for _ in range(steps):
        leaf = x_adv.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y), leaf)
        x_adv = (x_adv + step_size * gradient).clamp(0, 1)
        for i in range(len(x)):
            delta = x_adv[i] - x[i]
            if delta.norm() > radius:
                x_adv[i] = x[i] + delta * radius / delta.norm()
    return x_adv


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("step_size", [3 / 255, 50.0])
def test_the_released_pgd_equals_the_authors_loop_written_out(steps, step_size, smooth, digits):
    x, y = digits
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    expected = authors_pgd(smooth, x, y, 1.5, steps, step_size, 1.5 * (2 * draws - 1))
    found = released_pgd_l2(
        untargeted(smooth, y), x, 1.5, steps=steps, step_size=step_size,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
    assert (lengths(found - x) <= 1.5 + 1e-9).all() and found.min() >= 0 and found.max() <= 1


def test_the_released_pgd_ends_where_its_start_was_projected_to_and_pgd_does_not(trained_cnn, mnist_test):
    x, objective = mnist_test.x[:50], untargeted(trained_cnn, mnist_test.y[:50])
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(3))
    start = L2(2.0).project((x + 2 * (2 * draws - 1)).clamp(0, 1) - x)
    found = released_pgd_l2(objective, x, 2.0, generator=torch.Generator().manual_seed(3))
    cosine = ((found - x) * start).flatten(1).sum(1) / (lengths(found - x) * lengths(start))
    assert cosine.min() > 0.99
    searched = pgd(objective, x, L2(2.0), start=x + start)
    turned = ((searched - x) * start).flatten(1).sum(1) / (lengths(searched - x) * lengths(start))
    assert turned.median() < 0.7
    assert objective(found).mean() < 0.5 * objective(searched).mean()


RELEASED = {"fgsm": released_fgsm_l2, "pgd": partial(released_pgd_l2, steps=3)}


@pytest.mark.parametrize("attack", RELEASED.values(), ids=RELEASED)
def test_the_released_attacks_leave_images_models_and_modes_alone(attack, partly_frozen, mnist_test):
    model, y = partly_frozen, mnist_test.y[:3]
    x = mnist_test.x[:3].clone().requires_grad_(True)
    before, mode, state = x.detach().clone(), modes(model), copy.deepcopy(model.state_dict())
    x_adv = attack(untargeted(model, y), x, 1.0)
    assert not x_adv.requires_grad and x.grad is None and torch.equal(x.detach(), before)
    assert modes(model) == mode and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("attack", RELEASED.values(), ids=RELEASED)
def test_the_released_attacks_of_radius_zero_return_the_images_and_refuse_what_pgd_refuses(attack):
    x = images()
    torch.testing.assert_close(attack(bumpy, x, 0.0), x)
    with pytest.raises(ValueError, match="radius must be finite"):
        attack(bumpy, x, -1.0)
    with pytest.raises(ValueError, match="outside the bounds"):
        attack(bumpy, x + 1, 1.0)
    with pytest.raises(ValueError, match="floating point"):
        attack(bumpy, torch.zeros(2, 1, 4, 4, dtype=torch.long), 1.0)


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_size": -0.1}, {"steps": 1, "step_size": -0.1}])
def test_the_released_pgd_refuses_no_steps_and_negative_ones(options):
    with pytest.raises(ValueError, match="at least"):
        released_pgd_l2(bumpy, images(), 1.0, **options)


# --- Errors --------------------------------------------------------------------------------------


def test_an_unknown_variant_of_the_path_objective_is_refused_by_name(readers):
    with pytest.raises(ValueError, match="corrected, released, printed; got 'exact'"):
        paths(readers, torch.arange(3), "exact")


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_images_outside_the_bounds_are_refused(attack, value):
    x = images()
    x[2, 0, 3, 3] = value
    with pytest.raises(ValueError, match="outside the bounds"):
        attack(bumpy, x, Linf(0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_a_rounding_above_the_bounds_are_refused_with_all_their_digits_and_what_to_do(dtype):
    x = images(dtype=dtype)
    x[0, 0, 0, 0] = above = torch.nextafter(x.new_tensor(1.0), x.new_tensor(2.0))
    with pytest.raises(ValueError, match=rf", {above.item()}\], outside the bounds \(0.0, 1.0\): clamp what"):
        pgd(bumpy, x, Linf(0.1))
    assert above.item() > 1
    pgd(bumpy, x.clamp(0, 1), Linf(0.1), steps=1)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_integer_images_are_refused(attack):
    with pytest.raises(ValueError, match="floating point"):
        attack(bumpy, torch.zeros(2, 1, 4, 4, dtype=torch.long), Linf(0.1))


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": -3}, {"restarts": 0}, {"restarts": -1}])
def test_fewer_than_one_step_or_restart_is_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        pgd(bumpy, images(), Linf(0.1), **options)


def test_restarts_without_a_random_start_are_refused():
    x = images()
    for options in ({"random_start": False}, {"start": x}):
        with pytest.raises(ValueError, match="restarts"):
            pgd(bumpy, x, Linf(0.1), restarts=2, **options)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="start needs x's shape"):
        pgd(bumpy, images(), Linf(0.1), start=images()[:1])


@pytest.mark.parametrize(
    "objective", [lambda x: bumpy(x).mean(), lambda x: x.sum((2, 3)), lambda x: bumpy(x)[:2]]
)
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_an_objective_that_is_not_one_loss_for_each_image_is_refused(objective, attack):
    with pytest.raises(ValueError, match="objective returns losses"):
        attack(objective, images(), Linf(0.1))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("shape", [(3,), (4, 1), (4, 10), ()])
def test_anything_but_one_label_for_each_image_is_refused(objective, shape, trained_cnn, mnist_test):
    x, y = mnist_test.x[:4], torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=r"4 images need labels of shape \(4,\), got \("):
        fgsm(objective(trained_cnn, y), x, Linf(0.1))
    with pytest.raises(ValueError, match=r"4 images need labels of shape \(4,\), got \("):
        craft(lambda objective, x: x, trained_cnn, x, y, objective=objective)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("size", [-0.1, float("nan"), float("inf"), torch.tensor([0.1, -0.1, 0.1, 0.1])])
def test_a_negative_or_infinite_ball_is_refused(norm, size):
    with pytest.raises(ValueError, match="finite and at least 0"):
        norm(size)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("size", [torch.full((3,), 0.1), torch.full((4, 1), 0.1)])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_epsilons_for_another_number_of_images_are_refused(norm, size, attack):
    with pytest.raises(ValueError, match=r"expected a number or a tensor \(4,\)"):
        attack(bumpy, images(), norm(size))


@pytest.mark.parametrize("step_size", [-0.1, float("nan"), float("inf")])
def test_a_step_that_is_negative_or_not_finite_is_refused(step_size):
    with pytest.raises(ValueError, match="step_size must be finite"):
        pgd(lambda x: x.flatten(1).sum(1), torch.zeros(2, 1, 2, 2), Linf(0.1), step_size=step_size)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_a_bare_number_is_no_ball(attack):
    with pytest.raises(TypeError, match=r"ball is Linf\(epsilon\) or L2\(radius\), got 0.1"):
        attack(lambda x: x.flatten(1).sum(1), torch.rand(2, 1, 3, 3), 0.1)


@pytest.mark.parametrize(
    "attack",
    [
        partial(fgsm, ball=Linf(0.1)),
        partial(pgd, ball=Linf(0.1), steps=3),
        partial(pgd, ball=L2(0.1), steps=3),
        partial(pgd, ball=Linf(0.1), steps=2, restarts=2),
        partial(attacks.released_fgsm_l2, radius=0.1),
        partial(attacks.released_pgd_l2, radius=0.1, steps=3),
    ],
)
def test_a_model_that_gives_nan_does_not_pass_for_a_robust_one(attack):
    model, x, y = CNN(), torch.rand(3, 1, 28, 28), torch.zeros(3, dtype=torch.long)
    attack(attacks.untargeted(model, y), x)
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    with pytest.raises(FloatingPointError, match="a gradient of the objective was nan"):
        attack(attacks.untargeted(model, y), x)


def test_infinite_gradients_of_both_signs_are_no_nan():
    x = torch.full((1, 1, 1, 2), 0.5)
    x_adv = fgsm(lambda x: (x * torch.tensor([math.inf, -math.inf])).flatten(1).sum(1), x, Linf(0.1))
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.6, 0.4]))


def test_one_image_with_a_nan_gradient_is_enough():
    def objective(x):
        return (x - 0.5).flatten(1).sum(1).abs().sqrt()  # at 0.5 its slope is infinite times 0

    x = torch.full((3, 1, 1, 1), 0.25)
    fgsm(objective, x, Linf(0.1))
    x[1] = 0.5
    with pytest.raises(FloatingPointError, match="nan"):
        fgsm(objective, x, Linf(0.1))


@pytest.mark.parametrize("make", [attacks.untargeted, attacks.targeted, attacks.paths])
def test_a_negative_class_is_refused(make):
    with pytest.raises(ValueError, match="classes are 0 or more, got -100"):
        make(CNN(), torch.tensor([1, -100]))


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_has_an_image(chunk):
    x, y = torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=f"chunk must be at least 1, got {chunk}"):
        attacks.craft(attacks.fgsm, CNN(), x, y, chunk=chunk)


@pytest.mark.parametrize("ball", [attacks.Linf(0.1), attacks.L2(1.0)])
def test_no_step_of_pgd_asks_the_device_for_a_number(ball, monkeypatch):
    monkeypatch.setattr(attacks, "_check_images", lambda x, bounds: None)  # one question when a call begins,
    monkeypatch.setattr(attacks, "_check_gradients", lambda broken: None)  # and one when it ends
    monkeypatch.setattr(attacks, "_check_classes", lambda y: None)
    with torch.device("meta"):  # what asks for a value raises there
        model, x, y = CNN(), torch.rand(6, 1, 28, 28), torch.zeros(6, dtype=torch.long)
    for options in ({"restarts": 2}, {"momentum": 1.0}, {"box_first": True}):
        x_adv = attacks.pgd(attacks.untargeted(model, y), x, ball, steps=3, **options)
        assert x_adv.shape == x.shape and x_adv.device.type == "meta"


@pytest.mark.parametrize(("device", "chunks"), [("cpu", [250, 250, 1]), ("meta", [501])])
def test_a_processor_gets_small_chunks_and_other_devices_large_ones(device, chunks):
    found = []

    def attack(objective, x):
        found.append(len(x))
        return x

    x, y = torch.empty(501, 1, 1, 1, device=device), torch.zeros(501, dtype=torch.long, device=device)
    attacks.craft(attack, CNN(), x, y, objective=lambda model, y: None)
    assert found == chunks

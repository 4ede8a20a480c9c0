"""The optimiser loop: it is Adam, it reaches optima, it repeats, and it resumes as if never interrupted."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import math

import pytest
import torch
from torch import nn

from dnabook import losses, training
from dnabook.autoencoders import cifar10_autoencoder, mnist_autoencoder
from dnabook.data import Batches, crop_and_flip
from dnabook.losses import Objective, classification, reconstruction
from dnabook.models import CNN
from dnabook.training import fit, has_bfloat16


def regression(model):
    """Mean squared error: a convex objective with a known optimum."""
    return Objective((model,), lambda x, y: {"loss": (model(x) - y).square().mean()})


@pytest.fixture
def problem():
    """A linear model, one batch for it and the least-squares solution (weight and bias in one column)."""
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(40, 1)], 1), y).solution
    return nn.Linear(3, 1).double(), [(x, y)], solution


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- What is minimised ---------------------------------------------------------------------------


def test_fit_reaches_the_optimum_of_a_convex_objective(problem):
    model, batches, solution = problem
    history = fit(regression(model), model.parameters(), batches, epochs=800, learning_rate=0.02)
    torch.testing.assert_close(flat(model), solution.flatten(), atol=1e-6, rtol=0)
    assert history["loss"][-1] < history["loss"][0]


def test_the_first_step_is_the_learning_rate_against_the_sign_of_the_gradient(problem):
    model, batches, _ = problem
    before = flat(model)
    regression(model)(*batches[0])["loss"].backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    fit(regression(model), model.parameters(), batches, epochs=1, learning_rate=0.03)
    torch.testing.assert_close(flat(model), before - 0.03 * gradient.sign(), atol=1e-7, rtol=0)


def test_every_step_is_adams_as_published(problem):
    model, batches, _ = problem
    theta = flat(model)
    x, y = batches[0]
    ones = torch.cat([x, torch.ones(40, 1)], 1)
    m = v = torch.zeros_like(theta)
    for t in range(1, 8):
        g = 2 * ones.T @ (ones @ theta[:, None] - y) / 40  # (4, 1): the gradient of the mean squared error
        m, v = 0.9 * m + 0.1 * g.flatten(), 0.999 * v + 0.001 * g.flatten().square()
        theta = theta - 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    fit(regression(model), model.parameters(), batches, epochs=7, learning_rate=0.05)
    torch.testing.assert_close(flat(model), theta)


def test_gradients_left_from_before_do_not_count(problem):
    model, batches, _ = problem
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.grad = torch.full_like(p, 1e6)
    for each in (model, other):
        fit(regression(each), each.parameters(), batches, epochs=3)
    assert torch.equal(flat(model), flat(other))


def test_only_the_given_parameters_change(mnist_train):
    model = CNN()
    before = copy.deepcopy(model.state_dict())
    fit(classification(model), model.tail.parameters(), Batches(mnist_train[:100], 50), epochs=1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("body.")


def test_parameters_may_be_given_as_a_generator(problem):
    model, batches, _ = problem
    before = flat(model)
    fit(regression(model), (p for p in model.parameters()), batches, epochs=2)
    assert (flat(model) != before).all()


# --- What comes back -----------------------------------------------------------------------------


def test_the_history_holds_the_mean_of_every_term_over_every_epoch(problem):
    model, [(x, y)], _ = problem
    batches = [(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:30], y[20:30])]
    count = iter(range(100))

    def terms(x, y):
        return {"loss": (model(x) - y).square().mean(), "calls": torch.tensor(float(next(count)))}

    with torch.no_grad():
        expected = sum((model(x) - y).square().mean() for x, y in batches) / 3
    history = fit(Objective((model,), terms), model.parameters(), batches, epochs=4, learning_rate=0.0)
    assert history["loss"] == pytest.approx([float(expected)] * 4)
    assert history["calls"] == [1.0, 4.0, 7.0, 10.0]
    assert all(type(value) is float for values in history.values() for value in values)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_term_that_some_batches_give_has_its_mean_over_these_and_nan_where_an_epoch_had_none(
    problem, resumed
):
    model, [batch], _ = problem
    count = iter(range(100))

    def terms(x, y):
        now = next(count)  # three a epoch
        named = {"loss": (model(x) - y).square().mean()}
        if now in (4, 6, 7):
            named["rare"] = torch.tensor(9.0 if now == 4 else float(now))
        return named

    objective, options = Objective((model,), terms), {"checkpoint": Memory()} if resumed else {}
    if resumed:
        fit(objective, model.parameters(), [batch] * 3, epochs=2, **options)
    history = fit(objective, model.parameters(), [batch] * 3, epochs=4, **options)
    assert history["rare"] == pytest.approx([math.nan, 9.0, 6.5, math.nan], nan_ok=True)
    assert len(history["loss"]) == 4


def test_the_loss_of_an_epoch_is_measured_before_each_step(problem):
    model, batches, _ = problem
    with torch.no_grad():
        expected = float(regression(model)(*batches[0])["loss"])
    history = fit(regression(model), model.parameters(), batches, epochs=2, learning_rate=0.1)
    assert history["loss"][0] == pytest.approx(expected)


def test_progress_wraps_the_epochs_and_is_told_what_for(problem):
    model, batches, _ = problem
    calls = []

    def progress(iterable, description):
        for epoch in iterable:
            calls.append((description, epoch))
            yield epoch

    history = fit(regression(model), model.parameters(), batches, epochs=5, progress=progress)
    assert calls == [("training", epoch) for epoch in range(5)]
    assert len(history["loss"]) == 5


def test_models_are_in_train_mode_during_training_and_in_eval_mode_after(mnist_train):
    models, seen = (CNN().eval(), CNN().train()), []
    objective = classification(*models)

    def terms(x, y):
        seen.extend(module.training for model in models for module in model.modules())
        return objective(x, y)

    batches = Batches(mnist_train[:40], 20)
    fit(Objective(models, terms), objective.parameters(), batches, epochs=1)
    assert seen and all(seen)
    assert not any(module.training for model in models for module in model.modules())


def test_training_teaches_the_digits(trained_cnn, mnist_test):
    assert (trained_cnn(mnist_test.x).argmax(1) == mnist_test.y).float().mean() > 0.85


# --- Repeating and resuming ----------------------------------------------------------------------


class Memory:
    """A checkpoint that lives in memory, written and read back as a file would be."""

    def __init__(self):
        self.saved = []

    def load(self):
        return torch.load(io.BytesIO(self.saved[-1])) if self.saved else None

    def save(self, state):
        file = io.BytesIO()
        torch.save(state, file)
        self.saved.append(file.getvalue())


class Interrupted(Exception):
    pass


def stopping(after):
    """A progress bar that breaks off before the epoch of this number."""

    def bar(iterable, description):
        for epoch in iterable:
            if epoch == after:
                raise Interrupted
            yield epoch

    return bar


@pytest.fixture
def start(mnist_train):
    """Makes the same beginning again and again: an objective of two normalised networks, and batches."""

    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 10))

    def begin(seed=0):
        torch.manual_seed(seed)
        return classification(network(), network()), Batches(mnist_train[:200], 60, seed=seed)

    return begin


def run(start, epochs=6, **options):
    objective, batches = start
    history = fit(objective, objective.parameters(), batches, epochs=epochs, **options)
    return history, [model.state_dict() for model in objective.models]


def run_off(start, steps, checkpoint):
    """A run that breaks off after so many steps."""
    objective, batches = start
    left = iter(range(steps))

    @functools.wraps(objective.terms)  # it goes by the same name
    def terms(x, y):
        if next(left, None) is None:
            raise Interrupted
        return objective(x, y)

    with pytest.raises(Interrupted):
        run((Objective(objective.models, terms), batches), checkpoint=checkpoint)


def assert_identical(found, expected):
    assert found[0] == expected[0]
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_same_seed_gives_identical_weights_and_history(start):
    expected = run(start())
    torch.rand(7)  # the global random state has no say once the models are made
    assert_identical(run(start()), expected)
    assert run(start(seed=1))[0] != expected[0]


def test_a_checkpoint_changes_nothing(start):
    assert_identical(run(start(), checkpoint=Memory()), run(start()))


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_interrupted_between_epochs_ends_as_if_it_had_not_been(start, after):
    checkpoint = Memory()

    with pytest.raises(Interrupted):
        run(start(), progress=stopping(after), checkpoint=checkpoint)
    assert len(checkpoint.saved) == after
    epochs = []

    def counting(iterable, description):
        for epoch in iterable:
            epochs.append(epoch)
            yield epoch

    resumed = run(start(seed=99), progress=counting, checkpoint=checkpoint)  # other weights, other order
    assert epochs == list(range(after, 6))
    assert_identical(resumed, run(start()))


class Remembered:
    """A checkpoint that gives back the very state that it was given a copy of."""

    state = None

    def load(self):
        return self.state

    def save(self, state):
        self.state = copy.deepcopy(state)


def test_training_leaves_the_state_that_a_checkpoint_gave_as_it_was(start):
    checkpoint = Remembered()
    with pytest.raises(Interrupted):
        run(start(), progress=stopping(2), checkpoint=checkpoint)
    run_off(start(), 2, checkpoint)  # within the first epoch after the checkpoint
    assert_identical(run(start(), checkpoint=checkpoint), run(start()))


@pytest.mark.parametrize("steps", [1, 7, 11])
def test_a_run_interrupted_within_an_epoch_goes_on_from_the_last_whole_one(start, steps):
    checkpoint = Memory()
    run_off(start(), steps, checkpoint)
    assert len(checkpoint.saved) == steps // 3
    assert_identical(run(start(), checkpoint=checkpoint), run(start()))


@pytest.fixture
def convolving(mnist_train):
    """The same beginning again and again, of a network whose two layouts differ."""

    def begin():
        torch.manual_seed(0)
        return classification(CNN()), Batches(mnist_train[:200], 60, seed=0)

    return begin


def onednn(monkeypatch, there):
    """oneDNN counts as there, or as missing."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)


def test_convolutions_train_with_their_channels_last_and_lie_as_before_afterwards(convolving, monkeypatch):
    onednn(monkeypatch, True)
    objective, batches = convolving()
    (model,) = objective.models
    lay, seen = [p.stride() for p in model.parameters()], []
    model.tail.register_forward_pre_hook(lambda _, given: seen.append(given[0].stride()[1]))
    found = run((objective, batches))
    assert set(seen) == {1} and [p.stride() for p in model.parameters()] == lay
    beginning, batches = convolving()
    beginning.models[0].to(memory_format=torch.channels_last)
    assert_identical(found, run((beginning, batches)))
    onednn(monkeypatch, False)
    plain = run(convolving())
    assert found[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-3)


@pytest.mark.parametrize("first", [False, True], ids=["first then last", "last then first"])
def test_a_checkpoint_is_resumed_by_a_model_that_lies_otherwise_in_memory(convolving, monkeypatch, first):
    onednn(monkeypatch, first)
    expected, checkpoint = run(convolving()), Memory()
    with pytest.raises(Interrupted):
        run(convolving(), progress=stopping(3), checkpoint=checkpoint)
    onednn(monkeypatch, not first)
    history, (weights,) = run(convolving(), checkpoint=checkpoint)
    assert history["loss"] == pytest.approx(expected[0]["loss"], rel=1e-3)
    for name, value in expected[1][0].items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-3)


def test_a_model_that_cannot_lie_so_resumes_as_if_never_interrupted(mnist_train, monkeypatch):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 26 * 26, 10)

        def forward(self, x):
            return self.linear(self.conv(x).view(len(x), -1))

    def begin():
        torch.manual_seed(0)
        return classification(Views()), Batches(mnist_train[:200], 60, seed=0)

    onednn(monkeypatch, False)
    expected, checkpoint = run(begin()), Memory()
    onednn(monkeypatch, True)
    assert_identical(run(begin()), expected)
    with pytest.raises(Interrupted):
        run(begin(), progress=stopping(3), checkpoint=checkpoint)
    assert_identical(run(begin(), checkpoint=checkpoint), expected)


def test_parameters_that_two_models_share_are_updated_once_a_step(mnist_train):
    def begin():
        torch.manual_seed(0)
        one, other = CNN(), CNN()
        other.body = one.body
        return classification(one, other), Batches(mnist_train[:200], 60, seed=0)

    objective, batches = begin()
    assert len(objective.parameters()) == len(set(objective.parameters())) == 4 + 2 * 4  # a body, two tails
    twice = [p for model in objective.models for p in model.parameters()]
    history = fit(objective, twice, batches, epochs=2)
    assert history == run(begin(), epochs=2)[0]


def test_there_must_be_something_to_train(mnist_train):
    objective = classification(CNN())
    with pytest.raises(ValueError, match="no parameters"):
        fit(objective, [], Batches(mnist_train[:200], 60), epochs=1)


def test_a_finished_run_is_loaded_without_training(start):
    checkpoint = Memory()
    expected = run(start(), checkpoint=checkpoint)
    objective, batches = start(seed=99)
    silent = Objective(objective.models, functools.wraps(objective.terms)(lambda x, y: 1 / 0))
    assert_identical(run((silent, batches), checkpoint=checkpoint), expected)
    assert not any(model.training for model in objective.models)


def test_a_run_is_lengthened_by_resuming_it_with_more_epochs(start):
    checkpoint = Memory()
    run(start(), epochs=2, checkpoint=checkpoint)
    assert_identical(run(start(seed=99), epochs=6, checkpoint=checkpoint), run(start()))


def test_batches_without_a_generator_may_be_resumed_too(problem):
    model, batches, _ = problem
    whole = copy.deepcopy(model)
    expected = fit(regression(whole), whole.parameters(), batches, epochs=5)
    checkpoint = Memory()
    fit(regression(model), model.parameters(), batches, epochs=2, checkpoint=checkpoint)
    fresh = nn.Linear(3, 1).double()
    history = fit(regression(fresh), fresh.parameters(), batches, epochs=5, checkpoint=checkpoint)
    assert history == expected and torch.equal(flat(fresh), flat(whole))


@pytest.fixture
def dropping(mnist_train):
    """A beginning like `start` of a network with dropout, which draws from PyTorch's own generator."""

    def begin(seed=0):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 10))
        return classification(model), Batches(mnist_train[:200], 60, seed=seed)

    return begin


def test_dropout_goes_on_with_the_draws_it_would_have_made(dropping):
    checkpoint, expected = Memory(), run(dropping())
    with pytest.raises(Interrupted):
        run(dropping(), progress=stopping(3), checkpoint=checkpoint)
    torch.rand(7)  # whatever happened in between
    assert_identical(run(dropping(seed=99), checkpoint=checkpoint), expected)


class Old(Memory):
    """Checkpoints as they were before the generators' states were kept."""

    def save(self, state):
        super().save({key: value for key, value in state.items() if key != "random"})


def test_a_checkpoint_without_the_generators_states_still_loads(start):
    checkpoint = Old()
    run(start(), epochs=2, checkpoint=checkpoint)
    assert "random" not in checkpoint.load()
    assert_identical(run(start(seed=99), checkpoint=checkpoint), run(start()))


def test_a_finished_run_that_is_only_loaded_leaves_the_generator_alone(start):
    checkpoint = Memory()
    run(start(), checkpoint=checkpoint)
    again = start(seed=99)
    state = torch.get_rng_state()
    run(again, checkpoint=checkpoint)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_states_of_the_cpu_and_of_the_parameters_gpu_are_kept_and_given_back(monkeypatch):
    states = {"cuda:1": torch.arange(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state})
    )
    gpu, cpu = torch.device("cuda:1"), torch.device("cpu")
    kept = training._random(gpu)
    drawn = torch.rand(3)
    states["cuda:1"] = None
    training._set_random(kept, gpu)
    assert torch.equal(torch.rand(3), drawn) and torch.equal(states["cuda:1"], torch.arange(3))
    assert len(training._random(cpu)) == 1
    training._set_random(kept, cpu)  # a run that goes on elsewhere
    training._set_random(kept[:1], gpu)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_checkpoint_of_more_epochs_than_asked_for_is_refused(start, schedule):
    checkpoint = Memory()
    run(start(), epochs=3, schedule=schedule, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="holds 3 epochs, more than the 1 asked for"):
        run(start(), epochs=1, schedule=schedule, checkpoint=checkpoint)


@pytest.mark.parametrize(
    "first, second, told",
    [
        ({}, {"schedule": "one_cycle"}, "schedule constant, here one_cycle"),
        ({"schedule": "one_cycle"}, {}, "schedule one_cycle, here constant"),
        ({}, {"learning_rate": 0.25}, r"learning rate 0\.\d+, here 0\.25"),
        (
            {"schedule": "one_cycle", "learning_rate": 0.5},
            {"schedule": "one_cycle", "learning_rate": 0.25},
            r"learning rate 0\.5, here 0\.25",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(start, first, second, told):
    checkpoint = Memory()
    with pytest.raises(Interrupted):
        run(start(), epochs=3, checkpoint=checkpoint, progress=stopping(2), **first)
    with pytest.raises(ValueError, match=told):
        run(start(), epochs=3, checkpoint=checkpoint, **second)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "change, told",
    [
        ("objective", r"objective classification\.<locals>\.terms, here decorrelation\.<locals>\.terms"),
        ("model", r"parameter 1\.body\.0\.weight \(8, 1, 3, 3\), here 1\.body\.0\.weight \(16, 1, 3, 3\)"),
        ("part", r"parameter 1\.body\.0\.weight \(8, 1, 3, 3\), here 1\.tail\.0\.weight \(32, 16, 3, 3\)"),
        ("batch size", "batches 2, here 4"),
        ("list", "batches with a generator True, here False"),
    ],
    ids=["objective", "model", "part", "batch size", "list"],
)
def test_a_checkpoint_of_another_objective_model_or_batch_size_is_refused_before_anything_is_loaded(
    mnist_train, change, told, finished
):
    first, checkpoint = classification(CNN(), CNN()), Memory()
    fit(first, first.parameters(), Batches(mnist_train[:40], 20), epochs=2, checkpoint=checkpoint)
    pair = [CNN(2 if change == "model" else 1) for _ in range(2)]
    objective = losses.decorrelation(*pair) if change == "objective" else classification(*pair)
    parameters = pair[0].tail.parameters() if change == "part" else objective.parameters()
    batches = Batches(mnist_train[:40], 10 if change == "batch size" else 20)
    batches = list(batches) if change == "list" else batches
    before = [flat(model).clone() for model in pair]
    with pytest.raises(ValueError, match=f"of another training: {told}; ask for the same, or train without"):
        fit(objective, parameters, batches, epochs=2 if finished else 3, checkpoint=checkpoint)
    assert all(torch.equal(flat(model), weights) for model, weights in zip(pair, before, strict=True))


def test_batches_with_a_generator_do_not_go_on_after_batches_without(mnist_train):
    objective, checkpoint = classification(CNN()), Memory()
    batches = Batches(mnist_train[:40], 20)
    fit(objective, objective.parameters(), list(batches), epochs=1, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="batches with a generator False, here True"):
        fit(objective, objective.parameters(), batches, epochs=2, checkpoint=checkpoint)


def test_batches_that_are_only_iterated_may_be_resumed_too(problem):
    class Stream:
        def __iter__(self):
            return iter(problem[1])

    model, checkpoint = nn.Linear(3, 1).double(), Memory()
    fit(regression(model), model.parameters(), Stream(), epochs=1, checkpoint=checkpoint)
    history = fit(regression(model), model.parameters(), Stream(), epochs=2, checkpoint=checkpoint)
    assert len(history["loss"]) == 2
    with pytest.raises(ValueError, match=r"one_cycle.* needs batches that have a length"):
        fit(regression(model), model.parameters(), Stream(), epochs=2, schedule="one_cycle")


def test_a_checkpoint_of_more_models_is_refused(start):
    objective, batches = start()
    pair = Objective((*objective.models, nn.Linear(1, 1)), objective.terms)
    checkpoint = Memory()
    run((pair, batches), epochs=1, checkpoint=checkpoint)
    with pytest.raises(ValueError, match=f"models {len(pair.models)}, here {len(objective.models)}"):
        run(start(), epochs=2, checkpoint=checkpoint)


# --- The one-cycle schedule ----------------------------------------------------------------------


def rates(epochs, steps_an_epoch, **options):
    """The learning rate of every step: how far Adam moves a parameter whose gradient is always 1."""
    model, places = nn.Linear(1, 1, bias=False).double(), []

    def terms(x, y):
        places.append(float(model.weight.detach()))
        return {"loss": model.weight.sum()}

    batches = [(torch.zeros(1), torch.zeros(1))] * steps_an_epoch
    fit(Objective((model,), terms), model.parameters(), batches, epochs=epochs, **options)
    return -torch.tensor([*places, float(model.weight.detach())], dtype=torch.float64).diff()


def test_the_rate_is_constant_unless_told_otherwise():
    torch.testing.assert_close(
        rates(3, 5, learning_rate=0.02), torch.full((15,), 0.02).double(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("epochs, steps", [(10, 10), (1, 100), (100, 1)])
def test_one_cycle_rises_to_the_peak_in_the_first_third_of_all_steps_and_falls_to_nearly_nothing(
    epochs, steps
):
    found = rates(epochs, steps, learning_rate=0.02, schedule="one_cycle")
    assert len(found) == 100
    peak = int(found.argmax())
    assert 25 <= peak <= 34
    assert found[peak] == pytest.approx(0.02, rel=1e-5)
    assert (found[: peak + 1].diff() > 0).all() and (found[peak:].diff() < 0).all()
    assert found[0] < 0.05 * found[peak] and found[-1] < 1e-4 * found[peak]
    fall = torch.tensor([(1 + math.cos(math.pi * t / (99 - peak))) / 2 for t in range(100 - peak)]).double()
    torch.testing.assert_close(found[peak:], 0.02 * fall, rtol=0, atol=1e-6)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_one_cycle_run_interrupted_between_epochs_ends_as_if_it_had_not_been(start, after):
    checkpoint = Memory()

    expected = run(start(), schedule="one_cycle")
    with pytest.raises(Interrupted):
        run(start(), schedule="one_cycle", progress=stopping(after), checkpoint=checkpoint)
    assert len(checkpoint.saved) == after
    assert_identical(run(start(seed=99), schedule="one_cycle", checkpoint=checkpoint), expected)
    assert expected[0] != run(start())[0]  # the schedule matters


def test_a_one_cycle_schedule_cannot_be_resumed_with_another_number_of_epochs(mnist_train):
    batches, checkpoint, model = Batches(mnist_train[:40], 20), Memory(), mnist_autoencoder()
    objective = reconstruction(model)
    options = {"schedule": "one_cycle", "checkpoint": checkpoint}
    fit(objective, model.parameters(), batches, epochs=2, **options)
    with pytest.raises(ValueError, match="has 4 steps, these epochs have 6"):
        fit(objective, model.parameters(), batches, epochs=3, **options)


def test_augmented_one_cycle_training_of_an_autoencoder_resumes_to_identical_weights(mnist_train):
    def begin(seed):
        torch.manual_seed(seed)
        batches = Batches(mnist_train[:40], 20, seed=seed, augment=crop_and_flip)
        return reconstruction(mnist_autoencoder()), batches

    options = {"epochs": 4, "schedule": "one_cycle"}
    expected, checkpoint = run(begin(0), **options), Memory()

    def stopping(iterable, description):
        yield from list(iterable)[:2]
        raise Interrupted

    with pytest.raises(Interrupted):
        run(begin(0), progress=stopping, checkpoint=checkpoint, **options)
    assert_identical(run(begin(99), checkpoint=checkpoint, **options), expected)


# --- bfloat16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bfloat16", [True, False])
def test_bfloat16_multiplies_in_bfloat16_and_keeps_parameters_statistics_and_losses_in_float32(
    bfloat16, monkeypatch
):
    autoencoder, seen, inside = cifar10_autoencoder(), [], []
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, x, out: seen.append(out.dtype))
    original = losses._correlation_loss

    def spy(z1, z2, *options):
        inside.append((z1.dtype, z2.dtype, (z1.T @ z1).dtype, torch.is_autocast_enabled("cpu")))
        return original(z1, z2, *options)

    monkeypatch.setattr(losses, "_correlation_loss", spy)
    plain, kinds = reconstruction(autoencoder), []

    def terms(x, y):
        named = plain(x, y)
        kinds.extend(value.dtype for value in named.values())
        return named

    batches = [(torch.rand(4, 3, 32, 32), None)]
    before = flat(autoencoder)
    fit(Objective(plain.models, terms), plain.parameters(), batches, epochs=1, bfloat16=bfloat16)
    assert set(seen) == {torch.bfloat16 if bfloat16 else torch.float32}
    assert inside == [(torch.float32, torch.float32, torch.float32, False)]
    assert set(kinds) == {torch.float32} and len(kinds) == 4
    floating = [value for value in autoencoder.state_dict().values() if value.is_floating_point()]
    assert all(value.dtype == torch.float32 for value in floating)
    assert all(p.grad.dtype == torch.float32 for p in autoencoder.parameters())
    assert (flat(autoencoder) != before).any()
    assert not torch.is_autocast_enabled("cpu")


def test_an_autoencoder_trained_in_bfloat16_learns_from_nearly_the_same_losses(mnist_train):
    objective = reconstruction(mnist_autoencoder())
    batch = mnist_train.x[:200], mnist_train.y[:200]
    with torch.no_grad():
        expected = {name: [float(value)] for name, value in objective(*batch).items()}
    history = fit(objective, objective.parameters(), [batch], epochs=15, bfloat16=True)
    for name, values in expected.items():
        assert history[name][:1] == pytest.approx(values, rel=0.02)
        assert history[name][-1] < 0.9 * values[0]


def test_has_bfloat16_answers_for_every_device(monkeypatch):
    cpu = torch.device("cpu")
    assert has_bfloat16(cpu) in (True, False)
    assert not has_bfloat16(torch.device("meta")) and not has_bfloat16(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    for answer in (True, False):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
        assert has_bfloat16(cpu) is answer
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=answer, **_: answer)
        assert has_bfloat16(torch.device("cuda")) is answer


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, -1])
def test_fewer_than_one_epoch_is_refused(problem, epochs):
    model, batches, _ = problem
    with pytest.raises(ValueError, match=f"epochs must be at least 1, got {epochs}"):
        fit(regression(model), model.parameters(), batches, epochs=epochs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(problem, value):
    model, batches, _ = problem
    count, checkpoint = iter(range(100)), Memory()

    def terms(x, y):
        factor = value if next(count) == 2 else 1.0
        return {"loss": (model(x) - y).square().mean() * factor}

    with pytest.raises(FloatingPointError, match="in epoch 3"):
        fit(Objective((model,), terms), model.parameters(), batches, epochs=5, checkpoint=checkpoint)
    state = checkpoint.load()
    assert state["epochs"] == 2 and len(state["history"]["loss"]) == 2
    assert all(value.isfinite().all() for value in state["models"][0].values())


@pytest.mark.parametrize(
    "batches", [[], iter([(torch.zeros(2, 1), torch.zeros(2))])], ids=["empty", "one-shot"]
)
def test_an_epoch_without_batches_is_refused_rather_than_repeating_the_last(batches):
    model = nn.Linear(1, 1)
    objective = Objective((model,), lambda x, y: {"loss": model(x).square().mean()})
    with pytest.raises(ValueError, match="gave nothing in epoch"):
        fit(objective, objective.parameters(), batches, epochs=2)


def given_to_fit(model):
    """(objective, parameters, what is told) of plausible mistakes."""
    good, named = regression(model), list(model.named_parameters())

    def plain(x, y):
        return {"loss": (model(x) - y).square().mean()}

    def returning(found):
        return Objective((model,), lambda x, y: found(plain(x, y)["loss"]))

    other = nn.Linear(3, 1).double()
    return {
        "a function": (plain, model.parameters(), r"needs a tuple of models, .*; got .*plain"),
        "one model": (Objective(model, plain), model.parameters(), "needs a tuple of models, .*; got Linear"),
        "a model": (good, model, r"give the parameters, for example model\.parameters\(\), got a Linear"),
        "named parameters": (good, named, "parameters must be tensors, .*, got a tuple"),
        "no dict": (returning(lambda loss: loss), model.parameters(), 'with a "loss", got a Tensor'),
        "no loss": (
            returning(lambda loss: {"mse": loss}), model.parameters(), r"with a \"loss\", got \['mse'\]",
        ),
        "a number": (
            returning(lambda loss: {"loss": loss, "size": 0.5}), model.parameters(), "'size' is a float",
        ),
        "no scalar": (
            returning(lambda loss: {"loss": loss, "each": loss.expand(3)}), model.parameters(),
            r"'each' is shape \(3,\)",
        ),
        "another's parameters": (good, other.parameters(), "no parameter has a gradient"),
        "a detached loss": (
            returning(lambda loss: {"loss": loss.detach()}), model.parameters(), "no parameter has a grad",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("mistake", given_to_fit(nn.Linear(3, 1).double()))
def test_what_cannot_be_trained_is_refused_in_its_own_words(problem, mistake):
    model, batches, _ = problem
    objective, parameters, told = given_to_fit(model)[mistake]
    before = flat(model)
    with pytest.raises(ValueError, match=told):
        fit(objective, parameters, batches, epochs=1)
    assert torch.equal(flat(model), before)


def test_parameters_without_a_gradient_may_stand_beside_others(problem):
    model, batches, _ = problem
    other, before = nn.Linear(3, 1).double(), flat(model)
    fit(regression(model), [*other.parameters(), *model.parameters()], batches, epochs=1)
    assert (flat(model) != before).all()


def test_an_unknown_schedule_is_refused(problem):
    model, batches, _ = problem
    with pytest.raises(ValueError, match='"constant" or "one_cycle", got \'cosine\''):
        fit(regression(model), model.parameters(), batches, epochs=1, schedule="cosine")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_models_are_in_eval_mode_when_training_stops_early(problem, error):
    model, batches, _ = problem

    def terms(x, y):
        assert model.training
        raise error

    with pytest.raises(error):
        fit(Objective((model,), terms), model.parameters(), batches, epochs=2)
    assert not model.training

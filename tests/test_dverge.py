"""Distilled images against what can be worked out by hand, and DVERGE against loops written out in full."""

import copy
import inspect
from dataclasses import astuple, replace
from itertools import combinations, pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

from dnabook import data, dverge, losses, training
from dnabook.dverge import FEATURES, PRESETS, Memory, Preset, activations, distil_features, diversification
from dnabook.models import CNN, FullyConnected, VisionTransformer, evaluating

PAPER, OFFICIAL = PRESETS["paper"], PRESETS["official"]
SHORT = Preset(steps=3, step_size=0.05)
TOGETHER = replace(SHORT, simultaneous=True)


class Small(nn.Module):
    """A quick model with batch normalisation, so that a wrong mode shows."""

    def __init__(self, *body, tail=None):
        super().__init__()
        self.body = nn.Sequential(
            *(body or (nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.BatchNorm1d(20)))
        )
        self.tail = nn.Sequential(nn.Linear(20, 10)) if tail is None else tail

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.tail(self.body(x))


def small_pair(seed=0):
    torch.manual_seed(seed)
    return Small(), Small()


def copied(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return all(value.equal(other[key]) for key, value in one.items())


def distance(model, x, target, layer=FEATURES):
    """‖f(x) − f(target)‖² of each image, in eval mode."""
    with torch.no_grad(), evaluating(model):
        return (activations(model, x, layer) - activations(model, target, layer)).square().flatten(1).sum(1)


@pytest.fixture(scope="module")
def images(mnist_test):
    """Sources and targets: each target is the next source."""
    x = mnist_test.x[:24]
    return x, x.roll(-1, 0)


# --- Presets -------------------------------------------------------------------------------------


def test_the_presets_are_the_two_columns_of_the_comparison():
    assert astuple(PAPER) == (0.15, 20, 3 / 255, 0.0, "features", False)
    assert astuple(OFFICIAL) == (0.07, 10, 0.007, 1.0, "random", True)
    assert Preset() == PAPER and set(PRESETS) == {"paper", "official"}


def test_a_preset_of_another_layer_is_refused():
    with pytest.raises(ValueError, match="layer is 'features' or 'random', got 'conv1'"):
        Preset(layer="conv1")


# --- Layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, expected", [(CNN, [0, 3, 6]), (FullyConnected, [1, 4, 7, 10, 13])])
def test_layers_are_the_convolutions_and_linear_layers_but_the_last(make, expected):
    model = make()
    modules = [*model.body, *model.tail]
    assert dverge.layers(model) == expected
    weighted = [m for m in modules if hasattr(m, "weight") and not isinstance(m, nn.BatchNorm1d)]
    assert [modules[i] for i in expected] == weighted[:-1]


@pytest.mark.parametrize("make", [CNN, FullyConnected])
def test_the_compared_features_are_the_default_activations(make, images):
    model = make().eval()
    assert activations(model, images[0]).equal(model.features(images[0]))


@pytest.mark.parametrize("make", [CNN, FullyConnected])
def test_a_layer_s_activations_are_taken_before_the_relu_and_lead_to_the_logits(make, images):
    model = make().eval()
    modules = [*model.body, *model.tail]
    for layer in dverge.layers(model):
        z = activations(model, images[0], layer)
        assert z.min() < 0
        rest = relu(z)
        for module in modules[layer + 1 :]:  # its own ReLU changes nothing more
            rest = module(rest)
        assert rest.allclose(model(images[0]), atol=1e-6)


@pytest.mark.parametrize("layer", [1, 2, 10, 11, -1, "random", None])
def test_a_position_that_holds_no_such_layer_is_refused(layer, images):
    with pytest.raises(ValueError, match=r"layer is 'features' or one of \[0, 3, 6\], got "):
        activations(CNN(), images[0], layer)


# --- Distilled images ----------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [FEATURES, 0, 3, 6])
@pytest.mark.parametrize("preset", [PAPER, OFFICIAL], ids=PRESETS)
def test_distilled_images_stay_in_the_ball_and_the_box_and_see_more_of_the_target(
    preset, layer, trained_cnn, images
):
    source, target = images
    distilled = distil_features(trained_cnn, source, target, preset, layer=layer)
    assert distilled.shape == source.shape and not distilled.requires_grad
    assert (distilled - source).abs().max() <= preset.epsilon + 1e-6
    assert distilled.min() >= 0 and distilled.max() <= 1
    before = distance(trained_cnn, source, target, layer)
    assert (distance(trained_cnn, distilled, target, layer) < before).all()


def test_a_larger_ball_lets_the_features_come_nearer_to_the_target(trained_cnn, images):
    reached = [
        distance(trained_cnn, distil_features(trained_cnn, *images, replace(PAPER, epsilon=e)), images[1])
        for e in (0.0, 0.05, 0.15, 0.4)
    ]
    assert all((large < small).float().mean() > 0.9 for small, large in pairwise(reached))


@pytest.mark.parametrize("preset", [PAPER, OFFICIAL], ids=PRESETS)
def test_a_ball_of_size_zero_returns_the_source(preset, trained_cnn, images):
    distilled = distil_features(trained_cnn, *images, replace(preset, epsilon=0.0))
    assert distilled.equal(images[0])


def test_features_that_are_the_pixels_bring_each_pixel_as_near_to_the_target_as_the_ball_allows(images):
    source, target = images
    model = Small(nn.Flatten(), tail=nn.Linear(784, 10))
    for epsilon in (0.1, 1.0):
        preset = Preset(epsilon, steps=110, step_size=0.01)
        expected = source + (target - source).clamp(-epsilon, epsilon)
        assert (distil_features(model, source, target, preset) - expected).abs().max() <= 0.01 + 1e-5


def test_in_a_large_ball_linear_features_reach_the_target_s(images):
    source, target = images
    model = Small(nn.Flatten(), nn.Linear(784, 5), tail=nn.Linear(5, 10))
    distilled = distil_features(model, source, target, Preset(1.0, steps=1500, step_size=2e-4))
    assert (distance(model, distilled, target) <= 1e-3 * distance(model, source, target)).all()


def test_the_target_itself_needs_no_change(trained_cnn, images):
    assert distil_features(trained_cnn, images[0], images[0]).equal(images[0])


@pytest.mark.parametrize("preset", [PAPER, replace(OFFICIAL, layer=FEATURES)], ids=PRESETS)
def test_distilling_is_sign_descent_with_momentum_from_the_source(preset, trained_cnn, images):
    trained_cnn = copy.deepcopy(trained_cnn).to(memory_format=torch.channels_last)  # as it is distilled
    source, target = (x[:6] for x in images)
    wanted = trained_cnn.features(target).detach()
    expected, velocity = source.clone(), torch.zeros_like(source)
    for _ in range(preset.steps):
        x = expected.clone().requires_grad_()
        (trained_cnn.features(x) - wanted).square().sum().backward()
        gradient = x.grad
        if preset.momentum:
            lengths = gradient.abs().sum((1, 2, 3), keepdim=True)
            velocity = gradient = preset.momentum * velocity + gradient / lengths
        expected = expected - preset.step_size * gradient.sign()
        expected = (source + (expected - source).clamp(-preset.epsilon, preset.epsilon)).clamp(0, 1)
    found = distil_features(trained_cnn, source, target, preset)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999  # a gradient near 0 may change its sign


def test_the_layer_that_is_told_is_the_one_that_is_matched_best(trained_cnn, images):
    layers = [FEATURES, 0, 3, 6]
    distilled = {layer: distil_features(trained_cnn, *images, layer=layer) for layer in layers}
    for layer in layers:
        reached = {k: distance(trained_cnn, x, images[1], layer).mean().item() for k, x in distilled.items()}
        assert min(reached, key=reached.get) == layer


def test_an_image_is_distilled_alike_whatever_its_batch(trained_cnn, images):
    source, target = images
    whole = distil_features(trained_cnn, source, target, OFFICIAL)
    part = distil_features(trained_cnn, source[5:8], target[5:8], OFFICIAL)
    assert ((whole[5:8] - part).abs() < 1e-5).float().mean() > 0.999


@pytest.mark.parametrize("frozen", [True, False])
def test_distilling_leaves_parameters_statistics_gradients_and_modes_as_they_were(frozen, images):
    model, _ = small_pair()
    model.train()
    model.body[3].train(not frozen)
    before, modes = copied(model), [module.training for module in model.modules()]
    distilled = distil_features(model, *images, SHORT)
    assert same(before, model.state_dict())
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert distilled.equal(distil_features(model.eval(), *images, SHORT))


def test_a_source_and_target_of_different_shapes_are_refused(images):
    with pytest.raises(ValueError, match="source and target need one shape"):
        distil_features(CNN(), images[0], images[1][:1])


# --- The objective -------------------------------------------------------------------------------


def loss_of(learner, teacher, x, y, preset):
    """Cross-entropy with the source's label on images distilled from the teacher towards the next image."""
    target = torch.cat([x[1:], x[:1]])
    return cross_entropy(learner(distil_features(teacher, x, target, preset)), y)


def test_a_learner_is_trained_on_its_teacher_s_distilled_images_with_the_source_s_labels(mnist_test):
    x, y = mnist_test.x[:30], mnist_test.y[:30]
    one, two = (model.eval() for model in small_pair())
    expected = loss_of(one, two, x, y, SHORT)
    objective = diversification((one,), (two,), SHORT)
    terms = objective(x, y)
    assert set(terms) == {"loss"} and terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert objective.models == (one,)
    terms["loss"].backward()
    assert all(p.grad is not None for p in one.parameters())
    assert all(p.grad is None for p in two.parameters())


def test_simultaneous_learners_add_up_and_each_learns_from_the_other(mnist_test):
    x, y = mnist_test.x[:30], mnist_test.y[:30]
    one, two = (model.eval() for model in small_pair())
    expected = loss_of(one, two, x, y, SHORT) + loss_of(two, one, x, y, SHORT)
    objective = diversification((one, two), (two, one), SHORT)
    assert objective(x, y)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert objective.models == (one, two)
    own = loss_of(one, one, x, y, SHORT) + loss_of(two, two, x, y, SHORT)
    assert objective(x, y)["loss"].item() != pytest.approx(own.item(), rel=1e-3)


# --- Training ------------------------------------------------------------------------------------


@pytest.fixture
def batches(mnist_train):
    """batches(turn) as `train` wants it: 3 batches of 50, another order for each turn."""
    return lambda turn: data.Batches(mnist_train[:150], 50, seed=10 + turn)


def adam(*models):
    return torch.optim.Adam([p for model in models for p in model.parameters()], lr=5e-3, fused=True)


def step(optimizer, learners, teachers, x, y):
    """One update of the learners, everything written out."""
    for model in (*learners, *teachers):
        model.eval()
    pairs = list(zip(learners, teachers, strict=True))
    distilled = [distil_features(teacher, x, x.roll(-1, 0), SHORT) for _, teacher in pairs]
    for model in learners:
        model.train()
    loss = sum(cross_entropy(model(d), y) for (model, _), d in zip(pairs, distilled, strict=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def alternating(epochs, batches, *, newest=True, one_adam=True):
    """The paper's order by hand: model 1 an epoch long against model 2 as it is, then model 2."""
    one, two = small_pair()
    optimizers, own, means = [adam(one), adam(two)], [batches(0), batches(1)], []
    for _ in range(epochs):
        if not one_adam:
            optimizers = [adam(one), adam(two)]
        before = Small()
        before.load_state_dict(copied(one))
        first = [step(optimizers[0], (one,), (two,), x, y) for x, y in own[0]]
        teacher = one if newest else before
        second = [step(optimizers[1], (two,), (teacher,), x, y) for x, y in own[1]]
        means.append((sum(first) / len(first), sum(second) / len(second)))
    return (one, two), means


def test_the_paper_s_model_1_learns_an_epoch_from_model_2_then_model_2_from_the_new_model_1(batches):
    pair = small_pair()
    found = list(dverge.train(pair, batches, epochs=2, preset=SHORT))
    expected, means = alternating(2, batches)
    for model, other in zip(pair, expected, strict=True):
        assert same(model.state_dict(), other.state_dict())
    assert [(each["loss_1"], each["loss_2"]) for each in found] == [
        pytest.approx(both, rel=1e-5) for both in means
    ]


@pytest.mark.parametrize("mistake", [{"newest": False}, {"one_adam": False}])
def test_the_old_model_1_or_a_fresh_adam_would_give_other_weights(mistake, batches):
    right, wrong = alternating(2, batches)[0], alternating(2, batches, **mistake)[0]
    assert not same(right[1].state_dict(), wrong[1].state_dict())


def test_the_frozen_model_does_not_change_while_the_other_learns(batches, monkeypatch):
    pair = small_pair()
    started, turns = [copied(model) for model in pair], []
    fit = training.fit

    def spy(objective, *arguments, **options):
        before = [copied(model) for model in pair]
        history = fit(objective, *arguments, **options)
        turns.append((objective.models, [same(b, m.state_dict()) for b, m in zip(before, pair, strict=True)]))
        return history

    monkeypatch.setattr(training, "fit", spy)
    list(dverge.train(pair, batches, epochs=2, preset=SHORT))
    assert turns == [((pair[0],), [False, True]), ((pair[1],), [True, False])] * 2
    assert not any(same(state, model.state_dict()) for state, model in zip(started, pair, strict=True))


def test_simultaneous_models_are_distilled_on_one_batch_and_learn_from_it_together(batches):
    pair = small_pair()
    asked = []
    found = list(
        dverge.train(pair, lambda turn: asked.append(turn) or batches(turn), epochs=2, preset=TOGETHER)
    )
    one, two = small_pair()
    optimizer, own, means = adam(one, two), batches(0), []
    for _ in range(2):
        each = [step(optimizer, (one, two), (two, one), x, y) for x, y in own]
        means.append({"loss_1": pytest.approx(sum(each) / len(each), rel=1e-5)})
    for model, other in zip(pair, (one, two), strict=True):
        assert same(model.state_dict(), other.state_dict())
    assert asked == [0] and found == means


def test_adam_and_the_batches_go_on_from_epoch_to_epoch_as_in_one_uninterrupted_fit(batches):
    pair, (one, two) = small_pair(), small_pair()
    found = [each["loss_1"] for each in dverge.train(pair, batches, epochs=3, preset=TOGETHER)]
    objective = diversification((one, two), (two, one), TOGETHER)
    history = training.fit(objective, objective.parameters(), batches(0), epochs=3)
    assert found == history["loss"]
    for model, other in zip(pair, (one, two), strict=True):
        assert same(model.state_dict(), other.state_dict())


def test_the_learning_rate_reaches_adam(batches):
    start, moved = small_pair()[0], []
    for rate in (1e-4, 5e-3):
        pair = small_pair()
        list(dverge.train(pair, batches, epochs=1, preset=SHORT, learning_rate=rate))
        moved.append((pair[0].tail[0].bias - start.tail[0].bias).abs().max().item())
    assert 0 < moved[0] <= 1.1 * 3e-4 < moved[1]  # three steps of Adam, each at most its rate


@pytest.fixture
def layers_used(monkeypatch):
    """What `distil_features` was told, image batch by image batch."""
    used = []

    def note(model, source, target, preset, *, layer):
        used.append(layer)
        return source

    monkeypatch.setattr(dverge, "distil_features", note)
    return used


def drawn(used, batches, seed, preset=OFFICIAL):
    """The layers of 12 epochs, three batches and two teachers each."""
    used.clear()
    list(dverge.train((CNN(), CNN()), batches, epochs=12, preset=preset, seed=seed))
    return [used[i : i + 6] for i in range(0, len(used), 6)]


def test_official_draws_one_layer_an_epoch_for_both_models_from_its_seed(layers_used, batches):
    epochs = drawn(layers_used, batches, 0)
    assert len(epochs) == 12 and all(len(each) == 6 and len(set(each)) == 1 for each in epochs)
    assert {each[0] for each in epochs} == set(dverge.layers(CNN()))
    assert drawn(layers_used, batches, 0) == epochs != drawn(layers_used, batches, 1)


def test_the_paper_s_preset_always_takes_the_compared_features(layers_used, batches):
    assert {layer for epoch in drawn(layers_used, batches, 0, PAPER) for layer in epoch} == {FEATURES}


def test_each_epoch_is_yielded_as_it_ends_with_both_models_in_eval_mode(batches):
    pair = small_pair()
    epochs = dverge.train(pair, batches, epochs=3, preset=SHORT)
    start, states = [copied(model) for model in pair], []
    for terms in epochs:
        assert set(terms) == {"loss_1", "loss_2"}
        assert not any(module.training for model in pair for module in model.modules())
        states.append(copied(pair[0]))
    assert len(states) == 3
    assert not any(same(a, b) for a, b in pairwise([start[0], *states]))


def test_training_repeats_exactly_with_its_seeds(batches):
    runs = []
    for _ in range(2):
        pair = small_pair()
        runs.append((list(dverge.train(pair, batches, epochs=2, preset=replace(OFFICIAL, steps=2))), pair))
        torch.rand(7)  # whatever happened before
    assert runs[0][0] == runs[1][0]
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_models_learn_to_read_the_other_s_distilled_images_as_what_they_look_like(mnist_train, mnist_test):
    pair = small_pair()
    for model in pair:
        training.fit(
            losses.classification(model), model.parameters(), data.Batches(mnist_train, 50), epochs=3
        )
    x, y = mnist_test.x, mnist_test.y

    def misread():
        distilled = distil_features(pair[1], x, x.roll(-1, 0), SHORT)
        return (pair[0](distilled).argmax(1) != y).float().mean().item()

    before = misread()
    history = list(dverge.train(pair, lambda turn: data.Batches(mnist_train, 50, seed=turn), preset=SHORT))
    assert misread() < 0.8 * before
    assert all(history[-1][name] < history[0][name] for name in ("loss_1", "loss_2"))


def test_from_epoch_to_epoch_dropout_draws_anew(batches):
    """A checkpoint that took PyTorch's generator back would repeat the first epoch's draws in every other."""
    pair = tuple(Small(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Dropout(0.5)) for _ in range(2))
    states = []
    for _ in dverge.train(pair, batches, epochs=3, preset=replace(SHORT, steps=1)):
        states.append(torch.get_rng_state())
        torch.rand(7)  # what the caller draws goes on as well
    assert not any(torch.equal(a, b) for a, b in combinations(states, 2))
    memory = Memory()
    memory.save({"epochs": 1, "random": [torch.get_rng_state()]})
    assert memory.load() == {"epochs": 1}


def test_training_needs_a_memory_for_each_turn(batches):
    for preset, turns in ((PAPER, 2), (OFFICIAL, 1)):
        assert preset.turns == turns
        with pytest.raises(ValueError, match=f"this preset needs {turns} memories, got 3"):
            next(dverge.train(small_pair(), batches, preset=preset, memories=[Memory()] * 3))


@pytest.mark.parametrize("other", [VisionTransformer, FullyConnected])
def test_a_random_layer_needs_two_models_that_have_it(batches, other):
    pair = (VisionTransformer(), VisionTransformer()) if other is VisionTransformer else (CNN(), other())
    with pytest.raises(ValueError, match=r"a random layer needs two models with the same .* found "):
        next(dverge.train(pair, batches, preset=OFFICIAL))


def test_a_memory_gives_back_what_was_saved_last():
    memory = Memory()
    assert memory.load() is None
    for state in ({"epochs": 1}, {"epochs": 2}):
        memory.save(state)
        assert memory.load() == state


def test_a_memory_does_not_change_with_what_was_saved():
    """The weights train on, and `fit` goes on with the same history."""
    memory, weight, history = Memory(), torch.ones(2), {"loss": [1.0]}
    memory.save({"epochs": 1, "models": [{"weight": weight}], "history": history})
    weight.zero_()
    history["loss"].append(2.0)
    assert memory.load()["models"][0]["weight"].tolist() == [1, 1]
    assert memory.load()["history"] == {"loss": [1.0]}


def test_the_defaults_are_those_of_figure_4():
    defaults = {name: p.default for name, p in inspect.signature(dverge.train).parameters.items()}
    assert (defaults["epochs"], defaults["learning_rate"]) == (10, 5e-3)
    assert dverge.PRESETS["paper"] == defaults["preset"]

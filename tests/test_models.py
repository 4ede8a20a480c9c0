"""The two classifiers: their sizes, their order of layers, where they are cut, and weights from elsewhere."""

from __future__ import annotations

import contextlib
import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from dnabook.models import (
    ARCHITECTURES,
    CNN,
    FullyConnected,
    VisionTransformer,
    channels_last,
    evaluating,
    scaled,
    seeded,
)

BOTH = pytest.mark.parametrize("architecture", [CNN, FullyConnected])


@pytest.fixture
def x():
    return torch.rand(5, 1, 28, 28)


def lived_in(model):
    """The model with statistics and normalisation weights that are not the initial zeros and ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_()
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 2)
    return model.eval()


def test_the_models_have_the_papers_numbers_of_parameters():
    assert sum(p.numel() for p in CNN().parameters()) == 6_218
    assert sum(p.numel() for p in FullyConnected().parameters()) == 807_510


def test_the_parameters_of_the_cnn_stand_in_the_order_of_its_layers():
    assert [tuple(p.shape) for p in CNN().parameters()] == [
        (8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,), (32, 16, 3, 3), (32,), (10, 32), (10,),
    ]  # fmt: skip


def test_the_parameters_of_the_fully_connected_network_stand_in_the_order_of_its_layers():
    widths = [784, 500, 500, 200, 200, 100]
    expected = [
        shape
        for inputs, outputs in pairwise(widths)
        for shape in ((outputs, inputs), (outputs,), (outputs,), (outputs,))  # linear, then normalisation
    ]
    assert [tuple(p.shape) for p in FullyConnected().parameters()] == [*expected, (10, 100), (10,)]


def test_architectures_are_found_by_name():
    assert dict(ARCHITECTURES) == {
        "cnn": CNN, "fully_connected": FullyConnected, "vit": VisionTransformer,
    }  # fmt: skip


@pytest.mark.parametrize("width", [0.25, 0.5, 2, 3])
def test_a_width_multiplies_every_hidden_layer(width, x):
    """Parameters of a CNN at width w: 80 w of the first convolution, 1152 w² + 16 w and 4608 w² + 32 w of the
    others, 320 w + 10 of the last layer. One and the same network at width 1."""
    cnn, connected = CNN(width=width), FullyConnected(width=width)
    assert cnn.features(x).shape == (5, 16 * width, 7, 7) and cnn(x).shape == (5, 10)
    assert connected.features(x).shape == (5, 200 * width) and connected(x).shape == (5, 10)
    assert sum(p.numel() for p in cnn.parameters()) == 5760 * width**2 + 448 * width + 10
    hidden = [layer.out_features for layer in connected.modules() if isinstance(layer, nn.Linear)]
    assert hidden == [500 * width, 500 * width, 200 * width, 200 * width, 100 * width, 10]


@pytest.mark.parametrize("hundredths", range(1, 301))
def test_every_width_that_leaves_whole_layers_is_taken_however_it_is_rounded(hundredths):
    assert scaled(hundredths / 100, 500, 200, 100) == [5 * hundredths, 2 * hundredths, hundredths]


@BOTH
def test_at_width_one_a_network_is_that_of_figure_11(architecture):
    drawn = []
    for options in ({}, {"width": 1}):
        torch.manual_seed(0)
        drawn.append(list(architecture(**options).parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))


@BOTH
@pytest.mark.parametrize("width", [0, -1, 0.001, 0.333, float("inf"), float("nan")])
def test_a_width_that_leaves_no_whole_layers_is_refused(architecture, width):
    with pytest.raises(ValueError, match=f"times the width must be whole numbers ≥ 1; got {width}"):
        architecture(width=width)


def test_a_transformer_refuses_images_that_its_squares_would_cut_off():
    with pytest.raises(ValueError, match="cut whole into squares of 7 pixels"):
        VisionTransformer()(torch.rand(2, 1, 32, 32))


@BOTH
def test_a_model_is_its_head_after_its_features(architecture, x):
    model = lived_in(architecture())
    assert torch.equal(model(x), model.head(model.features(x)))
    assert model(x).shape == (5, 10)


def test_features_have_the_shape_of_the_layer_that_the_paper_compares(x):
    assert CNN().features(x).shape == (5, 16, 7, 7)
    assert FullyConnected().features(x).shape == (5, 200)


def test_the_features_of_the_cnn_are_rectified_and_pooled(x):
    model = CNN()
    features = model.features(x)
    assert (features >= 0).all() and (features == 0).any() and (features > 0).any()
    before_pooling = torch.relu(model.body[3](model.body[:3](x)))  # (N, 16, 14, 14)
    corners = [before_pooling[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    assert torch.equal(features, torch.stack(corners).amax(0))


def test_the_features_of_the_fully_connected_network_are_normalised_after_rectifying(x):
    features = FullyConnected().train().features(torch.rand(200, 1, 28, 28))
    assert (features < 0).any()  # so the ReLU is not the last of the block
    torch.testing.assert_close(features.mean(0), torch.zeros(200), atol=1e-4, rtol=0)
    spread = features.var(0, unbiased=False)
    assert ((spread - 1).abs() < 0.05)[spread > 0.5].all() and (spread > 0.5).float().mean() > 0.9
    floor = features.amin(0)  # rectified values share one lowest value, which normalisation only moves
    assert ((features == floor).sum(0) > 1).float().mean() > 0.9


def test_weights_by_position_make_the_cnn_equal_an_independent_network(x):
    reference = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    model = CNN()
    load_by_position(model, reference)
    torch.testing.assert_close(model(x), reference(x))
    torch.testing.assert_close(model.features(x), reference[:6](x))
    x.requires_grad_()
    gradients = [torch.autograd.grad(m(x).square().sum(), [x, *m.parameters()]) for m in (model, reference)]
    torch.testing.assert_close(*gradients)  # pooled before the ReLU or after it


def test_weights_by_position_make_the_fully_connected_network_equal_its_formula(x):
    model, weights = lived_in(FullyConnected()), []
    z, blocks = x.flatten(1), []
    for i, layer in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm1d)):
        outputs, inputs = [(500, 784), (500, 500), (200, 500), (200, 200), (100, 200)][i]
        linear, bias = torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)
        gain, shift = torch.rand(outputs) + 0.5, torch.randn(outputs)
        weights += [linear, bias, gain, shift]
        z = torch.relu(z @ linear.T + bias)
        z = (z - layer.running_mean) / (layer.running_var + 1e-5).sqrt() * gain + shift
        blocks.append(z)
    weights += [torch.randn(10, 100), torch.randn(10)]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(value)
    torch.testing.assert_close(model.features(x), blocks[3], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(x), z @ weights[-2].T + weights[-1], atol=1e-3, rtol=1e-4)


def load_by_position(model, reference):
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), reference.parameters(), strict=True):
            parameter.copy_(value)


@BOTH
def test_an_image_is_classified_alike_alone_and_in_a_batch(architecture, x):
    model = lived_in(architecture()).double()
    alone = torch.cat([model(image[None]) for image in x.double()])
    torch.testing.assert_close(model(x.double()), alone)


@BOTH
def test_features_are_returned_and_not_kept_on_the_model(architecture, x):
    model = architecture().eval()
    before = set(vars(model)), len(list(model.buffers()))
    model.features(x)
    assert (set(vars(model)), len(list(model.buffers()))) == before


@BOTH
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(architecture):
    def first(seed):
        torch.manual_seed(seed)
        return next(architecture().parameters())

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


# --- evaluating ----------------------------------------------------------------------------------


def modes(*models):
    return [module.training for model in models for module in model.modules()]


@pytest.fixture
def pair():
    """A training model with a frozen BatchNorm, and a model in eval mode with one training layer."""
    first, second = FullyConnected().train(), FullyConnected().eval()
    first.body[3].eval()
    second.tail[2].train()
    return first, second


def test_evaluating_sets_every_submodule_to_eval_and_gives_each_its_mode_back(pair):
    before = modes(*pair)
    with evaluating(*pair):
        assert not any(modes(*pair))
    assert modes(*pair) == before


def test_evaluating_gives_the_modes_back_after_an_error(pair):
    before = modes(*pair)
    with pytest.raises(ZeroDivisionError), evaluating(*pair):
        1 / 0  # noqa: B018
    assert modes(*pair) == before


def test_evaluating_may_be_nested_and_name_a_model_twice(pair):
    before = modes(*pair)
    with evaluating(pair[0], pair[0]):
        with evaluating(*pair):
            assert not any(modes(*pair))
        assert modes(pair[1]) == before[len(before) // 2 :]
        assert not any(modes(pair[0]))
    assert modes(*pair) == before


def test_evaluating_leaves_other_models_and_no_models_alone(pair):
    before = modes(pair[1])
    with evaluating(pair[0]), evaluating():
        assert modes(pair[1]) == before


def test_seeded_starts_at_the_seed_and_goes_on_afterwards_as_if_nothing_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(3)
    with seeded(1):
        assert torch.rand(3).equal(first)
    assert torch.rand(3).equal(expected)


@pytest.fixture
def asked(monkeypatch):
    """Two GPUs that are not there, and which of them is asked for what."""
    notes = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: notes.append(f"get {device}"))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: notes.append(f"set {device}"))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: notes.append(f"seed {seed}"))
    return notes


def test_seeded_asks_no_gpu_on_a_machine_with_two(asked):
    with seeded(1):
        pass
    with seeded(1, torch.device("cpu")):
        pass
    assert asked == []


def test_seeded_seeds_the_gpu_that_it_is_given_and_gives_its_state_back(asked):
    with seeded(7, torch.device("cuda:1")):
        assert asked == ["get cuda:1", "seed 7"]
    assert asked == ["get cuda:1", "seed 7", "set cuda:1"]


def test_a_seed_gives_the_same_weights_under_another_default_device():
    with seeded(3):
        wanted = CNN()
    with torch.device("meta"), seeded(3):  # stands for a GPU
        found = CNN()
    for a, b in zip(wanted.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)


# --- channels_last -------------------------------------------------------------------------------


def strides(model):
    return [p.stride() for p in model.parameters()]


def addresses(model):
    return [p.data_ptr() for p in model.parameters()]


class Viewing(nn.Module):
    """A network that takes its feature maps apart with `view`, which asks for channels first.

    BatchNorm before it counts its calls, dropout draws random numbers.
    """

    def __init__(self, maps=4):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, maps, 3)
        )
        self.linear = nn.Linear(maps * 24 * 24, 10)

    def forward(self, x):
        return self.linear(self.conv(x).view(len(x), -1))


class ViewingMany(Viewing):
    """Of one image it can be called: an axis of length one may be viewed away."""

    def forward(self, x):
        maps = self.conv(x)
        return self.linear(maps.view(1, -1, *maps.shape[2:]).reshape(len(x), -1))


@pytest.fixture
def onednn(monkeypatch):
    """oneDNN counts as there; elsewhere other kernels give the same numbers."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


def test_feature_maps_have_their_channels_last_within_the_block_and_hold_the_same_numbers(x, onednn):
    model = CNN()
    features, logits = model.features(x), model(x)
    assert features.is_contiguous()
    with channels_last(model) as call:
        found = call(model.features, x)
        assert found.is_contiguous(memory_format=torch.channels_last) and not found.is_contiguous()
        torch.testing.assert_close(found, features)
        torch.testing.assert_close(call(model, x), logits)
    assert torch.equal(model(x), logits)


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_afterwards_parameters_lie_where_they_did_with_the_values_they_have_by_then(onednn, error):
    model = CNN()
    kept, lay, at = list(model.parameters()), strides(model), addresses(model)
    values = [p.detach().clone() for p in kept]
    with pytest.raises(error) if error else contextlib.nullcontext(), channels_last(model):
        assert strides(model) != lay
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        if error:
            raise error
    assert all(p is q for p, q in zip(model.parameters(), kept, strict=True))
    assert strides(model) == lay and addresses(model) == at
    assert all(torch.equal(p, 2 * value) for p, value in zip(kept, values, strict=True))


@pytest.mark.parametrize("within", [False, True])
def test_gradients_lie_as_their_parameters_do(x, onednn, within):
    model = CNN()
    if not within:
        model(x).sum().backward()
    with channels_last(model) as call:
        if within:
            call(model, x).sum().backward()
        expected = [p.grad.clone() for p in model.parameters()]
        assert all(p.grad.stride() == p.stride() for p in model.parameters())
    assert all(p.grad.stride() == p.stride() for p in model.parameters())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), expected, strict=True))


@pytest.mark.parametrize("kind", [Viewing, ViewingMany])
def test_a_model_that_views_its_feature_maps_is_called_as_it_is_and_nothing_tells_that_it_was_tried(
    x, onednn, kind
):
    torch.manual_seed(0)
    model = kind().train()
    twin, lay = copy.deepcopy(model), strides(model)
    torch.manual_seed(1)
    wanted = [twin(x), twin(x)]
    torch.manual_seed(1)
    with channels_last(model) as call:
        assert strides(model) != lay
        found = [call(model, x), call(model, x)]
        assert strides(model) == lay
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    for mine, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(mine, other)
    with pytest.raises(RuntimeError, match="view"):
        model.to(memory_format=torch.channels_last)(x)  # it could not have been called otherwise


def test_models_that_share_a_layer_lie_alike_and_where_one_views_neither_is_laid(x, onednn):
    one, other = CNN(), Viewing()
    other.conv[0] = one.body[0] = nn.Conv2d(1, 2, 3, padding=1)
    one.body[3], other.linear = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(4 * 26 * 26, 10)
    lay = strides(one), strides(other)
    with channels_last(one, other) as call:
        call(lambda x: (one(x), other(x)), x)
        assert (strides(one), strides(other)) == lay
        one(x), other(x)
    assert (strides(one), strides(other)) == lay


def test_an_error_that_is_not_the_layout_s_is_told_as_it_is(x, onednn):
    model = CNN()
    with channels_last(model) as call, pytest.raises(RuntimeError, match="channels"):
        call(model, x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError])
def test_an_error_of_the_first_call_alone_is_raised_and_nothing_is_called_again(x, onednn, error):
    model, calls = CNN().train(), []

    def once(x):
        calls.append(torch.rand(1))
        if len(calls) == 1:
            raise error("of the first call")
        return model(x)

    with channels_last(model) as call:
        with pytest.raises(error, match="of the first call"):
            call(once, x)
        call(once, x)
    assert len(calls) == 2


def test_no_image_is_shown_to_a_model_but_those_it_is_called_with(x, onednn):
    model, seen = CNN().train(), []
    model.register_forward_hook(lambda module, given, result: seen.append(len(given[0])))
    with channels_last(model) as call:
        call(model, x)
        call(model, x[:1])
        assert all(modes(model))
    assert seen == [len(x), 1]


def test_nothing_is_laid_where_nothing_is_won(monkeypatch):
    def untouched(model):
        at = addresses(model)
        with channels_last(model):
            return addresses(model) == at

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert untouched(FullyConnected())
    assert untouched(CNN().to(memory_format=torch.channels_last))
    assert untouched(CNN().to("meta"))  # stands for a GPU
    assert not untouched(CNN())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert untouched(CNN())


def test_blocks_may_be_nested_and_the_outer_one_ends_the_layout(x, onednn):
    model = CNN()
    lay = strides(model)
    with channels_last(model):
        within = strides(model)
        with channels_last(model) as call:
            call(model, x)
            assert strides(model) == within
        assert strides(model) == within != lay
    assert strides(model) == lay


def test_the_transformer_has_as_many_parameters_as_its_blocks_by_hand():
    attention = 3 * (32 * 32 + 32) + 32 * 32 + 32  # queries, keys and values; what comes of them
    block = attention + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32  # two layers, two normalisations
    found = sum(p.numel() for p in VisionTransformer().parameters())
    assert found == (49 * 32 + 32) + 16 * 32 + 3 * block + 2 * 32 + 330 == 28_138


def test_the_features_of_the_transformer_are_sixteen_tokens_before_its_last_block(x):
    model = lived_in(VisionTransformer())
    z = model.features(x)
    assert z.shape == (5, 16, 32)
    assert torch.equal(model(x), model.head(z))
    last, norm, _, out = model.tail
    torch.testing.assert_close(model.head(z), out(norm(last(z)).mean(1)))


def test_a_token_of_the_transformer_starts_as_its_own_patch_and_place():
    patches = VisionTransformer().body[0]
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, 7:14, 14:21] = 1.0  # the second patch of four down, the third across: token 1 × 4 + 2
    moved = (patches(x) - patches(torch.zeros_like(x))).abs().sum(2)[0]  # (16,)
    assert moved.nonzero().flatten().tolist() == [6]
    torch.testing.assert_close(
        (patches(x) - patches(torch.zeros_like(x)))[0, 6], patches.embed.weight.sum(1), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(patches(torch.zeros_like(x))[0], patches.place + patches.embed.bias)


def test_the_transformer_reads_all_tokens_alike_but_for_their_places():
    torch.manual_seed(0)
    model = VisionTransformer().eval()
    model.body[0].place.data.zero_()
    x = torch.rand(3, 1, 28, 28)
    order = torch.randperm(16)
    patches = nn.functional.unfold(x, 7, stride=7)[:, :, order]
    mixed = nn.functional.fold(patches, 28, 7, stride=7)
    torch.testing.assert_close(model(mixed), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.features(mixed), model.features(x)[:, order], rtol=1e-4, atol=1e-5)

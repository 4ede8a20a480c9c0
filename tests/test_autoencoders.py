"""Autoencoders: parameters as in Figures 12 and 13, paths against hand-built networks, what paths share."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, max_pool2d

from dnabook.autoencoders import (
    Block,
    CIFAR10Classifier,
    NeckedAutoencoder,
    Reconstructor,
    cifar10_autoencoder,
    mnist_autoencoder,
    mnist_classifier,
)

MAKERS = {"mnist": mnist_autoencoder, "cifar10": cifar10_autoencoder}
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
both = pytest.mark.parametrize("name", MAKERS)


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def images(name, n=4):
    return torch.rand(n, *SHAPES[name])


def layers(autoencoder, path):
    """The six layers of one path, in order."""
    parts = autoencoder.encoder, autoencoder.squeeze[path], autoencoder.widen[path], autoencoder.decoder
    return [layer for part in parts for layer in part]


def path_parameters(autoencoder, path):
    return [p for layer in layers(autoencoder, path) for p in layer.parameters()]


def copy_parameters(source, target):
    with torch.no_grad():
        for mine, theirs in zip(target, source, strict=True):
            mine.copy_(theirs)


# --- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: mnist_autoencoder(2), 216_664),
        (lambda: mnist_autoencoder(1), 200_088),
        (mnist_classifier, 8_778),
        (lambda: cifar10_autoencoder(2), 134_058),
        (lambda: cifar10_autoencoder(1), 82_400),
        (CIFAR10Classifier, 4_829_194),
    ],
    ids=["mnist, 2", "mnist, 1", "mnist classifier", "cifar10, 2", "cifar10, 1", "cifar10 classifier"],
)
def test_the_networks_have_as_many_parameters_as_the_paper_s(make, expected):
    assert count(make()) == expected


@both
@pytest.mark.parametrize("unshared", [2, 4, 6])
def test_every_further_path_adds_the_parameters_of_its_own_layers_only(name, unshared):
    plain = MAKERS[name](1)
    own = count(*layers(plain, 0)[3 - unshared // 2 : 3 + unshared // 2])
    for necks in (1, 2, 3):
        assert count(MAKERS[name](necks, unshared)) == count(plain) + (necks - 1) * own


def test_wider_and_deeper_mnist_autoencoders_gain_the_parameters_of_the_units_added():
    plain = count(mnist_autoencoder(1))
    assert count(mnist_autoencoder(1, hidden=103)) - plain == 3 * 2 * (784 + 128) + 3 * 2
    assert count(mnist_autoencoder(1, code=60)) - plain == -4 * (2 * 128 + 1)
    assert count(mnist_autoencoder(2, extra_layers=3)) - count(mnist_autoencoder(2)) == 2 * 6 * 129 * 128
    z1, z2 = mnist_autoencoder(code=5, extra_layers=1).encode(images("mnist"))
    assert z1.shape == z2.shape == (4, 5)


# --- Images in, images out -----------------------------------------------------------------------


@both
@pytest.mark.parametrize("necks", [1, 2, 3])
@pytest.mark.parametrize("unshared", [2, 4, 6])
def test_every_path_gives_images_of_the_same_shape_between_zero_and_one(name, necks, unshared):
    autoencoder, x = MAKERS[name](necks, unshared), images(name)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.mul_(5)  # so that outputs reach the ends of the interval
        found = autoencoder(x)
    assert autoencoder.necks == len(found) == necks
    for image in found:
        assert image.shape == x.shape and image.dtype == x.dtype
        assert image.min() >= 0 and image.max() <= 1
        assert image.min() < 0.1 and image.max() > 0.9


def test_codes_have_64_units_on_mnist_and_7_signed_maps_of_8_by_8_on_cifar10():
    for z in mnist_autoencoder(3).encode(images("mnist")):
        assert z.shape == (4, 64) and (z >= 0).all()
    for z in cifar10_autoencoder(3).encode(images("cifar10")):
        assert z.shape == (4, 7, 8, 8) and z.min() < 0 < z.max()


@both
def test_the_whole_is_decoding_what_was_encoded_each_code_by_its_own_path(name):
    autoencoder, x = MAKERS[name](2).eval(), images(name)
    whole, (z1, z2) = autoencoder(x), autoencoder.encode(x)
    for found, expected in zip(autoencoder.decode((z1, z2)), whole, strict=True):
        assert torch.equal(found, expected)
    for number in (0, 1):
        torch.testing.assert_close(autoencoder.path(x, number), whole[number])
    crossed = autoencoder.decode((z2, z1))
    assert (crossed[0] - whole[0]).abs().max() > 1e-4
    with pytest.raises(ValueError):
        autoencoder.decode((z1,))  # a code is missing


@both
def test_necks_begin_with_weights_of_their_own(name):
    z1, z2 = MAKERS[name](2).eval().encode(images(name))
    assert (z1 - z2).abs().max() > 1e-2


# --- By hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("necks, path", [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("unshared", [2, 4, 6])
def test_a_path_on_mnist_equals_the_network_of_figure_12_written_out(necks, path, unshared):
    plain = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 128), nn.ReLU(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(),
        nn.Linear(128, 100), nn.ReLU(), nn.Linear(100, 784), nn.Sigmoid(),
    ).double()  # fmt: skip
    autoencoder = mnist_autoencoder(necks, unshared).double()
    copy_parameters(plain.parameters(), path_parameters(autoencoder, path))
    x = images("mnist").double()
    torch.testing.assert_close(autoencoder(x)[path].flatten(1), plain(x))
    torch.testing.assert_close(autoencoder.encode(x)[path], plain[:7](x))


def block_by_hand(x, p, inputs, outputs):
    """A residual block whose ten or eight parameters are the next of the iterator p; batch statistics."""
    z = conv2d(batch_norm(x, None, None, next(p), next(p), training=True).relu(), next(p), next(p), padding=1)
    z = conv2d(batch_norm(z, None, None, next(p), next(p), training=True).relu(), next(p), next(p), padding=1)
    return z + (x if inputs == outputs else conv2d(x, next(p), next(p)))


def cifar10_by_hand(x, parameters):
    """Figure 13, from pixels in [−1, 1] to pixels in [−1, 1]."""
    p = iter(parameters)
    x = max_pool2d(block_by_hand(x, p, 3, 16), 2)
    x = max_pool2d(block_by_hand(x, p, 16, 32), 2)
    z = block_by_hand(block_by_hand(x, p, 32, 32), p, 32, 7)
    x = block_by_hand(block_by_hand(z, p, 7, 32), p, 32, 32)
    x = block_by_hand(conv_transpose2d(x, next(p), next(p), stride=2), p, 32, 16)
    x = block_by_hand(conv_transpose2d(x, next(p), next(p), stride=2), p, 16, 3).tanh()
    assert next(p, None) is None
    return z, x


@pytest.mark.parametrize("necks, unshared, path", [(1, 2, 0), (2, 2, 1), (2, 4, 1), (2, 6, 0)])
def test_a_path_on_cifar10_equals_the_network_of_figure_13_written_out(necks, unshared, path):
    autoencoder, x = cifar10_autoencoder(necks, unshared).double(), images("cifar10").double()
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # BatchNorms that do something
    z, out = cifar10_by_hand(2 * x - 1, path_parameters(autoencoder, path))
    torch.testing.assert_close(autoencoder.encode(x)[path], z)
    torch.testing.assert_close(autoencoder(x)[path], (out + 1) / 2)


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (4, 4)])
def test_a_block_is_its_input_plus_what_two_convolutions_add(inputs, outputs):
    block, x = Block(inputs, outputs), torch.randn(6, inputs, 5, 5)
    torch.testing.assert_close(block(x), block_by_hand(x, block.parameters(), inputs, outputs))
    with torch.no_grad():
        block.body[-1].weight.zero_()
        block.body[-1].bias.zero_()
    expected = x if inputs == outputs else conv2d(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x), expected)


def test_the_mnist_classifier_equals_figure_12_written_out():
    classifier, x = mnist_classifier(), images("mnist")
    p = classifier.parameters()
    z = x
    for _ in range(3):
        z = max_pool2d(conv2d(z, next(p), next(p), padding=1).relu(), 2)
    expected = z.flatten(1) @ next(p).T + next(p)
    assert expected.shape == (4, 10)
    torch.testing.assert_close(classifier(x), expected)


def test_the_cifar10_classifier_equals_figure_13_written_out_on_pixels_from_minus_one_to_one():
    classifier, x = CIFAR10Classifier(), images("cifar10", 2)
    p = classifier.parameters()
    z = max_pool2d(conv2d(2 * x - 1, next(p), next(p), padding=1).relu(), 2)
    for inputs, outputs, pooled in ((64, 128, 2), (128, 256, 2), (256, 512, 4)):
        z = max_pool2d(block_by_hand(z, p, inputs, outputs), pooled)
    expected = z.flatten(1) @ next(p).T + next(p)
    assert expected.shape == (2, 10) and next(p, None) is None
    torch.testing.assert_close(classifier(x), expected, atol=1e-4, rtol=1e-4)


# --- What is shared ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("unshared, own", [(2, {2, 3}), (4, {1, 2, 3, 4}), (6, {0, 1, 2, 3, 4, 5})])
def test_paths_share_all_layers_but_the_unshared_middle_ones(name, unshared, own):
    autoencoder = MAKERS[name](2, unshared)
    first, second = layers(autoencoder, 0), layers(autoencoder, 1)
    assert len(first) == len(second) == 6
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        pairs = list(zip(one.parameters(), other.parameters(), strict=True))
        assert pairs and all((a is b) == (number not in own) for a, b in pairs)
        assert all((a.data_ptr() == b.data_ptr()) == (number not in own) for a, b in pairs)
    everything = {id(p) for path in (0, 1) for p in path_parameters(autoencoder, path)}
    assert everything == {id(p) for p in autoencoder.parameters()}  # nothing beside the paths


@both
def test_with_all_layers_unshared_two_paths_are_two_separate_autoencoders(name):
    pair, separate = MAKERS[name](2, 6), [MAKERS[name](1) for _ in range(2)]
    assert not {id(p) for p in path_parameters(pair, 0)} & {id(p) for p in path_parameters(pair, 1)}
    for path, alone in enumerate(separate):
        copy_parameters(alone.parameters(), path_parameters(pair, path))
    x = images(name)
    for path, alone in enumerate(separate):  # in training mode, with batch statistics
        assert torch.equal(pair.encode(x)[path], alone.encode(x)[0])
        assert torch.equal(pair(x)[path], alone(x)[0])
    sum(image.square().mean() for image in pair(x)).backward()
    for path, alone in enumerate(separate):
        alone(x)[0].square().mean().backward()
        for mine, theirs in zip(path_parameters(pair, path), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


@both
@pytest.mark.parametrize("unshared", [2, 4])
def test_shared_layers_learn_from_both_paths_and_a_neck_from_its_own_only(name, unshared):
    autoencoder, x = MAKERS[name](2, unshared).double().eval(), images(name).double()
    parameters = list(autoencoder.parameters())
    own = [{id(p) for part in (autoencoder.squeeze[i], autoencoder.widen[i]) for p in part.parameters()}
           for i in (0, 1)]  # fmt: skip
    first, second = (
        torch.autograd.grad(autoencoder(x)[path].square().sum(), parameters, allow_unused=True)
        for path in (0, 1)
    )
    together = torch.autograd.grad(sum(image.square().sum() for image in autoencoder(x)), parameters)
    for p, a, b, total in zip(parameters, first, second, together, strict=True):
        assert (a is None) == (id(p) in own[1]) and (b is None) == (id(p) in own[0])
        torch.testing.assert_close(total, sum(g for g in (a, b) if g is not None))


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("necks", [1, 2, 3])
def test_a_reconstructor_gives_the_classifier_s_logits_of_every_path(necks):
    autoencoder, classifier, x = mnist_autoencoder(necks), mnist_classifier(), 5 * images("mnist", 7)
    logits = Reconstructor(autoencoder, classifier)(x)
    assert logits.shape == (7, necks, 10)
    for path in range(necks):
        torch.testing.assert_close(logits[:, path], classifier(autoencoder(x)[path]))


def test_a_reconstructor_holds_both_networks_so_that_their_modes_are_set_together():
    autoencoder, classifier = cifar10_autoencoder(), mnist_classifier()
    reconstructor = Reconstructor(autoencoder, classifier).eval()
    assert not any(module.training for module in (*autoencoder.modules(), *classifier.modules()))
    assert count(reconstructor) == count(autoencoder, classifier)


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 5, 7])
def test_another_number_of_layers_than_six_is_refused(number):
    with pytest.raises(ValueError, match=f"six layers, got {number}"):
        NeckedAutoencoder([nn.Identity] * number)


@pytest.mark.parametrize("necks", [0, -1])
def test_fewer_than_one_neck_is_refused(necks):
    with pytest.raises(ValueError, match=f"necks must be at least 1, got {necks}"):
        mnist_autoencoder(necks)


@pytest.mark.parametrize("unshared", [0, 1, 3, 8])
def test_a_number_of_unshared_layers_that_is_not_in_the_paper_is_refused(unshared):
    with pytest.raises(ValueError, match=rf"one of \(2, 4, 6\), got {unshared}"):
        cifar10_autoencoder(2, unshared)


@pytest.mark.parametrize("span", [0, 3, 1.5])
def test_a_span_that_no_layer_maps_to_is_refused(span):
    with pytest.raises(ValueError, match=rf"span is 1 for \[0, 1\] or 2 for \[−1, 1\], got {span}"):
        NeckedAutoencoder([nn.Identity] * 6, span=span)

"""Products by oneDNN against torch's own: same numbers up to rounding, and every derivative."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dnabook import CNN, FullyConnected, products
from dnabook.autoencoders import mnist_autoencoder, mnist_classifier

THERE = hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not THERE, reason="this torch has no oneDNN")
SIZES = st.integers(1, 40)


@pytest.fixture(autouse=True, scope="module")
def onednn():
    """oneDNN wherever torch has it: it is right without AVX-512 too, only not faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ONEDNN", THERE)
        yield


def operands(n, k, m, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, k), (m, k), (m,))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(result, inputs):
    return torch.autograd.grad(result.square().sum(), inputs, create_graph=True)


@given(SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 99))
def test_values_and_gradients_are_those_of_float64(n, k, m, with_bias, seed):
    narrow = [v.requires_grad_() for v in operands(n, k, m, seed=seed)][: 2 + with_bias]
    wide = [v.detach().double().requires_grad_() for v in narrow]
    found, wanted = products.linear(*narrow), nn.functional.linear(*wide)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    for a, b in zip(gradients(found, narrow), gradients(wanted, wide), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("transposed", [(True, False), (False, True), (True, True)])
def test_transposed_and_sliced_operands_are_read_rightly(transposed):
    x, weight, bias = operands(30, 50, 20)
    x, weight = (
        v.T.contiguous().T if turned else v for v, turned in zip((x, weight), transposed, strict=True)
    )
    wanted = nn.functional.linear(x.double()[::2, 5:], weight.double()[:, 5:], bias.double())
    torch.testing.assert_close(products.linear(x[::2, 5:], weight[:, 5:], bias).double(), wanted, rtol=1e-5,
                               atol=1e-4)  # fmt: skip


def test_second_derivatives_are_those_of_float64():
    x, weight, bias = (v.requires_grad_() for v in operands(6, 5, 4))
    wide = [v.detach().double().requires_grad_() for v in (x, weight, bias)]
    hessians = []
    for values, multiply in (((x, weight, bias), products.linear), (wide, nn.functional.linear)):
        first = gradients(multiply(*values).sin(), values)
        hessians.append(torch.autograd.grad(sum(g.square().sum() for g in first), values))
    for a, b in zip(*hessians, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)


@needs_onednn
def test_a_bias_that_does_not_fit_is_told_in_torchs_words():
    x, weight, bias = operands(3, 4, 5)
    for wrong in (bias[:-1], bias.double()):
        with pytest.raises(RuntimeError) as ours:
            products.linear(x, weight, wrong)
        with pytest.raises(RuntimeError) as theirs:
            nn.functional.linear(x, weight, wrong)
        assert str(ours.value) == str(theirs.value)


@needs_onednn
def test_the_fast_way_is_taken_for_float32_matrices_only(monkeypatch):
    taken = []
    monkeypatch.setattr(products._Product, "apply", lambda *args: taken.append(args))
    products.linear(*operands(3, 4, 5))
    assert len(taken) == 1
    x, weight, bias = operands(3, 4, 5)
    others = [operands(3, 4, 5, torch.float64), operands(3, 4, 5, torch.bfloat16), (x[None], weight, bias)]
    assert [products.linear(*other).shape for other in others] == [(3, 5), (3, 5), (1, 3, 5)]
    assert products.linear(x[:0], weight, bias).shape == (0, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight, bias).dtype == torch.bfloat16
    assert len(taken) == 1


def test_shapes_that_do_not_fit_are_refused():
    x, weight, _ = operands(3, 4, 5)
    with pytest.raises(RuntimeError):
        products.linear(x, weight[:, :-1])


@pytest.mark.parametrize("make", [CNN, FullyConnected, mnist_autoencoder, mnist_classifier])
def test_every_fully_connected_layer_uses_it_and_the_outputs_are_torchs(make, monkeypatch):
    torch.manual_seed(0)
    model, x = make().eval(), torch.rand(20, 1, 28, 28)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert layers and all(isinstance(layer, products.Linear) for layer in layers)
    fast = model(x)
    monkeypatch.setattr(products, "ONEDNN", False)
    torch.testing.assert_close(fast, model(x), rtol=1e-4, atol=1e-5)


@needs_onednn
def test_the_same_product_twice_is_the_same_to_the_last_bit():
    x, weight, bias = operands(200, 300, 100)
    assert torch.equal(products.linear(x, weight, bias), products.linear(x, weight, bias))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch's own, of jvp
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_models_can_be_stacked_and_differentiated_by_torch_func():
    x = torch.rand(3, 1, 28, 28)
    models = [FullyConnected().eval() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(models)

    def answer(parameters, buffers, x):
        return torch.func.functional_call(models[0], (parameters, buffers), (x,))

    stacked = torch.vmap(answer, (0, 0, None))(parameters, buffers, x)
    for one, model in zip(stacked, models, strict=True):
        torch.testing.assert_close(one, model(x))
    jacobian = torch.func.jacrev(lambda x: models[0](x)[0, 3])(x)
    by_hand = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(models[0](by_hand)[0, 3], by_hand)
    torch.testing.assert_close(jacobian, expected)
    _, along = torch.func.jvp(lambda x: models[0](x)[0, 3], (x,), (torch.ones_like(x),))
    torch.testing.assert_close(along, expected.sum())


def test_shapes_that_do_not_fit_are_told_in_torchs_words():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        products.linear(torch.rand(4, 7), torch.rand(3, 5))


def test_a_compiled_layer_is_left_to_the_compiler(monkeypatch):
    """Which cannot compile oneDNN's product while its weights may change."""
    monkeypatch.setattr(products, "ONEDNN", True)
    layer, x = products.Linear(5, 3), torch.randn(4, 5)
    expected = layer(x).detach()
    monkeypatch.setattr(products, "_Product", None)  # whoever asks for it fails
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), expected)

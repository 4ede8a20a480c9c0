"""What the benchmark compares must be the same thing: reference and ours agree, and every plan can run."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnabook import CNN, FullyConnected, correlation_loss, data, losses, measures, products, training
from dnabook.autoencoders import mnist_autoencoder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import reference
import speed


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Whatever the machine has: models of these tests are made there."""
    monkeypatch.setattr(data, "default_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(speed, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(speed, "ON_GPU", False)


def gradients(loss, z):
    return torch.autograd.grad(loss(*z), z)


def test_the_pseudo_inverse_reference_is_the_released_loss():
    z = [v.detach().double().requires_grad_() for v in speed.features(80, 12)]
    with torch.no_grad():
        z[0][:, 3] = 0  # a dead unit, which both drop
    ours = lambda *z: correlation_loss(*z, variant="released")  # noqa: E731
    torch.testing.assert_close(reference.correlation_loss(*z), ours(*z))
    torch.testing.assert_close(gradients(reference.correlation_loss, z), gradients(ours, z))


@pytest.mark.parametrize("n, m", [(500, 64), (300, 280), (1000, 200)])
def test_the_gradient_of_the_loss_is_within_a_ten_thousandth_of_the_float64_one(n, m):
    assert 0 < speed.gradient_error(n, m) < 1e-4


def test_the_reference_objectives_are_the_released_ones():
    images = data.load("mnist", limit=120)
    pair, autoencoder = [CNN(), CNN()], mnist_autoencoder()
    for model in pair:  # 784 units are more than these images
        model.features = lambda x, features=model.features: features(x)[:, :2, :3, :3]
        model.tail = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 10))
    ours = losses.decorrelation(*pair, variant="released")(images.x, images.y)["loss"]
    torch.testing.assert_close(reference.pair_loss(pair)(images.x, images.y), ours)
    ours = losses.reconstruction(autoencoder, variant="released")(images.x, images.y)["loss"]
    torch.testing.assert_close(reference.dna_loss(autoencoder)(images.x, images.y), ours)


def test_pictures_are_the_images_bit_by_bit():
    for name in ("mnist", "color-mnist"):
        images = data.load(name, limit=5)
        pictures = reference.Pictures(images.x, images.y)
        x, y = zip(*(pictures[i] for i in range(len(pictures))), strict=True)
        torch.testing.assert_close(torch.stack(x), images.x, atol=0.5 / 255, rtol=0)
        assert list(y) == images.y.tolist()


def test_steps_in_the_released_style_lower_the_loss():
    images = data.load("mnist", limit=100)
    model = mnist_autoencoder(1)
    loss = lambda x, y: (model(x)[0] - x).square().mean()  # noqa: E731
    loader = torch.utils.data.DataLoader(reference.Pictures(images.x, images.y), 50, shuffle=True)
    endless = reference.steps(loss, [model], loader, torch.device("cpu"), speed.LEARNING)
    values = [next(endless) for _ in range(12)]  # six times through
    assert values[-1] < 0.8 * values[0]


def test_steps_that_are_compared_leave_the_weights_where_they_are_so_that_all_cost_the_same(mnist_train):
    images = mnist_train[:500]
    loader = torch.utils.data.DataLoader(reference.Pictures(images.x, images.y), 250)
    for rate, moves in ((speed.HELD, False), (speed.LEARNING, True)):
        pair = [FullyConnected() for _ in range(2)]
        before = copy.deepcopy(pair)
        endless = reference.steps(reference.pair_loss(pair), pair, loader, torch.device("cpu"), rate)
        objective = losses.decorrelation(*pair, variant="released")
        for _ in range(3):
            next(endless)
        training.fit(
            objective, objective.parameters(), data.Batches(images, 250), epochs=2, learning_rate=rate
        )
        moved = max(measures.parameter_distance(*both).item() for both in zip(before, pair, strict=True))
        assert moved > 1e-3 if moves else moved < 1e-9


def test_every_measurement_that_is_planned_has_a_function_that_takes_it():
    for group in speed.GROUPS:
        planned = list(speed.plan(group))
        assert planned
        for options in planned:
            function = getattr(speed, options.pop("function"))
            assert set(options) == set(function.__annotations__) - {"return"}


def test_stacked_models_have_the_loss_and_the_gradients_of_each(mnist_train):
    models = [CNN() for _ in range(4)]
    x, y = mnist_train.x[:40], mnist_train.y[:40]
    objective = speed.stacked(models)
    found = objective(x, y)["loss"]
    each = losses.classification(*models)
    torch.testing.assert_close(found, each(x, y)["loss"])
    gradients = torch.autograd.grad(found, objective.parameters())
    expected = torch.autograd.grad(each(x, y)["loss"], each.parameters())
    for i, gradient in enumerate(gradients):  # the i-th parameter of each model, stacked
        wanted = torch.stack(expected[i :: len(gradients)])
        torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


@pytest.fixture
def onednn(monkeypatch):
    """oneDNN counts as on."""
    monkeypatch.setattr(products, "ONEDNN", True)


def state(step):
    """What a way may change, by name; two steps that differ in one thing differ in one entry."""
    adam = torch.optim.Adam([torch.zeros(1)], lr=0.1, fused=True)
    return {
        "loss": losses.correlation_loss,
        "memory": (losses.keep_freed_memory, training.keep_freed_memory),
        "products": products.ONEDNN,
        "fused": adam.defaults["fused"],
        "batches": type(step.batches),
        "layout": [m.body[3].weight.is_contiguous(memory_format=torch.channels_last) for m in step.pair],
        "objective": step.objective,
        "bfloat16": step.bfloat16,
        "compiled": [m.body._compiled_call_impl is not None for m in step.pair],
        "pairs": step.pairs,
        "graph": step.cuda_graph,
    }


IN_MODULES = {"loss", "memory", "products", "fused"}  # what is put back after the measurement


@pytest.mark.parametrize(
    "how, changed",
    [
        ("as it is", set()),
        ("pseudo-inverse in the loss", {"loss", "graph"}),
        ("images through a DataLoader", {"batches"}),
        ("kernel by kernel, not a CUDA graph", {"graph"}),
        ("channels first", {"layout"}),
        ("channels last", set()),
        ("freed memory returned to the system", {"memory"}),
        ("torch's own matrix products", {"products"}),
        ("Adam not fused", {"fused"}),
        ("loss read back at every step", {"objective", "graph"}),
        ("bfloat16", {"bfloat16"}),
        ("compiled by torch.compile", {"compiled"}),
        ("without the correlation loss", {"objective"}),
        ("four such pairs, channels first, stacked by vmap", {"objective", "pairs"}),
    ],
)
def test_every_way_changes_what_it_names_and_nothing_else(how, changed, onednn):
    images = data.load("mnist", limit=40)
    pair = [CNN().to(memory_format=torch.channels_last) for _ in range(2)]
    step = speed.Step(pair, images, losses.decorrelation(*pair), data.Batches(images, 20))
    before = state(step)
    with step.patches:
        speed.WAYS[how](step)
        assert {name for name, value in state(step).items() if value != before[name]} == changed
    assert {name for name, value in state(step).items() if value != before[name]}.isdisjoint(IN_MODULES)


@pytest.mark.parametrize("how", ["as it is", "pseudo-inverse in the loss", *list(speed.WAYS)[-2:]])
def test_a_step_is_taken_with_the_change(how, onednn, monkeypatch):
    monkeypatch.setattr(speed, "measure", lambda run, per, seconds: {"per": per, **run()})
    found = speed.way(how, batch=800)  # the reference needs more images than units
    assert found["per"] == (16 if "stacked" in how else 4)
    assert len(found["loss"]) == 1 and 0 < found["loss"][0] < 100
    assert ("correlation" in found) == ("without" not in how and "stacked" not in how)


def test_a_loader_gives_the_same_batches_on_the_device(monkeypatch):
    images = data.load("mnist", limit=40)
    loader = torch.utils.data.DataLoader(reference.Pictures(images.x, images.y), 20)
    monkeypatch.setattr(speed, "DEVICE", torch.device("meta"))  # stands for a GPU
    batches = speed.Moved(loader)
    assert len(batches) == 2
    assert [(x.device.type, y.device.type, x.shape[0]) for x, y in batches] == [("meta", "meta", 20)] * 2


@pytest.mark.parametrize(
    "device, onednn, left_out",
    [("cpu", True, 2), ("cpu", False, 3), ("cuda", True, 4)],
)
def test_ways_that_change_nothing_on_this_machine_are_not_measured(device, onednn, left_out, monkeypatch):
    monkeypatch.setattr(speed, "DEVICE", torch.device(device))
    monkeypatch.setattr(speed, "ON_GPU", device == "cuda")
    monkeypatch.setattr(products, "ONEDNN", onednn)
    planned = [(each["how"], each["batch"]) for each in speed.plan("ways")]
    usual = [how for how, batch in planned if batch == 1000]
    assert len(usual) == len(speed.WAYS) - left_out
    more = [("as it is", 2000), ("freed memory returned to the system", 2000)] if device == "cpu" else []
    assert [each for each in planned if each[0] not in usual or each[1] != 1000] == more


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchattacks imports an old name of scipy
def test_attacks_by_libraries_stay_in_the_ball_that_ours_has(monkeypatch):
    monkeypatch.setattr(speed, "PGD_STEPS", 3)
    images = data.load("mnist", "test", limit=20)
    model = CNN().eval()
    for attack in speed.LIBRARIES.values():
        x_adv = attack(model, images.x, images.y)
        assert x_adv.shape == images.x.shape
        assert 0 < (x_adv - images.x).abs().max() <= 0.1 + 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attacks_are_counted_on_two_networks_that_read_the_digits(monkeypatch):
    monkeypatch.setenv("DNABOOK_RESULTS", str(Path(__file__).parents[1] / "book" / "results"))
    monkeypatch.setattr(speed, "PGD_IMAGES", 100)
    monkeypatch.setattr(speed, "measure", lambda run, seconds: {"ms": 1.0})
    images = data.load("mnist", "test", limit=100)
    for model in speed.readers():
        assert (measures.predictions(model, images.x) == images.y).float().mean() > 0.9
    found = {
        how: speed.attack(how, 50) for how in ("ours", "ours, bfloat16", "foolbox", "torchattacks, helped")
    }
    for row in found.values():
        assert row["misread"] > 90 > row["misread_by_other"] > 30
        assert abs(row["misread"] - found["ours"]["misread"]) <= 5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="elsewhere a peak cannot be reset")
def test_the_growth_of_memory_is_that_of_the_call_alone():
    program = """
import torch, speed
speed.DEVICE = torch.device("cpu")
before = torch.ones(2**26)  # 256 MiB, held and given back before
del before
print(speed.measure(lambda: torch.ones(2**24), seconds=0)["peak_mib"])  # 64 MiB
"""
    result = subprocess.run(  # as every measurement, in a process of its own
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(speed.__file__).parent
    )
    assert result.returncode == 0, result.stderr
    assert 40 < float(result.stdout.split()[-1]) < 130


def test_runs_are_put_together_by_their_median():
    runs = [
        {"ms": ms, "calls": 5, "peak_mib": mib, "gradient_error": 1e-6}
        for ms, mib in ((3.0, 40), (1.0, 10), (2.0, 90))
    ]
    expected = {"ms": 2.0, "low": 1.0, "high": 3.0, "runs": 3, "calls": 15, "peak_mib": 40}
    assert speed.together(runs) == {**expected, "gradient_error": 1e-6}

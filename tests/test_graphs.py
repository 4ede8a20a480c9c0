"""CUDA graphs: replayed steps give what plain steps give, and what cannot be recorded says so."""

import contextlib
import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from dnabook import CNN, Linf, attacks, data, dverge, graphs, losses, pgd, training
from dnabook.attacks import untargeted
from dnabook.autoencoders import mnist_autoencoder
from dnabook.models import seeded

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def start(device, make=CNN, count=2):
    with seeded(0):
        return [make().to(device) for _ in range(count)]


def trained(objective, device, *, cuda_graph, epochs=1, checkpoint=None, **how):
    images = data.load("mnist", limit=6000, device=device)
    batches = data.Batches(images, 1000, seed=0)  # as many images as units or more: the loss is no rounding
    history = training.fit(
        objective, objective.parameters(), batches, epochs=epochs, learning_rate=1e-3, cuda_graph=cuda_graph,
        checkpoint=checkpoint, **how,
    )  # fmt: skip
    return history, [p.detach().cpu() for p in objective.parameters()]


def attacked(device, *, cuda_graph, **how):
    images = data.load("mnist", "test", limit=200, device=device)
    (model,) = start(device, count=1)
    generator = torch.Generator().manual_seed(0)
    objective = untargeted(model, images.y)
    return pgd(objective, images.x, Linf(0.1), steps=8, generator=generator, cuda_graph=cuda_graph, **how)


def same_way(begun, a, b):
    """Both trainings end at the same place, but for 5 %: rounding turns signs of small gradients."""
    before = [p.detach().cpu() for model in begun for p in model.parameters()]
    way = sum((p - q).abs().sum() for p, q in zip(a, before, strict=True))
    assert sum((p - q).abs().sum() for p, q in zip(a, b, strict=True)) < 0.05 * way


OBJECTIVES = {
    "plain": (CNN, 2, losses.classification),
    "released": (CNN, 2, partial(losses.decorrelation, variant="released")),
    "corrected": (CNN, 2, losses.decorrelation),
    "surrogate": (CNN, 2, losses.decorrelation_from),
    "gradients": (CNN, 2, partial(losses.alignment, correlation_weight=0.05)),
    "distance": (CNN, 2, partial(losses.parametric_distance, target_distance=100)),
    "dna": (mnist_autoencoder, 1, losses.reconstruction),
    "dverge": (CNN, 2, lambda a, b: dverge.diversification((a,), (b,))),
    "official": (CNN, 2, lambda a, b: dverge.diversification((a, b), (b, a), dverge.PRESETS["official"])),
}


def test_on_a_processor_nothing_changes():
    plain, asked = (
        trained(losses.decorrelation(*start("cpu")), "cpu", cuda_graph=graph) for graph in (False, True)
    )
    assert plain[0] == asked[0]
    assert all(torch.equal(a, b) for a, b in zip(plain[1], asked[1], strict=True))
    assert torch.equal(attacked("cpu", cuda_graph=False), attacked("cpu", cuda_graph=True))
    assert not graphs.recording(torch.zeros(1))


class Graph:
    """Stands for CUDA's where there is no GPU: to replay is to call the function again."""

    made, recording, owner = [], None, None

    def __init__(self):
        self.made.append(self)

    def capture_begin(self, **how):
        self.how = how
        Graph.recording = self

    def capture_end(self):
        Graph.recording = None

    def pool(self):
        return self

    def replay(self):
        for mine, new in zip(self.owner.result, self.owner.function(*self.owner.inputs), strict=True):
            mine.copy_(new)


@pytest.fixture
def no_gpu_needed(monkeypatch):
    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(graphs, "_STREAMS", {})
    monkeypatch.setattr(graphs, "_LAST", {})
    monkeypatch.setattr(Graph, "made", [])


def test_a_function_is_called_twice_recorded_once_and_replayed_on_each_calls_inputs(no_gpu_needed):
    calls = []

    def function(x, y):
        calls.append(Graph.recording)
        return x + y, x * y

    replay = graphs.Replay(function)
    Graph.owner = replay
    for number in range(6):
        x, y = torch.full((2,), float(number)), torch.ones(2)
        total, product = replay(x, y)
        assert torch.equal(total, x + y) and torch.equal(product, x * y)
    assert calls[:2] == [None, None] and calls[2] is replay.graph and len(Graph.made) == 1
    x = torch.arange(3.0)  # of another shape: plainly
    assert torch.equal(replay(x, x)[0], 2 * x) and len(Graph.made) == 1


def test_recordings_share_their_memory(no_gpu_needed):
    def three_calls():
        replay = graphs.Replay(lambda x: (2 * x,))
        Graph.owner = replay
        for _ in range(3):
            replay(torch.ones(2))

    three_calls()
    three_calls()
    first, second = Graph.made
    assert "pool" not in first.how and second.how["pool"] is first


def test_what_cannot_be_recorded_says_what_to_do_and_want_of_memory_stays_what_it_is(no_gpu_needed):
    for error, expected in (
        (RuntimeError("asked"), "pass cuda_graph=False"),
        (torch.OutOfMemoryError("full"), "full"),
        (ZeroDivisionError("by zero"), "by zero"),
    ):

        def function(x, error=error):
            if Graph.recording:
                raise error
            return (x,)

        replay = graphs.Replay(function)
        with pytest.raises(type(error), match=expected):
            for _ in range(3):
                replay(torch.ones(2))
        assert Graph.recording is None and not graphs._STREAMS  # the next one is recorded on another stream


@gpu
@pytest.mark.parametrize("name", OBJECTIVES)
def test_replayed_training_gives_the_weights_of_plain_training(name):
    make, count, objective = OBJECTIVES[name]
    plain, replayed = (
        trained(objective(*start("cuda", make, count)), "cuda", cuda_graph=graph) for graph in (False, True)
    )
    for key, values in plain[0].items():
        assert replayed[0][key] == pytest.approx(values, rel=1e-3)
    same_way(objective(*start("cuda", make, count)).models, plain[1], replayed[1])


@gpu
def test_a_replayed_one_cycle_follows_its_rates():
    plain, replayed = (
        trained(losses.classification(*start("cuda")), "cuda", cuda_graph=graph, schedule="one_cycle")
        for graph in (False, True)
    )
    same_way(start("cuda"), plain[1], replayed[1])


@gpu
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_replayed_training_resumes(schedule):
    class Stops(Exception):
        pass

    class Memory:
        state, stop = None, None

        def load(self):
            return self.state

        def save(self, state):
            self.state = {**state, "models": [{k: v.clone() for k, v in m.items()} for m in state["models"]]}
            if state["epochs"] == self.stop:
                raise Stops

    run = partial(trained, device="cuda", cuda_graph=True, schedule=schedule, epochs=3)
    whole = run(losses.classification(*start("cuda")))
    memory = Memory()
    memory.stop = 2
    with pytest.raises(Stops):
        run(losses.classification(*start("cuda")), checkpoint=memory)
    memory.stop = None
    again = run(losses.classification(*start("cuda")), checkpoint=memory)
    same_way(start("cuda"), whole[1], again[1])


@gpu
def test_a_smaller_batch_is_computed_plainly():
    replay = graphs.Replay(lambda x: 2 * x)
    for n in (3, 3, 3, 3, 2, 3):
        x = torch.rand(n, device="cuda")
        assert torch.equal(replay(x), 2 * x)
    assert replay.graph is not None


@gpu
@pytest.mark.parametrize("how", [{}, {"momentum": 0.9}, {"restarts": 3}, {"bfloat16": True}])
def test_a_replayed_attack_gives_the_images_of_a_plain_one(how):
    plain, replayed = (attacked("cuda", cuda_graph=graph, **how) for graph in (False, True))
    assert ((plain - replayed).abs() > 1e-6).float().mean() < 0.01  # a sign may turn on a gradient near 0
    assert torch.equal(replayed, attacked("cuda", cuda_graph=True, **how))


@gpu
def test_an_attack_is_not_overwritten_by_the_next():
    first = attacked("cuda", cuda_graph=True)
    kept = first.clone()
    images = data.load("mnist", "test", limit=200, device="cuda")
    (model,) = start("cuda", count=1)
    pgd(untargeted(model, images.y), 1 - images.x, Linf(0.2), steps=8, cuda_graph=True)
    assert torch.equal(first, kept)


@gpu
def test_attacks_one_after_the_other_take_the_memory_of_one():
    attacked("cuda", cuda_graph=True)
    attacked("cuda", cuda_graph=True)
    before = torch.cuda.memory_reserved()
    for _ in range(5):
        attacked("cuda", cuda_graph=True)
    assert torch.cuda.memory_reserved() <= 1.1 * before


@gpu
def test_a_broken_model_is_told_after_a_replayed_attack():
    images = data.load("mnist", "test", limit=20, device="cuda")
    (model,) = start("cuda", count=1)
    nn.init.constant_(model.tail[-1].bias, float("nan"))
    with pytest.raises(FloatingPointError, match="gradient of the objective was nan"):
        pgd(untargeted(model, images.y), images.x, Linf(0.1), steps=8, cuda_graph=True)


@gpu
@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_nothing_is_asked_of_a_gpu_within_a_step(variant):
    pair = start("cuda")
    x, y = torch.rand(1000, 1, 28, 28, device="cuda"), torch.arange(1000, device="cuda") % 10
    objective = losses.decorrelation(*pair, variant=variant)
    objective(x, y)["loss"].backward()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is new in PyTorch
            torch.cuda.set_sync_debug_mode("error")
        objective(x, y)["loss"].backward()
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("default")


@gpu
def test_images_of_an_attack_repeat_bit_for_bit():
    assert torch.equal(attacked("cuda", cuda_graph=False), attacked("cuda", cuda_graph=False))


@gpu
def test_a_step_that_asks_cannot_be_recorded_and_says_so():
    code = (  # in a process of its own: the GPU's random numbers are unusable afterwards
        "import torch\nfrom dnabook import graphs\n"
        "replay = graphs.Replay(lambda x: x * x.sum().item())\n"
        "for _ in range(3): replay(torch.rand(3, device='cuda'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode and "pass cuda_graph=False" in run.stderr


def test_released_in_batches_is_released_batch_by_batch():
    logits = torch.randn(10, 2, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(10)

    def model(x):
        return logits[x.long().flatten()]

    x = torch.arange(10.0)[:, None]
    together = attacks.PathObjective(model, y, "released", 4)(x)
    apart = [attacks.PathObjective(model, y[i : i + 4], "released")(x[i : i + 4]) for i in (0, 4, 8)]
    assert torch.equal(together, torch.cat(apart))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        attacks.paths(model, y, "released", batch=0)


def test_releasing_forgets_the_newest_recordings(monkeypatch):
    monkeypatch.setattr(graphs, "_LAST", {torch.device("cuda"): object()})
    graphs.release()
    assert not graphs._LAST

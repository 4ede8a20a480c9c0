"""CUDA graphs: replayed steps give what plain steps give, and what cannot be recorded says so."""

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


OBJECTIVES = {
    "plain": (CNN, 2, losses.classification),
    "released": (CNN, 2, partial(losses.decorrelation, variant="released")),
    "corrected": (CNN, 2, losses.decorrelation),
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


@gpu
@pytest.mark.parametrize("name", OBJECTIVES)
def test_replayed_training_gives_the_weights_of_plain_training(name):
    make, count, objective = OBJECTIVES[name]
    plain, replayed = (
        trained(objective(*start("cuda", make, count)), "cuda", cuda_graph=graph) for graph in (False, True)
    )
    for key, values in plain[0].items():
        assert replayed[0][key] == pytest.approx(values, rel=1e-3)
    for a, b in zip(plain[1], replayed[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@gpu
def test_a_replayed_one_cycle_follows_its_rates():
    plain, replayed = (
        trained(losses.classification(*start("cuda")), "cuda", cuda_graph=graph, schedule="one_cycle")
        for graph in (False, True)
    )
    for a, b in zip(plain[1], replayed[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


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
    for a, b in zip(whole[1], again[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@gpu
def test_a_smaller_batch_is_computed_plainly():
    replay = graphs.Replay(lambda x: 2 * x)
    for n in (3, 3, 3, 3, 2, 3):
        x = torch.rand(n, device="cuda")
        assert torch.equal(replay(x), 2 * x)
    assert replay.graph is not None


@gpu
@pytest.mark.parametrize("how", [{}, {"momentum": 0.9}, {"restarts": 3}])
def test_a_replayed_attack_gives_the_images_of_a_plain_one(how):
    plain, replayed = (attacked("cuda", cuda_graph=graph, **how) for graph in (False, True))
    assert ((plain - replayed).abs() > 1e-6).float().mean() < 0.01  # a sign may turn on a gradient near 0
    assert torch.equal(replayed, attacked("cuda", cuda_graph=True, **how))


@gpu
def test_a_broken_model_is_told_after_a_replayed_attack():
    images = data.load("mnist", "test", limit=20, device="cuda")
    (model,) = start("cuda", count=1)
    nn.init.constant_(model.tail[-1].bias, float("nan"))
    with pytest.raises(FloatingPointError, match="gradient of the objective was nan"):
        pgd(untargeted(model, images.y), images.x, Linf(0.1), steps=8, cuda_graph=True)


@gpu
def test_nothing_is_asked_of_a_gpu_within_a_step():
    pair = start("cuda")
    x, y = torch.rand(500, 1, 28, 28, device="cuda"), torch.arange(500, device="cuda") % 10
    for variant in ("released", "corrected"):
        objective = losses.decorrelation(*pair, variant=variant)
        objective(x, y)["loss"].backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            objective(x, y)["loss"].backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@gpu
def test_images_of_an_attack_repeat_bit_for_bit():
    assert torch.equal(attacked("cuda", cuda_graph=False), attacked("cuda", cuda_graph=False))


@gpu
def test_a_step_that_asks_cannot_be_recorded_and_says_so():
    import subprocess
    import sys

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

"""How long everything takes, beside what others would take; run it on an idle machine.

    make bench                                   all of it, more than an hour on two cores
    .venv/bin/python benchmarks/speed.py loss    one group: loss, step, ways, attack or growth

On a processor every measurement has three processes of its own, so that neither warm memory nor another
library's settings favour the later one; on a GPU all share one. Times are medians of the processes' medians
over calls after a first one; memory is the growth of the process's peak (on a GPU, of what torch allocated).
"bound" is the time that matrix products or convolutions alone take, in the precision and layout that we use,
on the same machine; for the loss the products of the way by the Gram matrix, which a wide layer does without
on a processor. Results are printed and saved beside the records, one file for GPUs and one for each kind of
processor; the page "What it costs" shows them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))

import reference

from dnabook import (
    CNN,
    FullyConnected,
    Linf,
    attacks,
    correlation_loss,
    costs,
    data,
    graphs,
    losses,
    measures,
    pgd,
    products,
    records,
    regression,
    training,
)
from dnabook.autoencoders import cifar10_autoencoder, mnist_autoencoder
from dnabook.memory import keep_freed_memory
from dnabook.models import layout

DEVICE = data.default_device()
ON_GPU = DEVICE.type == "cuda"
LOSS_SHAPES = ((1000, 784), (500, 64), (1250, 448), (1000, 200), (4000, 2048))
STEPS = {
    "CNN pair": 1000,
    "CNN pair, learning": 1000,
    "fully connected pair": 1000,
    "MNIST DNA": 500,
    "CIFAR-10 DNA": 1250,
}  # what is trained: images in a batch
STEPS_A_CALL = 40 if ON_GPU else 4  # of training; on a GPU the first two are plain, the others replayed
HELD, LEARNING = 1e-12, 5e-3  # learning rates: too small to move a weight, so that every step costs the same
PGD_STEPS, PGD_IMAGES = 40, 1000
RUNS = (
    1 if ON_GPU else 3
)  # one after another through the whole group: where memory comes to lie is another each time


# --- Measuring -----------------------------------------------------------------------------------


def measure(run: Callable[[], object], *, per: float = 1, seconds: float = 2) -> dict[str, Any]:
    """Median of a call in milliseconds, and by how many MiB the peak of memory grew."""
    least, seconds = (3, seconds / 4) if ON_GPU else (4, seconds)
    records.forget_peak(DEVICE)
    before = records.peak(DEVICE)
    times, began = [], time.perf_counter()
    while len(times) < least or (time.perf_counter() - began < seconds and len(times) < 200):
        started = time.perf_counter()
        run()
        if ON_GPU:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started) / per)
    return {
        "ms": round(statistics.median(times[1:]), 3),  # the first call warms up
        "calls": len(times) - 1,
        "peak_mib": round((records.peak(DEVICE) - before) / 2**20),
    }


# --- The correlation loss ------------------------------------------------------------------------


def features(n: int, m: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Rectified random features that share a part, as trained networks' do."""
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(n, m, generator=generator).to(DEVICE, dtype).relu() for _ in range(3)]
    return (z[0] + z[2]).requires_grad_(), (z[1] + z[2]).requires_grad_()


def loss(how: str, n: int, m: int) -> dict[str, Any]:
    """Forward and backward. how: "pinv", "released", "corrected" or "bound", four products (see above)."""
    z1, z2 = features(n, m)
    if how == "bound":
        keep_freed_memory(DEVICE)  # as ours does: a bound pays for nothing that ours does not
        a, b = z1.detach(), z2.detach()
        wide, weight = (a.double(), b.double()), torch.randn(m, m, device=DEVICE)
        return measure(
            lambda: (
                regression._gram(wide[0]),
                wide[0].T @ wide[1],
                products.linear(a, weight),
                products.linear(b, weight.T),
            )
        )
    if how == "pinv":
        return measure(lambda: reference.correlation_loss(z1, z2).backward())
    found = measure(lambda: correlation_loss(z1, z2, variant=how).backward())
    if how == "released":
        found["gradient_error"] = gradient_error(n, m)
    return found


def gradient_error(n: int, m: int) -> float:
    """‖g − g₆₄‖ / ‖g₆₄‖ of both gradients together, g₆₄ through a solver in float64."""
    z = features(n, m)
    ours = torch.autograd.grad(correlation_loss(*z, variant="released"), z)
    a, b = features(n, m, torch.float64)
    centred = a - a.mean(0)
    r = torch.linalg.qr(centred).R
    weight = torch.linalg.solve_triangular(r.T, centred.T @ (b - b.mean(0)), upper=False)
    residual = b - b.mean(0) - centred @ torch.linalg.solve_triangular(r, weight, upper=True)
    exact = torch.log((b - b.mean(0)).square().sum() + 1e-3) - torch.log(residual.square().sum() + 1e-3)
    wanted = torch.autograd.grad(exact, (a, b))
    apart = sum((g.double() - w).square().sum() for g, w in zip(ours, wanted, strict=True))
    return float((apart / sum(w.square().sum() for w in wanted)).sqrt())


# --- Training steps ------------------------------------------------------------------------------


def step(how: str, what: str, batch: int) -> dict[str, Any]:
    """One step of training. how: "released style", "ours" (the released loss), "corrected" or "bound".

    The weights stay as they are at first, unless `what` ends with ", learning": under the released loss units
    die as a pair learns, and the fewer are left, the less a regression costs.
    """
    what, _, learning = what.partition(", ")
    rate = LEARNING if learning else HELD
    count, epochs = STEPS_A_CALL * batch, 5 if ON_GPU and what != "CIFAR-10 DNA" else 1
    if what == "CIFAR-10 DNA":
        images = data.load("color-mnist", limit=count)  # of CIFAR-10's shape
        models = [cifar10_autoencoder().to(DEVICE)]
    else:
        images = data.load("mnist", limit=count)
        make = {"CNN pair": CNN, "fully connected pair": FullyConnected, "MNIST DNA": mnist_autoencoder}[what]
        models = [make().to(DEVICE) for _ in range(2 if what.endswith("pair") else 1)]
    if how == "released style":
        loader = DataLoader(reference.Pictures(images.x, images.y), batch, shuffle=True)
        objective = reference.pair_loss(models) if len(models) == 2 else reference.dna_loss(models[0])
        endless = reference.steps(objective, models, loader, DEVICE, rate)
        with patch.object(products, "ONEDNN", False):  # it multiplies matrices as torch does
            return measure(lambda: next(endless), seconds=4)
    if what != "MNIST DNA":
        models = [model.to(memory_format=layout(DEVICE)) for model in models]
    if how == "bound":
        return layers_alone(models, images.x[:batch])
    variant = "corrected" if how == "corrected" else "released"
    make = losses.decorrelation if len(models) == 2 else losses.reconstruction
    objective = make(*models, variant=variant)
    batches = data.Batches(images, batch)
    how = {"epochs": epochs, "learning_rate": rate, "cuda_graph": True}
    fit = partial(training.fit, objective, objective.parameters(), batches, **how)
    return measure(fit, per=len(batches) * epochs, seconds=4)


def layers_alone(models: list[nn.Module], x: Tensor, *, weights: bool = True) -> dict[str, Any]:
    """Forward and backward of every convolution and linear layer by itself, on inputs as they occur."""
    keep_freed_memory(DEVICE)  # as ours does
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    calls: list[tuple[nn.Module, Tensor]] = []
    for model in models:
        hooks = [
            layer.register_forward_hook(lambda layer, given, _: calls.append((layer, given[0])))
            for layer in model.modules()
            if isinstance(layer, kinds)
        ]
        model(x)
        for hook in hooks:
            hook.remove()
    prepared = []
    for layer, given in calls:
        first = weights and not given.requires_grad  # pixels need no gradient in training
        given = given.detach().requires_grad_(not first)
        wanted = [*([] if first else [given]), *(layer.parameters() if weights else [])]
        with torch.no_grad():
            upstream = torch.randn_like(layer(given))
        prepared.append((layer, given, wanted, upstream))
    calls.clear()  # with them the forward passes, which a recording may not meet again

    def run(_: Tensor) -> list[tuple[Tensor, ...]]:
        return [torch.autograd.grad(layer(z), w, g) for layer, z, w, g in prepared]

    return measure(partial(graphs.Replay(run) if ON_GPU else run, x))


# --- Ways ----------------------------------------------------------------------------------------


@dataclass
class Step:
    """A step of a CNN pair in training, to be changed by one of `WAYS` before it is measured."""

    pair: list[nn.Module]
    images: data.Images
    objective: losses.Objective
    batches: Any
    pairs: int = 1
    bfloat16: bool = False
    cuda_graph: bool = True
    patches: ExitStack = field(default_factory=ExitStack)  # what is changed in modules, to be undone


@dataclass
class Moved:
    """A loader's batches, each brought to the device."""

    loader: DataLoader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((x.to(DEVICE), y.to(DEVICE)) for x, y in self.loader)


def way(how: str, batch: int) -> dict[str, Any]:
    """A step of "ours" for a CNN pair with one thing changed, which `WAYS` names."""
    images = data.load("mnist", limit=STEPS_A_CALL * batch)
    pair = [CNN().to(DEVICE, memory_format=layout(DEVICE)) for _ in range(2)]
    objective = losses.decorrelation(*pair, variant="released")
    step, epochs = Step(pair, images, objective, data.Batches(images, batch)), 5 if ON_GPU else 1
    with step.patches:
        WAYS[how](step)
        fit = partial(training.fit, step.objective, step.objective.parameters(), step.batches, epochs=epochs)
        fit = partial(fit, learning_rate=HELD, bfloat16=step.bfloat16, cuda_graph=step.cuda_graph)
        return measure(fit, per=len(step.batches) * epochs * step.pairs, seconds=4)


def _as_it_is(step: Step) -> None:
    """Nothing is changed."""


def _pinv(step: Step) -> None:
    by_pinv = lambda z1, z2, variant: reference.correlation_loss(z1, z2)  # noqa: E731
    step.patches.enter_context(patch.object(losses, "correlation_loss", by_pinv))
    step.cuda_graph = False  # it asks which columns to keep


def _loader(step: Step) -> None:
    pictures = reference.Pictures(step.images.x, step.images.y)
    step.batches = Moved(DataLoader(pictures, step.batches.batch_size, shuffle=True))


def _channels_first(step: Step) -> None:
    for model in step.pair:
        model.to(memory_format=torch.contiguous_format)
    as_it_lies = lambda *models: nullcontext(lambda function, *inputs: function(*inputs))  # noqa: E731
    step.patches.enter_context(patch.object(training, "channels_last", as_it_lies))


def _channels_last(step: Step) -> None:
    for model in step.pair:
        model.to(memory_format=torch.channels_last)


def _kernel_by_kernel(step: Step) -> None:
    step.cuda_graph = False


def _memory_returned(step: Step) -> None:
    for module in (losses, training):
        step.patches.enter_context(patch.object(module, "keep_freed_memory", lambda device: None))


def _own_products(step: Step) -> None:
    step.patches.enter_context(patch.object(products, "ONEDNN", False))


def _unfused(step: Step) -> None:
    adam = torch.optim.Adam
    unfused = lambda *given, **how: adam(*given, **{**how, "fused": False})  # noqa: E731
    step.patches.enter_context(patch.object(torch.optim, "Adam", unfused))


def _read_back(step: Step) -> None:
    terms = step.objective.terms

    def read(x: Tensor, y: Tensor) -> losses.Terms:
        named = terms(x, y)
        named["loss"].item()
        return named

    step.objective, step.cuda_graph = replace(step.objective, terms=read), False


def _bfloat16(step: Step) -> None:
    step.bfloat16 = True


def _compiled(step: Step) -> None:
    for model in step.pair:
        model.body.compile()
        model.tail.compile()


def _uncoupled(step: Step) -> None:
    step.objective = losses.classification(*step.pair)


def _stacked(step: Step) -> None:
    step.pairs = 4
    step.objective = stacked([CNN().to(DEVICE) for _ in range(2 * step.pairs)])


WAYS: dict[str, Callable[[Step], None]] = {
    "as it is": _as_it_is,
    "pseudo-inverse in the loss": _pinv,
    "images through a DataLoader": _loader,
    "kernel by kernel, not a CUDA graph": _kernel_by_kernel,
    "channels first": _channels_first,
    "channels last": _channels_last,
    "freed memory returned to the system": _memory_returned,
    "torch's own matrix products": _own_products,
    "Adam not fused": _unfused,
    "loss read back at every step": _read_back,
    "bfloat16": _bfloat16,
    "compiled by torch.compile": _compiled,
    "without the correlation loss": _uncoupled,
    "four such pairs, channels first, stacked by vmap": _stacked,
}


class Stack(nn.Module):
    """Models of one architecture as one: every parameter is K of them, (K, …), and logits are (K, N, 10)."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        values, _ = torch.func.stack_module_state(models)  # these have no buffers
        self.names = list(values)
        self.values = nn.ParameterList(values.values())
        self.template = [models[0]]  # in a list: its parameters are not to be trained

    def forward(self, x: Tensor) -> Tensor:
        call = partial(torch.func.functional_call, self.template[0])
        return torch.vmap(call, (0, None))(dict(zip(self.names, self.values, strict=True)), (x,))


def stacked(models: list[nn.Module]) -> losses.Objective:
    """Cross-entropy of every model, summed, in one pass through all of them."""
    stack = Stack(models)

    def terms(x: Tensor, y: Tensor) -> losses.Terms:
        logits = stack(x)
        return {"loss": len(logits) * cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)))}

    return losses.Objective((stack,), terms)


# --- Attacks -------------------------------------------------------------------------------------


def attack(how: str, chunk: int) -> dict[str, Any]:
    """PGD-40 on 1,000 digits by a CNN; chunk: images at a time.

    The network is as it was made. how: "ours", "ours, bfloat16", a library as its users call it, a library
    "helped" to what ours does for itself (channels last, no gradients of the weights, freed memory kept), or
    "bound". Beside the time: how many digits the network misreads afterwards, and how many another does.
    """
    images = data.load("mnist", "test", limit=PGD_IMAGES)
    model, other = readers()
    if how not in ("ours", "ours, bfloat16", *LIBRARIES):
        model.to(memory_format=layout(DEVICE))
    if how == "bound":  # the forward and backward passes of the convolutions alone
        found = layers_alone([model], images.x[:chunk], weights=False)
        times = PGD_STEPS * PGD_IMAGES / chunk
        return {**found, "ms": round(times * found["ms"], 3)}
    library, _, helped = how.partition(", ")
    if library == "ours":
        search = partial(pgd, ball=Linf(0.1), steps=PGD_STEPS, step_size=0.01, cuda_graph=True)
        search = partial(search, bfloat16=helped == "bfloat16")
        run = partial(attacks.craft, search, model, images.x, images.y, chunk=chunk)
    else:
        if helped:
            model.requires_grad_(False)
            keep_freed_memory(DEVICE)
        parts = list(zip(images.x.split(chunk), images.y.split(chunk), strict=True))
        run = lambda: torch.cat([LIBRARIES[library](model, x, y) for x, y in parts])  # noqa: E731
    found, x_adv = measure(run, seconds=4), run()
    wrong = [int((measures.predictions(each, x_adv) != images.y).sum()) for each in (model, other)]
    return {**found, "misread": wrong[0], "misread_by_other": wrong[1]}


def readers() -> list[CNN]:
    """Two CNNs that have learnt the digits apart from each other: the regular pair of a record."""
    weights = records.weights(records.best("correlation_weights"))
    models = [CNN().to(DEVICE).eval() for _ in range(2)]
    for number, model in enumerate(models, 1):
        model.load_state_dict(weights[f"lambda_0_model_{number}"])
    return models


def _foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import foolbox

    search = foolbox.attacks.LinfPGD(steps=PGD_STEPS, abs_stepsize=0.01)
    return search(foolbox.PyTorchModel(model, bounds=(0, 1), device=DEVICE), x, y, epsilons=0.1)[1]


def _torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import torchattacks

    return torchattacks.PGD(model, eps=0.1, alpha=0.01, steps=PGD_STEPS)(x, y)


LIBRARIES = {"foolbox": _foolbox, "torchattacks": _torchattacks}


# --- Trials --------------------------------------------------------------------------------------


def trials(how: str, count: int, jobs: int) -> dict[str, Any]:
    """`count` small trials, each a CNN pair trained for two epochs of 20 steps, by `jobs` processes."""
    from joblib import Parallel, delayed

    threads = max(1, torch.get_num_threads() // jobs)
    with Parallel(n_jobs=jobs) as workers:
        return measure(lambda: workers(delayed(_trial)(seed, threads) for seed in range(count)), seconds=4)


def _trial(seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    images = data.load("mnist", limit=10_000)
    pair = [CNN().to(DEVICE, memory_format=layout(DEVICE)) for _ in range(2)]
    objective = losses.decorrelation(*pair, correlation_weight=0)
    training.fit(objective, objective.parameters(), data.Batches(images, 500, seed=seed), epochs=2)


# --- The list ------------------------------------------------------------------------------------


def plan(group: str) -> Iterator[dict[str, Any]]:
    """The measurements of a group, each as keyword arguments: the function's name and what it takes."""
    if group == "loss":
        for n, m in LOSS_SHAPES:
            for how in ("pinv", "released", "corrected", "bound"):
                yield {"function": "loss", "how": how, "n": n, "m": m}
    elif group == "step":
        for what, batch in STEPS.items():
            if ON_GPU and "learning" in what:
                continue  # columns that are dropped stay in a GPU's work, so every step costs the same
            for how in ("released style", "ours", "corrected", "bound"):
                yield {"function": "step", "how": how, "what": what, "batch": batch}
    elif group == "ways":
        idle = {"channels last", "kernel by kernel, not a CUDA graph"}  # as it is on this machine anyway
        if not products.ONEDNN or DEVICE.type != "cpu":
            idle.add("torch's own matrix products")
        if DEVICE.type != "cpu":
            idle.add("freed memory returned to the system")
        if ON_GPU:
            idle ^= {"channels first", "channels last", "kernel by kernel, not a CUDA graph"}
            idle.add("compiled by torch.compile")  # into kernels: minutes, and not beside a graph
        for how in (how for how in WAYS if how not in idle):
            yield {"function": "way", "how": how, "batch": STEPS["CNN pair"]}
        if DEVICE.type == "cpu":  # what a batch asks for at once is too much for glibc to keep by itself
            for how in ("as it is", "freed memory returned to the system"):
                yield {"function": "way", "how": how, "batch": 2 * STEPS["CNN pair"]}
    elif group == "attack":
        chunks = (500, PGD_IMAGES) if ON_GPU else (125, 250, 500, PGD_IMAGES)
        for how in LIBRARIES:
            yield {"function": "attack", "how": how, "chunk": PGD_IMAGES}
            for chunk in chunks:
                yield {"function": "attack", "how": f"{how}, helped", "chunk": chunk}
        for chunk in chunks if ON_GPU else (25, 50, *chunks):
            yield {"function": "attack", "how": "ours", "chunk": chunk}
        for chunk in chunks if training.has_bfloat16(DEVICE) else ():
            yield {"function": "attack", "how": "ours, bfloat16", "chunk": chunk}
        for chunk in chunks:
            yield {"function": "attack", "how": "bound", "chunk": chunk}
    elif group == "growth":
        for n in (250, 500, 1000, 2000, 4000, 8000):
            yield {"function": "loss", "how": "corrected", "n": n, "m": costs.GROWTH_M}
        for m in (50, 100, 400, 800, 1600):  # and 200, above
            yield {"function": "loss", "how": "corrected", "n": costs.GROWTH_N, "m": m}
        for batch in (125, 250, 500, 1000, 2000):
            yield {"function": "step", "how": "corrected", "what": "CNN pair", "batch": batch}
        for jobs in (1, 2):
            for count in (1, 2, 4, 8):
                yield {"function": "trials", "how": "ours", "count": count, "jobs": jobs}


GROUPS = ("loss", "step", "ways", "attack") + ("growth",) * (not ON_GPU)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        options = json.loads(sys.argv[2])
        print(json.dumps({"commit": records.COMMIT, **found_by(options)}))
        return
    groups = sys.argv[1:] or GROUPS
    if unknown := set(groups) - set(GROUPS):
        sys.exit(f"unknown group {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
    if records.COMMIT.endswith("-dirty"):
        sys.exit("commit the changes first: the rows name the code that they measure")
    for group in groups:
        measured: dict[str, list[dict[str, Any]]] = {}
        failed = []
        for turn in range(1, RUNS + 1):
            for options in plan(group):
                named = ", ".join(str(value) for value in options.values())
                try:
                    found = found_by(options) if ON_GPU else in_own_process(options)
                except RuntimeError as error:
                    failed.append(f"{named}: {error}")
                    continue
                measured.setdefault(json.dumps(options), []).append(found)
                print(
                    f"{turn}/{RUNS} {named:45} {found['ms']:10.2f} ms {found['peak_mib']:7} MiB", flush=True
                )
        rows = [{**json.loads(options), **together(runs)} for options, runs in measured.items()]
        print(records.save_benchmark(group, rows, DEVICE))
        if failed:
            sys.exit("\n".join(["not measured:", *failed]))


def found_by(options: dict[str, Any]) -> dict[str, Any]:
    """What the function finds that the options name, with the others as arguments."""
    arguments = {key: value for key, value in options.items() if key != "function"}
    return globals()[options["function"]](**arguments)


def in_own_process(options: dict[str, Any]) -> dict[str, Any]:
    """What a measurement finds in a new process.

    Raises RuntimeError with that process's error where it fails; exits where the code has changed meanwhile.
    """
    command = [sys.executable, __file__, "--one", json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr)
    found = json.loads(run.stdout.splitlines()[-1])
    if found.pop("commit") != records.COMMIT:
        sys.exit("the code was changed while it was measured; run the benchmark again")
    return found


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of several runs: the median of their medians and of their memory, and the extreme medians."""
    times = [run["ms"] for run in runs]
    return {
        **runs[0],  # what is the same in each
        "ms": round(statistics.median(times), 3), "low": min(times), "high": max(times), "runs": len(runs),
        "calls": sum(run["calls"] for run in runs),
        "peak_mib": round(statistics.median(run["peak_mib"] for run in runs)),
    }  # fmt: skip


if __name__ == "__main__":
    main()

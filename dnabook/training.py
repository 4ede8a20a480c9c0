"""`fit`: the only optimiser loop. It minimises any objective with Adam, epoch by epoch, and can resume.

The paper trains everything with Adam. The data are already tensors on the device, so a step is an index, a
forward, a backward and a fused update; losses are read back once an epoch, not once a step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dnabook.graphs import Replay
from dnabook.losses import Objective, Terms
from dnabook.memory import keep_freed_memory
from dnabook.models import channels_last

History = dict[str, list[float]]  # for each term of the objective, its mean over every epoch; nan for none


class Checkpoint(Protocol):
    """Where `fit` keeps its state; `records.Checkpoint` is the one that writes files.

    What `save` gets changes with the next step: write it or copy it.
    """

    def load(self) -> dict[str, Any] | None: ...
    def save(self, state: dict[str, Any]) -> None: ...


def quiet(iterable: Iterable, description: str = "") -> Iterable:
    """The progress bar that shows nothing."""
    return iterable


def fit(
    objective: Objective,
    parameters: Iterable[nn.Parameter],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    epochs: int,
    learning_rate: float = 5e-3,
    schedule: str = "constant",
    bfloat16: bool = False,
    cuda_graph: bool = False,
    progress: Callable[..., Iterable] = quiet,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train for `epochs` passes over `batches` and return each term's mean over every epoch.

    objective      (x, y) -> terms, a dict of scalar tensors with a "loss"; its `.models` train and are left
                   in eval mode, also where training stops early. A term that only some batches give has its
                   mean over these, and nan in an epoch that had none.
    parameters     what Adam updates; usually `objective.parameters()`.
    batches        iterated once an epoch, usually `data.Batches`; its `.generator` fixes the order.
    schedule       "constant", or "one_cycle": the rate rises to learning_rate over the first three tenths
                   of all steps and falls to nearly 0 by the last; needs `len(batches)`.
    bfloat16       runs convolutions and matrix products in bfloat16 (autocast); parameters, sums and the
                   correlation loss stay in float32. Worth it where `has_bfloat16(device)`.
    cuda_graph     on a GPU, records the third step and replays it: several times as fast on small networks,
                   for an objective that asks the GPU for no number (`graphs.Replay`); here all do but those
                   of variant "printed". Elsewhere nothing changes.
    progress       `progress(iterable, description)`, for example `tqdm`-like; quiet by default.
    checkpoint     saved after every epoch; a run that was interrupted goes on from the last whole epoch and
                   ends with the weights it would have had: `batches.generator` and PyTorch's own generators
                   (of the CPU and the parameters' CUDA device; dropout draws from them) go on from there.
                   It cannot tell every other training from this one, such as one with another λ or on other
                   images: give each a checkpoint of its own.

    On a processor the models' convolutions have their channels last meanwhile (`models.channels_last`); on a
    Linux processor freed memory then stays with the process (`memory.keep_freed_memory`).
    Raises ValueError for epochs below 1, an unknown schedule, one_cycle without `len(batches)`, an epoch
    without batches; for an objective without a tuple of models, terms without "loss" or that are no scalar
    tensors; for no parameters, what is no parameter, parameters that all have no gradient; and for a
    checkpoint of more epochs, another schedule, learning rate, objective (by its name), number of models or
    batches, of other parameters, or whose batches alone had a generator. Raises FloatingPointError when the
    loss of an epoch is not finite.
    """
    if not isinstance(getattr(objective, "models", None), Iterable):
        raise ValueError(
            "an objective needs a tuple of models, as in losses.Objective((model,), terms); got "
            f"{_name(getattr(objective, 'models', objective))}"
        )
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if schedule not in ("constant", "one_cycle"):
        raise ValueError(f'schedule is "constant" or "one_cycle", got {schedule!r}')
    if isinstance(parameters, nn.Module):
        raise ValueError(f"give the parameters, for example model.parameters(), got a {_name(parameters)}")
    parameters = list(dict.fromkeys(parameters))  # one that two models share counts once
    if strange := [_name(p) for p in parameters if not isinstance(p, Tensor)]:
        raise ValueError(f"parameters must be tensors, for example model.parameters(), got a {strange[0]}")
    if not parameters:
        raise ValueError("there are no parameters to train")
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    device = parameters[0].device
    recorded = cuda_graph and device.type == "cuda"
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=fused, capturable=recorded)
    keep_freed_memory(device)
    marks = _marks(objective, parameters, batches)
    scheduler = None
    if schedule == "one_cycle":
        if marks["batches"] is None:
            raise ValueError('schedule "one_cycle" needs batches that have a length')
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, epochs=epochs, steps_per_epoch=marks["batches"], cycle_momentum=False
        )
    generator = getattr(batches, "generator", None)
    history: History = {}
    done = 0
    state = copy.deepcopy(checkpoint.load()) if checkpoint else None  # training goes on in it
    if state is not None:
        _check_state(state, marks, objective, optimizer, generator, schedule, epochs)
        for model, weights in zip(objective.models, state["models"], strict=True):
            model.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        if scheduler is not None:
            planned = state["scheduler"]["total_steps"]
            if planned != scheduler.total_steps:
                raise ValueError(
                    f"the checkpoint's one-cycle schedule has {planned} steps, these epochs have "
                    f"{scheduler.total_steps}; the cycle cannot be stretched"
                )
            scheduler.load_state_dict(state["scheduler"])
        if generator is not None:
            generator.set_state(state["generator"])
        history, done = state["history"], state["epochs"]
        if done < epochs and state.get("random"):  # older checkpoints have none
            _set_random(state["random"], device)
    if recorded:
        for group in optimizer.param_groups:  # also those of a checkpoint
            rate = group["lr"] if scheduler is None else torch.as_tensor(group["lr"], device=device)
            group.update(capturable=True, lr=rate)  # a rate that changes is read from the GPU

    with _training(objective.models) as call:
        step = partial(_step, partial(call, objective), optimizer, bfloat16)
        step = Replay(step) if recorded else step
        for epoch in progress(range(done, epochs), "training"):
            sums: dict[str, tuple[Tensor, int]] = {}  # of each term, and over how many batches
            for x, y in batches:
                terms = step(x, y)
                if scheduler is not None:
                    scheduler.step()
                for name, value in terms.items():
                    total, count = sums.get(name, (0, 0))
                    sums[name] = total + value, count + 1
            if not sums:
                raise ValueError(f"batches gave nothing in epoch {epoch + 1}; pass what can be iterated anew")
            _note_means(history, sums, epoch)
            if not math.isfinite(history["loss"][-1]):
                raise FloatingPointError(f"the loss became {history['loss'][-1]} in epoch {epoch + 1}")
            if checkpoint:
                checkpoint.save({
                    "models": [model.state_dict() for model in objective.models],
                    "optimizer": optimizer.state_dict(),
                    "scheduler": None if scheduler is None else scheduler.state_dict(),
                    "generator": None if generator is None else generator.get_state(),
                    "random": _random(device),
                    "history": history,
                    "epochs": epoch + 1,
                    **marks,
                })  # fmt: skip
    return history


@contextmanager
def _training(models: Iterable[nn.Module]) -> Iterator[Callable]:
    """Within the block the models train and lie as `channels_last` lays them; then they are in eval mode."""
    for model in models:
        model.train()
    try:
        with channels_last(*models) as call:
            yield call
    finally:
        for model in models:
            model.eval()


def _step(
    terms_of: Callable[[Tensor, Tensor], Terms],
    optimizer: torch.optim.Optimizer,
    bfloat16: bool,
    x: Tensor,
    y: Tensor,
) -> Terms:
    """One update of the parameters; the objective's terms before it."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        terms = terms_of(x, y)
    _check_terms(terms)
    optimizer.zero_grad()
    if terms["loss"].requires_grad:
        terms["loss"].backward()
    if all(p.grad is None for p in optimizer.param_groups[0]["params"]):
        raise ValueError(
            "no parameter has a gradient: the loss depends on none of those that were given; give those of "
            "the objective's own models, objective.parameters(), and a loss that is not detached"
        )
    _lie_alike(optimizer)
    optimizer.step()
    return {name: value.detach() for name, value in terms.items()}


def _check_terms(terms: Any) -> None:
    """Raises ValueError unless an objective's terms are scalar tensors with a "loss" among them.

    It asks no device for a value.
    """
    if not isinstance(terms, dict) or "loss" not in terms:
        got = list(terms) if isinstance(terms, dict) else f"a {_name(terms)}"
        raise ValueError(f'an objective returns a dict of terms with a "loss", got {got}')
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.dim():
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {_name(value)}"
            raise ValueError(f"an objective's terms are scalar tensors, but {name!r} is {got}")


def _note_means(history: History, sums: dict[str, tuple[Tensor, int]], epoch: int) -> None:
    """Add to each term's history its mean over an epoch's batches, read from the device at once."""
    totals = torch.stack([total for total, _ in sums.values()]).tolist()
    means = {name: each / sums[name][1] for name, each in zip(sums, totals, strict=True)}
    for name in {**history, **means}:
        history.setdefault(name, [math.nan] * epoch).append(means.get(name, math.nan))


def _name(thing: Any) -> str:
    """A function's name as it stands in its module, or the kind of anything else."""
    return getattr(thing, "__qualname__", type(thing).__qualname__)


def _lie_alike(optimizer: torch.optim.Optimizer) -> None:
    """Adam's means lie in memory as their parameters do, wherever a checkpoint has them from.

    Fused Adam walks through memory, and would add the means of one weight to another.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name != "step" and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def _marks(objective: Objective, parameters: list[nn.Parameter], batches: Iterable) -> dict[str, Any]:
    """What a checkpoint keeps to be told from those of other trainings."""
    names = {
        p: f"{number}.{name}"
        for number, model in enumerate(objective.models, 1)
        for name, p in model.named_parameters()
    }
    try:
        count = len(batches)
    except TypeError:  # they are only iterated
        count = None
    return {
        "objective": _name(getattr(objective, "terms", objective)),
        "batches": count,
        "parameters": [f"{names.get(p, 'of no model')} {tuple(p.shape)}" for p in parameters],
    }


def _check_state(
    state: dict[str, Any], marks: dict[str, Any], objective: Objective, optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None, schedule: str, epochs: int,
) -> None:  # fmt: skip
    """Raises ValueError when a checkpoint's state is not of this training."""
    if state["epochs"] > epochs:
        raise ValueError(
            f"the checkpoint holds {state['epochs']} epochs, more than the {epochs} asked for; "
            "ask for as many, or train without it"
        )

    def rate(group: dict[str, Any]) -> float:
        return group.get("max_lr", group["lr"])  # a cycle's largest, as it was asked for

    parameters = zip_longest(state.get("parameters", ()), marks["parameters"])
    differing = {
        "models": (len(state["models"]), len(objective.models)),
        "parameter": next((pair for pair in parameters if pair[0] != pair[1]), (None, None)),
        "objective": (state.get("objective"), marks["objective"]),
        "batches": (state.get("batches"), marks["batches"]),
        "batches with a generator": (state["generator"] is not None, generator is not None),
        "schedule": ("constant" if state["scheduler"] is None else "one_cycle", schedule),
        "learning rate": (rate(state["optimizer"]["param_groups"][0]), rate(optimizer.param_groups[0])),
    }
    for what, (held, asked) in differing.items():
        if held != asked:
            raise ValueError(
                f"the checkpoint is of another training: {what} {held}, here {asked}; ask for the same, or "
                "train without it"
            )


def _random(device: torch.device) -> list[Tensor]:
    """The states of PyTorch's own generators: of the CPU, and of the device if it is CUDA's."""
    gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *gpu]


def _set_random(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, so that `fit(…, bfloat16=True)` is faster."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # else it answers for the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in capable)


# --- How a GPU convolves ---------------------------------------------------------------------------


def repeatable(device: torch.device) -> AbstractContextManager:
    """On a GPU: convolutions by algorithms that repeat, in float32 proper rather than TF32's ten bits."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def fast_convolutions() -> AbstractContextManager:
    """On a GPU: convolutions in TF32 (ten bits, as float16), by algorithms that may add in any order.

    What is trained so does not repeat bit for bit there.
    """
    now = torch.backends.cudnn
    return now.flags(enabled=now.enabled, benchmark=now.benchmark, deterministic=False, allow_tf32=True)

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
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dnabook.graphs import Replay
from dnabook.losses import Objective, Terms
from dnabook.memory import keep_freed_memory
from dnabook.models import channels_last

History = dict[str, list[float]]  # for each term of the objective, its mean over every epoch


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

    objective      (x, y) -> terms with a scalar "loss"; its `.models` train and are left in eval mode, also
                   where training stops early.
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

    On a processor the models' convolutions have their channels last meanwhile (`models.channels_last`); on a
    Linux processor freed memory then stays with the process (`memory.keep_freed_memory`).
    Raises ValueError for epochs below 1, no parameters, an unknown schedule, an epoch without batches, and a
    checkpoint of more epochs, another schedule, learning rate or number of models; FloatingPointError when
    the loss of an epoch is not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if schedule not in ("constant", "one_cycle"):
        raise ValueError(f'schedule is "constant" or "one_cycle", got {schedule!r}')
    parameters = list(dict.fromkeys(parameters))  # one that two models share counts once
    if not parameters:
        raise ValueError("there are no parameters to train")
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    device = parameters[0].device
    recorded = cuda_graph and device.type == "cuda"
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=fused, capturable=recorded)
    keep_freed_memory(device)
    scheduler = None
    if schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, epochs=epochs, steps_per_epoch=len(batches), cycle_momentum=False
        )
    generator = getattr(batches, "generator", None)
    history: History = {}
    done = 0
    state = copy.deepcopy(checkpoint.load()) if checkpoint else None  # training goes on in it
    if state is not None:
        _check_state(state, objective, optimizer, schedule, epochs)
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
            sums, count = {}, 0
            for x, y in batches:
                terms = step(x, y)
                if scheduler is not None:
                    scheduler.step()
                count += 1
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value
            if count == 0:
                raise ValueError(f"batches gave nothing in epoch {epoch + 1}; pass what can be iterated anew")
            for name, value in zip(sums, torch.stack(list(sums.values())).tolist(), strict=True):
                history.setdefault(name, []).append(value / count)
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
    optimizer.zero_grad()
    terms["loss"].backward()
    _lie_alike(optimizer)
    optimizer.step()
    return {name: value.detach() for name, value in terms.items()}


def _lie_alike(optimizer: torch.optim.Optimizer) -> None:
    """Adam's means lie in memory as their parameters do, wherever a checkpoint has them from.

    Fused Adam walks through memory, and would add the means of one weight to another.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name != "step" and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def _check_state(
    state: dict[str, Any], objective: Objective, optimizer: torch.optim.Optimizer, schedule: str, epochs: int
) -> None:
    """Raises ValueError when a checkpoint's state is not of this training."""
    if state["epochs"] > epochs:
        raise ValueError(
            f"the checkpoint holds {state['epochs']} epochs, more than the {epochs} asked for; "
            "ask for as many, or train without it"
        )

    def rate(group: dict[str, Any]) -> float:
        return group.get("max_lr", group["lr"])  # a cycle's largest, as it was asked for

    differing = {
        "models": (len(state["models"]), len(objective.models)),
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

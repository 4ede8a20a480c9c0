"""Steps on a GPU as one launch each: recorded once as a CUDA graph, then replayed.

A step of training or of PGD on the book's networks is a hundred kernels of a few microseconds, and Python
takes several times as long to launch them as the GPU to run them. Called by `training.fit` and `attacks.pgd`
where they are asked for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STREAMS: dict[torch.device, torch.cuda.Stream] = {}  # where each GPU's plain calls and recordings run
_LAST: dict[torch.device, torch.cuda.CUDAGraph] = {}  # each GPU's newest: it keeps the memory that all share
PLAIN = 2  # calls before the recording: they load kernels and make what is made at first use


class Replay:
    """`function(*tensors)`, called plainly twice, then recorded on the tensors' GPU and replayed.

    function   must do the same work each time it is given tensors of the same shapes, and ask the GPU for no
               number (`.item()`, an `if` on a tensor): what it does in Python happens once, when it is
               recorded. Inputs of other shapes than the recorded ones are computed plainly.

    What it returns is overwritten by the next call of this or another `Replay`: all share one memory, so that
    an attack after the other takes no more than one. Use or copy it before. Only one thread may use them.
    Raises RuntimeError when it cannot be recorded. The GPU's random numbers may then be unusable in this
    process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.plain_calls = function, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.result: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        if self.graph is None:
            if self.plain_calls < PLAIN:
                self.plain_calls += 1
                return self._beside(self.function, *inputs)
            self._beside(self._record, *inputs)
        if any(mine.shape != given.shape for mine, given in zip(self.inputs, inputs, strict=True)):
            return self._beside(self.function, *inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine is not given:
                mine.copy_(given)
        self.graph.replay()
        return self.result

    def _beside(self, call: Callable[..., Any], *inputs: Tensor) -> Any:
        """The call on a stream of its own, as recording needs it, after what came before and before what
        comes after."""
        device = inputs[0].device
        if device not in _STREAMS:
            _STREAMS[device] = torch.cuda.Stream(device)
        outside, own = torch.cuda.current_stream(device), _STREAMS[device]
        own.wait_stream(outside)
        with torch.cuda.stream(own):
            result = call(*inputs)
        outside.wait_stream(own)
        return result

    def _record(self, *inputs: Tensor) -> None:
        device = inputs[0].device
        shared = {"pool": _LAST[device].pool()} if device in _LAST else {}
        self.inputs, graph = [each.clone() for each in inputs], torch.cuda.CUDAGraph()
        graph.capture_begin(**shared, capture_error_mode="thread_local")
        try:
            self.result = self.function(*self.inputs)
            graph.capture_end()
        except BaseException as error:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()  # else the stream would go on recording, and nothing could wait for it
            del _STREAMS[device]
            if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
                raise
            raise RuntimeError(
                "this step cannot be recorded as a CUDA graph, perhaps because a model or an objective asks "
                "the GPU for a number; pass cuda_graph=False"
            ) from error
        self.graph = _LAST[device] = graph


def release() -> None:
    """Forget the newest recordings: `torch.cuda.empty_cache` then frees the memory kept for the next.

    What a `Replay` holds stays its own as long as it lives.
    """
    _LAST.clear()


def recording(x: Tensor) -> bool:
    """Whether the work of a tensor's GPU is being recorded, so that it cannot be asked for a number."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()

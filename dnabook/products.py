"""Matrix products in float32 on processors, with all of AVX-512 on those that have it.

torch multiplies matrices by MKL, which uses half the vector width on an AMD processor, and convolves by
oneDNN, which uses all of it on every maker's. `linear` asks oneDNN for the product too, with the same numbers
up to rounding: on one AMD processor it took half the time, on another (family 25, model 17 to lscpu) a tenth
less or as much. Everywhere else, and for every other type, it is torch's own. Used by the fully connected
layers and by the correlation loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional

ONEDNN = torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as `torch.nn.functional.linear`: (N, K), (M, K) and (M,) -> (N, M), with all derivatives.

    In forward mode (`torch.autograd.forward_ad`) those of oneDNN are missing, and a RuntimeError says so; it
    is for backward passes of `torch.autograd`; under a transform of `torch.func` torch's own is taken.
    """
    fits = x.shape[-1:] == weight.shape[-1:]  # else torch's own says what is wrong
    if bias is not None:
        fits &= bias.shape == weight.shape[:1] and bias.dtype == weight.dtype
    if not (ONEDNN and fits and _plain(x) and _plain(weight)):
        return functional.linear(x, weight, bias)
    return _Product.apply(x, weight, bias)


def _plain(x: Tensor) -> bool:
    """Whether oneDNN is to have it: a plain float32 matrix on the CPU, not empty, run as it is written."""
    return (
        x.dtype == torch.float32
        and x.dim() == 2
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # the compiler chooses its own, and cannot compile this one
        and not is_functorch_wrapped_tensor(x)
    )


class _Product(torch.autograd.Function):
    """x Wᵀ + b by oneDNN. The gradients are two more such products, so they have gradients in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.T) if wants_x else None,
            linear(gradient.T, x.T) if wants_weight else None,
            gradient.sum(0) if wants_bias else None,
        )


class Linear(nn.Linear):
    """`nn.Linear`, multiplied by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

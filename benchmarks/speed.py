"""Milliseconds of what the experiments spend their time on; run it on an idle machine.

    .venv/bin/python benchmarks/speed.py

Prints the correlation loss (forward and backward) beside a plain pseudo-inverse reference, a training step
of a CNN pair with and without `training.keep_freed_memory`, and PGD's throughput by chunk size. Medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from dnabook import CNN, Linf, attacks, correlation_loss, data, losses, pgd, training

DEVICE = data.default_device()


def milliseconds(run: Callable[[], object], repeats: int = 9) -> float:
    """Median time of a call, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def with_pseudo_inverse(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """The released form of the loss by `torch.linalg.pinv`, without dropping columns."""
    augmented = torch.cat([z1, torch.ones_like(z1[:, :1])], 1)
    residual = z2 - augmented @ (torch.linalg.pinv(augmented) @ z2)
    ss_total = (z2 - z2.mean(0)).square().sum()
    return torch.log(ss_total + 1e-3) - torch.log(residual.square().sum() + 1e-3)


def loss_table() -> None:
    print("correlation loss, forward and backward (ms): shape, pinv, ours, ratio")
    for n, m in ((1000, 784), (1250, 448), (1000, 200), (500, 64)):
        z1 = torch.randn(n, m, device=DEVICE).relu().requires_grad_()
        z2 = (torch.randn(n, m, device=DEVICE) + z1.detach()).relu().requires_grad_()
        reference = milliseconds(lambda z1=z1, z2=z2: with_pseudo_inverse(z1, z2).backward(), 5)
        loss = partial(correlation_loss, z1, z2, variant="released")
        ours = milliseconds(lambda loss=loss: loss().backward())
        print(f"  ({n}, {m})  {reference:7.1f}  {ours:7.1f}  {reference / ours:5.1f}")


def step_table(correlation_weight: float) -> float:
    """Milliseconds of one step of a CNN pair at batch 1000."""
    images = data.load("mnist", limit=2000)
    pair = [CNN().to(DEVICE, memory_format=torch.channels_last) for _ in range(2)]
    objective = losses.decorrelation(*pair, correlation_weight=correlation_weight, variant="released")
    batches = data.Batches(images, 1000)
    return milliseconds(lambda: training.fit(objective, objective.parameters(), batches, epochs=1)) / 2


def pgd_table() -> None:
    print("PGD-40 on the CNN: chunk, images a second")
    images = data.load("mnist", "test", limit=1000)
    model = CNN().to(DEVICE, memory_format=torch.channels_last)
    attack = partial(pgd, ball=Linf(0.1), steps=40)
    for chunk in (100, 250, 1000):
        took = milliseconds(lambda c=chunk: attacks.craft(attack, model, images.x, images.y, chunk=c), 3)
        print(f"  {chunk:5}  {1e6 / took:7.0f}")


def main() -> None:
    if sys.argv[1:]:  # a fresh process, because what keep_freed_memory asks for cannot be taken back
        if sys.argv[2] == "plain":
            training.keep_freed_memory = lambda: None
        print(f"{step_table(float(sys.argv[1])):.1f}")
        return
    print(f"torch {torch.__version__}, {DEVICE}, {torch.get_num_threads()} threads")
    print("training step of a CNN pair, batch 1000 (ms): λ, memory returned, memory kept")
    for weight in ("0", "0.05"):
        command = [sys.executable, __file__, weight]
        times = [subprocess.check_output([*command, how], text=True).strip() for how in ("plain", "kept")]
        print(f"  {weight:5} {times[0]:>8} {times[1]:>8}")
    training.keep_freed_memory()
    loss_table()
    pgd_table()


if __name__ == "__main__":
    main()

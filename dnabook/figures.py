"""Records and tensors as figures: `figures.transfer(record) -> Figure`, without side effects.

The same thing has the same colour and marker in every chapter; the palette is Okabe and Ito's, which
colour-blind readers can tell apart. Scale, seeds, device and date stand in the corner of every figure that
draws a record. Pairs in which a model collapsed are left out of the means and counted in the legend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dnabook import summaries
from dnabook.measures import MeanInterval
from dnabook.records import Record

ARMS = {  # label, colour, marker
    "regular": ("regular", "#0072B2", "o"),
    "decorrelated": ("decorrelated", "#D55E00", "s"),
    "decorrelated_late": ("decorrelated late", "#009E73", "^"),
}
SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))
ARCHITECTURES = {"cnn": "CNN", "fully_connected": "fully connected"}
ATTACKS = {
    "fgsm-linf": "FGSM, ℓ∞",
    "fgsm-l2": "FGSM, ℓ2",
    "pgd-linf": "PGD, ℓ∞",
    "pgd-l2": "PGD, ℓ2",
}
LOWEST = -0.25  # of the axis for held-out R², which has no lower bound
STYLE = {
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "lines.markersize": 5,
}


# --- Recorded results ----------------------------------------------------------------------------


def parameter_distance(record: Record) -> Figure:
    """Figure 1: transfer (left) and held-out R² of the features (right) against the pairs' squared distance.

    One point is one pair, the mean of both directions. FGSM-ℓ∞ of the ε in the legend; filled grey points
    on the right are natural images.
    """
    figure, ((left, right),) = _figure(1, 2, (9.5, 3.8))
    epsilons = sorted({row["epsilon"] for row in record.rows("transfer")})
    for trial in record.trials:
        distance = trial["values"]["distance"]
        for epsilon, (colour, marker) in zip(epsilons, SERIES, strict=False):
            rows = [row for row in trial["values"]["transfer"] if row["epsilon"] == epsilon]
            mean = summaries.mean([summaries.rate(row) for row in rows])
            left.plot(distance, mean, marker, color=colour, alpha=0.8)
        for row in trial["values"]["features"]:
            colour, marker = ("0.45", "P") if not row["epsilon"] else SERIES[epsilons.index(row["epsilon"])]
            r2 = (row["heldout_1_to_2"] + row["heldout_2_to_1"]) / 2
            right.plot(distance, r2, marker, color=colour, alpha=0.8)
    for epsilon, (colour, marker) in zip(epsilons, SERIES, strict=False):
        left.plot([], [], marker, color=colour, label=f"ε = {epsilon:.2f}")
    left.plot([], [], "P", color="0.45", label="natural")
    left.set(ylabel="transfer rate", ylim=(0, 1.02))
    right.set(ylabel="R² of the features, held out", ylim=(0, 1.02))
    for axis in (left, right):
        axis.set(xlabel="squared parameter distance")
    figure.legend(loc="outside right upper", frameon=False)
    return _signed(figure, record)


def first_components(record: Record, architecture: str = "cnn") -> Figure:
    """Figure 2: first feature component in model 2 against model 1, one point an image, first seed."""
    arms = [arm for arm in ARMS if record.find({"architecture": architecture, "arm": arm}, record.seeds[0])]
    figure, (axes,) = _figure(1, len(arms), (3.2 * len(arms), 3.3))
    for axis, arm in zip(axes, arms, strict=True):
        values = record.find({"architecture": architecture, "arm": arm}, record.seeds[0])["values"]
        points = values["first_component"]["points"]
        axis.scatter(points["model_1"], points["model_2"], c=points["label"], cmap="tab10", s=9)
        r2 = values["first_component"]["r_squared"]
        shown = "no variance" if math.isnan(r2) else f"R² = {r2:.2f}"
        axis.set(title=f"{ARMS[arm][0]}: {shown}", xlabel="model 1")
        axis.title.set_fontsize(10)
    axes[0].set(ylabel="model 2")
    return _signed(figure, record)


def predictability(record: Record) -> Figure:
    """Held-out R² in both directions for every arm: one faint point a pair, the mean with its interval."""
    architectures = [
        a for a in ARCHITECTURES if any(t["setting"]["architecture"] == a for t in record.trials)
    ]
    figure, (axes,) = _figure(1, len(architectures), (4.7 * len(architectures), 3.4), sharey=True)
    for axis, architecture in zip(axes, architectures, strict=True):
        arms = [arm for arm in ARMS if any(record.rows("predictability", architecture=architecture, arm=arm))]
        for x, arm in enumerate(arms):
            _, colour, marker = ARMS[arm]
            for source, shift, face in ((1, -0.12, colour), (2, 0.12, "white")):
                where = {"architecture": architecture, "arm": arm, "source": source}
                points = [max(row["heldout"], LOWEST) for row in record.rows("predictability", **where)]
                axis.plot([x + shift] * len(points), points, marker, color=colour, mfc=face, alpha=0.45)
                mean = summaries.predictability(summaries.healthy(record), **where)
                style = {"color": colour, "marker": marker, "mfc": face, "markersize": 9, "capsize": 4}
                if mean.n:
                    axis.errorbar(x + shift, max(mean.mean, LOWEST), _bar(mean), **style)
        axis.set(title=ARCHITECTURES[architecture], xticks=range(len(arms)), ylim=(LOWEST - 0.05, 1.05))
        axis.set(xlim=(-0.5, len(arms) - 0.5))
        axis.set_xticklabels([ARMS[arm][0] for arm in arms])
    axes[0].plot([], [], "o", color="0.3", label="model 1 predicts 2")
    axes[0].plot([], [], "o", color="0.3", mfc="white", label="model 2 predicts 1")
    axes[0].set(ylabel="R², held out")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return _signed(figure, record)


def transfer(record: Record, *, conditioned: bool = True) -> Figure:
    """Figure 3: transfer rate against ε for every architecture, attack and arm, mean and interval over pairs.

    conditioned: only images that both models classify rightly before the attack; False: as printed.
    Intervals are shown from three pairs on.
    """
    names = [a for a in ATTACKS if a in record.config["attacks"]]
    architectures = [
        a for a in ARCHITECTURES if any(t["setting"]["architecture"] == a for t in record.trials)
    ]
    figure, grid = _figure(len(architectures), len(names), (2.5 * len(names), 2.6 * len(architectures)),
                           sharex=True, sharey=True)  # fmt: skip
    kept = summaries.healthy(record)
    epsilons = record.config["epsilons"]
    for row, architecture in zip(grid, architectures, strict=True):
        for axis, name in zip(row, names, strict=True):
            for shift, (arm, (_, colour, marker)) in enumerate(ARMS.items()):
                means = [
                    summaries.transfer(kept, conditioned=conditioned, architecture=architecture, arm=arm,
                                       attack=name, epsilon=epsilon)
                    for epsilon in epsilons
                ]  # fmt: skip
                x = np.array(epsilons) + 0.002 * (shift - 1)
                heights, errors = [m.mean for m in means], [_bar(m) for m in means]
                axis.errorbar(x, heights, errors, color=colour, marker=marker, capsize=3, lw=1.3)
            axis.set(title=ATTACKS[name] if architecture == architectures[0] else None, ylim=(0, 1.02))
        row[0].set(ylabel=f"{ARCHITECTURES[architecture]}\ntransfer rate")
    for axis in grid[-1]:
        axis.set(xlabel="ε", xticks=epsilons)
    for arm, (label, colour, marker) in ARMS.items():
        lost = {a: summaries.collapsed(record, arm=arm, architecture=a) for a in architectures}
        notes = [
            f"{broken} of {of} {ARCHITECTURES[a]} pairs collapsed"
            for a, (broken, of) in lost.items()
            if broken
        ]
        if any(of for _, of in lost.values()):
            text = f"{label} ({', '.join(notes)})" if notes else label
            grid[0, 0].plot([], [], marker=marker, color=colour, label=text)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _signed(figure, record)


# --- Live cells ----------------------------------------------------------------------------------


def images(rows: Mapping[str, Tensor], titles: Sequence[Any] | None = None) -> Figure:
    """A grid of images: one labelled row for each tensor (K, C, H, W) in [0, 1], a title over each column."""
    columns = max(len(row) for row in rows.values())
    figure, axes = _figure(len(rows), columns, (0.95 * columns + 1, 1.05 * len(rows) + 0.3))
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, row.cpu(), strict=False):
            axis.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles or (), strict=False):
        axis.set_title(str(title), fontsize=9)
    return figure


def lines(x: Sequence[float], series: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str,
          log: bool = False) -> Figure:  # fmt: skip
    """One line with its own colour and marker for each named series of numbers over x."""
    figure, ((axis,),) = _figure(1, 1, (5.6, 3.3))
    for i, ((label, y), (colour, marker)) in enumerate(zip(series.items(), SERIES, strict=False)):
        axis.plot(x, y, color=colour, marker=marker, markersize=8 - 1.5 * i, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        axis.set_xscale("log")
        axis.set_xticks(x, labels=[f"{value:g}" for value in x], fontsize=8)
        axis.minorticks_off()
    if len(series) > 1:
        axis.legend(frameon=False)
    return figure


def scatter(x: Tensor, y: Tensor, labels: Tensor, *, xlabel: str, ylabel: str) -> Figure:
    """Points (N,) against (N,), coloured by class, with a colour bar that names the digits."""
    figure, ((axis,),) = _figure(1, 1, (4.6, 3.6))
    drawn = axis.scatter(
        x.cpu().numpy(), y.cpu().numpy(), c=labels.cpu().numpy(), cmap="tab10", vmin=-0.5, vmax=9.5, s=9
    )
    figure.colorbar(drawn, ax=axis, ticks=range(10), label="digit")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


# --- Details -------------------------------------------------------------------------------------


def _figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, np.ndarray]:
    """A styled figure and its (rows, columns) axes; it shows when a cell returns it, and only then."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False, **options
        )
    plt.close(figure)
    return figure, axes


def _bar(mean: MeanInterval) -> float:
    """Half the interval's width, or nothing: a t interval of two pairs is wider than any axis."""
    return mean.half_width if mean.n > 2 else math.nan


def _signed(figure: Figure, record: Record) -> Figure:
    figure.supxlabel(record.caption(), x=0.995, ha="right", fontsize=7, color="0.4")
    return figure

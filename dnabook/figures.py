"""Records and tensors as figures: `figures.transfer(record) -> Figure`, without side effects.

The same thing has the same colour and marker in every chapter; the palette is Okabe and Ito's, which
colour-blind readers can tell apart. Scale, seeds, device and date stand in the corner of every figure that
draws a record. Pairs in which a model collapsed are left out of the means and counted in the legend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
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
    """Figure 2: first feature components of both models, each image drawn as its digit; first seed."""
    arms = [arm for arm in ARMS if record.find({"architecture": architecture, "arm": arm}, record.seeds[0])]
    figure, (axes,) = _figure(1, len(arms), (3.2 * len(arms), 3.3))
    for axis, arm in zip(axes, arms, strict=True):
        values = record.find({"architecture": architecture, "arm": arm}, record.seeds[0])["values"]
        points = values["first_component"]["points"]
        _digits(axis, points["model_1"], points["model_2"], points["label"])
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


STARTS = {  # of Figure 4: the initial pair and how it goes on
    ("regular", "paper"): "regular,\nthen DVERGE",
    ("decorrelated", "paper"): "decorrelated,\nthen DVERGE",
    ("decorrelated_late", "paper"): "decorrelated late,\nthen DVERGE",
    ("regular", "official"): "regular, then\nofficial DVERGE",
    ("regular", "plain"): "regular, then\nplain training",
}


def dverge(record: Record, *, conditioned: bool = False) -> Figure:
    """Figure 4: PGD-ℓ∞ transfer (above) and natural accuracy (below) after every epoch, for every start.

    conditioned: only images that both models classify rightly before the attack; False: as printed, which is
    what the paper plots. Mean and interval over pairs that had not collapsed before DVERGE.
    """
    kept = summaries.healthy(record)
    starts = [start for start in STARTS if list(start) in [list(arm) for arm in record.config["arms"]]]
    figure, (above, below) = _figure(2, len(starts), (2.15 * len(starts), 4.6), sharex=True, sharey="row")
    epochs = range(record.config["epochs"] + 1)
    for start, top, bottom in zip(starts, above, below, strict=True):
        where = dict(zip(("arm", "preset"), start, strict=True))
        for epsilon, (colour, marker) in zip(record.config["epsilons"], SERIES, strict=False):
            means = [
                summaries.transfer(kept, conditioned=conditioned, epoch=epoch, epsilon=epsilon, **where)
                for epoch in epochs
            ]
            label = f"ε = {epsilon:.2f}" if start == starts[0] else None
            style = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2, "lw": 1.2}
            top.errorbar(epochs, [m.mean for m in means], [_bar(m) for m in means], label=label, **style)
        means = [summaries.over(_natural(kept, epoch, where)) for epoch in epochs]
        style = {"color": "0.35", "marker": "P", "markersize": 4, "capsize": 2, "lw": 1.2}
        bottom.errorbar(epochs, [m.mean for m in means], [_bar(m) for m in means], **style)
        lost, of = summaries.collapsed(record, **where)
        note = f"\n{lost} of {of} collapsed" if lost else "\n"
        top.set_title(STARTS[start] + note, fontsize=9)
        top.set(ylim=(0, 1.02))
        bottom.set(xlabel="epoch", ylim=(0, 1.02))
    above[0].set(ylabel="transfer rate" + (", conditioned" if conditioned else ""))
    below[0].set(ylabel="natural accuracy")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _signed(figure, record)


def _natural(record: Record, epoch: int, where: dict[str, str]) -> dict[int, float]:
    rows = record.rows("epochs", epoch=epoch, **where)
    return {row["seed"]: summaries.mean(row["accuracy"]) for row in rows}


class Curve(NamedTuple):
    """One line of `reconstruction`: an arm, the rule that reads it, and the objective that attacks it."""

    label: str
    arm: str
    rule: str = "either"
    objective: str = "printed"


FIGURE_6 = (
    Curve("DNA, either path", "dna"),
    Curve("DNA, mean of paths", "dna", "mean_path"),
    Curve("autoencoder", "autoencoder"),
)


def reconstruction(record: Record, curves: Sequence[Curve] = FIGURE_6) -> Figure:
    """Figures 6, 8 and 10: share of images read rightly against ε, one panel an attack, clean at ε = 0.

    Mean over seeds and, from three on, its interval.
    """
    attacks = record.config["attacks"]
    photographs = "epsilons_255" in record.config
    steps = record.config["epsilons_255" if photographs else "epsilons"]
    figure, (axes,) = _figure(1, len(attacks), (4.4 * len(attacks), 3.7), sharey=True)
    for axis, attack in zip(axes, attacks, strict=True):
        others = iter(SERIES)  # the plain autoencoder looks the same in every figure
        for i, curve in enumerate(curves):
            colour, marker = ("0.35", "P") if curve.arm == "autoencoder" else next(others)
            where = curve._asdict()
            label = where.pop("label")
            points = [summaries.reconstruction(record, **where)]
            for step in steps:
                epsilon = step / 255 if photographs else step
                points.append(summaries.reconstruction(record, attack=attack, epsilon=epsilon, **where))
            shift = (i - len(curves) / 2) * 0.008 * steps[-1]
            x = np.array([0.0, *steps]) + shift
            heights, errors = [p.mean for p in points], [_bar(p) for p in points]
            name = label if axis is axes[0] else None
            axis.errorbar(x, heights, errors, color=colour, marker=marker, capsize=3, lw=1.3, label=name)
        axis.set(title=attack.upper(), xticks=[0, *steps], ylim=(0, 1.02))
        axis.set(xlabel="ε, in 255ths" if photographs else "ε")
    axes[0].set(ylabel="images read rightly")
    figure.legend(loc="outside upper center", ncols=2 if len(curves) > 3 else 3, frameon=False)
    return _signed(figure, record)


# --- Figure 5 ------------------------------------------------------------------------------------


def dual_neck() -> Figure:
    """Figure 5: one encoder and one decoder around two necks, and where the correlation loss looks."""
    figure, ((axis,),) = _figure(1, 1, (8.6, 3.0))
    axis.set(xlim=(0, 16.4), ylim=(0, 6), aspect="equal")
    axis.axis("off")
    shared, first, second = "#56B4E9", SERIES[0][0], SERIES[1][0]
    _trapezoid(axis, 1.7, 3.9, (2.2, 1.4), 3.0, shared, "encoder\n(shared)")
    _trapezoid(axis, 12.2, 14.4, (1.4, 2.2), 3.0, shared, "decoder\n(shared)")
    for y, colour, number in ((4.4, first, 1), (1.6, second, 2)):
        _trapezoid(axis, 5.3, 7.3, (1.0, 0.35), y, colour, "")
        _trapezoid(axis, 8.8, 10.8, (0.35, 1.0), y, colour, "")
        axis.text(8.05, y, f"$Z_{number}$", ha="center", va="center", fontsize=13, color=colour)
        axis.text(6.3, y + 1.15, f"neck {number}", ha="center", fontsize=9, color=colour)
        for start, end in (((3.95, 3.0), (5.25, y)), ((10.85, y), (12.15, 3.0))):
            _arrow(axis, start, end, colour)
        out = 3.0 + (0.8 if number == 1 else -0.8)
        _arrow(axis, (14.45, out), (15.2, out), colour)
        axis.text(15.3, out, f"$F(x)_{number}$", va="center", fontsize=11, color=colour)
    axis.annotate(
        "", (8.05, 2.15), (8.05, 3.85), arrowprops={"arrowstyle": "<->", "ls": "--", "color": "0.3"}
    )
    axis.text(8.25, 3.0, "correlation\nloss", va="center", fontsize=9, color="0.3")
    axis.text(0.7, 3.0, "$x$", ha="center", va="center", fontsize=13)
    _arrow(axis, (0.95, 3.0), (1.65, 3.0), "0.3")
    return figure


def _trapezoid(axis: Axes, left: float, right: float, halves: tuple[float, float], y: float, colour: str,
               text: str) -> None:  # fmt: skip
    corners = [(left, y - halves[0]), (left, y + halves[0]), (right, y + halves[1]), (right, y - halves[1])]
    axis.add_patch(Polygon(corners, facecolor=colour, alpha=0.35, edgecolor=colour))
    axis.text((left + right) / 2, y, text, ha="center", va="center", fontsize=9)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.2})


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
    """Points (N,) against (N,), each drawn as the digit of its class, in that digit's colour."""
    figure, ((axis,),) = _figure(1, 1, (4.6, 3.6))
    _digits(axis, x.cpu().numpy(), y.cpu().numpy(), labels.cpu().numpy())
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def growth(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, ylabel: str, corner: str = ""
) -> Figure:
    """One log-log panel for each x label, with a line of (x, y) points for each series in it."""
    figure, (axes,) = _figure(1, len(panels), (2.75 * len(panels), 3.0))
    for axis, (xlabel, series) in zip(axes, panels.items(), strict=True):
        for (name, points), (colour, marker) in zip(series.items(), SERIES, strict=False):
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, marker=marker, color=colour, label=name)
        axis.set(xlabel=xlabel, xscale="log", yscale="log")
        axis.legend(fontsize=8)
    axes[0].set_ylabel(ylabel)
    figure.supxlabel(corner, x=0.995, ha="right", fontsize=7, color="0.4")
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


def _digits(axis: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[int]) -> None:
    """Points told apart by their shape, the digit itself, as well as by colour."""
    x, y, labels = map(np.asarray, (x, y, labels))
    for digit in np.unique(labels):
        of = labels == digit
        axis.scatter(x[of], y[of], marker=f"${digit}$", color=f"C{digit}", s=18, lw=0.3)


def _bar(mean: MeanInterval) -> float:
    """Half the interval's width, or nothing: a t interval of two pairs is wider than any axis."""
    return mean.half_width if mean.n > 2 else math.nan


def _signed(figure: Figure, record: Record) -> Figure:
    figure.supxlabel(record.caption(), x=0.995, ha="right", fontsize=7, color="0.4")
    return figure

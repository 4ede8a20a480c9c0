"""Records and tensors as figures: `figures.transfer(record) -> Figure`, without side effects.

The same thing has the same colour and marker in every chapter; the palette is Okabe and Ito's, which
colour-blind readers can tell apart. Scale, seeds, device and date stand in the corner of every figure that
draws a record. Pairs in which a model collapsed are left out of means; `transfer` and `dverge` count them.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from dnabook import summaries
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.measures import MeanInterval
from dnabook.records import Record

ARMS = {  # label, colour, marker
    "regular": ("regular", "#0072B2", "o"),
    "decorrelated": ("decorrelated", "#D55E00", "s"),
    "decorrelated_late": ("decorrelated late", "#009E73", "^"),
}
SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))
AUTOENCODERS = {  # colour, marker; what stands twice is one network under two names
    "autoencoder": ("0.35", "P"),
    "dna": SERIES[0],
    "unshared_2": SERIES[0],
    "dna_regular": SERIES[1],
    "unshared_6": SERIES[2],
    "two_autoencoders": SERIES[3],
    "unshared_6_regular": SERIES[3],
    "dna_corrected": SERIES[4],
    "matched_6": SERIES[4],
    "unshared_4": ("#56B4E9", "X"),
}
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
        for epsilon, (colour, marker) in _each(epsilons):
            rows = [row for row in trial["values"]["transfer"] if row["epsilon"] == epsilon]
            mean = summaries.mean([summaries.rate(row) for row in rows])
            left.plot(distance, mean, marker, color=colour, alpha=0.8)
        for row in trial["values"]["features"]:
            colour, marker = (
                ("0.45", "P") if not row["epsilon"] else SERIES[epsilons.index(row["epsilon"]) % len(SERIES)]
            )
            r2 = (row["heldout_1_to_2"] + row["heldout_2_to_1"]) / 2
            right.plot(distance, r2, marker, color=colour, alpha=0.8)
    for epsilon, (colour, marker) in _each(epsilons):
        left.plot([], [], marker, color=colour, label=f"ε = {epsilon:.2f}")
    left.plot([], [], "P", color="0.45", label="natural")
    left.set(ylabel="transfer rate", ylim=(0, 1.02))
    right.set(ylabel="R² of the features, held out", ylim=(0, 1.02))
    for axis in (left, right):
        axis.set(xlabel="squared parameter distance")
    figure.legend(loc="outside right upper", frameon=False)
    return _signed(figure, record)


def first_components(record: Record) -> Figure:
    """Figure 2: first feature components of both CNNs, each image drawn as its digit; first seed."""
    arms = [arm for arm in ARMS if record.find({"architecture": "cnn", "arm": arm}, record.seeds[0])]
    figure, (axes,) = _figure(1, len(arms), (3.2 * len(arms), 3.3))
    for axis, arm in zip(axes, arms, strict=True):
        values = record.find({"architecture": "cnn", "arm": arm}, record.seeds[0])["values"]
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
                    centre, ends = max(mean.mean, LOWEST), (mean.mean - _bar(mean), mean.mean + _bar(mean))
                    below, above = (abs(max(end, LOWEST) - centre) for end in ends)
                    axis.errorbar(x + shift, centre, [[below], [above]], **style)
        axis.set(title=ARCHITECTURES[architecture], xticks=range(len(arms)), ylim=(LOWEST - 0.05, 1.05))
        axis.set(xlim=(-0.5, len(arms) - 0.5))
        axis.set_xticklabels([ARMS[arm][0] for arm in arms])
    axes[0].plot([], [], "o", color="0.3", label="model 1 predicts 2")
    axes[0].plot([], [], "o", color="0.3", mfc="white", label="model 2 predicts 1")
    axes[0].set(ylabel="R², held out")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return _signed(figure, record)


def transfer(record: Record, *, conditioned: bool = True, variants: Record | None = None) -> Figure:
    """Figure 3: transfer rate against ε for every architecture, attack and arm, mean and interval over pairs.

    conditioned: only images that both models classify correctly before the attack; False: as printed.
    variants: the record of that name, of which the corrected loss becomes another arm, where it was attacked.
    Intervals are shown from three pairs on.
    """
    names = [a for a in ATTACKS if a in record.config["attacks"]]
    architectures = [
        a for a in ARCHITECTURES if any(t["setting"]["architecture"] == a for t in record.trials)
    ]
    figure, grid = _figure(len(architectures), len(names), (2.5 * len(names), 2.6 * len(architectures)),
                           sharex=True, sharey=True)  # fmt: skip
    curves = [(record, {"arm": arm}, *look) for arm, look in ARMS.items()]
    if variants:
        curves.append((variants, {"variant": "corrected"}, "corrected loss", *SERIES[3]))
    for shift, (source, which, label, colour, marker) in enumerate(curves):
        kept, epsilons = summaries.healthy(source), source.config["epsilons"]
        attacked = {row["attack"] for row in source.rows("transfer")}
        for row, architecture in zip(grid, architectures, strict=True):
            for axis, name in zip(row, names, strict=True):
                if name not in attacked:
                    continue
                where = {"architecture": architecture, "attack": name, **which}
                means = [
                    summaries.transfer(kept, conditioned=conditioned, epsilon=epsilon, **where)
                    for epsilon in epsilons
                ]
                if any(mean.n for mean in means):
                    x = np.array(epsilons) + 0.002 * (shift - 1)
                    heights, errors = [m.mean for m in means], [_bar(m) for m in means]
                    axis.errorbar(x, heights, errors, color=colour, marker=marker, capsize=3, lw=1.3)
        lost = {a: summaries.collapsed(source, architecture=a, **which) for a in architectures}
        notes = [
            f"{broken} of {of} {ARCHITECTURES[a]} pairs collapsed"
            for a, (broken, of) in lost.items()
            if broken
        ]
        if any(of for _, of in lost.values()):
            text = f"{label} ({', '.join(notes)})" if notes else label
            grid[0, 0].plot([], [], marker=marker, color=colour, label=text)
    for row, architecture in zip(grid, architectures, strict=True):
        row[0].set(ylabel=f"{ARCHITECTURES[architecture]}\ntransfer rate", ylim=(0, 1.02))
    for axis, name in zip(grid[0], names, strict=True):
        axis.set(title=ATTACKS[name])
    for axis in grid[-1]:
        axis.set(xlabel="ε", xticks=record.config["epsilons"])
    figure.legend(loc="outside upper center", ncols=2 if variants else 3, frameon=False)
    _in_the_corner(figure, "; corrected loss: ".join(each.caption() for each in (record, variants) if each))
    return figure


class Related(NamedTuple):
    """One pair of networks: held-out R² of its features and transfer rate, means of both directions."""

    architecture: str
    arm: str  # a key of `ARMS`, or "distance" for the pairs of `parameter_distance`
    seed: int
    r_squared: float
    rate: float


def related(
    features: Record, transfer: Record, distance: Record | None = None, *, attack: str, epsilon: float
) -> list[Related]:
    """Every pair of which both models learned: R² on natural images beside conditioned transfer at ε.

    features, transfer: of the same pairs, joined by architecture, arm and seed.  distance: pairs pushed
    apart, and the free ones among them, which were attacked by FGSM-ℓ∞ alone. Pairs without a value are left
    out.
    """
    learned, attacked = map(summaries.healthy, (features, transfer))
    found = []
    for architecture in ARCHITECTURES:
        for arm in ARMS:
            where = {"architecture": architecture, "arm": arm}
            r2 = summaries.heldout_by_seed(learned, **where)
            rates = summaries.transfer_by_seed(attacked, attack=attack, epsilon=epsilon, **where)
            found += [Related(architecture, arm, s, r2[s], rates[s]) for s in sorted(r2) if s in rates]
    for trial in summaries.healthy(distance).trials if distance else ():
        values = trial["values"]
        rates = [summaries.rate(row) for row in values["transfer"] if row["epsilon"] == epsilon]
        (natural,) = (row for row in values["features"] if not row["epsilon"])
        r2 = summaries.mean([natural["heldout_1_to_2"], natural["heldout_2_to_1"]])
        found.append(Related("cnn", "distance", trial["seed"], r2, summaries.mean(rates)))
    return [pair for pair in found if not math.isnan(pair.r_squared + pair.rate)]


def relation(features: Record, transfer: Record, distance: Record, *, epsilon: float = 0.10) -> Figure:
    """Transfer against held-out R², one point a pair: FGSM-ℓ∞ with the pairs of chapter 2, and PGD-ℓ∞.

    The axis of R² is logarithmic in 1 − R², or CNN pairs would lie on each other; R² below `LOWEST` is drawn
    there. Filled: CNN; open: fully connected. A faint line joins an arm's pair to the regular one of its
    seed. Collapsed pairs are left out.
    """
    figure, (axes,) = _figure(1, 2, (9.5, 4.2), sharex=True, sharey=True)
    highest = 0.999
    looks = {**ARMS, "distance": ("pushed apart or free (chapter 2)", "0.45", "D")}
    drawn = []
    for axis, attack, more in zip(axes, ("fgsm-linf", "pgd-linf"), (distance, None), strict=True):
        points = [
            pair._replace(r_squared=min(max(pair.r_squared, LOWEST), highest))
            for pair in related(features, transfer, more, attack=attack, epsilon=epsilon)
        ]
        drawn += points
        regular = {(p.architecture, p.seed): p for p in points if p.arm == "regular"}
        for pair in points:
            _, colour, marker = looks[pair.arm]
            other = regular.get((pair.architecture, pair.seed))
            if other and pair.arm not in ("regular", "distance"):
                line = [other.r_squared, pair.r_squared], [other.rate, pair.rate]
                axis.plot(*line, color=colour, alpha=0.3, lw=1)
            face = colour if pair.architecture == "cnn" else "white"
            size = 4 if pair.arm == "distance" else 6.5
            style = {"color": colour, "mfc": face, "markersize": size, "alpha": 0.85, "ls": ""}
            axis.plot(pair.r_squared, pair.rate, marker=marker, **style)
        axis.set(title=f"{ATTACKS[attack]}, ε = {epsilon:.2f}", xlabel="R² of the features, held out")
    ticks = (LOWEST, 0.5, 0.8, 0.9, 0.95, 0.98)
    stretched = (lambda r2: -np.log(1 - np.minimum(r2, highest)), lambda stretch: 1 - np.exp(-stretch))
    axes[0].set_xscale("function", functions=stretched)
    right = 1 - 0.8 * (1 - max([p.r_squared for p in drawn], default=0.9))
    axes[0].set(ylabel="transfer rate", ylim=(0, 1.02), xlim=(LOWEST - 0.15, right))
    axes[0].set_xticks(ticks, [f"≤ −{-t:g}" if t == LOWEST else f"{t:g}" for t in ticks])
    for arm, (label, colour, marker) in looks.items():
        if any(pair.arm == arm for pair in drawn):
            axes[0].plot([], [], marker, color=colour, label=label)
    axes[0].plot([], [], "o", color="0.3", label="filled: CNN")
    axes[0].plot([], [], "o", color="0.3", mfc="white", label="open: fully connected")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    corner = f"chapter 2: {distance.caption()}    chapter 4: {transfer.caption()}"
    _in_the_corner(figure, corner)
    return figure


STARTS = {  # of Figure 4: the initial pair and how it goes on
    ("regular", "paper"): "regular,\nthen DVERGE",
    ("decorrelated", "paper"): "decorrelated,\nthen DVERGE",
    ("decorrelated_late", "paper"): "decorrelated late,\nthen DVERGE",
    ("regular", "official"): "regular, then\nofficial DVERGE",
    ("regular", "plain"): "regular, then\nplain training",
}


def dverge(record: Record) -> Figure:
    """Figure 4: PGD-ℓ∞ transfer (above) and natural accuracy (below) after every epoch, for every start.

    Transfer is as printed, which is what the paper plots. Mean and interval over pairs that had not collapsed
    before DVERGE.
    """
    kept = summaries.healthy(record)
    starts = [start for start in STARTS if list(start) in [list(arm) for arm in record.config["arms"]]]
    figure, (above, below) = _figure(2, len(starts), (2.15 * len(starts), 4.6), sharex=True, sharey="row")
    epochs = range(record.config["epochs"] + 1)
    for start, top, bottom in zip(starts, above, below, strict=True):
        where = dict(zip(("arm", "preset"), start, strict=True))
        for epsilon, (colour, marker) in _each(record.config["epsilons"]):
            means = [
                summaries.transfer(kept, conditioned=False, epoch=epoch, epsilon=epsilon, **where)
                for epoch in epochs
            ]
            label = f"ε = {epsilon:.2f}" if start == starts[0] else None
            style = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2, "lw": 1.2}
            top.errorbar(epochs, [m.mean for m in means], [_bar(m) for m in means], label=label, **style)
        means = [summaries.over(summaries.natural_by_seed(kept, epoch=epoch, **where)) for epoch in epochs]
        style = {"color": "0.35", "marker": "P", "markersize": 4, "capsize": 2, "lw": 1.2}
        bottom.errorbar(epochs, [m.mean for m in means], [_bar(m) for m in means], **style)
        lost, of = summaries.collapsed(record, **where)
        note = f"\n{lost} of {of} collapsed" if lost else "\n"
        top.set_title(STARTS[start] + note, fontsize=9)
        top.set(ylim=(0, 1.02))
        bottom.set(xlabel="epoch", ylim=(0, 1.02))
    above[0].set(ylabel="transfer rate")
    below[0].set(ylabel="natural accuracy")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _signed(figure, record)


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
    """Figures 6, 8 and 10: share of images read correctly against ε, one panel an attack, clean at ε = 0.

    Mean over seeds and, from three on, its interval. An arm looks the same in every figure (`AUTOENCODERS`);
    its further curves, by another rule or under another objective, keep its colour and are broken and open.
    """
    attacks = record.config["attacks"]
    photographs = "epsilons_255" in record.config
    steps = record.config["epsilons_255" if photographs else "epsilons"]
    figure, (axes,) = _figure(1, len(attacks), (4.4 * len(attacks), 3.7), sharey=True)
    looks = _looks([curve.arm for curve in curves])
    for axis, attack in zip(axes, attacks, strict=True):
        for i, (curve, look) in enumerate(zip(curves, looks, strict=True)):
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
            axis.errorbar(x, heights, errors, **look, capsize=3, lw=1.3, label=name)
        axis.set(title=attack.upper(), xticks=[0, *steps], ylim=(0, 1.02))
        axis.set(xlabel="ε, in 255ths" if photographs else "ε")
    axes[0].set(ylabel="images read correctly")
    figure.legend(loc="outside upper center", ncols=2 if len(curves) > 3 else 3, frameon=False)
    return _signed(figure, record)


def _each(things: Iterable[Any]) -> Iterator[tuple[Any, tuple[str, str]]]:
    """Every thing with a colour and marker of `SERIES`; from the sixth on they begin again."""
    yield from zip(things, itertools.cycle(SERIES), strict=False)


FURTHER = (("--", None), (":", "<"), ("-.", ">"))  # line and marker of an arm's next curves; None: its own


def _looks(arms: Sequence[str]) -> list[dict[str, Any]]:
    """How each curve is drawn: with its arm's own look the first time, then broken and open in its colour.

    An arm that `AUTOENCODERS` lacks takes a look of `SERIES` that no arm here owns. From the fifth curve in
    one colour on looks begin again.
    """
    known = {AUTOENCODERS[arm] for arm in arms if arm in AUTOENCODERS}
    free = itertools.cycle([look for look in SERIES if look not in known] or SERIES)
    own = {arm: AUTOENCODERS[arm] if arm in AUTOENCODERS else next(free) for arm in dict.fromkeys(arms)}
    further = {look: itertools.cycle((None, *FURTHER)) for look in own.values()}
    looks = []
    for arm in arms:
        (colour, marker), broken = own[arm], next(further[own[arm]])
        look = {"color": colour, "marker": marker}
        if broken:
            look |= {"ls": broken[0], "marker": broken[1] or marker, "mfc": "white"}
        looks.append(look)
    return looks


HEADS = {"own": "its own head", "hidden": "a hidden layer"}  # of `learned_features`


def learned_features(record: Record) -> Figure:
    """Over the age of the attacked network's features: what a regular network shares with it, and transfer.

    From the left: held-out R², and how much of the movement under FGSM a map between natural features
    explains, beside a map fitted on movements (of the first head alone); the cosine of the input gradients;
    the share of digits that PGD turns wrong beyond random signs. Movement and transfer are those of the
    largest ε.
    """
    kept, ages, epsilon = summaries.healthy(record), record.config["epochs"], record.config["epsilons"][-1]
    figure, (axes,) = _figure(1, 3, (9.5, 3.4), sharex=True)
    first = record.config["heads"][0]

    def curve(axis: Axes, look: tuple[str, str], label: str | None, values: list[summaries.BySeed]) -> None:
        means = [summaries.over(value) for value in values]
        heights, errors = [mean.mean for mean in means], [_bar(mean) for mean in means]
        (colour, marker), x = look, range(len(ages))
        axis.errorbar(x, heights, errors, color=colour, marker=marker, capsize=3, lw=1.3, label=label)

    heldout = [summaries.reading_by_seed(kept, "relation", "heldout", epochs=age) for age in ages]
    curve(axes[0], SERIES[2], "R² of natural features", heldout)
    of_its_own = {"head": first, "map": OWN_MAP, "epsilon": epsilon}
    own = [summaries.reading_by_seed(kept, "movement", "explains", epochs=age, **of_its_own) for age in ages]
    curve(axes[0], SERIES[3], "movement, by a map of its own", own)
    for head, look in zip(record.config["heads"], SERIES, strict=False):
        settings = [{"epochs": age, "head": head} for age in ages]
        moved = [{**setting, "map": NATURAL_MAP, "epsilon": epsilon} for setting in settings]
        for axis, values in (
            (axes[0], [summaries.reading_by_seed(kept, "movement", "explains", **m) for m in moved]),
            (axes[1], [summaries.reading_by_seed(kept, "sources", "gradient_cosine", **s) for s in settings]),
            (axes[2], [summaries.beyond_signs_by_seed(kept, epsilon, **s) for s in settings]),
        ):
            curve(axis, look, HEADS[head] if axis is axes[0] else None, values)
    axes[0].set(title="R² and movement explained", ylabel="share")
    axes[1].set(title="cosine of the gradients", ylim=(-0.05, 1.02))
    axes[2].set(title=f"transfer beyond signs, ε = {epsilon:.2f}")
    for axis in axes:
        axis.axhline(0, color="0.6", lw=0.8)
        axis.set(xlabel="epochs of the features", xticks=range(len(ages)))
        axis.set_xticklabels([f"{age:g}" for age in ages])
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return _signed(figure, record)


HELD = {  # of `features_or_gradients`: label of an arm, colour, marker
    "regular": ARMS["regular"],
    "features": ("features decorrelated", *SERIES[1]),
    "gradients": ("gradients at right angles", *SERIES[3]),
    "gradients_held": ("features decorrelated, gradients held", *SERIES[2]),
}


def features_or_gradients(record: Record) -> Figure:
    """Transfer within pairs beyond random signs against what it may need, arm by arm.

    From the left: held-out R², how much of the movement under FGSM a map fitted on movements explains, the
    cosine of the input gradients. Faint points are pairs, the mean of both directions; bold ones means over
    seeds with both intervals. Movement and transfer are those of the largest ε.
    """
    kept, epsilon = summaries.healthy(record), record.config["epsilons"][-1]
    figure, (axes,) = _figure(1, 3, (9.5, 3.7), sharey=True)
    for arm in record.config["arms"]:
        label, colour, marker = HELD[arm]
        within = {"source_arm": arm, "target_arm": arm}
        beyond = summaries.beyond_signs_by_seed(kept, epsilon, **within)
        for axis, values in zip(axes, summaries.relations_by_seed(kept, epsilon, **within), strict=True):
            for seed in beyond:
                axis.plot(values[seed], beyond[seed], marker, color=colour, alpha=0.25, markersize=4)
            across, up = summaries.over(values), summaries.over(beyond)
            axis.errorbar(
                across.mean, up.mean, _bar(up), _bar(across), color=colour, marker=marker, capsize=3, ls="",
                label=label if axis is axes[0] else None,
            )  # fmt: skip
    axes[0].set(xlabel="R² of natural features", ylabel=f"transfer beyond signs, ε = {epsilon:.2f}")
    axes[1].set(xlabel="movement explained")
    axes[2].set(xlabel="cosine of the gradients")
    for axis in axes:
        axis.axhline(0, color="0.6", lw=0.8)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _signed(figure, record)


KINDS = {  # of `architectures`: label, colour, marker
    "cnn": ("CNN", *SERIES[0]),
    "fully_connected": ("fully connected", *SERIES[1]),
    "vit": ("transformer", *SERIES[2]),
}
FORETOLD_BY = {  # panels: a reading, its name, ticks of an axis that is logarithmic in what is unexplained
    "heldout": ("R² from the attacked network to the reader", (0.5, 0.8, 0.9, 0.95, 0.98)),
    summaries.BACK: ("R² from the reader to the attacked network", (0.5, 0.8, 0.9, 0.95, 0.98)),
    NATURAL_MAP: ("movement that a linear map of natural features explains", (-8, -4, -1, 0, 0.5, 0.8, 0.9)),
    "gradient_cosine": ("cosine of the input gradients", None),
}


def architectures(record: Record) -> Figure:
    """What transfers between kinds of network, beyond random signs, against what may foretell it.

    Panels: held-out R² of the features, in either direction; how much of the movement under FGSM a map
    between natural features explains; the cosine of the input gradients. The marker says who is attacked and
    the colour who reads; it is filled within a kind. Faint points are seeds, bold ones their means.
    Everything is at the largest ε.
    """
    kept, epsilon = summaries.healthy(record), record.config["epsilons"][-1]
    figure, axes = _figure(2, 2, (9.5, 7.2), sharey=True)
    kinds = record.config["kinds"]
    for axis, (reading, (label, ticks)) in zip(axes.flat, FORETOLD_BY.items(), strict=True):
        drawn = []
        for source, target in ((s, t) for s in kinds for t in kinds):
            where = {"source_arm": source, "target_arm": target}
            told = summaries.foretold_by_seed(kept, reading, epsilon, **where)
            beyond = summaries.beyond_signs_by_seed(kept, epsilon, **where)
            drawn += told.values()
            colour, marker = KINDS[target][1], KINDS[source][2]
            look = {"color": colour, "mfc": colour if source == target else "white", "ls": ""}
            for seed in beyond:
                axis.plot(told[seed], beyond[seed], marker, **look, alpha=0.35, markersize=4)
            means = summaries.over(told).mean, summaries.over(beyond).mean
            axis.plot(*means, marker, **look, markersize=9)
        axis.axhline(0, color="0.6", lw=0.8)
        axis.set_xlabel(label)
        if ticks and drawn:
            _logarithmic_in_the_rest(axis, "x", ticks, drawn)
    for row in axes:
        row[0].set_ylabel(f"transfer beyond signs, ε = {epsilon:.2f}")
    for kind in kinds:
        label, colour, marker = KINDS[kind]
        axes[0, 0].plot([], [], marker, color="0.3", mfc="white", label=f"{label} attacked")
        axes[0, 0].plot([], [], "_", ms=12, mew=5, color=colour, label=f"{label} reads")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _signed(figure, record)


def capacity(record: Record) -> Figure:
    """Over the width of a pair's networks: what holds between the two, and what transfers.

    Above: held-out R² of a linear map, on an axis that is logarithmic in what is unexplained; how much of the
    movement under FGSM a map between natural features explains. Below: the cosine of the input gradients; the
    share of digits that PGD turns wrong beyond random signs. Faint lines are seeds, bold ones means with
    their intervals; all at the largest ε.
    """
    kept, widths, epsilon = summaries.healthy(record), record.config["widths"], record.config["epsilons"][-1]
    figure, axes = _figure(2, 2, (8.6, 5.6), sharex=True)
    axes = list(axes.flat)
    drawn: list[float] = []  # of R²: its seeds, and the ends of its intervals
    for architecture in record.config["architectures"]:
        label, colour, marker = KINDS[architecture]
        for axis, of in (
            (axes[0], partial(summaries.foretold_by_seed, kept, "heldout", epsilon)),
            (axes[1], partial(summaries.foretold_by_seed, kept, NATURAL_MAP, epsilon)),
            (axes[2], partial(summaries.foretold_by_seed, kept, "gradient_cosine", epsilon)),
            (axes[3], partial(summaries.beyond_signs_by_seed, kept, epsilon)),
        ):
            found = [of(architecture=architecture, width=width) for width in widths]
            for seed in record.seeds:
                there = [
                    (width, each[seed]) for width, each in zip(widths, found, strict=True) if seed in each
                ]
                axis.plot(*zip(*there, strict=True), color=colour, lw=0.8, alpha=0.35)
            means = [summaries.over(each) for each in found]
            heights, errors = [mean.mean for mean in means], [_bar(mean) for mean in means]
            axis.errorbar(widths, heights, errors, color=colour, marker=marker, capsize=3, label=label)
            if axis is axes[0]:
                drawn += [value for each in found for value in each.values()]
                bars = [(y, bar) for y, bar in zip(heights, errors, strict=True) if not math.isnan(bar)]
                ends = [(y - bar, min(y + bar, 0.998)) for y, bar in bars]  # the axis ends below 1
                drawn += itertools.chain(*ends)
    axes[0].set(title="R² of a linear map", xscale="log")
    if drawn:
        _logarithmic_in_the_rest(axes[0], "y", FORETOLD_BY["heldout"][1], drawn)
    axes[1].set(title=f"movement explained, ε = {epsilon:.2f}")
    axes[2].set(title="cosine of the gradients")
    axes[3].set(title=f"transfer beyond signs, ε = {epsilon:.2f}")
    for axis in axes:
        axis.set_xticks(widths, [f"{width:g}" for width in widths], minor=False)
        axis.set_xticks([], minor=True)
    for axis in axes[2:]:
        axis.set(xlabel="width (1 is the paper's)")
    for axis in axes[1:]:
        axis.axhline(0, color="0.6", lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
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


# --- Live cells and benchmarks -------------------------------------------------------------------------


def images(rows: Mapping[str, Tensor], titles: Sequence[Any] | None = None, *, cell: float = 0.95) -> Figure:
    """A grid of images: one labelled row for each tensor (K, C, H, W) in [0, 1], a title over each column.

    cell: width of an image in inches.
    """
    columns = max(len(row) for row in rows.values())
    figure, axes = _figure(len(rows), columns, (cell * columns + 1, (cell + 0.1) * len(rows) + 0.3))
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
    for i, ((label, y), (colour, marker)) in enumerate(_each(series.items())):
        axis.plot(x, y, color=colour, marker=marker, markersize=max(8 - 1.5 * i, 3), label=label)
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
        for (name, points), (colour, marker) in _each(series.items()):
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, marker=marker, color=colour, label=name)
        axis.set(xlabel=xlabel, xscale="log", yscale="log")
        axis.set_xticks(x[::-2], [f"{number:,}" for number in x[::-2]])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        for side in (axis.xaxis, axis.yaxis):
            side.set_minor_locator(NullLocator())
        axis.legend(fontsize=8)
    axes[0].set_ylabel(ylabel)
    _in_the_corner(figure, corner)
    return figure


# --- Frames of the interactive pieces ------------------------------------------------------------
# Narrow, so that their letters can still be read at the width of a phone.

PHONE = 4.6  # inches
MODELS = (("model 1", *SERIES[0], ""), ("model 2", *SERIES[1], "////"))
OUTCOMES = {  # of one attacked digit: colour, line width, line style
    "fools neither": ("0.55", 1.0, "-"),
    "fools model 1 only": ("#0072B2", 2.2, "--"),
    "fools both": ("#D55E00", 3.0, "-"),
    "fools model 2 only": ("#CC79A7", 2.2, "-."),
    "misread before": ("0.55", 1.0, ":"),
}


def probabilities(image: Tensor, shares: Tensor, title: str = "") -> Figure:
    """A digit (1, 28, 28) beside both models' probabilities (2, 10) of the ten classes."""
    figure, ((left, right),) = _figure(1, 2, (PHONE, 2.4), width_ratios=(1, 1.7))
    _show(left, image)
    left.set_title(title, fontsize=10)
    for shift, (label, colour, _, hatch), share in zip((-0.21, 0.21), MODELS, shares.cpu(), strict=True):
        style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.3}
        right.bar(np.arange(10) + shift, share.numpy(), 0.4, label=label, **style)
    right.set(xticks=range(10), xlabel="class", ylabel="probability", ylim=(0, 1))
    right.grid(axis="x", visible=False)
    right.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, handlelength=1.4)
    return figure


def attack_course(
    images: Tensor, titles: Sequence[str], epsilons: Sequence[float], shares: Mapping[str, Tensor]
) -> Figure:
    """One digit under growing ε: some of its images (K, 1, 28, 28) above, and below the probability that
    models 1 and 2 give its true class, one panel an attack: shares[attack] is (2, len(epsilons))."""
    figure, grid = _figure(2, len(images), (PHONE, 3.9), height_ratios=(1, 2.2))
    for axis, image, title in zip(grid[0], images, titles, strict=True):
        _show(axis, image)
        axis.set_title(title, fontsize=8.5)
    for axis in grid[1]:
        axis.remove()
    with plt.rc_context(STYLE):
        below = figure.add_subplot(grid[1, 0].get_gridspec()[1, :])
    for (name, share), style in zip(shares.items(), ("-", "--", ":"), strict=False):
        for (label, colour, marker, _), values in zip(MODELS, share.cpu(), strict=True):
            line = {"color": colour, "marker": marker, "ls": style, "markersize": 4, "lw": 1.4}
            below.plot(epsilons, values.numpy(), label=f"{label}, {name}", **line)
    below.set(xlabel="ε", xticks=epsilons[::2], ylabel="true class's probability", ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def fooled(images: Tensor, titles: Sequence[str], outcomes: Sequence[str]) -> Figure:
    """Attacked digits (K, 1, 28, 28) in a mosaic, each framed by what became of it, a key of `OUTCOMES`."""
    columns = 5
    rows = math.ceil(len(images) / columns)
    figure, ((axis,),) = _figure(1, 1, (PHONE, 0.98 * rows + 0.75))
    high, wide = 38, 34  # of a cell, in pixels of the digits
    mosaic = np.ones((rows * high, columns * wide))
    for i, (image, title, outcome) in enumerate(zip(images.cpu(), titles, outcomes, strict=True)):
        top, left = i // columns * high + 8, i % columns * wide + 3
        mosaic[top : top + 28, left : left + 28] = image.squeeze(0).numpy()
        colour, width, style = OUTCOMES[outcome]
        edge = {"edgecolor": colour, "lw": width, "ls": style, "fill": False}
        axis.add_patch(Rectangle((left - 1.2, top - 1.2), 29.4, 29.4, **edge))
        axis.text(left + 13.5, top - 2, title, ha="center", va="bottom", fontsize=9)
    axis.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")
    for name, (colour, width, style) in OUTCOMES.items():
        axis.plot([], [], color=colour, lw=width, ls=style, label=name)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, handlelength=2.6)
    return figure


def explored(rates: Mapping[str, Mapping[str, Sequence[float]]], epsilons: Sequence[float]) -> Figure:
    """Transfer rate against ε, one panel an attack, one line a pair: rates[attack][pair][i]."""
    rows = math.ceil(len(rates) / 2)
    figure, grid = _figure(rows, 2, (PHONE, 1.9 * rows + 0.4), sharex=True, sharey=True)
    for axis in grid.flat[len(rates) :]:
        axis.remove()
    for axis, (attack, pairs) in zip(grid.flat, rates.items(), strict=False):
        for (pair, values), (colour, marker) in _each(pairs.items()):
            label = pair if axis is grid.flat[0] else None
            axis.plot(epsilons, values, color=colour, marker=marker, label=label)
        axis.set_title(ATTACKS.get(attack, attack), fontsize=10)
        axis.set(ylim=(-0.02, 1.02))
    for axis in grid[:, 0]:
        axis.set(ylabel="transfer rate")
    for axis in grid[-1]:
        axis.set(xlabel="ε")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def components(record: Record, weight: float, seed: int) -> Figure:
    """Figure 2 for one pair of `correlation_weights`: first feature components, each image as its digit."""
    values = record.find({"correlation_weight": weight}, seed)["values"]
    first = values["first_component"]
    figure, ((axis,),) = _figure(1, 1, (PHONE, 3.7))
    points = first["points"]
    _digits(axis, points["model_1"], points["model_2"], points["label"])
    r2 = first["r_squared"]
    axis.set(title=f"λ = {weight:g}: {'no variance' if math.isnan(r2) else f'R² = {r2:.2f}'}")
    axis.set(xlabel="first component, model 1", ylabel="first component, model 2")
    return _signed(figure, record)


def correlation_weights(record: Record) -> Figure:
    """R², transfer and accuracy against λ: faint points are pairs, lines their means.

    A pair with a collapsed model is drawn as a cross in the panel of accuracy and left out elsewhere.
    """
    weights = record.config["weights"]
    figure, ((top,), (middle,), (bottom,)) = _figure(3, 1, (PHONE, 6.0), sharex=True)
    kept = summaries.healthy(record)

    def heldout(source: int) -> list[list[float]]:
        return [
            [row["heldout"] for row in kept.rows("predictability", source=source, correlation_weight=weight)]
            for weight in weights
        ]

    first = [kept.values("first_component", "r_squared", correlation_weight=w) for w in weights]
    transfers = [summaries.transfer_by_seed(kept, correlation_weight=w).values() for w in weights]
    accuracies = [summaries.accuracy_by_seed(kept, correlation_weight=w).values() for w in weights]
    readings = (
        (top, "first components", first), (top, "all features, 1 → 2", heldout(1)),
        (top, "all features, 2 → 1", heldout(2)), (middle, None, transfers), (bottom, None, accuracies),
    )  # fmt: skip
    for (axis, label, found), (colour, marker) in zip(readings, SERIES, strict=True):
        found = [list(values) for values in found]
        style = {"color": colour, "marker": marker}
        axis.plot(range(len(weights)), [summaries.mean(values) for values in found], label=label, **style)
        for x, values in enumerate(found):
            axis.plot([x] * len(values), values, ls="", alpha=0.35, **style)
    for trial in record.trials:
        if trial not in kept.trials:
            x = weights.index(trial["setting"]["correlation_weight"])
            bottom.plot(x, summaries.mean(trial["values"]["accuracy"]), "x", color="0.2", markersize=7)
    for axis in (top, middle, bottom):
        axis.set(ylim=(0, 1.04))
    top.set(ylabel="R²")
    middle.set(ylabel="transfer rate")
    bottom.set(ylabel="accuracy", xlabel="λ", xticks=range(len(weights)))
    bottom.set_xticklabels([f"{weight:g}" for weight in weights])
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return _signed(figure, record)


def trade_off(record: Record, course: Course, epoch: int, epsilon: float) -> Figure:
    """Transfer as printed against natural accuracy, from epoch 0 (hollow) to `epoch` (filled), line by start.

    course: `trade_offs(record, epsilon)`. Means over pairs that had not collapsed before DVERGE; a start of
    which none is left is not drawn.
    """
    figure, ((axis,),) = _figure(1, 1, (PHONE, 4.3))
    for (start, label), (colour, marker) in zip(STARTS.items(), SERIES, strict=True):
        if start not in course:
            continue
        accuracy, rate = zip(*course[start][: epoch + 1], strict=True)
        style = {"color": colour, "marker": marker}
        axis.plot(accuracy, rate, lw=1, alpha=0.5, markersize=3, color=colour, marker=marker)
        axis.plot(accuracy[0], rate[0], mfc="white", ls="", markersize=7, **style)
        axis.plot(accuracy[-1], rate[-1], ls="", markersize=9, label=label.replace("\n", " "), **style)
    found = [accuracy for points in course.values() for accuracy, _ in points] or [0, 1]
    axis.set(xlim=(min(found) - 0.03, max(found) + 0.03), ylim=(-0.02, 1.02), title=f"epoch {epoch}")
    axis.set(xlabel="natural accuracy", ylabel=f"transfer rate at ε = {epsilon:.2f}")
    if course:
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8.5)
    return _signed(figure, record)


Course = dict[tuple[str, str], list[tuple[float, float]]]


def trade_offs(record: Record, epsilon: float) -> Course:
    """(natural accuracy, transfer as printed) after every epoch, for each start that has pairs left."""
    kept = summaries.healthy(record)
    course = {}
    for arm, preset in STARTS:
        where = {"arm": arm, "preset": preset}
        if not any(t["setting"] == where for t in kept.trials):
            continue
        course[arm, preset] = [
            (
                summaries.over(summaries.natural_by_seed(kept, epoch=epoch, **where)).mean,
                summaries.transfer(kept, conditioned=False, epoch=epoch, epsilon=epsilon, **where).mean,
            )
            for epoch in range(record.config["epochs"] + 1)
        ]
    return course


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


def _show(axis: Axes, image: Tensor) -> None:
    """One grey image (1, H, W) in [0, 1], without a frame."""
    axis.imshow(image.squeeze(0).cpu().numpy(), cmap="gray", vmin=0, vmax=1)
    axis.axis("off")


def _logarithmic_in_the_rest(axis: Axes, which: str, ticks: Iterable[float], drawn: Sequence[float]) -> None:
    """Its x or y axis, on which shares are drawn, becomes logarithmic in what they leave unexplained."""
    stretched = (lambda r2: -np.log(1 - np.minimum(r2, 0.999)), lambda much: 1 - np.exp(-much))
    low, high = 1 - 1.4 * (1 - min(drawn)), 1 - 0.7 * (1 - max(drawn))
    getattr(axis, f"set_{which}scale")("function", functions=stretched)
    axis.set(**{f"{which}lim": (low, high), f"{which}ticks": [tick for tick in ticks if low < tick < high]})


def _signed(figure: Figure, record: Record) -> Figure:
    _in_the_corner(figure, record.caption())
    return figure


def _in_the_corner(figure: Figure, text: str) -> None:
    """The text in small letters below, right, in as many lines as the figure's width asks for."""
    lines = textwrap.wrap(text, int(figure.get_figwidth() / 0.056)) or [""]  # inches a letter
    figure.supxlabel("\n".join(lines), x=0.995, ha="right", ma="right", fontsize=7, color="0.4")

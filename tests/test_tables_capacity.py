"""The tables and the figure of chapter 9 on widths, from records whose readings are straight lines."""

from __future__ import annotations

import itertools
import math

import pytest
from markdown_tables import PROVENANCE, body, cells, rows

from dnabook import figures
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.records import Record
from dnabook.tables import across_architectures as tables

WIDTHS = (0.5, 1, 2)
SMALL, LARGE = 0.05, 0.10
COLLAPSED = 9  # the seed in which one network of the widest pairs reads 49 %
AT_ONE = {"heldout": 0.9, "few_images": 0.8, "nonlinear": 0.7, "gradient_cosine": 0.5}
MOVED = {(NATURAL_MAP, SMALL): 0.2, (NATURAL_MAP, LARGE): 0.3, (OWN_MAP, SMALL): 0.4, (OWN_MAP, LARGE): 0.6}
SLOPES = {  # of R² with many images, few, and by a kernel; of the cosine; of the movement explained
    "cnn": {"heldout": -0.02, "few_images": -0.1, "nonlinear": 0.03, "gradient_cosine": -0.04, "moved": 0.05},
    "fully_connected": {
        "heldout": 0.04, "few_images": 0.2, "nonlinear": -0.06, "gradient_cosine": 0.08, "moved": -0.1,
    },
}  # fmt: skip
BEYOND = {  # points at width 1 and what a doubling adds, by ε
    "cnn": {SMALL: (10, -2), LARGE: (30, -4)}, "fully_connected": {SMALL: (20, 3), LARGE: (40, 5)},
}  # fmt: skip


def recorded(seeds=(0, 1, 2)):
    """Pairs of three widths; every reading is a straight line over log₂ width, and a hundredth more a seed.

    Random signs turn 20 % of what the rate counts, and both directions lie two hundredths, or points, to
    either side of their mean. In the collapsed seed all is 1 more at the largest width.
    """

    def values(architecture, width, seed):
        log, slopes = math.log2(width), SLOPES[architecture]
        more = (seed == COLLAPSED) * (width == 2) or (seed - 1) / 100
        found = {"relation": [], "movement": [], "transfer": []}
        for source, target in ((1, 2), (2, 1)):
            of, side = {"source": source, "target": target}, (2 * source - 3) / 50
            found["relation"].append(
                {**of, **{name: at + slopes[name] * log + more + side for name, at in AT_ONE.items()}}
            )
            for (name, e), at in MOVED.items():
                share = at + slopes["moved"] * log * (1 if e == LARGE else 7) + more + side
                found["movement"].append({**of, "map": name, "epsilon": e, "explains": share})
            for e, (at, slope) in BEYOND[architecture].items():
                points = at + slope * log + 100 * (more + side)
                found["transfer"].append({
                    **of, "attack": "pgd-linf", "epsilon": e, "source_fooled": 900, "both_fooled": 800,
                    "source_fooled_clean": 500, "signs_clean": 100, "both_fooled_clean": 100 + 5 * points,
                    "n_clean": 500 / (0.5 + 4 * e + log / 10), "n": 1000, "target_wrong": 850,
                })  # fmt: skip
        first = 0.49 if seed == COLLAPSED and width == 2 else 0.92 + log / 50
        sizes = {"parameters": int(6000 * width), "features": int(800 * width)}
        return {"accuracy": [first, 0.94 + log / 50], **sizes, **found}

    trials = [
        {"setting": {"architecture": a, "width": w}, "seed": seed, "values": values(a, w, seed),
         "provenance": PROVENANCE}
        for seed, a, w in itertools.product(seeds, SLOPES, WIDTHS)
    ]  # fmt: skip
    config = {
        "architectures": list(SLOPES), "widths": list(WIDTHS), "epsilons": [SMALL, LARGE], "steps": 40,
        "test_images": 1000, "feature_images": 60_000, "kernel_images": 10_000,
    }  # fmt: skip
    return Record("capacity", "laptop", config, trials)


def test_each_width_has_its_size_what_it_reads_and_what_its_own_attack_makes_it_misread():
    """Of both networks that read 93 % at width 1 the mean; 500 of 714, at ε = 0.05, are 70 %."""
    found = cells(tables.sizes(recorded()))
    assert found[0] == [
        "network", "width", "parameters", "features", "accuracy",
        "misread when attacked itself, ε = 0.05", "misread when attacked itself, ε = 0.10",
    ]  # fmt: skip
    of_cnns = [
        ["CNN", "0.5", "3,000", "400", "91 ± 0 %", "60 ± 0 %", "80 ± 0 %"],
        ["CNN", "1", "6,000", "800", "93 ± 0 %", "70 ± 0 %", "90 ± 0 %"],
        ["CNN", "2", "12,000", "1,600", "95 ± 0 %", "80 ± 0 %", "100 ± 0 %"],
    ]
    assert found[1:] == of_cnns + [["fully connected", *row[1:]] for row in of_cnns]
    lost = "In 2 of 24 pairs a network collapsed, and each such pair is left out. "
    assert lost in tables.sizes(recorded((0, 1, 2, COLLAPSED)))
    assert "averaged. No network collapsed. " in tables.sizes(recorded())


def test_each_width_has_its_readings_at_the_largest_epsilon_and_its_transfer():
    """A hundredth, or a point, a seed: t(2) / √3 = 2.48 of them."""
    text = tables.widths(recorded())
    found = rows(text)
    assert found.pop("network, width") == [
        "R², linear", "R², linear, few images", "R², kernel, few images", "movement explained", "cosine",
        "transfer, ε = 0.10", "points beyond signs, ε = 0.05", "points beyond signs, ε = 0.10",
    ]  # fmt: skip
    means = {name: [each.split(" ± ")[0] for each in row] for name, row in found.items()}
    assert means == {
        "CNN, 0.5": ["0.92", "0.90", "0.67", "0.25", "0.54", "54", "12", "34"],
        "CNN, 1": ["0.90", "0.80", "0.70", "0.30", "0.50", "50", "10", "30"],
        "CNN, 2": ["0.88", "0.70", "0.73", "0.35", "0.46", "46", "8", "26"],
        "fully connected, 0.5": ["0.86", "0.60", "0.76", "0.40", "0.42", "55", "17", "35"],
        "fully connected, 1": ["0.90", "0.80", "0.70", "0.30", "0.50", "60", "20", "40"],
        "fully connected, 2": ["0.94", "1.00", "0.64", "0.20", "0.58", "65", "23", "45"],
    }
    assert {tuple(each.split(" ± ")[1] for each in row) for row in found.values()} == {
        ("0.02",) * 5 + ("2 %", "2", "2")
    }
    assert "R² on 60,000 training images, and on 10,000 of them where it says few" in text
    assert "under FGSM-ℓ∞ at ε = 0.10." in text


def test_a_doubling_adds_the_slope_of_each_reading():
    found = cells(tables.doublings(recorded()))
    assert found[0] == [
        "network", "R², linear", "R², linear, few images", "R², kernel, few images", "movement explained",
        "cosine", "points beyond signs, ε = 0.05", "points beyond signs, ε = 0.10",
    ]  # fmt: skip
    assert found[1:] == [
        ["CNN", "−0.020 ± 0.000", "−0.100 ± 0.000", "0.030 ± 0.000", "0.050 ± 0.000", "−0.040 ± 0.000",
         "−2 ± 0", "−4 ± 0"],
        ["fully connected", "0.040 ± 0.000", "0.200 ± 0.000", "−0.060 ± 0.000", "−0.100 ± 0.000",
         "0.080 ± 0.000", "3 ± 0", "5 ± 0"],
    ]  # fmt: skip


@pytest.mark.parametrize("show", [tables.sizes, tables.widths, tables.doublings])
def test_a_pair_of_which_a_network_collapsed_is_left_out(show):
    """It is left out of its width alone, but a seed without a width has no slope."""
    whole, spoilt = body(show(recorded())), body(show(recorded((0, 1, 2, COLLAPSED))))
    widest = [row for row in whole if show is tables.doublings or "2" in (row[1], row[0][-1])]
    assert [row for row in spoilt if row in widest] == widest
    record = recorded()
    assert show(record).endswith(f" {record.caption()}.")


def test_the_figure_has_a_line_for_each_network_and_seed_and_bold_ones_for_the_means():
    record = recorded((0, 1, 2, COLLAPSED))
    figure = figures.capacity(record)
    at_one = ((0.9, "heldout"), (0.3, "moved"), (0.5, "gradient_cosine"), None)
    for axis, reading in zip(figure.axes, at_one, strict=True):
        lines = {
            alpha: [line for line in axis.lines if line.get_alpha() == alpha and len(line.get_xdata()) > 1]
            for alpha in (0.35, None)
        }
        for architecture, colour in (("cnn", "#0072B2"), ("fully_connected", "#D55E00")):
            if reading:
                line = [reading[0] + SLOPES[architecture][reading[1]] * math.log2(w) for w in WIDTHS]
            else:
                at, slope = BEYOND[architecture][LARGE]
                line = [(at + slope * math.log2(w)) / 100 for w in WIDTHS]
            faint = [each for each in lines[0.35] if each.get_color() == colour]
            for seed, each in enumerate(faint[:3]):
                assert list(each.get_ydata()) == pytest.approx([y + (seed - 1) / 100 for y in line])
            assert [len(each.get_xdata()) for each in faint] == [3, 3, 3, 2]  # no pair that collapsed
            (bold,) = (
                each for each in lines[None] if each.get_color() == colour and each.get_marker() in "os"
            )
            assert list(bold.get_xdata()) == list(WIDTHS) and bold.get_ydata()[2] == pytest.approx(line[2])
        assert list(axis.get_xticks()) == list(WIDTHS)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "R² of a linear map", "movement explained, ε = 0.10", "cosine of the gradients",
        "transfer beyond signs, ε = 0.10",
    ]  # fmt: skip
    first = figure.axes[0].transScale
    low, middle, high = (first.transform((1, r2))[1] for r2 in (0.8, 0.9, 0.95))
    assert middle - low == pytest.approx(high - middle)
    assert figure._supxlabel.get_text().replace("\n", " ") == record.caption()


@pytest.mark.parametrize("spread", [0.025, 0.05])
def test_no_seed_and_no_end_of_an_interval_lies_outside_the_axis_of_r_squared_unless_it_passes_one(spread):
    """Three seeds, `spread` apart: t(2) / √3 = 2.48 of it to either side of the mean, at 0.05 above 1."""
    record = recorded()
    for trial in record.trials:
        for row in trial["values"]["relation"]:
            row["heldout"] = 0.9 + (trial["seed"] - 1) * spread
    axis = figures.capacity(record).axes[0]
    low, high = axis.get_ylim()
    ends = [y for bar in axis.containers for part in bar[2] for y in part.get_segments()[0][:, 1]]
    assert len(ends) == 4 and min(ends) == pytest.approx(0.9 - 2.484 * spread, abs=1e-3)
    assert all(low < y < min(high, 1) for line in axis.lines for y in line.get_ydata() if line.get_alpha())
    assert low < min(ends) and high < 1 and (max(ends) < high or max(ends) > 1)

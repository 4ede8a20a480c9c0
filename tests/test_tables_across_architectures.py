"""The tables and the figure of chapter 9, from records whose nine cells can be worked out by hand.

The cells of a record, kind attacked and kind that reads, are numbered from 1 to 9, row by row:
CNN → CNN is 1, CNN → fully connected 2, fully connected → CNN 4, transformer → transformer 9.
"""

from __future__ import annotations

import itertools
import re

import pytest
from markdown_tables import PROVENANCE, body, cells, rows

from dnabook import figures
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.records import Record
from dnabook.tables import across_architectures as tables

KINDS = ("cnn", "fully_connected", "vit")
SMALL, LARGE = 0.05, 0.10
COLLAPSED = 9  # the seed in which one network reads 49 % of the digits
NUMBER = {cell: number for number, cell in enumerate(itertools.product(KINDS, repeat=2), 1)}
READ = {  # by both networks of a kind, where an attack at ε makes one of them misread 200
    ("cnn", SMALL): 1000, ("cnn", LARGE): 250, ("fully_connected", SMALL): 800,
    ("fully_connected", LARGE): 400, ("vit", SMALL): 500, ("vit", LARGE): 200,
}  # fmt: skip
NO_KIND = {"cnn": 0.0, "fully_connected": 0.0, "vit": 0.0}  # is better within than between


def related(number, seed):
    """R² falls from cell to cell, a kernel's rises; CKA has the first cell's and the last one's exchanged."""
    return {"heldout": 1 - number / 10, "nonlinear": number / 20, "cka": {1: 9, 9: 1}.get(number, number)}


def explained(number):
    """By map and ε: each map tells one ε from the other by whether it rises or falls from cell to cell."""
    exchanged = {1: 2, 2: 1}.get(number, number)
    return {
        (NATURAL_MAP, SMALL): number / 100, (NATURAL_MAP, LARGE): -number,
        (OWN_MAP, SMALL): -exchanged, (OWN_MAP, LARGE): exchanged / 10,
    }  # fmt: skip


def recorded(seeds=(0, 1, 2), *, kinds=KINDS, epsilons=(SMALL, LARGE), relation=related, own=NO_KIND):
    """Every cell between two networks of each kind; its readings are those of its number.

    PGD makes a network misread 200 of the digits that both read. At ε = 0.05 the reader misreads 30 − c % of
    these in cell c, and 30 − 3c % under random signs, 2c less; at 0.10 60 − c % and 60 − 6c %, 5c less. The
    cosine counts the cells column by column. A seed more is a point more of everything, and the two networks
    of a kind lie 2 points to either side of it when attacked. own: what comes on top within a kind,
    where signs turn as much more wrong, too.
    """

    def values(seed):
        relation_rows, movement_rows, transfer_rows = [], [], []
        networks = list(itertools.product(kinds, (1, 2)))
        for (source_arm, source), (target_arm, target) in itertools.permutations(networks, 2):
            of = {"source_arm": source_arm, "source": source, "target_arm": target_arm, "target": target}
            number, column_by_column = NUMBER[source_arm, target_arm], NUMBER[target_arm, source_arm]
            more, points = own[source_arm] * (source_arm == target_arm), seed - 1 + 2 * (2 * source - 3)
            if seed == COLLAPSED:
                number, more = 10 - number, -more
            found = {name: value + points / 100 for name, value in relation(number, seed).items()}
            found["heldout"] += more
            found["nonlinear"] += 2 * more
            cosine = column_by_column / 100 + points / 100 - more
            relation_rows.append({**of, **found, "gradient_cosine": cosine})
            for (name, e), share in explained(number).items():
                share += points / 100 + more * (3 if (name, e) == (NATURAL_MAP, LARGE) else 50)
                movement_rows.append({**of, "map": name, "epsilon": e, "explains": share})
            for e, highest, step, times in ((SMALL, 30, 3, 200), (LARGE, 60, 6, 100)):
                transfer_rows.append({
                    **of, "attack": "pgd-linf", "epsilon": e, "source_fooled": 290, "both_fooled": 270,
                    "source_fooled_clean": 200, "target_wrong": 280, "n": 2000,
                    "both_fooled_clean": 2 * (highest - number + points + (times + 100) * more),
                    "signs_clean": 2 * (highest - step * number + 100 * more),
                    "n_clean": READ[source_arm, e] if source_arm == target_arm else 1900,
                })  # fmt: skip
        of_kinds = {"cnn": [0.99, 0.97], "fully_connected": [0.96, 0.94], "vit": [0.90, 0.88]}
        accuracy = [right + (seed - 1) / 100 for kind in kinds for right in of_kinds[kind]]
        accuracy[-1] = 0.49 if seed == COLLAPSED else accuracy[-1]
        return {
            "accuracy": accuracy,
            "relation": relation_rows,
            "movement": [row for row in movement_rows if row["epsilon"] in epsilons],
            "transfer": [row for row in transfer_rows if row["epsilon"] in epsilons],
        }

    trials = [
        {"setting": {"architecture": "all"}, "seed": seed, "values": values(seed), "provenance": PROVENANCE}
        for seed in seeds
    ]
    config = {"kinds": list(kinds), "epsilons": list(epsilons), "steps": 40, "test_images": 1000}
    return Record("architectures", "laptop", config, trials)


# --- The networks --------------------------------------------------------------------------------


def test_each_kind_has_its_accuracy_and_what_its_own_attack_makes_it_misread():
    """200 of 1000, of 250, of 800, of 400, of 500 and of 200. Three seeds a point apart: t(2) / √3 = 2.48."""
    assert cells(tables.networks(recorded())) == [
        ["kind", "accuracy", "misread when attacked itself, ε = 0.05",
         "misread when attacked itself, ε = 0.10"],
        ["CNN", "98 ± 2 %", "20 ± 0 %", "80 ± 0 %"],
        ["fully connected", "95 ± 2 %", "25 ± 0 %", "50 ± 0 %"],
        ["transformer", "89 ± 2 %", "40 ± 0 %", "100 ± 0 %"],
    ]  # fmt: skip


# --- The cells -----------------------------------------------------------------------------------


def test_each_cell_has_a_row_of_its_own_with_its_readings_at_the_largest_epsilon_and_its_transfer():
    """In cell c: 1 − c/10, c/20, −c, its number column by column in hundredths; 60 − c, 2c and 5c."""
    found = rows(tables.cells(recorded()))
    assert found.pop("attacked → reads") == [
        "R², linear", "R², kernel", "movement explained", "cosine", "transfer, ε = 0.10",
        "points beyond signs, ε = 0.05", "points beyond signs, ε = 0.10",
    ]  # fmt: skip
    assert "Movements are those under FGSM-ℓ∞ at ε = 0.10. " in tables.cells(recorded())
    means = {cell: [each.split(" ± ")[0] for each in found[cell]] for cell in found}
    assert means == {
        "CNN → CNN": ["0.90", "0.05", "−1.00", "0.01", "59", "2", "5"],
        "CNN → fully connected": ["0.80", "0.10", "−2.00", "0.04", "58", "4", "10"],
        "CNN → transformer": ["0.70", "0.15", "−3.00", "0.07", "57", "6", "15"],
        "fully connected → CNN": ["0.60", "0.20", "−4.00", "0.02", "56", "8", "20"],
        "fully connected → fully connected": ["0.50", "0.25", "−5.00", "0.05", "55", "10", "25"],
        "fully connected → transformer": ["0.40", "0.30", "−6.00", "0.08", "54", "12", "30"],
        "transformer → CNN": ["0.30", "0.35", "−7.00", "0.03", "53", "14", "35"],
        "transformer → fully connected": ["0.20", "0.40", "−8.00", "0.06", "52", "16", "40"],
        "transformer → transformer": ["0.10", "0.45", "−9.00", "0.09", "51", "18", "45"],
    }
    assert {tuple(each.split(" ± ")[1] for each in row) for row in found.values()} == {
        ("0.02", "0.02", "0.02", "0.02", "2 %", "2", "2")
    }


# --- What foretells transfer ---------------------------------------------------------------------


def test_each_reading_has_its_rank_correlation_at_each_epsilon_over_all_cells_and_between_kinds():
    """What transfers beyond signs rises from cell to cell, at both ε, while the rates themselves fall.

    R² falls: −1. Nine ranks with two next to each other exchanged: 1 − 6·2/720 = 0.98; the first and the
    last: 1 − 6·2·64/720 = −0.07; column by column four cells are 2 and two are 4 away: 1 − 6·48/720 = 0.6.
    Between kinds are the cells 2 3 4 6 7 8, whose order no exchange changes; column by column 4 7 2 8 3 6,
    the ranks 3 5 1 6 2 4: 1 − 6·(4 + 9 + 4 + 4 + 9 + 4)/210 = 0.03.
    R² from the reader falls column by column.
    """
    found = cells(tables.foretelling(recorded()))
    assert found[0] == [
        "Spearman's ρ with points beyond signs", "all cells, ε = 0.05", "all cells, ε = 0.10",
        "between kinds, ε = 0.05", "between kinds, ε = 0.10",
    ]  # fmt: skip
    assert [[each.removesuffix(" ± 0.00") for each in row] for row in found[1:]] == [
        ["R² of the features, attacked → reads", "−1.00", "−1.00", "−1.00", "−1.00"],
        ["R² of the features, reads → attacked", "−0.60", "−0.60", "−0.03", "−0.03"],
        ["R² of a kernel regression, attacked → reads", "1.00", "1.00", "1.00", "1.00"],
        ["centred kernel alignment (CKA)", "−0.07", "−0.07", "1.00", "1.00"],
        ["movement that a linear map of natural features explains", "1.00", "−1.00", "1.00", "−1.00"],
        ["movement that a linear map of movements explains", "−0.98", "0.98", "−1.00", "1.00"],
        ["cosine of the input gradients", "0.60", "0.60", "0.03", "0.03"],
    ]
    text = tables.foretelling(recorded())
    assert "Over 9 cells, " in text and "or the 6 between kinds" in text


def higher(record):
    """What the text below the table says: by how much two readings' ρ lies above that of R², at each ε.

    Then by how much that of the movement explained lies above that of R² from the reader.
    """
    text = tables.foretelling(record)
    (sentence,) = re.findall(
        r"higher than that of R² from the attacked network to the reader by: (.*?)\. ", text
    )
    (turned,) = re.findall(r"higher than that of R² the other way round by: (.*?)\. ", text)
    kernel, movement = sentence.split("; ")
    assert kernel.startswith("that of the kernel regression ")
    assert movement.startswith("that of the movement explained ")
    assert turned.startswith("that of the movement explained ")
    return [re.findall(r"\*\*(.*?)\*\*", each) for each in (kernel, movement, turned)]


def test_a_perfect_ranking_is_ahead_of_a_reversed_one_by_two_and_of_another_reversed_one_by_nothing():
    """R² is reversed at both ε, the kernel's perfect; the movement explained is perfect at the smaller ε and
    reversed at the larger, and R² from the reader has −0.6."""
    assert higher(recorded()) == [
        ["2.00 ± 0.00", "2.00 ± 0.00"], ["2.00 ± 0.00", "0.00 ± 0.00"], ["1.60 ± 0.00", "−0.40 ± 0.00"]
    ]  # fmt: skip


def test_what_a_reading_has_more_than_r_squared_is_taken_over_all_cells():
    """The kernel has the first and the last exchanged: −0.07 over all cells, 1 between kinds, above −1."""

    def exchanged(number, seed):
        return {"heldout": 1 - number / 10, "nonlinear": {1: 9, 9: 1}.get(number, number), "cka": number}

    assert higher(recorded(relation=exchanged))[0] == ["0.93 ± 0.00", "0.93 ± 0.00"]


def test_what_a_reading_has_more_than_r_squared_is_taken_seed_by_seed():
    """R² and the kernel's agree: −1 in seed 0 and 1 in seed 1. The movement explained has 1, and −1, in both.

    Two seeds: t(1) = 12.71 times √2 / √2 for −1 and 1, and for 2 and 0.
    """

    def turned(number, seed):
        r2 = number / 10 if seed else 1 - number / 10
        return {"heldout": r2, "nonlinear": r2 / 2, "cka": 1 - r2}

    record = recorded((0, 1), relation=turned)
    found = rows(tables.foretelling(record))
    assert found["R² of the features, attacked → reads"] == ["0.00 ± 12.71"] * 4
    assert found["R² of a kernel regression, attacked → reads"] == ["0.00 ± 12.71"] * 4
    assert higher(record)[:2] == [["0.00 ± 0.00", "0.00 ± 0.00"], ["1.00 ± 12.71", "−1.00 ± 12.71"]]
    assert higher(record)[2] == ["1.00 ± 7.62", "−1.00 ± 7.62"]  # −0.6 and 0.6


# --- Within a kind and between two ---------------------------------------------------------------


def test_what_a_kind_adds_as_a_source_or_as_a_reader_cancels_within_two_kinds_less_between_them():
    """Every reading counts the cells row by row or column by column: 3 for a source and 1 for a reader."""
    found = body(tables.own_kind(recorded()))
    assert [row[1:] for row in found] == 3 * [["0.00 ± 0.00"] * 4 + ["0 ± 0"] * 2]


def test_what_comes_on_top_within_two_kinds_is_left_when_the_cells_between_them_are_taken_off():
    """Means of 2, 4 and 12 hundredths: 3, 7 and 8. R² has them once, a kernel's twice, the movement three
    times, the cosine less; transfer twice at ε = 0.05, once at 0.10. All seeds have the same."""
    text = tables.own_kind(recorded(own={"cnn": 0.02, "fully_connected": 0.04, "vit": 0.12}))
    assert cells(text) == [
        ["kinds", "R², linear", "R², kernel", "movement explained", "cosine", "points beyond signs, ε = 0.05",
         "points beyond signs, ε = 0.10"],
        ["CNN and fully connected", "0.03 ± 0.00", "0.06 ± 0.00", "0.09 ± 0.00", "−0.03 ± 0.00", "6 ± 0",
         "3 ± 0"],
        ["CNN and transformer", "0.07 ± 0.00", "0.14 ± 0.00", "0.21 ± 0.00", "−0.07 ± 0.00", "14 ± 0",
         "7 ± 0"],
        ["fully connected and transformer", "0.08 ± 0.00", "0.16 ± 0.00", "0.24 ± 0.00", "−0.08 ± 0.00",
         "16 ± 0", "8 ± 0"],
    ]  # fmt: skip


# --- What every table has in common --------------------------------------------------------------

ALL = (tables.networks, tables.cells, tables.foretelling, tables.own_kind)


@pytest.mark.parametrize("show", ALL)
def test_a_seed_in_which_one_network_collapsed_is_left_out(show):
    """The one of whose six networks the last reads 49 %, and in which all cells change places."""
    own = {"cnn": 0.02, "fully_connected": 0.04, "vit": 0.12}
    with_it = recorded((0, 1, 2, COLLAPSED), own=own)
    assert cells(show(with_it)) == cells(show(recorded(own=own)))
    if show is tables.foretelling:
        assert higher(with_it) == higher(recorded(own=own))


def test_the_seeds_in_which_a_network_collapsed_are_counted():
    lost = "In 1 of 4 seeds a network collapsed, and that seed is left out. "
    assert lost in tables.networks(recorded((0, 1, 2, COLLAPSED)))
    assert "averaged. No network collapsed. " in tables.networks(recorded())


@pytest.mark.parametrize("show", ALL)
def test_where_every_seed_is_lost_there_is_no_value(show):
    for row in body(show(recorded((COLLAPSED,)))):
        assert set(row[1:]) <= {"no value", "–"}


@pytest.mark.parametrize("show", ALL[:3])
def test_a_table_ends_with_the_record_s_origin(show):
    record = recorded()
    assert show(record).endswith(f" {record.caption()}.")
    assert "3 seeds · PGD-40 on 1,000 images" in record.caption()


def test_two_kinds_and_one_epsilon_make_smaller_tables():
    record = recorded(kinds=("cnn", "vit"), epsilons=(LARGE,))
    assert [row[::3] for row in body(tables.networks(record))] == [["CNN"], ["transformer"]]
    assert [row[1:] for row in body(tables.networks(record))] == [
        ["98 ± 2 %", "80 ± 0 %"], ["89 ± 2 %", "100 ± 0 %"]
    ]  # fmt: skip
    names = ["CNN → CNN", "CNN → transformer", "transformer → CNN", "transformer → transformer"]
    assert [row[0] for row in body(tables.cells(record))] == names
    assert "Over 4 cells, " in tables.foretelling(record)
    assert "or the 2 between kinds" in tables.foretelling(record)
    assert [row[0] for row in body(tables.own_kind(record))] == ["CNN and transformer"]


# --- The figure ----------------------------------------------------------------------------------

COLOURS = {"cnn": "#0072B2", "fully_connected": "#D55E00", "vit": "#009E73"}  # of the one that reads
MARKERS = {"cnn": "o", "fully_connected": "s", "vit": "^"}  # of the one that is attacked
PANELS = {  # what stands across, by the number of a cell and that of the cell turned round, at ε = 0.10
    "R² from the attacked network to the reader": lambda number, turned: 1 - number / 10,
    "R² from the reader to the attacked network": lambda number, turned: 1 - turned / 10,
    "movement that a linear map of natural features explains": lambda number, turned: -number,
    "cosine of the input gradients": lambda number, turned: turned / 100,
}


def drawn(axis, **look):
    """The points of an axis that look like this, by who is attacked and who reads: (x, y, face)."""
    kinds = {(MARKERS[s], COLOURS[t]): (s, t) for s, t in itertools.product(KINDS, repeat=2)}
    found = {}
    for line in axis.lines:
        if len(line.get_xdata()) == 1 and all(getattr(line, f"get_{k}")() == v for k, v in look.items()):
            point = float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor()
            found.setdefault(kinds[line.get_marker(), line.get_color()], []).append(point)
    return found


@pytest.mark.parametrize("panel", range(4))
def test_every_panel_has_each_cell_s_mean_where_it_belongs_filled_within_a_kind(panel):
    axis = figures.architectures(recorded((0, 1, 2, COLLAPSED))).axes[panel]
    across = list(PANELS.values())[panel]
    assert axis.get_xlabel() == list(PANELS)[panel]
    bold = drawn(axis, markersize=9)
    assert set(bold) == set(NUMBER)
    for (source, target), number in NUMBER.items():
        ((x, y, face),) = bold[source, target]
        assert (x, y) == pytest.approx((across(number, NUMBER[target, source]), 5 * number / 100))
        assert face == (COLOURS[target] if source == target else "white")


@pytest.mark.parametrize("panel", range(4))
def test_every_panel_has_a_faint_point_for_each_seed_that_is_left(panel):
    """Seeds lie a point apart, across and up; the seed in which a network collapsed is not drawn."""
    axis, across = (
        figures.architectures(recorded((0, 1, 2, COLLAPSED))).axes[panel],
        list(PANELS.values())[panel],
    )
    faint = drawn(axis, alpha=0.35)
    assert set(faint) == set(NUMBER)
    for (source, target), number in NUMBER.items():
        x, y = across(number, NUMBER[target, source]), 5 * number / 100
        found = sorted(faint[source, target])
        assert [point[:2] for point in found] == [
            pytest.approx((x + more, y + more)) for more in (-0.01, 0, 0.01)
        ]  # fmt: skip
        assert {face for *_, face in found} == {COLOURS[target] if source == target else "white"}


def test_no_point_and_no_tick_lies_outside_its_panel():
    for axis in figures.architectures(recorded()).axes:
        left, right = axis.get_xlim()
        points = [point for each in drawn(axis).values() for point in each]
        assert len(points) == 9 * (3 + 1) and all(left < x < right for x, _, _ in points)
        bottom, top = axis.get_ylim()
        assert all(bottom < y < top for _, y, _ in points) and bottom < 0 < top
    stretched = figures.architectures(recorded()).axes[:3]
    assert [[round(float(tick), 2) for tick in axis.get_xticks()] for axis in stretched] == [
        [0.5, 0.8, 0.9],  # R² from 0.09 to 0.91, so from 1 − 1.4 · 0.91 to 1 − 0.7 · 0.09, which is 0.94
        [0.5, 0.8, 0.9],  # of the same cells, turned round
        [-8, -4, -1],  # from −9.01 to −0.99: to 1 − 0.7 · 1.99 = −0.39
    ]  # fmt: skip


def test_equal_parts_of_what_is_unexplained_are_equal_lengths_across():
    """From R² 0 to 0.5 is as far as from 0.5 to 0.75, in panels of R² and movement; not the cosine's."""
    *stretched, cosine = figures.architectures(recorded()).axes
    for axis in stretched:
        first, middle, last = (axis.transScale.transform((r2, 0))[0] for r2 in (0, 0.5, 0.75))
        assert middle - first == pytest.approx(last - middle) and middle > first
    assert cosine.get_xscale() == "linear"


def test_the_figure_says_who_is_attacked_and_who_reads_at_which_epsilon_and_where_it_comes_from():
    record = recorded()
    figure = figures.architectures(record)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    handles = dict(zip(names, legend.legend_handles, strict=True))
    for kind, name in (("cnn", "CNN"), ("fully_connected", "fully connected"), ("vit", "transformer")):
        assert handles[f"{name} attacked"].get_marker() == MARKERS[kind]
        assert handles[f"{name} attacked"].get_color() not in COLOURS.values()
        assert handles[f"{name} reads"].get_color() == COLOURS[kind]
        assert handles[f"{name} reads"].get_marker() not in MARKERS.values()
    assert len(names) == 6
    assert [axis.get_ylabel() for axis in figure.axes] == 2 * ["transfer beyond signs, ε = 0.10", ""]
    assert figure._supxlabel.get_text().replace("\n", " ") == record.caption()


def test_the_figure_of_a_record_without_a_seed_that_is_left_is_empty_and_signed():
    record = recorded((COLLAPSED,))
    figure = figures.architectures(record)
    assert not any(x == x for axis in figure.axes for each in drawn(axis).values() for x, _, _ in each)
    assert figure._supxlabel.get_text().replace("\n", " ") == record.caption()

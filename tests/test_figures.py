"""Figures show what the record holds: every point, the right count of series, the record's origin."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_summaries import counts, trial

from dnabook import figures, measures, summaries
from dnabook.records import Record

matplotlib.use("agg")


def transfer_record():
    config = {
        "attacks": ["pgd-linf"],
        "epsilons": [0.1, 0.2],
        "pairs": [["cnn", "regular"], ["cnn", "decorrelated"]],
    }
    trials = []
    for seed in (0, 1, 2):
        for arm, both in (("regular", 8), ("decorrelated", 2)):
            rows = [counts(e, s, both, 10, both, 10) for e in (0.1, 0.2) for s in (1, 2)]
            accuracy = [0.9, 0.1] if (arm, seed) == ("decorrelated", 2) else [0.9, 0.9]
            one = trial(seed, arm, accuracy, rows)
            one["setting"]["architecture"] = "cnn"
            trials.append(one)
    return Record("transfer", "smoke", config, trials)


def drawn_heights(axis):
    heights = {round(float(y), 6) for container in axis.containers for y in container[0].get_ydata()}
    return sorted(height for height in heights if height == height)  # without nan


def words(figure):
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " ".join(texts)


def test_transfer_draws_the_mean_rates_of_every_arm_and_counts_collapsed_pairs():
    figure = figures.transfer(transfer_record())
    assert drawn_heights(figure.axes[0]) == [0.2, 0.8]
    assert "decorrelated (1 of 3 CNN pairs collapsed)" in words(figure)


def test_the_corrected_loss_is_drawn_where_it_was_attacked():
    pairs = transfer_record()
    variants = replace(pairs, trials=[
        {**t, "setting": {"architecture": "cnn", "variant": "corrected"}}
        for t in pairs.trials if t["setting"]["arm"] == "decorrelated"
    ])  # fmt: skip
    pairs.config["attacks"] = ["fgsm-linf", "pgd-linf"]
    for one in pairs.trials:
        rows = one["values"]["transfer"]
        one["values"]["transfer"] = rows + [{**row, "attack": "fgsm-linf"} for row in rows]
    for one in variants.trials:
        rows = one["values"]["transfer"]
        one["values"] = {**one["values"], "transfer": [r for r in rows if r["attack"] == "pgd-linf"]}
    figure = figures.transfer(pairs, variants=variants)
    assert "corrected loss (1 of 3 CNN pairs collapsed)" in words(figure)
    assert [len(axis.containers) for axis in figure.axes] == [2, 3]  # FGSM, PGD
    corner = " ".join(figure._supxlabel.get_text().split())
    assert corner == f"{pairs.caption()}; corrected loss: {variants.caption()}"


def test_every_recorded_figure_states_scale_seeds_device_and_date():
    figure = figures.transfer(transfer_record())
    assert figure._supxlabel.get_text() == "smoke scale · 3 seeds · CPU · 2026-01-02"


def test_a_long_origin_takes_as_many_lines_as_fit_into_the_figure():
    figure = figures.growth(
        {"n": {"one": [(1, 1), (10, 2)]}}, ylabel="ms", corner="paper scale · 5 seeds · " + 9 * "a device + "
    )
    figure.savefig(io.BytesIO())  # lays it out
    origin = figure._supxlabel.get_window_extent()
    assert figure._supxlabel.get_text().count("\n") > 1
    assert origin.x0 >= 0 and origin.y0 >= 0
    assert origin.y1 < figure.axes[0].get_window_extent().y0


def test_parameter_distance_draws_one_point_for_each_pair_and_epsilon():
    trials = []
    for seed, distance in ((0, 100.0), (0, 200.0), (1, 150.0)):
        one = trial(
            seed, "x", [0.9, 0.9], [counts(e, s, 1, 2, 1, 2) for e in (0.1, 0.2) for s in (1, 2)], distance
        )
        one["values"]["features"] = [
            {"epsilon": e, "heldout_1_to_2": 0.8, "heldout_2_to_1": 0.6} for e in (0.0, 0.1, 0.2)
        ]
        trials.append(one)
    left, right = figures.parameter_distance(Record("parameter_distance", "smoke", {}, trials)).axes
    points = [line.get_xydata() for line in left.lines if len(line.get_xdata())]
    assert sorted({float(p[0][0]) for p in points}) == [100, 150, 200] and len(points) == 6
    assert {round(float(line.get_ydata()[0]), 6) for line in right.lines if len(line.get_ydata())} == {0.7}


def test_arms_differ_in_colour_and_in_marker():
    for series in (figures.ARMS.values(), [(None, *pair) for pair in figures.SERIES]):
        _, colours, markers = zip(*series, strict=True)
        assert len(set(colours)) == len(colours) and len(set(markers)) == len(markers)


@pytest.mark.parametrize(
    "curves",
    [
        [("dna", "either"), ("dna", "mean_path"), ("autoencoder", "either")],
        [("autoencoder", "either"), ("dna", "either")],
        [("dna", "mean_path"), ("autoencoder", "either"), ("dna", "both"), ("dna", "either")],
    ],
)
def test_an_autoencoder_looks_the_same_in_every_figure(autoencoder_record, curves):
    figure = figures.reconstruction(
        autoencoder_record, [figures.Curve(f"{arm} {rule}", arm, rule) for arm, rule in curves]
    )
    lines = [container.lines[0] for container in figure.axes[0].containers]
    looks = [
        (line.get_color(), line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "white")
        for line in lines
    ]
    arms = [arm for arm, _ in curves]
    assert looks[arms.index("dna")] == ("#0072B2", "-", "o", False)
    assert looks[arms.index("autoencoder")] == ("0.35", "-", "P", False)
    assert {look[0] for look, arm in zip(looks, arms, strict=True) if arm == "dna"} == {"#0072B2"}
    further = [look for i, (look, arm) in enumerate(zip(looks, arms, strict=True)) if i != arms.index(arm)]
    assert [look[1:] for look in further] == [("--", "o", True), (":", "<", True)][: len(further)]


def test_one_network_under_two_names_has_one_look_and_others_of_a_chapter_have_their_own():
    look = figures.AUTOENCODERS
    assert look["unshared_2"] == look["dna"] and look["unshared_6_regular"] == look["two_autoencoders"]
    for chapter in (
        ("autoencoder", "dna", "dna_regular", "two_autoencoders", "dna_corrected"),
        ("unshared_2", "unshared_4", "unshared_6", "unshared_6_regular", "matched_6"),
    ):
        for part in zip(*(look[arm] for arm in chapter), strict=True):
            assert len(set(part)) == len(chapter)


def test_figures_are_not_left_open():
    before = plt.get_fignums()
    figures.lines([1, 2], {"a": [1, 2], "b": [2, 1]}, xlabel="x", ylabel="y")
    figures.images({"row": torch.rand(3, 1, 4, 4)}, titles=["a", "b", "c"])
    figures.scatter(torch.rand(5), torch.rand(5), torch.arange(5), xlabel="x", ylabel="y")
    assert plt.get_fignums() == before


def test_images_are_drawn_on_one_scale_with_their_titles():
    x = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 1, 2, 2)
    axis = figures.images({"row": x}, titles=["seven"]).axes[0]
    assert axis.get_title() == "seven" and axis.get_ylabel() == "row"
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.images[0].get_array().tolist() == x[0, 0].tolist()


@pytest.mark.parametrize("log", [False, True])
def test_lines_draws_each_series(log):
    axis = figures.lines([1, 10], {"a": [1, 2], "b": [3, 4]}, xlabel="x", ylabel="y", log=log).axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[1, 2], [3, 4]]
    assert axis.get_xscale() == ("log" if log else "linear")


def test_more_series_than_looks_are_all_drawn():
    series = {f"series {i}": [i, i + 1] for i in range(8)}
    assert len(figures.lines([1, 2], series, xlabel="x", ylabel="y").axes[0].lines) == 8
    arms = [f"arm {i}" for i in range(8)]
    assert len({tuple(look.items()) for look in figures._looks(arms)}) == 8


def test_predictability_draws_each_pair_in_both_directions_and_leaves_collapsed_ones_out_of_the_mean():
    axis = figures.predictability(transfer_record()).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["regular", "decorrelated"]
    means = [container[0].get_ydata()[0] for container in axis.containers]
    # model 1 predicts 2: 0.9, 0.8, 0.7 by seed, and seed 2 of the decorrelated pairs collapsed
    assert means == pytest.approx([0.8, 0.5, 0.85, 0.5])
    faint = [line for line in axis.lines if line.get_alpha() == 0.45]
    assert [len(line.get_ydata()) for line in faint] == [3, 3, 3, 3]


def test_values_far_below_zero_stay_in_sight_on_the_lower_edge():
    record = transfer_record()
    record.trials[0]["values"]["predictability"][0]["heldout"] = -40.0
    axis = figures.predictability(record).axes[0]
    points = [line for line in axis.lines if line.get_alpha()] + [bar[0] for bar in axis.containers]
    drawn = [y for line in points for y in line.get_ydata()]
    assert min(drawn) == figures.LOWEST > axis.get_ylim()[0]


def test_an_interval_around_a_mean_below_the_edge_ends_where_it_ends():
    record = transfer_record()
    shares = (-3.0, -1.0, 0.1)
    for one in record.trials:
        for row in one["values"]["predictability"]:
            row["heldout"] = shares[one["seed"]]
    expected = measures.mean_interval(list(shares))
    container = figures.predictability(record).axes[0].containers[0]
    ((_, low), (_, high)) = container[2][0].get_segments()[0]
    assert expected.mean < figures.LOWEST < expected.mean + expected.half_width
    assert (low, high) == pytest.approx((figures.LOWEST, expected.mean + expected.half_width))


def test_no_interval_is_drawn_for_fewer_than_three_pairs():
    record = transfer_record()
    record.trials = [t for t in record.trials if t["seed"] < 2]
    for container in figures.transfer(record).axes[0].containers:
        assert all(math.isnan(y) for bar in container[2] for _, y in np.concatenate(bar.get_segments()))


# --- Autoencoders and DVERGE ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder_record(smoke):
    return smoke("autoencoder_mnist")


@pytest.fixture(scope="module")
def dverge_record(smoke):
    return smoke("dverge")


def test_figure_6_has_a_panel_for_each_attack_and_a_line_for_each_curve(autoencoder_record):
    figure = figures.reconstruction(autoencoder_record)
    assert [axis.get_title() for axis in figure.axes] == ["FGSM", "PGD"]
    for axis in figure.axes:
        lines = [container.lines[0] for container in axis.containers]
        assert len(lines) == len(figures.FIGURE_6)
    clean = summaries.reconstruction(autoencoder_record, arm="dna").mean
    assert figure.axes[0].containers[0].lines[0].get_ydata()[0] == pytest.approx(clean)
    attacked = summaries.reconstruction(
        autoencoder_record, arm="autoencoder", attack="pgd", epsilon=0.15
    ).mean
    assert figure.axes[1].containers[2].lines[0].get_ydata()[-1] == pytest.approx(attacked)


def test_figure_4_has_transfer_above_accuracy_for_each_start(dverge_record):
    figure = figures.dverge(dverge_record)
    starts = len(dverge_record.config["arms"])
    assert len(figure.axes) == 2 * starts
    top = figure.axes[0].containers[0].lines[0]
    where = {"arm": "regular", "preset": "paper", "epsilon": dverge_record.config["epsilons"][0]}
    expected = [
        summaries.transfer(summaries.healthy(dverge_record), conditioned=False, epoch=e, **where).mean
        for e in range(dverge_record.config["epochs"] + 1)
    ]
    assert top.get_ydata() == pytest.approx(expected, nan_ok=True)
    assert figure.axes[0].get_ylabel() == "transfer rate"
    assert figure.axes[starts].get_ylabel() == "natural accuracy"


def test_figure_5_names_its_parts():
    texts = {text.get_text().replace("\n", " ") for text in figures.dual_neck().axes[0].texts}
    assert {"encoder (shared)", "decoder (shared)", "neck 1", "neck 2", "correlation loss"} <= texts


def test_classes_in_a_scatter_are_told_apart_by_shape_as_well_as_colour():
    figure = figures.scatter(torch.rand(9), torch.rand(9), torch.arange(9) % 3, xlabel="x", ylabel="y")
    drawn = figure.axes[0].collections
    shapes = {group.get_paths()[0].vertices.tobytes() for group in drawn}
    colours = {tuple(group.get_facecolor()[0]) for group in drawn}
    assert len(drawn) == len(shapes) == len(colours) == 3


# --- Frames of the interactive pieces ------------------------------------------------------------


def test_probabilities_are_drawn_as_one_bar_for_each_class_and_model():
    shares = torch.rand(2, 10).softmax(1)
    left, right = figures.probabilities(torch.rand(1, 28, 28), shares, "a title").axes
    assert left.get_title() == "a title" and len(left.images) == 1
    heights = [[bar.get_height() for bar in container] for container in right.containers]
    assert np.allclose(heights, shares.numpy())
    colours = {(container[0].get_facecolor(), container[0].get_hatch()) for container in right.containers}
    assert len(colours) == 2


def test_a_course_draws_one_line_for_each_attack_and_model():
    shares = {"FGSM": torch.rand(2, 3), "PGD": torch.rand(2, 3)}
    *images, below = figures.attack_course(torch.rand(2, 1, 28, 28), ["a", "b"], [0, 0.1, 0.2], shares).axes
    assert [axis.get_title() for axis in images] == ["a", "b"]
    drawn = [line.get_ydata() for line in below.lines]
    assert np.allclose(drawn, torch.cat([*shares.values()]).numpy())
    assert len({(line.get_color(), line.get_linestyle()) for line in below.lines}) == 4


def test_a_mosaic_frames_every_digit_by_its_fate():
    fates = [*figures.OUTCOMES, "fools both"]
    axis = figures.fooled(torch.rand(6, 1, 28, 28), [f"{i}" for i in range(6)], fates).axes[0]
    frames = [(patch.get_edgecolor()[:3], patch.get_linestyle()) for patch in axis.patches]
    expected = [figures.OUTCOMES[fate] for fate in fates]
    assert [frame[0] for frame in frames] == [matplotlib.colors.to_rgb(colour) for colour, _, _ in expected]
    assert len(set(frames)) == len(figures.OUTCOMES)
    assert [text.get_text() for text in axis.texts] == [f"{i}" for i in range(6)]


def test_explored_rates_have_a_panel_for_each_attack_and_a_line_for_each_pair():
    rates = {attack: {"a": [0.1, 0.2], "b": [0.3, math.nan]} for attack in figures.ATTACKS}
    figure = figures.explored(rates, [0.05, 0.1])
    assert [axis.get_title() for axis in figure.axes] == list(figures.ATTACKS.values())
    assert all(list(axis.lines[0].get_ydata()) == [0.1, 0.2] for axis in figure.axes)
    assert "a b" in words(figure)


@pytest.fixture(scope="module")
def weights_record(smoke):
    return smoke("correlation_weights")


def test_components_draw_the_recorded_points_under_their_r_squared(weights_record):
    values = weights_record.find({"correlation_weight": 0.05}, 0)["values"]["first_component"]
    axis = figures.components(weights_record, 0.05, 0).axes[0]
    points = sorted(point for group in axis.collections for point in group.get_offsets().tolist())
    given = values["points"]
    assert points == sorted(map(list, zip(given["model_1"], given["model_2"], strict=True)))
    assert axis.get_title() == f"λ = 0.05: R² = {values['r_squared']:.2f}"


def test_what_lambda_does_is_drawn_without_collapsed_pairs_which_are_crosses(weights_record):
    record = copy.deepcopy(weights_record)
    alive, dead = (record.find({"correlation_weight": weight}, 0) for weight in (0.0, 0.05))
    alive["values"]["accuracy"], dead["values"]["accuracy"] = [0.9, 0.8], [0.9, 0.1]
    top, middle, bottom = figures.correlation_weights(record).axes
    first = top.lines[0].get_ydata()
    assert first[0] == pytest.approx(alive["values"]["first_component"]["r_squared"]) and math.isnan(first[1])
    rates = [summaries.rate(row) for row in alive["values"]["transfer"]]
    assert middle.lines[0].get_ydata()[0] == pytest.approx(summaries.mean(rates))
    assert bottom.lines[0].get_ydata()[0] == pytest.approx(0.85)
    crosses = [line for line in bottom.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], round(line.get_ydata()[0], 6)) for line in crosses] == [(1, 0.5)]


def test_the_trade_off_is_drawn_up_to_the_epoch_that_was_asked_for(dverge_record):
    epsilon = dverge_record.config["epsilons"][0]
    course = figures.trade_offs(dverge_record, epsilon)
    assert list(course) == [tuple(arm) for arm in dverge_record.config["arms"]]
    for epoch in (0, 2):
        axis = figures.trade_off(dverge_record, course, epoch, epsilon).axes[0]
        trails = [line.get_xydata() for line in axis.lines if line.get_alpha() == 0.5]
        for trail, points in zip(trails, course.values(), strict=True):
            assert np.allclose(trail, points[: epoch + 1])


def test_a_start_whose_pairs_all_collapsed_is_not_drawn(dverge_record):
    record = copy.deepcopy(dverge_record)
    record.trials[0]["values"]["epochs"][0]["accuracy"] = [0.9, 0.1]
    setting = record.trials[0]["setting"]
    epsilon = record.config["epsilons"][0]
    course = figures.trade_offs(record, epsilon)
    assert (setting["arm"], setting["preset"]) not in course
    text = figures.STARTS[setting["arm"], setting["preset"]].replace("\n", " ")
    assert text not in words(figures.trade_off(record, course, 1, epsilon))


# --- The relation of features and transfer -------------------------------------------------------


def relation_records(seeds=(0, 1)):
    """Regular pairs at R² 0.8 and decorrelated ones at 0.4 (CNN) or far below zero, and one pushed apart."""
    features, transfers, pushed = [], [], []
    kinds = {
        ("cnn", "regular"): ((0.9, 0.7), (8, 6)),
        ("cnn", "decorrelated"): ((0.2, 0.6), (4, 2)),
        ("fully_connected", "decorrelated"): ((-9.0, 0.6), (9, 7)),
    }
    for seed in seeds:
        for (architecture, arm), (heldout, both) in kinds.items():
            rows = [
                {**counts(0.1, source, 0, 10, hits, 10), "attack": attack}
                for attack in ("fgsm-linf", "pgd-linf")
                for source, hits in zip((1, 2), both, strict=True)
            ]
            for trials in (features, transfers):
                one = trial(seed, arm, [0.9, 0.9], rows)
                one["setting"]["architecture"] = architecture
                one["values"]["predictability"] = [
                    {"source": source, "heldout": r2} for source, r2 in zip((1, 2), heldout, strict=True)
                ]
                trials.append(one)
        one = trial(seed, "x", [0.9, 0.9], [counts(0.1, s, 0, 10, 5, 10) for s in (1, 2)])
        one["setting"] = {"target_distance": 1000}
        one["values"]["features"] = [
            {"epsilon": e, "heldout_1_to_2": 0.9 - e, "heldout_2_to_1": 0.7 - e} for e in (0.0, 0.1)
        ]
        pushed.append(one)
    names = ("feature_correlation", "transfer", "parameter_distance")
    kept = zip(names, (features, transfers, pushed), strict=True)
    return [Record(name, "smoke", {}, trials) for name, trials in kept]


def spots(axis):
    """The drawn pairs as (R², rate, marker, filled), without the lines that join them."""
    return sorted(
        (round(x, 6), round(y, 6), line.get_marker(), line.get_mfc() != "white")
        for line in axis.lines
        if line.get_linestyle() == "None"
        for x, y in line.get_xydata().tolist()
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_pair_is_a_point_at_its_mean_r_squared_and_rate_and_clipped_far_below_zero(seeds):
    left, right = figures.relation(*relation_records(seeds)).axes
    trained = {(0.8, 0.7, "o", True), (0.4, 0.3, "s", True), (figures.LOWEST, 0.8, "s", False)}
    assert spots(right) == sorted([*trained] * len(seeds))
    assert spots(left) == sorted([*trained, (0.8, 0.5, "D", True)] * len(seeds))


def test_a_line_joins_an_arm_to_the_regular_pair_of_its_seed_and_architecture():
    _, right = figures.relation(*relation_records()).axes
    joined = [line.get_xydata().round(6).tolist() for line in right.lines if line.get_linestyle() == "-"]
    assert joined == [[[0.8, 0.7], [0.4, 0.3]]] * 2  # fully connected pairs have no regular one here


def test_a_pair_that_collapsed_or_that_one_record_lacks_is_no_point():
    features, transfers, pushed = relation_records((0,))
    features.find({"architecture": "cnn", "arm": "decorrelated"}, 0)["values"]["accuracy"] = [0.9, 0.1]
    pushed.trials[0]["values"]["accuracy"] = [0.1, 0.9]
    transfers.trials = [t for t in transfers.trials if t["setting"]["architecture"] == "cnn"]
    figure = figures.relation(features, transfers, pushed)
    assert [spots(axis) for axis in figure.axes] == [[(0.8, 0.7, "o", True)]] * 2
    assert "decorrelated" not in words(figure) and "pushed" not in words(figure)


def test_a_pair_that_nothing_fools_has_no_rate_and_is_no_point():
    features, transfers, pushed = relation_records((0,))
    for row in transfers.find({"architecture": "cnn", "arm": "regular"}, 0)["values"]["transfer"]:
        row["source_fooled_clean"] = row["both_fooled_clean"] = 0
    found = figures.related(features, transfers, pushed, attack="pgd-linf", epsilon=0.1)
    assert [(pair.architecture, pair.arm) for pair in found] == [
        ("cnn", "decorrelated"), ("fully_connected", "decorrelated"), ("cnn", "distance"),
    ]  # fmt: skip


def test_equal_features_and_no_pair_at_all_can_be_drawn():
    features, transfers, pushed = relation_records((0,))
    for row in features.trials[0]["values"]["predictability"]:
        row["heldout"] = 1.0
    figures.relation(features, transfers, pushed).canvas.draw()
    features.trials, pushed.trials[0]["values"]["accuracy"] = [], [0.1, 0.1]
    figure = figures.relation(features, transfers, pushed)
    figure.canvas.draw()
    assert all(spots(axis) == [] for axis in figure.axes)


def test_the_corner_of_the_relation_names_both_chapters_records():
    features, transfers, pushed = relation_records()
    pushed.trials[0]["provenance"]["date"] = "2027-05-06T00:00:00+00:00"
    corner = figures.relation(features, transfers, pushed)._supxlabel.get_text()
    assert pushed.caption() in corner and transfers.caption() in corner

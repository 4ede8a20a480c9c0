"""One real run of every experiment at smoke scale, and what they share, on pairs small enough to check."""

import copy
import dataclasses
import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from dnabook import attacks, data, experiments, losses, measures, models, records, training
from dnabook.dverge import PRESETS, Memory
from dnabook.experiments import (
    Context,
    architectures,
    between,
    capacity,
    controls,
    correlation_weights,
    dverge,
    feature_correlation,
    features_or_gradients,
    learned_features,
    pairs,
    parameter_distance,
    strangers,
    surrogate,
    transfer,
    variants,
)  # fmt: skip

CPU = Context(device=torch.device("cpu"))
TINY = pairs.Training(epochs=2, batch_size=250, train_images=500, plain_epochs=1)


@pytest.fixture(scope="module")
def distance_record(smoke):
    return smoke("parameter_distance")


@pytest.fixture(scope="module")
def correlation_record(smoke):
    return smoke("feature_correlation")


def checkpoints():
    return set(records.data.cache_folder().glob("checkpoints/*"))


@pytest.fixture(scope="module")
def transfer_and_checkpoints(smoke, correlation_record):
    """`transfer`, run after `feature_correlation`, and the checkpoints before and after it."""
    before = checkpoints()
    return smoke("transfer"), before, checkpoints()


@pytest.fixture(scope="module")
def transfer_record(transfer_and_checkpoints):
    return transfer_and_checkpoints[0]


@pytest.fixture(scope="module")
def dverge_record(smoke, transfer_record):
    """Run after `transfer`: its regular pair is where DVERGE begins."""
    return smoke("dverge")


@pytest.fixture(scope="module")
def variants_record(smoke, transfer_record):
    """Run after `transfer`: its decorrelated pair is the released variant."""
    return smoke("variants")


@pytest.fixture
def few_test_images(monkeypatch):
    """Natural accuracy is counted on 100 test images, not on all."""
    load = data.load

    def few(name, split="train", *, limit=None, device=None):
        return load(name, split, limit=100 if split == "test" else limit, device=device)

    monkeypatch.setattr(data, "load", few)


@pytest.fixture(scope="module")
def small_pair():
    """Two CNNs trained for a moment, right on some images and wrong on others."""
    pair, _ = pairs.train(replace(TINY, epochs=6, train_images=1000), "cnn", "regular", 0, CPU)
    return pair


# --- What every experiment promises --------------------------------------------------------------


@pytest.mark.parametrize("name", experiments.NAMES)
@pytest.mark.parametrize("scale", records.SCALES)
def test_every_experiment_has_settings_and_a_frozen_configuration_at_every_scale(name, scale):
    module = records.experiment(name)
    config = module.SCALES[scale]
    settings = module.settings(config)
    assert module.TITLE and settings
    assert settings == json.loads(json.dumps(settings))
    assert len({json.dumps(setting) for setting in settings}) == len(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.test_images = 1


@pytest.mark.parametrize("name", experiments.NAMES)
def test_the_defaults_of_a_configuration_are_the_paper_s(name):
    module = records.experiment(name)
    assert module.SCALES["paper"] == module.Config()


def test_the_paper_s_settings_are_those_of_its_text():
    figure1, figure3 = parameter_distance.Config(), transfer.Config()
    assert figure1.target_distances == (None, 1000, 1500, 2000, 2500, 3000)
    assert (figure1.distance_weight, figure1.epochs) == (1e-5, 10)
    assert (figure3.training.epochs, figure3.training.learning_rate) == (20, 5e-3)
    assert figure3.training.correlation_weight == 0.05
    assert (figure3.steps, figure3.epsilons) == (40, (0.05, 0.10, 0.15, 0.20))
    figure4 = dverge.Config()
    assert figure4.training == figure3.training
    assert (figure4.epochs, figure4.batch_size, figure4.learning_rate) == (10, 1000, 5e-3)
    assert (figure4.epsilons, figure4.distil_steps) == ((0.05, 0.10, 0.15), None)
    assert {("regular", "paper"), ("decorrelated", "paper")} <= set(figure4.arms)


# --- Smoke runs ----------------------------------------------------------------------------------


def check_transfer_rows(rows, config):
    expected = {
        (name, epsilon, *direction)
        for name in getattr(config, "attacks", ("fgsm-linf",))
        for epsilon in config.epsilons
        for direction in pairs.DIRECTIONS
    }
    assert {(r["attack"], r["epsilon"], r["source"], r["target"]) for r in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        assert row["n"] == config.test_images
        assert 0 <= row["both_fooled"] <= row["source_fooled"] <= row["n"]
        assert 0 <= row["both_fooled_clean"] <= row["source_fooled_clean"] <= row["n_clean"] <= row["n"]
        assert row["both_fooled_clean"] <= row["both_fooled"] <= row["target_wrong"] <= row["n"]
        assert row["source_fooled_clean"] <= row["source_fooled"]
        assert row["source_fooled"] > 0


def check_feature_rows(rows, config):
    assert [row["epsilon"] for row in rows] == [0.0, *config.epsilons]
    for row in rows:
        assert set(row) == {"epsilon", "heldout_1_to_2", "heldout_2_to_1", "pearson", "cka"}
        assert row["heldout_1_to_2"] <= 1 and row["heldout_2_to_1"] <= 1
        assert -1 <= row["pearson"] <= 1 and row["cka"] <= 1 + 1e-9


def test_figure_1_trains_one_pair_for_each_target_distance(distance_record):
    config = parameter_distance.SCALES["smoke"]
    assert distance_record.seeds == [0]
    settings = [trial["setting"] for trial in distance_record.trials]
    assert sorted(settings, key=str) == sorted(parameter_distance.settings(config), key=str)
    for trial in distance_record.trials:
        values = trial["values"]
        assert len(values["accuracy"]) == 2 and all(0 <= a <= 1 for a in values["accuracy"])
        check_transfer_rows(values["transfer"], config)
        check_feature_rows(values["features"], config)
        assert all(len(losses) == config.epochs for losses in values["history"].values())


def test_pairs_pulled_towards_a_distance_come_nearer_to_it_than_free_ones(distance_record):
    free, pulled = (distance_record.find({"target_distance": d}, 0)["values"] for d in (None, 1000))
    assert free["initial_distance"] == pulled["initial_distance"] > 0
    assert abs(pulled["distance"] - 1000) < abs(free["distance"] - 1000)
    assert "distance" in pulled["history"] and "distance" not in free["history"]


def test_stronger_attacks_fool_the_source_more_often(distance_record):
    weak, strong = (
        sum(row["source_fooled"] for row in distance_record.rows("transfer", epsilon=epsilon))
        for epsilon in (0.05, 0.2)
    )
    assert weak < strong


def test_figure_2_compares_regular_and_decorrelated_pairs_in_both_directions(correlation_record):
    config = feature_correlation.SCALES["smoke"]
    assert {(t["setting"]["architecture"], t["setting"]["arm"]) for t in correlation_record.trials} == set(
        config.pairs
    )
    for trial in correlation_record.trials:
        values = trial["values"]
        assert all(0 <= accuracy <= 1 for accuracy in values["accuracy"])
        assert [(r["source"], r["target"]) for r in values["predictability"]] == list(pairs.DIRECTIONS)
        for row in values["predictability"]:
            assert row["n"] == config.test_images
            assert row["heldout"] <= row["in_sample"] <= 1 and row["adjusted"] <= row["in_sample"]
            assert row["chance_floor"] == pytest.approx(row["rank"] / (row["n"] - 1))
            assert 0 < row["effective_rank"] <= row["rank"] <= row["live_units"] <= 784
            assert row["in_sample"] <= row["batch_in_sample"] + 0.05  # fewer rows than columns fit exactly
        check_feature_rows(values["features"], config)


def test_figure_2_s_scatter_has_as_many_points_of_both_models_as_labels(correlation_record):
    config = feature_correlation.SCALES["smoke"]
    for first in correlation_record.values("first_component"):
        assert 0 <= first["r_squared"] <= 1
        assert {key: len(values) for key, values in first["points"].items()} == {
            "model_1": config.points, "model_2": config.points, "label": config.points,
        }  # fmt: skip
        assert set(first["points"]["label"]) <= set(range(10))


def test_natural_images_are_the_epsilon_zero_row_of_the_features(correlation_record):
    for trial in correlation_record.trials:
        natural = trial["values"]["features"][0]
        forth, back = (row["heldout"] for row in trial["values"]["predictability"])
        assert natural["epsilon"] == 0
        assert (natural["heldout_1_to_2"], natural["heldout_2_to_1"]) == pytest.approx(
            (forth, back), rel=1e-6
        )


def test_decorrelating_lowers_the_correlation_that_it_trains_on(transfer_record):
    history = transfer_record.find({"architecture": "cnn", "arm": "decorrelated"}, 0)["values"]["history"]
    assert history["correlation"][-1] < history["correlation"][0]
    regular = transfer_record.find({"architecture": "cnn", "arm": "regular"}, 0)["values"]["history"]
    assert "correlation" not in regular


def test_figure_3_counts_every_attack_epsilon_and_direction(transfer_record):
    config = transfer.SCALES["smoke"]
    assert len(transfer_record.trials) == len(config.pairs)
    for trial in transfer_record.trials:
        check_transfer_rows(trial["values"]["transfer"], config)
        assert len(trial["values"]["history"]["loss"]) == config.training.epochs
    for weak in transfer_record.rows("transfer", attack="pgd-linf", epsilon=config.epsilons[0]):
        same = {key: weak[key] for key in ("arm", "source")}
        strong = next(
            transfer_record.rows("transfer", attack="pgd-linf", epsilon=config.epsilons[-1], **same)
        )
        assert weak["source_fooled"] <= strong["source_fooled"]


def test_experiments_that_need_the_same_trained_pair_train_it_once(
    transfer_and_checkpoints, correlation_record
):
    transfer_record, before, after = transfer_and_checkpoints
    assert after == before != set()
    for trial in correlation_record.trials:
        other = transfer_record.find(trial["setting"], trial["seed"])
        assert (
            other["values"]["accuracy"] != [] and other["provenance"]["data"] == trial["provenance"]["data"]
        )


@pytest.mark.parametrize("name", experiments.NAMES)
def test_a_smoke_record_is_complete_and_fits_into_json(name, smoke, transfer_record):
    smoke(name)  # runs what no test has run yet
    record = records.current(name, "smoke")
    settings = records.experiment(name).settings(records.experiment(name).SCALES["smoke"])
    assert all(record.find(setting, 0) for setting in settings) and len(record.trials) == len(settings)
    text = json.dumps(dataclasses.asdict(record))  # compared as text: nan is not equal to itself
    assert json.dumps(json.loads(text)) == text
    for trial in record.trials:
        accuracy = trial["values"]["accuracy"]
        arms = len(record.config.get("arms", ()))
        models = {
            "strangers": 2 * arms, "surrogate": 3 + arms, "features_or_gradients": 2 * arms + 2,
            "architectures": 2 * len(record.config.get("kinds", ())),
        }.get(name, 2)  # fmt: skip
        assert len(accuracy) == models and all(0 <= a <= 1 for a in accuracy)  # `dnabook show` prints them
    assert smoke(name) == record


def test_a_run_repeats_exactly_with_its_seed():
    config = parameter_distance.Config(
        target_distances=(100,), epochs=1, batch_size=100, train_images=300, test_images=60, epsilons=(0.1,)
    )
    setting = {"target_distance": 100}
    first, again, other = (parameter_distance.run(config, setting, seed, CPU) for seed in (3, 3, 4))
    assert first == again
    assert first["history"] != other["history"] and first["initial_distance"] != other["initial_distance"]
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(settings))
    for distance in (100, 200):  # so that an interrupted pair goes on, and as itself
        assert parameter_distance.run(config, {"target_distance": distance}, 3, context)["history"]
    assert [settings["target_distance"] for settings in asked] == [100, 200]
    assert asked[0]["parameter_distance"]["epochs"] == 1


# --- DVERGE --------------------------------------------------------------------------------------


def test_figure_4_attacks_the_pair_before_and_after_every_epoch(dverge_record):
    config = dverge.SCALES["smoke"]
    epochs = range(config.epochs + 1)
    assert {(t["setting"]["arm"], t["setting"]["preset"]) for t in dverge_record.trials} == set(config.arms)
    for trial in dverge_record.trials:
        values = trial["values"]
        assert [each["epoch"] for each in values["epochs"]] == list(epochs)
        assert values["accuracy"] == values["epochs"][-1]["accuracy"]
        assert len({tuple(each["accuracy"]) for each in values["epochs"]}) == len(epochs)  # it trains
        own = {"paper": {"loss_1", "loss_2"}}.get(trial["setting"]["preset"], {"loss_1"})
        assert set(values["epochs"][0]) == {"epoch", "accuracy"}
        assert all(set(each) == {"epoch", "accuracy", *own} for each in values["epochs"][1:])
        place = [(row["epoch"], row["epsilon"], row["source"], row["target"]) for row in values["transfer"]]
        assert place == [(n, e, *d) for n in epochs for e in config.epsilons for d in pairs.DIRECTIONS]
        for row in values["transfer"]:
            assert row["attack"] == "pgd-linf" and row["n"] == config.test_images
            assert 0 <= row["both_fooled"] <= row["source_fooled"] <= row["n"]


def test_every_way_of_going_on_begins_with_figure_3_s_pair(dverge_record, transfer_record):
    accuracy = transfer_record.find({"architecture": "cnn", "arm": "regular"}, 0)["values"]["accuracy"]
    config = dverge.SCALES["smoke"]
    assert {arm for arm, _ in config.arms} == {"regular"}
    starts = [
        (trial["values"]["epochs"][0], [row for row in trial["values"]["transfer"] if row["epoch"] == 0])
        for trial in dverge_record.trials
    ]
    assert all(start == starts[0] for start in starts)
    assert starts[0][0]["accuracy"] == accuracy
    ends = [trial["values"]["accuracy"] for trial in dverge_record.trials]
    assert len({tuple(end) for end in ends}) == len(ends)


@pytest.mark.parametrize("name", PRESETS)
def test_fewer_steps_of_distilling_reach_as_far_and_change_nothing_else(name):
    preset = PRESETS[name]
    assert dverge.preset_of(dverge.Config(), name) == preset
    fewer = dverge.preset_of(dverge.Config(distil_steps=5), name)
    assert fewer.steps == 5
    assert fewer.steps * fewer.step_size == pytest.approx(preset.steps * preset.step_size)
    assert replace(fewer, steps=preset.steps, step_size=preset.step_size) == preset


SHORT = dverge.Config(
    TINY, epochs=2, batch_size=100, train_images=200, distil_steps=3, epsilons=(0.1,), steps=2, test_images=50
)


def going_on(name, pair, seed=0):
    """Both epochs of plain training or of a preset, each with its terms."""
    if name == "plain":
        return itertools.islice(dverge._plain(SHORT, pair, seed, CPU, Memory()), SHORT.epochs)
    preset = dverge.preset_of(SHORT, name)
    return dverge._dverge(SHORT, preset, pair, seed, CPU, [Memory() for _ in range(preset.turns)])


def passes(name):
    """Forward passes of the first model and its backward passes, over both epochs."""
    pair = [models.CNN().to(memory_format=torch.channels_last) for _ in range(2)]  # it need not be found out
    forward, backward = [], []
    pair[0].body[0].register_forward_hook(lambda *_: forward.append(1))
    pair[0].body[3].register_full_backward_hook(lambda *_: backward.append(1))
    assert len(list(going_on(name, pair))) == SHORT.epochs
    return len(forward), len(backward)


def test_plain_training_makes_as_many_passes_as_dverge():
    batches = SHORT.epochs * 2
    plain, paper = passes("plain"), passes("paper")
    assert plain == (4 * batches, 4 * batches)
    assert paper == (5 * batches, 4 * batches)  # the target's features need no backward pass


def test_plain_training_is_one_run_of_side_by_side_training():
    pair, other = ([models.CNN(), models.CNN()] for _ in range(2))
    for model, twin in zip(pair, other, strict=True):
        twin.load_state_dict(model.state_dict())
    terms = list(going_on("plain", tuple(pair), 3))
    objective = losses.classification(*other)
    images = data.load("mnist", limit=SHORT.train_images, device="cpu")
    history = training.fit(objective, objective.parameters(), data.Batches(images, 100, seed=3), epochs=8)
    assert [each["loss_1"] for each in terms] == [history["loss"][3], history["loss"][7]]
    for model, twin in zip(pair, other, strict=True):
        assert measures.parameter_distance(model, twin) == 0


def test_dverge_repeats_exactly_with_its_seed(few_test_images):
    config, setting = replace(SHORT, epochs=1), {"arm": "regular", "preset": "official"}
    assert dverge.run(config, setting, 3, CPU) == dverge.run(config, setting, 3, CPU)


@pytest.mark.parametrize("preset", ["paper", "official", "plain"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_trial_of_figure_4_goes_on_after_the_epoch_at_which_it_was_interrupted(
    preset, stop, tmp_path, few_test_images
):
    config, setting = replace(SHORT, epochs=3), {"arm": "regular", "preset": preset}
    whole, trained = dverge.run(config, setting, 0, CPU), []

    def context(stop=None):
        def progress(each, name):
            for number in each:
                if name in ("DVERGE", "plain training"):
                    if number == stop:
                        raise KeyboardInterrupt
                    trained.append(number)
                yield number

        def checkpoint(**settings):
            return records.Checkpoint(tmp_path / "dverge.pt") if "dverge" in settings else None

        return CPU._replace(progress=progress, checkpoint=checkpoint)

    with pytest.raises(KeyboardInterrupt):
        dverge.run(config, setting, 0, context(stop))
    torch.rand(7)
    assert dverge.run(config, setting, 0, context()) == whole
    assert trained == [1, 2, 3]
    assert dverge.run(config, setting, 0, context()) == whole  # its result was lost, its epochs were not
    assert trained == [1, 2, 3]


# --- Variants ------------------------------------------------------------------------------------


def test_the_errata_compare_every_variant_on_features_transfer_and_l2_attacks(variants_record):
    config = variants.SCALES["smoke"]
    assert len(variants_record.trials) == len(config.architectures) * len(config.variants)
    for trial in variants_record.trials:
        values = trial["values"]
        assert [(r["source"], r["target"]) for r in values["predictability"]] == list(pairs.DIRECTIONS)
        assert all(row["heldout"] <= 1 and 0 < row["live_units"] <= 784 for row in values["predictability"])
        place = [(row["attack"], row["epsilon"], row["source"]) for row in values["transfer"]]
        assert place == [("pgd-linf", e, source) for e in config.epsilons for source in (1, 2)]
        assert len(values["history"]["correlation"]) == config.training.epochs
        assert [(r["attack"], r["epsilon"]) for r in values["l2"]] == [
            (name, e) for name in ("fgsm", "pgd") for e in config.epsilons
        ]


def test_the_released_l2_attacks_miss_the_length_that_the_corrected_ones_keep(variants_record):
    for row in variants_record.rows("l2"):
        assert row["radius"] == pytest.approx(28 * row["epsilon"]) and row["n"] == 250
        assert 0.4 * row["radius"] < row["corrected_length"] <= row["radius"] * (1 + 1e-5)
        assert 0 <= row["released_fooled"] <= row["n"] and 0 <= row["corrected_fooled"] <= row["n"]
        if row["attack"] == "fgsm":  # a length that the batch shares: 1/√N of the radius, were all alike
            assert row["released_length"] < 2 * row["radius"] / 250**0.5
            assert row["released_fooled"] <= row["corrected_fooled"]
        else:  # it starts far outside the ball and stays near where it started
            assert row["released_length"] <= row["radius"] * (1 + 1e-5)


def test_the_released_variant_is_figure_3_s_decorrelated_pair(variants_record, transfer_record):
    figure3 = transfer_record.find({"architecture": "cnn", "arm": "decorrelated"}, 0)["values"]
    found = {t["setting"]["variant"]: t["values"] for t in variants_record.trials}
    assert found["released"]["accuracy"] == figure3["accuracy"]
    assert found["released"]["history"] == figure3["history"]
    assert found["corrected"]["history"]["correlation"] != found["released"]["history"]["correlation"]


@pytest.mark.parametrize("variant, arm", [
    ("none", "regular"), ("printed", "decorrelated"), ("released", "decorrelated"),
    ("corrected", "decorrelated"), ("summed", "decorrelated"),
])  # fmt: skip
def test_each_variant_of_the_errata_trains_with_its_own_loss(variant, arm, monkeypatch):
    asked = []

    def stop(how, architecture, arm, seed, context):
        asked.append((how.variant if arm == "decorrelated" else None, architecture, arm, seed))
        raise KeyboardInterrupt

    monkeypatch.setattr(variants, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        variants.run(variants.Config(), {"architecture": "cnn", "variant": variant}, 2, CPU)
    assert asked == [(None if arm == "regular" else variant, "cnn", arm, 2)]


# --- Strangers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strangers_record(smoke):
    return smoke("strangers")


def test_attacks_pass_both_ways_between_the_models_of_every_two_arms(strangers_record):
    config = strangers.SCALES["smoke"]
    cells = [
        (source, target, *direction)
        for source in config.arms for target in config.arms for direction in pairs.DIRECTIONS
    ]  # fmt: skip
    (trial,) = strangers_record.trials
    for table, epsilons in (("relation", [None]), ("transfer", config.epsilons)):
        found = [
            (r.get("epsilon"), r["source_arm"], r["target_arm"], r["source"], r["target"])
            for r in trial["values"][table]
        ]
        assert sorted(found, key=str) == sorted(((e, *c) for e in epsilons for c in cells), key=str)
    for row in trial["values"]["transfer"]:
        assert row["both_fooled_clean"] <= row["source_fooled_clean"] <= row["n_clean"] <= row["n"] == 250
        assert row["both_fooled"] <= min(row["source_fooled"], row["target_wrong"])
    for row in trial["values"]["relation"]:
        assert row["heldout"] <= 1 and -1 <= row["gradient_cosine"] <= 1


def test_a_pair_s_own_cells_are_those_of_figure_3(strangers_record, transfer_record):
    config = strangers.SCALES["smoke"]
    mine = [
        r for r in strangers_record.trials[0]["values"]["transfer"]
        if (r["source_arm"], r["target_arm"]) == ("regular", "regular")
    ]  # fmt: skip
    trial = transfer_record.find({"architecture": "cnn", "arm": "regular"}, 0)
    assert strangers_record.trials[0]["values"]["accuracy"][:2] == trial["values"]["accuracy"]
    assert len(mine) == 2 and all(r["n"] == config.test_images for r in mine)


def test_a_cell_is_of_the_model_that_is_attacked_and_the_one_that_reads(small_pair, mnist_test):
    others, _ = pairs.train(replace(TINY, epochs=6, train_images=1000), "cnn", "regular", 1, CPU)
    pair_of = {"regular": small_pair, "stranger": others}
    models = {(arm, number): pair_of[arm][number - 1] for arm in pair_of for number in (1, 2)}
    config = replace(strangers.SCALES["smoke"], epsilons=(0.1,), steps=3, test_images=200)
    x, y = mnist_test.x, mnist_test.y

    def row_of(rows):
        cell = {"source_arm": "stranger", "source": 2, "target_arm": "regular", "target": 1}
        (row,) = (row for row in rows if cell.items() <= row.items())
        return row

    z = [measures.features(model, x) for model in (others[1], small_pair[0])]
    there, back = (measures.r_squared(*pair, heldout=True) for pair in (z, z[::-1]))
    values = strangers.compared(models, mnist_test, config, 3, CPU)
    assert row_of(values["relation"])["heldout"] == there != back
    row = row_of(values["transfer"])
    x_adv = attacks.craft(pairs.attack("pgd-linf", 0.1, mnist_test, steps=3, seed=3), others[1], x, y)
    counts = measures.transfer_counts(others[1], small_pair[0], x_adv, y, x)
    assert (row["both_fooled_clean"], row["source_fooled_clean"]) == tuple(counts)
    assert row["target_wrong"] == int((measures.predictions(small_pair[0], x_adv) != y).sum())


def test_strangers_share_neither_weights_nor_batches_with_the_others(monkeypatch):
    asked = []

    def stop(how, architecture, arm, seed, context):
        asked.append((how.variant, architecture, arm, seed))
        return pairs.new_pair(architecture, seed, context), {}

    monkeypatch.setattr(strangers, "train", stop)
    config = strangers.Config(epsilons=(), feature_images=100, test_images=50)
    strangers.run(config, {"architecture": "cnn"}, 3, CPU)
    assert asked == [
        ("released", "cnn", "regular", 3), ("released", "cnn", "decorrelated_late", 3),
        ("corrected", "cnn", "decorrelated", 3), ("released", "cnn", "regular", 1003),
    ]  # fmt: skip


def test_a_pair_of_another_seed_has_checkpoints_of_its_own():
    """The trial's seed does not tell them apart: both pairs belong to one trial."""
    keys = []

    def checkpoint(**key):
        keys.append(key)

    how = dataclasses.replace(pairs.TRAINING["smoke"], epochs=1, plain_epochs=0, train_images=200)
    for seed in (0, 1000):
        pairs.train(how, "cnn", "regular", seed, CPU._replace(checkpoint=checkpoint))
    assert keys[0] != keys[1]


# --- Without learning ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controls_record(smoke, transfer_record):
    return smoke("controls")


def test_the_controls_stand_beside_figure_3_s_regular_pair(controls_record, transfer_record):
    (trial,) = controls_record.trials
    regular = transfer_record.find({"architecture": "cnn", "arm": "regular"}, 0)
    assert trial["values"]["accuracy"] == regular["values"]["accuracy"]


def test_what_is_trained_predicts_more(controls_record):
    (trial,) = controls_record.trials
    assert len(trial["values"]["accuracy_of_heads"]) == 2
    r2 = {(row["source"], row["target"]): row["heldout"] for row in trial["values"]["predictability"]}
    assert list(r2) == list(controls.COMPARED)
    assert r2["trained", "trained"] > r2["untrained", "trained"] > 0
    damage = trial["values"]["damage"]
    for table in ("damage", "transfer"):
        assert [(row["source"], row["target"]) for row in trial["values"][table]] == list(pairs.DIRECTIONS)
    for row in damage:
        assert max(row["attacked"], row["signs"], row["untrained"]) <= row["counted"] <= 250


class Mapped(torch.nn.Module):
    """Features are pixels times a matrix; logits are ten of them, or pixels times another matrix."""

    def __init__(self, matrix, logits=None):
        super().__init__()
        self.matrix, self.logits = matrix, matrix[:, :10] if logits is None else logits

    def features(self, x):
        return x.flatten(1) @ self.matrix

    def forward(self, x):
        return x.flatten(1) @ self.logits


@pytest.fixture
def mapped():
    """Two models, of which the second's features are a linear map of the first's, as both are of pixels."""
    first = torch.randn(784, 20)
    return Mapped(first), Mapped(first @ torch.randn(20, 15))


def test_a_linear_map_between_features_predicts_how_an_attack_moves_them(mapped, mnist_test):
    """A ridge so large that the map is zero predicts nothing of either."""
    found = between.movement(mapped, mnist_test, (0.1, 0.2), (1e-9, 1e9), 0)
    exact, none, own = "ridge 1e-09", "ridge 1e+09", "movements"
    explains = {(row["epsilon"], row["map"]): row["explains"] for row in found["movement"]}
    wanted = {(e, name): share for e in (0.1, 0.2) for name, share in ((exact, 1), (none, 0), (own, 1))}
    assert explains == pytest.approx(wanted, abs=1e-3)
    natural = {row["map"]: row["natural"] for row in found["maps"]}
    assert natural[exact] == pytest.approx(1, abs=1e-6) and natural[none] == pytest.approx(0, abs=0.1)


def test_no_map_of_movements_has_a_constant(mnist_test):
    """The attack moves the lower half of an image, on which only the second model's features depend: the
    first's stay, so nothing is explained, although what the second's do has a mean."""
    upper, lower = torch.zeros(784, 12), torch.zeros(784, 12)
    upper[:392], lower[392:] = torch.randn(392, 12), torch.rand(392, 12)
    pair = Mapped(upper, logits=lower), Mapped(lower)
    found = between.movement(pair, mnist_test, (0.1,), (1e-6,), 0)
    assert [row["explains"] for row in found["movement"]] == [0, 0]


def test_the_first_network_of_one_pair_predicts_the_second_of_another(mapped, mnist_test):
    others = pairs.new_pair("cnn", 5, CPU)
    found = {(r["source"], r["target"]): r for r in controls.predictability(mapped, others, mnist_test.x)}
    assert found["trained", "trained"]["heldout"] == pytest.approx(1, abs=1e-3)
    z1, z2 = measures.features(others[0], mnist_test.x), measures.features(mapped[1], mnist_test.x)
    row = found["untrained", "trained"]
    assert row["heldout"] == measures.r_squared(z1, z2, heldout=True) and row["cka"] == measures.cka(z1, z2)
    assert (
        row["effective_rank"] == found["pixels", "trained"]["effective_rank"] == measures.effective_rank(z2)
    )
    pixels = measures.r_squared(mnist_test.x.flatten(1), z2, heldout=True)
    assert found["pixels", "trained"]["heldout"] == pixels


@pytest.fixture
def reading_pair(trained_cnn):
    """A CNN that reads nine digits in ten, and one whose weights lie near its own."""
    other = copy.deepcopy(trained_cnn)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    return trained_cnn, other


def test_the_share_that_is_misread_under_attack_is_the_conditioned_transfer_rate(reading_pair, mnist_test):
    x, y, untrained = mnist_test.x, mnist_test.y, pairs.new_pair("cnn", 5, CPU)
    found = controls.damage(reading_pair, untrained, mnist_test, 0.1, (2, 1), 5, seed=3)
    x_adv = attacks.craft(pairs.attack("pgd-linf", 0.1, mnist_test, steps=5, seed=3), reading_pair[1], x, y)
    counts = measures.transfer_counts(reading_pair[1], reading_pair[0], x_adv, y, x)
    assert (found["attacked"], found["counted"]) == tuple(counts) and 0 < counts[0] < counts[1]
    assert (found["source"], found["target"], found["epsilon"]) == (2, 1, 0.1)
    signs = attacks.random_signs(x, 0.1, generator=torch.Generator().manual_seed(3))
    right = torch.stack([measures.predictions(model, x) == y for model in reading_pair]).all(0)
    counted = right & (measures.predictions(reading_pair[1], x_adv) != y)
    assert found["signs"] == int((measures.predictions(reading_pair[0], signs)[counted] != y[counted]).sum())
    again = controls.damage(reading_pair, reading_pair, mnist_test, 0.1, (2, 1), 5, seed=3)
    assert again["untrained"] == again["attacked"] == found["attacked"]


def test_heads_learn_to_read_features_that_stay_as_they_were_drawn():
    how = replace(TINY, epochs=6, train_images=1000)
    for architecture in ("cnn", "fully_connected"):
        drawn, heads = (pairs.new_pair(architecture, 7, CPU) for _ in range(2))
        pairs.train_heads(how, heads, 7, CPU, architecture=architecture)
        for before, after in zip(drawn, heads, strict=True):
            for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
                assert torch.equal(old, new) == name.startswith("body"), name
            assert not after.training


def test_heads_have_a_checkpoint_of_their_own():
    keys = []
    context = CPU._replace(checkpoint=lambda **key: keys.append(key))
    pairs.train(TINY, "cnn", "regular", 1000, context)
    pairs.train_heads(TINY, pairs.new_pair("cnn", 1000, CPU), 1000, context, architecture="cnn")
    assert keys[0] != keys[1]


def test_attacks_through_a_network_are_counted_on_each_that_reads(reading_pair, mnist_test):
    x, y, (target, source) = mnist_test.x, mnist_test.y, reading_pair
    rows = between.attacked_through(source, [target, source], mnist_test, 0.1, 5, seed=3)
    x_adv = attacks.craft(pairs.attack("pgd-linf", 0.1, mnist_test, steps=5, seed=3), source, x, y)
    signs = attacks.random_signs(x, 0.1, generator=torch.Generator().manual_seed(3))
    fooled = measures.predictions(source, x_adv) != y
    for row, reader in zip(rows, (target, source), strict=True):
        counts = measures.transfer_counts(source, reader, x_adv, y, x)
        assert (row["both_fooled_clean"], row["source_fooled_clean"]) == tuple(counts)
        assert row["target_wrong"] == int((measures.predictions(reader, x_adv) != y).sum())
        right = torch.stack([measures.predictions(model, x) == y for model in (source, reader)]).all(0)
        taken = right & fooled
        astray = measures.predictions(reader, signs)[taken] != y[taken]
        assert (row["signs_clean"], row["n_clean"]) == (int(astray.sum()), int(right.sum()))
        assert (row["attack"], row["epsilon"], row["n"]) == ("pgd-linf", 0.1, len(x))
    assert 0 < rows[0]["signs_clean"] < rows[0]["both_fooled_clean"] < rows[0]["source_fooled_clean"]
    assert rows[1]["both_fooled_clean"] == rows[1]["source_fooled_clean"]


def test_random_signs_count_only_where_the_attack_fooled_its_source(reading_pair, mnist_test):
    class Certain(torch.nn.Module):
        """Reads every digit whatever is done to it."""

        def forward(self, x):
            return torch.nn.functional.one_hot(mnist_test.y, 10) + 0 * x.sum()

    (row,) = between.attacked_through(Certain(), reading_pair[1:], mnist_test, 0.1, 2, seed=3)
    assert row["n_clean"] > 100 and row["source_fooled_clean"] == row["signs_clean"] == 0


def test_an_attack_without_room_counts_no_image(small_pair, mnist_test):
    found = controls.damage(small_pair, small_pair, mnist_test, 0.0, (1, 2), 1, seed=0)
    assert [found[name] for name in ("counted", "attacked", "signs", "untrained")] == [0] * 4


# --- Features that stopped learning --------------------------------------------------------------


@pytest.fixture(scope="module")
def learned_record(smoke, transfer_record):
    return smoke("learned_features")


def test_where_features_learned_nothing_the_head_of_figure_11_is_that_of_the_controls(
    learned_record, controls_record
):
    (learned,), (control,) = learned_record.trials, controls_record.trials
    of = {"epochs": 0, "head": "own"}
    rows = learned_record.rows("transfer", **of)
    assert [
        {k: row[k] for k in wanted} for row, wanted in zip(rows, control["values"]["transfer"], strict=True)
    ] == (control["values"]["transfer"])
    assert learned["values"]["accuracy"] == control["values"]["accuracy"]
    accuracy = [row["accuracy"] for row in learned_record.rows("sources", **of)]
    assert accuracy == control["values"]["accuracy_of_heads"]
    (wanted,) = (
        row["heldout"] for row in control["values"]["predictability"]
        if (row["source"], row["target"]) == ("untrained", "trained")
    )  # fmt: skip
    (found,) = learned_record.rows("relation", epochs=0, source=1)
    assert found["heldout"] == wanted


def test_every_age_and_head_is_attacked_and_compared_in_both_directions(learned_record):
    config, (trial,) = learned_features.SCALES["smoke"], learned_record.trials
    ages = [(age, *d) for age in config.epochs for d in pairs.DIRECTIONS]
    relation = trial["values"]["relation"]
    assert [(row["epochs"], row["source"], row["target"]) for row in relation] == ages
    each = list(itertools.product(config.epochs, config.heads, pairs.DIRECTIONS))
    for table, times in (("sources", 1), ("movement", 2), ("transfer", 1)):  # two maps, one ε
        rows = trial["values"][table]
        found = [(row["epochs"], row["head"], (row["source"], row["target"])) for row in rows]
        assert found == [cell for cell in each for _ in range(times)], table
    heldout = {row["epochs"]: row["heldout"] for row in relation if row["source"] == 1}
    assert heldout[0] < heldout[4] < 1
    read = {(r["epochs"], r["head"], r["source"]): r["accuracy"] for r in trial["values"]["sources"]}
    assert all(read[0, "hidden", source] > read[0, "own", source] for source in (1, 2))


def test_what_is_measured_at_an_age_is_of_the_network_attacked_and_the_other_s_reader(
    monkeypatch, reading_pair, mnist_test, few_test_images
):
    """Readers are two known networks, and so are those attacked, so that cells can be told apart."""
    monkeypatch.setattr(learned_features, "train", lambda *args: (reading_pair, {}))
    aged = pairs.new_pair("cnn", 5, CPU)
    monkeypatch.setattr(learned_features, "features_after", lambda *args: aged)
    monkeypatch.setattr(learned_features, "with_heads", lambda *args: reading_pair[::-1])
    monkeypatch.setattr(learned_features, "train_heads", lambda *args, **made: None)
    config = learned_features.Config(
        epochs=(0,), heads=("own",), epsilons=(0.1,), steps=3, feature_images=100, test_images=80
    )
    values = learned_features.run(config, {"architecture": "cnn"}, 3, CPU)
    test = data.load("mnist", "test", limit=100)
    x, y, sources = test.x, test.y, reading_pair[::-1]
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    for row, (source, target) in zip(values["relation"], pairs.DIRECTIONS, strict=True):
        z1 = measures.features(aged[source - 1], x[order])
        z2 = measures.features(reading_pair[target - 1], x[order])
        assert row["heldout"] == measures.r_squared(z1, z2, heldout=True)
        assert row["effective_rank"] == measures.effective_rank(z1)
    for row, (source, target) in zip(values["sources"], pairs.DIRECTIONS, strict=True):
        across = sources[source - 1], reading_pair[target - 1]
        assert row["accuracy"] == measures.accuracy(across[0], x, y)
        assert row["gradient_cosine"] == measures.gradient_cosine(*across, x[:80], y[:80]) == pytest.approx(1)
    for row, (source, target) in zip(values["transfer"], pairs.DIRECTIONS, strict=True):
        few = test[:80]
        across = sources[source - 1], [reading_pair[target - 1]]
        (wanted,) = between.attacked_through(*across, few, 0.1, 3, seed=3)
        assert {name: row[name] for name in wanted} == wanted and row["n"] == 80
    mixed, ridge = test.shuffled(3), (between.NATURAL_RIDGE,)
    for source, target in pairs.DIRECTIONS:
        across = sources[source - 1], reading_pair[target - 1]
        rows = [row for row in values["movement"] if (row["source"], row["target"]) == (source, target)]
        wanted = between.movement(across, mixed, (0.1,), ridge, 3)["movement"]
        assert [(row["map"], row["explains"]) for row in rows] == [
            (row["map"], row["explains"]) for row in wanted
        ]
        assert rows[0]["map"] == between.NATURAL_MAP


def test_features_of_an_age_are_those_of_the_regular_pair_trained_so_long(monkeypatch):
    asked = []

    def train(how, *place):
        asked.append((how.epochs, how.train_images, *place[:3]))
        return "pair", "history"

    monkeypatch.setattr(learned_features, "train", train)
    how = replace(TINY, epochs=20)
    for age in (0.1, 1, 3):
        assert learned_features.features_after(age, how, "cnn", 1007, CPU) == "pair"
    assert asked == [
        (epochs, images, "cnn", "regular", 1007) for epochs, images in ((1, 50), (1, 500), (3, 500))
    ]
    drawn, same = learned_features.features_after(0, how, "cnn", 7, CPU), pairs.new_pair("cnn", 7, CPU)
    for one, other in zip(drawn, same, strict=True):
        assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("kind", learned_features.HEADS)
def test_new_heads_leave_the_features_and_the_pair_that_they_come_from(kind, mnist_test):
    pair, drawn = pairs.new_pair("cnn", 5, CPU), pairs.new_pair("cnn", 7, CPU)
    copies, again = (learned_features.with_heads(kind, pair, "cnn", 7, CPU) for _ in range(2))
    pairs.train_heads(TINY, copies, 7, CPU, architecture="cnn")
    x = mnist_test.x[:5]
    for model, copied, untrained, other in zip(pair, copies, again, drawn, strict=True):
        assert torch.equal(model.features(x), copied.features(x))
        assert all(p.requires_grad for p in model.parameters())
        assert copied(x).shape == (5, 10) and not torch.equal(
            copied(x), untrained(x)
        )  # the first have learned
        if kind == "own":
            assert all(map(torch.equal, untrained.tail.parameters(), other.tail.parameters()))
        else:
            assert sum(p.numel() for p in untrained.tail.parameters()) == 784 * 200 + 200 + 200 * 10 + 10
    heads = [torch.cat([p.flatten() for p in model.tail.parameters()]) for model in again]
    assert not torch.equal(*heads)


def test_heads_of_every_age_and_kind_have_checkpoints_of_their_own(monkeypatch, few_test_images):
    keys = []
    context = CPU._replace(checkpoint=lambda **key: keys.append(json.dumps(key, sort_keys=True)))
    config = learned_features.Config(
        replace(TINY, epochs=1), epochs=(0, 0.5, 1), epsilons=(), feature_images=100, test_images=50
    )
    learned_features.run(config, {"architecture": "cnn"}, 3, context)
    assert len(keys) == 1 + 2 + 3 * 2 and len(set(keys)) == len(keys)


# --- A fixed surrogate ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def surrogate_record(smoke, transfer_record):
    return smoke("surrogate")


def test_the_undefended_reader_is_figure_3_s_second_network(surrogate_record, transfer_record):
    (trial,) = surrogate_record.trials
    config, regular = (
        surrogate.SCALES["smoke"],
        transfer_record.find({"architecture": "cnn", "arm": "regular"}, 0),
    )
    values = trial["values"]
    assert values["accuracy"][0] == regular["values"]["accuracy"][0]  # the surrogate
    assert values["readers"][0] == {"arm": "regular", "accuracy": regular["values"]["accuracy"][1]}
    assert values["accuracy"][-2:] == [row["accuracy"] for row in values["readers"]]
    cells = [("surrogate", 1), ("cnn", 1), ("cnn", 2)]
    read, names = (
        [(*cell, arm, 2) for cell in cells for arm in config.arms],
        list(between.named(("", 0), ("", 0))),
    )
    for table in ("relation", "transfer"):
        assert [tuple(row[name] for name in names) for row in values[table]] == read, table
    against = [row for row in transfer_record.rows("transfer", architecture="cnn", arm="regular")
               if (row["attack"], row["epsilon"], row["source"]) == ("pgd-linf", 0.10, 1)]  # fmt: skip
    own = values["transfer"][0]
    for row in against:
        assert {name: own[name] for name in ("source_fooled", "both_fooled_clean", "n")} == {
            name: row[name] for name in ("source_fooled", "both_fooled_clean", "n")
        }


def test_a_defence_makes_features_less_predictable_from_the_surrogate_than_no_loss_does():
    """Batches must have more images than the features have units, or the loss is at its ceiling."""
    how = replace(TINY, epochs=8, batch_size=1000, train_images=2000, correlation_weight=5.0)
    x, fixed = data.load("mnist", "test", limit=1200).x, pairs.new_pair("cnn", 7, CPU)[0]
    z, found = measures.features(fixed, x), {}
    for arm in ("regular", "corrected"):
        model = surrogate.defended(how, arm, fixed, 7, CPU)
        found[arm] = losses.correlation_loss(z, measures.features(model, x)).item()
    assert found["corrected"] < found["regular"] - 0.5


@pytest.mark.parametrize("arm", ["decorrelated_late", "corrected"])
def test_a_defence_trains_model_2_of_the_seed_and_leaves_the_surrogate_as_it_is(arm):
    how, (fixed, twin) = replace(TINY, epochs=2), pairs.new_pair("cnn", 7, CPU)
    before, keys = copy.deepcopy(fixed.state_dict()), []
    context = CPU._replace(checkpoint=lambda **key: keys.append(key))
    model = surrogate.defended(how, arm, fixed, 7, context)
    assert all(torch.equal(value, before[name]) for name, value in fixed.state_dict().items())
    assert all(p.requires_grad for p in fixed.parameters())
    assert not torch.equal(model.body[0].weight, twin.body[0].weight)
    drift = (model.body[0].weight - twin.body[0].weight).abs().max()
    assert drift < 8 * how.learning_rate + 1e-6  # Adam moves no weight by more, a step; they are four
    assert [key["stage"] for key in keys] == ([0, 1] if arm == "decorrelated_late" else [1])
    assert {key["variant"] for key in keys} == {"corrected" if arm == "corrected" else "released"}
    pairs.train(replace(how, variant=keys[0]["variant"]), "cnn", "decorrelated", 7, context)
    assert keys[-1] not in keys[:-1]  # a pair's checkpoint is another


def test_a_relation_is_from_the_attacked_network_s_features_to_the_reader_s(reading_pair, mnist_test):
    """Only attacked networks are attacked: readers alone are not, though all are given by name."""
    networks = {("surrogate", 1): pairs.new_pair("cnn", 5, CPU)[0], ("cnn", 2): reading_pair[0]}
    networks |= {("regular", 2): reading_pair[1], ("corrected", 2): reading_pair[0]}
    cells = list(itertools.product([("surrogate", 1), ("cnn", 2)], [("regular", 2), ("corrected", 2)]))
    mixed, few, asked = mnist_test.shuffled(3), mnist_test[:100], []

    def by_cell(rows):
        return {(row["source_arm"], row["target_arm"]): row for row in rows}

    relation = by_cell(between.relations(networks, cells, mixed, few))
    assert len(relation) == 4
    z1, z2 = (measures.features(networks[name], mixed.x) for name in cells[0])
    assert relation["surrogate", "regular"]["heldout"] == measures.r_squared(z1, z2, heldout=True)
    assert relation["cnn", "corrected"]["gradient_cosine"] == pytest.approx(1)
    context = CPU._replace(progress=lambda steps, name: asked.extend(steps) or steps)
    transfer = by_cell(between.transfers(networks, cells, few, (0.1,), 3, 3, context))
    (wanted,) = between.attacked_through(reading_pair[0], [reading_pair[1]], few, 0.1, 3, 3)
    assert transfer["cnn", "regular"] == {**between.named(("cnn", 2), ("regular", 2)), **wanted}
    own = transfer["cnn", "corrected"]
    assert own["both_fooled"] == own["source_fooled"] > 0
    assert asked == [(0.1, ("surrogate", 1)), (0.1, ("cnn", 2))]


# --- Features or gradients -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def gradients_record(smoke):
    return smoke("features_or_gradients")


def test_within_each_arm_and_with_strangers_on_either_side_both_directions_are_compared(gradients_record):
    (trial,) = gradients_record.trials
    config, values = features_or_gradients.SCALES["smoke"], trial["values"]
    arms = [*config.arms, "stranger"]
    cells = [(a, b) for a in arms for b in arms if a == b or "stranger" in (a, b)]
    wanted = [(a, 1, b, 2) for a, b in cells] + [(a, 2, b, 1) for a, b in cells]
    names = ("source_arm", "source", "target_arm", "target")
    for table in ("relation", "transfer"):
        assert sorted(tuple(row[n] for n in names) for row in values[table]) == sorted(wanted), table
    moved = sorted((*(row[n] for n in names), row["map"]) for row in values["movement"])
    maps = (between.OWN_MAP, between.NATURAL_MAP)
    assert moved == sorted((*cell, name) for cell in wanted for name in maps)
    assert len(values["accuracy"]) == 2 * len(arms) and all(0 <= share <= 1 for share in values["accuracy"])
    assert values["accuracy"][-2:] != values["accuracy"][:2]  # strangers are not the regular pair again


def test_rows_between_networks_are_what_the_measures_say_of_them(reading_pair, mnist_test):
    drawn = pairs.new_pair("cnn", 5, CPU)
    networks = {("features", 1): reading_pair[0], ("features", 2): reading_pair[1]}
    networks |= {("stranger", 1): drawn[0], ("stranger", 2): reading_pair[0]}
    few, cell = (
        mnist_test[:100],
        {"source_arm": "features", "source": 1, "target_arm": "stranger", "target": 2},
    )
    cells = features_or_gradients._cells(networks)

    def the(rows):
        (row,) = [row for row in rows if row.items() >= cell.items()]
        return row

    row = the(between.relations(networks, cells, mnist_test, few))  # a network and itself
    assert row["gradient_cosine"] == pytest.approx(1) and row["heldout"] > 0.9  # 784 units
    (row,) = [
        row for row in between.movements(networks, cells, mnist_test, (0.1,), 3, CPU)
        if row.items() >= {**cell, "map": between.OWN_MAP}.items()
    ]  # fmt: skip
    assert row["explains"] > 0.8  # of 784 directions, from a few hundred images
    row = the(between.transfers(networks, cells, few, (0.1,), 3, 3, CPU))
    assert row["both_fooled"] == row["source_fooled"] > 0
    (wanted,) = between.attacked_through(reading_pair[0], [reading_pair[1]], few, 0.1, 3, 3)
    cell |= {"target_arm": "features"}
    assert the(between.transfers(networks, cells, few, (0.1,), 3, 3, CPU)) == {**cell, **wanted}
    row, z = (
        the(between.relations(networks, cells, mnist_test, few)),
        pairs.feature_pair(reading_pair, mnist_test.x),
    )
    assert row["heldout"] == measures.r_squared(*z, heldout=True)
    assert row["gradient_cosine"] == measures.gradient_cosine(*reading_pair, few.x, few.y)


def test_gradients_are_turned_after_the_plain_epochs_and_each_arm_has_a_checkpoint_of_its_own():
    how = replace(TINY, batch_size=1000, train_images=1000, variant="corrected")
    keys, found = {}, {}
    for arm, terms in features_or_gradients.ARMS.items():
        keys[arm] = []
        context = CPU._replace(checkpoint=lambda kept=keys[arm], **key: kept.append(key))
        found[arm] = features_or_gradients.trained(how, terms, 7, context)
    assert all([key["stage"] for key in each] == [0, 1] for each in keys.values())
    assert all(keys[a] != keys[b] for a in keys for b in keys if a != b)
    for a, b in itertools.combinations(found, 2):
        assert not torch.equal(found[a][0].body[0].weight, found[b][0].body[0].weight), (a, b)
    arms, plain = features_or_gradients.ARMS, replace(how, epochs=1)
    for with_gradients, without in (("gradients", "regular"), ("gradients_held", "features")):
        one, other = (
            features_or_gradients.trained(plain, arms[arm], 7, CPU) for arm in (with_gradients, without)
        )
        assert all(torch.equal(a, b) for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("arm", "terms", "names"),
    [
        ("regular", (0.0, 0.0, 0.0), set()),
        ("features", (0.05, 0.0, 0.0), {"correlation"}),
        ("gradients", (0.0, 1.0, 0.0), {"alignment"}),
        ("gradients_held", (0.05, 3.0, 0.33), {"correlation", "alignment"}),
    ],
)
def test_an_arm_trains_with_its_own_terms_at_its_weights(arm, terms, names, monkeypatch):
    assert features_or_gradients.ARMS[arm] == terms
    seen, images = [], data.load("mnist", limit=50)

    def looking(objective, *args, **how):
        seen.append({name: term.item() for name, term in objective(images.x, images.y).items()})
        return {}

    monkeypatch.setattr(training, "fit", looking)
    correlated, aligned, target = (2 * weight for weight in terms)
    how = replace(TINY, variant="corrected", correlation_weight=0.7)  # which arms do not heed
    features_or_gradients.trained(how, (correlated, aligned, target), 7, CPU)
    plain, full = seen
    assert full.keys() == {"loss", "cross_entropy_1", "cross_entropy_2"} | names
    assert plain.keys() == full.keys() - {"alignment"}
    for terms in seen:
        cross_entropies = terms["cross_entropy_1"] + terms["cross_entropy_2"]
        added = correlated * terms.get("correlation", 0) + aligned * terms.get("alignment", 0)
        assert terms["loss"] == pytest.approx(cross_entropies + added, abs=1e-5)
    if aligned:
        held = losses.alignment(*pairs.new_pair("cnn", 7, CPU), target_cosine=target)(images.x, images.y)
        assert full["alignment"] == pytest.approx(held["alignment"].item(), abs=1e-6)


# --- λ as a dial ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights_record(smoke):
    return smoke("correlation_weights")


def test_each_lambda_has_a_pair_with_accuracy_features_scatter_and_transfer(weights_record):
    config = correlation_weights.SCALES["smoke"]
    assert sorted(t["setting"]["correlation_weight"] for t in weights_record.trials) == list(config.weights)
    for trial in weights_record.trials:
        values = trial["values"]
        assert [(r["source"], r["target"]) for r in values["predictability"]] == list(pairs.DIRECTIONS)
        assert all(row["heldout"] <= 1 and 0 < row["live_units"] <= 784 for row in values["predictability"])
        assert 0 <= values["first_component"]["r_squared"] <= 1
        assert {len(each) for each in values["first_component"]["points"].values()} == {config.points}
        place = [(r["attack"], r["epsilon"], r["source"], r["n"]) for r in values["transfer"]]
        assert place == [("pgd-linf", config.epsilon, source, config.test_images) for source in (1, 2)]


def test_pairs_with_different_lambda_share_their_first_epochs_and_part_after_them(weights_record):
    without, with_loss = (
        weights_record.find({"correlation_weight": weight}, 0)["values"]["history"] for weight in (0.0, 0.05)
    )
    plain = correlation_weights.SCALES["smoke"].training.plain_epochs
    assert without["loss"][:plain] == with_loss["loss"][:plain]
    assert without["loss"][plain:] != with_loss["loss"][plain:]
    assert "correlation" not in without and len(with_loss["correlation"]) == len(with_loss["loss"]) - plain


def test_the_dial_goes_through_the_paper_s_lambda_from_none():
    weights = correlation_weights.Config().weights
    assert weights[0] == 0 and 0.05 in weights and list(weights) == sorted(weights)
    assert correlation_weights.Config().training == transfer.Config().training


# --- Pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["cnn", "fully_connected"])
def test_a_new_pair_is_two_different_models_fixed_by_the_seed(architecture):
    one, same, other = (pairs.new_pair(architecture, seed, CPU) for seed in (1, 1, 2))
    assert measures.parameter_distance(*one) > 1
    for number in (0, 1):
        assert measures.parameter_distance(one[number], same[number]) == 0
        assert measures.parameter_distance(one[number], other[number]) > 1


def test_a_new_pair_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pairs.new_pair("cnn", 1, CPU)
    assert torch.rand(3).equal(expected)


@pytest.fixture
def stages(monkeypatch):
    """`training.fit` replaced by a note of what it was asked: (weights, first batch, epochs, terms)."""
    notes = []

    def note(objective, parameters, batches, *, epochs, **options):
        x, y = next(iter(batches))
        terms = objective(x[:40], y[:40])
        weights = torch.cat([p.detach().flatten() for p in objective.parameters()])
        notes.append({"weights": weights, "batch": y, "epochs": epochs, "terms": terms, **options})
        return {name: [value.item()] * epochs for name, value in terms.items()}

    monkeypatch.setattr(training, "fit", note)
    return notes


def test_all_arms_start_from_the_same_weights_and_batches(stages):
    for arm in pairs.ARMS:
        pairs.train(TINY, "cnn", arm, 3, CPU)
    first = [stages[0], stages[1], stages[2]]  # the first stage of each arm
    assert [stage["epochs"] for stage in first] == [2, 2, 1]
    for stage in first[1:]:
        assert stage["weights"].equal(first[0]["weights"])
        assert stage["batch"].equal(first[0]["batch"])
    stages.clear()
    pairs.train(TINY, "cnn", "regular", 4, CPU)
    assert not stages[0]["weights"].equal(first[0]["weights"])
    assert not stages[0]["batch"].equal(first[0]["batch"])


def test_each_arm_has_its_correlation_loss_when_its_name_says(stages):
    how = replace(TINY, epochs=5, plain_epochs=2)
    expected = {
        "regular": [(5, False)],
        "decorrelated": [(5, True)],
        "decorrelated_late": [(2, False), (3, True)],
    }
    for arm, plan in expected.items():
        stages.clear()
        _, history = pairs.train(how, "cnn", arm, 0, CPU)
        assert [(stage["epochs"], "correlation" in stage["terms"]) for stage in stages] == plan
        assert len(history["loss"]) == 5
        assert all(stage["learning_rate"] == how.learning_rate for stage in stages)


def test_the_correlation_weight_and_variant_reach_equation_8(stages):
    for variant in ("released", "printed"):
        pairs.train(replace(TINY, correlation_weight=0.7, variant=variant), "cnn", "decorrelated", 0, CPU)
        terms = {name: value.item() for name, value in stages[-1]["terms"].items()}
        both = terms["cross_entropy_1"], terms["cross_entropy_2"]
        together = sum(both) if variant == "printed" else math.hypot(*both)
        assert terms["loss"] == pytest.approx(together + 0.7 * terms["correlation"], rel=1e-5)


def test_each_stage_has_a_checkpoint_of_its_own(stages):
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(settings))
    for arm in pairs.ARMS:
        pairs.train(TINY, "cnn", arm, 0, context)
    assert len({json.dumps(settings, sort_keys=True) for settings in asked}) == len(asked) == 4
    assert all(settings["architecture"] == "cnn" and settings["epochs"] == 2 for settings in asked)


def test_the_late_arm_really_trains_in_two_stages_and_ends_in_eval_mode():
    pair, history = pairs.train(TINY, "cnn", "decorrelated_late", 0, CPU)
    assert len(history["loss"]) == 2 and len(history["correlation"]) == 1
    assert not any(module.training for model in pair for module in model.modules())


def test_an_unknown_arm_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown arm 'plain'; known: regular, decorrelated, decorrelated_late"
    ):
        pairs.train(TINY, "cnn", "plain", 0, CPU)


# --- Attacks across a pair -----------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
@pytest.mark.parametrize("name", ["fgsm-linf", "fgsm-l2", "pgd-linf", "pgd-l2"])
def test_each_attack_fills_its_ball_and_leaves_it_not(name, epsilon, small_pair, mnist_test):
    method = pairs.attack(name, epsilon, mnist_test, steps=10, seed=0)
    delta = attacks.craft(method, small_pair[0], mnist_test.x[:20], mnist_test.y[:20]) - mnist_test.x[:20]
    size = delta.abs().amax((1, 2, 3)) if name.endswith("linf") else delta.flatten(1).norm(dim=1)
    radius = epsilon if name.endswith("linf") else 28 * epsilon
    assert (size <= radius * (1 + 1e-5)).all()
    assert (size >= radius * 0.4).all()  # clipping to the box takes part of an ℓ2 perturbation away


def test_attacks_with_random_starts_repeat_with_their_seed(small_pair, mnist_test):
    def craft(seed):
        method = pairs.attack("pgd-linf", 0.1, mnist_test, steps=2, seed=seed)
        return attacks.craft(method, small_pair[0], mnist_test.x[:20], mnist_test.y[:20])

    assert craft(1).equal(craft(1))
    assert not craft(1).equal(craft(2))


@pytest.fixture(scope="module")
def rows(small_pair, mnist_test):
    images = mnist_test[:100]
    names = ("fgsm-linf", "pgd-l2")
    found = pairs.transfer_rows(small_pair, images, names, (0.05, 0.15), steps=3, seed=7, context=CPU)
    return images, found


def test_transfer_rows_hold_the_counts_of_both_transfer_rates(rows, small_pair):
    images, found = rows
    x, y = images.x, images.y
    for row in found:
        source, target = small_pair[row["source"] - 1], small_pair[row["target"] - 1]
        method = pairs.attack(row["attack"], row["epsilon"], images, steps=3, seed=7)
        x_adv = attacks.craft(method, source, x, y)
        printed = measures.transfer_counts(source, target, x_adv, y)
        conditioned = measures.transfer_counts(source, target, x_adv, y, x)
        assert (row["both_fooled"], row["source_fooled"]) == printed
        assert (row["both_fooled_clean"], row["source_fooled_clean"]) == conditioned
        assert row["target_wrong"] == round(100 * (1 - measures.accuracy(target, x_adv, y)))
        right = [measures.predictions(model, x) == y for model in small_pair]
        assert row["n_clean"] == int((right[0] & right[1]).sum()) and row["n"] == 100


def test_the_two_directions_of_transfer_are_different_attacks(rows):
    _, found = rows
    forth, back = ([r["source_fooled"] for r in found if r["source"] == source] for source in (1, 2))
    assert forth != back


def test_feature_rows_measure_natural_images_at_zero_and_attacks_on_model_1_above(small_pair, mnist_test):
    images = mnist_test[:60]
    for epsilon in (0.0, 0.2):
        x_adv = images.x
        if epsilon:
            x_adv = attacks.fgsm(attacks.untargeted(small_pair[0], images.y), images.x, attacks.Linf(epsilon))
        z1, z2 = (measures.features(model, x_adv) for model in small_pair)
        row = pairs.feature_row(small_pair, images, epsilon, seed=0)
        assert row["epsilon"] == epsilon
        assert row["heldout_1_to_2"] == pytest.approx(measures.r_squared(z1, z2, heldout=True), rel=1e-6)
        assert row["heldout_2_to_1"] == pytest.approx(measures.r_squared(z2, z1, heldout=True), rel=1e-6)
        assert row["pearson"] == pytest.approx(measures.pearson(z1, z2), rel=1e-6)
        assert row["cka"] == pytest.approx(measures.cka(z1, z2), rel=1e-6)


def test_accuracies_are_those_of_each_model(small_pair, mnist_test):
    expected = [measures.accuracy(model, mnist_test.x, mnist_test.y) for model in small_pair]
    assert pairs.accuracies(small_pair, mnist_test) == expected


@pytest.mark.parametrize("name", ["cw-l1", "pgd", "pgd-l1", "PGD-linf"])
def test_an_unknown_attack_is_refused_by_name(name, mnist_test):
    with pytest.raises(ValueError, match=f"unknown attack '{name}'; known: fgsm-linf"):
        pairs.attack(name, 0.1, mnist_test, steps=1, seed=0)


def test_a_row_of_predictability_describes_the_features_that_predict():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(400, 1, generator=generator) @ torch.randn(1, 6, generator=generator)
    many = torch.randn(400, 9, generator=generator)
    many[:, 0] = 0  # a dead unit
    first, second = pairs.predictability_rows((one, many))
    assert (first["source"], first["live_units"]) == (1, 6) and first["effective_rank"] == pytest.approx(1)
    assert (second["source"], second["live_units"]) == (2, 8) and 7 < second["effective_rank"] <= 8


# --- Across architectures ------------------------------------------------------------------------


def test_every_network_of_every_kind_is_compared_with_every_other_both_ways(smoke):
    (trial,) = smoke("architectures").trials
    config, values = architectures.SCALES["smoke"], trial["values"]
    networks = list(itertools.product(config.kinds, (1, 2)))
    wanted = sorted((*a, *b) for a in networks for b in networks if a != b)
    names = ("source_arm", "source", "target_arm", "target")
    assert len(set(wanted)) == 12
    for table in ("relation", "transfer"):
        assert sorted(tuple(row[n] for n in names) for row in values[table]) == wanted, table
    assert {tuple(row[n] for n in names) for row in values["movement"]} == set(wanted)
    cka = {(*(row[n] for n in names),): row["cka"] for row in values["relation"]}
    for a, i, b, j in wanted:  # it has no direction
        assert cka[a, i, b, j] == pytest.approx(cka[b, j, a, i])
    for reading in ("heldout", "nonlinear", "gradient_cosine"):
        assert len({row[reading] for row in values["relation"]}) > 5, reading


def test_networks_of_all_kinds_are_trained_alike_each_from_the_seed_s_own_draw(monkeypatch):
    asked = []

    def trained(how, architecture, arm, seed, context):
        asked.append((how, architecture, arm, seed))
        return pairs.new_pair(architecture, seed, context), {}

    monkeypatch.setattr(architectures, "train", trained)
    config = architectures.Config(epsilons=(0.1,), steps=1, feature_images=200, test_images=20)
    values = architectures.run(config, {"architecture": "all"}, 7, CPU)
    assert asked == [(config.training, kind, "regular", 7) for kind in ("cnn", "fully_connected", "vit")]
    assert config.training.variant == "corrected"  # whose Eq. 8 adds up the cross-entropies
    cnn, other = pairs.new_pair("cnn", 7, CPU)
    mixed = data.load("mnist", "test").shuffled(7)[:200]
    row = values["relation"][0]
    assert (row["source_arm"], row["source"], row["target_arm"], row["target"]) == ("cnn", 1, "cnn", 2)
    z = pairs.feature_pair((cnn, other), mixed.x)
    assert row["heldout"] == measures.r_squared(*z, heldout=True)
    assert row["nonlinear"] == measures.nonlinear_r_squared(*z)
    assert row["cka"] == measures.cka(*z)
    assert {row["n"] for row in values["transfer"]} == {20}


# --- Capacity ------------------------------------------------------------------------------------


def test_pairs_of_every_width_are_compared_and_attacked_both_ways(smoke):
    record, config = smoke("capacity"), capacity.SCALES["smoke"]
    sizes = {}
    for trial in record.trials:
        values, width = trial["values"], trial["setting"]["width"]
        sizes[width] = (values["parameters"], values["features"])
        for table in ("relation", "transfer"):
            assert [(row["source"], row["target"]) for row in values[table]] == [(1, 2), (2, 1)], table
        maps = {(row["map"], row["epsilon"]) for row in values["movement"]}
        assert maps == {(name, config.epsilons[0]) for name in (between.NATURAL_MAP, between.OWN_MAP)}
        assert (
            len({row[r] for row in values["relation"] for r in ("heldout", "few_images", "nonlinear")}) == 6
        )
    assert sizes == {0.5: (1674, 392), 1: (6218, 784)}


def test_a_pair_of_a_width_is_read_on_many_training_images_and_on_as_few_as_the_kernel_bears(monkeypatch):
    asked = []

    def trained(how, architecture, arm, seed, context, **options):
        asked.append((how, architecture, arm, seed, options))
        return pairs.new_pair(architecture, seed, context, **options), {}

    monkeypatch.setattr(capacity, "train", trained)
    config = capacity.Config(
        widths=(0.25, 2), epsilons=(0.1,), steps=1, feature_images=900, kernel_images=300, test_images=20
    )
    assert capacity.settings(config) == [
        {"architecture": a, "width": w} for a in ("cnn", "fully_connected") for w in (0.25, 2)
    ]
    values = capacity.run(config, {"architecture": "cnn", "width": 0.25}, 7, CPU)
    assert asked == [(config.training, "cnn", "regular", 7, {"width": 0.25})]
    assert (values["parameters"], values["features"]) == (482, 196)
    pair = pairs.new_pair("cnn", 7, CPU, width=0.25)
    z = pairs.feature_pair(pair, data.load("mnist").shuffled(7)[:900].x)
    there, back = values["relation"]
    assert (there["source"], back["source"]) == (1, 2)
    assert there["heldout"] == measures.r_squared(*z, heldout=True)
    assert back["heldout"] == measures.r_squared(*reversed(z), heldout=True)
    few = [features[:300] for features in z]
    assert there["few_images"] == measures.r_squared(*few, heldout=True)
    assert back["nonlinear"] == measures.nonlinear_r_squared(*reversed(few))
    assert {row["n"] for row in values["transfer"]} == {20}
    capacity.run(config, {"architecture": "fully_connected", "width": 1}, 7, CPU)
    assert asked[1] == (config.training, "fully_connected", "regular", 7, {})  # the pair of `transfer`


def test_pairs_of_different_widths_do_not_take_each_other_s_checkpoints():
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(settings))
    for options in ({}, {"width": 0.25}, {"width": 0.5}):
        pairs.train(replace(TINY, epochs=1, train_images=250), "cnn", "regular", 0, context, **options)
    assert len({json.dumps(settings, sort_keys=True) for settings in asked}) == 3


def test_a_defended_network_s_checkpoint_says_how_its_surrogate_was_trained(small_pair):
    """Else a surrogate of other training would be given the network that was trained against this one."""
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(settings))
    how = replace(TINY, epochs=1, train_images=250)
    for of_the_surrogate in (how, replace(how, variant="corrected"), how):
        surrogate.defended(of_the_surrogate, "corrected", small_pair[0], 0, context)
    first, other, again = (json.dumps(settings, sort_keys=True) for settings in asked)
    assert first == again != other

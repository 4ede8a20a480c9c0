"""Records of a made-up experiment: what is run, kept, re-used and set aside, and what survives a crash."""

import contextlib
import datetime
import io
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import types
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import dnabook
from dnabook import data, experiments, records, training
from dnabook.experiments import Context
from dnabook.records import Checkpoint, MissingTrials, Record, RecordError
from dnabook.training import quiet


@dataclass(frozen=True)
class Config:
    colours: tuple[str, ...] = ("red", "blue")
    size: int = 3
    rates: tuple[float, ...] = (0.1, 0.2)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """An instant experiment with two settings; `runs` lists what it ran, `before` is called in each run."""
    module = types.ModuleType("dnabook.experiments.made_up")

    def run(config, setting, seed, context):
        module.runs.append((setting["colour"], seed))
        module.before(setting, seed, context)
        drawn = torch.rand(config.size)
        return {
            "data": "0123456789ab",
            "accuracy": [round(value, 4) for value in drawn.tolist()],
            "table": [{"rate": rate, "share": rate * drawn[0].item()} for rate in config.rates],
        }

    module.TITLE, module.Config, module.run = "A made-up experiment", Config, run
    module.KEEPS_WEIGHTS = True
    module.SCALES = {"smoke": Config(), "laptop": Config(size=4), "paper": Config(size=5)}
    module.settings = lambda config: [{"colour": colour} for colour in config.colours]
    module.runs, module.before = [], lambda setting, seed, context: None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(records, "NAMES", ("made_up",))
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DNABOOK_CACHE", raising=False)
    monkeypatch.setenv("DNABOOK_SCALE", "smoke")
    return module


def make(scale=None, **options):
    return records.make("made_up", scale, device="cpu", progress=quiet, **options)


def saved(scale="smoke"):
    return json.loads(records.path("made_up", scale).read_text())


def files():
    """What lies in the folder of the records, without the locks."""
    return {file.name for file in records.folder().iterdir() if not file.name.endswith(".lock")}


# --- Running what is missing ---------------------------------------------------------------------


def test_make_runs_every_setting_of_every_seed_once(fake):
    record = make(seeds=[0, 1])
    assert fake.runs == [("red", 0), ("blue", 0), ("red", 1), ("blue", 1)]
    assert record.seeds == [0, 1] and len(record.trials) == 4
    make(seeds=[0, 1])
    assert len(fake.runs) == 4


@pytest.mark.parametrize("scale, seeds", [("smoke", [0]), ("laptop", [0, 1, 2]), ("paper", [0, 1, 2, 3, 4])])
def test_each_scale_has_its_own_number_of_seeds_and_its_own_file(fake, scale, seeds):
    assert make(scale).seeds == seeds
    assert files() == {f"made-up-{scale}.json"}


def test_make_runs_only_the_seeds_that_the_record_lacks(fake):
    make(seeds=[3])
    record = make(seeds=[1, 3])
    assert fake.runs == [("red", 3), ("blue", 3), ("red", 1), ("blue", 1)]
    assert record.seeds == [1, 3]
    assert [trial["seed"] for trial in saved()["trials"]] == [1, 1, 3, 3]


def test_make_computes_a_missing_record_and_reads_a_present_one(fake):
    options = {"device": "cpu", "progress": quiet}
    first = records.make("made_up", **options)
    assert len(fake.runs) == 2
    assert records.make("made_up", "smoke", **options) == first
    assert len(fake.runs) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, FloatingPointError])
def test_an_interruption_keeps_the_finished_trials_and_the_next_make_goes_on(fake, stop):
    def interrupt(setting, seed, context):
        if setting["colour"] == "blue":
            raise stop("now")

    fake.before = interrupt
    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else MissingTrials):
        make()
    kept = saved()["trials"]
    assert [trial["setting"] for trial in kept] == [{"colour": "red"}]
    fake.before = lambda setting, seed, context: None
    fake.runs.clear()
    record = make()
    assert fake.runs == [("blue", 0)]
    assert kept[0] in record.trials and len(record.trials) == 2


def failing(*, colour, error=FloatingPointError):
    """A `before` in which one colour fails while it holds a tensor; `.tensors` are weak references."""

    def before(setting, seed, context):
        if setting["colour"] == colour:
            large = torch.zeros(3)
            before.tensors.append(weakref.ref(large))
            raise error(f"the loss of seed {seed}\nbecame nan")

    before.tensors = []
    return before


def test_a_trial_that_fails_here_does_not_stop_the_others_and_the_first_error_is_the_cause(fake):
    fake.before = failing(colour="red")
    with pytest.raises(MissingTrials) as stop:
        make(seeds=[0, 1])
    assert fake.runs == [("red", 0), ("blue", 0), ("red", 1), ("blue", 1)]
    assert [trial["setting"] for trial in saved()["trials"]] == [{"colour": "blue"}] * 2
    assert str(stop.value) == (
        "made_up (smoke) lacks 2 of the 4 trials that were to run: seed 0, colour red (FloatingPointError: "
        "the loss of seed 0 became nan); seed 1, colour red (FloatingPointError: the loss of seed 1 became "
        "nan). The others are saved; run again to complete the record"
    )
    cause = stop.value.__cause__
    assert isinstance(cause, FloatingPointError) and "seed 0" in str(cause)
    assert any(frame.name == "before" for frame in traceback.extract_tb(cause.__traceback__))


def test_a_trial_that_failed_holds_no_tensors_while_the_others_run(fake):
    fail = failing(colour="red")
    held = []

    def before(setting, seed, context):
        held.extend(reference() for reference in fail.tensors)
        fail(setting, seed, context)

    fake.before = before
    with pytest.raises(MissingTrials):
        make(seeds=[0, 1])
    assert held == [None] * 4  # in blue 0, red 1 and, of both seeds, in blue 1


def test_data_that_are_missing_stop_at_the_first_trial_with_their_own_error(fake):
    fake.before = failing(colour="red", error=data.DataError)
    with pytest.raises(data.DataError, match="seed 0"):
        make(seeds=[0, 1])
    assert fake.runs == [("red", 0)]


def test_threads_are_set_for_the_trials_only_whether_they_fail_or_not(fake):
    before, seen = torch.get_num_threads(), []
    fake.before = lambda *_: seen.append(torch.get_num_threads()) or 1 / 0
    with pytest.raises(MissingTrials):
        make(threads=before + 1)
    assert seen == [before + 1] * 2 and torch.get_num_threads() == before


@pytest.mark.parametrize(
    "change, told",
    [
        ({"run": None}, "experiment made_up lacks run; CONTRIBUTING.md shows"),
        ({"SCALES": None, "settings": None}, "lacks SCALES, settings;"),
        ({"SCALES": {"smoke": Config(), "paper": Config()}}, r"lacks a Config in SCALES\['laptop'\];"),
        ({"SCALES": dict.fromkeys(records.SCALES, Config)}, r"lacks a Config in SCALES\['smoke'\]"),
    ],
)
def test_an_experiment_that_is_not_whole_stops_before_any_work(fake, change, told):
    for name, value in change.items():
        delattr(fake, name) if value is None else setattr(fake, name, value)
    with pytest.raises(ValueError, match=told):
        make()
    assert fake.runs == []


def test_a_trial_may_give_tensors_and_need_not_name_its_data(fake):
    fake.run = lambda *_: {"rate": torch.tensor(0.5), "table": [{"shares": numpy.array([0.25, 1])}]}
    trial = make().trials[0]
    assert trial["values"] == {"rate": 0.5, "table": [{"shares": [0.25, 1.0]}]}
    assert trial["provenance"]["data"] == "unknown"
    assert records.load("made_up", "smoke").trials[0] == trial


@pytest.mark.parametrize(
    "values, told",
    [(None, "run of made_up returns a dict of values, got a NoneType"), ({"a": {1}}, "but a set does not")],
)
def test_values_that_are_none_are_told_as_what_they_are(fake, values, told):
    fake.run = lambda *_: values
    with pytest.raises(MissingTrials, match=told):
        make()


def test_a_caption_names_an_attack_only_where_the_configuration_has_its_images(fake):
    record = make()
    record.config = {"steps": 3}
    assert "PGD" not in record.caption()


def test_where_no_trial_is_saved_none_is_said_to_be(fake):
    fake.before = lambda *_: 1 / 0
    with pytest.raises(MissingTrials) as stop:
        make()
    assert str(stop.value).endswith("zero). Run again to complete the record")


@pytest.mark.parametrize("below", [False, True])
def test_a_folder_that_cannot_be_written_stops_before_the_first_trial(fake, monkeypatch, tmp_path, below):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    results = obstacle / "results" if below else obstacle
    monkeypatch.setenv("DNABOOK_RESULTS", str(results))
    with pytest.raises(RecordError, match=re.escape(str(results)) + ".*set DNABOOK_RESULTS"):
        make()
    assert fake.runs == []


def test_a_cache_that_cannot_be_written_stops_before_the_first_trial(fake, monkeypatch, tmp_path):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    monkeypatch.setenv("DNABOOK_CACHE", str(obstacle / "cache"))
    with pytest.raises(RecordError, match=re.escape(str(obstacle / "cache")) + ".*set DNABOOK_CACHE"):
        make()
    assert fake.runs == []


@pytest.mark.parametrize(
    "change", [{"trials": {}}, {"trials": [{"seed": 0, "values": {}, "provenance": {}}]}]
)
def test_what_is_not_made_of_trials_is_no_record(fake, change):
    make()
    records.path("made_up", "smoke").write_text(json.dumps({**saved(), **change}))
    with pytest.raises(RecordError, match=r"made-up-smoke\.json is not a record"):
        records.load("made_up", "smoke")


def test_damaged_weights_stop_before_a_trial_that_could_not_be_saved(fake):
    record = make(seeds=[1])
    file = records.weights_path("made_up", "smoke")
    file.write_text("version https://git-lfs.github.com/spec/v1")
    for use in (partial(make, seeds=[0]), partial(records.weights, record)):
        with pytest.raises(RecordError, match=r"made-up-smoke\.safetensors holds no weights"):
            use()
    assert {seed for _, seed in fake.runs} == {1}


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_a_trials_device_is_named_as_what_it_is(device):
    assert records._device_name(torch.device(device)).split()[0] == device.upper()


def test_a_complete_record_is_read_without_writing_anything(fake, monkeypatch):
    record = make()
    for name in ("check_folders", "_lock"):
        monkeypatch.setattr(records, name, None)
    assert make() == record


def test_the_same_seed_gives_the_same_values_and_another_seed_others(fake):
    first = make(seeds=[0, 1]).trials
    records.path("made_up", "smoke").unlink()
    torch.rand(7)  # whatever happened before
    again = make(seeds=[1, 0]).trials
    assert [trial["values"] for trial in first] == [trial["values"] for trial in again]
    assert first[0]["values"] != first[2]["values"]
    assert len(fake.runs) == 8


def test_a_trial_does_not_depend_on_the_trials_before_it(fake):
    alone = make(seeds=[2]).find({"colour": "red"}, 2)["values"]
    records.path("made_up", "smoke").unlink()
    assert make(seeds=[0, 1, 2]).find({"colour": "red"}, 2)["values"] == alone


def test_make_leaves_the_caller_s_random_state_alone(fake):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make()
    assert torch.rand(3).equal(expected)


def test_make_reports_progress_over_the_missing_trials_only(fake):
    seen = []

    def progress(iterable, description=""):
        seen.append((len(iterable), description))
        return iterable

    records.make("made_up", device="cpu", progress=progress)
    records.make("made_up", device="cpu", progress=progress)
    assert seen == [(2, "made_up (smoke)")]


def test_an_experiment_is_told_its_device_and_progress_and_gets_checkpoints(fake):
    contexts = []
    fake.before = lambda setting, seed, context: contexts.append(context)
    make()
    assert contexts[0].device == torch.device("cpu") and contexts[0].progress is quiet
    assert isinstance(contexts[0].checkpoint(size=3), Checkpoint)


def test_unknown_names_and_scales_are_refused_with_the_known_ones(fake, monkeypatch):
    with pytest.raises(ValueError, match="unknown experiment 'nothing'; known: made_up"):
        records.make("nothing")
    with pytest.raises(ValueError, match="unknown scale 'huge'; known: smoke, laptop, paper"):
        make("huge")
    monkeypatch.setenv("DNABOOK_SCALE", "tiny")
    with pytest.raises(ValueError, match="unknown scale 'tiny'"):
        make()


def test_the_scale_comes_from_the_environment_and_is_laptop_without_it(fake, monkeypatch):
    assert make().scale == "smoke"
    monkeypatch.setenv("DNABOOK_SCALE", "")
    assert records.default_scale() == "laptop"
    monkeypatch.delenv("DNABOOK_SCALE")
    assert make().scale == "laptop"


# --- Configuration -------------------------------------------------------------------------------


def test_a_changed_configuration_sets_the_old_record_aside_and_computes_anew(fake):
    make(seeds=[0, 1])
    old = records.path("made_up", "smoke").read_text()
    fake.SCALES = {**fake.SCALES, "smoke": Config(size=2)}
    assert records.current("made_up", "smoke") is None
    assert records.load("made_up", "smoke") is not None
    record = make()
    assert record.config["size"] == 2 and record.seeds == [0]
    assert len(fake.runs) == 6
    (aside,) = files() - {"made-up-smoke.json"}
    assert re.fullmatch(r"made-up-smoke\.[0-9a-f]{8}\.old\.json", aside)
    assert (records.folder() / aside).read_text() == old
    assert saved()["config"] == {"colours": ["red", "blue"], "size": 2, "rates": [0.1, 0.2]}


def test_records_of_all_configurations_are_kept_and_come_back_with_their_weights(fake):
    sizes, models = (3, 2, 9), {size: nn.Linear(2, 2) for size in (3, 2, 9)}

    def use(size):
        fake.SCALES = {**fake.SCALES, "smoke": Config(size=size)}
        fake.before = lambda setting, seed, context: context.keep(model=models[size])
        return make(seeds=[0, *seeds[size]])

    seeds = {3: [1, 2], 2: [], 9: []}
    first = {size: use(size) for size in sizes}
    assert len(files()) == 6
    fake.runs.clear()
    for size in sizes:
        record = use(size)
        assert record == first[size] == records.current("made_up", "smoke")
        assert records.weights(record)["model"]["weight"].equal(models[size].weight)
        assert len(files()) == 6
    assert fake.runs == []
    seeds[3] = [1, 2, 3]
    assert use(3).seeds == [0, 1, 2, 3]
    assert fake.runs == [("red", 3), ("blue", 3)]


def test_a_process_with_the_configuration_of_before_goes_on_with_its_own_record(fake):
    before = make()
    late = {**before.trials[0], "seed": 7}
    fake.SCALES = {**fake.SCALES, "smoke": Config(size=2)}
    changed = make()
    assert records._save_trial(before, late).trials == [*before.trials, late]
    assert make() == changed


def test_a_new_setting_of_an_equal_configuration_would_be_a_missing_trial(fake):
    make()
    fake.settings = lambda config: [{"colour": colour} for colour in (*config.colours, "green")]
    fake.runs.clear()
    assert len(make().trials) == 3
    assert fake.runs == [("green", 0)]


def test_a_setting_with_a_tuple_is_made_once_and_is_given_as_json_gives_it_back(fake):
    fake.settings = lambda config: [{"colour": "red", "shape": (1, 2)}]
    seen = []
    fake.before = lambda setting, seed, context: seen.append(setting)
    for _ in range(2):
        record = make()
    assert seen == [{"colour": "red", "shape": [1, 2]}] and len(record.trials) == 1
    assert record.whole_seeds == [0]
    fake.FIGURE = ({"colour": "red", "shape": (1, 2)},)
    assert record.figure_seeds == [0]


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.zeros(1), {1, 2}])
def test_what_would_not_come_back_equal_is_no_setting_and_no_configuration(fake, value):
    fake.settings = lambda config: [{"colour": value}]
    with pytest.raises(ValueError, match="a setting of made_up must fit into JSON, without nan and infinity"):
        make()
    fake.settings = lambda config: [{"colour": "red"}]
    fake.SCALES = {**fake.SCALES, "smoke": Config(size=value)}
    with pytest.raises(ValueError, match="the configuration of made_up must fit into JSON"):
        make()
    assert fake.runs == []


def test_config_of_is_the_configuration_as_json_gives_it_back(fake):
    assert records.config_of("made_up", "laptop") == {
        "colours": ["red", "blue"], "size": 4, "rates": [0.1, 0.2],
    }  # fmt: skip


# --- The file ------------------------------------------------------------------------------------


def test_a_record_survives_its_file(fake):
    assert records.load("made_up", "smoke") is None
    record = make(seeds=[0, 1])
    assert records.load("made_up", "smoke") == records.current("made_up", "smoke") == record


def test_values_that_are_nan_survive_the_file_as_the_null_of_strict_json(fake):
    fake.run = lambda *_: {"data": "0", "accuracy": [math.nan, 0.5], "table": [{"rate": math.nan}]}
    make()
    values = records.load("made_up", "smoke").trials[0]["values"]
    assert math.isnan(values["accuracy"][0]) and values["accuracy"][1] == 0.5
    assert math.isnan(values["table"][0]["rate"])
    make()  # nothing is missing: NaN does not make a trial look new
    assert len(records.load("made_up", "smoke").trials) == 2

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = records.path("made_up", "smoke").read_text()
    assert json.loads(text, parse_constant=refuse)["trials"][0]["values"]["accuracy"] == [None, 0.5]
    records.path("made_up", "smoke").write_text(text.replace("null", "NaN"))  # as records were written once
    assert math.isnan(records.load("made_up", "smoke").trials[1]["values"]["table"][0]["rate"])


def test_a_setting_and_a_configuration_that_are_none_stay_so(fake):
    fake.SCALES = {**fake.SCALES, "smoke": Config(rates=None)}
    fake.settings = lambda config: [{"colour": None}]
    fake.run = lambda *_: {"data": "0", "accuracy": [math.nan]}
    record = make()
    assert records.load("made_up", "smoke").trials[0]["setting"] == {"colour": None}
    assert records.current("made_up", "smoke").config == record.config
    assert record.config["rates"] is None


def test_text_is_utf_8_wherever_the_machine_stands(fake, monkeypatch):
    read = Path.read_text

    def strict(file, encoding=None):
        assert encoding == "utf-8", file
        return read(file, encoding)

    monkeypatch.setattr(Path, "read_text", strict)
    fake.settings = lambda config: [{"colour": "grün"}]
    assert make().trials == records.load("made_up", "smoke").trials
    records.save_benchmark("loss", [], torch.device("cpu"))
    assert records.benchmarks()[records.benchmark_kind(torch.device("cpu"))]["loss"]["rows"] == []


def test_the_file_holds_each_table_row_and_each_plain_list_on_one_line(fake):
    fake.before = lambda setting, seed, context: torch.rand(1 if setting["colour"] == "red" else 2)
    record = make()
    lines = [line.strip().rstrip(",") for line in records.path("made_up", "smoke").read_text().splitlines()]
    for trial in record.trials:
        for row in trial["values"]["table"]:
            assert lines.count(json.dumps(row)) == 1
        assert f'"accuracy": {json.dumps(trial["values"]["accuracy"])}' in lines
        assert f'"provenance": {json.dumps(trial["provenance"])}' in lines
    assert records.path("made_up", "smoke").read_text().endswith("}\n")


@pytest.mark.parametrize(
    "values", [{}, {"a": {}, "b": []}, {"a": [[1, [2]], [], {}], "ü": "ε"}, {"a": [{"b": [{}]}]}]
)
def test_the_readable_layout_is_valid_json_for_any_nesting(values):
    record = Record("made_up", "smoke", {"deep": {"x": [1, {"y": None}]}}, [{"values": values}])
    assert Record(**json.loads(records._readable(record))) == record


BARE = '{"name": "made_up", "scale": "smoke", "config": {}, "trials": [{}]}'


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"name": "made_up"}', '{"unknown": 1}', "\x00", BARE]
)
def test_a_damaged_file_stops_with_its_name_and_what_to_do(fake, content):
    make()
    file = records.path("made_up", "smoke")
    file.write_text(content)
    with pytest.raises(RecordError, match=re.escape(str(file)) + ".*restore it or delete it"):
        make()
    assert file.read_text() == content


def test_a_file_cut_short_is_a_damaged_file(fake):
    make()
    file = records.path("made_up", "smoke")
    file.write_text(file.read_text()[:-30])
    with pytest.raises(RecordError):
        records.load("made_up", "smoke")


def test_a_crash_while_writing_leaves_the_old_file_whole(fake, monkeypatch):
    make()
    before = records.path("made_up", "smoke").read_text()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(records.os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        make(seeds=[1])
    assert records.path("made_up", "smoke").read_text() == before
    assert files() == {"made-up-smoke.json"}  # nothing temporary is left


def a_trial(seed, digest="0123456789ab", **values):
    return {
        "setting": {"colour": "red"}, "seed": seed, "values": values, "provenance": {"data": digest},
    }  # fmt: skip


def empty():
    return Record("made_up", "smoke", records.config_of("made_up", "smoke"))


def save_in_threads(monkeypatch, trials, kept):
    """Save trials, and what they keep, side by side, each with its own cache folder."""
    load = records._load

    def slow_load(file):
        record = load(file)
        time.sleep(0.02)  # the others get their chance between reading and writing
        return record

    monkeypatch.setattr(records, "_load", slow_load)
    monkeypatch.setattr(data, "cache_folder", lambda: Path(f"/nonexistent/{threading.get_ident()}"))
    record = empty()
    threads = [
        threading.Thread(target=records._save_trial, args=(record, *both))
        for both in zip(trials, kept, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_save_trials_of_one_record_lose_none_whatever_their_cache(fake, monkeypatch):
    save_in_threads(monkeypatch, [a_trial(seed) for seed in range(8)], [{}] * 8)
    assert records.load("made_up", "smoke").seeds == list(range(8))


def test_a_trial_that_another_process_finished_first_is_not_saved_twice_nor_are_its_weights(fake):
    fake.before = lambda setting, seed, context: context.keep(model=nn.Linear(2, 2))
    first = make()
    weights = records.weights_path("made_up", "smoke").read_bytes()
    other = [{**trial, "values": {"accuracy": [0]}} for trial in first.trials]
    assert records._save_trial(empty(), other[0], {"model/weight": torch.zeros(2, 2)}) == first
    assert records.weights_path("made_up", "smoke").read_bytes() == weights


def test_a_trial_on_another_data_set_is_refused_and_kept_in_a_file_of_its_own(fake):
    fake.run = lambda *_: {"data": "c1fa", "images": "cifar10", "accuracy": [0]}
    make(seeds=[3])
    before = records.path("made_up", "smoke").read_text()
    fake.run = lambda *call: call[3].keep(m=nn.Linear(2, 2)) or {"data": "d161", "images": "color-mnist"}
    with pytest.raises(RecordError) as stop:
        make(seeds=[0])
    assert records.path("made_up", "smoke").read_text() == before
    (aside,) = {name for name in files() if name.endswith(".old.json")}
    assert files() == {"made-up-smoke.json", aside, aside.replace(".json", ".safetensors")}
    assert str(stop.value) == (
        f"seed 0, colour red was made on color-mnist d161, but the trials in "
        f"{records.path('made_up', 'smoke')} on cifar10 c1fa. It is kept as {aside}: run again where those "
        "data are, or put it (and its weights) in the place of made-up-smoke.json"
    )
    with pytest.raises(RecordError, match=re.escape("seed 1, colour red was made on color-mnist d161")):
        records._save_trial(empty(), a_trial(1, "d161", images="color-mnist"))
    for name in files() - {"made-up-smoke.json"}:  # as the message says
        (records.folder() / name).replace(records.folder() / f"made-up-smoke.{name.rpartition('.')[2]}")
    record = make(seeds=[0, 1])
    assert [(t["seed"], t["setting"]["colour"]) for t in record.trials] == [
        (0, "blue"), (0, "red"), (1, "blue"), (1, "red"),
    ]  # fmt: skip
    assert set(records.weights(record)) == {"m"}


def test_results_go_where_dnabook_results_says(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path / "elsewhere"))
    make()
    assert (tmp_path / "elsewhere" / "made-up-smoke.json").exists()
    assert not (tmp_path / "results").exists()


def test_without_dnabook_results_a_folder_named_results_is_taken(monkeypatch):
    monkeypatch.delenv("DNABOOK_RESULTS")
    assert records.folder().name == "results"


# --- Provenance ----------------------------------------------------------------------------------


def test_every_trial_says_where_when_and_on_what_it_ran(fake):
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    trial = make().trials[0]
    provenance = trial["provenance"]
    assert set(provenance) == {
        "date", "device", "processor", "instructions", "threads", "torch", "dnabook", "commit",
        "peak_memory_mib", "data", "seconds",
    }  # fmt: skip
    assert datetime.datetime.fromisoformat(provenance["date"]) >= before
    assert provenance["device"].startswith("CPU")
    assert provenance["threads"] == torch.get_num_threads()
    assert provenance["torch"] == torch.__version__
    assert provenance["dnabook"] == dnabook.__version__
    assert provenance["commit"] == records.COMMIT
    assert provenance["data"] == "0123456789ab" and "data" not in trial["values"]
    assert 10 < provenance["peak_memory_mib"] < 1e6
    assert provenance["seconds"] >= 0


def test_provenance_names_the_code_that_was_imported_whatever_git_says_later(fake, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "edited-dirty")
    assert {trial["provenance"]["commit"] for trial in make().trials} == {records.COMMIT}
    assert records._provenance(torch.device("cpu"))["commit"] == records.COMMIT != "edited-dirty"


def test_the_peak_memory_of_a_trial_is_its_own_and_not_that_of_what_ran_before(fake):
    def some(setting, seed, context):
        torch.ones(2**28 if seed == 0 else 1).sum()  # 1 GiB

    fake.before = some
    trials = make(seeds=range(2)).trials
    first, second = (trials[number]["provenance"]["peak_memory_mib"] for number in (1, 2))
    if sys.platform.startswith("linux"):
        assert first > second + 900
    assert min(first, second) > 10


def test_commit_is_dirty_where_code_differs_but_not_where_only_records_do(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "__file__", str(tmp_path / "dnabook" / "records.py"))
    files = [tmp_path / "dnabook" / "records.py", tmp_path / "book" / "results" / "made-up-smoke.json"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = records.commit()
    assert re.fullmatch("[0-9a-f]{10}", clean)
    files[1].write_text("2\n")
    index = (tmp_path / ".git" / "index").read_bytes()
    os.utime(files[0], (1, 1))  # git would note the new date
    assert records.commit() == clean
    assert (tmp_path / ".git" / "index").read_bytes() == index
    files[0].write_text("2\n")
    assert records.commit() == f"{clean}-dirty"


def test_commit_is_unknown_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit() == "unknown"


def test_commit_is_unknown_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert records.commit() == "unknown"


# --- Reading records -----------------------------------------------------------------------------


def trial(colour, seed, rows, seconds=1.0, device="CPU a", date="2024-05-01T00:00:00+00:00", **values):
    provenance = {"seconds": seconds, "device": device, "date": date}
    return {
        "setting": {"colour": colour}, "seed": seed, "provenance": provenance,
        "values": {"table": rows, **values},
    }  # fmt: skip


@pytest.fixture
def record():
    return Record("made_up", "laptop", {}, [
        trial("red", 1, [{"rate": 0.1}, {"rate": 0.2}], 2.5, deep={"x": [11]}),
        trial("red", 0, [{"rate": 0.3}], 1.5, deep={"x": [10]}, date="2024-06-30T23:00:00+00:00"),
        trial("blue", 0, [{"rate": 0.1}], 1.0, device="A GPU", deep={"x": [20]}),
    ])  # fmt: skip


def test_seeds_and_seconds_of_a_record(record):
    assert record.seeds == [0, 1]
    assert record.seconds == 5


def test_find_gives_the_trial_of_a_setting_and_seed(record):
    assert record.find({"colour": "red"}, 0) is record.trials[1]
    assert record.find({"colour": "blue"}, 1) is None


def test_rows_carry_their_trial_s_setting_and_seed_and_are_filtered_by_both(record):
    assert next(record.rows("table")) == {"seed": 1, "colour": "red", "rate": 0.1}
    assert len(list(record.rows("table"))) == 4
    assert list(record.rows("table", rate=0.1, colour="blue")) == [{"seed": 0, "colour": "blue", "rate": 0.1}]
    assert [row["rate"] for row in record.rows("table", seed=1)] == [0.1, 0.2]


def test_values_follow_a_path_in_the_order_of_the_seeds(record):
    assert record.values("deep", "x", colour="red") == [[10], [11]]
    assert record.values("deep", seed=1) == [{"x": [11]}]
    assert record.values("deep", colour="green") == []


def test_the_caption_tells_scale_seeds_devices_and_the_latest_date(record, fake):
    begun, *whole = record.trials
    assert record.caption() == "laptop scale · 1 seed and 1 trial · A GPU + CPU a · 2024-06-30"
    record.trials = whole
    assert record.caption() == "laptop scale · 1 seed · A GPU + CPU a · 2024-06-30"
    record.trials = [begun, *whole, trial("blue", 1, []), *(trial("red", seed, []) for seed in (2, 3))]
    assert record.caption() == "laptop scale · 2 seeds and 2 trials · A GPU + CPU a · 2024-06-30"
    record.trials = whole[1:]
    assert record.caption() == "laptop scale · 1 trial · A GPU · 2024-05-01"
    assert Record("made_up", "paper", {}).caption() == "made_up · paper scale · no trials yet"
    record.config.update(steps=20, test_images=2500)
    assert record.caption() == "laptop scale · 1 trial · PGD-20 on 2,500 images · A GPU · 2024-05-01"
    assert record.caption(attack=False) == "laptop scale · 1 trial · A GPU · 2024-05-01"


def test_fewer_than_three_seeds_give_way_to_more_at_a_smaller_scale(fake):
    assert records.evidence("made_up") is None
    make("laptop", seeds=[0, 1])
    make("paper", seeds=[0])
    assert records.best("made_up").scale == records.evidence("made_up") == "laptop"
    assert records.evidence("made_up", scales=("smoke", "paper")) == "paper"
    make("paper", seeds=[1])
    assert records.best("made_up").scale == "paper"
    make("laptop", seeds=[2])
    assert records.best("made_up").scale == "laptop"
    make("paper", seeds=[2])
    assert records.best("made_up").scale == "paper"


def test_records_that_are_shown_together_are_of_one_scale(fake, monkeypatch):
    for scale in ("laptop", "paper"):
        make(scale, seeds=[0, 1, 2])
    found = {scale: records.load("made_up", scale) for scale in ("laptop", "paper")}
    fewer = {"laptop": found["laptop"]}  # another experiment, which has no paper scale
    monkeypatch.setattr(records, "current", lambda n, s: (fewer if n == "other" else found).get(s))
    assert records.together("made_up") == [found["paper"]]
    assert records.together("made_up", "other") == [found["laptop"], fewer["laptop"]]


def test_best_is_the_largest_scale_with_a_whole_seed(fake):
    make("smoke")
    make("laptop", seeds=[1])
    fake.before = lambda setting, seed, context: setting["colour"] == "red" or 1 / 0
    with pytest.raises(MissingTrials, match=r"colour blue \(ZeroDivisionError"):
        make("paper", seeds=[0])  # saves red only
    assert len(saved("paper")["trials"]) == 1
    assert records.best("made_up").scale == "laptop"
    fake.before = lambda setting, seed, context: None
    make("paper", seeds=[0])
    assert records.best("made_up").scale == "paper"


def test_a_figures_own_settings_decide_which_scale_is_shown(fake):
    make("laptop", seeds=range(3))
    fake.before = lambda setting, seed, context: (setting["colour"], seed) != ("blue", 0) or 1 / 0
    with pytest.raises(MissingTrials):
        make("paper", seeds=range(3))
    record = records.load("made_up", "paper")
    assert record.whole_seeds == record.figure_seeds == [1, 2] and records.best("made_up").scale == "laptop"
    fake.FIGURE = ({"colour": "red"},)
    assert record.whole_seeds == [1, 2] and record.figure_seeds == [0, 1, 2]
    assert records.best("made_up").scale == "paper" and "2 seeds and 1 trial" in record.caption()


def test_best_passes_over_records_of_another_configuration(fake):
    make("smoke")
    make("paper", seeds=[0])
    fake.SCALES = {**fake.SCALES, "paper": Config(size=9)}
    assert records.best("made_up").scale == "smoke"


def test_best_computes_this_build_s_scale_where_nothing_is_recorded(fake):
    record = records.best("made_up")
    assert record.scale == "smoke" and len(fake.runs) == 2


# --- Checkpoints ---------------------------------------------------------------------------------

STATE = {"weights": {"a": torch.arange(3.0)}, "history": {"loss": [1.0, 0.5]}, "epochs": 2, "generator": None}


def test_a_checkpoint_gives_back_what_was_saved(tmp_path):
    file = tmp_path / "new folder" / "state.pt"
    assert Checkpoint(file).load() is None
    Checkpoint(file).save(STATE)
    state = Checkpoint(file).load()
    assert state["weights"]["a"].equal(STATE["weights"]["a"])
    assert (state["history"], state["epochs"], state["generator"]) == (STATE["history"], 2, None)
    assert [f.name for f in file.parent.iterdir()] == ["state.pt"]  # nothing temporary is left


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_a_checkpoint_cut_short_counts_as_none(tmp_path, share):
    file = tmp_path / "state.pt"
    Checkpoint(file).save(STATE)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    checkpoint = Checkpoint(file)
    assert checkpoint.load() is None
    assert checkpoint.seconds_before == 0


def written(kind):
    """What somebody else may have in a file."""
    file = io.BytesIO()
    if kind == "text":
        return b"hello world\n" * 100
    if kind == "archive":
        numpy.savez(file, x=numpy.arange(3))
    else:
        torch.save(nn.Linear(2, 2).state_dict() if kind == "weights" else {"epochs": 3, "seconds": 1}, file)
    return file.getvalue()


@pytest.mark.parametrize("use", [lambda c: c.load(), lambda c: c.save(STATE)], ids=["load", "save"])
@pytest.mark.parametrize("kind", ["text", "archive", "weights", "another state"])
def test_a_file_that_is_no_checkpoint_stops_and_is_not_overwritten(tmp_path, kind, use):
    file, content = tmp_path / "state.pt", written(kind)
    file.write_bytes(content)
    told = re.escape(f"{file} is no checkpoint of dnabook and would be overwritten; delete it, or give")
    with pytest.raises(RecordError, match=told):
        use(Checkpoint(file))
    assert file.read_bytes() == content
    assert [f.name for f in tmp_path.iterdir()] == ["state.pt"]


def test_a_checkpoint_of_ones_own_is_replaced_without_being_read_first(tmp_path):
    for epochs in (1, 2):
        Checkpoint(tmp_path / "state.pt").save({"epochs": epochs})
    assert Checkpoint(tmp_path / "state.pt").load()["epochs"] == 2


def test_a_checkpoint_may_be_named_by_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Checkpoint("a.pt").save(STATE)
    assert (tmp_path / "a.pt").exists() and Checkpoint("a.pt").load()["epochs"] == 2


def test_a_crash_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    Checkpoint(file).save(STATE)

    def crash(state, target):
        target.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.torch, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            Checkpoint(file).save({"epochs": 3})
    assert Checkpoint(file).load()["epochs"] == 2
    assert [f.name for f in tmp_path.iterdir()] == ["state.pt"]  # nothing temporary is left


def test_seconds_of_earlier_sessions_add_up(tmp_path):
    file = tmp_path / "state.pt"
    for session in (1, 2):
        checkpoint = Checkpoint(file)
        checkpoint.load()
        checkpoint.opened -= 100  # as if this session had begun 100 s ago
        checkpoint.save(STATE)
        again = Checkpoint(file)
        again.load()
        assert again.seconds_before == pytest.approx(100 * session, abs=20)


def test_a_trial_that_resumes_counts_the_seconds_of_the_session_before(fake):
    def half(setting, seed, context):
        checkpoint = context.checkpoint(colour=setting["colour"])
        checkpoint.opened -= 100
        checkpoint.save(STATE)
        raise KeyboardInterrupt

    def rest(setting, seed, context):
        context.checkpoint(colour=setting["colour"]).load()

    fake.before = half
    with pytest.raises(KeyboardInterrupt):
        make()
    fake.before = rest
    seconds = {t["setting"]["colour"]: t["provenance"]["seconds"] for t in make().trials}
    assert seconds["red"] >= 100 > 50 > seconds["blue"]


def test_checkpoints_are_shared_by_equal_settings_and_seeds_only(fake):
    files = {}

    def note(setting, seed, context):
        for size in (1, 2):
            files[setting["colour"], seed, size] = context.checkpoint(size=size, rate=0.5).file
        assert context.checkpoint(rate=0.5, size=1).file == files[setting["colour"], seed, 1]

    fake.before = note
    make(seeds=[0, 1])
    assert files["red", 0, 1] == files["blue", 0, 1]  # the setting counts only where it is named
    assert len({files["red", 0, 1], files["red", 0, 2], files["red", 1, 1], files["red", 1, 2]}) == 4


@pytest.mark.parametrize("word", ["seed", "device", "code", "experiment"])
def test_no_word_that_a_checkpoint_is_named_by_is_lost(fake, word):
    found = []
    fake.before = lambda setting, seed, context: found.extend(
        context.checkpoint(**{word: value}).file for value in (1, 2)
    )
    make()
    assert len(set(found)) == 2


OWN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    rate: float = 0.1

SCALES = dict.fromkeys(("smoke", "laptop", "paper"), Config())
places = []

def settings(config):
    return [{"arm": 1}]

def loss(x):
    return 1.0 * x

def run(config, setting, seed, context):
    places.append(context.checkpoint(stage=0).file)
    return {}
"""


@pytest.fixture
def own(monkeypatch, tmp_path, fake):
    """Writes an experiment of one's own into a file, imports it and makes its record; gives the module."""

    def made(name, code, imported=True):
        module = types.ModuleType(f"dnabook.experiments.{name}")
        module.__file__ = str(tmp_path / f"{name}.py")
        Path(module.__file__).write_text(code)
        if imported:
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setattr(records, "NAMES", (*records.NAMES, name))
            exec(compile(code, module.__file__, "exec"), vars(module))
        made.record = records.make(name, device="cpu", progress=quiet)
        records.path(name, "smoke").unlink()
        return sys.modules[module.__name__]

    return made


def test_an_experiment_of_ones_own_has_checkpoints_of_its_own_which_its_code_names(own):
    def place(*how, **options):
        return own(*how, **options).places[-1]

    first = place("mine", OWN)
    assert place("mine", OWN.replace("1.0 * x", "1.0*x  # the same")) == first
    assert place("mine", OWN.replace("1.0", "2.0")) != first
    assert place("mine", OWN, imported=False) != first  # edited since, but not imported anew
    assert place("theirs", OWN) != first


def test_the_experiment_that_contributing_shows_runs_as_it_is(own):
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = own("shown", code)
    (trial, *_) = own.record.trials
    assert module.TITLE and own.record.whole_seeds == [0] and module.SCALES["paper"] == module.Config()
    assert len(own.record.trials) == len(module.settings(module.SCALES["smoke"])) > 1
    assert 0.3 < trial["values"]["accuracy"][0] <= 1 and trial["provenance"]["data"] != "unknown"


def test_experiments_that_train_as_others_do_share_checkpoints_and_all_others_name_them_by_their_code():
    assert set(records.SHARING) <= set(experiments.NAMES)
    for name in experiments.NAMES:
        assert records._own(name) == {}
    packaged = {f"experiments/{name}" for name in experiments.NAMES}
    assert packaged - set(records.TRAINING_CODE) == {f"experiments/{name}" for name in records.SHARING}


def test_a_checkpoint_is_for_so_many_threads_of_a_processor(fake):
    found = []
    fake.before = lambda setting, seed, context: found.append(context.checkpoint(size=1).file)
    for threads in (1, 2, 1):
        make(threads=threads)
        records.path("made_up", "smoke").unlink()
    assert found[0] == found[1] == found[4] and found[2] == found[3] != found[0]


def test_a_checkpoint_is_for_one_kind_of_gpu_with_any_number_of_threads(fake, monkeypatch):
    found = []
    fake.before = lambda setting, seed, context: found.append(context.checkpoint(size=1).file)
    monkeypatch.setattr(records, "seeded", lambda seed, device: contextlib.nullcontext())
    monkeypatch.setattr(records, "forget_peak", lambda device: None)
    monkeypatch.setattr(records, "peak", lambda device: 0)
    for name, threads in (("H100", 1), ("T4", 1), ("T4", 2)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        with records._threads(threads):
            trial, _ = records._run_trial(empty(), {"colour": "red"}, 0, torch.device("cuda"), quiet)
        assert trial["provenance"]["device"] == name
    assert found[0] != found[1] == found[2]


WHAT_TRAINS = (
    "graphs", "products", "data", "models", "autoencoders", "regression", "measures", "losses", "training",
    "experiments/pairs", "experiments/reconstruction", "attacks", "dverge", "experiments/dverge",
    "experiments/parameter_distance", "experiments/controls", "experiments/surrogate",
    "experiments/learned_features", "experiments/features_or_gradients", "experiments/autoencoder_cifar",
)  # fmt: skip


def test_every_module_that_says_how_models_are_trained_names_their_checkpoints():
    package = Path(records.__file__).parent
    trains = re.compile(
        r"\b(train_in_stages|context\.checkpoint|training\.fit|fast_convolutions|train_heads)\("
    )
    found = {
        file.relative_to(package).with_suffix("").as_posix()
        for file in package.rglob("*.py") if trains.search(file.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert "experiments/surrogate" in found and found <= set(records.TRAINING_CODE)


@pytest.mark.parametrize("changed", WHAT_TRAINS)
def test_a_checkpoint_made_by_other_code_is_another_file(changed, monkeypatch, tmp_path):
    package = tmp_path / "dnabook"
    for name in (*records.TRAINING_CODE, "figures"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text("1")
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    before = records._training_code()
    (package / "figures.py").write_text("2")
    assert records._training_code() == before
    (package / f"{changed}.py").write_text("2")
    assert records._training_code() != before


def test_comments_layout_and_docstrings_of_the_code_that_trains_may_change():
    code = '"""Trains."""\ndef fit(rate=0.1):\n    """Fit."""\n    return 2.5 * rate\n'
    other = '"""It trains."""\n\ndef fit(rate = 0.1):  # Adam\n    """Fits."""\n    return 2.5*rate\n'
    assert records._what_runs(code) == records._what_runs(other)
    assert records._what_runs(code) != records._what_runs(other.replace("2.5", "2.6"))
    assert records._what_runs(code) != records._what_runs(other.replace("0.1", "0.2"))


def test_a_checkpoint_of_another_torch_is_another_file(monkeypatch):
    before = records._checkpoint_path({"seed": 0})
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert records._checkpoint_path({"seed": 0}) != before


def test_records_can_be_read_by_other_users_of_the_machine(fake):
    make()
    assert records.path("made_up", "smoke").stat().st_mode & 0o777 == 0o644


def test_checkpoints_are_named_by_the_code_that_was_imported_not_by_the_code_on_disk(monkeypatch, tmp_path):
    key = {"size": 1, "seed": 0}
    before = records._checkpoint_path(key)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))  # as if all were edited since
    assert records._checkpoint_path(key) == before
    monkeypatch.setattr(records, "TRAINED_BY", "other code")
    assert records._checkpoint_path(key) != before


def test_the_code_that_trains_is_imported_when_its_digest_is_taken():
    program = "import sys; from dnabook import records; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    trains = {f"dnabook.{name}".replace("/", ".") for name in records.TRAINING_CODE}
    assert trains <= set(run.stdout.split())


# --- Weights -------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Parameters in two memory layouts and buffers of two types; above a million parameters when `large`."""

    def __init__(self, large=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(1000, 1000 if large else 20)
        self.norm.running_mean.uniform_()
        self.norm.num_batches_tracked.fill_(70_001)


def keeping(models):
    """A `before` that keeps, of each colour, its own models."""
    return lambda setting, seed, context: context.keep(**models[setting["colour"]])


def stored(scale="smoke"):
    return load_file(records.weights_path("made_up", scale))


@pytest.fixture
def kept(fake):
    """Two colours that keep a model each; "blue" keeps a large one beside it."""
    models = {"red": {"red": Mixed()}, "blue": {"blue": Mixed(), "blue_large": Mixed(large=True)}}
    fake.before = keeping(models)
    return {**models["red"], **models["blue"]}


def test_weights_of_all_trials_of_seed_0_are_kept_together_beside_the_record(kept):
    record = make(seeds=[0])
    file = records.weights_path("made_up", "smoke")
    assert file == records.path("made_up", "smoke").with_suffix(".safetensors") and file.exists()
    found = records.weights(record)
    assert set(found) == {"red", "blue", "blue_large"}
    for name, model in kept.items():
        assert set(found[name]) == set(model.state_dict())


def test_small_models_come_back_exactly(kept):
    found = records.weights(make())
    for name in ("red", "blue"):
        for key, value in kept[name].state_dict().items():
            assert found[name][key].equal(value) and found[name][key].dtype == value.dtype
        Mixed().load_state_dict(found[name])


def test_models_above_a_million_parameters_are_stored_in_half_precision_and_come_back_in_single(kept):
    found = records.weights(make())["blue_large"]
    file = stored()
    for key, value in kept["blue_large"].state_dict().items():
        halved = value.half() if value.is_floating_point() else value
        assert file[f"blue_large/{key}"].equal(halved) and file[f"blue_large/{key}"].dtype == halved.dtype
        assert found[key].dtype == value.dtype and found[key].equal(halved.to(value.dtype))
    assert file["blue/linear.weight"].dtype == torch.float32
    Mixed(large=True).load_state_dict(found)


def test_tensors_are_kept_as_they_are_beside_the_models(fake):
    pixels, labels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8), torch.arange(5)
    large = torch.rand(1_000_001)
    model = nn.Linear(3, 2)
    items = {"model": model, "pixels": pixels.transpose(1, 3), "labels": labels, "large": large}
    fake.before = lambda setting, seed, context: context.keep(**items)
    found = records.weights(make())
    assert set(found) == {"model", "pixels", "labels", "large"}
    assert found["pixels"].equal(pixels.transpose(1, 3)) and found["pixels"].dtype == torch.uint8
    assert found["labels"].equal(labels) and found["large"].equal(large)
    assert found["model"]["weight"].equal(model.weight)


@pytest.mark.parametrize("extra, dtype", [(0, torch.float32), (1, torch.float16)])
def test_exactly_a_million_parameters_are_not_yet_many(fake, extra, dtype):
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1_000_000 + extra))
    fake.before = lambda setting, seed, context: context.keep(model=model)
    make()
    assert stored()["model/weight"].dtype == dtype


def test_other_seeds_keep_nothing(kept):
    make(seeds=[1, 2])
    assert not records.weights_path("made_up", "smoke").exists()
    make(seeds=[0])
    before = records.weights_path("made_up", "smoke").read_bytes()
    make(seeds=[3])
    assert records.weights_path("made_up", "smoke").read_bytes() == before


def test_a_trial_that_is_run_again_replaces_its_own_weights_only(fake, kept):
    make()
    again = Mixed()
    fake.before = keeping({"red": {"red": again}, "blue": {}})
    records.path("made_up", "smoke").unlink()
    found = records.weights(make())
    assert found["red"]["linear.weight"].equal(again.linear.weight)
    assert found["blue"]["linear.weight"].equal(kept["blue"].linear.weight)


def test_each_scale_keeps_its_own_weights(fake, kept):
    smoke = make("smoke")
    fake.before = keeping({"red": {"red": Mixed()}, "blue": {}})
    laptop = make("laptop", seeds=[0])
    one, other = (records.weights(record)["red"]["linear.weight"] for record in (smoke, laptop))
    assert not one.equal(other)
    assert set(records.weights(laptop)) == {"red"}


def test_threads_that_keep_weights_of_one_record_lose_none(fake, monkeypatch):
    kept = [records._tensors({f"m{i}": nn.Linear(2, 2)}) for i in range(8)]
    save_in_threads(monkeypatch, [a_trial(seed) for seed in range(8)], kept)
    assert {key.split("/")[0] for key in stored()} == {f"m{i}" for i in range(8)}


def test_a_crash_while_weights_are_written_leaves_the_old_ones_whole(kept, monkeypatch):
    make()
    before = records.weights_path("made_up", "smoke").read_bytes()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(records.os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        records._save_trial(empty(), a_trial(1), records._tensors({"red": Mixed()}))
    assert records.weights_path("made_up", "smoke").read_bytes() == before
    assert files() == {"made-up-smoke.json", "made-up-smoke.safetensors"}


def test_a_record_that_keeps_no_weights_says_so_and_does_not_ask_for_its_trials(fake):
    fake.KEEPS_WEIGHTS = False
    with pytest.raises(RecordError, match=r"^made_up keeps no weights$"):
        records.weights(make())


def test_those_experiments_keep_weights_that_hand_them_over():
    package = Path(experiments.__file__).parent
    keeping = {n for n in experiments.NAMES if "context.keep(" in (package / f"{n}.py").read_text("utf-8")}
    said = {n for n in experiments.NAMES if getattr(records.experiment(n), "KEEPS_WEIGHTS", False)}
    assert said == keeping != set()


@pytest.mark.parametrize("read", [records.load, records.current])
def test_a_misspelt_experiment_or_scale_is_an_error_not_a_record_that_is_missing(read):
    with pytest.raises(ValueError, match="unknown experiment 'transfr'; known: parameter_distance"):
        read("transfr", "paper")
    with pytest.raises(ValueError, match="unknown scale 'papr'; known: smoke, laptop, paper"):
        read("transfer", "papr")


def test_a_number_in_the_place_of_seeds_is_refused(fake):
    with pytest.raises(ValueError, match=r"seeds says which, for example range\(3\), got 3"):
        make(seeds=3)


def test_missing_weights_stop_with_their_file_and_the_command_that_makes_them(fake):
    record = make()
    file = records.weights_path("made_up", "smoke")
    with pytest.raises(
        RecordError, match=re.escape(f"{file} is missing; delete the trials of seed 0 from ")
    ) as stop:
        records.weights(record)
    assert "made-up-smoke.json" in str(stop.value)
    assert str(stop.value).endswith("run: dnabook run made_up --scale smoke")


def test_what_the_message_of_missing_weights_says_brings_them_back(fake, kept):
    record = make(seeds=[0, 1])
    records.weights_path("made_up", "smoke").unlink()
    content = saved()
    content["trials"] = [trial for trial in content["trials"] if trial["seed"] != 0]
    records.path("made_up", "smoke").write_text(json.dumps(content))
    assert make(seeds=[0, 1]).seeds == [0, 1]
    assert set(records.weights(record)) == set(kept)


def test_a_context_of_its_own_keeps_nothing():
    context = Context(device=torch.device("cpu"))
    assert context.keep(model=nn.Linear(2, 2)) is None and context.checkpoint(size=1) is None


def test_a_trial_that_another_process_saved_meanwhile_is_not_made_again(fake):
    def before(setting, seed, context):  # as if the other process began and ended during the first trial
        fake.before = lambda *_: None
        other = {"colour": "blue" if setting["colour"] == "red" else "red"}
        head = Record("made_up", "smoke", records.config_of("made_up", "smoke"))
        records._save_trial(head, *records._run_trial(head, other, seed, torch.device("cpu"), quiet))

    fake.before = before
    record = make(seeds=[0])
    assert sorted(fake.runs) == [("blue", 0), ("red", 0)] and len(record.trials) == 2


def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_none(tmp_path):
    file = tmp_path / "state.pt"
    file.mkdir()  # there, and unreadable, whoever reads
    with pytest.raises(OSError):
        Checkpoint(file).load()


def test_trials_that_another_process_is_making_come_last_and_are_taken_from_it(fake):
    """While one is in its first trial another begins: it makes the second, and waits for the first."""
    found = []
    other = threading.Thread(target=lambda: found.append(make()))

    def before(setting, seed, context):
        if len(fake.runs) == 1:
            other.start()
            while len(fake.runs) < 2 and other.is_alive():
                time.sleep(0.01)

    fake.before = before
    record = make()
    other.join()
    assert len(fake.runs) == len(set(fake.runs)) == len(record.trials) == 2
    assert found[0].trials == record.trials


def test_a_trial_on_a_gpu_has_repeatable_float32_convolutions():
    settings = torch.backends.cudnn
    before = settings.deterministic, settings.allow_tf32, settings.benchmark
    with training.repeatable(torch.device("cuda")):
        assert settings.deterministic and not settings.allow_tf32 and not settings.benchmark
    assert (settings.deterministic, settings.allow_tf32, settings.benchmark) == before
    with training.repeatable(torch.device("cpu")):
        assert (settings.deterministic, settings.allow_tf32, settings.benchmark) == before


def test_the_gpus_of_other_processes_are_named_and_not_opened(monkeypatch):
    def opened(*_, **__):
        raise AssertionError("a tensor was put there")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", opened)
    assert records._named("cuda:1") == torch.device("cuda:1") and records._named("cuda").type == "cuda"
    with pytest.raises(ValueError, match=r"'cuda:2' cannot be used here \(there are 2 GPUs\)"):
        records._named("cuda:2")

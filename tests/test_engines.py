"""Calls and trials in parallel: what comes back, on which device, what a killed process costs, who cleans up.

The functions that are called stand at the top level, because their processes import this module for them.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from dnabook import data, engines, losses, records, training
from dnabook.engines import Failure, Plan, placement, plan
from dnabook.training import quiet

CLUSTERS = ("ray", "dask")
# What the clusters' own packages warn of is not ours to mend.
on_a_cluster = pytest.mark.filterwarnings("default")


def needs(engine):
    for module in engines.NEEDS[engine]:
        pytest.importorskip(module)


def calls_of(function, *arguments, **wishes):
    """The results of function(argument, device), by index."""
    return dict(engines.results(function, [(a,) for a in arguments], plan(**{"jobs": 2, **wishes})))


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


# --- Plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wishes", [{}, {"jobs": 1}, {"devices": ["cpu"]}, {"threads": 3}])
def test_without_a_wish_for_more_there_is_no_plan(wishes):
    assert plan(**wishes) is None


def test_several_jobs_or_devices_mean_processes_on_this_machine():
    assert plan(jobs=3) == Plan("joblib", (None, None, None), 1, None)
    assert plan(devices=["cpu", "cpu"]) == Plan("joblib", ("cpu", "cpu"), 1, None)
    assert plan("joblib", jobs=1) == Plan("joblib", (None,), 1, None)


@pytest.mark.parametrize("gpu, jobs", [(False, 7), (True, 1)])
def test_an_engine_alone_gets_a_job_for_every_core_or_the_one_gpu(monkeypatch, gpu, jobs):
    monkeypatch.setattr(engines.joblib, "cpu_count", lambda: 7)
    monkeypatch.setattr(engines.torch.cuda, "is_available", lambda: gpu)
    assert len(plan("joblib").slots) == jobs


@pytest.mark.parametrize("jobs, share", [(1, 5), (2, 2), (3, 1), (5, 1), (9, 1)])
def test_the_threads_are_shared_out_and_every_job_has_one(monkeypatch, jobs, share):
    monkeypatch.setattr(engines.torch, "get_num_threads", lambda: 5)
    assert plan("joblib", jobs=jobs).threads == share
    assert plan("joblib", jobs=jobs, threads=4).threads == 4


def test_devices_are_dealt_out_round_robin():
    assert placement(["cuda:0", "cuda:1"], 2) == ("cuda:0", "cuda:1")
    assert placement(["cuda:0", "cuda:1"], 5) == ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0")
    assert placement([None], 2) == (None, None)
    with pytest.raises(ValueError, match="3 devices need at least as many jobs, got 2"):
        placement(["cuda:0", "cuda:1", "cuda:2"], 2)


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"engine": "spark"}, "unknown engine 'spark'; known: joblib, ray, dask"),
        ({"jobs": 0}, "jobs must be a whole number, at least 1, got 0"),
        ({"jobs": -2}, "at least 1, got -2"),
        ({"jobs": 1.5}, "at least 1, got 1.5"),
        ({"jobs": True}, "at least 1, got True"),
        ({"jobs": 2, "threads": 0}, "threads must be a whole number, at least 1, got 0"),
        ({"devices": []}, r"devices are names like \"cuda:0\", at least one and none empty, got \[\]"),
        ({"devices": ["cpu", ""]}, "none empty"),
        ({"devices": "cpu"}, "none empty, got 'cpu'"),
        ({"devices": ["cpu", "cpu"], "jobs": 1}, "2 devices need at least as many jobs, got 1"),
        ({"jobs": 2, "address": "auto"}, "an address is for a cluster: engine ray or dask"),
        ({"engine": "dask", "address": "tcp://a:1"}, "how many jobs"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(wishes, message):
    with pytest.raises(ValueError, match=message):
        plan(**wishes)


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_missing_extra_stops_with_the_command_that_installs_it(monkeypatch, engine):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf'engine {engine} needs .*: pip install "dnabook\[{engine}\]"'):
        plan(engine, jobs=2)


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_cluster_takes_one_device_for_all_jobs(engine):
    needs(engine)
    assert plan(engine, devices=["cpu", "cpu"]).slots == ("cpu", "cpu")
    with pytest.raises(ValueError, match="different devices are for engine joblib"):
        plan(engine, devices=["cuda:0", "cuda:1"])


# --- Calls on this machine -----------------------------------------------------------------------


def no_calls(*_):
    raise AssertionError


def test_nothing_to_call_gives_nothing():
    assert list(engines.results(no_calls, [], plan(jobs=2))) == []


def surroundings(x, device):
    print("this is no part of the answer")
    return x, os.getpid(), os.getppid(), torch.get_num_threads(), os.environ.get("DNABOOK_TEST"), device


def test_every_call_has_its_result_a_process_its_threads_and_our_settings(monkeypatch):
    monkeypatch.setenv("DNABOOK_TEST", "passed on")
    found = calls_of(surroundings, 3, "ab", [1], threads=3)
    assert {index: result[0] for index, result in found.items()} == {0: 3, 1: "ab", 2: [1]}
    processes = {result[1] for result in found.values()}
    assert os.getpid() not in processes and len(processes) <= 2  # one for each job
    assert {result[2:] for result in found.values()} == {(os.getpid(), 3, "passed on", None)}


def interval(place, device):
    """When the call ran, and where; "slow" waits until the results of the two others have been received."""
    start, (folder, name) = time.monotonic(), place
    if name == "slow":
        assert eventually(lambda: len(list(folder.iterdir())) == 2, 100)
    return device, start, time.monotonic()


def test_results_come_as_they_are_ready_and_a_device_has_one_call_at_a_time(tmp_path):
    calls = [((tmp_path, name),) for name in ("slow", "second", "third")]
    found = {}
    for index, result in engines.results(interval, calls, plan(devices=["cpu", "meta"])):
        found[index] = result
        (tmp_path / str(index)).touch()
    assert list(found) == [1, 2, 0]
    assert found[1][0] == found[2][0] != found[0][0]  # the third has the device that is free
    assert {found[0][0], found[1][0]} == {"cpu", "meta"}
    assert found[1][2] <= found[2][1]


def misbehave(how, device):
    if how == "raise":
        raise FloatingPointError("the loss became nan\nin epoch 3")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "unpicklable":
        return lambda: 0
    return how


def test_a_call_that_fails_or_dies_is_a_failure_with_its_reason_and_the_others_go_on():
    found = calls_of(misbehave, "raise", "exit", "kill", "unpicklable", "fine")
    assert found.pop(4) == "fine"
    assert all(isinstance(failure, Failure) for failure in found.values())
    assert found[0].reason == "FloatingPointError: the loss became nan in epoch 3"
    assert found[0].traceback.startswith("Traceback") and "in misbehave" in found[0].traceback
    assert found[1] == Failure("its process ended with status 3")
    assert found[2].reason == "its process was ended by SIGKILL, perhaps for want of memory"
    assert "pickle" in found[3].reason


def number_or_fault(x, device):
    if x is None:
        raise ValueError("none")
    return x, os.getpid()


def test_a_process_makes_call_after_call_and_after_a_failure_another_takes_its_place():
    found = dict(engines.results(number_or_fault, [(1,), (2,), (None,), (3,), (4,)], plan("joblib", jobs=1)))
    assert found[2].reason == "ValueError: none"
    values, processes = zip(*(found[i] for i in (0, 1, 3, 4)), strict=True)
    assert values == (1, 2, 3, 4)
    assert processes[0] == processes[1] != processes[2] == processes[3]
    assert not any(map(alive, processes))


@linux
def test_a_process_that_ended_with_nothing_to_do_is_replaced():
    request = pickle.dumps((1, number_or_fault, (7,)))
    settings = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with engines._on_this_machine(plan("joblib", jobs=1)) as (_, run):
        processes = []
        for index in range(2):
            found, answer = run(index, request, settings)
            assert isinstance(answer, bytes), answer
            value, process = pickle.loads(answer)
            assert (found, value) == (index, 7)
            processes.append(process)
            os.kill(process, signal.SIGKILL)
            assert eventually(lambda process=process: not alive(process))
            time.sleep(1)  # until its other threads are gone, too
    assert processes[0] != processes[1]


def note_and_sleep(file, device):
    if file is None:
        return 0
    Path(file).write_text(str(os.getpid()))
    time.sleep(120)


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@linux
def test_closing_the_results_ends_the_processes(tmp_path):
    file = tmp_path / "process"
    found = engines.results(note_and_sleep, [(str(file),), (None,)], plan(jobs=2))
    assert next(found) == (1, 0)
    assert eventually(lambda: file.exists() and file.read_text())
    assert alive(file.read_text())
    found.close()
    assert eventually(lambda: not alive(file.read_text()))


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import test_engines
from dnabook import engines
list(engines.results(test_engines.note_and_sleep, [(file,) for file in sys.argv[1:]], engines.plan(jobs=2)))
"""


@linux
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_caller_is_interrupted_or_killed_the_processes_end(tmp_path, how):
    files = [tmp_path / "a", tmp_path / "b"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *map(str, files)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as caller:
        assert eventually(lambda: all(file.exists() and file.read_text() for file in files))
        caller.send_signal(how)
        error = caller.communicate(timeout=200)[1]
    assert eventually(lambda: not any(alive(file.read_text()) for file in files))
    assert ("KeyboardInterrupt" in error) == (how == signal.SIGINT)
    assert "Warning" not in error


# --- Calls on a cluster --------------------------------------------------------------------------


def misbehave_or_kill_the_worker(how, device):
    """A path: ends the worker of the cluster, and with it this process, the first time."""
    if not isinstance(how, Path):
        return misbehave(how, device)
    if not how.exists():
        how.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return "again"


@pytest.mark.parametrize("engine", [pytest.param(engine, marks=on_a_cluster) for engine in CLUSTERS])
def test_on_a_local_cluster_too_killed_processes_and_workers_leave_the_other_calls_alone(engine, tmp_path):
    """Of a killed worker's call Dask makes a second one by itself; Ray reports it as lost."""
    needs(engine)
    calls = "raise", "kill", tmp_path / "killed", "fine"
    found = calls_of(misbehave_or_kill_the_worker, *calls, engine=engine)
    assert found[0].reason == "FloatingPointError: the loss became nan in epoch 3"
    assert found[1].reason == "its process was ended by SIGKILL, perhaps for want of memory"
    assert found[2] == "again" if engine == "dask" else "the cluster lost it" in found[2].reason
    assert found[3] == "fine"


@on_a_cluster
def test_a_cluster_that_runs_already_is_joined_by_its_address_and_left_running(monkeypatch):
    """Its workers' own settings go before ours; where they have none, ours go along."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("DNABOOK_TEST", "the worker's")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv("DNABOOK_TEST", "ours")
        address = cluster.scheduler_address
        found = calls_of(surroundings, 1, engine="dask", address=address)
        assert found[0][4] == "the worker's" and found[0][2] != os.getpid()
        with distributed.Client(address) as client:
            assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize(
    "engine, address", [("dask", "tcp://127.0.0.1:1"), ("dask", "nonsense"), ("ray", "127.0.0.1:1")]
)
def test_a_cluster_that_does_not_answer_stops_with_one_line(engine, address, monkeypatch):
    needs(engine)
    monkeypatch.setattr(engines, "PATIENCE", 1)
    with pytest.raises(ValueError, match=f"no {engine.title()} cluster answers at {address}") as stop:
        calls_of(surroundings, 1, engine=engine, address=address)
    assert len(str(stop.value).splitlines()) == 1


# --- Trials --------------------------------------------------------------------------------------


def values_of(record):
    return [(t["setting"], t["seed"], t["values"]) for t in record.trials]


@pytest.fixture
def results_in(monkeypatch, tmp_path):
    def use(name):
        monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path / name))
        monkeypatch.setenv("DNABOOK_CACHE", str(tmp_path / f"{name} cache"))

    return use


@pytest.fixture(scope="module")
def one_by_one(smoke):
    """Two trials of Figure 1's experiment at smoke scale, made one after the other, without an engine."""
    return smoke("parameter_distance")


@pytest.mark.parametrize(
    "engine", ["joblib", *(pytest.param(engine, marks=on_a_cluster) for engine in CLUSTERS)]
)
def test_the_same_seeds_give_the_same_record_whatever_the_engine(engine, one_by_one, results_in):
    needs(engine)
    results_in(engine)
    options = {"device": "cpu", "jobs": 2, "threads": 1, "progress": quiet}
    record = records.make("parameter_distance", "smoke", engine=engine, **options)
    assert len(record.trials) == 2
    assert values_of(record) == values_of(one_by_one)
    assert record.config == one_by_one.config
    for one, other in zip(record.trials, one_by_one.trials, strict=True):
        assert one["provenance"]["threads"] == other["provenance"]["threads"] == 1
        assert set(one["provenance"]) == set(other["provenance"])
        assert one["provenance"]["data"] == other["provenance"]["data"]
    assert records.load("parameter_distance", "smoke") == record


class Tiny:
    """An experiment of a second: one layer learns 500 digits; its weights are kept."""

    TITLE = "A tiny experiment"

    @staticmethod
    def run(config, setting, seed, context):
        if setting["target_distance"] == 1000 and (fuse := Path(os.environ["DNABOOK_FUSE"])).exists():
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        images = data.load("mnist", limit=500, device=context.device)
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        history = training.fit(
            losses.classification(model),
            model.parameters(),
            data.Batches(images, 100, seed=seed),
            epochs=2,
            checkpoint=context.checkpoint(tiny=True, **setting),
        )
        context.keep(**{f"model_{setting['target_distance']}": model})
        return {"data": images.digest, "accuracy": [0.5], "loss": history["loss"]}


def tiny_call(record, setting, seed, device):
    """`records._run_call` for Tiny in the place of Figure 1's experiment."""
    records.experiment(record.name).run = Tiny.run
    return REAL_CALL(record, setting, seed, device)


REAL_CALL = records._run_call


@pytest.fixture
def tiny(monkeypatch, tmp_path, results_in):
    """Tiny's two trials, here and in the processes; a lit fuse ends one process once."""
    monkeypatch.setattr(records.experiment("parameter_distance"), "run", Tiny.run)
    monkeypatch.setattr(records, "_run_call", tiny_call)
    monkeypatch.setenv("DNABOOK_FUSE", str(tmp_path / "fuse"))
    results_in("tiny")

    def make(**options):
        options = {"device": "cpu", "progress": quiet, **options}
        return records.make("parameter_distance", "smoke", **options)

    make.fuse, make.into = tmp_path / "fuse", results_in
    return make


def test_a_killed_process_loses_only_its_trial_and_running_again_completes_the_record(tiny, monkeypatch):
    tiny.fuse.touch()
    with pytest.raises(records.MissingTrials) as stop:
        tiny(jobs=2)
    assert str(stop.value) == (
        "parameter_distance (smoke) lacks 1 of the 2 trials that were to run: seed 0, target_distance 1000 "
        "(its process was ended by SIGKILL, perhaps for want of memory). "
        "The others are saved; run again to complete the record"
    )
    (kept,) = records.load("parameter_distance", "smoke").trials
    record = tiny(jobs=2)
    assert len(record.trials) == 2 and kept in record.trials
    monkeypatch.setattr(engines, "results", no_calls)
    assert tiny(jobs=2) == record  # a complete record starts nothing
    tiny.into("compared")
    assert values_of(tiny()) == values_of(record)


def failing_call(record, setting, seed, device):
    raise FloatingPointError("the loss became nan")


def test_the_traceback_of_a_trial_in_another_process_is_in_the_cause(tiny, monkeypatch):
    monkeypatch.setattr(records, "_run_call", failing_call)
    with pytest.raises(records.MissingTrials, match="Run again to complete the record") as stop:
        tiny(jobs=2)
    cause = str(stop.value.__cause__)
    assert "in another process" in cause and "in failing_call" in cause and "the loss became nan" in cause


def test_the_message_names_three_trials_and_counts_the_others(tiny, monkeypatch):
    missing = [({"arm": "late"}, seed) for seed in range(6)]
    record = records.Record("transfer", "paper", {})
    message = records._missing(record, missing, dict.fromkeys((5, 0, 3, 1), "it failed"))
    assert message.startswith(
        "transfer (paper) lacks 4 of the 6 trials that were to run: seed 0, arm late (it failed); "
        "seed 1, arm late (it failed); seed 3, arm late (it failed); and 1 more. "
    )


def test_parallel_trials_keep_weights_and_checkpoints_and_the_bar_counts_those_that_are_saved(tiny):
    seen = []

    def progress(iterable, description=""):
        for item in iterable:
            saved = records.load("parameter_distance", "smoke")
            seen.append(len(saved.trials) if saved else 0)
            yield item
        seen.append(len(records.load("parameter_distance", "smoke").trials))

    record = tiny(device=None, devices=["cpu", "cpu"], progress=progress)
    assert seen == [0, 1, 2]
    found = records.weights(record)
    checkpoints = list((data.cache_folder() / "checkpoints").iterdir())
    assert set(found) == {"model_None", "model_1000"} and len(checkpoints) == 2
    tiny.into("compared")
    for name, weights in records.weights(tiny()).items():
        for key, value in weights.items():
            assert value.equal(found[name][key])


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"device": None, "devices": ["cpu", "bogus"]}, "device 'bogus' cannot be used here"),
        ({"device": None, "devices": ["cpu", "cuda:9"]}, "device 'cuda:9' cannot be used here"),
        ({"devices": ["cpu", "cpu"]}, "one device, or several devices, not both"),
        ({"jobs": 0}, "jobs must be"),
        ({"engine": "spark"}, "unknown engine"),
    ],
)
def test_wrong_wishes_stop_before_any_trial_starts(tiny, monkeypatch, wishes, message):
    monkeypatch.setattr(engines, "results", no_calls)
    monkeypatch.setattr(records, "_run_trial", no_calls)
    with pytest.raises(ValueError, match=message):
        tiny(**wishes)


def test_a_worker_whose_code_has_another_configuration_gives_no_trial():
    record = records.Record("transfer", "smoke", {"steps": 1})
    with pytest.raises(records.RecordError, match="another configuration"):
        records._run_call(pickle.loads(pickle.dumps(record)), {}, 0, "cpu")


def test_threads_of_trials_run_here_are_set_for_their_time_only(tiny):
    record = tiny(threads=2)
    assert {trial["provenance"]["threads"] for trial in record.trials} == {2}
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("slot", "jobs", "cards", "share"),
    [("cpu", 4, 0, 0), (None, 2, 1, 0), ("cuda:0", 2, 1, 0.5), ("cuda:0", 2, 2, 1), ("cuda", 3, 2, 0.5),
     ("cuda:0", 3, 1, 0.333)],
)  # fmt: skip
def test_all_of_rays_actors_find_a_place_on_its_gpus(slot, jobs, cards, share):
    assert engines._share_of_a_card(slot, jobs, cards) == share
    if share:
        assert cards * int(1 / share) >= jobs


def test_ray_without_a_gpu_is_told_to_name_the_cpu():
    with pytest.raises(ValueError, match="has no GPU; name --device cpu"):
        engines._share_of_a_card("cuda:0", 2, 0)

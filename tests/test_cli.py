"""The command line, on a made-up instant experiment: what it prints, where, and with which exit status."""

import io
import runpy
import subprocess
import sys
import types
from dataclasses import dataclass

import pytest
import torch

import dnabook
from dnabook import __main__ as cli
from dnabook import data, engines, experiments, records
from dnabook.__main__ import main
from dnabook.training import quiet


@dataclass(frozen=True)
class Config:
    colours: tuple[str, ...] = ("red", "blue")
    size: int = 3


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """An instant experiment in place of the real ones; `runs` lists what it ran."""
    module = types.ModuleType("dnabook.experiments.made_up")

    def run(config, setting, seed, context):
        module.runs.append((setting["colour"], seed))
        return {"data": "0123456789ab", "accuracy": torch.rand(2).tolist()}

    module.TITLE, module.run, module.runs = "A made-up experiment", run, []
    module.SCALES = {"smoke": Config(), "laptop": Config(size=4), "paper": Config(size=5)}
    module.settings = lambda config: [{"colour": colour} for colour in config.colours]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for place in (records, cli):
        monkeypatch.setattr(place, "NAMES", ("made_up",))
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DNABOOK_CACHE", raising=False)
    monkeypatch.setenv("DNABOOK_SCALE", "smoke")
    return module


def run(*options):
    return main(["run", "made_up", "--device", "cpu", *options])


# --- list ----------------------------------------------------------------------------------------


def test_list_shows_every_experiment_and_what_is_recorded_of_it(fake, capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("not recorded") == 3
    run("--scale", "smoke")
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "made_up: A made-up experiment"
    assert lines[1].split() == ["smoke", *records.load("made_up", "smoke").caption().split()]
    assert [line.split() for line in lines[2:]] == [
        ["laptop", "not", "recorded"],
        ["paper", "not", "recorded"],
    ]


def test_list_names_the_real_experiments(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in experiments.NAMES:
        assert f"{name}: {records.experiment(name).TITLE}" in out


# --- run -----------------------------------------------------------------------------------------


def test_run_computes_a_record_and_tells_where_it_is(fake, capsys):
    assert run("--scale", "laptop") == 0
    out = capsys.readouterr().out
    record = records.load("made_up", "laptop")
    assert record.seeds == [0, 1, 2]
    assert out.startswith(f"{records.path('made_up', 'laptop')}: {record.caption()}, ")
    assert len(out.splitlines()) == 1


def test_run_takes_the_scale_of_the_environment_and_resumes(fake):
    assert run() == 0 == run()
    assert fake.runs == [("red", 0), ("blue", 0)]
    assert records.load("made_up", "smoke").seeds == [0]


def test_run_all_runs_every_experiment(fake):
    assert main(["run", "all", "--device", "cpu"]) == 0
    assert len(fake.runs) == 2


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("1", [0]),
        ("5", [0, 1, 2, 3, 4]),
        ("3,4", [3, 4]),
        ("0,10,2", [0, 2, 10]),
        ("3:5", [3, 4]),
        ("7:8", [7]),
    ],
)
def test_seeds_are_a_count_a_list_or_a_range(fake, text, seeds):
    assert run("--seeds", text) == 0
    assert records.load("made_up", "smoke").seeds == seeds


@pytest.mark.parametrize(
    "text", ["", "0", "x", "-1", "3,", ",3", "3;4", "5:3", "3:3", ":3", "3:", "1.5", "1,x"]
)
def test_seeds_that_make_no_sense_stop_with_one_line_on_stderr_and_status_2(fake, capsys, text):
    assert run(f"--seeds={text}") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f'dnabook: --seeds takes a count "5", a list "3,4" or a range "3:5", got {text!r}\n'
    )
    assert fake.runs == []


def test_an_unknown_experiment_or_scale_stops_with_status_2_and_the_known_ones(fake, capsys):
    for options, known in ((["nothing"], "made_up"), (["made_up", "--scale", "huge"], "laptop")):
        with pytest.raises(SystemExit) as stop:
            main(["run", *options])
        assert stop.value.code == 2
        assert known in capsys.readouterr().err


def test_an_unknown_scale_in_the_environment_stops_with_one_line(fake, capsys, monkeypatch):
    monkeypatch.setenv("DNABOOK_SCALE", "huge")
    assert run() == 2
    assert capsys.readouterr().err == "dnabook: unknown scale 'huge'; known: smoke, laptop, paper\n"


def test_an_unknown_device_stops_with_one_line(fake, capsys):
    assert main(["run", "made_up", "--device", "bogus"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_damaged_record_stops_with_its_name_on_one_line(fake, capsys):
    run()
    records.path("made_up", "smoke").write_text("{")
    capsys.readouterr()
    for command in (["run", "made_up", "--device", "cpu"], ["show", "made_up"]):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1 and "made-up-smoke.json is not a record" in captured.err


def test_list_tells_of_a_damaged_record_in_its_line_and_goes_on(fake, capsys):
    run("--scale", "laptop")
    records.path("made_up", "smoke").write_text("{")
    capsys.readouterr()
    assert main(["list"]) == 2
    _, smoke, laptop, paper = capsys.readouterr().out.splitlines()
    assert "smoke" in smoke and "made-up-smoke.json is not a record" in smoke
    assert "3 seeds" in laptop and "not recorded" in paper


def test_list_goes_on_after_an_experiment_that_is_not_whole(fake, capsys, monkeypatch):
    other = types.ModuleType("dnabook.experiments.other")
    monkeypatch.setitem(sys.modules, other.__name__, other)
    for place in (records, cli):
        monkeypatch.setattr(place, "NAMES", ("other", "made_up"))
    assert main(["list"]) == 2
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("other: experiment other lacks SCALES, settings, run")
    assert second == "made_up: A made-up experiment"


def test_a_title_and_an_accuracy_are_no_must(fake, capsys):
    del fake.TITLE
    fake.__doc__ = "What it asks.\n\nAnd how."
    fake.run = lambda *_: {"transfer": 0.5}
    assert run() == 0 and main(["list"]) == 0
    assert "made_up: What it asks.\n" in capsys.readouterr().out
    assert main(["show", "made_up"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("What it asks.\n") and "accuracy" not in out and "  seed 0  colour red" in out
    fake.run = lambda *_: {"accuracy": 0.5}
    assert run("--scale", "laptop") == 0 and main(["show", "made_up"]) == 0
    assert "accuracy 0.500" in capsys.readouterr().out


def test_an_experiment_may_be_named_as_its_files_are(fake, capsys):
    assert main(["run", "made-up", "--device", "cpu"]) == 0 and len(fake.runs) == 2
    assert main(["show", "made-up"]) == 0


def test_a_data_error_is_told_in_one_line(fake, capsys):
    def fail(*_):
        raise data.DataError("train-images.gz is missing")

    fake.run = fail
    assert run() == 2
    assert capsys.readouterr().err.splitlines()[-1] == "dnabook: train-images.gz is missing"  # after a bar


def test_run_all_goes_on_where_one_experiment_lacks_its_data(fake, capsys, monkeypatch):
    other = types.ModuleType("dnabook.experiments.other")
    vars(other).update({name: value for name, value in vars(fake).items() if not name.startswith("__")})
    other.run = lambda *_: (_ for _ in ()).throw(data.DataError("cifar10 is damaged"))
    monkeypatch.setitem(sys.modules, other.__name__, other)
    for place in (records, cli):
        monkeypatch.setattr(place, "NAMES", ("other", "made_up"))
    assert main(["run", "all", "--device", "cpu"]) == 2
    assert "dnabook: cifar10 is damaged" in capsys.readouterr().err
    assert len(fake.runs) == 2


def test_run_all_goes_on_after_a_record_on_other_data(fake, capsys, monkeypatch):
    make = records.make

    def on_other_data(name, *args, **options):
        if name == "other":
            raise records.OtherData("made on cifar10")
        return make(name, *args, **options)

    monkeypatch.setattr(records, "make", on_other_data)
    monkeypatch.setattr(cli, "NAMES", ("other", "made_up"))
    assert main(["run", "all", "--device", "cpu"]) == 2
    assert "dnabook: made on cifar10" in capsys.readouterr().err
    assert len(fake.runs) == 2


def test_a_terminal_without_greek_letters_gets_question_marks(fake, monkeypatch):
    fake.TITLE = "λ as a dial"
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["list"]) == 0
    out.flush()
    assert out.buffer.getvalue().startswith(b"made_up: ? as a dial")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    command = f"{sys.executable} -u -m dnabook list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=240)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_a_trial_that_fails_is_told_in_one_line_and_the_others_are_made(fake, capsys):
    ran = fake.run
    fake.run = lambda config, setting, *rest: (
        ran(config, setting, *rest) if setting["colour"] == "blue" else 1 / 0
    )
    assert run() == 2
    *above, line = capsys.readouterr().err.splitlines()  # after a bar
    assert line.startswith("dnabook: made_up (smoke) lacks 1 of the 2 trials") and "ZeroDivisionError" in line
    assert any("test_cli.py" in each for each in above) and above[-1] == "ZeroDivisionError: division by zero"
    assert [trial["setting"] for trial in records.load("made_up", "smoke").trials] == [{"colour": "blue"}]


def test_an_interrupted_run_says_that_it_can_go_on_and_returns_130(fake, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    fake.run = interrupt
    assert run() == 130
    assert "run again to go on" in capsys.readouterr().err


def test_the_traceback_of_a_trial_in_another_process_is_printed_above_the_line(fake, capsys, monkeypatch):
    told = "Traceback (most recent call last):\n  in mine.py\nValueError: first"

    def results(function, calls, plan):
        yield 1, engines.Failure("ValueError: first", told)
        yield 0, engines.Failure("ValueError: second", "not this")

    monkeypatch.setattr(engines, "results", results)
    assert run("--jobs", "2") == 2
    err = capsys.readouterr().err
    assert told in err and "not this" not in err
    assert err.splitlines()[-1].endswith("(ValueError: first). Run again to complete the record")


def test_options_of_parallel_runs_reach_the_engine_and_the_record_is_told_as_always(
    fake, capsys, monkeypatch
):
    seen = []

    def results(function, calls, plan):
        seen.append(plan)
        for index, (record, setting, seed) in enumerate(calls):
            yield index, records._run_trial(record, setting, seed, torch.device("cpu"), quiet)

    monkeypatch.setattr(engines, "results", results)
    options = ("--jobs", "3", "--devices", "cpu, cpu", "--threads", "2", "--engine", "joblib")
    assert main(["run", "made_up", *options]) == 0
    assert seen == [engines.Plan("joblib", ("cpu", "cpu", "cpu"), 2, None)]
    assert len(records.load("made_up", "smoke").trials) == 2
    assert capsys.readouterr().out.startswith(str(records.path("made_up", "smoke")))


def test_trials_that_lack_are_told_in_one_line_with_status_2_and_the_other_experiments_go_on(
    fake, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "NAMES", ("made_up", "made_up"))
    attempts = []

    def results(function, calls, plan):
        attempts.append(len(calls))
        for index, (record, setting, seed) in enumerate(calls):
            lost = len(attempts) == 1 and index == 1
            trial = records._run_trial(record, setting, seed, torch.device("cpu"), quiet)
            yield index, engines.Failure("its process was ended by SIGKILL") if lost else trial

    monkeypatch.setattr(engines, "results", results)
    assert main(["run", "all", "--jobs", "2", "--device", "cpu"]) == 2
    assert attempts == [2, 1]  # the second time only what the first one lost
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("dnabook:")]
    assert lines == [
        "dnabook: made_up (smoke) lacks 1 of the 2 trials that were to run: seed 0, colour blue (its process "
        "was ended by SIGKILL). The others are saved; run again to complete the record"
    ]
    assert captured.out.startswith(str(records.path("made_up", "smoke")))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--jobs", "0"], "jobs must be a whole number, at least 1, got 0"),
        (["--jobs", "-1"], "jobs must be a whole number, at least 1, got -1"),
        (["--engine", "spark"], "unknown engine 'spark'; known: joblib, ray, dask"),
        (["--devices", ""], "devices are names like"),
        (["--devices", "cpu,,cpu"], "devices are names like"),
        (["--devices", "cpu,bogus"], "device 'bogus' cannot be used here"),
        (["--devices", "cpu;cpu"], "device 'cpu;cpu' cannot be used here"),
        (["--device", "cpu", "--devices", "cpu,cpu"], "one device, or several devices, not both"),
        (["--jobs", "2", "--address", "auto"], "an address is for a cluster"),
    ],
)
def test_wrong_parallel_options_stop_with_one_line_before_any_trial(
    fake, capsys, monkeypatch, options, message
):
    monkeypatch.setattr(engines, "results", None)
    assert main(["run", "made_up", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dnabook: ") and message in error and len(error.splitlines()) == 1
    assert fake.runs == []


# --- show ----------------------------------------------------------------------------------------


def test_show_prints_configuration_and_trials_of_the_largest_recorded_scale(fake, capsys):
    run("--scale", "smoke")
    run("--scale", "laptop", "--seeds", "1")
    capsys.readouterr()
    assert main(["show", "made_up"]) == 0
    lines = capsys.readouterr().out.splitlines()
    record = records.load("made_up", "laptop")
    assert lines[:2] == ["A made-up experiment", record.caption()]
    assert "  size: 4" in lines
    first, second = lines[-2:]
    assert "seed 0" in first and "colour blue" in first
    accuracy = " ".join(f"{value:.3f}" for value in record.trials[0]["values"]["accuracy"])
    assert f"accuracy {accuracy}" in first
    assert "colour red" in second


def test_show_takes_the_scale_it_is_given(fake, capsys):
    run("--scale", "smoke")
    run("--scale", "laptop")
    capsys.readouterr()
    assert main(["show", "made_up", "--scale", "smoke"]) == 0
    assert "  size: 3" in capsys.readouterr().out.splitlines()


def test_show_of_nothing_recorded_says_how_to_record_it(fake, capsys):
    assert main(["show", "made_up"]) == 2
    assert capsys.readouterr().err == "dnabook: nothing is recorded of made_up; try: dnabook run made_up\n"
    run("--scale", "laptop")
    capsys.readouterr()
    assert main(["show", "made_up", "--scale", "paper"]) == 2
    assert capsys.readouterr().err == (
        "dnabook: nothing is recorded of made_up at paper scale; try: dnabook run made_up --scale paper\n"
    )


def test_list_and_show_say_that_a_record_is_of_another_configuration(fake, capsys):
    run("--scale", "laptop")
    fake.SCALES = {**fake.SCALES, "laptop": Config(size=9)}
    capsys.readouterr()
    assert main(["list"]) == 0 and "laptop  not recorded under this configuration" in capsys.readouterr().out
    assert main(["show", "made_up"]) == 0
    assert "made under another configuration than the code has now" in capsys.readouterr().out


# --- doctor --------------------------------------------------------------------------------------


def test_doctor_checks_versions_data_and_records(fake, capsys, whole_mnist_train, whole_mnist_test):
    run()
    capsys.readouterr()
    records.Checkpoint(data.cache_folder() / "checkpoints" / "a.pt").save({"x": torch.zeros(2**19)})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "checkpoints in the cache: 2 MiB\n" in out
    assert f"dnabook {dnabook.__version__}" in out and f"torch {torch.__version__}" in out
    assert f"mnist train: 60000 images, digest {whole_mnist_train.digest}" in out
    assert f"mnist test: 10000 images, digest {whole_mnist_test.digest}" in out
    assert str(records.folder()) in out and str(data.cache_folder()) in out
    assert out.splitlines()[-1] == "all well"


@pytest.fixture
def quick_data(monkeypatch, mnist_test):
    """The doctor's look at the data, without reading it again."""
    monkeypatch.setattr(data, "load", lambda *args, **options: mnist_test)


def test_doctor_returns_1_for_a_record_of_another_configuration(fake, capsys, quick_data):
    run()
    fake.SCALES = {**fake.SCALES, "smoke": Config(size=9)}
    capsys.readouterr()
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"{records.path('made_up', 'smoke')}: made under another configuration; run it again" in lines
    assert lines[-1] == "1 fault(s), named above"


@pytest.mark.parametrize(
    "damaged", ['{"name": 1', '{"name": "x", "scale": "smoke", "config": {}, "trials": [1]}']
)
def test_doctor_names_a_damaged_record_and_looks_at_the_others(fake, capsys, quick_data, damaged):
    run()
    records.path("made_up", "laptop").write_text(damaged)
    fake.SCALES = {**fake.SCALES, "smoke": Config(size=9)}
    capsys.readouterr()
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"{records.path('made_up', 'laptop')} is not a record" in out
    assert out.splitlines()[-1] == "2 fault(s), named above"


def test_doctor_names_folders_that_cannot_be_used(fake, capsys, quick_data, monkeypatch, tmp_path):
    obstacle = tmp_path / "a file"
    obstacle.touch()
    monkeypatch.setenv("DNABOOK_CACHE", str(obstacle / "cache"))
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("nothing can be written in" in line and "DNABOOK_CACHE" in line for line in lines)
    assert f"DNABOOK_DATA names {tmp_path / 'nowhere'}, which does not exist" in lines
    assert lines[-1] == "2 fault(s), named above"


def test_doctor_finds_a_device_that_computes_otherwise(fake, capsys, quick_data, monkeypatch):
    assert main(["doctor"]) == 0
    attack, calls = cli.pgd, []

    def wrong_the_second_time(objective, x, ball, **options):
        calls.append(1)
        return attack(objective, x, ball, **options) + 0.1 * (len(calls) - 1)

    monkeypatch.setattr(cli, "pgd", wrong_the_second_time)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "an attack differs from the CPU's by" in out and out.splitlines()[-1] == "1 fault(s), named above"


@pytest.mark.parametrize("fault", ["no gradient of the correlation loss", "not a number"])
def test_doctor_looks_at_all_of_the_gradient_and_at_what_is_not_a_number(
    fault, fake, capsys, quick_data, monkeypatch
):
    objective, pairs = cli.decorrelation, []

    def wrong_the_second_time(*pair, correlation_weight):
        pairs.append(pair)
        whole_loss = objective(*pair, correlation_weight=correlation_weight)
        if len(pairs) == 1:
            return whole_loss
        if fault == "not a number":
            pair[0].tail[-1].bias.data.fill_(torch.nan)
            return whole_loss

        def same_loss(x, y):
            plain, whole = (
                each(x, y)["loss"] for each in (objective(*pair, correlation_weight=0), whole_loss)
            )
            return {"loss": plain + (whole - plain).detach()}

        return same_loss

    monkeypatch.setattr(cli, "decorrelation", wrong_the_second_time)
    assert main(["doctor"]) == 1
    assert "differs from the CPU's by" in capsys.readouterr().out


def test_doctor_stops_at_damaged_data_with_what_to_do(fake, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    assert main(["doctor"]) == 2
    assert "reinstall dnabook" in capsys.readouterr().err


# --- The program ---------------------------------------------------------------------------------


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"dnabook {dnabook.__version__}\n"


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "command" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, status", [(["list"], 0), (["run", "transfer", "--seeds", "x"], 2)])
def test_python_m_dnabook_passes_the_status_on(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dnabook", *arguments])
    monkeypatch.delitem(sys.modules, "dnabook.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("dnabook", run_name="__main__")
    assert stop.value.code == status
    assert len(capsys.readouterr().err.splitlines()) == (status != 0)

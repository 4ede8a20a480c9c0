"""The tables and curves of "What it costs", on measurements small enough to check by hand."""

import json
from pathlib import Path

import pytest
import torch

from dnabook import costs, records
from dnabook.records import RecordError


def row(ms, **options):
    return {**options, "ms": ms, "low": ms, "high": ms, "calls": 9, "peak_mib": 10}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("DNABOOK_RESULTS", str(tmp_path))
    monkeypatch.setenv("DNABOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def measured(results):
    cpu = torch.device("cpu")
    loss = {"pinv": 200.0, "released": 50.0, "corrected": 90.0, "bound": 30.0}
    rows = [row(ms, function="loss", how=how, n=1000, m=784) for how, ms in loss.items()]
    rows[1]["gradient_error"] = 2e-7
    records.save_benchmark("loss", rows, cpu)
    step = {"released style": 300.0, "ours": 100.0, "corrected": 125.0, "bound": 60.0}
    rows = [row(ms, function="step", how=how, what="CNN pair", batch=1000) for how, ms in step.items()]
    records.save_benchmark("step", rows, cpu)
    ways = [("as it is", 1000, 100.0), ("channels first", 1000, 150.0), ("as it is", 2000, 300.0),
            ("memory returned", 2000, 450.0), ("without the correlation loss", 1000, 50.0),
            ("stacked", 1000, 40.0)]  # fmt: skip
    rows = [row(ms, function="way", how=how, batch=batch) for how, batch, ms in ways]
    records.save_benchmark("ways", rows, cpu)
    attack = [("foolbox", 1000, 5000.0), ("ours", 1000, 2000.0), ("ours", 250, 1250.0), ("bound", 250, 800.0),
              ("foolbox, helped", 500, 2600.0), ("foolbox, helped", 250, 2500.0)]  # fmt: skip
    rows = [row(ms, function="attack", how=how, chunk=chunk) for how, chunk, ms in attack]
    rows[0].update(misread=985, misread_by_other=695)
    records.save_benchmark("attack", rows, cpu)
    rows = [row(20.0 * n, function="loss", how="corrected", n=n, m=costs.GROWTH_M) for n in (500, 1000, 2000)]
    rows += [row(m**2, function="loss", how="corrected", n=costs.GROWTH_N, m=m) for m in (50, 100, 400)]
    rows += [row(b, function="step", how="corrected", what="CNN pair", batch=b) for b in (125, 250, 500)]
    rows += [row(c, function="trials", how="ours", count=c, jobs=j) for j in (1, 2) for c in (1, 2)]
    records.save_benchmark("growth", rows, cpu)
    return costs.benchmark()


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_without_measurements_the_error_tells_how_to_make_them(results):
    with pytest.raises(
        RecordError, match=r"loss, step, ways, attack, growth in .* is missing; run: make bench"
    ):
        costs.benchmark()
    assert costs.gpu_note() == "No measurements on a GPU are recorded."


@pytest.fixture
def other(measured, results):
    """Another processor's measurements, newer than those of this one; fewer groups if `save` is told so."""

    def save(kind="cpu-avx9", groups=costs.GROUPS, date="2099-01-02T", **made):
        place = {"processor": "Another", "instructions": "AVX9", "date": date, **made}
        found = {
            name: {**measured[name], "provenance": {**measured[name]["provenance"], **place}}
            for name in groups
        }
        (results / f"benchmark-{kind}.json").write_text(json.dumps(found))
        return found

    return save


def test_of_each_group_the_newest_measurements_on_a_processor_are_shown(measured, other, results):
    other("cuda", device="A GPU")
    assert costs.benchmark() == measured
    newer = other(groups=("loss", "growth"))
    older = other("cpu-avx7", groups=("step", "loss"), date="1999-01-01T")
    assert costs.benchmark() == {**measured, **newer} != {**measured, **older}
    newest = other("cpu-avx5", groups=("step", "attack"), date="2100-01-01T")
    newest["step"]["provenance"]["date"] = "1999-01-01T"  # measured long before the rest of its file
    (results / "benchmark-cpu-avx5.json").write_text(json.dumps(newest))
    assert costs.benchmark() == {**measured, **newer, "attack": newest["attack"]}
    assert list(costs.benchmark()) == list(costs.GROUPS)


def test_groups_that_no_processor_has_are_named(measured, other, results):
    for file in results.glob("benchmark-*.json"):
        file.unlink()
    other(groups=("loss",))
    other("cpu-avx7", groups=("step",))
    other("cuda", device="A GPU")
    with pytest.raises(RecordError, match=r"^ways, attack, growth in .* is missing; run: make bench"):
        costs.benchmark()


def test_every_machine_has_a_row_with_the_ratios_of_what_was_measured_there(measured, other):
    other("cuda", ("loss",), device="A GPU")
    other(groups=("step", "attack"), date="2099-01-01T")
    rows = measured["attack"]["rows"]
    rows = [*rows, row(1000.0, how="ours, bfloat16", chunk=250), row(3000.0, how="torchattacks", chunk=1000)]
    records.save_benchmark("attack", rows, torch.device("cpu"))
    here = f"{records.processor()} with {torch.backends.cpu.get_cpu_capability()}"
    assert cells(costs.machines_table())[2:] == [
        ["A GPU", "4.0", "–", "–", "–", "–"],
        ["Another with AVX9", "–", "3.0", "4.0", "–", "–"],
        [here, "4.0", "3.0", "4.0", "2.4", "5.0 and 3.0"],
    ]


def test_other_processors_are_shown_under_their_names_and_gpus_are_not(measured, other):
    other("cuda", device="A GPU")
    assert costs.other_processors(costs.benchmark()) == "None was measured."
    newer = other(groups=("loss", "growth"))
    here = costs.provenance({"loss": measured["loss"]})
    assert costs.other_processors(costs.benchmark()) == (
        f"Measured on {here}.\n\n{costs.loss_table(measured)}"
    )
    assert costs.other_processors({**costs.benchmark(), "loss": measured["loss"]}) == (
        f"Measured on {costs.provenance({'loss': newer['loss']})}.\n\n{costs.loss_table(newer)}"
    )


def test_every_machine_is_named_with_the_groups_that_it_measured(measured):
    place = {"processor": "Another", "instructions": "AVX9", "date": "2030-01-02T"}
    other = {**measured["step"]["provenance"], **place}
    two = {
        "loss": measured["loss"],
        "step": {**measured["step"], "provenance": other},
        "growth": measured["growth"],
    }
    first, second = costs.provenance(two).split("; ")
    assert first.startswith(f"loss, growth: {records.processor()} with ")
    assert second.startswith("step: Another with AVX9, ") and "2030-01-02" in second
    two["growth"] = {**two["growth"], "provenance": {**other, "date": "2030-01-04T"}}
    assert "2030-01-02 to 2030-01-04" in costs.provenance(two)


def test_a_benchmark_of_one_group_on_a_gpu_is_shown_without_the_others(measured, other):
    other("cuda", ("loss",), device="A GPU")
    assert costs.gpu_note().startswith("Measured once, on A GPU, ")
    assert costs.gpu_note().endswith("\n\n" + costs.loss_table(measured))
    attack = other("cuda", ("attack",), device="A GPU")
    assert costs.gpu_note().endswith(costs.attack_table(attack) + "\n\n" + costs.attack_summary(attack))


def test_a_step_whose_layers_were_not_measured_has_a_dash_for_them(measured):
    rows = [row for row in measured["step"]["rows"] if row["how"] != "bound"]
    fewer = {"step": {**measured["step"], "rows": rows}}
    for line, whole in zip(
        cells(costs.step_table(fewer))[2:], cells(costs.step_table(measured))[2:], strict=True
    ):
        assert line == [*whole[:5], "–", *whole[6:]]


def test_a_group_measured_again_replaces_its_rows_and_leaves_the_others(measured):
    records.save_benchmark("step", [row(1.0, how="ours")], torch.device("cpu"))
    again = costs.benchmark()
    assert [r["ms"] for r in again["step"]["rows"]] == [1.0]
    assert again["loss"] == measured["loss"]


def test_measurements_survive_json_and_say_where_they_were_made(measured, results):
    (file,) = results.glob("benchmark-*.json")
    assert file.name == f"benchmark-cpu-{torch.backends.cpu.get_cpu_capability().lower()}.json"
    assert json.loads(file.read_text()) == measured
    for word in (f"torch {torch.__version__}", "cores", records.processor(), "commit"):
        assert word in costs.provenance(measured)


def test_the_loss_table_states_the_ratios(measured):
    line = cells(costs.loss_table(measured))[2]
    assert line == ["1000 × 784", "200", "50", "90", "30", "4.0", "2e-07", "10, 10"]
    summary = costs.loss_summary(measured)
    assert summary.startswith("At (1000, 784) our loss is 4.0 times as fast") and "60% of its time" in summary


def test_the_step_table_compares_with_the_released_style(measured):
    line = cells(costs.step_table(measured))[2]
    assert line == ["CNN pair", "1000", "300", "100", "125", "60", "3.0", "10", "10"]


def test_each_way_is_compared_with_the_step_that_it_changes(measured):
    assert cells(costs.ways_table(measured))[2:] == [
        ["as it is", "100", "100 to 100", "1.00", "10"],
        ["channels first", "150", "150 to 150", "1.50", "10"],
        ["as it is, 2,000 images", "300", "300 to 300", "1.00", "10"],
        ["memory returned, 2,000 images", "450", "450 to 450", "1.50", "10"],
        ["without the correlation loss", "50", "50 to 50", "1.00", "10"],
        ["stacked", "40", "40 to 40", "0.80", "10"],
    ]


def test_what_was_measured_once_has_no_range(measured):
    rows = [{**row, "runs": 1} for row in measured["ways"]["rows"]]
    once = {**measured, "ways": {**measured["ways"], "rows": rows}}
    assert {line[2] for line in cells(costs.ways_table(once))[2:]} == {"–"}


def test_the_attack_table_counts_images_a_second_and_compares_with_the_fastest_of_ours(measured):
    lines = cells(costs.attack_table(measured))[2:]
    assert lines[0] == ["foolbox", "1000", "200", "4.00", "985, 695", "10"]
    assert lines[2] == ["ours", "250", "800", "1.00", "–", "10"]
    assert lines[3] == ["convolutions alone", "250", "1,250", "0.64", "–", "10"]
    summary = costs.attack_summary(measured)
    assert summary.endswith("4.0 times as fast as foolbox, 2.0 times as fast as foolbox with the same help.")


def test_what_bfloat16_brings_is_said_where_it_was_measured(measured):
    rows = [*measured["attack"]["rows"], row(1000.0, how="ours, bfloat16", chunk=250)]
    summary = costs.attack_summary({"attack": {"rows": rows}})
    assert "in bfloat16 it is 1.2 times as fast as in float32: 5.0 times as fast as foolbox as" in summary


@pytest.mark.parametrize(
    "ms, text", [(0.234, "0.23"), (9.4, "9.4"), (9.97, "10"), (99.7, "100"), (4933.97, "4,934")]
)
def test_milliseconds_have_two_digits_or_are_whole(ms, text):
    assert costs._ms({"ms": ms}) == text


def test_a_time_on_which_the_processes_do_not_agree_has_a_star():
    assert costs._ms({"ms": 50.0, "low": 49.0, "high": 97.0}) == "50"
    assert costs._ms({"ms": 50.0, "low": 49.0, "high": 99.0}) == r"50\*"


def test_the_slope_is_the_exponent_of_a_power_law():
    assert costs.slope([(x, 3 * x**1.5) for x in (10, 20, 40, 80)]) == pytest.approx(1.5)


def test_the_slope_looks_at_the_larger_half_whatever_the_order():
    points = [(x, 100 + x**2) for x in (1, 10, 1000, 100, 10_000)]
    assert costs.slope(points) == pytest.approx(2, abs=0.01)


def test_the_growth_figure_draws_every_measurement_and_names_the_exponent(measured):
    axes = costs.growth(measured).axes
    assert [axis.get_xlabel() for axis in axes] == ["images N", "units M", "batch", "trials"]
    assert [len(axis.lines) for axis in axes] == [1, 1, 1, 2]
    assert list(axes[1].lines[0].get_xdata()) == [50, 100, 200, 400]
    legends = [axis.get_legend().get_texts()[0].get_text() for axis in axes]
    assert legends == ["M = 200, slope 1.0", "N = 2000, slope 2.0", "CNN pair, slope 1.0", "1 process"]
    assert all(axis.get_xscale() == axis.get_yscale() == "log" for axis in axes)


@pytest.fixture
def committed(monkeypatch):
    monkeypatch.setenv("DNABOOK_RESULTS", str(Path(__file__).parents[1] / "book" / "results"))


def test_the_committed_measurements_are_of_a_commit_that_can_be_checked_out(committed):
    for name, group in costs.benchmark().items():
        assert not group["provenance"]["commit"].endswith("-dirty"), name


def test_the_committed_measurements_hold_every_row_that_the_page_shows(committed):
    measured = costs.benchmark()
    for table in (costs.loss_table, costs.step_table, costs.ways_table, costs.attack_table):
        assert len(cells(table(measured))) > 3
    assert len(costs.growth(measured).axes) == 4


def test_minutes_a_seed_are_the_trials_of_whole_seeds_together(committed):
    record = records.current("transfer", "laptop")
    line = next(c for c in cells(costs.experiments_table()) if c[:2] == ["transfer", "laptop"])
    assert line[2] == str(len(record.whole_seeds))
    minutes = sum(t["provenance"]["seconds"] for t in record.trials) / len(record.whole_seeds) / 60
    assert line[3] == f"{minutes:.1f}"


def test_seeds_on_different_devices_have_rows_of_their_own(monkeypatch):
    def trial(seed, seconds, device):
        run = {"seconds": seconds, "device": device, "threads": 1 + seed}
        return {"setting": {"arm": 1}, "seed": seed, "values": {}, "provenance": run}

    trials = [trial(0, 600.0, "CPU"), trial(1, 1200.0, "CPU"), trial(2, 60.0, "A GPU")]
    record = records.Record("dverge", "paper", {}, trials)
    monkeypatch.setattr(records.Record, "whole_seeds", [0, 1, 2])
    monkeypatch.setattr(records, "current", lambda name, scale: record if name == "dverge" else None)
    lines = [line[2:] for line in cells(costs.experiments_table()) if line[:2] == ["dverge", "paper"]]
    assert lines == [["2", "15.0", "CPU", "1 or 2"], ["1", "1.0", "A GPU", "3"]]

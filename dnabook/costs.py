"""What the book's work costs: the measured table and growth curves of `make bench`, and the records' seconds.

Everything here is read from the benchmark file and from the records; the page "What it costs" shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from dnabook import figures, records, summaries
from dnabook.experiments import NAMES
from dnabook.records import RecordError

Row = dict[str, Any]
Benchmark = dict[str, Any]


GROUPS = ("loss", "step", "ways", "attack", "growth")  # what the page shows of a processor


def benchmark() -> Benchmark:
    """Of each group of `make bench` the newest measurements on a processor: {group: {"provenance", "rows"}}.

    Raises RecordError when a group has been measured on none.
    """
    found = _of_processors()
    if missing := [name for name in GROUPS if not any(name in groups for groups in found)]:
        raise RecordError(f"{', '.join(missing)} in {records.folder()} is missing; run: make bench")
    return {
        name: max((groups[name] for groups in found if name in groups), key=lambda g: g["provenance"]["date"])
        for name in GROUPS
    }


def _of_processors() -> list[Benchmark]:
    return [groups for kind, groups in records.benchmarks().items() if kind != "cuda"]


def machines_table() -> str:
    """On every machine that was measured, how many times as long the plainer ways take as ours."""
    rows = []
    for groups in records.benchmarks().values():
        loss = {case: _ratio(sides, "pinv", "released") for case, sides in _sides(groups, "loss", ("n", "m"))}
        step = {case: _ratio(sides, "released style", "ours")
                for case, sides in _sides(groups, "step", ("what", "batch"))}  # fmt: skip
        attack = _fastest(groups["attack"]["rows"]) if "attack" in groups else {}
        coarse = "ours, bfloat16" if "ours, bfloat16" in attack else "ours"
        machines = dict.fromkeys(_device(group["provenance"]) for group in groups.values())
        rows.append([
            " and ".join(machines), loss.get((1000, 784), "–"), step.get(("CNN pair", 1000), "–"),
            *(_ratio(attack, library, "ours") for library in ("foolbox", "torchattacks")),
            "–" if coarse == "ours" else
            " and ".join(_ratio(attack, library, coarse) for library in ("foolbox", "torchattacks")),
        ])  # fmt: skip
    header = ["measured on", "loss at (1000, 784): pinv / ours", "step of a CNN pair: released style / ours",
              "PGD: foolbox / ours", "PGD: torchattacks / ours", "both / ours in bfloat16"]  # fmt: skip
    return summaries.table(header, rows)


def provenance(measured: Benchmark) -> str:
    """Where and when the measurements were made: in a line, or one for each machine with its groups."""
    machines: dict[str, list[str]] = {}
    for name, group in measured.items():
        machines.setdefault(_machine(group["provenance"]), []).append(name)
    lines = []
    for machine, names in machines.items():
        of = [measured[name]["provenance"] for name in names]
        dates = sorted({p["date"][:10] for p in of})
        commits = " and ".join(sorted({p["commit"] for p in of}))
        what = f"{', '.join(names)}: " if len(machines) > 1 else ""
        lines.append(f"{what}{machine}, {' to '.join(dates[:: len(dates) - 1 or 1])}, commit {commits}")
    return "; ".join(lines)


def _machine(made: dict[str, Any]) -> str:
    """Of a provenance the device, the machine's cores, the threads used, and torch's version."""
    return f"{_device(made)}, {made['cores']} cores, {made['threads']} threads, torch {made['torch']}"


def _device(made: dict[str, Any]) -> str:
    """Of a provenance the device, or the processor and its widest instructions where that is the device."""
    if not made["device"].startswith("CPU"):
        return made["device"]
    return " with ".join([made["processor"], *filter(None, [made.get("instructions")])])


def loss_table(measured: Benchmark) -> str:
    """Milliseconds of the correlation loss, forward and backward, beside the pseudo-inverse and its floor."""
    rows = []
    for (n, m), sides in _sides(measured, "loss", ("n", "m")):
        ours, pinv, bound = sides["released"], sides["pinv"], sides["bound"]
        rows.append([
            f"{n} × {m}", _ms(pinv), _ms(ours), _ms(sides["corrected"]), _ms(bound),
            _times(pinv, ours), f"{ours['gradient_error']:.0e}", f"{_memory(pinv)}, {_memory(ours)}",
        ])  # fmt: skip
    header = ["N × M", "pinv", "released", "corrected", "products alone", "pinv / released",
              "gradient error", "MiB: pinv, released"]  # fmt: skip
    return summaries.table(header, rows)


def loss_summary(measured: Benchmark) -> str:
    """How the loss compares at the paper's shapes: with the pseudo-inverse, and with the products alone."""
    parts = []
    for (n, m), sides in _sides(measured, "loss", ("n", "m")):
        ours, pinv, bound = sides["released"], sides["pinv"], sides["bound"]
        parts.append(
            f"At ({n}, {m}) our loss is {_times(pinv, ours)} times as fast as the pseudo-inverse, and the "
            f"four products alone would take {bound['ms'] / ours['ms']:.0%} of its time."
        )
    return " ".join(parts[:3])


def step_table(measured: Benchmark) -> str:
    """Milliseconds of a training step in the released style and here, and of its layers alone."""
    rows = []
    for (what, batch), sides in _sides(measured, "step", ("what", "batch")):
        theirs, ours = sides["released style"], sides["ours"]
        alone = _ms(sides["bound"]) if "bound" in sides else "–"
        rows.append([
            what, str(batch), _ms(theirs), _ms(ours), _ms(sides["corrected"]), alone,
            _times(theirs, ours), _memory(theirs), _memory(ours),
        ])  # fmt: skip
    header = ["training step", "batch", "released style", "ours", "ours, corrected loss", "layers alone",
              "released style / ours", "MiB released style", "MiB ours"]  # fmt: skip
    return summaries.table(header, rows)


def ways_table(measured: Benchmark) -> str:
    """Milliseconds of a CNN pair's step with one thing changed, the extremes of its runs, and the ratio.

    The ratio is to the last row before it that is "as it is", or "without the correlation loss".
    """
    rows, base = [], {}
    for row in measured["ways"]["rows"]:
        if row["how"] in ("as it is", "without the correlation loss"):
            base = row
        extremes = "–" if row.get("runs") == 1 else " to ".join(_number(row[end]) for end in ("low", "high"))
        name = row["how"] if row["batch"] == measured["ways"]["rows"][0]["batch"] else _at_a_batch(row)
        rows.append([name, _ms(row), extremes, f"{row['ms'] / base['ms']:.2f}", _memory(row)])
    return summaries.table(["a step of a CNN pair", "ms", "fastest to slowest run", "ratio", "MiB"], rows)


def _at_a_batch(row: Row) -> str:
    return f"{row['how']}, {row['batch']:,} images"


def attack_table(measured: Benchmark) -> str:
    """Images a second that PGD-40 attacks on the CNN, and how many are misread then: libraries and ours."""
    found = measured["attack"]["rows"]
    best = _fastest(found)["ours"]
    rows = [
        [_attack_name(row), str(row["chunk"]), f"{_images(row):,.0f}", f"{row['ms'] / best['ms']:.2f}",
         f"{row['misread']}, {row['misread_by_other']}" if "misread" in row else "–", _memory(row)]
        for row in found
    ]  # fmt: skip
    header = ["attack", "chunk", "images a second", "time / fastest of ours", "misread: by it, by another",
              "MiB"]  # fmt: skip
    return summaries.table(header, rows)


def attack_summary(measured: Benchmark) -> str:
    """How many times as fast ours is as the libraries: as they are called, and helped as ours is."""
    best = _fastest(measured["attack"]["rows"])
    parts = [
        f"{_ratio(best, how, 'ours')} times as fast as {how}, {_ratio(best, f'{how}, helped', 'ours')} "
        f"times as fast as {how} with the same help"
        for how in best
        if f"{how}, helped" in best
    ]
    text = f"At the best chunk of each, ours is {', and '.join(parts)}."
    if "ours, bfloat16" not in best:
        return text
    coarse = [f"{_ratio(best, how, 'ours, bfloat16')} times as fast as {how}" for how in best
              if f"{how}, helped" in best]  # fmt: skip
    gain = _ratio(best, "ours", "ours, bfloat16")
    return (
        f"{text} With its gradients in bfloat16 it is {gain} times as fast as in float32: "
        f"{' and '.join(coarse)} as they are called."
    )


def growth(measured: Benchmark) -> Figure:
    """Log-log lines: the loss over N and over M, the training step over the batch, trials by processes."""
    found = measured["growth"]["rows"]
    n, m = ([row for row in found if row["function"] == "loss" and row[fixed] == value]
            for fixed, value in (("m", GROWTH_M), ("n", GROWTH_N)))  # fmt: skip
    jobs = sorted({row["jobs"] for row in found if row["function"] == "trials"})
    panels = {
        "images N": {f"M = {GROWTH_M}": _points(n, "n")},
        "units M": {f"N = {GROWTH_N}": _points(m, "m")},
        "batch": {"CNN pair": _points([row for row in found if row["function"] == "step"], "batch")},
        "trials": {
            f"{j} process{'es' * (j > 1)}": _points([row for row in found if row.get("jobs") == j], "count")
            for j in jobs
        },
    }
    for series in panels.values():
        if len(series) == 1:
            ((name, points),) = series.items()
            series[f"{name}, slope {slope(points):.1f}"] = series.pop(name)
    return figures.growth(panels, ylabel="milliseconds", corner=provenance({"growth": measured["growth"]}))


GROWTH_M, GROWTH_N = 200, 2000  # what is held fixed while the other grows


def slope(points: list[tuple[float, float]]) -> float:
    """The exponent p of y ∝ xᵖ over the upper half of the points, where fixed costs weigh least."""
    (x0, y0), (x1, y1) = sorted(points)[(len(points) - 1) // 2], max(points)
    return math.log(y1 / y0) / math.log(x1 / x0)


def _points(rows: list[Row], key: str) -> list[tuple[float, float]]:
    return [(row[key], row["ms"]) for row in rows]


def experiments_table() -> str:
    """What one seed of each experiment took, at every scale recorded: the seconds of its trials together.

    Seeds that ran on different devices have a row for each device.
    """
    rows = []
    for name in NAMES:
        for scale in records.SCALES[1:]:
            record = records.current(name, scale)
            if not record or not record.whole_seeds:
                continue
            runs = {s: [t["provenance"] for t in record.trials if t["seed"] == s] for s in record.whole_seeds}
            places = {seed: " + ".join(sorted({run["device"] for run in runs[seed]})) for seed in runs}
            for place in dict.fromkeys(places.values()):
                there = [runs[seed] for seed in runs if places[seed] == place]
                seconds = sum(run["seconds"] for seed in there for run in seed) / len(there)
                threads = sorted({run["threads"] for seed in there for run in seed})
                minutes, told = f"{seconds / 60:.1f}", " or ".join(map(str, threads))
                rows.append([name, scale, str(len(there)), minutes, place, told])
    header = ["experiment", "scale", "whole seeds", "minutes a seed", "device", "threads a trial"]
    return summaries.table(header, rows, left=2)


def gpu_note() -> str:
    """The tables measured on a GPU, of what was measured there, or a sentence that there are none."""
    measured = records.benchmarks().get("cuda")
    return f"Measured once, on {_tables(measured)}" if measured else "No measurements on a GPU are recorded."


def other_processors(shown: Benchmark) -> str:
    """The tables of processors beside those that are shown, each under its name."""
    others = [
        {name: group for name, group in groups.items() if name != "growth" and group != shown[name]}
        for groups in _of_processors()
    ]
    return (
        "\n\n".join(f"Measured on {_tables(groups)}" for groups in others if groups) or "None was measured."
    )


def _tables(measured: Benchmark) -> str:
    """Where they were measured, a full stop, and the tables of those groups that are there."""
    groups = {
        "loss": (loss_table,), "step": (step_table,), "ways": (ways_table,),
        "attack": (attack_table, attack_summary),
    }  # fmt: skip
    parts = [part(measured) for group, texts in groups.items() if group in measured for part in texts]
    return "\n\n".join([f"{provenance(measured)}.", *parts])


def _sides(measured: Benchmark, group: str, keys: tuple[str, ...]) -> Iterator[tuple[tuple, dict[str, Row]]]:
    """Every case of a group with its measurements by side."""
    cases: dict[tuple, dict[str, Row]] = {}
    for row in measured[group]["rows"] if group in measured else ():
        cases.setdefault(tuple(row[key] for key in keys), {})[row["how"]] = row
    yield from cases.items()


def _ms(row: Row) -> str:
    """Milliseconds, with a star where the measurement's processes differ by more than a factor of two."""
    unsteady = row.get("high", 0) > 2 * row.get("low", 0)
    return _number(row["ms"]) + r"\*" * unsteady


def _number(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 9.95 else f"{ms:.2g}"


def _times(slow: Row, fast: Row) -> str:
    return f"{slow['ms'] / fast['ms']:.1f}"


def _ratio(rows: dict[str, Row], slow: str, fast: str) -> str:
    """How many times as long the one takes as the other; a dash where one was not measured."""
    return _times(rows[slow], rows[fast]) if slow in rows and fast in rows else "–"


def _fastest(rows: list[Row]) -> dict[str, Row]:
    """Of each way to attack the measurement at its best chunk."""
    return {how: min((row for row in rows if row["how"] == how), key=lambda row: row["ms"])
            for how in dict.fromkeys(row["how"] for row in rows)}  # fmt: skip


def _memory(row: Row) -> str:
    return f"{row['peak_mib']:,}"


def _images(row: Row) -> float:
    return 1e6 / row["ms"]  # of a thousand images


def _attack_name(row: Row) -> str:
    return {"ours": "ours", "bound": "convolutions alone"}.get(row["how"], row["how"])

"""Recorded runs: configuration, values and provenance of every trial, as JSON that reads well in a diff.

This is the only module that touches the clock, the disk and git. `make` runs what is missing of an
experiment, trial by trial (one setting and one seed), here or by an engine in parallel, and saves each as it
finishes, so an interrupted run resumes and several processes may share a record. Chapters call `best`
and `together`.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import ctypes
import dataclasses
import datetime
import functools
import hashlib
import importlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from tqdm.auto import tqdm

import dnabook
from dnabook import data, engines, graphs
from dnabook.experiments import NAMES, Context
from dnabook.models import seeded
from dnabook.training import quiet, repeatable

try:
    import resource
except ImportError:  # Windows has none
    resource = None

SCALES = ("smoke", "laptop", "paper")
TRAINING_CODE = (  # what a training run depends on: a change here makes its checkpoints void
    "graphs", "products", "data", "models", "autoencoders", "regression", "measures", "losses", "training",
    "experiments/pairs", "experiments/reconstruction", "attacks", "dverge", "experiments/dverge",
    "experiments/parameter_distance", "experiments/controls", "experiments/learned_features",
    "experiments/surrogate", "experiments/features_or_gradients", "experiments/autoencoder_cifar",
)  # fmt: skip
SHARING = (  # experiments that train by these alone: where they train alike, they share checkpoints
    "feature_correlation", "transfer", "autoencoder_mnist", "shared_layers", "variants",
    "correlation_weights", "strangers", "disagreement", "architectures", "capacity",
)  # fmt: skip
SEEDS = {"smoke": 1, "laptop": 3, "paper": 5}  # how many seeds make a record complete


class RecordError(RuntimeError):
    """A record cannot be read or does not fit. The message says which file and what to do."""


class OtherData(RecordError):
    """A trial was made on another data set than the record's, and is kept apart. The message says where."""


class MissingTrials(RecordError):
    """Some trials failed or lost their process; the others are saved. The message says which and why.

    Its cause is the first trial's error; where that happened in another process, it holds the traceback.
    """


@dataclass
class Record:
    """An experiment at one scale: its configuration and the trials run so far.

    config: every setting that the trials share.  trials: dicts with "setting", "seed", "values" and
    "provenance" (date, seconds, device, processor and instructions, threads, torch, dnabook, commit, data,
    peak memory).
    """

    name: str
    scale: str
    config: dict[str, Any]
    trials: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the trials, sorted."""
        return sorted({trial["seed"] for trial in self.trials})

    @property
    def seconds(self) -> float:
        """Seconds that all trials took together."""
        return sum(trial["provenance"]["seconds"] for trial in self.trials)

    @property
    def whole_seeds(self) -> list[int]:
        """The seeds of which every setting has its trial."""
        return self._seeds_with(_settings(self.name, self.scale))

    @property
    def figure_seeds(self) -> list[int]:
        """The seeds of which the figure's own settings, `FIGURE` of the experiment, have their trials.

        Controls may have fewer: their intervals say so. An experiment without `FIGURE` needs all of a seed.
        """
        figure = getattr(experiment(self.name), "FIGURE", None)
        if figure is None:
            return self.whole_seeds
        return self._seeds_with([_in_json(setting, f"FIGURE of {self.name}") for setting in figure])

    def _seeds_with(self, settings: Iterable[dict[str, Any]]) -> list[int]:
        return [seed for seed in self.seeds if all(self.find(s, seed) for s in settings)]

    def find(self, setting: dict[str, Any], seed: int) -> dict[str, Any] | None:
        """The trial of a setting and seed, or None."""
        matches = (t for t in self.trials if t["setting"] == setting and t["seed"] == seed)
        return next(matches, None)

    def rows(self, key: str, **where: Any) -> Iterator[dict[str, Any]]:
        """Every row of the table `values[key]` with its trial's setting and seed, filtered by equality."""
        for trial in self.trials:
            for row in trial["values"][key]:
                row = {"seed": trial["seed"], **trial["setting"], **row}
                if all(row[name] == value for name, value in where.items()):
                    yield row

    def values(self, *path: str, **where: Any) -> list[Any]:
        """`values[path[0]][path[1]]…` of every trial whose setting (or seed) matches `where`, by seed."""
        found = []
        for trial in sorted(self.trials, key=lambda t: t["seed"]):
            setting = {"seed": trial["seed"], **trial["setting"]}
            if all(setting[name] == value for name, value in where.items()):
                value = trial["values"]
                for name in path:
                    value = value[name]
                found.append(value)
        return found

    def caption(self, *, attack: bool = True) -> str:
        """Scale, whole seeds and trials beyond them, attack, device and date in a line.

        It is printed in the corner of every figure. attack: False leaves the attack out, for what has none.
        """
        if not self.trials:
            return f"{self.name} · {self.scale} scale · no trials yet"
        whole = self.whole_seeds
        counts = [(len(whole), "seed"), (sum(t["seed"] not in whole for t in self.trials), "trial")]
        amount = " and ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in counts if n)
        devices = " + ".join(sorted({t["provenance"]["device"] for t in self.trials}))
        date = max(t["provenance"]["date"] for t in self.trials)[:10]
        attacked = attack and {"steps", "test_images"} <= self.config.keys()
        method = "PGD-{steps} on {test_images:,} images · ".format(**self.config) if attacked else ""
        return f"{self.scale} scale · {amount} · {method}{devices} · {date}"


# --- Finding records -----------------------------------------------------------------------------


def experiment(name: str) -> ModuleType:
    """The experiment's module: `Config`, `SCALES`, `settings(config)` and `run(…)`.

    Raises ValueError for an unknown name, and for a module that lacks one of these or a scale.
    """
    if name not in NAMES:
        raise ValueError(f"unknown experiment {name!r}; known: {', '.join(NAMES)}")
    module = importlib.import_module(f"dnabook.experiments.{name}")
    lacking = [each for each in ("SCALES", "settings", "run") if not hasattr(module, each)]
    if not lacking:
        given = {scale: module.SCALES.get(scale) for scale in SCALES}
        lacking = [f"a Config in SCALES[{s!r}]" for s, c in given.items() if not _is_config(c)]
    if lacking:
        raise ValueError(f"experiment {name} lacks {', '.join(lacking)}; CONTRIBUTING.md shows a whole one")
    return module


def _is_config(thing: Any) -> bool:
    return dataclasses.is_dataclass(thing) and not isinstance(thing, type)


def default_scale() -> str:
    """$DNABOOK_SCALE, else "laptop"."""
    return _known_scale(os.environ.get("DNABOOK_SCALE") or "laptop")


def folder() -> Path:
    """Where records are kept: $DNABOOK_RESULTS, else book/results of a checkout, else inside the package."""
    package = Path(__file__).parent
    checkout = package.parent / "book" / "results"
    given = os.environ.get("DNABOOK_RESULTS")
    return Path(given).expanduser() if given else checkout if checkout.is_dir() else package / "results"


def path(name: str, scale: str) -> Path:
    """The record's file, whether it exists or not."""
    return folder() / f"{name.replace('_', '-')}-{scale}.json"


def load(name: str, scale: str) -> Record | None:
    """The record on disk, or None.

    Raises ValueError for an unknown experiment or scale, RecordError when the file is not a record.
    """
    experiment(name)
    return _load(path(name, _known_scale(scale)))


def _load(file: Path) -> Record | None:
    if not file.exists():
        return None
    try:
        record = Record(**json.loads(file.read_text(encoding="utf-8")))
        if not isinstance(record.trials, list):
            raise TypeError("its trials are no list")
        for trial in record.trials:
            if missing := {"setting", "seed", "values", "provenance"} - trial.keys():
                raise KeyError(", ".join(sorted(missing)))
            trial["values"] = _replaced(trial["values"], lambda v: v is None, math.nan)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{file} is not a record ({error}); restore it or delete it") from error
    return record


def config_of(name: str, scale: str) -> dict[str, Any]:
    """The configuration of an experiment at a scale, as it stands in JSON."""
    config = dataclasses.asdict(experiment(name).SCALES[_known_scale(scale)])
    return _in_json(config, f"the configuration of {name}")


def current(name: str, scale: str) -> Record | None:
    """The record on disk if its configuration is the one in the code now, else None."""
    record = load(name, scale)
    return record if record and record.config == config_of(name, scale) else None


def evidence(*names: str, scales: Sequence[str] = SCALES) -> str | None:
    """The scale to show: the largest at which each experiment has three seeds (`Record.figure_seeds`).

    Where there is none, the largest at which each has two, then one; None where there is none either. (A
    95 % interval of two seeds reaches 13 standard errors to each side, of three 4.)
    `scales`, from small to large, may leave some out.
    """
    seeds = {}
    for scale in reversed(scales):
        found = [current(name, scale) for name in names]
        seeds[scale] = min(len(record.figure_seeds) if record else 0 for record in found)
    return next((scale for enough in (3, 2, 1) for scale, count in seeds.items() if count >= enough), None)


def best(name: str) -> Record:
    """The record of the scale that `evidence` names; where there is none, this build's, computed."""
    (record,) = together(name)
    return record


def together(*names: str) -> list[Record]:
    """The records of several experiments, all of the one scale that `evidence` names for them; see `best`."""
    scale = evidence(*names)
    return [current(name, scale) if scale else make(name) for name in names]


def _settings(name: str, scale: str) -> list[dict[str, Any]]:
    module = experiment(name)
    return [_in_json(setting, f"a setting of {name}") for setting in module.settings(module.SCALES[scale])]


def _in_json(value: Any, what: str) -> Any:
    """The value as it comes back from a record: lists in the place of tuples.

    Raises ValueError for what would not come back equal: nan, infinity, and what JSON has no form for.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must fit into JSON, without nan and infinity, got {value!r}") from error


def _known_scale(scale: str) -> str:
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    return scale


# --- Making records ------------------------------------------------------------------------------


def bars(iterable: Iterable, description: str = "") -> Iterable:
    """A progress bar; TQDM_DISABLE=1 hides it."""
    return tqdm(iterable, desc=description, leave=False)


def make(
    name: str,
    scale: str | None = None,
    *,
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    devices: Sequence[str] | None = None,
    jobs: int | None = None,
    engine: str | None = None,
    threads: int | None = None,
    address: str | None = None,
    progress: Callable[..., Iterable] = bars,
) -> Record:
    """Run the trials that the record lacks, saving each as it finishes, and return the whole record.

    scale: "smoke", "laptop" or "paper"; None: $DNABOOK_SCALE, else "laptop".
    seeds: which seeds must be there; None: the first 1, 3 or 5 of the scale.
    device: None: CUDA where there is one; on a Ray cluster at an address, the CPU.
    devices: several, to place trials on round robin, in place of `device`.
    jobs, engine, threads, address: how trials are spread, see `engines.plan`; by default they run here, one
      after the other. The engine does not change a trial's values, but on a processor its number of threads
      changes the last digits of sums, and training enlarges them; the provenance says how many there were.
    A record made under another configuration is kept beside the new one as `….DIGEST.old.json`, the digest
    being its configuration's, and comes back when a record of that configuration is made again.

    Processes that each make a record one trial after the other share its trials out; with jobs, each process
    makes all that the record lacks when it starts.

    Raises, before any work, ValueError for options that cannot be met and RecordError for a folder that
    cannot be written. A trial that fails or whose process dies does not stop the others: when they are done,
    MissingTrials tells which lack, and the first error is its cause. Stops at once with OtherData at a trial
    on another data set than the record's, and where trials run here with DataError at data that are missing
    or damaged.
    """
    scale = default_scale() if scale is None else _known_scale(scale)
    settings = _settings(name, scale)
    seeds = range(SEEDS[scale]) if seeds is None else seeds
    if isinstance(seeds, int):
        raise ValueError(f"seeds says which, for example range({seeds}), got {seeds}")
    if device and devices:
        raise ValueError("give one device, or several devices, not both")
    devices = [str(device)] if device else devices
    plan = engines.plan(engine, jobs=jobs, devices=devices, threads=threads, address=address)
    if plan is None or plan.address is None:  # else it is another machine that must know the device
        find = _usable if plan is None else _named
        usable = [find(d) for d in devices or (data.default_device(),)]
        plan = plan and plan._replace(slots=tuple(slot or str(usable[0]) for slot in plan.slots))
    record = current(name, scale) or _brought_back(Record(name, scale, config_of(name, scale)))
    missing = [(s, seed) for seed in seeds for s in settings if not record.find(s, seed)]
    if not missing:
        return record
    check_folders()
    if weights_path(name, scale).exists():
        _read_weights(weights_path(name, scale))
    head = dataclasses.replace(record, trials=[])  # what a call needs to know
    calls = [(head, setting, seed) for setting, seed in missing]
    results = engines.results(_run_call, calls, plan) if plan else _here(calls, usable[0], threads, progress)
    lost, cause = {}, None
    with contextlib.closing(results):
        for _ in progress(missing, f"{name} ({scale})"):
            index, result = next(results)
            if isinstance(result, Exception):
                cause = cause or result
                lost[index] = " ".join(f"{type(result).__name__}: {result}".split())
            elif isinstance(result, engines.Failure):
                lost[index] = result.reason
                if result.traceback:
                    cause = cause or RuntimeError(f"in another process:\n{result.traceback}")
            else:
                record = _save_trial(record, *result)
    if lost:
        raise MissingTrials(_missing(record, missing, lost)) from cause
    return record


def _here(
    calls: list[tuple[Record, dict, int]], device: torch.device, threads: int | None, progress: Callable
) -> Iterator[tuple[int, Any]]:
    """As `engines.results`, one trial after the other in this process; an error takes its result's place.

    Trials that other processes here are making come last: by then they are likely to be in the record.
    """
    waiting, refused = collections.deque(enumerate(calls)), 0
    with _threads(threads):
        while waiting:
            index, (head, setting, seed) = waiting.popleft()
            try:
                claim = _claim(head, setting, seed).acquire(-1 if refused > len(waiting) else 0)
            except Timeout:
                waiting.append((index, (head, setting, seed)))
                refused += 1
                continue
            refused = 0
            with claim:  # until the trial is saved
                try:
                    there = current(head.name, head.scale)  # another process may have made it meanwhile
                    done = there and there.find(setting, seed)
                    result = (done, {}) if done else _run_trial(head, setting, seed, device, progress)
                except data.DataError:  # the other trials would lack it too
                    raise
                except Exception as error:
                    traceback.clear_frames(error.__traceback__)  # else its tensors would stay on the device
                    result = error
                yield index, result


def _claim(record: Record, setting: dict[str, Any], seed: int) -> FileLock:
    """Held by the process that makes a trial of that record; the system frees it where the process dies."""
    key = json.dumps([str(path(record.name, record.scale).resolve()), setting, seed], sort_keys=True)
    place = data.cache_folder() / "claims"
    place.mkdir(parents=True, exist_ok=True)
    return FileLock(place / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.lock")


def _missing(record: Record, missing: list[tuple[dict, int]], lost: dict[int, str]) -> str:
    """One line on the trials that were lost, the first three by name."""
    named = [f"seed {missing[i][1]}, {_setting_of(missing[i][0])} ({lost[i]})" for i in sorted(lost)[:3]]
    more = f"; and {len(lost) - 3} more" if len(lost) > 3 else ""
    then = "The others are saved; run" if len(lost) < len(missing) else "Run"
    return (
        f"{record.name} ({record.scale}) lacks {len(lost)} of the {len(missing)} trials that were to run: "
        f"{'; '.join(named)}{more}. {then} again to complete the record"
    )


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """PyTorch with so many threads for a while; None: as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _usable(device: torch.device | str) -> torch.device:
    """The device, once a tensor has been put there: a wrong name stops before any work starts."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]})"
        ) from error


def _named(device: torch.device | str) -> torch.device:
    """As `_usable` for trials in other processes: of a GPU only that it is there, as using one opens it."""
    there = torch.cuda.device_count()
    try:
        wanted = torch.device(device)
    except RuntimeError:
        return _usable(device)
    if wanted.type != "cuda" or there == 0:
        return _usable(device)
    if (wanted.index or 0) >= there:
        raise ValueError(f"device {str(device)!r} cannot be used here (there are {there} GPUs)")
    return wanted


def _run_call(record: Record, setting: dict[str, Any], seed: int, device: str | None) -> tuple[dict, dict]:
    """`_run_trial` in another process, perhaps on another machine."""
    if config_of(record.name, record.scale) != record.config:
        raise RecordError(f"dnabook {dnabook.__version__} of the worker has another configuration")
    try:
        return _run_trial(record, setting, seed, _usable(device) if device else data.default_device(), quiet)
    finally:
        graphs.release()  # another process may need the GPU's memory before this one does


def _run_trial(
    record: Record, setting: dict[str, Any], seed: int, device: torch.device, progress: Callable
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One trial, and the weights that it keeps."""
    module, checkpoints, kept = experiment(record.name), [], {}
    threads = torch.get_num_threads() if device.type == "cpu" else None  # elsewhere they change nothing
    place = {"seed": seed, "device": _device_name(device), "threads": threads, **_own(record.name)}

    def checkpoint(**key: Any) -> Checkpoint:
        checkpoints.append(Checkpoint(_checkpoint_path({"settings": key, **place})))
        return checkpoints[-1]

    def keep(**items: torch.nn.Module | torch.Tensor) -> None:
        if seed == 0:
            kept.update(_tensors(items))

    context = Context(device=device, progress=progress, checkpoint=checkpoint, keep=keep)
    forget_peak(device)
    started = time.perf_counter()
    with seeded(seed, device), repeatable(device):
        values = module.run(module.SCALES[record.scale], setting, seed, context)
    seconds = time.perf_counter() - started + sum(c.seconds_before for c in checkpoints)
    if not isinstance(values, dict):
        raise ValueError(f"run of {record.name} returns a dict of values, got a {type(values).__name__}")
    values = json.loads(json.dumps(values, default=_plain))
    digest = values.pop("data", "unknown")
    trial = {
        "setting": setting,
        "seed": seed,
        "values": values,
        "provenance": {**_provenance(device), "data": digest, "seconds": round(seconds, 1)},
    }
    return trial, kept


def _plain(value: Any) -> Any:
    """The numbers of a tensor or an array, for JSON."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"a trial's values must fit into JSON, but a {type(value).__name__} does not")
    return value.tolist()


def check_folders() -> None:
    """Raises RecordError where records or checkpoints could not be written, before hours of work."""
    for place, variable in ((folder(), "DNABOOK_RESULTS"), (data.cache_folder(), "DNABOOK_CACHE")):
        try:
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            raise RecordError(
                f"nothing can be written in {place} ({error.strerror}); set {variable} to another folder"
            ) from error


def _lock(file: Path) -> FileLock:
    """Held while a file is replaced, by all who share its folder; the folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_name(f".{file.name}.lock"))


def _aside(file: Path, *identity: Any) -> Path:
    """Where a record of that configuration is kept while another one has its place."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return file.with_suffix(f".{digest}.old{file.suffix}")


def _set_aside(record: Record) -> None:
    """Make room for a record: one of another configuration is renamed, with the weights beside it.

    One of the same configuration that was set aside earlier comes back.
    """
    file = path(record.name, record.scale)
    on_disk = _load(file)
    if on_disk and on_disk.config == record.config:
        return
    for now in (file, file.with_suffix(".safetensors")):
        if on_disk and now.exists():
            now.replace(_aside(now, on_disk.config))
        if _aside(now, record.config).exists():
            _aside(now, record.config).replace(now)


def _brought_back(record: Record) -> Record:
    """The record of the same configuration that was set aside, in its place again; else the given one."""
    file = path(record.name, record.scale)
    if _aside(file, record.config).exists():
        with _lock(file):
            _set_aside(record)
    return current(record.name, record.scale) or record


def _save_trial(record: Record, trial: dict[str, Any], kept: dict[str, torch.Tensor] | None = None) -> Record:
    """Add one trial to the record on disk, which other processes may be adding to, after what it keeps.

    A mean over two data sets means nothing: a trial on another one than the record's is kept in a file of
    its own, and OtherData says so.
    """
    file = path(record.name, record.scale)
    with _lock(file):
        _set_aside(record)
        there = _load(file)
        fits, came = sorted({_data_of(t) for t in there.trials} if there else ()), _data_of(trial)
        place = file if set(fits) <= {came} else _aside(file, record.config, came)
        record = _load(place) or dataclasses.replace(record, trials=[])
        if not record.find(trial["setting"], trial["seed"]):
            if kept:
                _save_weights(place.with_suffix(".safetensors"), kept)
            record.trials.append(trial)
            record.trials.sort(key=lambda t: (t["seed"], json.dumps(t["setting"])))
            _write(place, _readable(record).encode())
    if place != file:
        raise OtherData(
            f"seed {trial['seed']}, {_setting_of(trial['setting'])} was made on {came}, but the trials in "
            f"{file} on {' and '.join(fits)}. It is kept as {place.name}: run again where those data are, or "
            f"put it (and its weights) in the place of {file.name}"
        )
    return record


def _data_of(trial: dict[str, Any]) -> str:
    """The data set of a trial, by name where the trial tells it, and digest."""
    return f"{trial['values'].get('images', 'data')} {trial['provenance']['data']}"


def _setting_of(setting: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting.items())


def _readable(record: Record) -> str:
    """The record as JSON with one line for each table row and each plain list: small, good to diff.

    JSON has no nan: null stands for it, and `load` gives it back among a trial's values.
    """
    return _json(_replaced(dataclasses.asdict(record), lambda v: v != v, None)) + "\n"


def _replaced(value: Any, unwanted: Callable[[Any], bool], new: Any) -> Any:
    """Nested dicts and lists with `new` in the place of every value that is unwanted."""
    if isinstance(value, dict):
        return {key: _replaced(item, unwanted, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, unwanted, new) for item in value]
    return new if unwanted(value) else value


def _json(value: Any, indent: str = "") -> str:
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(item, dict | list) for item in nested):
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_json(item, inner)}" for key, item in value.items()]
    else:
        items = [_json(item, inner) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{end}"


def _provenance(device: torch.device) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": _device_name(device),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # AVX2, AVX512, …
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dnabook": dnabook.__version__,
        "commit": COMMIT,
        "peak_memory_mib": round(peak(device) / 2**20),
    }


def forget_peak(device: torch.device) -> None:
    """From here on `peak` tells what is held at most: on a GPU, and on Linux. Elsewhere nothing happens."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed goes back to the system first
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass


def peak(device: torch.device) -> int:
    """Bytes that this process, or torch on a GPU, has held at most; 0 where the system does not tell.

    Since `forget_peak`, or where that can do nothing, since the process started.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        pass
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, elsewhere KiB


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} {platform.machine()}"


def commit() -> str:
    """The checkout's commit, "-dirty" where files differ from it, or "unknown" outside a checkout.

    Records themselves do not count: trials are saved while others run.
    """
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return "unknown"
    git = partial(subprocess.run, cwd=checkout, capture_output=True, timeout=30, check=True, encoding="utf-8")
    try:
        name = git(["git", "describe", "--always", "--abbrev=10"]).stdout.strip()
        status = ["git", "--no-optional-locks", "status"]  # the index stays as it is
        changed = git([*status, "--porcelain", "-uno", "--", ".", ":!book/results"]).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"
    return name + "-dirty" * bool(changed)


COMMIT = commit()  # of the code that this process runs, whatever is edited later


# --- Weights -------------------------------------------------------------------------------------


def weights_path(name: str, scale: str) -> Path:
    """The file of a record's kept weights, beside the record, whether it exists or not."""
    return path(name, scale).with_suffix(".safetensors")


def weights(record: Record) -> dict[str, Any]:
    """What an experiment kept of its first seed: state dicts by the models' names, and tensors by theirs.

    Models above a million parameters are stored in half precision; all come back as float32 on the CPU.
    Raises RecordError when there are none, and for an experiment that keeps none.
    """
    file = weights_path(record.name, record.scale)
    if not file.exists():
        if not getattr(experiment(record.name), "KEEPS_WEIGHTS", False):
            raise RecordError(f"{record.name} keeps no weights")
        raise RecordError(
            f"{file} is missing; delete the trials of seed 0 from {path(record.name, record.scale).name} "
            f"and run: dnabook run {record.name} --scale {record.scale}"
        )
    found: dict[str, Any] = {}
    for key, value in _read_weights(file).items():
        name, _, parameter = key.partition("/")
        value = value.float() if value.dtype == torch.float16 else value
        if parameter:
            found.setdefault(name, {})[parameter] = value
        else:
            found[name] = value
    return found


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, read whole: Windows replaces no file that is mapped into memory."""
    try:
        return tensors_of(file.read_bytes())
    except SafetensorError as error:
        raise RecordError(f"{file} holds no weights ({error}); restore it or delete it") from error


def _tensors(items: dict[str, torch.nn.Module | torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of models and tensors as they are now, under the keys and in the types of the file."""
    found = {}
    for label, item in items.items():
        if isinstance(item, torch.Tensor):
            found[label] = item
            continue
        half = sum(p.numel() for p in item.parameters()) > 1_000_000
        for key, value in item.state_dict().items():
            found[f"{label}/{key}"] = value.half() if half and value.dtype == torch.float32 else value
    return {
        key: value.detach().clone(memory_format=torch.contiguous_format).cpu() for key, value in found.items()
    }


def _save_weights(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put tensors into a record's file of weights, beside what other trials put there."""
    kept = _read_weights(file) if file.exists() else {}
    _write(file, save({**kept, **tensors}))


# --- Benchmarks ----------------------------------------------------------------------------------


def benchmark_path(kind: str) -> Path:
    """The file of what `make bench` measured on a kind of machine, as `benchmark_kind` names it."""
    return folder() / f"benchmark-{kind}.json"


def benchmark_kind(device: torch.device) -> str:
    """What measurements of the device are filed under: "cuda", or "cpu-avx2" by what the processor has."""
    kind = device.type
    return kind if kind != "cpu" else f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"


def save_benchmark(group: str, rows: list[dict[str, Any]], device: torch.device) -> Path:
    """Replace one group of measurements by new rows, with their provenance; returns the file."""
    file = benchmark_path(benchmark_kind(device))
    with _lock(file):
        groups = _benchmark(file) if file.exists() else {}
        provenance = {**_provenance(device), "cores": os.cpu_count()}
        del provenance["peak_memory_mib"]  # of the process that only started the others
        groups[group] = {"provenance": provenance, "rows": rows}
        _write(file, (_json(groups) + "\n").encode())
    return file


def benchmarks() -> dict[str, dict[str, Any]]:
    """{kind of machine: {group: {"provenance", "rows"}}} of all that was measured, the newest first."""
    prefix = "benchmark-"
    found = {file.stem.removeprefix(prefix): _benchmark(file) for file in folder().glob(f"{prefix}*.json")}

    def newest(groups: dict[str, Any]) -> str:
        return max(group["provenance"]["date"] for group in groups.values())

    return dict(sorted(found.items(), key=lambda item: newest(item[1]), reverse=True))


def _benchmark(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def processor() -> str:
    """The processor's name as the system tells it, for example "AMD EPYC 9R14"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


# --- Checkpoints ---------------------------------------------------------------------------------


ZIP = b"PK\x03\x04"  # how files of torch, and any zip, begin
KIND = "dnabook checkpoint"  # stands in each, so that no other file is taken for one and overwritten


class Checkpoint:
    """State of one training run on disk. Two experiments that train the same pair share it.

    seconds_before: how long earlier sessions worked on what `load` returned; it counts as the trial's time.
    """

    def __init__(self, file: Path | str) -> None:
        self.file, self.opened, self.seconds_before = Path(file), time.perf_counter(), 0.0
        self.replaceable = False  # until what lies there has been read

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none; a checkpoint that was cut short counts as none.

        Raises, because it would be overwritten, OSError where there is a file that cannot be opened or read
        now, and RecordError where the file is something else.
        """
        state = self._read()
        self.replaceable = True
        if state is not None:
            self.seconds_before = float(state["seconds"])
        return state

    def _read(self) -> dict[str, Any] | None:
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # whatever torch makes of bytes that are no checkpoint
            if ZIP.startswith(content[:4]) and not zipfile.is_zipfile(io.BytesIO(content)):
                return None  # the beginning of a file as torch writes it
            state = None
        if not isinstance(state, dict) or state.get("kind") != KIND:
            raise RecordError(
                f"{self.file} is no checkpoint of dnabook and would be overwritten; delete it, or give the "
                "checkpoint another file"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state at once: a crash leaves the old one whole. Raises as `load`."""
        if not self.replaceable:
            self._read()
            self.replaceable = True
        seconds = self.seconds_before + time.perf_counter() - self.opened
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(self.file) as temporary:
            torch.save({**state, "kind": KIND, "seconds": seconds}, temporary)


def _training_code() -> str:
    """SHA-256 of the code that trains, which is imported with it: later edits do not run, nor count.

    Of what runs: comments, layout and docstrings may change.
    """
    source = hashlib.sha256()
    for module in TRAINING_CODE:
        importlib.import_module(f"dnabook.{module.replace('/', '.')}")
        file = Path(__file__).parent / f"{module}.py"
        source.update(_what_runs(file.read_text(encoding="utf-8")).encode())
    return source.hexdigest()


def _own(name: str) -> dict[str, str]:
    """What else names the checkpoints of an experiment that has training code of its own: it and its code."""
    if name in SHARING or f"experiments/{name}" in TRAINING_CODE:
        return {}
    return {"experiment": name, "code": _code_of(experiment(name).run)}


@functools.cache  # so that it is the code as imported, whatever is edited while trials run
def _code_of(run: Callable) -> str:
    """SHA-256 of the module of an experiment's `run`, of what runs; "" where it is in no file."""
    file = getattr(sys.modules.get(run.__module__), "__file__", None)
    code = _what_runs(Path(file).read_text(encoding="utf-8")) if file else ""
    return hashlib.sha256(code.encode()).hexdigest() if code else ""


def _what_runs(code: str) -> str:
    """A module without comments, layout and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


TRAINED_BY = _training_code()


def _checkpoint_path(key: dict[str, Any]) -> Path:
    """One file for each training run: named by its settings and place and by the code that trains."""
    name = json.dumps(key, sort_keys=True, default=str) + TRAINED_BY + torch.__version__
    return data.cache_folder() / "checkpoints" / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.pt"


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[IO[bytes]]:
    """A temporary file that takes the place of another once it is written, and is gone where that fails."""
    handle, name = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as temporary:
            yield temporary
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def _write(file: Path, content: bytes) -> None:
    with _replacing(file) as temporary:
        temporary.write(content)

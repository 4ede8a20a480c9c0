"""The command line: `dnabook list | run NAME | show NAME | doctor`, or `python -m dnabook …`."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

import dnabook
from dnabook import data, records
from dnabook.attacks import Linf, pgd, untargeted
from dnabook.experiments import NAMES
from dnabook.losses import decorrelation
from dnabook.models import FullyConnected, seeded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Mistakes are told in one line on stderr, status 2.

    Where trials fail, the traceback of the first stands above the line.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe on Windows, or an old locale, has no λ: "?" in its place
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="dnabook", description=dnabook.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"dnabook {dnabook.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    commands.add_parser("list", help="the experiments, and what is recorded of each")
    run = commands.add_parser("run", help="run the trials that a record lacks; resumes where it stopped")
    run.add_argument("name", type=_name, choices=[*NAMES, "all"])
    run.add_argument("--scale", choices=records.SCALES, help="default: $DNABOOK_SCALE, else laptop")
    run.add_argument("--seeds", help='how many ("5") or which ("3,4" or "3:5"); default: 1, 3, 5 by scale')
    run.add_argument("--device", help="cpu, cuda, cuda:1, …; default: cuda where there is one")
    parallel = run.add_argument_group(
        "in parallel",
        "Each job has a process of its own, and a trial is saved when it is done. Where one fails or is "
        "killed, the others go on; run again to complete the record.",
    )
    parallel.add_argument(
        "--jobs", type=int, metavar="N", help="trials at the same time; default: one for each of --devices"
    )
    parallel.add_argument("--devices", metavar="A,B", help='where trials run, round robin: "cuda:0,cuda:1"')
    parallel.add_argument(
        "--engine", metavar="ENGINE", help="joblib: this machine (default); ray, dask: a cluster"
    )
    parallel.add_argument(
        "--address",
        help="of a running cluster: auto or host:6379 (ray), tcp://host:8786 (dask); default: a local one",
    )
    parallel.add_argument(
        "--threads", type=int, metavar="N", help="of each trial on a processor; default: all, shared out"
    )
    show = commands.add_parser("show", help="what a record holds, trial by trial")
    show.add_argument("name", type=_name, choices=NAMES)
    show.add_argument("--scale", choices=records.SCALES, help="default: the largest recorded")
    commands.add_parser("doctor", help="check this installation: versions, device, data, records")

    options = parser.parse_args(arguments)
    try:
        status = {"list": _list, "run": _run, "show": _show, "doctor": _doctor}[options.command](options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough: dnabook show transfer | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, data.DataError, records.RecordError) as error:
        print(f"dnabook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dnabook: interrupted; finished trials are saved, run again to go on", file=sys.stderr)
        return 130


def _name(text: str) -> str:
    """An experiment's name, also as its files have it: feature-correlation."""
    return text.replace("-", "_")


def _title(name: str) -> str:
    module = records.experiment(name)
    return getattr(module, "TITLE", None) or (module.__doc__ or "no title").splitlines()[0]


def _list(options) -> int:
    status = 0
    for name in NAMES:
        try:
            print(f"{name}: {_title(name)}")
        except ValueError as error:
            print(f"{name}: {error}")
            status = 2
            continue  # the other experiments may be whole
        for scale in records.SCALES:
            try:
                told = _recorded(name, scale)
            except (ValueError, records.RecordError) as error:
                told, status = error, 2
            print(f"  {scale:7}", told)
    return status


def _recorded(name: str, scale: str) -> str:
    record = records.current(name, scale)
    other = record is None and records.load(name, scale) is not None
    return record.caption() if record else "not recorded" + " under this configuration" * other


def _run(options) -> int:
    seeds = _seeds(options.seeds)
    devices = None if options.devices is None else [d.strip() for d in options.devices.split(",")]
    wishes = {name: getattr(options, name) for name in ("device", "jobs", "engine", "threads", "address")}
    status = 0
    for name in NAMES if options.name == "all" else [options.name]:
        try:
            record = records.make(name, options.scale, seeds=seeds, devices=devices, **wishes)
        except (records.MissingTrials, records.OtherData, data.DataError) as error:
            if isinstance(error, records.MissingTrials) and error.__cause__:
                traceback.print_exception(error.__cause__)
            print(f"dnabook: {error}", file=sys.stderr)
            status = 2
            continue  # other experiments may do
        print(f"{records.path(name, record.scale)}: {record.caption()}, {record.seconds:.0f} s of trials")
    return status


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        seeds = list(range(int(match[1]), int(match[2])))
    elif re.fullmatch(r"\d+(,\d+)+", text):
        seeds = sorted({int(part) for part in text.split(",")})
    else:
        seeds = list(range(int(text))) if text.isdecimal() else []
    if not seeds:
        raise ValueError(f'--seeds takes a count "5", a list "3,4" or a range "3:5", got {text!r}')
    return seeds


def _show(options) -> int:
    scales = [options.scale] if options.scale else reversed(records.SCALES)
    record = next(filter(None, (records.load(options.name, scale) for scale in scales)), None)
    if record is None:
        at, option = (
            (f" at {options.scale} scale", f" --scale {options.scale}") if options.scale else ("", "")
        )
        raise records.RecordError(
            f"nothing is recorded of {options.name}{at}; try: dnabook run {options.name}{option}"
        )
    print(_title(record.name), record.caption(), sep="\n")
    if record.config != records.config_of(record.name, record.scale):
        print("made under another configuration than the code has now; run it again")
    for name, value in record.config.items():
        print(f"  {name}: {value}")
    for trial in record.trials:
        setting = ", ".join(f"{k} {v}" for k, v in trial["setting"].items())
        accuracy = _accuracy(trial["values"].get("accuracy"))
        seconds = trial["provenance"]["seconds"]
        print(f"  seed {trial['seed']}  {setting:45} {accuracy}  {seconds:7.1f} s")
    return 0


def _accuracy(values: list[float] | float | None) -> str:
    if values is None:
        return ""
    values = values if isinstance(values, list) else [values]
    return "accuracy " + " ".join(f"{each:.3f}" for each in values)


def _device_faults(device: torch.device) -> int:
    """1, and a line, if the device computes a loss, its gradient or an attack otherwise than the CPU."""
    found = []
    for place in ("cpu", device):
        with seeded(0):
            pair = FullyConnected(), FullyConnected()
            x, y = torch.rand(250, 1, 28, 28), torch.arange(250) % 10
        pair, x, y = tuple(model.to(place) for model in pair), x.to(place), y.to(place)
        objective = decorrelation(*pair, correlation_weight=1.0)  # so that both terms bend the gradient
        loss = objective(x, y)["loss"]
        loss.backward()
        slope = pair[1].body[1].weight.grad.norm()
        try:
            x_adv = pgd(untargeted(pair[0], y), x, Linf(0.1), steps=2, random_start=False)
        except FloatingPointError:
            x_adv = x + math.nan
        found.append([value.item() for value in (loss, slope, (x_adv - x).abs().mean())])
    apart = [abs(a - b) / abs(a) for a, b in zip(*found, strict=True)]
    if all(each < 1e-2 for each in apart):
        return 0
    told = ", ".join(f"{each:.1%}" for each in apart)
    print(f"{device}: a loss, its gradient or an attack differs from the CPU's by {told}")
    return 1


def _doctor(options) -> int:
    print(f"dnabook {dnabook.__version__} ({records.commit()}), Python {platform.python_version()}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {data.default_device()}")
    print(f"scale {records.default_scale()}, records in {records.folder()}, cache in {data.cache_folder()}")
    size = sum(file.stat().st_size for file in data.cache_folder().rglob("*.pt"))
    print(f"checkpoints in the cache: {size / 2**20:.0f} MiB")
    faults = _device_faults(data.default_device())
    try:
        records.check_folders()
    except records.RecordError as error:
        faults += 1
        print(error)
    for split in ("train", "test"):
        images = data.load("mnist", split, device="cpu")
        print(f"mnist {split}: {len(images)} images, digest {images.digest}")
    given = os.environ.get("DNABOOK_DATA")
    print(f"cifar10: DNABOOK_DATA is {given or 'unset; torchvision downloads'}")
    if given and not Path(given).expanduser().exists():
        faults += 1
        print(f"DNABOOK_DATA names {given}, which does not exist")
    for name in NAMES:
        for scale in records.SCALES:
            try:
                record = records.load(name, scale)
            except records.RecordError as error:
                faults += 1
                print(error)
                continue
            if record and record.config != records.config_of(name, scale):
                faults += 1
                print(f"{records.path(name, scale)}: made under another configuration; run it again")
    print("all well" if not faults else f"{faults} fault(s), named above")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""How much memory was held at most: in bytes, since it was last forgotten, on every system."""

import sys
import types
from pathlib import Path

import pytest
import torch

from dnabook import records

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_a_peak_is_forgotten_and_a_new_one_counted_in_bytes():
    records.forget_peak(CPU)
    before = records.peak(CPU)
    torch.ones(64 * MIB).sum()  # 256 MiB
    high = records.peak(CPU)
    assert 250 * MIB < high - before < 400 * MIB
    records.forget_peak(CPU)
    assert records.peak(CPU) < high - 200 * MIB


@pytest.fixture
def without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "Path", lambda name: tmp_path / Path(name).name)


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_process_s_whole_peak_counts_whatever_unit_the_system_has(
    system, unit, without_proc, monkeypatch
):
    usage = types.SimpleNamespace(ru_maxrss=2**30 // unit)
    monkeypatch.setattr(
        records, "resource", types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    )
    monkeypatch.setattr(sys, "platform", system)
    records.forget_peak(CPU)
    assert records.peak(CPU) == 2**30


def test_a_system_that_tells_nothing_gives_0(without_proc, monkeypatch):
    monkeypatch.setattr(records, "resource", None)
    assert records.peak(CPU) == 0

"""Shared fixtures: real digits, a small trained CNN, fixed seeds, and private folders for what is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from dnabook import data, losses, models, records, training

settings.register_profile("dnabook", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("dnabook")
torch.set_num_threads(1)  # the tensors are small; more threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory):
    """Smoke scale, no CIFAR-10 folder, a temporary cache and results folder: the user's stay untouched."""
    root = tmp_path_factory.mktemp("dnabook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNABOOK_SCALE", "smoke")
        patch.setenv("DNABOOK_RESULTS", str(root / "results"))
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for name in ("DNABOOK_CACHE", "DNABOOK_DATA"):
            patch.delenv(name, raising=False)
        yield root


@pytest.fixture(scope="session")
def smoke(private_folders, tmp_path_factory) -> Callable[[str], records.Record]:
    """An experiment's record at smoke scale, with its weights: made by the first process that asks for it.

    The others copy it. It is kept in $SMOKE_RECORDS if that is set: `make test` has the chapters show it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all processes
    shared, private = Path(os.environ.get("SMOKE_RECORDS", root / "smoke")), private_folders / "results"

    def get(name: str) -> records.Record:
        files = f"{name.replace('_', '-')}-smoke.*"
        with FileLock(root / f"{name}.lock"):
            if not list(private.glob(files)):
                copy(files, shared, private)
            record = records.make(name, "smoke", device="cpu", progress=training.quiet)
            copy(files, private, shared)
        return record

    return get


def copy(files: str, source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob(files):
        shutil.copy(file, target)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same global random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def whole_mnist_train() -> data.Images:
    return data.load("mnist", "train", device="cpu")


@pytest.fixture(scope="session")
def whole_mnist_test() -> data.Images:
    return data.load("mnist", "test", device="cpu")


@pytest.fixture(scope="session")
def mnist_train(whole_mnist_train) -> data.Images:
    """The first 2,000 training images."""
    return whole_mnist_train[:2000]


@pytest.fixture(scope="session")
def mnist_test(whole_mnist_test) -> data.Images:
    """The first 200 test images."""
    return whole_mnist_test[:200]


@pytest.fixture(scope="session")
def trained_cnn(whole_mnist_train) -> models.CNN:
    """A CNN trained on 10,000 images for three epochs, in eval mode: right on nine in ten of `mnist_test`."""
    torch.manual_seed(0)
    model = models.CNN()
    batches = data.Batches(whole_mnist_train[:10000], 50)
    training.fit(losses.classification(model), model.parameters(), batches, epochs=3)
    return model

"""A notebook in Colab: a machine with torch and without dnabook, where the first cell installs the tag."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch

import dnabook

ROOT = Path(__file__).parents[1]
TAG = f"v{dnabook.__version__}"
SET_UP = next(
    cell.source
    for cell in jupytext.read(ROOT / "book" / "intro.md").cells
    if "colab-setup" in cell.metadata.get("tags", [])
)


def git(*arguments, cwd):
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """This working tree as a git repository whose one commit carries the version's tag."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to tag")
    copy = tmp_path_factory.mktemp("repository")
    for name in git("ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    git("init", "--quiet", cwd=copy)
    git("add", "--all", cwd=copy)
    who = (
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@localhost",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    )
    git(*who, "commit", "--quiet", "-m", "tagged", cwd=copy)
    git(*who, "tag", TAG, cwd=copy)
    return copy


@pytest.fixture
def colab(tmp_path):
    """A Python like Colab's: google.colab, torch and all else, and no dnabook. Returns its path."""
    environment = tmp_path / "colab"
    venv.create(environment, with_pip=False, symlinks=True)
    bases = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", bases))
    for own in {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}:
        for entry in own.iterdir():
            if "dnabook" not in entry.name and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    stub = packages / "google" / "colab"
    if (packages / "google").is_symlink():  # another package's namespace: keep it, and add colab beside it
        shared = (packages / "google").resolve()
        (packages / "google").unlink()
        shutil.copytree(shared, packages / "google", symlinks=True)
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").write_text("")
    return environment / "bin" / "python"


def run(python, tmp_path, repository, cells):
    """Runs cells in a kernel of the given Python, away from the repository; returns the executed notebook."""
    kernel = tmp_path / "share" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "c", "language": "python"})
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "page.ipynb")
    hidden = ("PYTHONPATH", "DNABOOK_RESULTS", "DNABOOK_CACHE", "DNABOOK_DATA", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "JUPYTER_PATH": str(tmp_path / "share"),
        "DNABOOK_PIP": f"git+file://{repository}@{TAG}",
        "PIP_NO_BUILD_ISOLATION": "0",  # build with the setuptools that is there; "0" is how pip spells it
        "PIP_NO_INDEX": "1",  # nothing else is fetched
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    code = (
        "import nbformat, nbclient, sys; n = nbformat.read(sys.argv[1], 4); "
        "nbclient.NotebookClient(n, kernel_name='colab', timeout=240).execute(); "
        "nbformat.write(n, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "page.ipynb"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(tmp_path / "page.ipynb", 4)


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.timeout(600)
def test_in_colab_the_first_cell_installs_the_tag_keeps_torch_and_hints_at_a_gpu(colab, tmp_path, repository):
    before = "import importlib.util; print(importlib.util.find_spec('dnabook'))"
    after = (
        "import dnabook, torch\nfrom dnabook import experiments, records, data\n"
        "print(dnabook.__file__)\nprint(dnabook.__version__)\nprint(torch.__version__)\nprint(torch.__file__)\n"
        "print(all(records.best(name).trials for name in experiments.NAMES))\n"
        "print(len(data.load('mnist', 'test')))"
    )
    page = run(colab, tmp_path, repository, [before, SET_UP, after])
    assert printed(page.cells[0]).strip() == "None"
    hint = "No GPU is on"
    assert (hint in printed(page.cells[1])) == (not torch.cuda.is_available())
    where, version, torch_version, torch_file, recorded, images = printed(page.cells[2]).split()
    assert Path(where).is_relative_to(colab.parents[1]) and version == dnabook.__version__
    assert torch_version == torch.__version__
    assert Path(torch_file).resolve() == Path(torch.__file__).resolve()
    assert (recorded, images) == ("True", "10000")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stem", ["scoreboard", "status"])
def test_a_whole_page_runs_in_colab_from_its_notebook_alone(colab, tmp_path, repository, stem):
    cells = [c.source for c in jupytext.read(ROOT / "book" / f"{stem}.ipynb").cells if c.cell_type == "code"]
    page = run(colab, tmp_path, repository, cells)
    shown = [
        output for cell in page.cells for output in cell.outputs if output.output_type == "execute_result"
    ]
    assert any("|" in output.data.get("text/markdown", "") for output in shown)


def test_elsewhere_the_first_cell_does_nothing(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the cell started a process")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setitem(sys.modules, "google.colab", None)
    names: dict[str, object] = {}
    exec(SET_UP, names)
    assert set(names) == {"__builtins__"}

"""The stairs go one way: who imports whom, who may touch the clock and the disk, and what is documented."""

import ast
import importlib
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dnabook

PACKAGE = Path(dnabook.__file__).parent

# Each module may import only those above it. "" is `dnabook` itself, which gathers the library for users.
ORDER = (
    "_version", "memory", "graphs", "products", "data", "models", "autoencoders", "regression", "measures",
    "losses", "attacks", "training", "dverge", "", "experiments", "experiments.pairs",
    "experiments.reconstruction", "experiments.between", "experiments.*", "engines",
    "records", "summaries", "claims", "scoreboard", "findings", "figures", "tables", "tables.*", "costs",
    "widgets", "pieces", "__main__",
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file):
    """ "experiments.pairs" of …/dnabook/experiments/pairs.py; a package is named by its folder."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = [name_of(file) for file in FILES]
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in zip(NAMES, FILES, strict=True)}
every_module = pytest.mark.parametrize("name", NAMES, ids=[name or "dnabook" for name in NAMES])


def place(name):
    """The step a module stands on. Findings share one, so none may import another; so do
    tables."""
    folder = name.split(".")[0]
    return ORDER.index(name if name in ORDER else f"{folder}.*")


def imported(tree):
    """The modules that a module imports, anywhere in it, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [member for member in members if member.removeprefix("dnabook.") in NAMES]
            yield from modules
            if len(modules) < len(members):
                yield node.module


def imported_from_dnabook(tree):
    """The package's own modules among them, named as in NAMES."""
    inside = {name for name in imported(tree) if name.split(".")[0] == "dnabook"}
    return {name.removeprefix("dnabook").removeprefix(".") for name in inside}


def calls(tree):
    """The called names: "open" of open(…), "write_text" of file.write_text(…)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield f".{node.func.attr}"


def public(tree):
    """(qualified name, node, class) of the public functions and classes, methods included."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node, None
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member, node


# --- Imports -------------------------------------------------------------------------------------


def test_the_import_reader_sees_every_form_of_import():
    def found(source):
        return imported_from_dnabook(ast.parse(source))

    assert found("import torch, dnabook") == {""}
    assert found("import dnabook.models as m") == {"models"}
    assert found("from dnabook import data, losses") == {"data", "losses"}
    assert found("from dnabook import data, r_squared") == {"data", ""}
    assert found("from dnabook.experiments import NAMES, pairs") == {"experiments", "experiments.pairs"}
    assert found("def f():\n    from dnabook.experiments.pairs import train") == {"experiments.pairs"}


@every_module
def test_each_module_imports_only_modules_above_it(name):
    above = {other for other in NAMES if place(other) < place(name)}
    assert imported_from_dnabook(TREES[name]) <= above


def test_every_module_has_its_place_in_the_order():
    assert all(name in ORDER or f"{name.split('.')[0]}.*" in ORDER for name in NAMES)


@every_module
def test_only_records_touches_the_clock_and_only_it_and_engines_start_processes(name):
    used = {module.split(".")[0] for module in imported(TREES[name])} & {"time", "datetime", "subprocess"}
    may = {"records": {"time", "datetime", "subprocess"}, "engines": {"subprocess"}}
    assert used == may.get(name, set())


WRITING = {"open", ".write_text", ".write_bytes", ".mkdir", ".unlink", ".rename", ".touch", ".savefig"}


@every_module
def test_only_records_writes_files(name):
    tree = TREES[name]
    assert name == "records" or not (
        WRITING & set(calls(tree)) or {"tempfile", "shutil"} & set(imported(tree))
    )


@every_module
def test_only_the_command_line_prints(name):
    assert "print" not in set(calls(TREES[name])) or name == "__main__"


# --- Documentation -------------------------------------------------------------------------------


@every_module
def test_each_module_says_what_it_is_for(name):
    assert ast.get_docstring(TREES[name]) or name == "_version"


def test_the_tour_of_the_package_goes_down_the_stairs_and_leaves_none_out():
    tour = re.findall(r"`(\w+)/?`", dnabook.__doc__)
    modules = [name for name in ORDER if name and not name.startswith("_") and "." not in name]
    assert sorted(tour) == sorted(modules)
    assert all(ORDER.index(x) < ORDER.index(y) for x, y in itertools.pairwise(tour))


@every_module
def test_public_functions_and_classes_have_a_docstring(name):
    """Methods of one line, and a protocol's, need none; a finding's Config is described once, for all."""
    assert "`Config`" in ast.get_docstring(TREES["experiments"])
    for qualified, node, owner in public(TREES[name]):
        plain = owner is not None and len(node.body) == 1
        if not plain and qualified != "Config":
            assert ast.get_docstring(node), qualified


DEFINITIONS = [
    pytest.param(node, id=f"{name}.{qualified}")
    for name in NAMES
    for qualified, node, _ in public(TREES[name])
    if isinstance(node, ast.FunctionDef)
]


@pytest.mark.parametrize("node", DEFINITIONS)
def test_parameters_and_result_are_annotated(node):
    given = node.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    bare = [p.arg for p in parameters if p and p.annotation is None and p.arg not in ("self", "cls")]
    assert not bare
    assert node.returns is not None


def test_all_names_that_dnabook_exports_exist():
    for name in dnabook.__all__:
        assert hasattr(dnabook, name)
    assert sorted(set(dnabook.__all__)) == sorted(dnabook.__all__)


def test_every_module_is_there_when_dnabook_asks_for_it():
    program = "import dnabook\nfor name in {!r}: getattr(dnabook, name)".format(
        [name for name in ORDER if name.isidentifier() and not name.startswith("_")]
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="module 'dnabook' has no attribute 'recods'"):
        dnabook.recods  # noqa: B018


def test_a_package_that_a_module_lacks_is_named(monkeypatch):
    def lacking(name):
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr(dnabook.importlib, "import_module", lacking)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        dnabook.__getattr__("figures")


@every_module
def test_each_module_can_be_imported(name):
    module = importlib.import_module(f"dnabook.{name}".removesuffix("."))
    assert inspect.getdoc(module) or name == "_version"

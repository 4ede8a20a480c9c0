"""One address, many copies: they agree, and one command moves them all."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import jupytext
import pytest
import yaml

import dnabook

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("address", ROOT / "tools" / "address.py")
address = importlib.util.module_from_spec(spec)
sys.modules["address"] = address
spec.loader.exec_module(address)


@pytest.fixture
def copy(tmp_path):
    """A copy of every file that could carry the address."""
    for pattern in address.FILES:
        for file in ROOT.glob(pattern):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return tmp_path


def contents(root):
    return {file.relative_to(root): file.read_text() for file in root.rglob("*") if file.is_file()}


def assert_all_agree_on(owner_and_name, root):
    """Config, notebooks, chapters, README, citation and front page name this repository and its site."""
    site = address.site(owner_and_name)
    config = yaml.safe_load((root / "_config.yml").read_text())
    sphinx = config["sphinx"]["config"]
    assert config["repository"]["url"] == f"https://github.com/{owner_and_name}"
    assert config["html"]["baseurl"] == sphinx["ogp_site_url"] == site
    assert site.endswith(sphinx["notfound_urls_prefix"])
    assert f'repository-code: "https://github.com/{owner_and_name}"' in (root / "CITATION.cff").read_text()
    assert site in (root / "book/extra/index.html").read_text()
    readme, branch = (root / "README.md").read_text(), config["repository"]["branch"]
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch}/book"
    for chapter in sorted((root / "book").glob("[0-9]*.md")):
        assert f"{colab}/{chapter.stem}.ipynb" in readme
    for notebook in sorted((root / "book").glob("*.ipynb")):
        installed = f"git+https://github.com/{owner_and_name}@v{dnabook.__version__}"
        assert any(
            installed in "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]
        ), notebook.name
    name = owner_and_name.split("/")[1]
    for path, text in contents(root).items():
        for found in re.findall(rf"github(?:\.com|usercontent\.com)?/([\w.-]+/{re.escape(name)})\b", text):
            assert found == owner_and_name, path


def test_config_notebooks_readme_citation_and_site_agree_on_the_address(copy):
    assert_all_agree_on(address.current(), copy)


@pytest.mark.parametrize("new", ["ada-l/analytical", "Ada/dna.book", "ada/ada.github.io"])
def test_one_command_moves_every_copy_and_back_again(copy, new):
    before, old = contents(copy), address.current(copy)
    changed = address.move(new, copy)
    assert len(changed) > 20 and address.current(copy) == new
    assert_all_agree_on(new, copy)
    left = [path for path, text in contents(copy).items() for form in address.forms(old) if form in text]
    assert not left
    address.move(old, copy)
    assert contents(copy) == before


def test_a_moved_notebook_still_equals_its_text(copy):
    address.move("ada/analytical", copy)
    for stem in ("intro", "01_adversarial_examples"):
        text, notebook = (jupytext.read(copy / "book" / f"{stem}.{kind}") for kind in ("md", "ipynb"))
        assert [cell.source for cell in text.cells] == [cell.source for cell in notebook.cells]


def test_other_repositories_whose_names_begin_alike_stay():
    text = (
        "https://github.com/a/b https://github.com/a/b.git https://github.com/a/bc https://github.com/a/b-c"
    )
    assert address.moved(text, "a/b", "x/y") == (
        "https://github.com/x/y https://github.com/x/y.git https://github.com/a/bc https://github.com/a/b-c"
    )
    assert address.moved("see https://github.com/a/b.", "a/b", "x/y") == "see https://github.com/x/y."


def test_a_site_lies_under_the_repositorys_name_unless_it_is_its_owners_own():
    assert (
        address.site("Ada/book") == "https://ada.github.io/book/" and address.prefix("Ada/book") == "/book/"
    )
    assert (
        address.site("Ada/ada.github.io") == "https://ada.github.io/"
        and address.prefix("Ada/ada.github.io") == "/"
    )


@pytest.mark.parametrize(
    "bad", ["", "ada", "ada/", "/book", "ada/book/more", "https://github.com/ada/book", "a b/c"]
)
def test_what_is_no_address_is_refused_and_nothing_changes(copy, bad, capsys):
    before = contents(copy)
    with pytest.raises(ValueError, match="OWNER/NAME"):
        address.move(bad, copy)
    assert contents(copy) == before
    if bad:
        assert address.main([bad]) == 2
        assert "OWNER/NAME" in capsys.readouterr().err


def test_without_an_address_the_command_prints_it_and_who_carries_it(capsys):
    assert address.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == address.current() and "  README.md" in lines and "  _config.yml" in lines

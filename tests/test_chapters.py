"""The book's text: pairs agree, numbers in prose are accounted for, figures speak, links hold."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import jupytext
import pytest
import torch
import yaml
from jupytext.compare import compare_notebooks

import dnabook

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.md"))
NOTEBOOKS = [
    BOOK / "intro.md",
    *CHAPTERS,
    *(BOOK / f"{name}.md" for name in ("conclusion", "scoreboard", "errata", "status", "costs")),
]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())

# A decimal in prose is a setting after one of these words, a quotation where its sentence names the paper.
SETTING = re.compile(
    r"(ε|λ|η|\\varepsilon|\\delta|\\lambda|\\eta|radius|learning rate|version)( ?=| of)? ?\$?\(?$"
)
QUOTED = re.compile(r"paper|authors|printed|Algorithm 1|released", re.IGNORECASE)

SCREEN, COLUMNS = 20, 80  # lines of code, and characters that the page shows of one


def ids(paths):
    return [path.stem for path in paths]


def read(path):
    return jupytext.read(path)


def prose(path):
    """Markdown cells without code, mathematics, links' targets and front matter."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\$\$.*?\$\$|`[^`]*`|\]\([^)]*\)|https?://\S+", " ", cell.source, flags=re.DOTALL)
            yield re.sub(r"\$[^$]*\$", lambda match: match.group().replace(".", "·"), text)


def typed_decimals(text):
    """The decimals of a text that are neither a named setting nor in a sentence that quotes the paper."""
    for sentence in re.split(r"(?<=[.?!:])\s+|\n\n", text):
        for match in re.finditer(r"(?<![\w.])\d+\.\d+", sentence):
            if not SETTING.search(sentence[: match.start()]) and not QUOTED.search(sentence):
                yield f"{match.group()} in: {sentence.strip()[:90]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_notebook_equals_its_text_and_holds_no_outputs(path):
    notebook = jupytext.read(path.with_suffix(".ipynb"))
    compare_notebooks(
        notebook,
        read(path),
        fmt="md:myst",
        allow_expected_differences=True,
        raise_on_first_difference=True,
        compare_outputs=False,
        compare_ids=False,
    )
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_every_notebook_has_a_text_and_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = {toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])}
    assert {f"book/{path.name}" for path in BOOK.glob("*.md")} == pages
    assert {path.stem for path in BOOK.glob("*.ipynb")} == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_no_decimal_is_typed_into_prose_unless_it_is_a_setting_or_quotes_the_paper(path):
    found = [decimal for text in prose(path) for decimal in typed_decimals(text)]
    assert not found, "compute these from a record, or say that the paper gives them: " + "; ".join(found)


def test_the_search_for_typed_decimals_finds_one_and_spares_settings_and_quotations():
    assert list(typed_decimals("Transfer falls to 0.41 on average."))
    assert list(typed_decimals("At ε = 0.10 transfer is 0.67."))
    assert not list(typed_decimals("At ε = 0.10 transfer rises. The paper reports 0.67."))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_every_cell_that_draws_says_in_its_alt_text_what_is_seen(path):
    drawing = re.compile(r"^figures\.\w+\(", re.MULTILINE)
    for cell in read(path).cells:
        if cell.cell_type == "code" and drawing.search(cell.source):
            described = cell.metadata.get("mystnb", {})
            assert len(described.get("image", {}).get("alt", "")) > 60, cell.source
            assert described["figure"]["name"].startswith("fig-") and described["figure"]["caption"]


def test_figure_names_are_unique_across_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in read(path).cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_no_cell_is_longer_than_a_screen(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= SCREEN, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_no_line_of_code_is_cut_off_at_the_edge_of_the_page(path):
    for cell in read(path).cells:
        if cell.cell_type == "code" and "colab-setup" not in cell.metadata.get("tags", []):
            assert not [line for line in cell.source.splitlines() if len(line) > COLUMNS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_cells_reach_into_the_margin_only_beside_a_list_of_contents(path):
    """The theme's script moves that list out of their way, and fails on a page that has none."""
    text = path.read_text(encoding="utf-8")
    assert "full-width" not in text or re.search(r"^## ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", CHAPTERS, ids=ids(CHAPTERS))
def test_chapter_has_its_parts_in_order(path):
    text = path.read_text()
    parts = ["**You will**", "**You need**", "**Time**", "## The question", "## What to doubt",
             "## Summary", "## Exercises", "**Exercise 3.**"]  # fmt: skip
    positions = [text.find(part) for part in parts]
    assert -1 not in positions and positions == sorted(positions), dict(zip(parts, positions, strict=True))


@pytest.mark.parametrize("path", CHAPTERS, ids=ids(CHAPTERS))
def test_every_exercise_has_a_folded_solution_that_runs(path):
    after = read(path).cells
    exercises = [i for i, cell in enumerate(after) if "**Exercise " in cell.source]
    assert len(exercises) >= 3
    for i in exercises:
        assert after[i + 1].cell_type == "code" and "hide-cell" in after[i + 1].metadata["tags"]
        assert not {"skip-execution", "raises-exception", "remove-cell"} & set(after[i + 1].metadata["tags"])


def test_all_chapters_share_one_set_up_cell_that_installs_this_version():
    cells = {
        cell.source
        for path in NOTEBOOKS
        for cell in read(path).cells
        if "colab-setup" in cell.metadata.get("tags", [])
    }
    assert len(cells) == 1
    assert f"@v{dnabook.__version__}" in cells.pop()


def test_one_repository_address_serves_config_chapters_readme_and_citation():
    address = CONFIG["repository"]["url"]
    owner, name = address.split("/")[-2:]
    assert CONFIG["html"]["baseurl"] == f"https://{owner}.github.io/{name}/"
    assert f'repository-code: "{address}"' in (ROOT / "CITATION.cff").read_text()
    for path in [*NOTEBOOKS, ROOT / "README.md"]:
        for found in re.findall(r"github(?:\.com|/)/?([\w-]+/dnabook)\b", path.read_text()):
            assert found == f"{owner}/{name}", path
    readme = (ROOT / "README.md").read_text()
    for path in CHAPTERS:
        assert (
            f"/github/{owner}/{name}/blob/{CONFIG['repository']['branch']}/book/{path.stem}.ipynb" in readme
        )


def test_links_between_pages_and_files_lead_somewhere():
    for path in [*BOOK.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_records_and_notebooks_are_json_without_outputs_of_this_machine():
    for path in [*BOOK.glob("*.ipynb"), *(BOOK / "results").glob("*.json")]:
        assert json.loads(path.read_text())
        assert "/home/" not in path.read_text() and "/root/" not in path.read_text()


def test_equations_carry_the_papers_numbers():
    tags = {
        path.stem[:2]: set(map(int, re.findall(r"\\tag\{(\d+)\}", path.read_text()))) for path in CHAPTERS
    }
    assert tags == {
        "01": {1, 2, 3}, "02": {5}, "03": {6, 7}, "04": {8, 9}, "05": set(), "06": {4, 10, 11}, "07": set(),
        "08": set(), "09": set(),
    }  # fmt: skip


def test_the_errata_name_every_difference_once():
    ids = re.findall(r"^\| (D\d+) \|", (BOOK / "errata.md").read_text(), flags=re.MULTILINE)
    assert sorted(ids, key=lambda name: int(name[1:])) == [f"D{i}" for i in range(1, 35)]


def test_weights_beside_the_records_stay_small():
    files = [
        file
        for file in (BOOK / "results").glob("*.safetensors")
        if "-smoke" not in file.name and ".old." not in file.name
    ]
    assert sum(file.stat().st_size for file in files) < 20_000_000


def test_numbered_equations_are_of_one_line_because_a_tag_may_not_stand_in_a_split_one():
    for path in CHAPTERS:
        for block in re.findall(r"\$\$(.*?)\$\$", path.read_text(), flags=re.DOTALL):
            assert not (r"\tag" in block and r"\\" in block), f"{path.name}: {block}"


def test_kernels_of_the_smoke_book_load_few_images_attack_shortly_and_start_without_a_name(monkeypatch):
    for module, name in ((dnabook.data, "load"), (dnabook.attacks, "pgd"), (dnabook, "pgd")):
        monkeypatch.setattr(module, name, getattr(module, name))  # undone after the test
    names = runpy.run_path(str(ROOT / "tests" / "few_images.py"))
    assert not {name for name in names if not name.startswith("__")}
    assert len(dnabook.data.load("mnist", limit=12_000, device="cpu")) == 1000
    assert len(dnabook.data.load("mnist", "train", device="cpu")) == 1000
    assert len(dnabook.data.load("mnist", limit=500, device="cpu")) == 500
    assert len(dnabook.data.load("mnist", "test", limit=4000, device="cpu")) == 4000
    asked = []

    def objective(x):
        asked.append(len(x))
        return x.flatten(1).sum(1)

    x = torch.full((2, 1, 3, 3), 0.5)
    for steps in (2, 40):
        asked.clear()
        moved = dnabook.pgd(objective, x, dnabook.Linf(0.1), steps=steps)
        assert len(asked) == min(steps, 3) and moved.allclose(x + 0.1)
    assert dnabook.attacks.pgd is dnabook.pgd
    assert "few_images.py" in (ROOT / "Makefile").read_text()

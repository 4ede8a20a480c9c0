"""The pages behind the chapters: API, glossary, references, how to cite; and README's computed lines."""

from __future__ import annotations

import html
import importlib
import inspect
import re
import sys
from pathlib import Path

import docutils.core
import jupytext
import pytest
import yaml
from PIL import Image
from pybtex.database import parse_file

import dnabook
from dnabook import claims, experiments, findings, records, scoreboard, summaries
from dnabook.experiments.between import NATURAL_MAP

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.md"))
sys.path[:0] = [str(BOOK / "_ext"), str(ROOT / "tools")]

import docstrings  # noqa: E402
import finding  # noqa: E402

WORKS = parse_file(BOOK / "references.bib").entries
ITEM = re.compile(r"^- (.+?) \((\d{4})\)\. \[\*(.+?)\*\]\((\S+?)\)\. .+\.$", re.MULTILINE)


def documented():
    """Every public function and class of the modules on the API page."""
    for name in re.findall(r"automodule:: (\S+)", (BOOK / "api.md").read_text()):
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if inspect.getdoc(value) and getattr(value, "__module__", "") == name and key[0] != "_":
                yield pytest.param(value, id=f"{name}.{key}")


@pytest.mark.parametrize("thing", list(documented()))
def test_a_docstring_becomes_markup_without_an_error_and_loses_no_word(thing):
    plain = inspect.getdoc(thing)
    text = "\n".join(docstrings.rest(plain.split("\n")))
    page = docutils.core.publish_parts(text, writer_name="html5", settings_overrides={"halt_level": 2})
    shown = html.unescape(re.sub(r"<[^>]+>", " ", page["body"]))
    assert re.findall(r"\w+", shown) == re.findall(r"\w+", plain)


def test_columns_and_named_shapes_become_lists_and_sentences_stay_paragraphs():
    lines = docstrings.rest(
        [
            "Share of *some* images.",
            "",
            "x_adv: (N, C), crafted on `source`;  y: (N,) classes.",
            "step_size     a length; None:",
            "              the default.",
            "variant       one of two.",
            '              "released": the other.',
            "Returns nan when empty.",
        ]
    )
    assert [line for line in lines if line] == [
        "Share of *some* images.",
        r"- **x\_adv**: (N, C), crafted on ``source``",
        "- **y**: (N,) classes.",
        r"- **step\_size**: a length; None: the default.",
        "- **variant**: one of two.",
        '  "released": the other.',
        "Returns nan when empty.",
    ]


def test_the_build_loads_the_reader_of_docstrings_and_the_bibliography():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["sphinx"]["local_extensions"]["docstrings"] == "book/_ext"
    assert config["bibtex_bibfiles"] == ["book/references.bib"]
    # each text is the function's own docstring, as the page says: none of torch's, which are marked up
    assert config["sphinx"]["config"]["autodoc_inherit_docstrings"] is False


def test_the_api_page_lists_every_module_in_the_order_of_the_package():
    listed = re.findall(r"automodule:: dnabook\.(\S+)", (BOOK / "api.md").read_text())
    files = {
        ".".join(p.relative_to(ROOT / "dnabook").with_suffix("").parts)
        for p in (ROOT / "dnabook").rglob("*.py")
    }
    hidden = {"__init__", "__main__", "_version"}
    named = {name.removesuffix(".__init__") for name in files} - hidden
    assert named == set(listed), f"in the package or on the page only: {sorted(named ^ set(listed))}"
    modules = [name for name in listed if not name.startswith("experiments")]
    told = [modules.index(name) for name in re.findall(r"`(\w+)`", dnabook.__doc__) if name in modules]
    assert told == sorted(told)
    assert [n.split(".")[1] for n in listed if n.startswith("experiments.")][3:] == list(experiments.NAMES)


def test_links_to_the_glossary_lead_to_its_terms_and_each_chapter_has_some():
    text = (BOOK / "glossary.md").read_text().replace("R²\n", "R2\n")
    terms = re.findall(r"^(\S.*)\n  \S", text, flags=re.MULTILINE)
    known = {"term-" + re.sub(r"\W+", "-", term).strip("-") for term in terms}
    assert len(known) > 25 and terms == sorted(terms, key=str.lower)
    used = {p.stem: re.findall(r"glossary\.md#(term-[\w-]+)", p.read_text()) for p in BOOK.glob("*.md")}
    for page, links in used.items():
        assert set(links) <= known, page
    assert all(used[path.stem] for path in CHAPTERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])
def test_a_chapter_ends_with_its_references_and_each_agrees_with_the_bibliography(path):
    last = path.read_text().rsplit("\n## ", 1)[1]
    assert last.startswith("References\n")
    items = ITEM.findall(last)
    assert len(items) == last.count("\n- ") >= 2 and "Wiedeman" in items[0][0]
    by_url = {work.fields["url"]: work for work in WORKS.values()}
    for authors, year, title, url in items:
        work = by_url[url]
        assert year == work.fields["year"], title
        assert title == re.sub("[{}]", "", work.fields["title"])
        first = " ".join(work.persons["author"][0].last_names)
        assert authors.startswith(f"{first}, "), title
        assert ("et al." in authors) == (len(work.persons["author"]) > 3), title


def test_works_named_in_a_chapter_are_in_its_references():
    for path in CHAPTERS:
        text, last = path.read_text().rsplit("\n## ", 1)
        listed = {(authors.split(",")[0], year) for authors, year, _, _ in ITEM.findall(last)}
        named = re.findall(r"([A-ZÀ-Ž][\w-]+)(?: et al\.| & [A-Z]\w+),? \(?(\d{4})", text)
        assert set(named) <= listed, path.name


def test_bibtex_on_the_first_page_and_the_citation_file_say_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    box = (BOOK / "intro.md").read_text().split("```bibtex\n")[1].split("```")[0]
    paper, book = box.split("\n\n")
    reference = citation["references"][0]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["version"] == dnabook.__version__
    assert f"version = {{{dnabook.__version__}}}" in book and f"{{{citation['repository-code']}}}" in book
    assert f"{{{citation['title']}}}" in book and str(citation["date-released"])[:4] in book
    assert f"doi     = {{{reference['doi']}}}" in paper and f"{{{reference['title']}}}" in paper
    assert WORKS["wiedeman2022"].fields["url"].endswith(reference["doi"])
    assert WORKS["wiedeman2022"].fields["title"] == reference["title"]


@pytest.fixture
def committed(monkeypatch):
    """The records of the repository in the place of the tests' own, empty folder."""
    monkeypatch.delenv("DNABOOK_RESULTS")


def test_readme_says_what_the_records_say(committed):
    text = (ROOT / "README.md").read_text()
    assert finding.with_finding(text) == text, "a record has changed: run `make finding`"


def test_readmes_example_runs_as_it_stands_but_on_fewer_images(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for many, few in (("20_000", "3000"), ("(train, 1000)", "(train, 100)"), ("limit=1000", "limit=100")):
        assert code.count(many) == 1
        code = code.replace(many, few)
    exec(code, {})
    rate, loss = map(float, capsys.readouterr().out.split())
    assert 0 <= rate <= 1 and loss > 0


def test_readmes_figure_is_of_the_largest_record(committed):
    drawn = Image.open(finding.FIGURE).text["Description"]
    assert drawn == finding.origin(), "a record has changed: run `make finding`"


def begun_by(claims):
    """Each claim that goes on from an earlier sentence ("… and …"), and the claim whose sentence that is."""
    whole = None
    for claim in claims:
        if claim.sentence.startswith("…"):
            yield claim, whole
        else:
            whole = claim


def test_chapters_open_with_verdicts_on_claims_that_exist(committed):
    ids = {claim.id for claim in claims.CLAIMS}
    for path in CHAPTERS[1:]:
        cell = next(c for c in jupytext.read(path).cells if "scoreboard.answers(" in c.source)
        asked = re.findall(r'"(C\d+[a-z]?)"', cell.source)
        assert asked and set(asked) <= ids, path.name
        for claim, whole in begun_by(claims.CLAIMS):
            assert claim.id not in asked or whole.id in asked, (
                f"{path.name}: {claim.id} goes on from another's"
            )
        assert scoreboard.answers(*asked).count("\n- ") == len(asked)


def test_an_answer_names_verdict_number_and_scale(committed):
    claim = next(claim for claim in claims.CLAIMS if claim.id == "C2")
    text = scoreboard.answers("C2")
    scale = records.evidence(*claim.experiments)
    judged = scoreboard.judge(claim, scale)
    assert f"**{judged.verdict}**" in text and f"(n = {judged.n}), {scale} scale" in text


def test_the_finding_counts_the_pairs_that_did_not_survive(committed, monkeypatch):
    monkeypatch.setattr(records, "best", lambda name: records.load(name, "laptop"))
    features = records.best("feature_correlation")
    lost, of = summaries.collapsed(features, architecture="cnn", arm="decorrelated")
    later, _ = summaries.collapsed(features, architecture="cnn", arm="decorrelated_late")
    line = next(line for line in findings.lines().split("\n") if "**Breaking it.**" in line)
    assert f"leaves {lost} of {of} CNN pairs" in line and "laptop scale" in line
    assert f"Switched on late it does so to {later or 'none'}, and lowers R²" in line


@pytest.mark.parametrize("reading, much", [(60, "Most"), (68, "Part")])
def test_the_finding_says_most_of_a_fall_only_where_less_than_half_is_the_pairs(reading, much, monkeypatch):
    """From 70 % within regular pairs to 30: 20 points, and 5 or 0, are lost with strangers already."""
    rates = {
        ("regular", "regular"): 70, ("regular", "stranger"): 60, ("stranger", "regular"): 68,
        ("corrected", "corrected"): 30, ("corrected", "stranger"): 45, ("stranger", "corrected"): reading,
    }  # fmt: skip
    rows = [
        {
            "source_arm": s,
            "target_arm": t,
            "epsilon": 0.10,
            "both_fooled_clean": n,
            "source_fooled_clean": 100,
        }
        for (s, t), n in rates.items()
    ]
    trials = [
        {"setting": {}, "seed": seed, "values": {"accuracy": [1.0, 1.0], "transfer": rows}} for seed in (0, 1)
    ]
    record = records.Record("strangers", "paper", {"arms": ["regular", "corrected"]}, trials)
    monkeypatch.setattr(records, "evidence", lambda *names: "paper")
    monkeypatch.setattr(records, "current", lambda name, scale: record)
    ((_, text, _),) = findings._whose_change()
    assert text.startswith(f"{much} of that fall") and "Within such pairs it is 40 ± 0 points" in text
    assert "; it is 15 ± 0 points where" in text and f"and {68 - reading} ± 0 points the other" in text
    assert text.endswith(f"; {25 - 68 + reading} ± 0 points are left for the pair")


def test_the_finding_sets_untrained_features_beside_trained_ones(monkeypatch):
    """Of 100 digits signs turn 40 wrong: attacks on trained features 70, on untrained ones 42."""
    values = {
        "accuracy": [0.9, 0.9],
        "predictability": [{"source": "untrained", "target": "trained", "heldout": 0.9}],
        "transfer": [
            {"epsilon": 0.10, "both_fooled_clean": 42, "signs_clean": 40, "source_fooled_clean": 100}
        ],
        "damage": [{"epsilon": 0.10, "attacked": 70, "signs": 40, "counted": 100}],
    }
    trials = [{"setting": {"architecture": "cnn"}, "seed": seed, "values": values} for seed in (0, 1)]
    monkeypatch.setattr(records, "evidence", lambda *names: "paper")
    monkeypatch.setattr(records, "current", lambda *_: records.Record("controls", "paper", {}, trials))
    ((_, text, _),) = findings._is_enough()
    assert "follow with R² 0.90 ± 0.00 even from those of a CNN that keeps its random layers" in text
    assert "misread only 2 ± 0 points more digits" in text and text.endswith("CNN, 30 ± 0 points more")


def test_the_finding_tells_what_rises_from_the_first_age_of_the_features_to_the_last(monkeypatch):
    def row(age, **more):
        return {"epochs": age, "head": "own", "epsilon": 0.10, **more}

    values = {
        "accuracy": [0.9, 0.9],
        "relation": [{"epochs": age, "heldout": r2} for age, r2 in ((0, 0.93), (1, 0.5), (20, 0.98))],
        "movement": [
            row(age, map=name, explains=share if name != "movements" else 1)
            for age, share in ((0, 0.05), (20, 0.73)) for name in (NATURAL_MAP, "movements")
        ],
        "transfer": [
            row(age, both_fooled_clean=both, signs_clean=40, source_fooled_clean=100)
            for age, both in ((0, 42), (20, 75))
        ],
    }  # fmt: skip
    for table, reading in (("movement", "explains"), ("transfer", "both_fooled_clean")):
        values[table] += [{**each, "head": "hidden", reading: 0} for each in values[table]]
    trials = [{"setting": {"architecture": "cnn"}, "seed": seed, "values": values} for seed in (0, 1)]
    config = {"epochs": [0, 1, 20], "epsilons": [0.05, 0.10]}
    monkeypatch.setattr(records, "evidence", lambda *names: "paper")
    record = records.Record("learned_features", "paper", config, trials)
    monkeypatch.setattr(records, "current", lambda *_: record)
    ((_, text, _),) = findings._what_rises()
    assert "goes from 0.93 ± 0.00 to 0.98 ± 0.00;" in text
    assert "moves the other's, from 0.05 ± 0.00 to 0.73 ± 0.00; and" in text
    assert text.endswith("at ε = 0.10 turns wrong for it beyond random signs, from 2 ± 0 to 35 ± 0 points")

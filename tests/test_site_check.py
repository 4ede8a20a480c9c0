"""The browser check finds what it is for: each planted fault in a small site, and none in a sound page."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def tool(name: str, folder: str = "tools"):
    """A program of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


site_check = tool("site_check")
SITE = site_check.Site(Path("unused"), ROOT, address="dnabook/dnabook")

PIXEL = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='40' height='40'%3E"
    "%3Crect width='40' height='40' fill='{}'/%3E%3C/svg%3E"
)
ALT = "Transfer falls as the two networks move apart, for all three attacks"
SLIDER = """<div class="dnabook-frames"><img id="picture" src="{before}" alt="{alt}">
<label>ε <input id="dial" type="range" min="0" max="3" value="0" {state}></label></div>
<script>document.getElementById("dial").addEventListener("input",
  () => document.getElementById("picture").src = "{after}");</script>"""

# name: (body, the kinds of faults that the check must report of it)
PAGES = {
    "sound": (
        f'<h1 id="top">Sound</h1><img src="{PIXEL.format("red")}" alt="{ALT}">'
        '<p>It costs $5, or $HOME, else $XDG. <a href="#top">Up</a>, <a href="anchor.html">on</a>, '
        "<code>$$x$$</code></p>"
        '<div style="overflow-x: auto" tabindex="0"><div style="width: 900px">It scrolls</div></div>'
        + SLIDER.format(before=PIXEL.format("red"), after=PIXEL.format("blue"), alt=ALT, state=""),
        set(),
    ),
    "mute": (f'<img src="{PIXEL.format("red")}"><img src="{PIXEL.format("red")}" alt="A">', {"alt", "axe"}),
    "path": (f'<img src="{PIXEL.format("red")}" alt="../_images/abc.png">', {"alt"}),
    "lost": (f'<img src="no-such.png" alt="{ALT}">', {"image", "request", "console"}),
    "anchor": ('<a href="sound.html#nowhere">dead</a> <a href="sound.html#top">alive</a>', {"link"}),
    "page": ('<a href="no-such.html">dead</a>', {"link"}),
    "colab": ('<a href="https://colab.research.google.com/github/a/b/blob/main/x.ipynb">x</a>', {"link"}),
    "thrown": ("<script>throw new Error('planted')</script>", {"console"}),
    "logged": ("<script>console.error('planted')</script>", {"console"}),
    "outside": ('<script src="http://example.org/a.js"></script>', {"another host", "request", "console"}),
    "raw": ("<p>The loss $$\\lambda$$ is not drawn</p>", {"equation"}),
    "undrawn": ('<span class="math">x^2</span>', {"equation"}),
    "merror": (
        '<span class="math"><mjx-container><mjx-merror>?</mjx-merror></mjx-container></span>',
        {"equation"},
    ),
    "wide": ('<div style="width: 900px">A block that no phone holds</div>', {"phone", "print"}),
    "wider": (
        '<div style="width: 1200px">A block that no tablet holds</div>', {"tablet", "phone", "print"}
    ),
    "pale": ('<p style="color: #ccc; background: #fff">Too pale to be read</p>', {"axe"}),
    "dim": ("<style>[data-theme=dark] p {color: #333; background: #222}</style><p>Dim at night</p>", {"axe"}),
    "button": ('<button class="copybtn">Copy</button>', {"print"}),
    "still": (
        SLIDER.format(before=PIXEL.format("red"), after=PIXEL.format("red"), alt=ALT, state=""),
        {"slider"},
    ),
    "stuck": (
        SLIDER.format(before=PIXEL.format("red"), after=PIXEL.format("blue"), alt=ALT, state="disabled"),
        {"slider"},
    ),
    "scripted": (
        SLIDER.format(before=PIXEL.format("red"), after=PIXEL.format("blue"), alt=ALT, state="").replace(
            "<img", "<img hidden"
        )
        + '<script>document.getElementById("picture").hidden = false</script>',
        {"still"},
    ),
    "bare": ('<div class="dnabook-frames"><p>No slider here</p></div>', {"slider", "still"}),
    "card": ('<meta property="og:image" content="http://localhost/no-such.png">', {"head"}),
    "download": ('<a href="empty.ipynb">notebook</a> <a href="run.ipynb">with outputs</a>', {"download"}),
}  # fmt: skip
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
</head><body><main>{body}</main></body></html>"""


def notebook(outputs):
    cell = {"cell_type": "code", "source": "1", "outputs": outputs, "metadata": {}, "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture(scope="module")
def small_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, (body, _) in PAGES.items():
        (folder / f"{name}.html").write_text(PAGE.format(title=name, body=body), encoding="utf-8")
    (folder / "nameless.html").write_text("<!DOCTYPE html><html><body><main>Nameless</main></body></html>")
    (folder / "index.html").write_text(
        '<html lang="en"><head><meta http-equiv="refresh" content="0; url=gone.html"></head></html>'
    )
    (folder / "search.html").write_text(PAGE.format(title="search", body='<ul id="search-results"></ul>'))
    (folder / "empty.ipynb").write_text(notebook([]))
    (folder / "run.ipynb").write_text(notebook([{"output_type": "execute_result"}]))
    listed = [*PAGES, "nameless", "too-many"]
    listed.remove("raw")
    (folder / "sitemap.xml").write_text("".join(f"<loc>http://localhost/{n}.html</loc>" for n in listed))
    return site_check.Site(folder, folder, address="dnabook/dnabook")


@pytest.fixture(scope="module")
def faults(small_site):
    """The faults of the small site, by page."""
    if site_check.chromium() is None:
        pytest.skip("Chromium is not installed")
    found: dict[str, list] = {}
    shots = small_site.folder / "_shots"
    shots.mkdir()
    for name in ("mine.txt", "a-page-that-is-no-more-phone.png"):
        (shots / name).touch()
    for fault in site_check.check(small_site, shots):
        found.setdefault(fault.page.removesuffix(".html"), []).append(fault)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_check_finds_in_each_page_what_is_planted_there_and_nothing_else(faults, name):
    assert {fault.kind for fault in faults.get(name, [])} == PAGES[name][1], faults.get(name)


def test_a_dead_anchor_and_a_dead_redirect_are_named_and_live_ones_are_not(faults):
    assert [fault.text for fault in faults["anchor"]] == [
        "leads to #nowhere of sound.html, which has no such anchor"
    ]
    assert [fault.text for fault in faults["index"]] == ["leads to gone.html, which does not exist"]


def test_a_page_without_language_and_title_a_silent_search_and_a_wrong_sitemap_are_found(faults):
    assert {"no language", "no title"} <= {fault.text for fault in faults["nameless"]}
    assert "search" in {fault.kind for fault in faults["search"]}
    assert [fault.text for fault in faults["sitemap.xml"]] == [
        "forgets raw.html",
        "lists too-many.html, no page",
    ]


def test_every_page_is_photographed_in_light_dark_on_a_phone_and_in_print(faults, small_site):
    shots = {file.name for file in (small_site.folder / "_shots").iterdir()} - {"mine.txt"}
    assert {f"sound-{guise}.png" for guise in ("light", "dark", "phone", "print")} <= shots
    assert len(shots) == 4 * (len(small_site.pages()) - 1)  # the redirect is not a page to look at
    assert (small_site.folder / "_shots" / "mine.txt").exists()


@pytest.mark.parametrize(
    "alt, wrong",
    [
        (None, "no alt"), ("  ", "no alt"), ("plot.png", "a path"), ("_images/plot", "a path"),
        ("Two networks compared", "no finding"), (ALT, None),
    ],
)  # fmt: skip
def test_alt_text_has_to_be_a_sentence_that_states_a_finding(alt, wrong):
    fault = site_check.alt_fault(alt)
    assert fault is None if wrong is None else wrong in fault


@pytest.mark.parametrize(
    "href, wrong",
    [
        ("https://colab.research.google.com/github/dnabook/dnabook/blob/main/book/intro.ipynb", None),
        (
            "https://colab.research.google.com/github/dnabook/dnabook/blob/main/book/gone.ipynb",
            "does not exist",
        ),
        (
            "https://colab.research.google.com/github/dnabook/other/blob/main/book/intro.ipynb",
            "not a notebook of",
        ),
        (
            "https://colab.research.google.com/github/dnabook/dnabook/blob/main/book/intro.md",
            "not a notebook of",
        ),
        ("https://colab.research.google.com/drive/abc", "malformed"),
        ("https://github.com/dnabook/dnabook/edit/main/book/intro.md", None),
        ("https://github.com/dnabook/dnabook/blob/v0.1.0/dnabook/losses.py#L3", None),
        ("https://github.com/dnabook/dnabook/blob/main/dnabook/lost.py", "does not exist"),
        ("https://github.com/another/project/blob/main/lost.py", None),
    ],
)
def test_links_to_colab_and_into_the_repository_must_lead_to_a_file_of_it(href, wrong):
    fault = site_check.repository_fault(href, SITE)
    assert fault is None if wrong is None else wrong in fault


def test_only_serious_and_critical_findings_count_and_the_reasoned_exceptions_do_not(monkeypatch):
    found = [
        {"id": "region", "impact": "moderate", "nodes": [{"html": "<p>"}]},
        {"id": "label", "impact": "critical", "nodes": [{"html": "<input class='theirs'>"}]},
        {"id": "color-contrast", "impact": "serious", "nodes": [{"html": "<b>"}, {"html": "<i>"}]},
    ]
    monkeypatch.setattr(site_check, "ALLOWED", {("label", "theirs"): "the theme's own"})
    assert [str(fault) for fault in site_check.axe_faults("a.html", found, "dark")] == [
        "a.html: axe: color-contrast (serious, dark), 2 times: <b>"
    ]


def test_a_page_with_a_notebook_must_open_it_in_colab(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "one.ipynb").write_text("{}")
    site, fact = site_check.Site(tmp_path, tmp_path), site_check.Facts
    assert [f.text for f in site_check.link_faults(site, "http://x/", {"book/one.html": fact()})] == [
        "no link opens the page's notebook in Colab"
    ]


def test_the_configured_site_is_the_published_one():
    site = site_check.configured(Path("unused"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert f"https://github.com/{site.address}" == config["repository"]["url"]
    assert (
        site.baseurl.endswith(site.prefix)
        and site.prefix == config["sphinx"]["config"]["notfound_urls_prefix"]
    )


def test_without_browser_or_book_the_check_says_what_is_missing_and_returns_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site_check, "chromium", lambda: None)
    assert site_check.main([str(tmp_path), "--shots", str(tmp_path / "shots")]) == 2
    assert "Chromium is missing" in capsys.readouterr().err
    monkeypatch.setattr(site_check, "chromium", lambda: "/bin/true")
    assert site_check.main([str(tmp_path), "--shots", str(tmp_path / "shots")]) == 2
    assert "no pages" in capsys.readouterr().err


# --- The extension that tidies pages ---------------------------------------------------------------

tidy_page = tool("tidy_page", "book/_ext")


class Asset:
    def __init__(self, filename, body=""):
        self.filename, self.attributes = filename, {"body": body} if body else {}


def test_tidied_pages_carry_no_thebe_and_no_script_twice():
    first, inline, again = Asset("a.js"), Asset("", "let x = 1"), Asset(None, "let x = 1")
    thebe = [Asset("_static/sphinx-thebe.js"), Asset("", 'const THEBE_JS_URL = "u"')]
    assert tidy_page.tidied([first, *thebe, inline, again, first]) == [first, inline]
    assert tidy_page.tidied(["a.css", "_static/sphinx-thebe.css", "a.css"]) == ["a.css"]


def test_pages_are_dealt_so_that_neighbours_are_read_side_by_side():
    side_by_side = tool("side_by_side", "book/_ext")
    pages = [f"{number:02}" for number in range(1, 8)]
    assert side_by_side.deal(pages, 2) == ["01", "03", "05", "07", "02", "04", "06"]
    assert side_by_side.deal(pages, 1) == pages
    for hands in range(1, 9):
        assert sorted(side_by_side.deal(pages, hands)) == pages


def test_axe_looks_at_one_of_the_pages_that_are_made_alike(tmp_path):
    sizes = {"intro.html": 9, "_modules/index.html": 1, "_modules/a.html": 2, "_modules/b/c.html": 3}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x" * size)
    assert site_check.same_template(site_check.Site(tmp_path)) == {"_modules/a.html"}


def test_the_list_of_modules_becomes_one_list_with_all_its_items():
    nested = "<h1>All</h1>\n<ul><li>a</li>\n<ul><li>a.b</li>\n</ul><li>c</li>\n</ul>\n"
    flat = tidy_page.one_list(nested)
    assert flat.count("<ul>") == flat.count("</ul>") == 1 and flat.count("<li>") == 3
    assert flat.startswith("<h1>All</h1>") and tidy_page.one_list("<p>none</p>") == "<p>none</p>"


def test_links_in_outputs_to_the_text_of_another_page_lead_to_the_page():
    pages = {"book/intro", "book/02_b"}
    body = '<a href="02_b.md">2</a><a href="02_b.md#x">x</a><a href="gone.md">-</a><a href="http://h/02_b.md">h</a>'
    assert tidy_page.linked(body, "book/intro", pages) == (
        '<a href="02_b.html">2</a><a href="02_b.html#x">x</a><a href="gone.md">-</a><a href="http://h/02_b.md">h</a>'
    )


# --- The book on paper -----------------------------------------------------------------------------


def test_the_pdf_has_a_bookmark_for_each_page_and_its_links_lead_to_the_published_site(small_site):
    if site_check.chromium() is None:
        pytest.skip("Chromium is not installed")
    from pypdf import PdfReader

    book = PdfReader(io.BytesIO(tool("pdf").printed(small_site, ["sound.html", "anchor.html"])))
    assert [entry.title for entry in book.outline] == ["sound", "anchor"]
    links = {
        str(annotation.get_object()["/A"]["/URI"])
        for page in book.pages
        for annotation in page.get("/Annots", ())
        if "/URI" in annotation.get_object().get("/A", {})
    }
    assert "http://localhost/sound.html#nowhere" in links
    assert not [link for link in links if "127.0.0.1" in link]


def test_the_pdf_is_ordered_as_the_contents_and_says_what_is_not_built(tmp_path, capsys):
    pdf = tool("pdf")
    pages = pdf.ordered()
    assert pages[:2] == ["book/intro.html", "book/01_adversarial_examples.html"]
    assert {page.removesuffix(".html") for page in pages} == {
        f"book/{f.stem}" for f in (ROOT / "book").glob("*.md")
    }
    assert pdf.main([str(tmp_path), "--out", str(tmp_path / "out.pdf")]) == 2
    assert "book/intro.html is not built" in capsys.readouterr().err

"""Reads the built book in a real browser, as a reader with the network off does, and lists what is wrong.

    python tools/site_check.py [_build/html] [--shots _build/screenshots]

One line a fault, and status 1 if there is any; status 2 if there is no browser or no book. Each page is
opened in Chromium from a server on this machine, and looked at in light, dark, on a phone and in print:

- nothing fails: no error in the console, no failed request, none to another host, and search finds something;
- nothing is cut: no page or piece of text is wider than a phone or than a sheet of paper;
- nothing is mute: language, title, alt text that says what is seen, and axe-core without serious findings
  (of the pages of source code, which are made alike, it looks at the longest);
- nothing leads nowhere: pages, anchors, downloads (with outputs), Colab, repository, sitemap, social card;
- nothing is raw: every formula is drawn;
- nothing is dead: each slider of a `.dnabook-frames` moves by keyboard, and its picture changes; where no
  script runs, it shows a still picture.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import importlib.util
import json
import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
LOOKS = ("light", "dark", "phone", "print")
PHONE, DESK, SHEET = (
    {"width": 375, "height": 812},
    {"width": 1300, "height": 900},
    {"width": 718, "height": 1000},
)
TABLET = {"width": 1050, "height": 900}  # the theme has no margin there for what is wider than the text
BROWSERS = 2  # at once: one a core of a small machine
WORDS_OF_ALT = 6  # fewer name a figure; a finding is a sentence
UNLISTED = {"search.html", "genindex.html", "py-modindex.html", "404.html"}  # pages that no sitemap lists

# What axe-core finds in the theme and cannot be mended here: (rule, part of the element's HTML): the reason.
ALLOWED: dict[tuple[str, str], str] = {}


class Fault(NamedTuple):
    page: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.kind}: {self.text}"


@dataclass(frozen=True)
class Site:
    """A built book: its folder, the repository it came from, and the addresses it says it has."""

    folder: Path
    root: Path = ROOT
    baseurl: str = "http://localhost/"
    address: str = ""  # owner/name on GitHub
    branch: str = "main"

    @property
    def prefix(self) -> str:
        """The path under which it is published, "/" or "/name/"; 404.html names its files from there."""
        return urlsplit(self.baseurl).path or "/"

    def pages(self) -> list[str]:
        found = (file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.html"))
        return sorted(page for page in found if not page.startswith(("_static/", "_sources/", "_downloads/")))


def configured(folder: Path, root: Path = ROOT) -> Site:
    """The site in `folder`, with the addresses of the repository's _config.yml."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    address = "/".join(config["repository"]["url"].split("/")[-2:])
    return Site(folder, root, config["html"]["baseurl"], address, config["repository"]["branch"])


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome; `DNABOOK_CHROMIUM` names another. None: there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("DNABOOK_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def axe_source() -> str:
    """The text of axe-core, as the package axe-playwright-python brings it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serves the folder on a free port of this machine, under its prefix; yields the address of its root."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            inside = urlsplit(path).path
            if not inside.startswith(site.prefix):
                return str(site.folder / "no such file")
            return super().translate_path("/" + inside[len(site.prefix) :])

        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(site.folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{site.prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- Faults that need no browser -----------------------------------------------------------------


def alt_fault(alt: str | None) -> str | None:
    """What is wrong with an alt text, or None. It has to be a sentence that says what is seen."""
    if alt is None or not alt.strip():
        return "no alt text"
    if re.search(r"\.(png|svg|jpe?g|gif|webp)$|^\S*/\S*$|^data:", alt.strip(), re.IGNORECASE):
        return f"the alt text is a path: {alt[:60]!r}"
    if len(alt.split()) < WORDS_OF_ALT:
        return f"the alt text states no finding: {alt!r}"
    return None


def repository_fault(href: str, site: Site) -> str | None:
    """What is wrong with a link to Colab or into this repository on GitHub, or None."""
    colab = re.fullmatch(r"https://colab\.research\.google\.com/github/([^/]+/[^/]+)/blob/([^/]+)/(.+)", href)
    if href.startswith("https://colab.research.google.com"):
        if not colab:
            return f"a malformed Colab link: {href}"
        address, branch, path = colab.groups()
        if (address, branch) != (site.address, site.branch) or not path.endswith(".ipynb"):
            return f"Colab opens {address}@{branch} {path}, not a notebook of {site.address}@{site.branch}"
        return None if (site.root / unquote(path)).is_file() else f"Colab opens {path}, which does not exist"
    inside = re.match(
        rf"https://github\.com/{re.escape(site.address)}/(?:blob|edit|tree|raw)/[^/]+/([^#?]+)", href
    )
    if inside and not (site.root / unquote(inside[1])).exists():
        return f"a link into the repository to {inside[1]}, which does not exist"
    return None


def notebook_fault(file: Path) -> str | None:
    """What is wrong with a notebook for download, or None: one with code has been run, with outputs."""
    cells = [
        cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    if cells and not any(cell["outputs"] for cell in cells):
        return f"the notebook {file.name} is offered for download without outputs"
    return None


@dataclass
class Facts:
    """What a page holds: its anchors and its links, as the browser resolves them."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)


def link_faults(site: Site, base: str, facts: dict[str, Facts]) -> list[Fault]:
    """Dead links: to files, to anchors, to Colab, into the repository; and notebooks without a Colab link."""
    faults = []
    for page, fact in facts.items():
        for link in dict.fromkeys(fact.links):
            target, anchor = urldefrag(link)
            if not target.startswith(base):
                wrong = repository_fault(link, site)
                faults += [Fault(page, "link", wrong)] if wrong else []
                continue
            path = unquote(urlsplit(target).path)[len(site.prefix) :] or "index.html"
            file = site.folder / path
            if not file.is_file():
                faults.append(Fault(page, "link", f"leads to {path}, which does not exist"))
            elif anchor and path in facts and unquote(anchor) not in facts[path].ids:
                faults.append(Fault(page, "link", f"leads to #{anchor} of {path}, which has no such anchor"))
            elif file.suffix == ".ipynb" and (wrong := notebook_fault(file)):
                faults.append(Fault(page, "download", wrong))
        if (site.root / page).with_suffix(".ipynb").is_file() and not any(
            link.startswith("https://colab.research.google.com") for link in fact.links
        ):
            faults.append(Fault(page, "link", "no link opens the page's notebook in Colab"))
    return faults


def sitemap_faults(site: Site) -> list[Fault]:
    """Pages that the sitemap forgets, and addresses in it that do not exist."""
    if not (site.folder / "sitemap.xml").is_file():
        return [Fault("sitemap.xml", "sitemap", "missing")]
    listed = re.findall(r"<loc>(.*?)</loc>", (site.folder / "sitemap.xml").read_text(encoding="utf-8"))
    paths = {url.removeprefix(site.baseurl) for url in listed}
    pages = {page for page in site.pages() if page not in UNLISTED and not page.startswith("_modules/")}
    wanted = {page for page in pages if not redirect(site.folder / page)}
    faults = [Fault("sitemap.xml", "sitemap", f"forgets {page}") for page in sorted(wanted - paths)]
    return faults + [Fault("sitemap.xml", "sitemap", f"lists {p}, no page") for p in sorted(paths - wanted)]


def redirect(file: Path) -> str | None:
    """Where a page sends its reader at once, or None."""
    head = file.read_text(encoding="utf-8")[:4000]
    found = re.search(r'http-equiv="refresh" content="0; *url=([^"]+)"', head, re.IGNORECASE)
    return found[1] if found else None


# --- Faults that a browser sees -------------------------------------------------------------------

LOOK = r"""() => {
  const bare = [], skip = 'script,style,code,pre,textarea,mjx-container,.math';
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data;
    const raw = /\$\$|\\\(|\\\[|\\begin\{|\$[^$\s]([^$\n]*[^$\s])?\$(?!\w)/.test(text);
    if (raw && !walk.currentNode.parentElement.closest(skip))
      bare.push(text.trim().slice(0, 80));
  }
  return {
    language: document.documentElement.lang,
    title: document.title,
    ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
    links: [...document.querySelectorAll('a[href]')].map(a => a.href).filter(a => /^https?:/.test(a)),
    images: [...document.images].map(i => ({
      alt: i.getAttribute('alt'), source: (i.currentSrc || i.src).slice(0, 120).split('/').pop(),
      loaded: i.complete && i.naturalWidth > 0,
      decorative: i.matches('.dropdown-menu img, .toggler, [alt=""][role=presentation]'),
    })),
    card: (document.querySelector('meta[property="og:image"]') || {}).content || null,
    undrawn: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container'))
      .map(e => e.textContent.slice(0, 80)),
    wrong: [...document.querySelectorAll('mjx-merror, [data-mml-node="merror"]')]
      .map(e => e.textContent.slice(0, 80)),
    bare,
  };
}"""

READY = """async () => {
  document.querySelectorAll('details').forEach(e => e.open = true);
  document.querySelectorAll('img[loading=lazy]').forEach(e => e.loading = 'eager');
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await Promise.all([...document.images].map(i => i.decode().catch(() => null)));
  await document.fonts.ready;
}"""

# Elements that reach over the right edge and do not stand in something that scrolls.
WIDE = """() => {
  const width = document.documentElement.clientWidth;
  const held = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true; return false; };
  const article = document.querySelector('article') || document.querySelector('main') || document.body;
  const over = [...article.querySelectorAll('*')].filter(e => e.checkVisibility() && !e.closest('svg')
    && e.getBoundingClientRect().right > width + 1 && e.getBoundingClientRect().width > 0 && !held(e));
  const name = e => e.tagName.toLowerCase() + (e.id && '#' + e.id) + (e.className && '.' + e.className);
  const text = over.length && over[0].textContent.trim().replace(/\\s+/g, ' ').slice(0, 60);
  if (over.length) return `${name(over[0])} reaches over the edge: ${text}`;
  const scroll = document.documentElement.scrollWidth;
  return scroll > width ? `the page is ${scroll} pixels wide, the window ${width}` : null;
}"""

AXE = """async options => (await axe.run(document, {resultTypes: ['violations'], preload: false, ...options}))
  .violations"""
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
AXE_RULES = {"light": {}, "dark": {"runOnly": COLOURS}}  # only its colours are different in the dark
SHOWN_IN_PRINT = """() => ['.bd-sidebar-primary', '.bd-sidebar-secondary', '.bd-header-article', '.bd-header',
  '.prev-next-footer', '.copybtn', '#pst-back-to-top', 'button'].filter(s =>
  [...document.querySelectorAll(s)].some(e => { const r = e.getBoundingClientRect();
    return e.checkVisibility({visibilityProperty: true}) && r.width * r.height > 0; }))"""


def axe_faults(page: str, violations: list[dict[str, Any]], theme: str) -> list[Fault]:
    """axe-core's serious and critical findings, one fault a rule, without those that ALLOWED explains."""
    faults = []
    for found in violations:
        nodes = [
            node
            for node in found["nodes"]
            if not any(rule == found["id"] and part in node["html"] for rule, part in ALLOWED)
        ]
        if found["impact"] in ("serious", "critical") and nodes:
            text = f"{found['id']} ({found['impact']}, {theme}), {len(nodes)} times: {nodes[0]['html'][:140]}"
            faults.append(Fault(page, "axe", " ".join(text.split())))
    return faults


def slider_faults(tab: Any, page: str) -> list[Fault]:
    """Moves each slider by keyboard, a step and then to its ends, and looks at the picture as it goes."""
    faults = []
    for widget in tab.locator(".dnabook-frames").all():
        picture = widget.locator("img, svg, canvas").first
        sliders = widget.locator("input[type=range]").all()
        if not sliders or not picture.count():
            faults.append(Fault(page, "slider", "a .dnabook-frames without a slider or a picture"))
            continue
        for number, slider in enumerate(sliders):
            slider.scroll_into_view_if_needed()
            slider.focus()
            start, before, changed, moved = slider.input_value(), picture.screenshot(), False, False
            for key in ("ArrowRight", "ArrowLeft", "End", "Home"):
                tab.keyboard.press(key)
                moved = moved or slider.input_value() != start
                changed = changed or picture.screenshot() != before
                if moved and changed:
                    break
            label = slider.evaluate("e => e.getAttribute('aria-label') || (e.labels[0] || e).innerText || ''")
            name = " ".join(label.split()) or f"slider {number + 1}"
            if not moved:
                faults.append(Fault(page, "slider", f"{name} does not move by keyboard"))
            elif not changed:
                faults.append(Fault(page, "slider", f"{name} moves, and its picture does not change"))
    return faults


class Reader:
    """One browser window that opens pages and keeps what goes wrong in them."""

    def __init__(self, browser: Any, site: Site, base: str, shots: Path | None) -> None:
        self.site, self.base, self.shots = site, base, shots
        self.axe = axe_source()
        self.context = browser.new_context(viewport=DESK, color_scheme="light", reduced_motion="reduce")
        self.scriptless = browser.new_context(viewport=DESK, java_script_enabled=False)
        self.faults: list[Fault] = []
        self.facts: dict[str, Facts] = {}

    def listen(self, tab: Any, page: str) -> None:
        def add(kind: str, text: str) -> None:
            fault = Fault(page, kind, " ".join(text.split())[:200])
            if fault not in self.faults:
                self.faults.append(fault)

        def request(sent: Any) -> None:
            if sent.url.startswith(("http:", "https:", "ws:", "wss:")) and not sent.url.startswith(self.base):
                add("another host", sent.url)

        tab.on("console", lambda message: message.type == "error" and add("console", message.text))
        tab.on("pageerror", lambda error: add("console", str(error)))
        tab.on("request", request)
        tab.on("requestfailed", lambda failed: add("request", f"{failed.url} {failed.failure}"))
        tab.on("response", lambda got: got.status >= 400 and add("request", f"{got.status} for {got.url}"))

    def shoot(self, tab: Any, page: str, name: str) -> None:
        if self.shots and not page.startswith("_modules/"):  # of source code no picture is needed
            file = self.shots / f"{page.removesuffix('.html').replace('/', '-')}-{name}.png"
            tab.screenshot(path=file, full_page=True)

    def read(self, page: str, *, axe: bool = True) -> None:
        """Opens one page in every guise, and keeps its faults and facts; axe: whether axe-core looks, too."""
        target = redirect(self.site.folder / page)
        if target:  # it sends the reader on, so only where to is looked at
            self.facts[page] = Facts(links=[urljoin(self.base + page, target)])
            return
        tab = self.context.new_page()
        self.listen(tab, page)
        tab.goto(self.base + page, wait_until="load")
        tab.add_style_tag(
            content="*, ::before, ::after { transition: none !important; animation: none !important; }"
        )
        tab.evaluate(READY)
        self.look(tab, page)
        self.faults += slider_faults(tab, page)
        if tab.locator(".dnabook-frames").count():
            self.without_script(page)
        if axe:
            tab.evaluate(self.axe)
        for theme in LOOKS[: 2 * axe]:
            tab.emulate_media(color_scheme=theme)
            tab.evaluate(
                "theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme
            )
            self.faults += axe_faults(page, tab.evaluate(AXE, AXE_RULES[theme]), theme)
            self.shoot(tab, page, theme)
        tab.evaluate("Object.assign(document.documentElement.dataset, {theme: 'light', mode: 'light'})")
        for name, size in (("desk", DESK), ("tablet", TABLET)):
            tab.set_viewport_size(size)
            wide = tab.evaluate(WIDE)
            self.faults += [Fault(page, name, wide)] if wide else []
        for name, size in zip(LOOKS[2:], (PHONE, SHEET), strict=True):
            tab.set_viewport_size(size)
            if name == "print":
                tab.emulate_media(media="print", color_scheme="light")
                for shown in tab.evaluate(SHOWN_IN_PRINT):
                    self.faults.append(Fault(page, "print", f"{shown} is printed"))
            wide = tab.evaluate(WIDE)
            self.faults += [Fault(page, name, wide)] if wide else []
            self.shoot(tab, page, name)
        tab.close()

    def look(self, tab: Any, page: str) -> None:
        seen = tab.evaluate(LOOK)
        self.facts[page] = Facts(set(seen["ids"]), seen["links"])
        wrong = [("head", f"no {name}") for name in ("language", "title") if not seen[name]]
        for image in seen["images"]:
            if not image["loaded"]:
                wrong.append(("image", f"{image['source']} is not drawn"))
            if not image["decorative"] and (fault := alt_fault(image["alt"])):
                wrong.append(("alt", f"{image['source']}: {fault}"))
        wrong += [("equation", f"not drawn: {text}") for text in seen["undrawn"]]
        wrong += [("equation", f"drawn as an error: {text}") for text in seen["wrong"]]
        wrong += [("equation", f"raw in the text: {text}") for text in seen["bare"]]
        card = seen["card"]
        if card and not (self.site.folder / card.removeprefix(self.site.baseurl)).is_file():
            wrong.append(("head", f"the social card {card} does not exist"))
        self.faults += [Fault(page, kind, text) for kind, text in wrong]

    def without_script(self, page: str) -> None:
        """Opens a page with interactive pieces where no script runs: each shows a still picture."""
        tab = self.scriptless.new_page()
        tab.goto(self.base + page, wait_until="load")
        for widget in tab.locator(".dnabook-frames").all():
            if not any(picture.is_visible() for picture in widget.locator("img, svg").all()):
                self.faults.append(Fault(page, "still", "a .dnabook-frames shows nothing without a script"))
        tab.close()

    def search(self, word: str) -> None:
        """Searches the book for a word that it surely holds."""
        tab = self.context.new_page()
        self.listen(tab, "search.html")
        tab.goto(f"{self.base}search.html?q={word}", wait_until="load")
        try:
            tab.wait_for_selector("#search-results li a", timeout=10_000)
        except Exception:  # Playwright's TimeoutError, whose module is imported only where there is a browser
            self.faults.append(Fault("search.html", "search", f"finds no page with {word!r}"))
        tab.close()


def same_template(site: Site) -> set[str]:
    """Pages of source code but the longest: one template and one highlighter make them all."""
    code = [page for page in site.pages() if page.startswith("_modules/") and page != "_modules/index.html"]
    return set(sorted(code, key=lambda page: (site.folder / page).stat().st_size)[:-1])


def check(site: Site, shots: Path | None = None, word: str = "transfer") -> list[Fault]:
    """Every fault of a built site, in the order of its pages.

    shots: a folder for screenshots in light, dark, phone and print, or None.
    word: what the search must find.
    Raises FileNotFoundError without a browser, and for a folder without pages.
    """
    program, pages = chromium(), site.pages()
    if program is None:
        raise FileNotFoundError(
            "Chromium is missing: apt-get install chromium, or name one in DNABOOK_CHROMIUM"
        )
    if not pages:
        raise FileNotFoundError(f"no pages in {site.folder}: build the book first, with make book")
    from playwright.sync_api import sync_playwright

    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        for old in (file for look in LOOKS for file in shots.glob(f"*-{look}.png")):
            old.unlink()  # perhaps of a page that is no more; whatever else is there stays
    arguments = [
        "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]  # fmt: skip

    alike = same_template(site)
    waiting = queue.SimpleQueue()
    for page in sorted(pages, key=lambda page: -(site.folder / page).stat().st_size):
        waiting.put(page)  # the longest first, so that no browser is left with one at the end

    def read(_: int) -> Reader:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=arguments)
            reader = Reader(browser, site, base, shots)
            with contextlib.suppress(queue.Empty):
                while page := waiting.get_nowait():
                    reader.read(page, axe=page not in alike)
                    if page == "search.html":
                        reader.search(word)
            browser.close()
        return reader

    with served(site) as base, ThreadPoolExecutor(BROWSERS) as pool:
        readers = list(pool.map(read, range(BROWSERS)))
        facts = {page: fact for reader in readers for page, fact in reader.facts.items()}
        faults = [fault for reader in readers for fault in reader.faults]
        faults += link_faults(site, base, facts) + sitemap_faults(site)
    order = {page: number for number, page in enumerate(pages)}
    return sorted(faults, key=lambda fault: (order.get(fault.page, len(order)), fault.kind))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Reads the built book in Chromium and lists what is wrong.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--shots", type=Path, default=ROOT / "_build" / "screenshots")
    given = parser.parse_args(arguments)
    start = time.monotonic()
    site = configured(given.folder.resolve())
    try:
        faults = check(site, given.shots)
    except FileNotFoundError as error:
        print(f"site-check: {error}", file=sys.stderr)
        return 2
    for fault in faults:
        print(fault)
    count = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "no fault"
    print(
        f"site-check: {len(site.pages())} pages, {count}, {time.monotonic() - start:.0f} s; see {given.shots}"
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

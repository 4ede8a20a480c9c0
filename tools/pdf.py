"""Prints the built book to one PDF: each page as the browser prints it, in the order of the contents.

    python tools/pdf.py [_build/html] [--out _build/dnabook.pdf]

Links between pages lead to their places on the published site. Nothing is run again: what is printed is what
was built. Needs Chromium, as the check in a browser does; status 2 without it, or without a book.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import yaml
from site_check import READY, ROOT, Site, chromium, configured, served

TO_THE_SITE = """([base, site]) => document.querySelectorAll('a[href]').forEach(a => {
  if (a.href.startsWith(base)) a.href = site + a.href.slice(base.length); })"""


def ordered(root: Path = ROOT) -> list[str]:
    """The pages of _toc.yml in order, as paths in the built book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]
    return [
        str(Path(file).with_suffix(".html")) if file.endswith(".md") else f"{file}.html" for file in files
    ]


def printed(site: Site, pages: list[str]) -> bytes:
    """One PDF of the pages, with a bookmark for each."""
    from playwright.sync_api import sync_playwright
    from pypdf import PdfReader, PdfWriter

    book = PdfWriter()
    with served(site) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        for page in pages:
            tab = browser.new_page(color_scheme="light")
            tab.goto(base + page, wait_until="load")
            tab.evaluate(READY.replace("e.open = true", "e.open = e.open"))  # solutions stay folded
            tab.evaluate(TO_THE_SITE, [base, site.baseurl])
            margin = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
            sheets = PdfReader(io.BytesIO(tab.pdf(format="A4", margin=margin, print_background=True)))
            book.append(sheets, outline_item=tab.title().split(" — ")[0], import_outline=False)
            tab.close()
        browser.close()
    out = io.BytesIO()
    book.write(out)
    return out.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prints the built book to one PDF.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "dnabook.pdf")
    given = parser.parse_args(arguments)
    site, pages = configured(given.folder.resolve()), ordered()
    missing = [page for page in pages if not (site.folder / page).is_file()]
    if chromium() is None or missing:
        reason = f"{missing[0]} is not built; try: make book" if missing else "Chromium is missing"
        print(f"pdf: {reason}", file=sys.stderr)
        return 2
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(printed(site, pages))
    print(f"pdf: {len(pages)} pages of the book in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

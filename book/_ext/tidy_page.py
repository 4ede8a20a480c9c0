"""A Sphinx extension of one hook, which tidies each page before it is written.

Scripts: sphinx-thebe adds its own to every page, wanted or not, and Sphinx repeats inline scripts that an
extension adds after the start. Together they declare `THEBE_JS_URL` twice, an error in the console of each
page. The book does not use Thebe, so its files go, and no script stands twice.

Links: a cell that displays Markdown links to another chapter by its file, `02_parametric_distance.md`, which
is right in a notebook server. Sphinx resolves such links in the text alone; here those in outputs follow.

Lists: docutils calls the citations a list, and its entries something else than list items; the role goes. The
index of source pages becomes one list.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container
from typing import Any


def is_thebe(asset: Any) -> bool:
    """Whether a script or style sheet, or its inline body, belongs to Thebe."""
    attributes = getattr(asset, "attributes", {})
    return "thebe" in f"{getattr(asset, 'filename', asset) or ''} {attributes.get('body', '')}".lower()


def tidied(assets: list[Any]) -> list[Any]:
    """The assets without Thebe's, each once: the same file, or the same inline body, is not repeated."""
    kept: dict[tuple[str, str], Any] = {}
    for asset in assets:
        if not is_thebe(asset):
            body = getattr(asset, "attributes", {}).get("body", "")
            kept.setdefault((str(getattr(asset, "filename", asset) or ""), body), asset)
    return list(kept.values())


def linked(body: str, pagename: str, pages: Container[str]) -> str:
    """The page's HTML with links to the texts of other pages turned into links to the pages."""

    def page(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(pagename), match[1]))
        return f'href="{match[1]}.html{match[2]}"' if target in pages else match[0]

    return re.sub(r'href="([\w./-]+)\.md((?:#[^"]*)?)"', page, body)


def one_list(body: str) -> str:
    """The modules in one list: Sphinx puts that of a package between items of another, no HTML."""
    before, *rest = re.split(r"</?ul>", body)
    return f"{before}<ul>{''.join(rest)}</ul>" if rest else body


def tidy(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    for kind in ("script_files", "css_files"):
        if kind in context:
            context[kind] = tidied(context[kind])
    if "body" in context:
        body = linked(context["body"], pagename, app.env.found_docs)
        body = one_list(body) if pagename == "_modules/index" else body
        context["body"] = body.replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", tidy, priority=900)  # after every extension has added its own
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The API page's reader of docstrings: plain text in, reStructuredText out; and links to glossary terms.

The docstrings of `dnabook` are written to be read in a terminal: sentences, and columns of names beside what
they mean. Sphinx expects markup. `rest` keeps the sentences as paragraphs and turns a column, or a line such
as "x: (N, C, H, W);  y: (N,)", into a list of names, so nothing has to be marked up in the code.
"""

from __future__ import annotations

import re
from typing import Any

COLUMN = re.compile(r"([\w-]+(?:, \w+)*):? {2,}(\S.*)")  # "step_size     length of a step"
NAMED = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*): (\S.*)")  # "x: the images"
NEXT = re.compile(r"(?<=[;.,\])}])\s{2,}(?=Returns|[a-z]\w*(?:, \w+)*: )")  # two on one line
CHOICE = re.compile(r'"\w+"[,:]')  # a line of a column that begins with one of the values it may take
SENTENCE = re.compile(r"(?:Returns|Raises|Paper:)\b")  # begins a paragraph of its own


def rest(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText lines."""
    out: list[str] = []
    for paragraph in _paragraphs(lines):
        previous = None
        for name, texts in _parts(paragraph):
            if name is None or previous is None:  # a list and a paragraph stand apart
                out.append("")
            previous = name
            first, *others = map(markup, texts)
            out.append(f"- **{_escaped(name)}**: {first}" if name else first)
            for text in others:
                out += ["", f"  {text}"]
            if others:
                out.append("")
    return [*out, ""]


def markup(text: str) -> str:
    """Inline text: `code` as code, everything else as it stands, whatever it means to reStructuredText."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"``{part}``" if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _escaped(text: str) -> str:
    parts = re.split(r"(?<!\w)\*(\w[^*]*\w)\*(?!\w)", text)  # *emphasis* is the one mark that docstrings use
    plain = [re.sub(r"([\\*`|_])", r"\\\1", part) for part in parts]
    return "".join(f"*{part}*" if i % 2 else part for i, part in enumerate(plain))


def _paragraphs(lines: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def _parts(paragraph: list[str]) -> list[tuple[str | None, list[str]]]:
    """(name or None, its texts) in order: a named thing with its lines joined, or a run of sentences."""
    parts: list[tuple[str | None, list[str]]] = []
    for line in paragraph:
        indented, text = line.startswith(" "), line.strip()
        if parts and indented:
            texts = parts[-1][1]
            if CHOICE.match(text):
                texts.append(text)
            else:
                texts[-1] += f" {text}"
            continue
        column, named = COLUMN.fullmatch(text), NAMED.fullmatch(text)
        if column:
            parts.append((column[1], [column[2]]))
        elif named:
            pieces = NEXT.split(text)
            for piece in pieces:
                name, _, meaning = piece.partition(": ")
                if not meaning:
                    parts.append((None, [piece]))  # "Returns …" on the line of a name
                else:
                    parts.append((name, [meaning.rstrip(";") if piece != pieces[-1] else meaning]))
        elif parts and not SENTENCE.match(text) and (parts[-1][0] is None or text[0].islower()):
            parts[-1][1][-1] += f" {text}"
        else:
            parts.append((None, [text]))
    return parts


# --- Sphinx --------------------------------------------------------------------------------------


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = rest(lines)


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple say only that they are fields; their class describes them."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def _terms(app: Any, document: Any) -> None:
    """Lets a page link to a term as a Markdown link, `[text](glossary.md#term-epsilon)`, as to a heading."""
    from sphinx import addnodes

    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for glossary in document.findall(addnodes.glossary):
        for node in glossary.findall():
            for name in getattr(node, "attributes", {}).get("ids", ()):
                slugs[name] = (node.line or 0, name, node.astext())


def setup(app: Any) -> dict[str, bool]:
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.viewcode"):
        app.setup_extension(extension)
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

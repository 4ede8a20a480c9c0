"""The repository's address, kept in pyproject.toml and copied to every file that needs it.

    python tools/address.py              prints the address and the files that carry it
    python tools/address.py OWNER/NAME   sets it everywhere, chapters and their notebooks alike

It stands in one line of pyproject.toml, `Repository = "https://github.com/OWNER/NAME"`. From it come the
links to GitHub and to Colab, what pip installs in Colab, and the site, https://OWNER.github.io/NAME/.
Workflows need no address: GitHub tells them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "pyproject.toml", "_config.yml", "CITATION.cff", "*.md", "book/*.md", "book/*.ipynb", "book/extra/*.html",
)  # fmt: skip
ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]+")


def current(root: Path = ROOT) -> str:
    """The address "OWNER/NAME" in pyproject.toml. Raises ValueError where there is none."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "https://github\.com/([^"]+)"$', text, re.MULTILINE)
    if not found:
        raise ValueError(
            f'{root / "pyproject.toml"} has no line Repository = "https://github.com/OWNER/NAME"'
        )
    return found[1]


def site(address: str) -> str:
    """Where GitHub Pages serves the book of "OWNER/NAME"; the repository OWNER.github.io has the root."""
    owner, name = address.split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def prefix(address: str) -> str:
    """The path of the site, "/" or "/NAME/"."""
    return "/" + site(address).split("/", 3)[3]


def forms(address: str) -> tuple[str, ...]:
    """Every form in which an address stands in a file, the same order for each address."""
    return (
        f"https://github.com/{address}",
        f"https://colab.research.google.com/github/{address}/",
        site(address),
        f"notfound_urls_prefix: {prefix(address)}",
    )


def moved(text: str, old: str, new: str) -> str:
    """The text with each form of the old address in the new one's; names that only begin alike stay."""
    for before, after in zip(forms(old), forms(new), strict=True):
        end = r"(?![\w-])(?!\.(?!git\b)\w)" if not before.endswith("/") else ""
        line = r"$" if before.startswith("notfound") else ""
        text = re.sub(re.escape(before) + end + line, lambda _, a=after: a, text, flags=re.MULTILINE)
    return text


def carriers(root: Path = ROOT) -> list[Path]:
    """The files that carry the current address."""
    address = current(root)
    files = sorted({file for pattern in FILES for file in root.glob(pattern)})
    return [file for file in files if any(f in file.read_text(encoding="utf-8") for f in forms(address))]


def move(new: str, root: Path = ROOT) -> list[Path]:
    """Sets the address "OWNER/NAME" in every file that carries the current one; returns the changed files.

    Raises ValueError for a name that GitHub does not allow.
    """
    if not ADDRESS.fullmatch(new):
        raise ValueError(f"an address is OWNER/NAME, got {new!r}")
    old, changed = current(root), []
    for file in carriers(root):
        text = file.read_text(encoding="utf-8")
        if (after := moved(text, old, new)) != text:
            file.write_text(after, encoding="utf-8")
            changed.append(file)
    return changed


def main(arguments: list[str]) -> int:
    try:
        if arguments:
            print(f"set {arguments[0]} in {len(move(arguments[0]))} files")
        print(current(), *(f"  {file.relative_to(ROOT)}" for file in carriers()), sep="\n")
    except ValueError as error:
        print(f"address: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

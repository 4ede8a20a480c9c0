"""What the tests of tables share: how a Markdown table is read back, and the origin of hand-made trials."""

from __future__ import annotations

PROVENANCE = {"seconds": 1.0, "device": "CPU", "date": "2026-01-02T03:04:05+00:00"}


def cells(text: str) -> list[list[str]]:
    """The table of a text as lists of cells, the header first."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and ":--" not in line]
    return [[cell.strip().replace("\u00a0", " ") for cell in line.strip("|").split("|")] for line in lines]


def rows(text: str, left: int = 1) -> dict:
    """The table of a text: {first cell, or first cells: the other cells}, the header among them."""
    return {line[0] if left == 1 else tuple(line[:left]): line[left:] for line in cells(text)}


def body(text: str) -> list[list[str]]:
    """The table of a text as lists of cells, without its header."""
    return cells(text)[1:]

"""README's figure and the lines that say what was found, written anew from the records: `make finding`."""

from __future__ import annotations

from pathlib import Path

from dnabook import figures, findings, records

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FIGURE = ROOT / "book" / "static" / "finding.png"
BEGIN, END = "<!-- written by `make finding` -->", "<!-- end -->"


def with_finding(text: str) -> str:
    """The README's text with the lines between its two marks as the records have them now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{findings.lines()}\n\n{END}{rest.split(END, 1)[1]}"


def origin() -> str:
    """Of which records the figure is drawn."""
    return "; ".join(record.caption() for record in records.together("transfer", "variants"))


def main() -> None:
    README.write_text(with_finding(README.read_text(encoding="utf-8")), encoding="utf-8")
    record, variants = records.together("transfer", "variants")
    figures.transfer(record, variants=variants).savefig(FIGURE, metadata={"Description": origin()})


if __name__ == "__main__":
    main()

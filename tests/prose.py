"""What the tests of the prose share: a page's words without its code, numbers as its sentences write them.

A sentence that a reader meets in Colab as well as in the built book has its numbers typed. The tests
`test_prose_*` write every such sentence anew from the records and look for it on its page, so that a record
that changes fails them, with the sentence that it now asks for.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest

from dnabook import records, summaries
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import BySeed

BOOK = Path(__file__).parents[1] / "book"
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip


@cache
def words(page: str) -> str:
    """The prose of book/PAGE.md on one line, without code, emphasis and the addresses of links."""
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"\*+", "", text))


def says(page: str, *sentences: str) -> None:
    """Each of these, numbers and all, stands in the page's prose."""
    for sentence in sentences:
        assert sentence in words(page), f"by the records {page} should say: {sentence!r}"


def paper(name: str, *, collapsed: bool = False) -> Record:
    """The paper-scale record of an experiment; without pairs of which a model collapsed, unless asked for."""
    record = committed(name, "paper")
    return record if collapsed else summaries.healthy(record)


@cache
def committed(name: str, scale: str) -> Record:
    """A record of the repository, whatever folder the tests write to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNABOOK_RESULTS", str(BOOK / "results"))
        record = records.load(name, scale)
    assert record is not None, f"{name} is not recorded at {scale} scale"
    return record


# --- Numbers in words ----------------------------------------------------------------------------


def number(n: int) -> str:
    """Small counts as words, as the pages have them: 4 is "four"."""
    return NUMBERS[n]


def hundredths(value: float) -> str:
    """0.04 is "four hundredths", without its sign."""
    n = round(100 * abs(value))
    return f"{number(n)} hundredth{'s' * (n != 1)}"


def whole(value: MeanInterval | float) -> str:
    """A share or a change of it in whole hundredths, without sign and interval: −0.274 is "27"."""
    return str(round(100 * abs(value.mean if isinstance(value, MeanInterval) else value)))


def lower(change: MeanInterval) -> str:
    """A fall in points with its interval, "27 ± 16". Fails unless the mean is below zero."""
    assert change.mean < 0, f"this rises: {summaries.points(change)}"
    return summaries.points(change).lstrip("−+")


def higher(change: MeanInterval) -> str:
    """A rise in points with its interval. Fails unless the mean is above zero."""
    assert change.mean > 0, f"this falls: {summaries.points(change)}"
    return summaries.points(change).lstrip("−+")


# --- What a sentence may claim of a change -------------------------------------------------------


def excludes_zero(change: MeanInterval) -> bool:
    """Whether the interval of a change lies on one side of zero."""
    return abs(change.mean) > change.half_width


def about(value: float, wanted: float, within: float = 0.2) -> bool:
    """Whether a value may be called about as large as another: off by at most that share of it."""
    return math.isclose(value, wanted, rel_tol=0, abs_tol=within * abs(wanted))


def differ(a: BySeed, b: BySeed) -> MeanInterval:
    """a − b, seed by seed."""
    return summaries.difference(a, b)

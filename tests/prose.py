"""What the tests of the prose share: a page's words without its code, numbers as its sentences write them.

A sentence that a reader meets in Colab as well as in the built book has its numbers typed. The tests
`test_prose_*` write every such sentence anew from the records and look for it on its page, so that a record
that changes fails them, with the sentence that it now asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dnabook import claims, records, summaries
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import BySeed

BOOK = Path(__file__).parents[1] / "book"
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


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


def describes(page: str, *sentences: str) -> None:
    """Each of these stands on the page, in the words for a figure or in a comment of its code."""
    text = re.sub(r"^ *# ?", "", (BOOK / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"\s+", " ", text)
    for sentence in sentences:
        assert sentence in text, f"by the records {page} should say: {sentence!r}"


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


def claim(id: str) -> claims.Claim:
    """One of the scoreboard's claims."""
    (found,) = (each for each in claims.CLAIMS if each.id == id)
    return found


def verdict(id: str, scale: str = "paper") -> str:
    """What the committed records of a scale say of a claim."""
    found = claim(id)
    return found.judge(*(committed(name, scale) for name in found.experiments)).verdict


# --- Numbers in words ----------------------------------------------------------------------------


def number(n: int) -> str:
    """A count in words, as the pages have them: 4 is "four", 32 "thirty-two". From 0 to 99."""
    if n < len(NUMBERS):
        return NUMBERS[n]
    tens, ones = divmod(n, 10)
    return TENS[tens - 2] + (f"-{NUMBERS[ones]}" if ones else "")


def hundredths(value: float) -> str:
    """0.04 is "four hundredths", without its sign."""
    return _of(value, 100, "hundredth")


def tenths(value: float) -> str:
    """0.69 is "seven tenths", without its sign."""
    return _of(value, 10, "tenth")


def _of(value: float, parts: int, name: str) -> str:
    n = round(parts * abs(value))
    return f"{number(n)} {name}{'s' * (n != 1)}"


def in_words(value: MeanInterval | float) -> str:
    """A share or a change of it in whole hundredths as words, without sign: −0.143 is "fourteen"."""
    return number(int(whole(value)))


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


def clearly_lower(change: MeanInterval) -> bool:
    """Whether something falls, by an interval that excludes zero."""
    return change.mean < 0 and excludes_zero(change)


def clearly_higher(change: MeanInterval) -> bool:
    """Whether something rises, by an interval that excludes zero."""
    return change.mean > 0 and excludes_zero(change)


def about(value: float, wanted: float, within: float = 0.2) -> bool:
    """Whether a value may be called about as large as another: off by at most that share of it."""
    return math.isclose(value, wanted, rel_tol=0, abs_tol=within * abs(wanted))


def change_by_seed(
    query: Callable[..., BySeed], record: Record, new: dict[str, Any], old: dict[str, Any], **where: Any
) -> BySeed:
    """What a query finds in one setting less what it finds in another, by seed."""
    a, b = (query(record, **setting, **where) for setting in (new, old))
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def differ(a: BySeed, b: BySeed) -> MeanInterval:
    """a − b, seed by seed."""
    return summaries.difference(a, b)

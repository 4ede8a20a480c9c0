"""The scoreboard: what the paper says, what we measured and the verdict, as tables and a chapter's list.

The claims and the rules that judge them are in `claims`; here their records are found and the text is set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from dnabook import records, summaries
from dnabook.claims import CLAIMS, OPEN, UNTESTABLE, UNTESTED, Claim, Judgement

CHAPTERS = {
    2: "02_parametric_distance.md", 3: "03_feature_correlation.md", 4: "04_decorrelation.md",
    5: "05_dverge.md", 6: "06_dual_neck_autoencoder.md", 7: "07_cifar10.md", 8: "08_shared_layers.md",
    9: "09_across_architectures.md",
}  # fmt: skip


def judge(claim: Claim, scale: str) -> Judgement | None:
    """The claim judged by its records of one scale, or None where a record is missing. One seed: *open*."""
    found = [records.current(name, scale) for name in claim.experiments]
    if not all(record and record.whole_seeds for record in found):
        return None
    judgement = claim.judge(*found)
    if judgement.n < 2 and judgement.verdict != UNTESTABLE:  # one seed tells nothing of the next
        return dataclasses.replace(judgement, verdict=OPEN)
    return judgement


def table(claims: Iterable[Claim] | None = None, scales: tuple[str, ...] = ("laptop", "paper")) -> str:
    """The scoreboard as Markdown: a row a claim, a column a scale, the verdict of the one that is shown.

    Which one that is, `records.evidence` says. The claim's id links to the chapter that tests it.
    """
    rows = []
    for claim in CLAIMS if claims is None else claims:
        judged = {scale: judge(claim, scale) for scale in scales}
        cells = [_cell(found) for found in judged.values()]
        last = judged.get(records.evidence(*claim.experiments, scales=scales))
        link = f"[{claim.id}]({CHAPTERS[claim.chapter]})"
        rows.append([link, claim.sentence, claim.paper, *cells, claim.told(last.verdict) if last else OPEN])
    header = ["id", "claim", "paper", *(f"ours, {scale}" for scale in scales), "verdict"]
    return summaries.table(header, rows, left=len(header))


HEAD = ("C1", "C3", "C5", "C6a", "C6c", "C6d", "C6b", "C9b", "C10a", "C10b", "C10c", "C10d", "C14a")


def brief() -> str:
    """The scoreboard's head, `HEAD`, as Markdown: each claim by the scale that `records.evidence` names."""
    rows = []
    for claim in CLAIMS:
        if claim.id not in HEAD:
            continue
        scale, found = _shown(claim)
        ours = f"{found.ours} (n = {found.n}, {scale})" if found else _cell(None)
        link = f"[{claim.chapter}]({CHAPTERS[claim.chapter]})"
        rows.append([claim.sentence, claim.paper, ours, claim.told(found.verdict) if found else OPEN, link])
    return summaries.table(["claim", "paper", "ours", "verdict", "chapter"], rows, left=5)


def answers(*ids: str) -> str:
    """A chapter's answer as Markdown: a verdict a claim, the numbers in small print below it.

    The scale is the one that `records.evidence` names. Where another scale's verdict differs, the small print
    ends with it.
    """
    lines, asked = [], [claim for claim in CLAIMS if claim.id in ids]
    for claim in asked:
        scale, found = _shown(claim)
        told = claim.told(found.verdict) if found else OPEN
        numbers = f"{_cell(found)}, {scale} scale" if found else _cell(None)
        small = f"<small>{claim.id}: {numbers}{''.join(_differing(claim, found))}.</small>"
        lines.append(f"- **{told}**: {claim.sentence}.<br>{small}")
    ours = any(claim.paper == UNTESTED or not claim.tested for claim in asked)
    whose = "The paper's claims in this chapter" + " and, beside them, what it does not test" * ours
    rules = "by the rules of the [scoreboard](scoreboard.md); *n* counts seeds"
    return f"{whose}, judged from the records {rules}:\n\n" + "\n".join(lines)


def _differing(claim: Claim, shown: Judgement | None) -> Iterator[str]:
    for scale in ("laptop", "paper"):
        other = judge(claim, scale) if shown else None
        if other and other.verdict not in (shown.verdict, OPEN):
            yield f"; at {scale} scale *{claim.told(other.verdict)}* (n = {other.n})"


def _shown(claim: Claim) -> tuple[str, Judgement | None]:
    """The scale that shows the claim best (`records.evidence`), and what it says."""
    scale = records.evidence(*claim.experiments)
    return (scale, judge(claim, scale)) if scale else ("", None)


def _cell(found: Judgement | None) -> str:
    return f"{found.ours} (n = {found.n})" if found else "still to be run"

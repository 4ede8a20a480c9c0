"""Chapter 5: what DVERGE does to each kind of pair, and whose transfer ends lower.

Pairs that had lost a model before DVERGE began are counted, and left out of the means.
"""

from __future__ import annotations

from dnabook import figures, summaries, tables
from dnabook.records import Record
from dnabook.summaries import BySeed, difference, order, over, percent, points

Start = tuple[str, str]  # arm and preset, a key of `figures.STARTS`
DVERGE: Start = ("regular", "paper")
COMPARED: dict[Start, str] = {  # with `DVERGE`
    ("decorrelated", "paper"): "A decorrelated start ends",
    ("decorrelated_late", "paper"): "A late decorrelated start ends",
    ("regular", "official"): "The official recipe ends",
    ("regular", "plain"): "Plain training of the same cost ends",
}


def before_and_after(record: Record, *, epsilon: float) -> str:
    """Transfer as printed, conditioned, and accuracy, each before DVERGE and after its last epoch.

    "The recorded result: Figure 4", a row for each start, with the pairs that had collapsed before.
    """
    kept, last = summaries.healthy(record), record.config["epochs"]
    rows = []
    for arm, preset in record.config["arms"]:
        start = (arm, preset)
        rates = [
            percent(over(_transfer(kept, start, epoch, epsilon, conditioned=conditioned)))
            for conditioned in (False, True)
            for epoch in (0, last)
        ]
        natural = (summaries.natural_by_seed(kept, epoch=epoch, **_where(start)) for epoch in (0, last))
        lost = tables.collapsed(record, **_where(start))
        rows.append([_label(start), lost, *rates, *(percent(over(by)) for by in natural)])
    transfer = ["transfer before", f"after {last} epochs", "conditioned, before", "after"]
    header = ["pair", "collapsed before", *transfer, "accuracy before", "after"]
    caption = f"PGD-ℓ∞ at ε = {epsilon:.2f}, both directions averaged. {record.caption()}."
    return f"{summaries.table(header, rows)}\n\n{caption}"


def ends(record: Record, *, epsilon: float) -> str:
    """A list: how many pairs were lost before, then who ends lower, as printed, than regular pairs.

    "The recorded result: Figure 4". A start is compared where two seeds have a pair of each kind left.
    """
    kept, last = summaries.healthy(record), record.config["epochs"]
    lost, of = summaries.collapsed(record, arm="decorrelated", preset="paper")
    lines = [f"{lost} of {of} pairs decorrelated from the first step had lost a model before DVERGE began."]
    final = {start: _transfer(kept, start, last, epsilon) for start in figures.STARTS}
    for start, name in COMPARED.items():
        gap = difference(final[start], final[DVERGE])
        if gap.n > 1:
            regular = f"the regular pair under DVERGE ({points(gap)} points, seed by seed)"
            lines.append(f"{name} **{order(gap)}** {regular}.")
    told = "as printed; the verdicts at the top of the page count the conditioned rate"
    return f"PGD-ℓ∞ at ε = {epsilon:.2f}, {told}.\n\n" + "\n".join(f"- {line}" for line in lines)


def sturdiness(record: Record) -> str:
    """What the rate divides by: how each network withstands attacks itself, and what both misread.

    "The recorded result: Figure 4", a row for each start; below it, where plain training and a late start end
    against the regular pair under DVERGE, counted over all images that both networks had read.
    """
    kept, last, epsilons = summaries.healthy(record), record.config["epochs"], record.config["epsilons"]

    def misread(start: Start, epsilon: float) -> BySeed:
        return summaries.both_misread_by_seed(kept, epoch=last, epsilon=epsilon, **_where(start))

    rows = []
    for arm, preset in record.config["arms"]:
        start, weakest = (arm, preset), epsilons[0]
        own = (
            summaries.robust_by_seed(kept, epoch=epoch, epsilon=weakest, **_where(start))
            for epoch in (0, last)
        )
        shares = (*own, *(misread(start, epsilon) for epsilon in epsilons))
        rows.append([_label(start), *(percent(over(share)) for share in shares)])
    header = [
        "pair", f"itself attacked, ε = {epsilons[0]:.2f}, reads before", f"after {last} epochs",
        *(f"both misread after, ε = {epsilon:.2f}" for epsilon in epsilons),
    ]  # fmt: skip
    told = []
    for start, name in COMPARED.items():
        gaps = [difference(misread(start, epsilon), misread(DVERGE, epsilon)) for epsilon in epsilons]
        if gaps[0].n > 1:
            told.append(f"{name.removesuffix(' ends')}: {', '.join(map(points, gaps))}")
    at = ", ".join(f"{epsilon:.2f}" for epsilon in epsilons)
    return (
        f"{summaries.table(header, rows)}\n\n*Both misread*, less that of regular pairs under DVERGE, in "
        f"points at ε = {at}. {'. '.join(told)}. {record.caption()}."
    )


def _where(start: Start) -> dict[str, str]:
    return dict(zip(("arm", "preset"), start, strict=True))


def _label(start: Start) -> str:
    return figures.STARTS[start].replace("\n", " ")


def _transfer(kept: Record, start: Start, epoch: int, epsilon: float, *, conditioned: bool = False) -> BySeed:
    where = {"epoch": epoch, "epsilon": epsilon, **_where(start)}
    return summaries.transfer_by_seed(kept, conditioned=conditioned, **where)

"""Tables of the conclusion: whether R² and transfer fall together, pair by pair and test by test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dnabook import summaries
from dnabook.experiments.between import NATURAL_MAP
from dnabook.figures import ARCHITECTURES, HELD, Related, related
from dnabook.measures import MeanInterval, mean_interval
from dnabook.records import Record
from dnabook.summaries import BySeed, percent, plain, points, table

Measured = tuple[BySeed, BySeed]  # held-out R² and transfer rate of an arm, by seed


# --- Every pair, side by side --------------------------------------------------------------------


def rank_correlations(features: Record, transfer: Record, distance: Record, *, epsilon: float) -> str:
    """Spearman's ρ of R² and transfer in "Every pair, side by side", pooled by architecture and within seeds.

    Below it, how many late CNN pairs and decorrelated fully connected ones lie below the regular pair of
    their seed. features, transfer: the pairs of chapter 4; distance: those of chapter 2, attacked by FGSM-ℓ∞.
    """
    fgsm = related(features, transfer, distance, attack="fgsm-linf", epsilon=epsilon)
    pgd = related(features, transfer, attack="pgd-linf", epsilon=epsilon)
    rows = []
    for architecture, name in ARCHITECTURES.items():
        one, other = (
            [p for p in pairs if p.architecture == architecture and p.arm != "distance"]
            for pairs in (fgsm, pgd)
        )
        seeds = len({p.seed for p in other})
        rows.append([f"{name}, chapter 4", len(other), seeds, *map(_two_digits, map(_rho, (one, other)))])
    apart = [p for p in fgsm if p.arm == "distance"]
    tie = _within_seeds(apart)
    rows.append(["CNN, chapter 2, within a seed", len(apart), tie.n, plain(tie), "–"])
    header = ["Spearman's ρ of R² and transfer", "pairs", "seeds", "FGSM-ℓ∞", "PGD-ℓ∞"]
    return (
        f"{table(header, rows)}\n\nRates at ε = {epsilon:.2f}. Pair by pair against the regular one of the "
        f"same seed: in *late* CNN pairs {_lower(pgd, 'cnn', 'decorrelated_late')}; in *decorrelated* fully "
        f"connected ones {_lower(pgd, 'fully_connected', 'decorrelated')}. {transfer.caption()}."
    )


def _rho(pairs: Sequence[Related]) -> float:
    """Spearman's ρ of R² and transfer over pairs; nan where there are fewer than three."""
    if len(pairs) < 3:
        return math.nan
    return summaries.spearman([p.r_squared for p in pairs], [p.rate for p in pairs])


def _within_seeds(pairs: Sequence[Related]) -> MeanInterval:
    """ρ within each seed, over seeds."""
    return mean_interval([_rho([p for p in pairs if p.seed == s]) for s in sorted({p.seed for p in pairs})])


def _two_digits(value: float) -> str:
    return "–" if math.isnan(value) else plain(MeanInterval(value, math.nan, 1))


def _lower(pairs: Sequence[Related], architecture: str, arm: str) -> str:
    """In how many pairs of an arm R² and PGD's rate lie below the regular pair of the seed, in words."""
    regular = {p.seed: p for p in pairs if p.architecture == architecture and p.arm == "regular"}
    both = [
        (p, regular[p.seed])
        for p in pairs
        if p.architecture == architecture and p.arm == arm and p.seed in regular
    ]
    if not both:
        return "no pair is left"
    r2, rate = (sum(getattr(p, key) < getattr(r, key) for p, r in both) for key in ("r_squared", "rate"))
    return f"R² is lower in {r2} of {len(both)} and PGD's rate in {rate}"


# --- Where the thesis holds, and where not -------------------------------------------------------


def changes_of_transfer(
    features: Record, transfer: Record, distance: Record, losses: Sequence[Record], *, epsilon: float
) -> str:
    """The six tests of pairs in "Where the thesis holds, and where not": R² and transfer, before → after.

    losses: the records `variants`, `feature_correlation` and `transfer` of one scale, for the corrected loss,
    which is compared with λ = 0 of its own record where that has it, else with the regular pairs.
    A test of which no seed has both arms is left out.
    """
    variants, *regular = losses
    ends = distance.config["target_distances"][0], distance.config["target_distances"][-1]

    def of(architecture: str, *arms: str, **where: Any) -> list[Measured]:
        where = {"architecture": architecture, "epsilon": epsilon, **where}
        return [_r2_and_rate(features, transfer, arm=arm, **where) for arm in arms]

    def corrected(name: str) -> list[Measured]:
        where = {"architecture": name, "epsilon": epsilon}
        after = _r2_and_rate(variants, variants, variant="corrected", **where)
        if "none" in variants.config["variants"]:  # as the scoreboard judges C6d and C6e
            return [_r2_and_rate(variants, variants, variant="none", **where), after]
        return [_r2_and_rate(*regular, arm="regular", **where), after]

    late, early = ("regular", "decorrelated_late"), ("regular", "decorrelated")
    tests = [
        ("2", f"CNN, free → pushed to D_t = {ends[1]}, FGSM, both directions", distance,
         [_far(distance, end, epsilon) for end in ends]),
        ("4", "CNN, regular → late, 1 → 2, where the loss looks", transfer, of("cnn", *late, source=1)),
        ("4", "CNN, regular → late, 2 → 1", transfer, of("cnn", *late, source=2)),
        ("4", "fully connected, regular → decorrelated, 1 → 2", transfer,
         of("fully_connected", *early, source=1)),
        *(("4", f"{label}, regular → corrected loss, both directions", variants, corrected(name))
          for name, label in ARCHITECTURES.items()),
    ]  # fmt: skip
    rows = [row for test in tests if (row := _test_of_pairs(*test))]
    header = ["chapter", "before → after", "scale", "reading", "R², held out", "transfer, %"]
    pairs = related(features, transfer, distance, attack="fgsm-linf", epsilon=epsilon)
    tie = _within_seeds([p for p in pairs if p.arm == "distance"])
    return (
        f"{table(header, rows, left=4)}\n\nPGD-ℓ∞ but for the first row, ε = {epsilon:.2f}. Over all "
        f"distances of chapter 2, not the two ends alone, ρ of R² and transfer is {plain(tie)} within a seed."
    )


def _test_of_pairs(
    chapter: str, label: str, record: Record, measured: Sequence[Measured]
) -> list[str] | None:
    """A row of the tests of pairs, or None where no seed has both arms."""
    r2, rates = zip(*measured, strict=True)
    (one, moved), (two, shifted) = _change(*r2), _change(*rates, percent)
    if not (moved.n and shifted.n):
        return None
    return [chapter, label, record.scale, _reading(moved, shifted, "transfer"), one, two]


def _r2_and_rate(features: Record, transfer: Record, *, epsilon: float, **where: Any) -> Measured:
    learned, attacked = map(summaries.healthy, (features, transfer))
    rates = summaries.transfer_by_seed(attacked, attack="pgd-linf", epsilon=epsilon, **where)
    return summaries.heldout_by_seed(learned, **where), rates


def _far(distance: Record, target: float | None, epsilon: float) -> Measured:
    """Of the pairs pushed to a distance, or of the free ones: both directions, FGSM-ℓ∞."""
    pairs = summaries.healthy(distance)
    natural = pairs.rows("features", target_distance=target, epsilon=0.0)
    r2 = {row["seed"]: (row["heldout_1_to_2"] + row["heldout_2_to_1"]) / 2 for row in natural}
    return r2, summaries.transfer_by_seed(pairs, target_distance=target, epsilon=epsilon)


def changes_of_digits_saved(mnist: Record, layers: Record) -> str:
    """The tests of codes in "Where the thesis holds, and where not": R² and digits saved, before → after.

    mnist: the autoencoders of chapter 6; layers: those of chapter 8. At the two smallest ε, by either path,
    under the strongest PGD. A test of an arm that is not recorded at this scale is left out.
    """
    tests = [
        ("6", "DNA, λ = 0 → with the released loss", mnist, "dna_regular", "dna"),
        ("6", "DNA, released loss → two autoencoders", mnist, "dna", "two_autoencoders"),
        ("6", "DNA, corrected loss → two autoencoders", mnist, "dna_corrected", "two_autoencoders"),
        ("8", "two autoencoders → joined by the loss", layers, "unshared_6_regular", "unshared_6"),
    ]
    rows = []
    for chapter, label, record, *arms in tests:
        if set(arms) <= set(record.config["arms"]):
            for epsilon in record.config["epsilons"][:2]:
                rows.append([chapter, label, f"{epsilon:.2f}", *_test_of_codes(record, arms, epsilon)])
    if not rows:
        return "These arms are not recorded at this scale."
    header = ["chapter", "before → after", "ε", "reading", "R² 1 → 2", "R² 2 → 1", "digits saved, %"]
    return (
        f"{table(header, rows, left=4)}\n\nPGD; the reading takes the mean of both directions of R². "
        f"Chapter 6: {mnist.caption()}. Chapter 8: {layers.caption()}."
    )


def _test_of_codes(record: Record, arms: Sequence[str], epsilon: float) -> list[str]:
    """The reading, the change of R² in each direction and that of the digits saved, from arm to arm."""
    where = {"attack": "pgd", "epsilon": epsilon, "objective": "strongest"}
    saved = [summaries.reconstruction_by_seed(record, arm=arm, **where) for arm in arms]
    r2 = [[summaries.quality_by_seed(record, "heldout", part, arm=arm) for arm in arms] for part in (0, 1)]
    mean = [summaries.by_seed((*one.items(), *other.items())) for one, other in zip(*r2, strict=True)]
    (_, moved), (text, more) = _change(*mean), _change(*saved, percent)
    reading = _reading(moved, more, "saved", sign=-1)
    if "two_autoencoders" in arms:
        reading = "no test, sharing and size differ"
    return [reading, *(_change(*ends)[0] for ends in r2), text]


# --- R² or the gradients? -----------------------------------------------------------------------


def features_or_gradients(record: Record) -> str:
    """Of `features_or_gradients`: R², movement, cosine and transfer within the pairs of each arm.

    "R² or the gradients?": its first table.
    """
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for arm in record.config["arms"]:
        relation, rates, beyond = _within(kept, arm)
        shown = *_readings(map(summaries.over, relation)), *map(percent, map(summaries.over, rates))
        rows.append([HELD[arm][0], *shown, points(summaries.over(beyond))])
    header = [
        "trained", "R², held out", f"movement explained, ε = {epsilons[-1]:.2f}", "by the natural map",
        "cosine of gradients", *(f"transfer, ε = {e:.2f}" for e in epsilons),
        f"points beyond signs, ε = {epsilons[-1]:.2f}",
    ]  # fmt: skip
    lost, of = summaries.collapsed(record)
    return (
        f"{table(header, rows)}\n\nWithin pairs, both directions averaged. In {lost} of {of} seeds a model "
        f"collapsed. {record.caption()}."
    )


CONTRASTS = (  # what is compared with what, seed by seed
    ("gradients", "regular"),
    ("gradients_held", "features"),
    ("features", "regular"),
    ("gradients_held", "regular"),
)


def features_or_gradients_compared(record: Record) -> str:
    """Of `features_or_gradients`: what changes with what, each arm against one that differs in one thing.

    "R² or the gradients?": its second table. A comparison of an arm that is not recorded is left out.
    """
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for new, old in CONTRASTS:
        if not {new, old} <= set(record.config["arms"]):
            continue
        (relation, rates, beyond), (before, usual, signs) = (_within(kept, arm) for arm in (new, old))
        moved = (summaries.difference(*both) for both in zip(relation, before, strict=True))
        shifted = map(summaries.difference, [*rates, beyond], [*usual, signs])
        rows.append([f"{HELD[new][0]}, against {HELD[old][0]}", *_readings(moved), *map(points, shifted)])
    header = [
        "change", "R²", "movement explained", "by the natural map", "cosine",
        *(f"transfer, ε = {e:.2f}" for e in epsilons), f"beyond signs, ε = {epsilons[-1]:.2f}",
    ]  # fmt: skip
    return f"{table(header, rows)}\n\nSeed by seed; transfer in points."


def _readings(means: Iterable[MeanInterval]) -> list[str]:
    """R² with three decimals, as a few thousandths are a good part of what is unexplained; then two."""
    r2, *others = means
    return [plain(r2, 3), *map(plain, others)]


def _within(record: Record, arm: str) -> tuple[list[BySeed], list[BySeed], BySeed]:
    """Of an arm's pairs: R², movement explained by two maps and cosine; rates at each ε; beyond signs."""
    where, epsilons = {"source_arm": arm, "target_arm": arm}, record.config["epsilons"]
    heldout, moved, cosine = summaries.relations_by_seed(record, epsilons[-1], **where)
    natural = summaries.relations_by_seed(record, epsilons[-1], map_of=NATURAL_MAP, **where).movement
    rates = [summaries.transfer_by_seed(record, epsilon=epsilon, **where) for epsilon in epsilons]
    beyond = summaries.beyond_signs_by_seed(record, epsilons[-1], **where)
    return [heldout, moved, natural, cosine], rates, beyond


def features_or_gradients_among_strangers(record: Record) -> str:
    """Of `features_or_gradients`: how much of the change is the pair's own, and what goes with transfer.

    "R² or the gradients?": its third table, as chapter 4 has it of other arms, and the sentence on ranks
    over all cells, within arms and with strangers on either side.
    """
    kept, arms, strong = summaries.healthy(record), list(record.config["arms"]), record.config["epsilons"][-1]
    rows = []
    for arm in (arm for arm in arms if arm != "regular"):
        shares = summaries.shares_of_the_change(kept, arm, strong)
        rows.append([HELD[arm][0], *(points(summaries.over(by)) for by in shares)])
    header = [
        "trained", "within the pair", "it is attacked, strangers read", "strangers are attacked, it reads",
        "what is left for the pair",
    ]  # fmt: skip
    cells = [(arm, arm) for arm in [*arms, "stranger"]]
    cells += [cell for arm in arms for cell in ((arm, "stranger"), ("stranger", arm))]
    ranked: dict[str, list[tuple[BySeed, BySeed]]] = {}
    for source, target in cells:
        where = {"source_arm": source, "target_arm": target}
        beyond = summaries.beyond_signs_by_seed(kept, strong, **where)
        for name, by in zip(
            ("R²", "the movement explained", "the cosine"),
            summaries.relations_by_seed(kept, strong, **where),
            strict=True,
        ):
            ranked.setdefault(name, []).append((by, beyond))
    rhos = [f"**{plain(summaries.rank_correlation_of(both))}** with {name}" for name, both in ranked.items()]
    return (
        f"{table(header, rows)}\n\nChange of transfer at ε = {strong:.2f}, in points, seed by seed, against "
        f"regular networks in the same places. Over all {len(cells)} cells, within a seed, the points beyond "
        f"signs have a rank correlation of {', of '.join(rhos)}."
    )


# --- A change and its reading --------------------------------------------------------------------


def _change(
    before: BySeed, after: BySeed, show: Callable[[MeanInterval], str] = plain
) -> tuple[str, MeanInterval]:
    """Both means and the mean change as a cell's text, "0.97 → 0.85 (−0.12 ± 0.01)", and the change itself.

    Over the seeds that have both.
    """
    common = before.keys() & after.keys()
    ends = (show(summaries.over({seed: by[seed] for seed in common})) for by in (before, after))
    moved = summaries.difference(after, before)
    text = " → ".join(end.split(" ±")[0].removesuffix(" %") for end in ends)
    return f"{text} ({show(moved).removesuffix(' %')})", moved


def _reading(r2: MeanInterval, other: MeanInterval, name: str, sign: int = 1) -> str:
    """What a test says of the thesis, by the signs of two changes whose intervals both exclude zero.

    sign: −1 where the thesis has the other number rise as R² falls.
    """
    if min(r2.n, other.n) < 2:
        return "one seed, no verdict"
    flat = [n for n, moved in (("R²", r2), (name, other)) if summaries.order(moved) == "level with"]
    if flat:
        return f"interval of {' and '.join(flat)} contains zero"
    return "**as the thesis has it**" if sign * r2.mean * other.mean > 0 else "**against the thesis**"

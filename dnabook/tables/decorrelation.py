"""Chapter 4: which pairs collapse, what is left of R² and of transfer, and whose change it is.

Means are over pairs in which both models learned; the collapsed ones are counted beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from dnabook import figures, summaries, tables
from dnabook.measures import MeanInterval
from dnabook.records import Record
from dnabook.summaries import BySeed, difference, over, percent, plain, points
from dnabook.tables import pair_name

LATE = "decorrelated_late"
READINGS = ("R² 1 → 2", "R² 2 → 1", "effective rank 1", "effective rank 2")  # columns: `_readings`
LABELS = {
    "regular": "regular",
    LATE: "late",
    "corrected": "corrected",
    "stranger": "stranger",
}  # of strangers


def features(record: Record) -> str:
    """Of `feature_correlation`: collapsed pairs, held-out R² and effective rank, a row for each kind of pair.

    "The recorded result: features". The caption is the record's own.
    """
    kept = summaries.healthy(record)
    rows = [[pair_name(s), tables.collapsed(record, **s), *_readings(kept, s)] for s in tables.pairs(record)]
    return summaries.table(["pair", "collapsed", *READINGS], rows) + f"\n\n{record.caption()}."


def first_components(record: Record) -> str:
    """Of `feature_correlation`: R² of the first components of every CNN pair that learned, in order of seeds.

    "The recorded result: features", below Figure 2.
    """
    kept, lines = summaries.healthy(record), []
    for setting in tables.pairs(record):
        if setting["architecture"] == "cnn":
            found = kept.values("first_component", "r_squared", **setting)
            each = ", ".join(f"{value:.2f}" for value in found) or "no pair is left"
            lines.append(f"{pair_name(setting)}: {each}")
    return f"R² of the first components, seed by seed, where both models learned. {'; '.join(lines)}."


def dial(record: Record) -> str:
    """Of `correlation_weights`: what changes from the least λ to the largest, pair by pair, in points.

    "λ as a dial", below the dial.
    """
    kept, ends = summaries.healthy(record), (record.config["weights"][0], record.config["weights"][-1])
    broken, tried = summaries.collapsed(record)

    def change(by_seed: Callable[..., BySeed], **where: Any) -> str:
        less, more = (by_seed(kept, correlation_weight=weight, **where) for weight in ends)
        return f"**{points(difference(more, less))}**"

    heldout, transferred = summaries.heldout_by_seed, summaries.transfer_by_seed
    return (
        f"From λ = {ends[0]:g} to λ = {ends[1]:g}, pair by pair, in points: held-out R² from "
        f"model 1 to 2 {change(heldout, source=1)} and back {change(heldout, source=2)}, PGD-ℓ∞ transfer at "
        f"ε = {record.config['epsilon']:.2f} {change(transferred)} (from 1 to 2 "
        f"{change(transferred, source=1)}, back {change(transferred, source=2)}), accuracy "
        f"{change(summaries.accuracy_by_seed)}. {broken} of {tried} pairs collapsed; a collapsed pair has "
        f"nothing to tell, and the dial says so where it meets one. {record.caption()}."
    )


def transfer(record: Record) -> str:
    """Of `transfer`: PGD-ℓ∞ at every ε, accuracy and how many pairs are left, a row for each kind of pair.

    "The recorded result: Figure 3", below the figure.
    """
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for setting in tables.pairs(record):
        accuracy = summaries.accuracy(kept, **setting)
        rates = (summaries.transfer(kept, attack="pgd-linf", epsilon=e, **setting) for e in epsilons)
        rows.append([pair_name(setting), accuracy.n, percent(accuracy), *map(percent, rates)])
    header = ["pair", "pairs left", "accuracy", *(f"ε = {epsilon:.2f}" for epsilon in epsilons)]
    return summaries.table(header, rows) + f"\n\nPGD-ℓ∞, conditioned rate. {record.caption()}."


def late_pairs(record: Record) -> str:
    """Of `transfer`: how late CNN pairs differ from the regular ones of their seeds, beside the paper's pair.

    "The recorded result: Figure 3", below its table.
    """
    kept, epsilons = summaries.healthy(record), record.config["epsilons"]
    lost, of = summaries.collapsed(record, architecture="cnn", arm="decorrelated")
    accuracy = difference(
        *(summaries.accuracy_by_seed(kept, architecture="cnn", arm=arm) for arm in (LATE, "regular"))
    )
    share = MeanInterval(100 * accuracy.mean, 100 * accuracy.half_width, accuracy.n)
    middle = summaries.middle_epsilon(record)
    each = ", ".join(f"**{late_change(record, e)}** points at ε = {e:.2f}" for e in epsilons)
    return (
        "The paper shows one pair for each curve, with accuracies of 94.5 % (regular CNNs) and 95.4 % "
        f"(decorrelated). In our record **{lost} of {of}** CNN pairs trained with λ from the first step "
        "collapse. The *late* CNN pairs, each against the regular pair of its seed, differ in transfer by "
        f"{each}; at ε = {middle:.2f} by {late_change(record, middle, source=1)} from model 1 to 2, where "
        f"the loss looks, and by {late_change(record, middle, source=2)} back. Their accuracy differs by "
        f"{plain(share, 1)} points."
    )


def late_change(record: Record, epsilon: float, **where: Any) -> str:
    """Of `transfer`: PGD-ℓ∞ between late CNN pairs less that between the regular ones of their seeds.

    In points, "−12 ± 4".  where: `source=1` for attacks on model 1 alone. For the sentence on Figure 3 and
    for exercise 4.
    """
    kept = summaries.healthy(record)
    where |= {"architecture": "cnn", "attack": "pgd-linf", "epsilon": epsilon}
    late, regular = (summaries.transfer_by_seed(kept, arm=arm, **where) for arm in (LATE, "regular"))
    return points(difference(late, regular))


def strangers(record: Record) -> str:
    """Of `strangers`: R², cosine of gradients and transfer from who is attacked to who reads.

    "The relation, or each model?", first table. Arms that are not recorded at a scale have no rows.
    """
    kept, epsilons, rows = summaries.healthy(record), record.config["epsilons"], []
    for arm in ("regular", *_treated(record)):
        for source, target in ((arm, arm), (arm, "stranger"), ("stranger", arm)):
            where = {"source_arm": source, "target_arm": target}
            related = (
                summaries.reading_by_seed(kept, "relation", reading, **where)
                for reading in ("heldout", "gradient_cosine")
            )
            rates = (summaries.transfer_by_seed(kept, epsilon=epsilon, **where) for epsilon in epsilons)
            cells = [*(plain(over(by)) for by in related), *(percent(over(by)) for by in rates)]
            rows.append([f"{LABELS[source]} → {LABELS[target]}", *cells])
    header = [
        "attacked → read by", "R², held out", "cosine of gradients",
        *(f"transfer, ε = {epsilon:.2f}" for epsilon in epsilons),
    ]  # fmt: skip
    broken, tried = summaries.collapsed(record)
    return (
        f"{summaries.table(header, rows)}\n\nPGD-ℓ∞, conditioned rate; each entry is the mean of 1 → 2 and "
        f"2 → 1. In {broken} of {tried} seeds a model collapsed. {record.caption()}."
    )


ATTACKERS = {  # of `surrogate`
    "surrogate": "the surrogate",
    "cnn": "unseen CNNs",
    "fully_connected": "unseen fully connected",
}


def surrogate(record: Record) -> str:
    """Of `surrogate`: R², cosine of gradients and transfer from each attacker to each reader, beside signs.

    "A fixed surrogate", its table. In brackets the change against the reader that met no loss, in points.
    """
    kept, config, rows = summaries.healthy(record), record.config, []
    for attacker, arm in itertools.product(("surrogate", *config["unseen"]), config["arms"]):
        where = {"source_arm": attacker, "target_arm": arm}
        related = (
            summaries.reading_by_seed(kept, "relation", reading, **where)
            for reading in ("heldout", "gradient_cosine")
        )
        cells = [plain(over(by)) for by in related]
        for epsilon in config["epsilons"]:
            rates, usual = (
                summaries.transfer_by_seed(kept, source_arm=attacker, target_arm=each, epsilon=epsilon)
                for each in (arm, "regular")
            )
            change = "" if arm == "regular" else f" ({points(difference(rates, usual))})"
            cells.append(f"{percent(over(rates))}{change}")
        strong = list(kept.rows("transfer", epsilon=config["epsilons"][-1], **where))
        signs = over(summaries.by_seed((row["seed"], summaries.signs_rate(row)) for row in strong))
        rows.append([ATTACKERS[attacker], LABELS[arm], *cells, percent(signs)])
    header = [
        "attacked", "read by", "R², held out", "cosine of gradients",
        *(f"transfer, ε = {epsilon:.2f}" for epsilon in config["epsilons"]),
        f"signs, ε = {config['epsilons'][-1]:.2f}",
    ]  # fmt: skip
    accuracy = (
        f"{LABELS[arm]} {percent(over(summaries.reading_by_seed(kept, 'readers', 'accuracy', arm=arm)))}"
        for arm in config["arms"]
    )
    return (
        f"{summaries.table(header, rows, left=2)}\n\nPGD-ℓ∞, conditioned rate. Digits read without an "
        f"attack: {', '.join(accuracy)}. {record.caption()}."
    )


def whose_change(record: Record) -> str:
    """Of `strangers`: how much of the change is the pair's own, and what goes with transfer.

    "The relation, or each model?": its second table and the sentence on rank correlations.
    """
    kept, strong, arms = summaries.healthy(record), record.config["epsilons"][-1], record.config["arms"]
    rows = []
    for arm in _treated(record):
        for others, name in (("stranger", "strangers"), ("regular", "regular networks of the seed")):
            shares = summaries.shares_of_the_change(kept, arm, strong, others=others)
            rows.append([LABELS[arm], name, *(points(over(by)) for by in shares)])
    header = [
        "pair", "others", "within the pair", "it is attacked, they read", "they are attacked, it reads",
        "what is left for the pair",
    ]  # fmt: skip
    ahead, back = (
        plain(summaries.relation_rank_correlation(kept, "heldout", strong, back=back))
        for back in (False, True)
    )
    cosine = plain(summaries.relation_rank_correlation(kept, "gradient_cosine", strong))
    return (
        f"{summaries.table(header, rows, left=2)}\n\nChange of transfer at ε = {strong:.2f}, in points, seed "
        "by seed, against regular networks in the same places. The last column is the first less the two "
        "between.\n\n"
        f"Over all {len(arms) ** 2} ordered pairs of arms, within a seed, transfer has a rank correlation of "
        f"**{ahead}** with R² from the attacked network to the one that reads, of **{back}** with R² the "
        f"other way round, and of **{cosine}** with the cosine of their gradients."
    )


def variants(record: Record) -> str:
    """Of `variants`: collapse, accuracy, R², effective rank and transfer of each variant of the loss.

    "The loss, corrected", the table at its end. A variant without trials has "no value".
    """
    kept, weakest = summaries.healthy(record), record.config["epsilons"][0]
    middle = summaries.middle_epsilon(record)
    rows = []
    for architecture, variant in itertools.product(record.config["architectures"], record.config["variants"]):
        setting = {"architecture": architecture, "variant": variant}
        attacked = {"attack": "pgd-linf", **setting}
        rates = (summaries.transfer(kept, epsilon=epsilon, **attacked) for epsilon in (middle, weakest))
        misread = over(summaries.both_misread_by_seed(kept, epsilon=weakest, **attacked))
        name = f"{figures.ARCHITECTURES[architecture]}, {variant}"
        shares = map(percent, (*rates, misread))
        accuracy = percent(summaries.accuracy(kept, **setting))
        rows.append([name, tables.collapsed(record, **setting), accuracy, *_readings(kept, setting), *shares])
    header = [
        "pairs", "collapsed", "accuracy", *READINGS, f"transfer, ε = {middle:.2f}",
        f"transfer, ε = {weakest:.2f}", f"both misread, ε = {weakest:.2f}",
    ]  # fmt: skip
    return (
        f"{summaries.table(header, rows)}\n\nPGD-ℓ∞, both directions averaged. *Transfer* is the conditioned "
        "rate; *both misread* is the share, of all images that both models read before, that both misread "
        f"after the attack. *None* is λ = 0. {record.caption()}."
    )


def _readings(kept: Record, setting: dict[str, str]) -> list[str]:
    """Held-out R² from 1 to 2 and back, then the effective rank of model 1 and of model 2."""
    return [
        plain(summaries.predictability(kept, reading, source=source, **setting), digits)
        for reading, digits in (("heldout", 2), ("effective_rank", 1))
        for source in (1, 2)
    ]


def _treated(record: Record) -> list[str]:
    """The arms of `strangers` that met a correlation loss and are recorded at this scale."""
    return [arm for arm in (LATE, "corrected") if arm in record.config["arms"]]

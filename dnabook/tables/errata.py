"""Tables and sentences of the errata: what a difference between text, released code and correction changes.

They stand in the page's order, and each names the differences, D1 to D34, that it belongs to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

from dnabook import summaries, tables
from dnabook.figures import ARCHITECTURES, ATTACKS
from dnabook.measures import MeanInterval, mean_interval
from dnabook.records import Record
from dnabook.summaries import by_seed, difference, over, percent, plain, points, table
from dnabook.tables import pair_name

RULES = {
    "mean_path": "mean of the paths (“avg”)",
    "either": "either",
    "both": "both",
    "mean_probability": "mean probability",
    "higher_confidence": "higher confidence",
}


# --- The correlation loss ------------------------------------------------------------------------


def loss_variants(variants: Record) -> str:
    """D2 to D5, D8 and D9 in "The correlation loss": pairs that differ in the variant of the loss alone.

    A row an architecture and variant. Pairs in which a model collapsed are counted and left out of the means;
    where only two are left, both values stand in place of a mean.
    """
    kept, epsilon = summaries.healthy(variants), summaries.middle_epsilon(variants)
    config, attack = variants.config, {"attack": "pgd-linf", "epsilon": epsilon}
    rows, r2 = [], "predictability"
    for a, variant in itertools.product(config["architectures"], config["variants"]):
        where = {"architecture": a, "variant": variant}
        rows.append([
            ARCHITECTURES[a], variant, tables.collapsed(variants, **where),
            _over_pairs(summaries.accuracy_by_seed(kept, **where), percent),
            *(
                _over_pairs(summaries.reading_by_seed(kept, r2, reading, source=s, **where), show)
                for reading, show in (("heldout", plain), ("live_units", partial(plain, digits=0)))
                for s in (1, 2)
            ),
            *(
                _over_pairs(summaries.transfer_by_seed(kept, source=s, **attack, **where), percent)
                for s in (1, 2)
            ),
        ])  # fmt: skip
    header = ["pair", "variant", "collapsed", "accuracy", "R² 1 → 2", "R² 2 → 1", "live units 1",
              "live units 2", "transfer 1 → 2", "transfer 2 → 1"]  # fmt: skip
    return (
        table(header, rows, left=2)
        + f"\n\nHeld-out R², conditioned transfer of PGD-ℓ∞ at ε = {epsilon:.2f}. Means are over pairs in "
        "which both models learned; *collapsed* counts the others. Where two such pairs are left, both "
        f"values stand, in the order of their seeds: an interval over two says little. {variants.caption()}."
    )


def both_directions(features: Record) -> str:
    """D4 in "The correlation loss": R² from model 1 to 2 and back, held out and in a training batch."""
    kept = summaries.healthy(features)
    rows = [
        [
            pair_name(pair),
            *(
                plain(summaries.predictability(kept, reading, source=s, **pair))
                for reading in ("heldout", "batch_in_sample")
                for s in (1, 2)
            ),
        ]
        for pair in tables.pairs(features)
    ]
    header = ["pair", "held out 1 → 2", "held out 2 → 1", "in one batch 1 → 2", "in one batch 2 → 1"]
    return table(header, rows) + f"\n\n{features.caption()}."


def chance_floor(features: Record) -> str:
    """D7 in "The correlation loss": how much in-sample R² a training batch of regular pairs has by chance.

    The floor is r/(N − 1), at most one, with the rank r of a pair's features and the batch size N.
    """
    kept, batch = summaries.healthy(features), features.config["training"]["batch_size"]
    parts = []
    for architecture in dict.fromkeys(pair["architecture"] for pair in tables.pairs(features)):
        where = {"architecture": architecture, "arm": "regular", "source": 1}
        rank = summaries.predictability(kept, "rank", **where)
        rows = kept.rows("predictability", **where)
        floor = mean_interval([tables.chance_floor(row, batch) for row in rows])
        parts.append(f"{ARCHITECTURES[architecture]}: rank {plain(rank, 0)}, floor **{plain(floor)}**")
    return f"Floor r/(N − 1) of a batch of N = {batch} images, regular pairs. {'; '.join(parts)}."


# --- Objectives ----------------------------------------------------------------------------------


def reconstructions(mnist: Record) -> str:
    """D10 and D24 in "Objectives": what each form of Eq. 4 leaves of error, codes and clean accuracy.

    An autoencoder of one path shows it twice.
    """
    rows = [
        [
            tables.AUTOENCODERS[arm],
            *(
                plain(_quality(mnist, arm, key, path), digits)
                for key, digits in (("mse", 4), ("heldout", 2), ("live_units", 0))
                for path in (0, 1)
            ),
            *(tables.right(mnist, arm, rule=rule) for rule in ("mean_path", "either")),
        ]
        for arm in mnist.config["arms"]
    ]
    header = ["arm", "MSE 1", "MSE 2", "R² 1 → 2", "R² 2 → 1", "live units 1", "live units 2", "mean path",
              "either path"]  # fmt: skip
    return (
        table(header, rows)
        + "\n\nSquared error for a pixel, held-out R² of the codes, live units of the codes, and clean "
        "images read correctly. A plain autoencoder has one path, shown twice. A neck without a live unit "
        f"has no R²: such a seed is left out of that mean. {mnist.caption()}."
    )


def squared_errors(mnist: Record) -> str:
    """D10 and D24 in "Objectives": by how much the DNAs' squared errors exceed their counterparts'."""
    arms = mnist.config["arms"]
    more = percent(summaries.larger_error(mnist, "dna", "autoencoder"))
    parts = [f"The DNA's squared error is **{more}** above the autoencoder's (D24)"]
    if "dna_printed" in arms:
        more = percent(summaries.larger_error(mnist, "dna_printed", "dna"))
        parts.append(f"with Eq. 4 as printed it is **{more}** above that of the released form (D10)")
    if "dna_regular" in arms:
        more = percent(summaries.larger_error(mnist, "dna_regular", "autoencoder"))
        parts.append(f"with λ = 0 it is **{more}** above the autoencoder's")
    return "; ".join(parts) + "."


# --- Attacks -------------------------------------------------------------------------------------


def l2_attacks(variants: Record) -> str:
    """D13 to D15 in "Attacks": length and success of the ℓ2 attacks, as released and as corrected.

    Of pairs with λ = 0 where the record has them, else of pairs trained with the corrected loss.
    """
    variant = "none" if "none" in variants.config["variants"] else "corrected"
    kept, architectures = summaries.healthy(variants), variants.config["architectures"]
    rows = []
    for a, attack, epsilon in itertools.product(architectures, ("fgsm", "pgd"), variants.config["epsilons"]):
        where = {"architecture": a, "variant": variant, "attack": attack, "epsilon": epsilon}
        found = list(kept.rows("l2", **where))
        lengths = [[row[key] for row in found] for key in ("radius", "released_length", "corrected_length")]
        fooled = [[row[f"{kind}_fooled"] / row["n"] for row in found] for kind in ("released", "corrected")]
        cells = *map(plain, map(mean_interval, lengths)), *map(percent, map(mean_interval, fooled))
        rows.append([ARCHITECTURES[a], attack.upper(), f"{epsilon:.2f}", *cells])
    header = ["pair", "attack", "ε", "radius", "length, released", "length, corrected", "fooled, released",
              "fooled, corrected"]  # fmt: skip
    before = "; ".join(f"{ARCHITECTURES[a]} {_wrong_before(kept, a, variant)}" for a in architectures)
    return (
        table(header, rows, left=3)
        + f"\n\nWrong without any attack: {before}. Variant `{variant}`, batches of "
        f"{next(variants.rows('l2'))['n']} images. {variants.caption()}."
    )


def objectives(mnist: Record) -> str:
    """D11 in "Attacks": the share read by either path, for each objective of Eq. 10 and the worst of all."""
    names = [*mnist.config["objectives"], "strongest"]
    arms = [arm for arm in mnist.config["arms"] if arm != "dna_printed"]
    rows = [
        [
            tables.AUTOENCODERS[arm],
            "PGD",
            f"{epsilon:.2f}",
            *(tables.right(mnist, arm, attack="pgd", epsilon=epsilon, objective=name) for name in names),
        ]
        for arm in arms
        for epsilon in (mnist.config["epsilons"] if "pgd" in mnist.config["attacks"] else ())
    ]
    return (
        table(["arm", "attack", "ε", *names], rows, left=3)
        + "\n\nImages of which at least one path is read correctly. One path alone is attacked by Eq. 11, "
        f"whatever the objective. FGSM is in chapter 6. {mnist.caption()}."
    )


def gains(mnist: Record) -> str:
    """D11 in "Attacks": what the strongest objective takes from the DNA, and its gain under either attack."""

    def right(arm: str, objective: str, epsilon: float) -> summaries.BySeed:
        where = {"attack": "pgd", "epsilon": epsilon, "objective": objective}
        return summaries.reconstruction_by_seed(mnist, arm=arm, **where)

    rows = []
    for epsilon in mnist.config["epsilons"]:
        before, after = (right("dna", objective, epsilon) for objective in ("printed", "strongest"))
        one_path = (right("autoencoder", objective, epsilon) for objective in ("printed", "strongest"))
        changes = difference(before, after), *map(difference, (before, after), one_path)
        rows.append([f"{epsilon:.2f}", *(f"**{points(change)}**" for change in changes)])
    header = ["ε", "DNA loses", "gain over the autoencoder, printed", "gain, strongest"]
    caption = "Percentage points, PGD. *DNA loses*: from Eq. 10 as printed to the strongest objective."
    return f"{table(header, rows)}\n\n{caption}"


# --- What is measured ----------------------------------------------------------------------------


def ways_of_counting(transfer: Record) -> str:
    """D17 in "What is measured": one set of attacked images, counted by three definitions of transfer.

    At the weakest ℓ∞ setting of the record and the strongest.
    """
    kept = summaries.healthy(transfer)
    names = [name for name in transfer.config["attacks"] if name.endswith("linf")]
    epsilons = transfer.config["epsilons"]
    rows = []
    for pair, end in itertools.product(tables.pairs(transfer), (0, -1)):
        where = {"attack": names[end], "epsilon": epsilons[end], **pair}
        wrong = ((row["seed"], summaries.misread(row)) for row in kept.rows("transfer", **where))
        rates = [summaries.transfer(kept, conditioned=conditioned, **where) for conditioned in (False, True)]
        attack = f"{ATTACKS[names[end]]}, ε = {epsilons[end]:.2f}"
        rows.append([pair_name(pair), attack, *map(percent, (*rates, over(summaries.by_seed(wrong))))])
    header = ["pair", "attack", "as printed", "conditioned", "Figure 1's legend"]
    return table(header, rows, left=2) + f"\n\nBoth directions averaged. {transfer.caption()}."


def correlations(features: Record) -> str:
    """D25 and D26 in "What is measured": five numbers that could be called the features' correlation."""
    kept = summaries.healthy(features)
    rows = []
    for pair in tables.pairs(features):
        natural = list(kept.rows("features", epsilon=0.0, **pair))
        r2 = [row["heldout_1_to_2"] for row in natural]
        first = kept.values("first_component", "r_squared", **pair)
        readings = (
            [row["pearson"] for row in natural],
            [max(value, 0) ** 0.5 for value in r2],
            r2,
            first,
            [value**0.5 for value in first],
        )
        rows.append([pair_name(pair), *(plain(mean_interval(values)) for values in readings)])
    header = ["pair", "Pearson, entry by entry", "√R², held out", "R², held out", "R², first components",
              "√R², first components"]  # fmt: skip
    return table(header, rows) + f"\n\nFrom model 1 to model 2, natural images. {features.caption()}."


def classifier_alone(mnist: Record) -> str:
    """D31 in "What is measured": how many clean images the classifier reads without an autoencoder."""
    seeds = {t["seed"]: t["values"]["classifier_alone"] for t in mnist.trials}
    return (
        f"Alone, after {mnist.config['training']['classifier_epochs']} epochs, it reads "
        f"**{100 * over(seeds).mean:.1f} %** of the test images (the paper: 96 %; {mnist.caption()})."
    )


def rules(mnist: Record) -> str:
    """D21 in "What is measured": the share read under PGD, a column a rule by which an image counts."""
    epsilon = summaries.middle_epsilon(mnist)
    rows = [
        [
            tables.AUTOENCODERS[arm],
            *(tables.right(mnist, arm, rule=rule, attack="pgd", epsilon=epsilon) for rule in RULES),
        ]
        for arm in mnist.config["arms"]
        if arm != "dna_printed"
    ]
    return f"{table(['arm', *RULES.values()], rows)}\n\nPGD at ε = {epsilon:.2f}. {mnist.caption()}."


# --- Experiments ---------------------------------------------------------------------------------


def classifiers(mnist: Record) -> str:
    """D23 in "Experiments": each arm read by its own classifier and by the one of clean images."""
    epsilons = mnist.config["epsilons"]
    rows = []
    for arm in mnist.config["arms"]:
        cells = [tables.right(mnist, arm), tables.right(mnist, arm, attack="none", table="fixed")]
        for epsilon in epsilons:
            where = {"attack": "pgd", "epsilon": epsilon}
            cells += [tables.right(mnist, arm, **where), tables.right(mnist, arm, **where, table="fixed")]
        rows.append([tables.AUTOENCODERS[arm], *cells])
    columns = ["clean", *(f"ε = {epsilon:.2f}" for epsilon in epsilons)]
    header = ["arm", *(f"{column}, {kind}" for column in columns for kind in ("own", "fixed"))]
    caption = "Images of which at least one path is read correctly, PGD, Eq. 10 as printed."
    return f"{table(header, rows)}\n\n{caption} {mnist.caption()}."


def free_distance(distance: Record) -> str:
    """D28 in "Experiments": how far apart pairs are that nothing pushes, against the smallest D_t."""
    free, initial = (
        mean_interval(distance.values(key, target_distance=None)) for key in ("distance", "initial_distance")
    )
    smallest = min(d for d in distance.config["target_distances"] if d is not None)
    return (
        f"The squared distance of plain pairs is **{plain(free, 0)}** after training and "
        f"**{plain(initial, 0)}** before; the smallest D_t asked for is {smallest}. {distance.caption()}."
    )


# --- Their parts ---------------------------------------------------------------------------------


def _over_pairs(values: summaries.BySeed, show: Callable[[MeanInterval], str]) -> str:
    """The mean over pairs with its interval; of two pairs both values, "13, 25 %", by seed."""
    found = {seed: value for seed, value in sorted(values.items()) if not math.isnan(value)}
    if len(found) != 2:
        return show(over(found))
    one, other = (show(mean_interval([value])) for value in found.values())
    return f"{one.removesuffix(' %')}, {other}"


def _quality(mnist: Record, arm: str, key: str, path: int) -> MeanInterval:
    """A measure of one path's reconstructions or codes; a single path answers for both."""
    found = [quality[key] for quality in mnist.values("quality", arm=arm) if key in quality]
    return mean_interval([values[min(path, len(values) - 1)] for values in found])


def _wrong_before(record: Record, architecture: str, variant: str) -> str:
    """Shares misread without any attack: of the attacked images by either model, of all by model 1."""
    where = {"architecture": architecture, "variant": variant}
    errors = mean_interval([1 - of_both[0] for of_both in record.values("accuracy", **where)])
    either = by_seed((row["seed"], 1 - row["n_clean"] / row["n"]) for row in record.rows("transfer", **where))
    return (
        f"**{percent(over(either))}** of the same images, by one model or the other, and "
        f"**{percent(errors)}** of all test images by model 1"
    )

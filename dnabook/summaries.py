"""Records as the few numbers that a sentence or a plotted point needs: means over seeds, with intervals.

The unit is an independently seeded pair. A rate is computed within a pair first, both directions weighing
the same, and then averaged over pairs with a Student-t interval. A query that two trials of one seed match
raises ValueError: it must say more of the setting, or it would mix what was trained differently.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dnabook import records
from dnabook.experiments import NAMES
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.measures import MeanInterval, mean_interval
from dnabook.records import Record

PLAIN = "autoencoder"  # the arm with one path
LEARNED = 0.5  # accuracy below which a model counts as collapsed: five times chance


def healthy(record: Record) -> Record:
    """The record without the pairs in which a model collapsed (test accuracy below 0.5, before DVERGE)."""
    return dataclasses.replace(record, trials=[t for t in record.trials if not _collapsed(t)])


def collapsed(record: Record, **where: Any) -> tuple[int, int]:
    """How many pairs of a setting collapsed, and how many there are."""
    trials = [t for t in record.trials if _matches({**t["setting"], "seed": t["seed"]}, where)]
    return sum(map(_collapsed, trials)), len(trials)


BySeed = dict[int, float]  # one number a seed: what is averaged, or paired with another arm's


def accuracy(record: Record, *, of: str = "accuracy", **where: Any) -> MeanInterval:
    """Test accuracy, the mean of both models, over the pairs of a setting; of: as in `accuracy_by_seed`."""
    return over(accuracy_by_seed(record, of=of, **where))


def accuracy_by_seed(record: Record, *, of: str = "accuracy", **where: Any) -> BySeed:
    """Test accuracy of each matching pair, the mean of both models. of: "accuracy_of_heads" of `controls`."""
    trials = _trials(record, where).trials
    trials = [t for t in trials if _matches({**t["setting"], "seed": t["seed"]}, where)]
    return {t["seed"]: mean(t["values"][of]) for t in trials}


def transfer(record: Record, *, conditioned: bool = True, **where: Any) -> MeanInterval:
    """Transfer rate over the pairs that match, for instance attack="pgd-linf", epsilon=0.1, arm="regular".

    conditioned: count only images that both models classify correctly before the attack; False: the printed
    definition. Both directions are averaged unless `source` is given.
    Raises ValueError, as all queries of rows do, where pairs match and none of their rows does.
    """
    return over(transfer_by_seed(record, conditioned=conditioned, **where))


def transfer_by_seed(record: Record, *, conditioned: bool = True, **where: Any) -> BySeed:
    """Transfer rate of each matching pair, both directions weighing the same.

    Raises ValueError where rows of several attacks or ε match: their mean would be a rate of neither.
    """
    rows = _rows(record, "transfer", where)
    for name in ("attack", "epsilon"):
        if len(found := sorted({row[name] for row in rows if name in row})) > 1:
            raise ValueError(f"say which {name}; {where} matches rows of {', '.join(map(str, found))}")
    return by_seed((row["seed"], rate(row, conditioned=conditioned)) for row in rows)


def both_misread_by_seed(record: Record, **where: Any) -> BySeed:
    """Of the images that both models read before, the share that both misread after the attack, by pair.

    The conditioned rate times the share that fools the source: unlike the rate, it does not change with how
    easily the source is fooled alone.
    """
    rows = _rows(record, "transfer", where)
    return by_seed((row["seed"], row["both_fooled_clean"] / row["n_clean"]) for row in rows)


def robust_by_seed(record: Record, **where: Any) -> BySeed:
    """Share of images that an attacked model itself still reads correctly: of each pair, over both models."""
    rows = _rows(record, "transfer", where)
    return by_seed((row["seed"], 1 - row["source_fooled"] / row["n"]) for row in rows)


def natural_by_seed(record: Record, *, epoch: int, **where: Any) -> BySeed:
    """Accuracy on natural images after an epoch of DVERGE (0: before it), of each pair, over both models."""
    rows = _rows(record, "epochs", {"epoch": epoch, **where})
    return by_seed((row["seed"], mean(row["accuracy"])) for row in rows)


def by_seed(values: Iterable[tuple[int, float]]) -> BySeed:
    """The mean of each seed's values, from (seed, value) in any order."""
    found: dict[int, list[float]] = {}
    for seed, value in values:
        found.setdefault(seed, []).append(value)
    return {seed: mean(each) for seed, each in found.items()}


def over(values: BySeed) -> MeanInterval:
    """Mean over seeds with its interval."""
    return mean_interval([values[seed] for seed in sorted(values)])


def difference(a: BySeed, b: BySeed) -> MeanInterval:
    """a − b, paired by seed: arms of one seed share initial weights and batches. Unpaired seeds drop out."""
    return over({seed: a[seed] - b[seed] for seed in a if seed in b})


def rate(row: dict[str, Any], *, conditioned: bool = True) -> float:
    """The transfer rate of one row of counts; nan when nothing fools the source."""
    suffix = "_clean" if conditioned else ""
    fooled = row[f"source_fooled{suffix}"]
    return row[f"both_fooled{suffix}"] / fooled if fooled else math.nan


def misread(row: dict[str, Any]) -> float:
    """The share of all attacks that the target misreads, as Figure 1's legend counts transfer."""
    return row["target_wrong"] / row["n"]


def predictability(record: Record, reading: str = "heldout", **where: Any) -> MeanInterval:
    """A reading of R² ("heldout", "in_sample", "batch_in_sample", "chance_floor", …) over matching pairs.

    Give `source=1` for the direction 1 → 2 that the correlation loss acts on, `source=2` for the other;
    without it a pair counts once, with the mean of both.
    """
    return over(reading_by_seed(record, "predictability", reading, **where))


def beyond_signs_by_seed(record: Record, epsilon: float, *, learned: bool = False, **where: Any) -> BySeed:
    """Transfer to a regular network, say, less what random signs do to the same images, by seed.

    Of `controls` from a network with untrained features, or, learned, from another trained one; of
    `learned_features` from those with the `epochs` and `head` that are given; of `features_or_gradients` and
    `architectures` from `source_arm` to `target_arm`, which need not be regular; of `capacity` within pairs.
    """
    where = {"epsilon": epsilon, **where}
    if learned:
        rows = (row for row in _rows(record, "damage", where) if row["counted"])
        return by_seed((row["seed"], (row["attacked"] - row["signs"]) / row["counted"]) for row in rows)
    rows = _rows(record, "transfer", where)
    return by_seed((row["seed"], rate(row) - signs_rate(row)) for row in rows)


def signs_rate(row: dict[str, Any]) -> float:
    """Of the images that a conditioned rate counts, the share that random signs turn wrong for the target."""
    return row["signs_clean"] / row["source_fooled_clean"] if row["source_fooled_clean"] else math.nan


class Relations(NamedTuple):
    """How two networks agree, each by seed: R², the movement explained, the cosine of the gradients."""

    heldout: BySeed
    movement: BySeed
    cosine: BySeed


def relations_by_seed(record: Record, epsilon: float, *, map_of: str = OWN_MAP, **where: Any) -> Relations:
    """Of `features_or_gradients`: held-out R², the movement that a map explains, the cosine of gradients.

    map_of: the map, `between.OWN_MAP`, fitted on movements, or `between.NATURAL_MAP`.  where: `source_arm`
    and `target_arm`; both directions count alike.
    """
    moved = {**where, "map": map_of, "epsilon": epsilon}
    return Relations(
        reading_by_seed(record, "relation", "heldout", **where),
        reading_by_seed(record, "movement", "explains", **moved),
        reading_by_seed(record, "relation", "gradient_cosine", **where),
    )


class Shares(NamedTuple):
    """By how much an arm's transfer differs from that of regular networks in the same places, by seed.

    within: in the arm's own pair.  attacked: one of its networks is attacked and a stranger reads.
    reading: a stranger is attacked and one of its networks reads.  pair: within less both.
    """

    within: BySeed
    attacked: BySeed
    reading: BySeed
    pair: BySeed


def shares_of_the_change(record: Record, arm: str, epsilon: float, *, others: str = "stranger") -> Shares:
    """Of `strangers`: is it each network of an arm that transfers less, or the pair?

    others: with whom its networks are tried; "regular" for the regular pair of the seed, which shares initial
    weights and batches with the arm's.
    """

    def change(*cell: str) -> BySeed:
        before = (others if each == others else "regular" for each in cell)
        new, old = (
            transfer_by_seed(record, source_arm=source, target_arm=target, epsilon=epsilon)
            for source, target in (cell, before)
        )
        return {seed: new[seed] - old[seed] for seed in new}

    within, attacked, reading = change(arm, arm), change(arm, others), change(others, arm)
    pair = {seed: within[seed] - attacked[seed] - reading[seed] for seed in within}
    return Shares(within, attacked, reading, pair)


def reading_by_seed(record: Record, table: str, reading: str, **where: Any) -> BySeed:
    """A reading of a table's rows that match, the mean of each seed's: for instance "relation", "heldout"."""
    rows = _rows(record, table, where)
    return by_seed((row["seed"], row[reading]) for row in rows)


def heldout_by_seed(record: Record, **where: Any) -> BySeed:
    """Held-out R² of each matching pair; `source` is that of `predictability`."""
    return reading_by_seed(record, "predictability", "heldout", **where)


def reconstruction(record: Record, **where: Any) -> MeanInterval:
    """Share of images that an autoencoder's rule reads correctly, over seeds: `reconstruction_by_seed`."""
    return over(reconstruction_by_seed(record, **where))


def reconstruction_by_seed(
    record: Record, *, arm: str, rule: str = "either", attack: str | None = None, epsilon: float = 0.0,
    objective: str = "printed", table: str = "attacked",
) -> BySeed:  # fmt: skip
    """Share of images read correctly for each seed: clean without an attack, else under "fgsm" or "pgd" at ε.

    rule: "first", "second", "mean_path" (their mean), "either", "both", "mean_probability",
    "higher_confidence" or "exactly_one".  objective: of Eq. 10, or "strongest", the worst of all.
    Plain autoencoders are attacked by Eq. 11 whatever the record's objective.  table: "attacked", or "fixed"
    for the classifier of clean images, which the experiment attacks by its first objective only.
    Raises ValueError for an attack or objective that was not recorded.
    """
    found = {}
    for trial in _trials(record, {"arm": arm}).trials:
        values = trial["values"]
        clean = attack is None and table == "attacked"
        rows = [values["clean"]] if clean else _same_attack(values[table], attack or "none", epsilon)
        named = [row for row in rows if row.get("objective") == objective]
        alike = rows[-1]["attack"] == "none" or (arm == PLAIN and objective in record.config["objectives"])
        if not named and not alike:
            known = ", ".join(row["objective"] for row in rows)
            raise ValueError(f"objective {objective!r} is not recorded of {arm}; known: {known}")
        row = (named or rows)[-1]
        right = (row["first"] + row["second"]) / 2 if rule == "mean_path" else row[rule]
        found[trial["seed"]] = right / row["n"]
    return found


def _same_attack(rows: list[dict[str, Any]], attack: str, epsilon: float) -> list[dict[str, Any]]:
    found = [r for r in rows if r["attack"] == attack and math.isclose(r["epsilon"], epsilon)]
    if not found:
        raise ValueError(f"nothing is recorded of {attack} at ε = {epsilon}")
    return found


def quality_by_seed(record: Record, reading: str, part: int | None = None, **where: Any) -> BySeed:
    """An autoencoder on clean images, by seed: "mse", "heldout" R² of the codes, "live_units".

    part: 0 for the first path, or for R² from the first code to the second, 1 for the other; None for the
    mean of both. Seeds without such a reading drop out: one neck has no R² of codes.
    """
    found = {}
    for trial in _trials(record, where).trials:
        values = trial["values"]["quality"].get(reading)
        if values is not None:
            found[trial["seed"]] = mean(values) if part is None else values[part]
    return found


def larger_error(record: Record, a: str, b: str) -> MeanInterval:
    """By how much arm a's squared error, the mean of its paths, exceeds arm b's, as a share of b's."""
    more, less = (quality_by_seed(record, "mse", arm=arm) for arm in (a, b))
    return over({seed: more[seed] / less[seed] - 1 for seed in more if seed in less})


def noticed_by_seed(record: Record, reading: str, **where: Any) -> BySeed:
    """Of `disagreement`, what a reader without labels sees under an attack at an ε, by seed.

    reading: "wrong", "differ" or "unnoticed", shares of all images; "agreed", the share of the misread images
    on which the paths agree; "auroc", how well their divergence tells those from unattacked images. nan where
    nothing is misread.
    """

    def read(row: dict[str, Any]) -> float:
        if reading == "auroc":
            return row["auroc"]
        if reading == "agreed":
            return row["unnoticed"] / row["wrong"] if row["wrong"] else math.nan
        return row[reading] / row["n"]

    return by_seed((row["seed"], read(row)) for row in _rows(record, "noticed", where))


def order(effect: MeanInterval, level: str = "level with") -> str:
    """Where the first of two arms lies, in a word, by the interval of their `difference`.

    "below" or "above": the interval excludes zero.  level: what to say where it does not, or where fewer than
    two seeds can be compared.
    """
    if effect.n < 2 or abs(effect.mean) <= effect.half_width:
        return level
    return "below" if effect.mean < 0 else "above"


def against(record: Record, a: str, b: str, name: str, **where: Any) -> str:
    """Where arm a's share of images read correctly lies against arm b's, which the text calls `name`.

    "**above** the autoencoder (12 ± 9 points)"; where: of `reconstruction_by_seed`, the same for both arms.
    """
    gap = difference(*(reconstruction_by_seed(record, arm=arm, **where) for arm in (a, b)))
    return f"**{order(gap)}** {name} ({points(gap)} points)"


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """The correlation of ranks of two equally long sequences; nan of fewer than two values."""
    from scipy import stats  # as in `measures.wilson_interval`

    return float(stats.spearmanr(x, y).statistic) if len(x) > 1 else math.nan


def rank_correlation(
    record: Record, epsilon: float, confidence: float = 0.95, *, of: Callable[[dict[str, Any]], float] = rate
) -> MeanInterval:
    """Spearman's ρ between a pair's parameter distance and its transfer at ε, within each seed, over seeds.

    Pairs of one seed share their initial weights and batches and differ only in D_t; seeds are independent.
    of: what is counted in a row of counts, `rate` or `misread`.
    """
    rhos = []
    for seed in record.seeds:
        trials = [t["values"] for t in record.trials if t["seed"] == seed and not _collapsed(t)]
        transfers = [mean([of(r) for r in t["transfer"] if r["epsilon"] == epsilon]) for t in trials]
        if len(trials) > 2:
            rhos.append(spearman([t["distance"] for t in trials], transfers))
    return mean_interval(rhos, confidence)


def relation_rank_correlation(
    record: Record, reading: str, epsilon: float, *, back: bool = False
) -> MeanInterval:
    """Of `strangers`: Spearman's ρ of a reading with transfer at ε, over all ordered pairs of arms of a seed.

    reading: "heldout" or "gradient_cosine", from the network that is attacked to the one that reads; back:
    the other way round. Taken within each seed, then averaged over seeds.
    """
    arms = record.config["arms"]
    cells = [{"source_arm": source, "target_arm": target} for source in arms for target in arms]
    return rank_correlation_of(
        (
            reading_by_seed(record, "relation", reading, **(_turned(cell) if back else cell)),
            transfer_by_seed(record, epsilon=epsilon, **cell),
        )
        for cell in cells
    )


def rank_correlation_of(cells: Iterable[tuple[BySeed, BySeed]]) -> MeanInterval:
    """Spearman's ρ of two readings over cells, taken within each seed that all have, then averaged."""
    return over(rank_correlation_by_seed(cells))


def rank_correlation_by_seed(cells: Iterable[tuple[BySeed, BySeed]]) -> BySeed:
    """Spearman's ρ of two readings over cells, within each seed that all cells have."""
    cells = list(cells)
    seeds = set.intersection(*(set(each) for cell in cells for each in cell)) if cells else set()
    return {
        seed: spearman([one[seed] for one, _ in cells], [other[seed] for _, other in cells])
        for seed in sorted(seeds)
    }


# --- Across architectures ------------------------------------------------------------------------

BACK = "heldout back"  # R² of the attacked network's features from the reader's
FORETELLERS = {  # of `architectures`: a reading, all but one from the attacked network to the reader
    "heldout": "R² of the features, attacked → reads",
    BACK: "R² of the features, reads → attacked",
    "nonlinear": "R² of a kernel regression, attacked → reads",
    "cka": "centred kernel alignment (CKA)",
    NATURAL_MAP: "movement that a linear map of natural features explains",
    OWN_MAP: "movement that a linear map of movements explains",
    "gradient_cosine": "cosine of the input gradients",
}


def foretold_by_seed(record: Record, reading: str, epsilon: float, **where: Any) -> BySeed:
    """Of `architectures`: one of `FORETELLERS`, between the kinds `source_arm` and `target_arm`, by seed.

    Of `capacity`: one of `WIDENED`, of the pairs of an `architecture` and a `width`.
    """
    if reading == BACK:
        return reading_by_seed(record, "relation", "heldout", **_turned(where))
    if reading in (NATURAL_MAP, OWN_MAP):
        return reading_by_seed(record, "movement", "explains", map=reading, epsilon=epsilon, **where)
    return reading_by_seed(record, "relation", reading, **where)


def foretelling_by_seed(record: Record, reading: str, epsilon: float, *, within: bool = True) -> BySeed:
    """Of `architectures`: Spearman's ρ of a reading with what transfers beyond random signs, by seed.

    Over the cells (kind attacked, kind that reads) of a seed, each the mean of its pairs of networks.
    within: count the cells within one kind, too.
    """
    kinds = record.config["kinds"]
    cells = [
        {"source_arm": source, "target_arm": target}
        for source in kinds for target in kinds if within or source != target
    ]  # fmt: skip
    return rank_correlation_by_seed(
        (foretold_by_seed(record, reading, epsilon, **cell), beyond_signs_by_seed(record, epsilon, **cell))
        for cell in cells
    )


def own_kind_by_seed(of: Callable[..., BySeed], one: str, other: str) -> BySeed:
    """By how much a reading is higher within two kinds of network than between them, by seed.

    of: gives the reading for a `source_arm` and a `target_arm`. The mean of both cells within a kind, less
    the mean of both between: what a kind adds as a source, or as a reader, cancels. nan where one is.
    """
    within, between = (
        [of(source_arm=source, target_arm=target) for source, target in cells]
        for cells in (((one, one), (other, other)), ((one, other), (other, one)))
    )
    seeds = sorted(set.intersection(*map(set, [*within, *between])))
    return {seed: (sum(w[seed] for w in within) - sum(b[seed] for b in between)) / 2 for seed in seeds}


WIDENED = {  # of `capacity`: a reading between the two networks of a pair, and what it is
    "heldout": "R², linear",
    "few_images": "R², linear, few images",
    "nonlinear": "R², kernel, few images",
    NATURAL_MAP: "movement explained",
    "gradient_cosine": "cosine",
}


def slope_by_seed(of: Callable[..., BySeed], widths: Sequence[float]) -> BySeed:
    """What a doubling of the width adds to a reading: the least-squares slope over log₂ width, by seed.

    of: gives the reading for a `width`. A seed that lacks a width drops out.
    Raises ValueError unless there are two widths or more.
    """
    if len(set(widths)) < 2:
        raise ValueError(f"a slope needs at least two widths, got {list(widths)}")
    logs = [math.log2(width) for width in widths]
    centred = [each - mean(logs) for each in logs]
    readings = [of(width=width) for width in widths]
    seeds = sorted(set.intersection(*map(set, readings)))
    spread = sum(each**2 for each in centred)
    return {
        seed: sum(c * reading[seed] for c, reading in zip(centred, readings, strict=True)) / spread
        for seed in seeds
    }


def _turned(cell: dict[str, str]) -> dict[str, str]:
    return {"source_arm": cell["target_arm"], "target_arm": cell["source_arm"]}


def middle_epsilon(record: Record) -> float:
    """The ε in the middle of a record's, the lower one of two."""
    epsilons = record.config["epsilons"]
    return epsilons[(len(epsilons) - 1) // 2]


def percent(value: MeanInterval | float) -> str:
    """A share as text, "45 ± 3 %", or without the interval where there is none."""
    if not isinstance(value, MeanInterval):
        return f"{100 * value:.0f} %"
    if value.n == 0:
        return plain(value)
    return f"{plain(MeanInterval(100 * value.mean, 100 * value.half_width, value.n), 0)} %"


def points(difference: MeanInterval) -> str:
    """A difference of shares in percentage points, "12 ± 4", without a unit."""
    return percent(difference).removesuffix(" %")


def plain(value: MeanInterval, digits: int = 2) -> str:
    """A mean with its interval as text, "0.98 ± 0.01"; "no value" where no trial has one."""
    if value.n == 0:
        return "no value"
    text = f"{round(value.mean, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
    text = text.replace("-", "−")
    return text if math.isnan(value.half_width) else f"{text} ± {value.half_width:.{digits}f}"


def status(scales: Sequence[str] = ("laptop", "paper")) -> str:
    """What is recorded, as a Markdown table: one row for each experiment and scale, whether run or not."""
    header = ["experiment", "scale", "trials", "whole seeds", "seconds", "peak memory", "device", "data",
              "commit", "date"]  # fmt: skip
    rows = [_status_row(name, scale) for name in NAMES for scale in scales]
    return table(header, rows, left=len(header))


def _status_row(name: str, scale: str) -> list[str]:
    record = records.current(name, scale)
    if record is None:
        return [name, scale, "still to be run", *[""] * 7]
    runs = [trial["provenance"] for trial in record.trials]
    dates = sorted(run["date"][:10] for run in runs)
    whole = len(record.whole_seeds)
    wanted = max(whole, records.SEEDS[scale])

    threads: dict[str, set[int]] = {}
    for run in runs:
        threads.setdefault(run["device"], set()).add(run["threads"])
    devices = "; ".join(f"{device}, {_threads(counts)}" for device, counts in sorted(threads.items()))

    def each(key: str, digits: int | None = None) -> str:
        return ", ".join(sorted({run[key][:digits] for run in runs}))

    return [
        name, scale, str(len(runs)), f"{whole} of {wanted}", f"{record.seconds:,.0f}",
        f"{max(run['peak_memory_mib'] for run in runs):,} MiB",
        devices, each("data"), each("commit", 7),
        " to ".join(map(_unbroken, dict.fromkeys((dates[0], dates[-1])))),
    ]  # fmt: skip


def _threads(counts: set[int]) -> str:
    """ "1 thread", "1 or 3 threads"."""
    return f"{' or '.join(map(str, sorted(counts)))} thread{'s' * (counts != {1})}"


def _unbroken(text: str) -> str:
    """The text on one line of a table's cell."""
    return f'<span style="white-space: nowrap">{text}</span>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, left: int = 1) -> str:
    """A Markdown table: the first `left` columns to the left, the others to the right.

    "ε = 0.10" in the header stays on one line.
    """
    header = [str(name).replace("ε = ", "ε\u00a0=\u00a0") for name in header]
    lines = [header, [*[":--"] * left, *["--:"] * (len(header) - left)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _collapsed(trial: dict[str, Any]) -> bool:
    values = trial["values"]
    first = values["epochs"][0] if "epochs" in values else values  # of DVERGE, the pair that it was given
    return min(first["accuracy"]) < LEARNED


def _trials(record: Record, where: dict[str, Any]) -> Record:
    """The record of the trials whose setting fits `where`, whatever it asks of their rows: one a seed."""
    trials = [
        t for t in record.trials
        if all({**t["setting"], "seed": t["seed"]}.get(name, value) == value for name, value in where.items())
    ]  # fmt: skip
    if len({t["seed"] for t in trials}) < len(trials):
        known = ", ".join(trials[0]["setting"])
        raise ValueError(f"{where} matches several trials of a seed in {record.name}; say more of: {known}")
    return dataclasses.replace(record, trials=trials)


def _rows(record: Record, table: str, where: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table that match. Raises ValueError where trials match and none of their rows does."""
    found = _trials(record, where)
    rows = list(found.rows(table, **where))
    if found.trials and not rows:
        raise ValueError(f"no row of {table} in {record.name} ({record.scale}) matches {where}")
    return rows


def _matches(row: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in where.items())


def mean(values: list[float]) -> float:
    """The mean of the values that are not nan; nan when there is none."""
    values = [value for value in values if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan

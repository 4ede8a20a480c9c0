"""What the book finds, in a few lines of numbers: the first page and the README show them.

Each line takes the record of the scale that `records.evidence` names and says its scale and seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from dnabook import records, summaries
from dnabook.claims import corrected_falls, fall_by_seed, falls_of_r2, in_points, lead, multiple_correlation
from dnabook.experiments.between import NATURAL_MAP
from dnabook.records import Record
from dnabook.summaries import over, percent, plain, reading_by_seed


def lines() -> str:
    """What the book finds, as Markdown: lines of numbers, each at the scale of `records.evidence`."""
    distance, features, transfer, mnist, cifar = map(
        records.best,
        ("parameter_distance", "feature_correlation", "transfer", "autoencoder_mnist", "autoencoder_cifar"),
    )
    variants, pairs = records.together("variants", "transfer")
    told = (
        ("The relation", _relation(distance), distance),
        *_is_enough(),
        *_what_rises(),
        ("Breaking it", _breaking(features), features),
        ("Transfer", _transfer(transfer), transfer),
        ("The loss corrected", _corrected(variants, pairs), _only(variants, variant="corrected")),
        *_whose_change(),
        ("Two necks", _two_necks(mnist), mnist),
        ("Photographs", _photographs(cifar), cifar),
    )
    return "\n".join(
        f"- **{name}.** {text} ({record.scale} scale, {_count(len(record.seeds), 'seed')})."
        for name, text, record in told
    )


def _only(record: Record, **setting: str) -> Record:
    """The record of some settings' trials alone."""
    trials = [t for t in record.trials if all(t["setting"][k] == v for k, v in setting.items())]
    return dataclasses.replace(record, trials=trials)


def _evident(name: str) -> Record | None:
    """The record at the scale that `records.evidence` names, or None where there is none."""
    scale = records.evidence(name)
    return records.current(name, scale) if scale else None


def _relation(record: Record) -> str:
    rho = summaries.rank_correlation(record, 0.10)
    pushed = [trial for trial in record.trials if trial["setting"]["target_distance"] is not None]
    as_theirs = dataclasses.replace(record, trials=pushed)
    legend = summaries.rank_correlation(as_theirs, 0.10, of=summaries.misread)
    return (
        "The features of one CNN, trained on MNIST, follow linearly from those of another: "
        f"multiple correlation √R² {plain(multiple_correlation(record), 3)} on images the fit has not seen, "
        "attacked ones and pairs at every distance among them. "
        f"Distance between parameters and transfer (ε = 0.10) have a rank correlation of {plain(rho)}, where "
        f"the paper sees none; counted as its figure counts, among the pairs that it has, {plain(legend)}"
    )


def _is_enough() -> Iterator[tuple[str, str, Record]]:
    """The line on networks with untrained features, where they are recorded."""
    if record := _evident("controls"):
        kept, cnn = summaries.healthy(record), {"architecture": "cnn"}
        r2 = summaries.predictability(kept, source="untrained", target="trained", **cnn)
        drawn, learned = (
            summaries.points(summaries.over(summaries.beyond_signs_by_seed(kept, 0.10, learned=each, **cnn)))
            for each in (False, True)
        )
        text = (
            f"A trained CNN's features follow with R² {plain(r2)} even from those of a CNN that keeps its "
            "random layers and has trained its head alone. Yet PGD on such a CNN at ε = 0.10 makes the "
            f"trained one misread only {drawn} points more digits than random signs of that size do; PGD on "
            f"another trained CNN, {learned} points more"
        )
        yield "Is it enough", text, record


def _what_rises() -> Iterator[tuple[str, str, Record]]:
    """The line on features that stopped learning early, where they are recorded."""
    if record := _evident("learned_features"):
        kept, ages, epsilon = (
            summaries.healthy(record),
            record.config["epochs"],
            record.config["epsilons"][-1],
        )
        moved = {"map": NATURAL_MAP, "head": "own", "epsilon": epsilon}
        ends = [
            (
                plain(over(reading_by_seed(kept, "relation", "heldout", epochs=age))),
                plain(over(reading_by_seed(kept, "movement", "explains", epochs=age, **moved))),
                summaries.points(over(summaries.beyond_signs_by_seed(kept, epsilon, epochs=age, head="own"))),
            )
            for age in (ages[0], ages[-1])
        ]
        r2, movement, beyond = (" to ".join(both) for both in zip(*ends, strict=True))
        text = (
            f"While a CNN's features learn, R² from them to another's goes from {r2}; what that map, "
            f"fitted on natural images, explains of how an attack moves the other's, from {movement}; and "
            f"what PGD at ε = {epsilon:.2f} turns wrong for it beyond random signs, from {beyond} points"
        )
        yield "What rises with transfer", text, record


def _breaking(record: Record) -> str:
    kept, late = summaries.healthy(record), "decorrelated_late"
    lost, of = summaries.collapsed(record, architecture="cnn", arm="decorrelated")
    later, _ = summaries.collapsed(record, architecture="cnn", arm=late)
    ahead, back = map(plain, falls_of_r2(kept, late))
    return (
        f"The loss as released, on from the first step, leaves {lost} of {of} CNN pairs with a model that "
        f"cannot read. Switched on late it does so to {later or 'none'}, and lowers R² by {ahead} in "
        f"the direction that it acts on and by {back} in the other"
    )


def _transfer(record: Record) -> str:
    kept = summaries.healthy(record)

    def rate(architecture: str, arm: str = "regular") -> str:
        where = {"architecture": architecture, "attack": "pgd-linf", "epsilon": 0.10}
        return percent(summaries.transfer(kept, arm=arm, **where))

    late = summaries.over(fall_by_seed(kept, "cnn", 0.10, "decorrelated_late"))
    return (
        f"Of the digits with which PGD at ε = 0.10 fools one of two CNNs, {rate('cnn')} fool the other too; "
        f"with the loss, switched on late, {in_points(late)} fewer. Between fully connected networks it is "
        f"{rate('fully_connected')}, and with the loss, from the first step on, "
        f"{rate('fully_connected', 'decorrelated')}"
    )


def _corrected(variants: Record, pairs: Record) -> str:
    lost, of = summaries.collapsed(variants, architecture="cnn", variant="corrected")
    names = {"cnn": "CNNs", "fully_connected": "fully connected networks"}
    falls = {name: corrected_falls(variants, pairs, name).get(0.10) for name in names}
    text = "With a loss that looks both ways and weighs units alike "
    text += f"{lost} of {of} CNN pairs lose a model" if lost else f"all {of} CNN pairs learn to read"
    told = [
        f"between {names[name]} by {in_points(fall)}" + f" ({_count(fall.n, 'pair')})" * (fall.n < of)
        for name, fall in falls.items()
        if fall and fall.n
    ]
    return f"{text}. Transfer falls {' and '.join(told)}" if told else text


def _whose_change() -> Iterator[tuple[str, str, Record]]:
    """The line on strangers, where they are recorded."""
    record = _evident("strangers")
    if record and "corrected" in record.config["arms"]:
        shares = summaries.shares_of_the_change(summaries.healthy(record), "corrected", 0.10)
        falls = [summaries.over({seed: -value for seed, value in by.items()}) for by in shares]
        whole, attacked, reading, pair = map(in_points, falls)
        much = "Most" if falls[3].mean < falls[0].mean / 2 else "Part"
        text = (
            f"{much} of that fall is on average each network's own. Within such pairs it is {whole}; it is "
            f"{attacked} where one of their networks is attacked and an unrelated CNN reads, and "
            f"{reading} the other way round; {pair} are left for the pair"
        )
        yield "The relation, or each network", text, record


def _two_necks(record: Record) -> str:
    def gain(objective: str, **options: str) -> str:
        return in_points(lead(record, "pgd", 0.10, objective=objective, **options))

    def level(arm: str) -> str:
        where = {"attack": "pgd", "epsilon": 0.10, "objective": "strongest"}
        return percent(summaries.reconstruction(record, arm=arm, **where))

    return (
        "A digit counts as saved if either reconstruction is read correctly. Under PGD at ε = 0.10 a Dual "
        f"Neck Autoencoder then saves {gain('printed')} more than a plain autoencoder, attacked as the paper "
        f"prints it, and {gain('strongest')} under the worst objective ({level('dna')} of the digits against "
        f"{level('autoencoder')}); by a rule that needs no label it is "
        f"{gain('strongest', rule='mean_probability')}. By either reconstruction and under the worst "
        "objective, two autoencoders that share nothing save "
        f"{gain('strongest', arm='two_autoencoders', over='dna')} more than the DNA"
    )


def _photographs(record: Record) -> str:
    attack, epsilon = record.config["attacks"][-1], record.config["epsilons_255"][0]

    def gain(objective: str, over: str) -> str:
        return in_points(lead(record, attack, epsilon / 255, objective=objective, over=over))

    sets = sorted({trial["values"]["images"] for trial in record.trials})
    images = ", ".join(sets).replace("cifar10", "CIFAR-10")
    known = ("printed", "strongest") if "corrected" in record.config["objectives"] else ("printed",)
    names = " as printed", " under the worst objective"

    def gains(over: str, words: tuple[str, ...]) -> str:
        told = zip(known, words, strict=False)
        return " and ".join(gain(objective, over) + word for objective, word in told)

    text = (
        f"On {images}, under {attack.upper()} at {epsilon}/255, the gain over a plain autoencoder "
        f"is {gains('autoencoder', names)}"
    )
    if "dna_regular" in record.config["arms"]:
        text += f"; over two necks without the loss it is {gains('dna_regular', names)}"
    return text


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' * (n != 1)}"

"""Tables and sentence of chapter 1: how much transfers between two regular CNNs, and what is plain damage."""

from __future__ import annotations

from dnabook import figures, summaries
from dnabook.figures import ATTACKS
from dnabook.records import Record
from dnabook.summaries import percent, table
from dnabook.tables import damaged


def transfer_rates(transfer: Record) -> str:
    """Conditioned rates of regular CNN pairs in "The recorded result": a row an attack, a column an ε."""
    epsilons = transfer.config["epsilons"]
    rows = [
        [ATTACKS[attack], *(_rate(transfer, attack, epsilon) for epsilon in epsilons)]
        for attack in transfer.config["attacks"]
    ]
    header = ["attack", *(f"ε = {epsilon:.2f}" for epsilon in epsilons)]
    return f"{table(header, rows)}\n\n{transfer.caption()}."


def shared_examples(transfer: Record) -> str:
    """The answer to "The recorded result" in words: PGD-ℓ∞ at the smallest ε and at the largest."""
    weak, strong = transfer.config["epsilons"][0], transfer.config["epsilons"][-1]
    return (
        f"At ε = {weak:.2f}, PGD-ℓ∞ transfers to the other CNN in **{_rate(transfer, 'pgd-linf', weak)}** of "
        f"the cases that fool the first, and at ε = {strong:.2f} in "
        f"**{_rate(transfer, 'pgd-linf', strong)}**. Two networks of one architecture, trained alike on the "
        "same data, share many of their adversarial examples."
    )


def plain_damage(controls: Record) -> str:
    """Of `controls`: what the other network misreads of the images that a transfer rate counts, and why.

    "The recorded result", its second table: attacked through a trained network, by random signs, and attacked
    through an untrained one. A row an architecture and ε, both directions averaged.
    """
    rows = []
    for architecture in controls.config["architectures"]:
        for epsilon in controls.config["epsilons"]:
            where = {"architecture": architecture, "epsilon": epsilon}
            shares = (damaged(controls, how, **where) for how in ("attacked", "signs", "untrained"))
            rows.append([f"{figures.ARCHITECTURES[architecture]}, ε = {epsilon:.2f}", *map(percent, shares)])
    header = ["pairs", "attacked through the first", "random signs", "attacked through an untrained one"]
    return (
        f"{table(header, rows)}\n\nShares of the images that both networks read and that PGD-ℓ∞ turns wrong "
        f"for the first: those that the second misreads. {controls.caption()}."
    )


def _rate(transfer: Record, attack: str, epsilon: float) -> str:
    where = {"architecture": "cnn", "arm": "regular", "attack": attack, "epsilon": epsilon}
    return percent(summaries.transfer(transfer, **where))

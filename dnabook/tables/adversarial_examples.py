"""Table and sentence of chapter 1: how much transfers between two regular CNNs."""

from __future__ import annotations

from dnabook import summaries
from dnabook.figures import ATTACKS
from dnabook.records import Record
from dnabook.summaries import percent, table


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


def _rate(transfer: Record, attack: str, epsilon: float) -> str:
    where = {"architecture": "cnn", "arm": "regular", "attack": attack, "epsilon": epsilon}
    return percent(summaries.transfer(transfer, **where))

"""Chapter 1's numbers in prose, against the records."""

from __future__ import annotations

import pytest
from prose import about, differ, excludes_zero, number, paper, says

from dnabook import summaries

PAGE = "01_adversarial_examples"


def _rates(attack, epsilon, **options):
    """Transfer between the regular CNNs of each seed."""
    where = {"architecture": "cnn", "arm": "regular", "attack": attack, "epsilon": epsilon}
    return summaries.transfer_by_seed(paper("transfer"), **where, **options)


def _damaged(how, architecture, epsilon):
    """Of the images that a rate counts, the share that the target misreads, of each pair in `controls`."""
    rows = paper("controls").rows("damage", architecture=architecture, epsilon=epsilon)
    return summaries.by_seed((row["seed"], row[how] / row["counted"]) for row in rows)


# --- Counting transfer ---------------------------------------------------------------------------


def test_regular_pairs_lie_as_far_apart_as_the_page_says():
    found = [_rates(attack, 0.05) for attack in ("fgsm-linf", "pgd-linf")]
    spread = min(max(rates.values()) - min(rates.values()) for rates in found)
    (pairs,) = {len(rates) for rates in found}
    tens = int(10 * spread) * 10
    says(
        PAGE,
        f"In the paper-scale record {number(tens)} points or more lie between the lowest and "
        f"the highest of {number(pairs)} regular CNN pairs, trained alike, at ε = 0.05, under FGSM and under "
        "PGD in ℓ∞",
    )


# --- What else the rate counts -------------------------------------------------------------------


def test_for_strong_attacks_the_printed_rate_and_the_conditioned_one_nearly_agree():
    says(PAGE, "For strong attacks the two nearly agree.")
    for attack in paper("transfer").config["attacks"]:
        weak, *_, strong = (
            differ(_rates(attack, epsilon, conditioned=False), _rates(attack, epsilon)).mean
            for epsilon in paper("transfer").config["epsilons"]
        )
        assert 0 <= strong < 0.02 < weak


# --- The recorded result -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["cnn", "fully_connected"])
def test_an_attack_through_an_untrained_network_does_no_more_harm_than_random_signs(architecture):
    says(PAGE, "Through an untrained network an attack does no more harm than random signs")
    for epsilon in paper("controls").config["epsilons"]:
        untrained, signs = (_damaged(how, architecture, epsilon) for how in ("untrained", "signs"))
        assert differ(untrained, signs).mean <= 0


def test_random_signs_make_such_a_part_of_the_rate_as_the_page_says():
    def part(architecture, epsilon):
        signs, attacked = (_damaged(how, architecture, epsilon) for how in ("signs", "attacked"))
        return summaries.over(signs).mean / summaries.over(attacked).mean

    says(
        PAGE,
        "Between CNNs it makes about a third of the shares in the first column at ε = 0.05 and two thirds at "
        "ε = 0.20, between fully connected networks hardly any at ε = 0.05 and not quite half at ε = 0.20",
    )
    assert about(part("cnn", 0.05), 1 / 3) and about(part("cnn", 0.20), 2 / 3)
    assert part("fully_connected", 0.05) < 0.1
    assert 0.4 < part("fully_connected", 0.20) < 0.5


# --- What to doubt -------------------------------------------------------------------------------


def test_at_large_epsilon_much_of_the_transfer_is_plain_damage():
    says(
        PAGE,
        'every pixel may move by a fifth of its range, and much of the "transfer" is plain damage',
    )
    cnn, other = (summaries.over(_damaged("signs", each, 0.20)) for each in ("cnn", "fully_connected"))
    assert cnn.mean > 0.5 and other.mean > 0.25


# --- Summary -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_stronger_than_fgsm(norm):
    says(PAGE, "FGSM takes one step (Eq. 2), PGD many (Eq. 3), and PGD is stronger.")
    record = paper("transfer")
    for epsilon in record.config["epsilons"]:
        where = {"architecture": "cnn", "arm": "regular", "epsilon": epsilon}
        fgsm, pgd = (
            summaries.robust_by_seed(record, attack=f"{name}-{norm}", **where) for name in ("fgsm", "pgd")
        )
        change = differ(pgd, fgsm)
        assert change.mean < 0 and excludes_zero(change)


def test_more_than_half_of_the_attacks_on_cnns_transfer():
    says(PAGE, "more than half of the attacks at ε = 0.10 transfer on average, part of them as plain damage")
    for attack in paper("transfer").config["attacks"]:
        assert summaries.over(_rates(attack, 0.10)).mean > 0.5
    assert summaries.over(_damaged("signs", "cnn", 0.10)).mean > 0.1

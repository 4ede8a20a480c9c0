"""Chapter 5's numbers in prose, against the records."""

from __future__ import annotations

import math

from prose import (
    about,
    clearly_higher,
    clearly_lower,
    committed,
    describes,
    differ,
    excludes_zero,
    in_words,
    lower,
    number,
    paper,
    says,
    whole,
)

from dnabook import dverge, summaries
from dnabook.summaries import (
    accuracy_by_seed,
    both_misread_by_seed,
    natural_by_seed,
    over,
    robust_by_seed,
    transfer_by_seed,
)

PAGE = "05_dverge"
RECORD = "dverge"
EPSILONS = (0.05, 0.10, 0.15)
SMALL, MIDDLE, LARGE = EPSILONS
LAST = 10  # epochs of DVERGE
CONDITIONED, PRINTED = True, False
THEIRS = 0.677, 0.300  # the authors' stored curve of the regular pair at ε = 0.10, its ends

DVERGE = {"arm": "regular", "preset": "paper"}
DECORRELATED = {"arm": "decorrelated", "preset": "paper"}
LATE = {"arm": "decorrelated_late", "preset": "paper"}
OFFICIAL = {"arm": "regular", "preset": "official"}
PLAIN = {"arm": "regular", "preset": "plain"}


# --- Queries -------------------------------------------------------------------------------------


def transfer(start, epsilon, *, epoch=LAST, conditioned=CONDITIONED, record=None, **where):
    where |= {"epoch": epoch, "epsilon": epsilon, "conditioned": conditioned, **start}
    return transfer_by_seed(record or paper(RECORD), **where)


def fall(start, epsilon, **where):
    """Transfer after DVERGE less that before."""
    return differ(transfer(start, epsilon, **where), transfer(start, epsilon, epoch=0, **where))


def gap(start, epsilon, *, other=DVERGE, **where):
    """By how much more transfers between pairs of a start than between those of another, at the end."""
    return differ(transfer(start, epsilon, **where), transfer(other, epsilon, **where))


def gaps(start, **where):
    return [gap(start, epsilon, **where) for epsilon in EPSILONS]


def together(start, epsilon, *, other=DVERGE):
    """The same of the share of images that both networks had read and misread under attack."""
    where = {"epoch": LAST, "epsilon": epsilon}
    return differ(*(both_misread_by_seed(paper(RECORD), **where, **each) for each in (start, other)))


def counts_by_seed(start, part, of, epsilon, *, epoch=LAST):
    """The ratio of two counts of an attack, after DVERGE unless said."""
    rows = paper(RECORD).rows("transfer", epoch=epoch, epsilon=epsilon, **start)
    return summaries.by_seed((row["seed"], row[part] / row[of]) for row in rows)


def natural(start, epoch):
    return natural_by_seed(paper(RECORD), epoch=epoch, **start)


def sturdier(start, epsilon=SMALL):
    """By how much more of the attacks at an ε a network withstands after DVERGE."""
    return differ(*(robust_by_seed(paper(RECORD), epoch=e, epsilon=epsilon, **start) for e in (LAST, 0)))


def lost_before(**where):
    return summaries.collapsed(paper(RECORD, collapsed=True), **DECORRELATED, **where)


def least_and_most(changes):
    """The least and the most of falls in points, in words: "four to ten"."""
    assert all(each.mean < 0 for each in changes)
    least, *_, most = sorted(changes, key=lambda each: -each.mean)
    return f"{in_words(least)} to {in_words(most)}"


def only_at_the_larger(changes, clear):
    small, *larger = changes
    return not excludes_zero(small) and all(map(clear, larger))


def test_the_records_epsilons_and_epochs_are_those_of_these_tests():
    for scale in ("paper", "laptop"):
        config = committed(RECORD, scale).config
        assert (tuple(config["epsilons"]), config["epochs"]) == (EPSILONS, LAST)


# --- The opening paragraph -----------------------------------------------------------------------


def test_transfer_falls_and_accuracy_drops_at_once_and_comes_back_in_part():
    says(PAGE, "Transfer falls, as in the paper, but accuracy on natural digits drops at once and comes back")
    assert all(clearly_lower(fall(DVERGE, epsilon)) for epsilon in EPSILONS)
    before, first, last = (natural(DVERGE, epoch) for epoch in (0, 1, LAST))
    assert clearly_lower(differ(first, before)) and clearly_lower(differ(last, before))
    assert clearly_higher(differ(last, first))


def test_plain_training_lowers_transfer_further_at_the_smallest_epsilon_and_less_far_at_the_largest():
    says(
        PAGE,
        "Plain training of the same cost lowers transfer, too: further than DVERGE at ε = 0.05, less far at "
        "ε = 0.15 (paper scale, conditioned). Unlike plain training, DVERGE also makes each network harder",
    )
    assert all(clearly_lower(fall(PLAIN, epsilon)) for epsilon in EPSILONS)
    assert clearly_lower(gap(PLAIN, SMALL)) and clearly_higher(gap(PLAIN, LARGE))
    assert clearly_higher(sturdier(DVERGE)) and not excludes_zero(sturdier(PLAIN))


def test_all_but_one_of_the_decorrelated_pairs_had_lost_a_model_and_that_one_ends_lower():
    lost, tried = lost_before()
    says(
        PAGE,
        f"At paper scale {number(lost)} of the {number(tried)} pairs decorrelated as in the paper had lost a "
        "model before DVERGE began; the fifth ends lower than the regular pair of its seed. Pairs "
        f"decorrelated late end {least_and_most(gaps(LATE))} points lower than regular ones, conditioned",
    )
    assert tried - lost == 1
    for conditioned in (CONDITIONED, PRINTED):
        assert all(change.mean < 0 for change in gaps(DECORRELATED, conditioned=conditioned))


# --- A round of DVERGE, the recorded result: Figure 4 --------------------------------------------


def devices(start=None):
    where = start or {}
    return {
        trial["seed"]: trial["provenance"]["device"]
        for trial in committed(RECORD, "paper").trials
        if all(trial["setting"][name] == value for name, value in where.items())
    }


def seeds_on(part):
    return [seed for seed, device in devices(DVERGE).items() if part in device]


def since_chapter_4(start, epsilon, **where):
    """Transfer before DVERGE less that of the same pair in chapter 4's record, by seed."""
    pair = {"architecture": "cnn", "arm": start["arm"], "attack": "pgd-linf", "epsilon": epsilon}
    old = transfer_by_seed(paper("transfer", collapsed=True), **pair, **where)
    new = transfer(start, epsilon, epoch=0, record=paper(RECORD, collapsed=True), **where)
    return {seed: new[seed] - old[seed] for seed in new}


def furthest(start, seeds, **where):
    found = (since_chapter_4(start, epsilon, **where) for epsilon in EPSILONS)
    return max(abs(change[seed]) for change in found for seed in seeds)


def lost_models(record, **where):
    """Which models of decorrelated CNN pairs had collapsed, by seed."""

    def accuracies(values):
        return values["epochs"][0]["accuracy"] if "epochs" in values else values["accuracy"]

    return {
        trial["seed"]: [each < summaries.LEARNED for each in accuracies(trial["values"])]
        for trial in record.trials
        if all(trial["setting"][name] == value for name, value in where.items())
    }


def test_two_seeds_were_recorded_on_an_h100_and_start_like_chapter_4s():
    cpu, card = seeds_on("CPU"), seeds_on("H100")
    says(
        PAGE,
        f"and then for {number(LAST)} epochs by DVERGE",
        f"{number(len(cpu))} of the {number(len(devices()))} seeds were recorded on CPUs and "
        f"{number(len(card))} on an H100.",
        "before DVERGE they differ a little from those of the same seeds in chapter 4's record, which was "
        f"made on CPUs. Of the {number(len(card))} seeds on the card, regular and late pairs transfer as "
        "there to about a point, and of the decorrelated pairs the same model is lost",
    )
    for start in (DVERGE, LATE):
        assert max(furthest(start, card, conditioned=each) for each in (True, False)) < 0.015
    chapter_4 = paper("transfer", collapsed=True)
    assert all("CPU" in trial["provenance"]["device"] for trial in chapter_4.trials)
    here = lost_models(paper(RECORD, collapsed=True), **DECORRELATED)
    there = lost_models(chapter_4, architecture="cnn", arm="decorrelated")
    assert all(here[seed] == there[seed] and sum(here[seed]) == 1 for seed in card)


def test_a_regular_pair_trained_again_on_a_cpu_differs_by_seven_points():
    cpu = seeds_on("CPU")
    far = [seed for seed in cpu if furthest(DVERGE, [seed]) > 0.015]
    says(
        PAGE,
        f"{number(len(far))} regular pair differs by up to {in_words(furthest(DVERGE, far))} points",
    )
    here, there = (
        {trial["provenance"]["commit"] for trial in paper(name, collapsed=True).trials}
        for name in (RECORD, "transfer")
    )
    assert here.isdisjoint(there)


def test_the_decorrelated_pair_that_is_left_reads_and_transfers_more_than_chapter_4s():
    (left,) = transfer(DECORRELATED, MIDDLE)
    pair = {"architecture": "cnn", "arm": "decorrelated"}
    reads, read = natural(DECORRELATED, 0)[left], accuracy_by_seed(paper("transfer"), **pair)[left]
    here = transfer(DECORRELATED, MIDDLE, epoch=0)[left]
    there = transfer_by_seed(paper("transfer"), attack="pgd-linf", epsilon=MIDDLE, **pair)[left]
    says(
        PAGE,
        f"the one decorrelated pair that is left reads {whole(reads)} % and transfers {whole(here)} % at "
        f"ε = {MIDDLE:.2f} before DVERGE, where chapter 4's of that seed reads {whole(read)} % and transfers "
        f"{whole(there)} %",
    )
    assert left in seeds_on("CPU")


def test_the_figure_is_described_as_it_looks():
    columns = len(paper(RECORD).config["arms"])
    says(PAGE, f"{number(columns - 2).capitalize()} more columns are not in the paper's figure")
    describes(
        PAGE,
        f"{number(columns).capitalize()} columns of two panels, one for each start and recipe",
        "PGD transfer falls over the epochs of DVERGE, little at the smallest epsilon; under plain training "
        "it falls less at the largest epsilon and further at the smallest. Below, natural accuracy drops in "
        "the first epoch of DVERGE as the paper runs it",
    )
    for start in (DVERGE, LATE, OFFICIAL):
        falls = [fall(start, epsilon, conditioned=PRINTED).mean for epsilon in EPSILONS]
        assert -0.12 < falls[0] < 0 and max(falls) == falls[0]
    small, large = (gap(PLAIN, epsilon, conditioned=PRINTED) for epsilon in (SMALL, LARGE))
    assert clearly_lower(small) and clearly_higher(large)
    for start in (DVERGE, LATE):
        assert clearly_lower(differ(natural(start, 1), natural(start, 0)))


def test_networks_withstand_attacks_better_after_dverge():
    says(PAGE, "its networks withstand attacks better themselves")
    assert all(clearly_higher(sturdier(start)) for start in (DVERGE, LATE, OFFICIAL))


# --- What agrees with the paper, and what it leaves out ------------------------------------------


def test_the_fall_excludes_zero_at_every_epsilon_conditioned_and_at_the_larger_as_printed():
    says(PAGE, "excludes zero at every ε conditioned, and at the two larger ones as printed")
    assert all(clearly_lower(fall(DVERGE, epsilon)) for epsilon in EPSILONS)
    printed = [fall(DVERGE, epsilon, conditioned=PRINTED) for epsilon in EPSILONS]
    assert only_at_the_larger(printed, clearly_lower)


def test_the_decorrelated_pair_that_is_left_lies_lower_from_beginning_to_end():
    lost, tried = lost_before()
    says(
        PAGE,
        f"So does our {number(tried - lost)} pair of {number(tried)} that had not collapsed before",
        "at laptop scale none is left",
    )
    for epsilon in EPSILONS:
        for epoch in range(LAST + 1):
            assert gap(DECORRELATED, epsilon, epoch=epoch, conditioned=PRINTED).mean < 0
    lost, tried = summaries.collapsed(committed(RECORD, "laptop"), **DECORRELATED)
    assert lost == tried > 0


def test_late_pairs_keep_half_of_their_head_start_or_all_of_it():
    cost = differ(natural(LATE, LAST), natural(DVERGE, LAST))
    conditioned, printed = (gaps(LATE, conditioned=each) for each in (CONDITIONED, PRINTED))
    says(
        PAGE,
        "keep about half of their head start at the two smaller ε and all of it at ε = 0.15: they end "
        f"{least_and_most(conditioned)} points lower conditioned, {least_and_most(printed)} "
        f"as printed, for about {in_words(cost)} point of accuracy",
    )
    assert cost.mean < 0
    for each in (CONDITIONED, PRINTED):
        first, second, third = (
            gap(LATE, epsilon, conditioned=each).mean / gap(LATE, epsilon, epoch=0, conditioned=each).mean
            for epsilon in EPSILONS
        )
        assert about(first, 1 / 2, 0.25) and about(second, 1 / 2, 0.25) and third >= 1


def test_accuracy_drops_at_once_and_comes_back_in_part():
    before, first, last = (over(natural(DVERGE, epoch)) for epoch in (0, 1, LAST))
    says(
        PAGE,
        f"drops at once from {whole(before)} to {whole(first)} % on average, and is at {whole(last)} % after "
        f"{number(LAST)} epochs",
    )


def test_with_the_official_recipe_accuracy_ends_where_it_began_and_transfer_falls_less():
    says(
        PAGE,
        "whose ball is about half as large and whose layers change, accuracy ends where it began and "
        "transfer falls less (conditioned at every ε, as printed at the two larger ones)",
    )
    ours, official = (dverge.PRESETS[name].epsilon for name in ("paper", "official"))
    assert about(official / ours, 1 / 2)
    change = differ(natural(OFFICIAL, LAST), natural(OFFICIAL, 0))
    assert abs(change.mean) < 0.005 and not excludes_zero(change)
    assert all(map(clearly_higher, gaps(OFFICIAL)))
    assert only_at_the_larger(gaps(OFFICIAL, conditioned=PRINTED), clearly_higher)


def test_after_plain_training_transfer_is_lower_too_and_accuracy_higher():
    small, middle, large = (gap(DVERGE, epsilon, other=PLAIN) for epsilon in EPSILONS)
    lead = 100 * small.mean
    says(
        PAGE,
        f"transfer is lower, too, and accuracy rises to {whole(over(natural(PLAIN, LAST)))} %",
        f"Conditioned, plain training ends {number(math.floor(lead))} to {number(math.ceil(lead))} points "
        f"lower than DVERGE at ε = 0.05, and DVERGE {lower(large)} points lower at ε = 0.15; at ε = 0.10 it "
        f"is {in_words(middle)}, and the interval just contains zero",
    )
    assert clearly_higher(small) and clearly_lower(large)
    assert clearly_higher(differ(natural(PLAIN, LAST), natural(PLAIN, 0)))
    assert middle.mean < 0 and about(middle.half_width, -middle.mean) and not excludes_zero(middle)
    for conditioned in (CONDITIONED, PRINTED):
        assert all(clearly_lower(fall(PLAIN, each, conditioned=conditioned)) for each in EPSILONS)


def test_at_laptop_scale_dverge_ends_lower_than_plain_training_at_the_larger_epsilons():
    says(
        PAGE,
        "At laptop scale DVERGE ends lower on average at every ε, by intervals that exclude zero at the two "
        "larger",
    )
    laptop = gaps(PLAIN, record=summaries.healthy(committed(RECORD, "laptop")))
    assert all(gap.mean > 0 for gap in laptop) and only_at_the_larger(laptop, clearly_higher)


def test_as_printed_plain_training_ends_far_lower_because_natural_errors_count():
    says(
        PAGE,
        "plain training ends far lower than DVERGE at ε = 0.05, above all because that rate counts natural "
        "errors, which DVERGE adds and plain training removes",
    )
    printed, conditioned = (gap(PLAIN, SMALL, conditioned=each) for each in (PRINTED, CONDITIONED))
    assert printed.mean < -0.2 and conditioned.mean > printed.mean / 2
    assert clearly_lower(differ(natural(DVERGE, LAST), natural(DVERGE, 0)))
    assert clearly_higher(differ(natural(PLAIN, LAST), natural(PLAIN, 0)))


def test_dverge_makes_networks_harder_to_fool_above_all_at_the_smallest_epsilon():
    says(
        PAGE,
        "Unlike plain training, DVERGE also makes each network harder to fool by this PGD, above all at ε = "
        "0.05; at ε = 0.15 nearly every attack still succeeds.",
    )

    def harder(start, epsilon):
        """By how much less of the images that both had read fools a network than before."""
        ends = (counts_by_seed(start, "source_fooled_clean", "n_clean", epsilon, epoch=e) for e in (0, LAST))
        return differ(*ends)

    falls = [harder(DVERGE, epsilon) for epsilon in EPSILONS]
    assert excludes_zero(falls[0]) and excludes_zero(falls[1])
    assert falls[0].mean > falls[1].mean > falls[2].mean > 0
    assert over(counts_by_seed(DVERGE, "source_fooled_clean", "n_clean", LARGE)).mean > 0.95
    assert not clearly_higher(harder(PLAIN, SMALL))


def test_dverge_leaves_a_fifth_of_the_images_to_fool_a_network_and_plain_training_more_than_half():
    says(
        PAGE,
        "DVERGE makes each network harder to fool: of the images that both had read, each of its networks is "
        "fooled on a fifth at ε = 0.05, each of plain training on more than half",
    )
    ours, plain = (
        over(counts_by_seed(each, "source_fooled_clean", "n_clean", SMALL)).mean for each in (DVERGE, PLAIN)
    )
    assert about(ours, 1 / 5, 0.1) and 1 / 2 < plain < 2 / 3


def test_dverges_pairs_misread_fewer_of_these_images_together():
    says(
        PAGE,
        "Of these images DVERGE's pairs misread fewer together at every ε on average, at the smallest with "
        "an interval that just contains zero",
    )
    more = [together(PLAIN, epsilon) for epsilon in EPSILONS]
    assert more[0].mean > 0 and about(more[0].half_width, more[0].mean)
    assert only_at_the_larger(more, clearly_higher)


# --- What to doubt -------------------------------------------------------------------------------


def test_as_printed_our_regular_pairs_fall_almost_exactly_as_the_authors():
    before, after = (over(transfer(DVERGE, MIDDLE, epoch=e, conditioned=PRINTED)) for e in (0, LAST))
    says(
        PAGE,
        f"our regular pairs go from {whole(before)} to {whole(after)} % at ε = {MIDDLE:.2f}, on average over "
        f"{number(after.n)} seeds, almost exactly as the authors' pair",
        "from {:.3f} to {:.3f} for the regular pair".format(*THEIRS),
    )
    assert all(abs(ours.mean - theirs) < 0.02 for ours, theirs in zip((before, after), THEIRS, strict=True))


def test_over_all_images_plain_training_still_ends_lower_at_the_smallest_epsilon():
    says(PAGE, "over really all images, plain training still ends lower at ε = 0.05 (paper scale)")
    plain, ours = (counts_by_seed(each, "both_fooled", "n", SMALL) for each in (PLAIN, DVERGE))
    assert clearly_lower(differ(plain, ours))


def test_the_intervals_after_plain_training_are_wide_and_one_decorrelated_pair_is_left():
    lost, tried = lost_before()
    says(
        PAGE,
        f"With {number(tried)} seeds the intervals after plain training are still wide, and of the pairs "
        f"decorrelated from the first step {number(tried - lost)} is left",
    )
    for epsilon in (MIDDLE, LARGE):
        assert over(transfer(PLAIN, epsilon)).half_width > 2 * over(transfer(DVERGE, epsilon)).half_width


def test_an_epoch_at_laptop_scale_has_fewer_images_and_fewer_steps():
    laptop = committed(RECORD, "laptop").config
    usual = dverge.PRESETS["paper"].steps
    says(
        PAGE,
        f"At laptop scale an epoch is {laptop['train_images']} images and distillation takes "
        f"{number(laptop['distil_steps'])} longer steps in place of {number(usual)}",
    )
    assert paper(RECORD).config["distil_steps"] is None


# --- Summary -------------------------------------------------------------------------------------


def test_the_summary_has_where_plain_training_ends():
    says(
        PAGE,
        "natural accuracy drops at once and comes back only in part, which is not in that figure. Plain "
        "training of the same cost lowers transfer, too",
        "at paper scale, conditioned, to less than DVERGE does at ε = 0.05, to more at ε = 0.15, and at "
        f"ε = 0.10 {number(gap(PLAIN, MIDDLE).n)} seeds do not tell the two apart. Of the images that both "
        "had read DVERGE's pairs misread fewer together at every ε, at the smallest by an interval that "
        "contains zero; plain training leaves each network no sturdier than before",
    )
    small, middle, large = gaps(PLAIN)
    assert clearly_lower(small) and not excludes_zero(middle) and clearly_higher(large)
    more = [together(PLAIN, epsilon) for epsilon in EPSILONS]
    assert more[0].mean > 0 and only_at_the_larger(more, clearly_higher)
    assert not clearly_higher(sturdier(PLAIN)) and clearly_lower(sturdier(PLAIN, MIDDLE))
    assert not clearly_higher(sturdier(PLAIN, LARGE))


def test_the_summary_has_where_a_decorrelated_start_ends():
    lost, tried = lost_before()
    says(
        PAGE,
        f"At paper scale {number(tried - lost)} of {number(tried)} has not, and it ends lower; late pairs "
        f"end {least_and_most(gaps(LATE))} points lower, by intervals that exclude zero at every ε (counted "
        "over the images that both had read, at the two larger ones)",
    )
    assert all(change.mean < 0 for change in gaps(DECORRELATED))
    assert all(map(clearly_lower, gaps(LATE)))
    assert only_at_the_larger([together(LATE, epsilon) for epsilon in EPSILONS], clearly_lower)


# --- Exercises -----------------------------------------------------------------------------------


def test_both_directions_fall_and_that_model_2_learns_last_does_not_show():
    def change(source):
        before, after = (transfer(DVERGE, MIDDLE, epoch=epoch, source=source) for epoch in (0, LAST))
        return {seed: after[seed] - before[seed] for seed in after}

    apart = differ(change(1), change(2))
    describes(
        PAGE, f"Both directions fall. That model 2 learns last does not show in {number(apart.n)} seeds"
    )
    assert all(clearly_lower(over(change(source))) for source in (1, 2))
    assert not excludes_zero(apart)

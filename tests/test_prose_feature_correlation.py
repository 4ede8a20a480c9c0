"""Chapter 3's numbers in prose, against the records."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from prose import (
    about,
    committed,
    describes,
    differ,
    excludes_zero,
    higher,
    hundredths,
    in_words,
    number,
    paper,
    says,
    tenths,
    whole,
)

from dnabook import CNN, measures, summaries
from dnabook.experiments.between import NATURAL_MAP, OWN_MAP
from dnabook.summaries import over, reading_by_seed

PAGE = "03_feature_correlation"
CONTROLS, LEARNED, CORRELATION = map(paper, ("controls", "learned_features", "feature_correlation"))
EPSILONS = CONTROLS.config["epsilons"]
AGES, (OWN, HIDDEN) = LEARNED.config["epochs"], LEARNED.config["heads"]
UNLEARNED, *_, TRAINED = AGES
WEAK, STRONG = LEARNED.config["epsilons"]


def _units():
    """How many features a CNN has of an image."""
    return measures.features(CNN(), torch.zeros(1, 1, 28, 28)).shape[1]


def _in_halves(value):
    """Rounded up to halves: 3.4 is "three and a half"."""
    halves = -int(-2 * value // 1)
    return number(halves // 2) + " and a half" * (halves % 2)


# --- Readings of `feature_correlation`, of regular CNNs


def _regular(reading):
    """The mean over seeds, of each direction."""
    where = {"architecture": "cnn", "arm": "regular"}
    return [summaries.predictability(CORRELATION, reading, source=source, **where).mean for source in (1, 2)]


# --- Readings of `controls`


def _related(source, target="trained", *, reading="heldout", architecture="cnn"):
    where = {"source": source, "target": target, "architecture": architecture}
    return reading_by_seed(CONTROLS, "predictability", reading, **where)


def _unexplained(source):
    """The share of a trained CNN's features that does not follow from a source's, of each pair."""
    return {seed: 1 - r2 for seed, r2 in _related(source).items()}


def _beyond(epsilon, **where):
    """By how much an attack does more harm than random signs."""
    return over(summaries.beyond_signs_by_seed(CONTROLS, epsilon, **where))


def _explains(architecture, name, epsilon):
    where = {"architecture": architecture, "map": name, "epsilon": epsilon}
    return over(reading_by_seed(CONTROLS, "movement", "explains", **where)).mean


# --- Readings of `learned_features`


def _r2(epochs):
    return over(reading_by_seed(LEARNED, "relation", "heldout", epochs=epochs)).mean


def _source(reading, epochs, head):
    return over(reading_by_seed(LEARNED, "sources", reading, epochs=epochs, head=head)).mean


def _moved(name, epochs, epsilon=STRONG, **where):
    """The share of the movement that a map explains, behind both heads unless one is given."""
    where |= {"map": name, "epochs": epochs, "epsilon": epsilon}
    return over(reading_by_seed(LEARNED, "movement", "explains", **where))


def _passed(epsilon, epochs, head):
    """Transfer from features of that age, less what random signs do."""
    return over(summaries.beyond_signs_by_seed(LEARNED, epsilon, epochs=epochs, head=head))


def _ranked(epsilon=STRONG):
    """Of R², of the movement that either map explains and of the cosine: ρ with transfer, of each seed."""
    cells = {"r2": [], "movement": [], "own": [], "cosine": []}
    for where in ({"epochs": epochs, "head": head} for epochs in AGES for head in (OWN, HIDDEN)):
        natural, own = (
            reading_by_seed(LEARNED, "movement", "explains", map=name, epsilon=epsilon, **where)
            for name in (NATURAL_MAP, OWN_MAP)
        )
        passed = summaries.beyond_signs_by_seed(LEARNED, epsilon, **where)
        readings = (
            reading_by_seed(LEARNED, "relation", "heldout", epochs=where["epochs"]),
            natural,
            own,
            reading_by_seed(LEARNED, "sources", "gradient_cosine", **where),
        )
        for name, reading in zip(cells, readings, strict=True):
            cells[name].append((reading, passed))
    return {name: summaries.rank_correlation_by_seed(pairs) for name, pairs in cells.items()}


def _rank_correlations():
    """The same over seeds, at the larger ε."""
    return {name: over(rhos) for name, rhos in _ranked().items()}


# --- The page's head -----------------------------------------------------------------------------


def test_untrained_features_predict_nearly_as_well_and_transfer_hardly_more_than_noise():
    says(
        PAGE,
        "between CNNs an untrained network's features predict a trained one's nearly as well",
        "from CNNs with such untrained features hardly more passes on than noise of the same size would do",
    )
    change = differ(_related("untrained"), _related("trained"))
    assert -0.06 < change.mean < 0 and excludes_zero(change)
    for epsilon in EPSILONS:
        assert abs(_beyond(epsilon, architecture="cnn").mean) < 0.05


def test_the_movement_that_the_natural_map_explains_rises_with_transfer():
    says(
        PAGE,
        "What rises from next to nothing, as transfer does while features learn, is how much the same map "
        "says of the way that an attack moves them, and how far the input gradients agree.",
    )
    explained = [_moved(NATURAL_MAP, epochs).mean for epochs in AGES]
    rho = _rank_correlations()["movement"]
    assert explained == sorted(explained) and rho.mean > 0 and excludes_zero(rho)


# --- The trap: too few images --------------------------------------------------------------------


def test_the_chance_floor_of_a_batch_is_as_high_as_the_page_says():
    batch, units = CORRELATION.config["training"]["batch_size"], _units()
    says(
        PAGE,
        f"At the released code's batch size of {batch} that floor is nearly four fifths if all {units} units "
        "of the CNN live",
    )
    assert 0.75 < units / (batch - 1) < 4 / 5


# --- The recorded result -------------------------------------------------------------------------


def test_the_rows_of_the_cnns_read_as_the_page_says():
    says(
        PAGE,
        "in-sample $R^2$ is nearly one, but noise of the same rank would reach nearly three quarters. Held "
        "out it is only a little lower, so little of it is chance. And the effective rank is about a dozen, "
        f"of {_units()} units",
    )
    batch = CORRELATION.config["training"]["batch_size"]
    for in_sample, heldout, rank, effective in zip(
        *map(_regular, ("batch_in_sample", "heldout", "rank", "effective_rank")), strict=True
    ):
        assert 0.99 < in_sample < 1 and 0 < in_sample - heldout < 0.04
        assert 0.7 < rank / (batch - 1) < 3 / 4
        assert about(effective, 12, 0.1)


# --- What needs no learning ----------------------------------------------------------------------


def test_between_cnns_little_is_left_unexplained_by_whatever_source():
    trained, untrained, pixels = map(_unexplained, ("trained", "untrained", "pixels"))
    times = [untrained[seed] / trained[seed] for seed in trained]
    says(
        PAGE,
        f"A trained network leaves about {hundredths(over(trained).mean)} of the variance of another's "
        f"features unexplained, an untrained one {number(int(min(times)))} to {_in_halves(max(times))} times "
        "as much, which still is little, and even the pixels only about an eighth.",
        "CKA puts these three in the same order.",
    )
    assert about(over(pixels).mean, 1 / 8, 0.1)
    agreed = [over(_related(source, reading="cka")).mean for source in ("trained", "untrained", "pixels")]
    assert agreed == sorted(agreed, reverse=True)


def test_between_cnns_most_of_the_rise_comes_with_a_trained_target_as_in_the_miniature():
    says(PAGE, "Between CNNs the miniature is borne out.")
    least, target, most = (
        over(_related(*pair)).mean
        for pair in (("untrained", "untrained"), ("untrained", "trained"), ("trained", "trained"))
    )
    assert target - least > most - target > 0


def test_between_fully_connected_networks_learning_matters():
    says(
        PAGE,
        "learning matters: an untrained one explains less than half, less than the pixels do (paper scale).",
    )
    untrained, pixels, trained = (
        over(_related(source, architecture="fully_connected")).mean
        for source in ("untrained", "pixels", "trained")
    )
    assert untrained < 0.5 < pixels < trained


def test_attacks_on_cnns_with_untrained_features_do_hardly_more_harm_than_random_signs():
    untrained = [_beyond(epsilon, architecture="cnn") for epsilon in EPSILONS]
    trained = [_beyond(epsilon, architecture="cnn", learned=True) for epsilon in EPSILONS]
    lowest, highest = (whole(pick(change.mean for change in trained)) for pick in (min, max))
    says(
        PAGE,
        "The CNNs with untrained features read three digits in four",
        f"attacks on them turn at most {number(round(100 * max(each.mean for each in untrained)))} points "
        "more of its digits wrong on average than random signs do, by intervals that contain zero at "
        f"{number(len(EPSILONS) - sum(map(excludes_zero, untrained)))} ε of {number(len(EPSILONS))}, where "
        f"attacks on a trained CNN turn {lowest} to {highest} points more wrong (paper scale)",
        "in the few hundredths that only the trained network explains",
    )
    assert about(summaries.accuracy(CONTROLS, of="accuracy_of_heads", architecture="cnn").mean, 3 / 4, 0.05)
    assert all(each.mean > 0 and excludes_zero(each) for each in trained)
    assert 0.02 < differ(_related("trained"), _related("untrained")).mean < 0.06


def test_between_fully_connected_networks_a_low_r2_and_no_transfer_go_together():
    says(
        PAGE,
        "Between fully connected networks a low $R^2$ and no transfer go together",
        "Attacks on them do no more harm than random signs at ε = 0.05, and less at larger ε.",
    )
    weak, *larger = (_beyond(epsilon, architecture="fully_connected") for epsilon in EPSILONS)
    assert over(_related("untrained", architecture="fully_connected")).mean < 0.5
    assert EPSILONS[0] == 0.05 and abs(weak.mean) < 0.005 and not excludes_zero(weak)
    assert all(each.mean < 0 and excludes_zero(each) for each in larger)


def test_chapter_4_has_trained_features_with_a_low_r2_and_nearly_all_of_the_transfer():
    says(PAGE, "chapter 4 has trained ones with a low $R^2$ and nearly all of the transfer.")
    variants, corrected = paper("variants"), {"architecture": "fully_connected", "variant": "corrected"}
    assert summaries.predictability(variants, **corrected).mean < 0.25
    for epsilon in variants.config["epsilons"]:
        where = {"attack": "pgd-linf", "epsilon": epsilon}
        regular = {"architecture": "fully_connected", "arm": "regular"}
        ours = summaries.transfer(variants, **where, **corrected).mean
        assert about(ours, summaries.transfer(paper("transfer"), **where, **regular).mean, 0.1)


def test_maps_between_natural_features_predict_the_movement_as_far_as_the_page_says():
    regularised = [f"ridge {ridge:g}" for ridge in CONTROLS.config["ridges"][1:]]
    natural = [_explains("cnn", name, epsilon) for name in regularised for epsilon in EPSILONS]
    own = [round(10 * _explains("cnn", OWN_MAP, epsilon)) for epsilon in EPSILONS]
    says(
        PAGE,
        f"but for {number(len(CONTROLS.whole_seeds))} pairs at every ε",
        "Between CNNs it needs a ridge, and then explains between "
        f"{tenths(min(natural)).removesuffix(' tenths')} and {tenths(max(natural))}, where a map made for "
        f"movements explains {number(own[0])} (paper scale).",
    )
    assert min(own) == max(own)
    unregularised = f"ridge {CONTROLS.config['ridges'][0]:g}"
    assert all(_explains("cnn", unregularised, epsilon) < 0.4 for epsilon in EPSILONS)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_between_fully_connected_networks_any_ridge_predicts_most_of_the_movement(epsilon):
    says(
        PAGE,
        "Between fully connected networks the map that holds for natural features predicts most of the "
        "movement with any ridge, at the two largest ε nearly as much as a map made for movements.",
    )
    own = _explains("fully_connected", OWN_MAP, epsilon)
    for ridge in CONTROLS.config["ridges"]:
        natural = _explains("fully_connected", f"ridge {ridge:g}", epsilon)
        assert own > natural > 0.7
        assert epsilon not in EPSILONS[-2:] or about(natural, own, 0.1)


# --- What rises with transfer --------------------------------------------------------------------


def test_a_hidden_layer_reads_more_digits_however_little_the_features_have_learned():
    says(
        PAGE,
        "Untrained features transfer next to nothing, trained ones much.",
        "(at laptop scale for fewer)",
        "which reads more digits, however little the features have learned",
    )
    for epochs in AGES:
        assert _source("accuracy", epochs, HIDDEN) > _source("accuracy", epochs, OWN)
    for head in (OWN, HIDDEN):
        before, after = (_passed(STRONG, epochs, head) for epochs in (UNLEARNED, TRAINED))
        assert before.mean < 0.06 and not excludes_zero(before)
        assert after.mean > 0.1 and excludes_zero(after)
    assert max(committed("learned_features", "laptop").config["epochs"]) < max(AGES)


def test_the_description_of_the_figure_of_learned_features_holds():
    explained = [_moved(NATURAL_MAP, epochs).mean for epochs in AGES]
    described = (
        "Left, R squared of natural features and the share of the movement that a map of its own explains "
        "are near one from the start, while the share of the movement that the natural map explains begins "
        f"below zero and climbs to about {tenths(explained[-1])}, the same for both heads. Middle, the "
        "cosine of the gradients begins near a tenth and rises, more for the network's own head. Right, "
        "transfer beyond random signs begins near zero and rises, for a hidden layer less than half as high."
    )
    describes(PAGE, described)
    assert min(_r2(UNLEARNED), _moved(OWN_MAP, UNLEARNED).mean) > 0.8
    assert explained[0] < 0 and not excludes_zero(_moved(NATURAL_MAP, UNLEARNED))
    assert explained == sorted(explained)
    for epochs in AGES:
        own, hidden = (_moved(NATURAL_MAP, epochs, head=head).mean for head in (OWN, HIDDEN))
        assert abs(own - hidden) < 0.05
    own, hidden = ([_source("gradient_cosine", epochs, head) for epochs in AGES] for head in (OWN, HIDDEN))
    assert abs(own[0] - 0.1) < 0.05 and abs(hidden[0] - 0.1) < 0.05
    assert own[-1] - own[0] > hidden[-1] - hidden[0] > 0.1
    assert _passed(STRONG, TRAINED, HIDDEN).mean < _passed(STRONG, TRAINED, OWN).mean / 2


def test_r2_leaves_as_little_unexplained_as_the_page_says():
    says(
        PAGE,
        "Before the features have learned anything, $R^2$ of natural features leaves "
        f"{hundredths(1 - _r2(UNLEARNED))} unexplained; in the end it leaves "
        f"{hundredths(1 - _r2(TRAINED)).split()[0]}. That goes with transfer, too",
        f"and the head has its own part (paper scale, {number(len(LEARNED.whole_seeds))} seeds):",
    )
    rho = _rank_correlations()["r2"]
    assert rho.mean > 0 and excludes_zero(rho)


def test_the_movement_under_attack_needs_another_map_until_features_have_learned():
    begun = _moved(NATURAL_MAP, 1)
    says(
        PAGE,
        "is nearly as linear as anything here: a map fitted on movements explains "
        f"{whole(_moved(OWN_MAP, UNLEARNED))} % of it. But it is another map than the one that holds for "
        "natural features, which explains nothing.",
        f"the natural map explains about {tenths(begun.mean)} of the movement after one epoch, behind "
        "Figure 11's head by an interval that still contains zero, behind the hidden layer by one that just "
        f"excludes it, and about {tenths(_moved(NATURAL_MAP, TRAINED).mean)} in the end",
    )
    assert _moved(OWN_MAP, UNLEARNED).mean > 0.9 * max(_moved(OWN_MAP, epochs).mean for epochs in AGES)
    for epsilon in (WEAK, STRONG):
        nothing = _moved(NATURAL_MAP, UNLEARNED, epsilon)
        assert nothing.mean - nothing.half_width < 0 and nothing.mean < 0.02
    own, hidden = (_moved(NATURAL_MAP, 1, head=head) for head in (OWN, HIDDEN))
    assert tenths(own.mean) == tenths(hidden.mean) == tenths(begun.mean)
    assert not excludes_zero(own) and excludes_zero(hidden) and hidden.half_width > 0.9 * hidden.mean


def test_the_cosine_of_the_gradients_orders_the_rows_almost_as_transfer_does():
    says(
        PAGE,
        "Of untrained features they are nearly orthogonal to the regular network's; in the end their cosine "
        "is about a third, behind Figure 11's head.",
        "Within a seed it orders the rows almost as transfer does.",
    )
    assert all(abs(_source("gradient_cosine", UNLEARNED, head)) < 0.1 for head in (OWN, HIDDEN))
    assert about(_source("gradient_cosine", TRAINED, OWN), 1 / 3, 0.1)
    assert _rank_correlations()["cosine"].mean > 0.85


def test_only_at_the_larger_epsilon_does_the_cosine_order_better_than_r2_and_the_natural_map():
    strong, weak = (
        [differ(_ranked(epsilon)["cosine"], _ranked(epsilon)[name]) for name in ("r2", "movement")]
        for epsilon in (STRONG, WEAK)
    )
    assert (WEAK, STRONG) == (0.05, 0.10)
    says(
        PAGE,
        f"At ε = 0.10 its ρ is {higher(strong[0])} hundredths above that of $R^2$ and {higher(strong[1])} "
        "above that of the movement that the natural map explains; at ε = 0.05 both intervals contain zero "
        f"({higher(weak[0])} and {higher(weak[1])}).",
        "the rows pool two heads, which $R^2$ cannot tell apart by construction.",
    )
    assert all(map(excludes_zero, strong)) and not any(map(excludes_zero, weak))
    assert "head" not in next(iter(LEARNED.rows("relation")))


def test_the_map_fitted_on_movements_ranks_better_than_the_natural_one():
    ranked = _ranked()
    own, natural = (higher(over(ranked[name])) for name in ("own", "movement"))
    says(
        PAGE,
        "the map fitted on movements, which explains much from the start, orders the rows better than the "
        f"natural map, with a ρ of {own} hundredths at ε = 0.10 against {natural}, by an interval that "
        "excludes zero.",
    )
    ahead = differ(ranked["own"], ranked["movement"])
    assert ahead.mean > 0 and excludes_zero(ahead)


def test_a_hidden_layer_is_no_excuse_for_untrained_features():
    before, after = (
        [_passed(epsilon, epochs, HIDDEN) for epsilon in (WEAK, STRONG)] for epochs in (UNLEARNED, TRAINED)
    )
    most = max(round(100 * each.mean) for each in before)
    says(
        PAGE,
        "behind a hidden layer they are read nearly as well as trained ones, and still attacks turn on "
        f"average at most {number(most)} point{'s' * (most != 1)} more digits wrong than random signs (at "
        f"ε = 0.05 by an interval that excludes zero), where trained features make it about "
        f"{in_words(after[1])}.",
    )
    assert 0 < _source("accuracy", TRAINED, HIDDEN) - _source("accuracy", UNLEARNED, HIDDEN) < 0.02
    assert WEAK == 0.05 and excludes_zero(before[0]) and not excludes_zero(before[1])
    assert about(after[0].mean, after[1].mean, 0.15)


def test_behind_trained_features_the_hidden_layer_passes_on_half_of_what_the_own_head_does():
    says(
        PAGE,
        "But behind trained features, with the same $R^2$ and as much of the movement explained, the hidden "
        "layer passes on half of what Figure 11's head does at ε = 0.05, and less at ε = 0.10. Only the "
        "cosine of the gradients",
    )
    weak, strong = (
        _passed(epsilon, TRAINED, HIDDEN).mean / _passed(epsilon, TRAINED, OWN).mean
        for epsilon in (WEAK, STRONG)
    )
    assert (WEAK, STRONG) == (0.05, 0.10) and about(weak, 1 / 2, 0.1) and strong < min(weak, 0.45)
    for epsilon in (WEAK, STRONG):
        own, hidden = (_moved(NATURAL_MAP, TRAINED, epsilon, head=head).mean for head in (OWN, HIDDEN))
        assert about(own, hidden, 0.05)
    own, hidden = (
        reading_by_seed(LEARNED, "sources", "gradient_cosine", epochs=TRAINED, head=head)
        for head in (OWN, HIDDEN)
    )
    apart = differ(own, hidden)
    assert apart.mean > 0 and excludes_zero(apart)


# --- What to doubt -------------------------------------------------------------------------------


def test_split_at_random_the_r2_of_a_regular_pair_hardly_differs():
    says(PAGE, "split at random instead, a regular pair's $R^2$ hardly differs")
    as_they_come = summaries.heldout_by_seed(CORRELATION, architecture="cnn", arm="regular", source=1)
    assert abs(differ(_related("trained"), as_they_come).mean) < 0.005


def test_heads_on_untrained_features_read_fewer_digits():
    says(PAGE, "of Figure 11's kind read fewer digits than trained networks")
    for architecture in CONTROLS.config["architectures"]:
        trained, heads = (
            summaries.accuracy_by_seed(CONTROLS, of=of, architecture=architecture)
            for of in ("accuracy", "accuracy_of_heads")
        )
        fewer = differ(heads, trained)
        assert fewer.mean < 0 and excludes_zero(fewer)


def test_the_ridge_of_the_learned_features_suits_trained_networks_best():
    says(
        PAGE,
        "That section uses one ridge, the one that suits trained networks best",
        "Nor does $R^2$ near one tell two networks apart of which one leaves more than twice as much "
        "unexplained.",
    )
    for epsilon in EPSILONS:
        explained = {
            f"ridge {r:g}": _explains("cnn", f"ridge {r:g}", epsilon) for r in CONTROLS.config["ridges"]
        }
        assert max(explained, key=explained.get) == NATURAL_MAP
    trained, untrained = map(_unexplained, ("trained", "untrained"))
    assert all(untrained[seed] > 2 * trained[seed] for seed in trained)


# --- Summary -------------------------------------------------------------------------------------


def test_features_of_regular_cnns_follow_nearly_linearly_in_both_directions():
    says(
        PAGE, "By held-out $R^2$ in both directions, one CNN's features follow nearly linearly from another's"
    )
    assert min(_regular("heldout")) > 0.95


def test_what_the_paper_does_not_say():
    says(
        PAGE,
        "attacks on CNNs with untrained features do a trained one hardly more harm than random signs, "
        "whichever of two heads reads them",
        "must be regularised before it predicts how an attack moves them",
        "from next to nothing, while $R^2$ rises by "
        f"{hundredths(_r2(TRAINED) - _r2(UNLEARNED))}, and a map fitted on movements does well from the",
    )
    for epsilon in (WEAK, STRONG):
        assert all(_passed(epsilon, UNLEARNED, head).mean < 0.06 for head in (OWN, HIDDEN))
    for epsilon in EPSILONS:
        first, *others = (_explains("cnn", f"ridge {r:g}", epsilon) for r in CONTROLS.config["ridges"])
        assert min(others) > first + 0.2
    for readings in (
        [_r2(epochs) for epochs in AGES],
        [_moved(NATURAL_MAP, epochs).mean for epochs in AGES],
    ):
        assert all(before < after for before, after in pairwise(readings))
    assert _moved(OWN_MAP, UNLEARNED).mean > 0.8

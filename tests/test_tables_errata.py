"""The errata's tables and sentences, from records whose numbers can be counted by hand."""

from __future__ import annotations

import pytest
from markdown_tables import PROVENANCE, body, cells

from dnabook.experiments import autoencoder_mnist
from dnabook.records import Record
from dnabook.tables import AUTOENCODERS
from dnabook.tables import errata as tables

EPSILONS = [0.05, 0.10, 0.15]


def trial(setting, seed=0, **values):
    return {"setting": setting, "seed": seed, "values": values, "provenance": PROVENANCE}


def pair(architecture, arm, seed=0, accuracy=(0.9, 1.0), **values):
    return trial({"architecture": architecture, "arm": arm}, seed, accuracy=list(accuracy), **values)


# --- The correlation loss ------------------------------------------------------------------------


def variant(name, seed, accuracy, there, back, *, architecture="cnn"):
    """there, back: R², live units and images of 100 that transfer at ε = 0.10, 1 → 2 and 2 → 1."""
    predictability = [
        {"source": s, "heldout": r2, "live_units": live} for s, (r2, live, _) in enumerate((there, back), 1)
    ]
    transfer = [
        {"attack": "pgd-linf", "epsilon": e, "source": s, "source_fooled_clean": 100,
         "both_fooled_clean": fooled if e == 0.10 else 1}
        for e in EPSILONS for s, (_, _, fooled) in enumerate((there, back), 1)
    ]  # fmt: skip
    setting = {"architecture": architecture, "variant": name}
    return trial(setting, seed, accuracy=accuracy, predictability=predictability, transfer=transfer)


@pytest.fixture
def variants():
    config = {"architectures": ["cnn"], "variants": ["released", "summed", "corrected"], "epsilons": EPSILONS}
    trials = [
        variant("released", 0, [0.90, 0.92], (0.6, 100, 20), (0.8, 700, 40)),
        variant("released", 1, [0.99, 0.10], (0.1, 1, 90), (0.1, 1, 90)),
        variant("corrected", 0, [0.97, 0.97], (0.5, 300, 30), (0.4, 310, 35)),
        variant("corrected", 1, [0.97, 0.97], (0.5, 300, 30), (0.4, 310, 35)),
        variant("corrected", 2, [0.97, 0.97], (0.5, 300, 30), (0.4, 310, 35)),
    ]
    return Record("variants", "smoke", config, trials)


def test_each_variant_has_its_collapsed_pairs_counted_and_its_others_averaged(variants):
    released, _, corrected = body(tables.loss_variants(variants))
    assert released == ["CNN", "released", "1 of 2", "91 %", "0.60", "0.80", "100", "700", "20 %", "40 %"]
    assert corrected == ["CNN", "corrected", "0 of 3", "97 ± 0 %", "0.50 ± 0.00", "0.40 ± 0.00", "300 ± 0",
                         "310 ± 0", "30 ± 0 %", "35 ± 0 %"]  # fmt: skip


def test_of_two_pairs_both_values_stand_in_the_order_of_their_seeds(variants):
    left = [
        variant("summed", 2, [0.95, 0.97], (-1.5, 7, 26), (0.85, 720, 50)),
        variant("summed", 1, [0.93, 0.95], (0.6, 146, 13), (0.93, 768, 30)),
    ]
    lost = variant("summed", 0, [0.99, 0.10], (0.1, 1, 90), (0.1, 1, 90))
    variants.trials[2:2] = [*left, lost]
    text = tables.loss_variants(variants)
    assert body(text)[1] == ["CNN", "summed", "1 of 3", "94, 96 %", "0.60, −1.50", "0.93, 0.85", "146, 7",
                             "768, 720", "13, 26 %", "30, 50 %"]  # fmt: skip
    assert "Where two such pairs are left, both values stand, in the order of their seeds" in text


def test_of_two_pairs_of_which_one_was_never_fooled_the_other_s_rate_stands_alone(variants):
    never = variant("summed", 0, [0.95, 0.97], (0.6, 700, 13), (0.9, 768, 30))
    for row in never["values"]["transfer"]:
        row.update(source_fooled_clean=0, both_fooled_clean=0)
    variants.trials += [never, variant("summed", 1, [0.93, 0.95], (0.6, 146, 26), (0.93, 768, 50))]
    found = body(tables.loss_variants(variants))[1]
    assert found[4] == "0.60, 0.60" and found[-2:] == ["26 %", "50 %"]


def test_a_variant_without_a_trial_has_no_value(variants):
    assert body(tables.loss_variants(variants))[1] == ["CNN", "summed", "0 of 0", *["no value"] * 7]


def test_the_caption_of_the_variants_names_the_middle_epsilon(variants):
    text = tables.loss_variants(variants)
    assert "PGD-ℓ∞ at ε = 0.10. Means" in text and text.endswith(f"says little. {variants.caption()}.")
    assert cells(text)[0][4:] == [
        "R² 1 → 2", "R² 2 → 1", "live units 1", "live units 2", "transfer 1 → 2", "transfer 2 → 1"
    ]  # fmt: skip


def features(*trials):
    kinds = [["cnn", "regular"], ["fully_connected", "decorrelated"]]
    return Record("feature_correlation", "smoke", {"pairs": kinds, "training": {"batch_size": 101}}, trials)


def predicted(there, back, **more):
    """there, back: R² held out and in a batch, 1 → 2 and 2 → 1."""
    return [
        {"source": s, "heldout": held, "batch_in_sample": batch, **more}
        for s, (held, batch) in enumerate((there, back), 1)
    ]


def test_the_two_directions_stand_side_by_side_held_out_before_in_one_batch():
    record = features(
        pair("cnn", "regular", predictability=predicted((0.97, 0.99), (0.96, 0.98))),
        pair("fully_connected", "decorrelated", predictability=predicted((-0.5, 0.1), (0.9, 0.93))),
        pair("fully_connected", "decorrelated", 1, (0.1, 0.9), predictability=predicted((0, 0), (0, 0))),
    )
    text = tables.both_directions(record)
    assert cells(text)[0][1:3] == ["held out 1 → 2", "held out 2 → 1"]
    assert cells(text)[0][3:] == ["in one batch 1 → 2", "in one batch 2 → 1"]
    assert body(text) == [
        ["CNN, regular", "0.97", "0.96", "0.99", "0.98"],
        ["fully connected, decorrelated", "−0.50", "0.90", "0.10", "0.93"],
    ]


def ranked(arm, seed, rank, architecture="cnn"):
    """A pair whose model 1 has this rank, and whose model 2 has rank 9."""
    both = [{"source": 1, "rank": rank}, {"source": 2, "rank": 9}]
    return pair(architecture, arm, seed, predictability=both)


def test_the_floor_is_the_rank_of_model_1_over_the_batch_less_one_in_regular_pairs():
    other = ranked("regular", 0, 20, "fully_connected")
    record = features(ranked("regular", 0, 50), ranked("decorrelated", 0, 7), other)
    assert tables.chance_floor(record) == (
        "Floor r/(N − 1) of a batch of N = 101 images, regular pairs. CNN: rank 50, floor **0.50**; "
        "fully connected: rank 20, floor **0.20**."
    )


def test_the_floor_of_a_pair_with_more_units_than_images_is_one():
    text = tables.chance_floor(features(ranked("regular", 0, 50), ranked("regular", 1, 200)))
    assert "CNN: rank 125 ± " in text and "floor **0.75 ± " in text
    assert text.endswith("fully connected: rank no value, floor **no value**.")


# --- Autoencoders --------------------------------------------------------------------------------


def counts(right, attack="pgd", epsilon=0.10, objective="printed", **rules):
    """Of 100 images, `right` are read by every rule but those that are given."""
    names = ("first", "second", *tables.RULES)
    return {
        **dict.fromkeys(names, right), "attack": attack, "epsilon": epsilon, "objective": objective, "n": 100,
        **rules,
    }  # fmt: skip


def autoencoder(arm, seed=0, mse=(0.01,), **values):
    quality = {"mse": list(mse), **values.pop("quality", {})}
    return trial({"arm": arm}, seed, quality=quality, **values)


def mnist(*trials, **config):
    arms = list(dict.fromkeys(t["setting"]["arm"] for t in trials))
    config = {
        "arms": arms, "epsilons": EPSILONS, "attacks": ["fgsm", "pgd"],
        "objectives": ["printed", "corrected"], "training": {"classifier_epochs": 4}, **config,
    }  # fmt: skip
    return Record("autoencoder_mnist", "smoke", config, trials)


def test_each_path_has_its_error_its_direction_of_r2_and_its_live_units():
    clean = counts(0, "none", 0.0, first=90, second=94, either=97)
    quality = {"heldout": [0.1, 0.9], "live_units": [12, 34]}
    text = tables.reconstructions(mnist(autoencoder("dna", mse=(0.02, 0.03), quality=quality, clean=clean)))
    assert cells(text)[0] == ["arm", "MSE 1", "MSE 2", "R² 1 → 2", "R² 2 → 1", "live units 1", "live units 2",
                            "mean path", "either path"]  # fmt: skip
    assert body(text) == [
        ["DNA (released Eq. 4)", "0.0200", "0.0300", "0.10", "0.90", "12", "34", "92 %", "97 %"]
    ]


def test_a_single_path_is_shown_twice_and_a_dead_neck_has_no_r2():
    clean = counts(95, "none", 0.0)
    whole, dead = {"heldout": [0.1, 0.9], "live_units": [9, 9]}, {"live_units": [0, 9]}
    record = mnist(
        autoencoder("autoencoder", quality={"live_units": [9]}, clean=clean),
        autoencoder("dna", 0, (0.02, 0.02), quality=whole, clean=clean),
        autoencoder("dna", 1, (0.02, 0.02), quality=dead, clean=clean),
    )
    one, two = body(tables.reconstructions(record))
    assert one == ["autoencoder", "0.0100", "0.0100", "no value", "no value", "9", "9", "95 %", "95 %"]
    assert two[1:5] == ["0.0200 ± 0.0000", "0.0200 ± 0.0000", "0.10", "0.90"]


ERRORS = {
    "autoencoder": (0.02,),
    "dna": (0.03, 0.05),
    "dna_regular": (0.018, 0.018),
    "dna_printed": (0.05, 0.07),
}


def test_squared_errors_are_compared_by_the_mean_of_their_paths():
    assert tables.squared_errors(mnist(*(autoencoder(arm, mse=mse) for arm, mse in ERRORS.items()))) == (
        "The DNA's squared error is **100 %** above the autoencoder's (D24); with Eq. 4 as printed it is "
        "**50 %** above that of the released form (D10); with λ = 0 it is **−10 %** above the autoencoder's."
    )


def test_squared_errors_are_compared_seed_by_seed_and_only_of_recorded_arms():
    record = mnist(
        autoencoder("autoencoder", 0, (0.02,)), autoencoder("autoencoder", 1, (0.01,)),
        autoencoder("dna", 0, (0.04, 0.04)), autoencoder("dna", 1, (0.02, 0.02)),
        autoencoder("dna", 2, (9.0, 9.0)),
    )  # fmt: skip
    text = tables.squared_errors(record)
    assert text == "The DNA's squared error is **100 ± 0 %** above the autoencoder's (D24)."


# --- Attacks -------------------------------------------------------------------------------------


def attacked_in_l2(name, seed=0, accuracy=(0.95, 0.8)):
    """By FGSM at ε = 0.05 lengths are 0.1 as released and 1.3 as corrected, and 6 and 40 of 200 are fooled.

    By PGD lengths are 1 and fooled ones 2 more; each step of ε adds 0.01 to lengths and 20 to fooled ones.
    """
    found = [
        {"attack": attack, "epsilon": e, "n": 200, "radius": 28 * e,
         "released_length": 0.1 + longer + i / 100, "corrected_length": 1.3 + longer + i / 100,
         "released_fooled": 6 + 2 * longer + 20 * i, "corrected_fooled": 40 + 2 * longer + 20 * i}
        for attack, longer in (("fgsm", 0), ("pgd", 1)) for i, e in enumerate(EPSILONS)
    ]  # fmt: skip
    read = [{"attack": "pgd-linf", "epsilon": e, "n": 200, "n_clean": 180} for e in EPSILONS]
    return trial(
        {"architecture": "cnn", "variant": name}, seed, accuracy=list(accuracy), l2=found, transfer=read
    )


def l2_record(*trials, variants):
    config = {"architectures": ["cnn"], "variants": variants, "epsilons": EPSILONS}
    return Record("variants", "smoke", config, trials)


def test_l2_attacks_have_a_row_each_and_two_columns_a_measure():
    collapsed = attacked_in_l2("none", 1, (0.1, 0.9))
    for row in collapsed["values"]["l2"]:
        row.update(released_fooled=200, corrected_fooled=200)
    record = l2_record(attacked_in_l2("none"), collapsed, variants=["none", "corrected"])
    text = tables.l2_attacks(record)
    assert cells(text)[0][3:] == ["radius", "length, released", "length, corrected", "fooled, released",
                                "fooled, corrected"]  # fmt: skip
    found = body(text)
    assert [row[1:3] for row in found] == [[a, e] for a in ("FGSM", "PGD") for e in ("0.05", "0.10", "0.15")]
    assert found[0] == ["CNN", "FGSM", "0.05", "1.40", "0.10", "1.30", "3 %", "20 %"]
    assert found[5] == ["CNN", "PGD", "0.15", "4.20", "1.12", "2.32", "24 %", "41 %"]


def test_what_is_fooled_is_compared_with_errors_on_the_same_images_and_model_1_s_on_all():
    text = tables.l2_attacks(l2_record(attacked_in_l2("none"), variants=["none"]))
    assert (
        "Wrong without any attack: CNN **10 %** of the same images, by one model or the other, and **5 %** "
        "of all test images by model 1. Variant `none`, batches of 200 images."
    ) in text


def test_the_l2_attacks_are_on_corrected_pairs_where_none_are_trained_without_the_loss():
    other = attacked_in_l2("released", accuracy=(0.6, 0.6))
    record = l2_record(other, attacked_in_l2("corrected"), variants=["released", "corrected"])
    text = tables.l2_attacks(record)
    assert (
        "**5 %** of all test images by model 1. Variant `corrected`" in text and body(text)[0][-1] == "20 %"
    )


def two_paths(arm, seed=0, printed=60, corrected=50, strongest=40, fgsm=99):
    """Read after PGD at ε = 0.05; ten fewer at each further ε."""
    each = (("printed", printed), ("corrected", corrected), ("strongest", strongest))
    attacked = [counts(fgsm, "fgsm", e, objective) for e in EPSILONS for objective, _ in each]
    attacked += [
        counts(right - 10 * i, "pgd", e, objective)
        for i, e in enumerate(EPSILONS)
        for objective, right in each
    ]
    return autoencoder(arm, seed, (0.01, 0.01), attacked=attacked)


def one_path(seed=0, printed=45, strongest=35):
    attacked = [
        counts(right - 10 * i, "pgd", e, objective)
        for i, e in enumerate(EPSILONS)
        for objective, right in (("printed", printed), ("strongest", strongest))
    ]
    return autoencoder("autoencoder", seed, attacked=attacked)


def test_every_objective_has_a_column_and_the_printed_eq_4_no_row():
    arms = two_paths("dna"), two_paths("dna_regular", printed=66), two_paths("dna_printed")
    text = tables.objectives(mnist(*arms))
    assert cells(text)[0] == ["arm", "attack", "ε", "printed", "corrected", "strongest"]
    assert body(text) == [
        ["DNA (released Eq. 4)", "PGD", "0.05", "60 %", "50 %", "40 %"],
        ["DNA (released Eq. 4)", "PGD", "0.10", "50 %", "40 %", "30 %"],
        ["DNA (released Eq. 4)", "PGD", "0.15", "40 %", "30 %", "20 %"],
        ["DNA, λ = 0", "PGD", "0.05", "66 %", "50 %", "40 %"],
        ["DNA, λ = 0", "PGD", "0.10", "56 %", "40 %", "30 %"],
        ["DNA, λ = 0", "PGD", "0.15", "46 %", "30 %", "20 %"],
    ]


def test_one_path_answers_for_every_objective():
    found = body(tables.objectives(mnist(one_path(strongest=45))))
    assert found[0] == ["autoencoder", "PGD", "0.05", "45 %", "45 %", "45 %"]


def test_without_pgd_no_objective_is_compared():
    assert body(tables.objectives(mnist(two_paths("dna"), attacks=["fgsm"]))) == []


def test_the_gain_is_against_an_autoencoder_under_the_same_attack():
    text = tables.gains(mnist(one_path(), two_paths("dna", printed=60, strongest=37)))
    assert cells(text)[0] == ["ε", "DNA loses", "gain over the autoencoder, printed", "gain, strongest"]
    assert body(text)[0] == ["0.05", "**23**", "**15**", "**2**"]
    assert [row[0] for row in body(text)] == ["0.05", "0.10", "0.15"]


def test_a_gain_can_be_negative_and_is_paired_by_seed():
    first = one_path(0, 45, 35), two_paths("dna", 0, 60, 50, 30)
    second = one_path(1, 50, 40), two_paths("dna", 1, 65, 55, 35)
    assert body(tables.gains(mnist(*first, *second, two_paths("dna", 2))))[0][2:] == [
        "**15 ± 0**",
        "**−5 ± 0**",
    ]


# --- What is measured ----------------------------------------------------------------------------


def transferred(attack, epsilon, both, fooled, both_clean, fooled_clean, wrong):
    """Both directions alike: images of 100."""
    return [
        {"attack": attack, "epsilon": epsilon, "source": s, "target": 3 - s, "n": 100, "both_fooled": both,
         "source_fooled": fooled, "both_fooled_clean": both_clean, "source_fooled_clean": fooled_clean,
         "target_wrong": wrong}
        for s in (1, 2)
    ]  # fmt: skip


@pytest.fixture
def transfer():
    weak = transferred("fgsm-linf", 0.05, 30, 60, 10, 40, 35)
    others = ("fgsm-linf", 0.15), ("pgd-linf", 0.05), ("pgd-l2", 0.05), ("pgd-l2", 0.15)
    decoys = [row for other in others for row in transferred(*other, 1, 100, 1, 100, 1)]
    trials = [
        pair("cnn", "regular", transfer=[*decoys, *weak, *transferred("pgd-linf", 0.15, 81, 90, 72, 90, 85)]),
        pair("cnn", "decorrelated", accuracy=(0.1, 0.9), transfer=weak),
    ]
    config = {
        "pairs": [["cnn", "regular"], ["cnn", "decorrelated"]], "epsilons": EPSILONS,
        "attacks": ["fgsm-linf", "pgd-linf", "pgd-l2"],
    }  # fmt: skip
    return Record("transfer", "smoke", config, trials)


def test_one_set_of_images_is_counted_three_ways_at_the_weakest_and_the_strongest_setting(transfer):
    text = tables.ways_of_counting(transfer)
    assert cells(text)[0] == ["pair", "attack", "as printed", "conditioned", "Figure 1's legend"]
    assert body(text)[:2] == [
        ["CNN, regular", "FGSM, ℓ∞, ε = 0.05", "50 %", "25 %", "35 %"],
        ["CNN, regular", "PGD, ℓ∞, ε = 0.15", "90 %", "80 %", "85 %"],
    ]


def test_a_collapsed_pair_counts_in_none_of_the_three(transfer):
    found = body(tables.ways_of_counting(transfer))[2:]
    assert [row[0] for row in found] == ["CNN, decorrelated"] * 2
    assert all(row[2:] == ["no value"] * 3 for row in found)


def test_the_legend_weighs_both_directions_alike_within_a_pair_and_pairs_among_each_other(transfer):
    extra = pair("cnn", "regular", 1, transfer=transferred("fgsm-linf", 0.05, 30, 60, 10, 40, 56)[:1])
    transfer.trials[0]["values"]["transfer"][-3]["target_wrong"] = 45  # 2 → 1: the pair's mean is 40
    transfer.trials.append(extra)
    legend = body(tables.ways_of_counting(transfer))[0][-1]
    assert legend.startswith("48 ± ")  # of 40 and 56; over the three rows it would be 45


def compared(pearson, there, first, seed=0, accuracy=(0.9, 1.0)):
    found = [
        {"epsilon": 0.0, "pearson": pearson, "heldout_1_to_2": there, "heldout_2_to_1": 0.11},
        {"epsilon": 0.1, "pearson": 0.99, "heldout_1_to_2": 0.99, "heldout_2_to_1": 0.99},
    ]
    return pair("cnn", "regular", seed, accuracy, features=found, first_component={"r_squared": first})


def test_five_correlations_of_natural_images_each_have_their_column():
    text = tables.correlations(features(compared(0.3, 0.64, 0.25), compared(0.9, 0.9, 0.9, 1, (0.1, 0.9))))
    assert cells(text)[0][1:] == ["Pearson, entry by entry", "√R², held out", "R², held out",
                                "R², first components", "√R², first components"]  # fmt: skip
    assert body(text)[0] == ["CNN, regular", "0.30", "0.80", "0.64", "0.25", "0.50"]
    assert body(text)[1] == ["fully connected, decorrelated", *["no value"] * 5]


def test_r2_below_zero_has_no_root_and_counts_as_none():
    root, r2 = body(tables.correlations(features(compared(0.3, -1.0, 0.25))))[0][2:4]
    assert (root, r2) == ("0.00", "−1.00")


def test_the_classifier_alone_is_averaged_over_seeds_and_not_over_arms():
    trials = [autoencoder(arm, 0, classifier_alone=0.98) for arm in ("autoencoder", "dna", "dna_regular")]
    text = tables.classifier_alone(mnist(*trials, autoencoder("dna", 1, classifier_alone=0.96)))
    assert text.startswith("Alone, after 4 epochs, it reads **97.0 %** of the test images (the paper: 96 %; ")


def test_every_rule_has_a_column_at_the_middle_epsilon():
    paths = {"first": 20, "second": 40, "either": 50, "both": 10}
    rules = {**paths, "mean_probability": 35, "higher_confidence": 36}
    attacked = [counts(1, epsilon=0.05), counts(0, **rules), counts(2, epsilon=0.15)]
    text = tables.rules(mnist(*(autoencoder(arm, attacked=attacked) for arm in ("dna", "dna_printed"))))
    assert cells(text)[0][1:4] == ["mean of the paths (“avg”)", "either", "both"]
    assert cells(text)[0][4:] == ["mean probability", "higher confidence"]
    assert body(text) == [["DNA (released Eq. 4)", "30 %", "50 %", "10 %", "35 %", "36 %"]]
    assert "\n\nPGD at ε = 0.10. " in text


# --- Experiments ---------------------------------------------------------------------------------


def test_each_arm_is_read_by_its_own_classifier_and_by_the_fixed_one():
    trial = autoencoder(
        "dna_corrected",
        clean=counts(99, "none", 0.0),
        attacked=[counts(60, epsilon=0.05), counts(30, epsilon=0.10)],
        fixed=[counts(95, "none", 0.0), counts(61, epsilon=0.05), counts(32, epsilon=0.10)],
    )
    text = tables.classifiers(mnist(trial, epsilons=[0.05, 0.10]))
    assert cells(text)[0] == ["arm", "clean, own", "clean, fixed", "ε = 0.05, own", "ε = 0.05, fixed",
                            "ε = 0.10, own", "ε = 0.10, fixed"]  # fmt: skip
    assert body(text) == [["DNA, corrected loss", "99 %", "95 %", "60 %", "61 %", "30 %", "32 %"]]


def test_the_free_distance_is_that_of_pairs_without_a_target():
    trials = [
        trial({"target_distance": target}, seed, distance=after, initial_distance=before)
        for target, after, before in ((None, 500.0, 40.0), (2000, 2001.0, 50.0), (1000, 1001.0, 50.0))
        for seed in (0, 1)
    ]
    record = Record("parameter_distance", "smoke", {"target_distances": [None, 2000, 1000]}, trials)
    assert tables.free_distance(record) == (
        "The squared distance of plain pairs is **500 ± 0** after training and **40 ± 0** before; the "
        f"smallest D_t asked for is 1000. {record.caption()}."
    )


def test_every_arm_of_chapter_6_has_a_name():
    scales = autoencoder_mnist.SCALES.values()
    assert all(set(config.arms) <= set(AUTOENCODERS) for config in scales)

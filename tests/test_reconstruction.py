"""Autoencoders and their classifiers: the rules by hand, the attacks recomputed, real smoke runs."""

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from dnabook import attacks, autoencoders, data, measures, records, training
from dnabook.autoencoders import Reconstructor, cifar10_autoencoder, mnist_autoencoder, mnist_classifier
from dnabook.experiments import (
    Context,
    autoencoder_cifar,
    autoencoder_mnist,
    disagreement,
    reconstruction,
    shared_layers,
)
from dnabook.experiments.reconstruction import ARMS, OBJECTIVES, RULES, Arm, Training, right

CPU = Context(device=torch.device("cpu"))
TINY = Training(epochs=2, classifier_epochs=1, batch_size=100, classifier_batch_size=50, train_images=300)
COUNTS = (*RULES, "exactly_one", "n")
CLEAN = autoencoder_cifar.SCALES["smoke"].clean_images


@pytest.fixture(scope="module")
def few(mnist_train):
    return mnist_train[:300]


@pytest.fixture(scope="module")
def trained(mnist_train):
    """A regular DNA and its classifier, trained for a moment: right on some digits, wrong on others."""
    how = Training(epochs=6, classifier_epochs=3, batch_size=50, classifier_batch_size=25, learning_rate=3e-3)
    autoencoder, classifier, _ = reconstruction.train(how, ARMS["dna_regular"], mnist_train, 0, CPU)
    return Reconstructor(autoencoder, classifier).eval()


@pytest.fixture(scope="module")
def one_path(trained):
    """The first path of `trained` alone."""
    single = mnist_autoencoder(1)
    whole = trained.autoencoder
    single.encoder, single.squeeze[0] = whole.encoder, whole.squeeze[0]
    single.widen[0], single.decoder = whole.widen[0], whole.decoder
    return Reconstructor(single, trained.classifier).eval()


@pytest.fixture(scope="module")
def attacked(mnist_test):
    return mnist_test[:60]


# --- Rules ---------------------------------------------------------------------------------------

# Probabilities of the classes 0, 1 and 2 by the first and by the second path. The true class is 0.
CASES = {
    "both right": ((0.9, 0.1, 0.0), (0.6, 0.4, 0.0), "first second either both mean higher"),
    "first right, less sure": ((0.6, 0.4, 0.0), (0.1, 0.9, 0.0), "first either"),
    "first right, surer": ((0.9, 0.1, 0.0), (0.4, 0.6, 0.0), "first either mean higher"),
    "second right, less sure": ((0.1, 0.9, 0.0), (0.6, 0.4, 0.0), "second either"),
    "second right, surer": ((0.4, 0.6, 0.0), (0.9, 0.1, 0.0), "second either mean higher"),
    "second right, less sure, but the paths agree on it": (
        (0.45, 0.50, 0.05), (0.40, 0.22, 0.38), "second either mean"),
    "second right and surer, but the first is far off": (
        (0.00, 0.55, 0.45), (0.60, 0.40, 0.00), "second either higher"),
    "both wrong, but both think of it": ((0.45, 0.55, 0.0), (0.45, 0.0, 0.55), "mean"),
    "both wrong": ((0.1, 0.9, 0.0), (0.1, 0.0, 0.9), ""),
}  # fmt: skip
SHORT = ("first", "second", "either", "both", "mean", "higher")


def logits_of(cases):
    probabilities = torch.zeros(len(cases), 2, 10)
    for i, (first, second, _) in enumerate(cases):
        probabilities[i, 0, :3], probabilities[i, 1, :3] = torch.tensor(first), torch.tensor(second)
    return probabilities.log().clamp_min(-30) + torch.randn(len(cases), 2, 1)  # a constant changes nothing


@pytest.mark.parametrize("name", CASES)
def test_each_rule_reads_each_case_as_worked_out_by_hand(name):
    found = right(logits_of([CASES[name]]), torch.tensor([0]))
    assert [short for short, rule in zip(SHORT, RULES, strict=True) if found[rule].item()] == CASES[name][
        2
    ].split()


def test_the_cases_tell_all_rules_apart():
    found = right(logits_of(list(CASES.values())), torch.zeros(len(CASES), dtype=torch.long))
    assert tuple(found) == RULES
    assert len({tuple(flags.tolist()) for flags in found.values()}) == len(RULES)


def test_right_compares_with_each_image_s_own_label():
    logits = torch.randn(200, 2, 10)
    y = torch.randint(10, (200,))
    found = right(logits, y)
    for i in range(200):
        classes = [logits[i, path].argmax().item() for path in (0, 1)]
        flags = [cls == y[i].item() for cls in classes]
        both = [found[rule][i].item() for rule in ("first", "second", "either", "both")]
        assert both == [*flags, any(flags), all(flags)]


@pytest.mark.parametrize("seed", range(5))
def test_either_is_never_below_a_path_nor_a_path_below_both(seed):
    torch.manual_seed(seed)
    y = torch.randint(3, (300,))
    logits = torch.randn(300, 2, 10) * torch.tensor([4.0] * 3 + [0.1] * 7)
    found = right(logits, y)
    for rule in ("first", "second", "higher_confidence"):
        assert (found["both"] <= found[rule]).all() and (found[rule] <= found["either"]).all()
    agree = logits.argmax(2)[:, 0] == logits.argmax(2)[:, 1]
    assert (found["higher_confidence"] == found["first"])[agree].all()
    assert 0 < found["both"].sum() < found["first"].sum() < found["either"].sum()


def test_with_one_path_all_rules_agree():
    logits, y = torch.randn(100, 1, 10), torch.randint(10, (100,))
    found = right(logits, y)
    assert all(flags.equal(logits[:, 0].argmax(1) == y) for flags in found.values())


def test_the_clean_row_counts_what_each_rule_reads_rightly(trained, mnist_test):
    with torch.no_grad():
        flags = right(trained(mnist_test.x), mnist_test.y)
    row = reconstruction.clean_row(trained, mnist_test)
    one = (flags["first"] != flags["second"]).sum().item()
    expected = {rule: flags[rule].sum().item() for rule in RULES}
    assert row == {"attack": "none", "epsilon": 0.0, **expected, "exactly_one": one, "n": 200}
    assert row["exactly_one"] == row["either"] - row["both"] > 0
    assert 0 < row["both"] < row["either"] < 200


# --- Attacks -------------------------------------------------------------------------------------


def rows_of(model, images, names=("fgsm", "pgd"), epsilons=(0.02, 0.1), objectives=OBJECTIVES, **options):
    options = {"steps": 4, "step_size": None, "seed": 0, "context": CPU, **options}
    return reconstruction.attack_rows(model, images, names, epsilons, objectives, **options)


@pytest.fixture(scope="module")
def rows(trained, attacked):
    return rows_of(trained, attacked)


def test_there_is_one_row_for_each_attack_epsilon_and_objective_and_one_for_the_strongest(rows):
    expected = [
        (name, e, objective)
        for name in ("fgsm", "pgd") for e in (0.02, 0.1) for objective in (*OBJECTIVES, "strongest")
    ]  # fmt: skip
    assert [(row["attack"], row["epsilon"], row["objective"]) for row in rows] == expected
    for row in rows:
        assert set(row) == {"attack", "epsilon", "objective", *COUNTS}
        assert row["n"] == 60
        assert (
            row["both"]
            <= min(row["first"], row["second"])
            <= max(row["first"], row["second"])
            <= row["either"]
        )
        assert row["exactly_one"] == row["either"] - row["both"]


def test_the_strongest_row_is_never_above_an_objective_of_the_same_attack_and_epsilon(rows):
    for strongest in (row for row in rows if row["objective"] == "strongest"):
        place = {key: strongest[key] for key in ("attack", "epsilon")}
        others = [r for r in rows if r["objective"] != "strongest" and place.items() <= r.items()]
        assert len(others) == 3
        for rule in RULES:
            assert strongest[rule] <= min(row[rule] for row in others)


def test_a_larger_epsilon_leaves_fewer_images_readable(rows):
    for rule in RULES:
        weak, strong = (
            {(r["attack"], r["objective"]): r[rule] for r in rows if r["epsilon"] == e} for e in (0.02, 0.1)
        )
        assert sum(strong.values()) < sum(weak.values())


def test_attack_rows_are_the_attacks_on_each_objective_of_equation_10(rows, trained, attacked):
    x, y = attacked.x, attacked.y
    generator = torch.Generator()
    for name in ("fgsm", "pgd"):
        survived = []
        for objective in OBJECTIVES:
            loss = attacks.paths(trained, y, objective)
            if name == "fgsm":
                x_adv = attacks.fgsm(loss, x, attacks.Linf(0.1))
            else:
                x_adv = attacks.pgd(loss, x, attacks.Linf(0.1), steps=4, generator=generator.manual_seed(0))
            with torch.no_grad():
                survived.append(right(trained(x_adv), y))
            row = next(
                r for r in rows if (r["attack"], r["epsilon"], r["objective"]) == (name, 0.1, objective)
            )
            assert {rule: row[rule] for rule in RULES} == {k: v.sum().item() for k, v in survived[-1].items()}
        last = next(
            r for r in rows if (r["attack"], r["epsilon"], r["objective"]) == (name, 0.1, "strongest")
        )
        for rule in RULES:
            assert last[rule] == sum(all(s[rule][i].item() for s in survived) for i in range(60))


def test_at_epsilon_zero_every_row_counts_the_clean_images(trained, attacked):
    clean = reconstruction.clean_row(trained, attacked)
    for row in rows_of(trained, attacked, epsilons=(0.0,)):
        assert {key: row[key] for key in COUNTS} == {key: clean[key] for key in COUNTS}


def test_attack_rows_repeat_exactly_with_their_seed(rows, trained, attacked):
    torch.rand(5)  # whatever happened before
    assert rows_of(trained, attacked) == rows


def test_a_single_path_is_attacked_once_and_every_rule_reads_alike(one_path, attacked):
    found = rows_of(one_path, attacked, objectives=("corrected", "printed"))
    assert [row["objective"] for row in found] == ["cross_entropy", "strongest"] * 4
    for row, strongest in zip(found[::2], found[1::2], strict=True):
        assert len({row[rule] for rule in RULES}) == 1 and row["exactly_one"] == 0
        assert {**row, "objective": "strongest"} == strongest


def test_attack_rows_show_progress_over_attacks_and_epsilons(trained, attacked):
    seen = []
    context = CPU._replace(progress=lambda each, name: seen.append((list(each), name)) or each)
    rows_of(trained, attacked[:5], objectives=("printed",), context=context)
    assert seen == [([("fgsm", 0.02), ("fgsm", 0.1), ("pgd", 0.02), ("pgd", 0.1)], "attacks")]


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_each_method_fills_its_ball_and_leaves_it_not(name, trained, attacked):
    method = reconstruction.method(name, 0.05, steps=5, step_size=None, seed=0)
    delta = attacks.craft(method, trained, attacked.x, attacked.y, objective=attacks.paths) - attacked.x
    assert delta.abs().max().item() == pytest.approx(0.05, abs=1e-6)


def test_pgd_takes_the_steps_step_size_and_seed_that_it_is_told(trained, attacked):
    loss = attacks.paths(trained, attacked.y)

    def images(**options):
        options = {"steps": 2, "step_size": 0.01, "seed": 0, **options}
        return reconstruction.method("pgd", 0.1, **options)(loss, attacked.x)

    assert images().equal(images())
    for other in ({"steps": 3}, {"step_size": 0.02}, {"step_size": None}, {"seed": 1}):
        assert not images().equal(images(**other))


@pytest.mark.parametrize("name", ["pgd-linf", "PGD", "none"])
def test_an_unknown_attack_is_refused(name):
    with pytest.raises(ValueError, match=f'attack is "fgsm" or "pgd", got \'{name}\''):
        reconstruction.method(name, 0.1, steps=1, step_size=None, seed=0)


# --- Quality -------------------------------------------------------------------------------------


def test_quality_is_the_error_of_each_path_and_what_the_codes_share(trained, mnist_test):
    found = reconstruction.quality(trained.autoencoder, mnist_test)
    with torch.no_grad():
        images, codes = trained.autoencoder(mnist_test.x), trained.autoencoder.encode(mnist_test.x)
    errors = [((image - mnist_test.x) ** 2).mean().item() for image in images]
    assert set(found) == {"mse", "live_units", "heldout"}
    assert found["mse"] == pytest.approx(errors, rel=1e-5) and errors[0] != errors[1]
    assert found["live_units"] == [int((z.std(0) > 0).sum()) for z in codes]
    forth, back = (measures.r_squared(a, b, heldout=True) for a, b in (codes, codes[::-1]))
    assert found["heldout"] == pytest.approx([forth, back], rel=1e-3) and forth != back


def test_an_autoencoder_is_examined_in_eval_mode_and_keeps_its_statistics():
    torch.manual_seed(0)
    dna = cifar10_autoencoder()
    images = data.Images(torch.rand(20, 3, 32, 32), torch.arange(20) % 10, "made up", "test", "")
    expected = reconstruction.quality(dna.eval(), images)
    dna.train()
    before = {name: tensor.clone() for name, tensor in dna.state_dict().items()}
    assert reconstruction.quality(dna, images) == expected
    assert dna.training
    assert all(tensor.equal(before[name]) for name, tensor in dna.state_dict().items())


def test_the_quality_of_one_neck_has_nothing_to_share(one_path, trained, mnist_test):
    found = reconstruction.quality(one_path.autoencoder, mnist_test)
    whole = reconstruction.quality(trained.autoencoder, mnist_test)
    assert found == {"mse": whole["mse"][:1], "live_units": whole["live_units"][:1]}


def test_the_quality_of_a_photograph_s_code_flattens_it():
    images = data.load("color-mnist", "test", limit=20, device="cpu")
    model = cifar10_autoencoder().eval()
    found = reconstruction.quality(model, images)
    with torch.no_grad():
        errors = [(image - images.x).square().mean().item() for image in model(images.x)]
    assert found["mse"] == pytest.approx(errors, rel=1e-5)
    assert all(0 < live <= 448 for live in found["live_units"])


# --- Training ------------------------------------------------------------------------------------


def test_the_defaults_are_figure_6_s_and_the_released_code_s():
    assert dataclasses.asdict(Training()) == {
        "epochs": 40, "classifier_epochs": 40, "batch_size": 500, "classifier_batch_size": 500,
        "learning_rate": 5e-4, "train_images": 60_000, "correlation_weight": 0.05, "schedule": "constant",
        "augment": False, "bfloat16": False,
    }  # fmt: skip
    assert autoencoder_mnist.Config().epsilons == (0.05, 0.10, 0.15)
    assert autoencoder_cifar.Config().epsilons_255 == (2, 4, 8)
    assert autoencoder_cifar.Config().images == "cifar10" and autoencoder_cifar.Config().training.augment


def test_the_arms_are_the_paper_s_two_and_a_control_for_each_difference():
    assert (ARMS["autoencoder"].necks, ARMS["dna"]) == (1, Arm(2, 2, True, "released"))
    assert ARMS["dna_regular"] == replace(ARMS["dna"], decorrelated=False)
    assert ARMS["two_autoencoders"] == replace(ARMS["dna_regular"], unshared=6)
    assert ARMS["dna_corrected"] == replace(ARMS["dna"], variant="corrected")
    assert ARMS["dna_printed"] == replace(ARMS["dna"], variant="printed")
    assert set(autoencoder_mnist.Config().arms) == set(ARMS) >= set(autoencoder_cifar.Config().arms)


@pytest.fixture
def fits(monkeypatch):
    """`training.fit` replaced by a note of what it was asked: weights, first batch, terms and options."""
    notes = []

    def note(objective, parameters, batches, **options):
        x, y = next(iter(batches))
        weights = torch.cat([p.detach().flatten() for p in objective.parameters()])
        terms = {name: value.item() for name, value in objective(x, y).items()}
        notes.append({"weights": weights, "x": x, "y": y, "terms": terms, "batches": batches, **options})
        return {name: [value] * options["epochs"] for name, value in terms.items()}

    monkeypatch.setattr(training, "fit", note)
    return notes


def both_fits(fits, arm, images, seed=0, how=TINY, context=CPU):
    fits.clear()
    reconstruction.train(how, arm, images, seed, context)
    assert len(fits) == 2
    return list(fits)


def test_arms_of_one_shape_start_from_the_same_weights_and_batches(fits, few):
    first = both_fits(fits, ARMS["dna"], few, 3)
    for arm in ("dna_regular", "dna_corrected", "dna_printed"):
        for note, expected in zip(both_fits(fits, ARMS[arm], few, 3), first, strict=True):
            assert note["weights"].equal(expected["weights"])
            assert note["x"].equal(expected["x"]) and note["y"].equal(expected["y"])
    for note, expected in zip(both_fits(fits, ARMS["dna"], few, 4), first, strict=True):
        assert not note["weights"].equal(expected["weights"]) and not note["y"].equal(expected["y"])


def test_arms_of_all_shapes_share_their_batches_and_the_classifier_s_first_weights(fits, few):
    first = both_fits(fits, ARMS["dna"], few)
    for arm in (ARMS["autoencoder"], ARMS["two_autoencoders"], shared_layers.ARMS["code_16"]):
        notes = both_fits(fits, arm, few)
        assert len(notes[0]["weights"]) != len(first[0]["weights"])
        assert all(note["x"].equal(expected["x"]) for note, expected in zip(notes, first, strict=True))
        assert notes[1]["weights"].equal(first[1]["weights"])
    fits.clear()
    reconstruction.train_on_images(TINY, few, 0, CPU)
    assert fits[0]["weights"].equal(first[1]["weights"]) and fits[0]["x"].equal(first[1]["x"])


def test_each_arm_has_the_loss_that_its_name_says(fits, few):
    how = replace(TINY, correlation_weight=0.7)
    for name, arm in ARMS.items():
        terms = both_fits(fits, arm, few, how=how)[0]["terms"]
        assert ("correlation" in terms) == (name in ("dna", "dna_corrected", "dna_printed"))
        errors = [value for key, value in terms.items() if key.startswith("mse")]
        assert len(errors) == arm.necks
        together = sum(e**2 for e in errors) if name == "dna_printed" else math.hypot(*errors)
        assert terms["loss"] == pytest.approx(together + 0.7 * terms.get("correlation", 0), rel=1e-5)
    values = {n: both_fits(fits, ARMS[n], few)[0]["terms"]["correlation"] for n in ("dna", "dna_corrected")}
    assert values["dna"] != pytest.approx(values["dna_corrected"], rel=1e-3)


def test_every_setting_reaches_the_fit_it_is_for(fits, few):
    how = replace(TINY, epochs=3, classifier_epochs=2, learning_rate=0.01, schedule="one_cycle")
    autoencoder, classifier = both_fits(fits, ARMS["dna"], few, how=how)
    assert (autoencoder["epochs"], classifier["epochs"]) == (3, 2)
    assert (len(autoencoder["x"]), len(classifier["x"])) == (100, 50)
    for note in (autoencoder, classifier):
        assert (note["learning_rate"], note["schedule"], note["bfloat16"]) == (0.01, "one_cycle", False)
        assert note["batches"].augment is None
    for note in both_fits(fits, ARMS["dna"], few, how=replace(TINY, augment=True)):
        assert note["batches"].augment is data.crop_and_flip


@pytest.mark.parametrize("capable", [True, False])
def test_bfloat16_is_used_where_it_is_asked_for_and_the_device_has_it(capable, fits, few, monkeypatch):
    monkeypatch.setattr(training, "has_bfloat16", lambda device: capable)
    for wanted in (True, False):
        for note in both_fits(fits, ARMS["dna"], few, how=replace(TINY, bfloat16=wanted)):
            assert note["bfloat16"] is (wanted and capable)


def test_a_run_in_bfloat16_and_one_without_have_checkpoints_of_their_own(fits, few, monkeypatch):
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(settings["bfloat16"]))
    for capable in (True, False):
        monkeypatch.setattr(training, "has_bfloat16", lambda device, capable=capable: capable)
        reconstruction.train(replace(TINY, bfloat16=True), ARMS["dna"], few, 0, context)
        reconstruction.train_on_images(replace(TINY, bfloat16=True), few, 0, context)
    assert asked == [True] * 3 + [False] * 3


def test_each_part_of_each_arm_has_a_checkpoint_of_its_own_and_the_classifier_of_images_one_for_all(
    fits, few
):
    asked = []
    context = CPU._replace(checkpoint=lambda **settings: asked.append(json.dumps(settings, sort_keys=True)))
    arms = {**ARMS, **shared_layers.ARMS}
    for arm in arms.values():
        reconstruction.train(TINY, arm, few, 0, context)
    assert len(set(asked)) == 2 * len(set(arms.values()))  # of both figures; some arms are in both
    assert len(set(ARMS.values())) == len(ARMS)
    assert len(set(shared_layers.ARMS.values())) == len(shared_layers.ARMS)
    before = set(asked)
    for how in (TINY, TINY, replace(TINY, train_images=200)):
        asked.clear()
        reconstruction.train_on_images(how, few, 0, context)
        assert not set(asked) & before or how is TINY
        before |= set(asked)
    assert len(before) == 2 * len(set(arms.values())) + 2


def test_the_classifier_learns_on_the_reconstructions_of_the_finished_autoencoder(few):
    autoencoder, classifier, history = reconstruction.train(TINY, ARMS["dna"], few, 0, CPU)
    assert not any(module.training for model in (autoencoder, classifier) for module in model.modules())
    assert set(history) == {"loss", "mse_1", "mse_2", "correlation", "classifier"}
    assert len(history["loss"]) == 2 and len(history["classifier"]) == 1
    by_hand = reconstruction.new_classifier(few, 0)
    optimizer = torch.optim.Adam(by_hand.parameters(), TINY.learning_rate, fused=True)
    for x, y in data.Batches(few, 50, seed=0):
        with torch.no_grad():
            one, two = autoencoder(x[::2])[0], autoencoder(x[1::2])[1]
        loss = torch.nn.functional.cross_entropy(by_hand(torch.cat([one, two])), torch.cat([y[::2], y[1::2]]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for found, expected in zip(classifier.parameters(), by_hand.parameters(), strict=True):
        assert found.allclose(expected, atol=1e-5)


def test_training_repeats_exactly_with_its_seed_and_leaves_the_random_state_alone(few):
    torch.manual_seed(5)
    expected = torch.rand(3)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(5)
        autoencoder, classifier, history = reconstruction.train(TINY, ARMS["dna"], few, seed, CPU)
        assert torch.rand(3).equal(expected)
        weights = torch.cat([p.flatten() for m in (autoencoder, classifier) for p in m.parameters()])
        runs.append((weights.tolist(), history))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0] and runs[0][1] != runs[2][1]


def test_an_autoencoder_that_was_interrupted_ends_with_the_weights_it_would_have_had(few, tmp_path):
    def context(stop=None):
        def progress(each, name):
            for number in each:
                if number == stop:
                    raise KeyboardInterrupt
                yield number

        def checkpoint(**settings):
            return records.Checkpoint(tmp_path / f"{settings['part']}.pt")

        return CPU._replace(progress=progress, checkpoint=checkpoint)

    whole, reader, _ = reconstruction.train(TINY, ARMS["dna"], few, 0, CPU)
    with pytest.raises(KeyboardInterrupt):
        reconstruction.train(TINY, ARMS["dna"], few, 0, context(stop=1))
    again, reader_again, _ = reconstruction.train(TINY, ARMS["dna"], few, 0, context())
    for a, b in ((whole, again), (reader, reader_again)):
        assert all(p.equal(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_shape_of_the_images_picks_the_networks(few):
    colour = data.load("color-mnist", "test", limit=2, device="cpu")
    arm = Arm(shape=(("hidden", 50), ("extra_layers", 1)))
    assert reconstruction.new_autoencoder(arm, few, 0)(few.x[:2])[0].shape == (2, 1, 28, 28)
    assert reconstruction.new_autoencoder(arm, few, 0).encoder[0][1].out_features == 50
    assert reconstruction.new_classifier(few, 0)(few.x[:2]).shape == (2, 10)
    assert reconstruction.new_autoencoder(Arm(), colour, 0)(colour.x)[1].shape == (2, 3, 32, 32)
    assert isinstance(reconstruction.new_classifier(colour, 0), autoencoders.CIFAR10Classifier)


# --- Smoke runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist_record(smoke):
    return smoke("autoencoder_mnist")


@pytest.fixture(scope="module")
def cifar_record(smoke):
    return smoke("autoencoder_cifar")


@pytest.fixture(scope="module")
def layers_record(smoke):
    return smoke("shared_layers")


def check_rows(rows, names, epsilons, objectives, n):
    place = [(row["attack"], row["epsilon"], row["objective"]) for row in rows]
    assert place == [(a, e, o) for a in names for e in epsilons for o in (*objectives, "strongest")]
    for row in rows:
        check_counts(row, n)


def check_counts(row, n):
    assert row["n"] == n
    assert 0 <= row["both"] <= min(row["first"], row["second"])
    assert max(row["first"], row["second"]) <= row["either"] <= n
    assert row["both"] <= row["higher_confidence"] <= row["either"]
    assert row["exactly_one"] == row["either"] - row["both"]


def check_trial(trial, arm, config, n, epsilons):
    """What all three experiments promise of a trial."""
    values = trial["values"]
    assert json.dumps(json.loads(json.dumps(values))) == json.dumps(values)
    objectives = config.objectives if arm.necks == 2 else ("cross_entropy",)
    check_rows(values["attacked"], config.attacks, epsilons, objectives, config.test_images)
    check_counts(values["clean"], n)
    assert values["accuracy"] == [values["clean"]["first"] / n, values["clean"]["second"] / n]
    assert len(values["quality"]["mse"]) == len(values["quality"]["live_units"]) == arm.necks
    assert all(0 < mse < 0.5 for mse in values["quality"]["mse"])
    assert ("heldout" in values["quality"]) == (arm.necks == 2)
    assert ("correlation" in values["history"]) == (arm.necks == 2 and arm.decorrelated)
    assert len(values["history"]["loss"]) == config.training.epochs
    assert len(values["history"]["classifier"]) == config.training.classifier_epochs


def check_settings(record, module):
    found = sorted(trial["setting"]["arm"] for trial in record.trials)
    assert found == sorted(setting["arm"] for setting in module.settings(module.SCALES["smoke"]))
    assert record.seeds == [0]


def test_figures_6_and_7_are_complete(mnist_record, whole_mnist_test):
    config = autoencoder_mnist.SCALES["smoke"]
    check_settings(mnist_record, autoencoder_mnist)
    for trial in mnist_record.trials:
        check_trial(trial, ARMS[trial["setting"]["arm"]], config, 10_000, config.epsilons)
        clean, *fixed = trial["values"]["fixed"]
        check_counts(clean, 10_000)
        one_path = ARMS[trial["setting"]["arm"]].necks == 1
        objectives = ("cross_entropy",) if one_path else ("printed",)
        check_rows(fixed, ("pgd",), config.epsilons, objectives, config.test_images)
        assert trial["provenance"]["data"] == whole_mnist_test.digest
    alone = mnist_record.values("classifier_alone")
    assert alone[0] == alone[1] > 0.5  # one classifier of images for all arms


def test_the_kept_weights_of_figure_6_reload_and_give_the_recorded_counts(mnist_record, whole_mnist_test):
    kept = records.weights(mnist_record)
    assert set(kept) == {"dna", "dna_classifier"}
    autoencoder, classifier = mnist_autoencoder(), mnist_classifier()
    autoencoder.load_state_dict(kept["dna"])
    classifier.load_state_dict(kept["dna_classifier"])
    model = Reconstructor(autoencoder, classifier).eval()
    values = mnist_record.find({"arm": "dna"}, 0)["values"]
    assert reconstruction.clean_row(model, whole_mnist_test) == values["clean"]
    for key, value in reconstruction.quality(autoencoder, whole_mnist_test).items():
        assert value == pytest.approx(values["quality"][key], rel=1e-6, nan_ok=True)


def test_an_attack_lowers_the_counts_of_figure_6(mnist_record):
    for trial in mnist_record.trials:
        values = trial["values"]
        for rows in (values["attacked"], values["fixed"][1:]):
            strongest = [row["either"] for row in rows if row["epsilon"] == 0.15]
            assert max(strongest) / 250 < values["clean"]["either"] / 10_000


def test_figures_8_and_9_are_complete_and_say_that_coloured_digits_stood_in(cifar_record):
    config = autoencoder_cifar.SCALES["smoke"]
    check_settings(cifar_record, autoencoder_cifar)
    epsilons = [e / 255 for e in config.epsilons_255]
    for trial in cifar_record.trials:
        assert trial["values"]["images"] == "color-mnist"
        assert trial["values"]["bfloat16"] is (config.training.bfloat16 and training.has_bfloat16(CPU.device))
        check_trial(trial, ARMS[trial["setting"]["arm"]], config, CLEAN, epsilons)


def test_the_kept_weights_of_figure_8_reload_up_to_half_precision(cifar_record):
    kept = records.weights(cifar_record)
    assert set(kept) == {"dna", "dna_classifier", "examples", "labels"}
    autoencoder, classifier = cifar10_autoencoder(), autoencoders.CIFAR10Classifier()
    autoencoder.load_state_dict(kept["dna"])
    classifier.load_state_dict(kept["dna_classifier"])
    test = data.load("color-mnist", "test", limit=CLEAN, device="cpu")
    values = cifar_record.find({"arm": "dna"}, 0)["values"]
    row = reconstruction.clean_row(Reconstructor(autoencoder, classifier).eval(), test)
    assert all(abs(row[rule] - values["clean"][rule]) <= 5 for rule in RULES)
    found = reconstruction.quality(autoencoder.eval(), test)
    assert found["mse"] == pytest.approx(values["quality"]["mse"], rel=1e-6)  # a small model: stored exactly


def test_the_kept_examples_of_figure_8_are_the_first_test_images(cifar_record):
    kept = records.weights(cifar_record)
    test = data.load("color-mnist", "test", limit=CLEAN, device="cpu")
    assert kept["examples"].dtype == torch.uint8 and kept["examples"].shape == (CLEAN, 3, 32, 32)
    assert (kept["examples"] / 255 - test.x).abs().max() <= 0.5 / 255 + 1e-6
    assert kept["labels"].equal(test.y)


def test_figure_10_is_complete_and_keeps_no_weights(layers_record):
    config = shared_layers.SCALES["smoke"]
    check_settings(layers_record, shared_layers)
    for trial in layers_record.trials:
        check_trial(trial, shared_layers.ARMS[trial["setting"]["arm"]], config, 10_000, config.epsilons)
    assert not records.weights_path("shared_layers", "smoke").exists()


def test_two_unshared_layers_are_figure_6_s_dna(layers_record, mnist_record):
    assert shared_layers.ARMS["unshared_2"] == ARMS["dna"]
    dna, same = mnist_record.find({"arm": "dna"}, 0), layers_record.find({"arm": "unshared_2"}, 0)
    for key in ("clean", "quality", "history", "accuracy"):
        assert json.dumps(same["values"][key]) == json.dumps(dna["values"][key])  # a nan is equal to itself


def test_cifar10_that_comes_between_training_and_test_images_stops_the_trial(monkeypatch):
    found = {split: data.load("color-mnist", split, limit=20, device="cpu") for split in ("train", "test")}
    found["test"] = dataclasses.replace(found["test"], name="cifar10")
    monkeypatch.setattr(data, "load_or_stand_in", lambda name, split="train", **options: found[split])
    with pytest.raises(data.DownloadError, match="training images are color-mnist, test images cifar10"):
        autoencoder_cifar.run(autoencoder_cifar.SCALES["smoke"], {"arm": "dna"}, 0, CPU)


# --- Do two answers give an attack away? ---------------------------------------------------------


def test_what_a_reader_notices_is_counted_by_hand():
    """Class 0: both paths right; they differ, the mean right; two wrong alike; one wrong apart."""
    probabilities = torch.full((5, 2, 10), 1e-6)
    for image, path, cls, p in (
        (0, 0, 0, 0.9), (0, 1, 0, 0.8), (1, 0, 0, 0.9), (1, 1, 1, 0.6), (1, 1, 0, 0.4),
        (2, 0, 3, 0.9), (2, 1, 3, 0.9), (3, 0, 3, 0.9), (3, 1, 4, 0.9),
        (4, 0, 7, 0.9), (4, 1, 7, 0.9),
    ):  # fmt: skip
        probabilities[image, path, cls] = p
    logits = probabilities.log()
    found = disagreement.noticed(logits, torch.zeros(5, dtype=torch.long), logits[:1])
    assert {key: found[key] for key in ("differ", "wrong", "unnoticed", "n")} == {
        "differ": 2, "wrong": 3, "unnoticed": 2, "n": 5,
    }  # fmt: skip
    assert found["auroc"] == pytest.approx(
        1 / 3
    )  # of the misread images one diverges more than the clean one


def test_without_a_misread_image_nothing_is_told_apart():
    logits = torch.eye(10)[:4, None].expand(4, 2, 10) * 9
    found = disagreement.noticed(logits, torch.arange(4), logits)
    assert found["wrong"] == found["differ"] == 0 and math.isnan(found["auroc"])


@pytest.mark.parametrize("paths", [1, 2, 3])
def test_divergence_is_scipy_s_jensen_shannon_distance_squared_for_two_paths_and_none_for_one(paths):
    logits = torch.randn(20, paths, 10)
    found, p = disagreement.divergence(logits), logits.double().softmax(2).numpy()
    if paths == 2:
        expected = jensenshannon(p[:, 0], p[:, 1], axis=1) ** 2
    elif paths == 1:
        expected = np.zeros(20)
    else:  # the mean distance to the mean distribution
        expected = np.stack([entropy(p[:, i], p.mean(1), axis=1) for i in range(3)]).mean(0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_auroc_is_the_chance_that_a_positive_is_larger():
    positive, negative = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0, 0.0])
    assert disagreement._auroc(positive, negative) == pytest.approx((3 + 1.5) / 6)


def test_the_record_of_disagreement_has_every_attack_at_every_epsilon(smoke):
    config, record = disagreement.SCALES["smoke"], smoke("disagreement")
    for trial in record.trials:
        rows = trial["values"]["noticed"]
        assert [(r["attack"], r["epsilon"]) for r in rows] == [
            ("none", 0.0), ("noise", 0.10), ("printed", 0.10), ("consensus", 0.10),
        ]  # fmt: skip
        assert all(r["unnoticed"] <= r["wrong"] <= r["n"] == config.test_images for r in rows)
        assert all(r["wrong"] - r["unnoticed"] <= r["differ"] for r in rows)
        by = {r["attack"]: r for r in rows}
        assert by["printed"]["wrong"] > by["none"]["wrong"]
        assert by["consensus"]["differ"] < by["printed"]["differ"]


# --- The architectures of Figure 10 --------------------------------------------------------------


def parameters(name):
    arm = shared_layers.ARMS[name]
    return sum(p.numel() for p in mnist_autoencoder(arm.necks, arm.unshared, **dict(arm.shape)).parameters())


@pytest.mark.parametrize("number", [4, 6])
def test_matched_controls_share_all_but_the_necks_and_have_as_many_parameters(number):
    matched, unshared = f"matched_{number}", f"unshared_{number}"
    assert shared_layers.ARMS[matched].unshared == 2 and shared_layers.ARMS[unshared].unshared == number
    assert parameters(matched) == pytest.approx(parameters(unshared), rel=0.005)
    assert parameters(unshared) > 1.1 * parameters("unshared_2")


def test_the_recorded_parameters_are_the_networks_own(layers_record):
    for trial in layers_record.trials:
        assert trial["values"]["parameters"] == parameters(trial["setting"]["arm"])


def test_the_arms_of_figure_10_differ_in_what_their_names_say():
    for name, arm in shared_layers.ARMS.items():
        kind, number = name.removesuffix("_regular").split("_")
        assert (arm.necks, arm.variant, arm.decorrelated) == (2, "released", not name.endswith("_regular"))
        assert arm.unshared == (int(number) if kind == "unshared" else 2)
        option = {"code": "code", "deeper": "extra_layers"}.get(kind)
        if kind != "matched":
            assert arm.shape == (((option, int(number)),) if option else ())

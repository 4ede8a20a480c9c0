"""What the autoencoder experiments share: training an autoencoder and its classifier, and attacking both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dnabook import attacks, autoencoders, data, losses, measures, training
from dnabook.autoencoders import NeckedAutoencoder, Reconstructor
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.models import evaluating, layout, seeded


@dataclass(frozen=True)
class Training:
    """How an autoencoder and the classifier behind it are trained; the defaults are Figure 6's.

    Learning rate and batch size of the classifier are the released code's.
    """

    epochs: int = 40
    classifier_epochs: int = 40
    batch_size: int = 500
    classifier_batch_size: int = 500
    learning_rate: float = 5e-4
    train_images: int = 60_000
    correlation_weight: float = 0.05  # λ in Eq. 4
    schedule: str = "constant"
    augment: bool = False  # crop and flip
    bfloat16: bool = False  # where the device has it


MNIST_TRAINING = {
    "smoke": Training(epochs=8, classifier_epochs=3, batch_size=100, classifier_batch_size=50,
                      learning_rate=3e-3, train_images=2000),
    "laptop": Training(epochs=12, classifier_epochs=5, learning_rate=2e-3, schedule="one_cycle"),
    "paper": Training(),
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One kind of autoencoder: its shape, and how Eq. 4 is read. λ is 0 unless `decorrelated`."""

    necks: int = 2
    unshared: int = 2
    decorrelated: bool = True
    variant: str = "released"
    shape: tuple[tuple[str, int], ...] = ()  # options of `mnist_autoencoder`, as pairs


ARMS = {
    "autoencoder": Arm(necks=1),
    "dna": Arm(),
    "dna_regular": Arm(decorrelated=False),
    "two_autoencoders": Arm(unshared=6, decorrelated=False),
    "dna_corrected": Arm(variant="corrected"),
    "dna_printed": Arm(variant="printed"),
}

OBJECTIVES = ("printed", "released", "corrected")  # of Eq. 10
ONE_PATH = "cross_entropy"  # Eq. 11, the only objective where there is one path
BATCH = 125  # images over which "released" takes its means


@dataclass(frozen=True)
class DigitsConfig:
    """What the experiments on digits share: how arms are trained, and how they are attacked and read."""

    training: Training = field(default_factory=Training)
    arms: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15)
    objectives: tuple[str, ...] = OBJECTIVES
    steps: int = 40
    step_size: float | None = 3 / 255  # the released code's
    test_images: int = 2000  # the paper does not say how many


def as_run(how: Training, device: torch.device) -> Training:
    """The settings as they run on the device: bfloat16 only where it has that."""
    return dataclasses.replace(how, bfloat16=how.bfloat16 and training.has_bfloat16(device))


def train(
    how: Training, arm: Arm, images: Images, seed: int, context: Context
) -> tuple[NeckedAutoencoder, nn.Module, dict]:
    """An autoencoder and its classifier, both in eval mode, and their history.

    The classifier learns on the reconstructions of the finished autoencoder, one update a batch.
    The same seed gives all arms the same batches, and arms of one shape the same initial weights.
    """
    how = as_run(how, context.device)
    autoencoder = new_autoencoder(arm, images, seed)
    weight = how.correlation_weight if arm.decorrelated else 0.0
    objective = losses.reconstruction(autoencoder, correlation_weight=weight, variant=arm.variant)
    settings = {
        **dataclasses.asdict(how),
        **dataclasses.asdict(arm),
        "images": f"{images.name} {images.digest}",
    }
    history = _fit(objective, how, how.epochs, how.batch_size, images, seed, context,
                   {**settings, "part": "autoencoder"})  # fmt: skip
    classifier = new_classifier(images, seed)
    objective = losses.reading(classifier, autoencoder)
    reading = _fit(objective, how, how.classifier_epochs, how.classifier_batch_size, images, seed, context,
                   {**settings, "part": "classifier"})  # fmt: skip
    return autoencoder, classifier, {**history, "classifier": reading["loss"]}


def train_on_images(how: Training, images: Images, seed: int, context: Context) -> nn.Module:
    """A classifier that has learned on the images themselves, in eval mode."""
    how = as_run(how, context.device)
    classifier = new_classifier(images, seed)
    settings = {
        **dataclasses.asdict(how),
        "images": f"{images.name} {images.digest}",
        "part": "classifier of images",
    }
    objective = losses.reading(classifier)
    _fit(objective, how, how.classifier_epochs, how.classifier_batch_size, images, seed, context, settings)
    return classifier


def _fit(objective, how, epochs, batch_size, images, seed, context, settings) -> dict:
    augment = data.crop_and_flip if how.augment else None
    asks = settings["part"] == "autoencoder" and settings["variant"] == "printed"  # for singular values
    history = training.fit(
        objective,
        objective.parameters(),
        data.Batches(images, batch_size, seed=seed, augment=augment),
        epochs=epochs,
        learning_rate=how.learning_rate,
        schedule=how.schedule,
        bfloat16=how.bfloat16,
        cuda_graph=not asks,
        progress=context.progress,
        checkpoint=context.checkpoint(**settings),
    )
    return {name: [round(value, 5) for value in values] for name, values in history.items()}


def new_autoencoder(arm: Arm, images: Images, seed: int) -> NeckedAutoencoder:
    """Figure 12's or Figure 13's autoencoder, by the images' shape, with weights drawn from the seed."""
    make = autoencoders.mnist_autoencoder if images.x.shape[1] == 1 else autoencoders.cifar10_autoencoder
    with seeded(seed):
        return _beside(images, make(arm.necks, arm.unshared, **dict(arm.shape)))


def new_classifier(images: Images, seed: int) -> nn.Module:
    """Figure 12d's or Figure 13d's classifier, by the images' shape, with weights drawn from the seed."""
    with seeded(10_000 + seed):  # not the autoencoder's own
        make = autoencoders.mnist_classifier if images.x.shape[1] == 1 else autoencoders.CIFAR10Classifier
        return _beside(images, make())


def _beside(images: Images, model: nn.Module) -> nn.Module:
    """The model on the images' device, in the memory layout that is fast there."""
    device = images.x.device
    return model.to(device, memory_format=layout(device) if images.x.shape[1] == 1 else torch.channels_last)


# --- Evaluation ----------------------------------------------------------------------------------

RULES = ("first", "second", "either", "both", "mean_probability", "higher_confidence")


def right(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Which images each rule reads correctly, from the logits of both paths (N, P, 10): (N,) bool each.

    "either" and "both" compare each path with the label: nobody can use "either" as a classifier.
    "mean_probability" and "higher_confidence" need no label. With one path all rules agree.
    """
    each = logits.argmax(2) == y[:, None]  # (N, P)
    probabilities = logits.softmax(2)
    surest = probabilities.amax(2).argmax(1)  # (N,): the path with the highest confidence
    return {
        "first": each[:, 0],
        "second": each[:, -1],
        "either": each.any(1),
        "both": each.all(1),
        "mean_probability": probabilities.mean(1).argmax(1) == y,
        "higher_confidence": each.gather(1, surest[:, None])[:, 0],
    }


def examine(
    model: Reconstructor, test: Images, config: Any, epsilons: tuple[float, ...], *, history: dict, seed: int,
    context: Context,
) -> dict[str, Any]:  # fmt: skip
    """What every autoencoder experiment records of a trained model.

    "accuracy" on clean images, [of the first path, of the last]; "clean" counts by rule on all of `test`;
    "attacked", rows of `attack_rows` on the first `config.test_images`; "quality"; "history"; "data".
    """
    rows = attack_rows(
        model, test[: config.test_images], config.attacks, epsilons, config.objectives, steps=config.steps,
        step_size=config.step_size, seed=seed, context=context,
    )  # fmt: skip
    clean = clean_row(model, test)
    return {
        "data": test.digest, "accuracy": [clean["first"] / len(test), clean["second"] / len(test)],
        "clean": clean, "attacked": rows, "quality": quality(model.autoencoder, test), "history": history,
    }  # fmt: skip


def clean_row(model: Reconstructor, images: Images) -> dict[str, Any]:
    """Counts of images that each rule reads correctly before any attack, on all of them."""
    logits = measures.in_batches(model, images.x)
    return {"attack": "none", "epsilon": 0.0, **_counts(right(logits, images.y))}


def attack_rows(
    model: Reconstructor, images: Images, names: tuple[str, ...], epsilons: tuple[float, ...],
    objectives: tuple[str, ...], *, steps: int, step_size: float | None, seed: int, context: Context,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each attack ("fgsm", "pgd"), ε and objective, with counts for every rule.

    Rows with objective "strongest" count an image as read correctly only where a rule survives every
    objective. With one path all objectives are its cross-entropy (Eq. 11), so one is run, named `ONE_PATH`.
    """
    one_path = model.autoencoder.necks == 1
    if one_path:
        objectives = objectives[:1]
    rows, chunk = [], BATCH if images.x.device.type == "cpu" else 4 * BATCH
    combinations = [(name, epsilon) for name in names for epsilon in epsilons]
    for name, epsilon in context.progress(combinations, "attacks"):
        survived = []
        for objective in objectives:
            x_adv = attacks.craft(
                method(name, epsilon, steps=steps, step_size=step_size, seed=seed),
                model, images.x, images.y,
                objective=partial(attacks.paths, variant=objective, batch=BATCH), chunk=chunk,
            )  # fmt: skip
            survived.append(right(measures.in_batches(model, x_adv), images.y))
            named = ONE_PATH if one_path else objective
            rows.append({"attack": name, "epsilon": epsilon, "objective": named, **_counts(survived[-1])})
        strongest = {rule: torch.stack([s[rule] for s in survived]).all(0) for rule in survived[0]}
        rows.append({"attack": name, "epsilon": epsilon, "objective": "strongest", **_counts(strongest)})
    return rows


def method(name: str, epsilon: float, *, steps: int, step_size: float | None, seed: int) -> Any:
    """FGSM or PGD in ℓ∞ at an ε, as `(objective, x) -> x_adv`."""
    ball = attacks.Linf(epsilon)
    if name == "fgsm":
        return partial(attacks.fgsm, ball=ball)
    if name != "pgd":
        raise ValueError(f'attack is "fgsm" or "pgd", got {name!r}')
    generator = torch.Generator().manual_seed(seed)
    return partial(
        attacks.pgd, ball=ball, steps=steps, step_size=step_size, generator=generator, cuda_graph=True
    )


def _counts(flags: dict[str, Tensor]) -> dict[str, int]:
    n = len(flags["first"])
    one = int((flags["either"] & ~flags["both"]).sum())  # exactly one path is right
    return {**{rule: int(flag.sum()) for rule, flag in flags.items()}, "exactly_one": one, "n": n}


def quality(model: NeckedAutoencoder, images: Images) -> dict[str, Any]:
    """How well an autoencoder reconstructs, and what its codes share, on clean images.

    "mse": of each path, pixels in [0, 1].  With two necks also held-out R² of the codes in both directions
    and "live_units" of each code.
    """
    with evaluating(model):
        outputs = measures.in_batches(lambda x: torch.stack(model(x), 1), images.x)  # (N, P, C, H, W)
    values: dict[str, Any] = {
        "mse": [(outputs[:, i] - images.x).square().mean().item() for i in range(model.necks)]
    }
    with evaluating(model):
        codes = measures.in_batches(lambda x: torch.stack(model.encode(x), 1), images.x).flatten(2)
    values["live_units"] = [measures.live_units(codes[:, i]) for i in range(model.necks)]
    if model.necks == 2:
        a, b = codes.unbind(1)
        values["heldout"] = [measures.r_squared(a, b, heldout=True), measures.r_squared(b, a, heldout=True)]
    return values

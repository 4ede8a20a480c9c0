"""What the experiments share: training a pair of models side by side, and measuring attacks across it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dnabook import attacks, data, losses, measures, training
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.models import ARCHITECTURES, layout, seeded

Pair = tuple[nn.Module, nn.Module]
DIRECTIONS = ((1, 2), (2, 1))
UNRELATED = 1000  # is added to the seed of networks that share neither weights nor batches with a trial's own


@dataclass(frozen=True)
class Training:
    """How a pair is trained; the defaults are Figure 3's. The batch size is the released code's."""

    epochs: int = 20
    batch_size: int = 1000
    learning_rate: float = 5e-3
    train_images: int = 60_000
    correlation_weight: float = 0.05  # λ in Eq. 8
    variant: str = "released"  # of Eq. 8 and Algorithm 1
    plain_epochs: int = 3  # of the late arm: how long λ is 0 before it takes its full value


TRAINING = {
    "smoke": Training(epochs=4, batch_size=125, train_images=5000, plain_epochs=1),
    "laptop": Training(epochs=4, learning_rate=1e-2, plain_epochs=2),
    "paper": Training(),
}
CORRECTED = {scale: dataclasses.replace(how, variant="corrected") for scale, how in TRAINING.items()}

ARMS = ("regular", "decorrelated", "decorrelated_late")

# Batch normalisation keeps fully connected pairs from collapsing, so they need no late arm.
PAIRS = (
    ("cnn", "regular"),
    ("cnn", "decorrelated"),
    ("cnn", "decorrelated_late"),
    ("fully_connected", "regular"),
    ("fully_connected", "decorrelated"),
)


def train(
    how: Training, architecture: str, arm: str, seed: int, context: Context, **options: Any
) -> tuple[Pair, dict]:
    """A trained pair (in eval mode) and its history; "correlation" starts in the epoch that λ does.

    arm: of `train_in_stages`. The same seed gives all arms the same initial weights and the same batches.
    options: of the architecture, such as the width.
    """
    pair = new_pair(architecture, seed, context, **options)

    def objective(weight: float) -> losses.Objective:
        return losses.decorrelation(*pair, correlation_weight=weight, variant=how.variant)

    made = {"architecture": architecture, **options}
    return pair, train_in_stages(how, arm, objective, seed, context, **made)


def train_in_stages(
    how: Training, arm: str, objective: Callable[[float], losses.Objective], seed: int, context: Context,
    **made: Any,
) -> dict[str, list[float]]:  # fmt: skip
    """Minimise objective(λ), first with λ = 0 and then with its full value, and return the history of both.

    arm: "regular" has λ = 0; "decorrelated" has λ from the first step, as in the paper;
    "decorrelated_late" has it after `plain_epochs`, when the models have begun to learn.
    made: what tells these models' checkpoints from those of others trained alike.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
    images = data.load("mnist", limit=how.train_images, device=context.device)
    batches = data.Batches(images, how.batch_size, seed=seed)
    plain = {"regular": how.epochs, "decorrelated": 0, "decorrelated_late": how.plain_epochs}[arm]
    history: dict[str, list[float]] = {}
    stages = [(plain, 0.0), (how.epochs - plain, how.correlation_weight)]
    for number, (epochs, weight) in enumerate(stages):
        if epochs == 0:
            continue
        staged = objective(weight)
        settings = {**dataclasses.asdict(how), **made, "arm": arm, "stage": number}
        settings["drawn_from"] = seed  # which need not be the trial's
        stage = training.fit(
            staged,
            staged.parameters(),
            batches,
            epochs=epochs,
            learning_rate=how.learning_rate,
            cuda_graph=how.variant != "printed",  # which asks for singular values
            progress=context.progress,
            checkpoint=context.checkpoint(**settings),
        )
        for name, values in stage.items():
            history.setdefault(name, []).extend(round(v, 4) for v in values)
    return history


def train_heads(how: Training, pair: Pair, seed: int, context: Context, **made: Any) -> None:
    """The pair's heads learn to read its features, which stay as they are; batches in the seed's order.

    made: how the pair was made, which tells its checkpoint from those of others. Of fully connected networks
    the features' BatchNorm goes on to take the digits' statistics, as anywhere.
    """
    for model in pair:
        model.body.requires_grad_(False)
    images = data.load("mnist", limit=how.train_images, device=context.device)
    training.fit(
        losses.classification(*pair),
        [p for model in pair for p in model.tail.parameters()],
        data.Batches(images, how.batch_size, seed=seed),
        epochs=how.epochs,
        learning_rate=how.learning_rate,
        cuda_graph=True,
        progress=context.progress,
        checkpoint=context.checkpoint(**dataclasses.asdict(how), **made, arm="heads", drawn_from=seed),
    )


def new_pair(architecture: str, seed: int, context: Context, **options: Any) -> Pair:
    """Two models with different random weights, drawn from the seed. options: of the architecture."""
    with seeded(seed):
        models = [ARCHITECTURES[architecture](**options) for _ in range(2)]
    return tuple(m.to(context.device, memory_format=layout(context.device)) for m in models)


# --- Attacks across a pair -----------------------------------------------------------------------

ATTACKS = ("fgsm-linf", "fgsm-l2", "pgd-linf", "pgd-l2")


def attack(name: str, epsilon: float, images: Images, *, steps: int, seed: int) -> Callable:
    """One of the paper's four attacks at an ε: "fgsm-linf", "fgsm-l2", "pgd-linf" or "pgd-l2".

    ℓ2 balls have radius √D·ε. PGD-ℓ∞ steps by 3/255 as in the released code; PGD-ℓ2 by 2.5 radii / steps.
    """
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    method, norm = name.split("-")
    ball = attacks.Linf(epsilon) if norm == "linf" else attacks.L2(attacks.l2_radius(epsilon, images.x))
    if method == "fgsm":
        return partial(attacks.fgsm, ball=ball)
    generator = torch.Generator().manual_seed(seed)
    step_size = 3 / 255 if norm == "linf" else None
    return partial(
        attacks.pgd, ball=ball, steps=steps, step_size=step_size, generator=generator, cuda_graph=True
    )


def transfer_rows(
    pair: Pair, images: Images, names: tuple[str, ...], epsilons: tuple[float, ...], *, steps: int, seed: int,
    context: Context,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each attack, ε and direction, with the counts behind every transfer rate.

    both_fooled / source_fooled is the printed rate; the `_clean` counts take only images that both models
    classify correctly before the attack; target_wrong / n is the rate that does not ask for the source.
    """
    x, y = images.x, images.y
    right = [measures.predictions(model, x) == y for model in pair]
    clean = right[0] & right[1]
    rows = []
    combinations = [(n, e, d) for n in names for e in epsilons for d in DIRECTIONS]
    for name, epsilon, (source, target) in context.progress(combinations, "attacks"):
        method = attack(name, epsilon, images, steps=steps, seed=seed)
        x_adv = attacks.craft(method, pair[source - 1], x, y)
        fooled, wrong = (measures.predictions(pair[i - 1], x_adv) != y for i in (source, target))
        where = {"attack": name, "epsilon": epsilon, "source": source, "target": target}
        rows.append({**where, **counted(fooled, wrong, clean)})
    return rows


def counted(fooled: Tensor, wrong: Tensor, clean: Tensor) -> dict[str, int]:
    """The counts of `transfer_rows` from three flags of each image, (N,): the source misreads it, the target
    does, and both read it correctly before the attack."""
    return {
        "source_fooled": int(fooled.sum()), "both_fooled": int((fooled & wrong).sum()),
        "source_fooled_clean": int((fooled & clean).sum()),
        "both_fooled_clean": int((fooled & wrong & clean).sum()),
        "target_wrong": int(wrong.sum()), "n": len(fooled), "n_clean": int(clean.sum()),
    }  # fmt: skip


def accuracies(pair: Pair, images: Images) -> list[float]:
    """Share of the images that each model classifies correctly."""
    return [measures.accuracy(model, images.x, images.y) for model in pair]


def feature_pair(pair: Pair, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both models' features of the same images, each (N, M)."""
    return measures.features(pair[0], x), measures.features(pair[1], x)


def feature_row(pair: Pair, images: Images, epsilon: float, seed: int) -> dict[str, Any]:
    """Agreement of both models' features on natural images (ε = 0) or on images attacked through model 1."""
    x = images.x
    if epsilon:
        x = attacks.craft(attack("fgsm-linf", epsilon, images, steps=1, seed=seed), pair[0], x, images.y)
    z = feature_pair(pair, x)
    directions = {
        f"heldout_{source}_to_{target}": measures.r_squared(z[source - 1], z[target - 1], heldout=True)
        for source, target in DIRECTIONS
    }
    return {"epsilon": epsilon, **directions, "pearson": measures.pearson(*z), "cka": measures.cka(*z)}


def predictability_rows(z: tuple[Tensor, Tensor]) -> list[dict[str, Any]]:
    """For each direction held-out R² from the source's features, how many live, and their effective rank."""
    return [
        {"source": s, "target": t, "heldout": measures.r_squared(z[s - 1], z[t - 1], heldout=True),
         "live_units": measures.live_units(z[s - 1]), "effective_rank": measures.effective_rank(z[s - 1])}
        for s, t in DIRECTIONS
    ]  # fmt: skip


def first_component(z: tuple[Tensor, Tensor], y: Tensor, points: int) -> dict[str, Any]:
    """Figure 2: first principal components of both models' features, their R² and so many points."""
    first = [measures.first_component(features) for features in z]
    return {
        "r_squared": measures.r_squared(first[0][:, None], first[1][:, None]),
        "points": {
            "model_1": [round(value, 3) for value in first[0][:points].tolist()],
            "model_2": [round(value, 3) for value in first[1][:points].tolist()],
            "label": y[:points].tolist(),
        },
    }

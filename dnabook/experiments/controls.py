"""What there is without learning: controls for Figures 1 to 3, which the paper does not have.

Beside a regular pair stand what has learned nothing: two untrained networks, the pixels, and random signs of
an attack's size. How much of R² between features, and of the harm of a transferred attack, needs no training?
Does the map between natural features predict how an attack moves them? And what transfers from networks whose
features stay as they were drawn, and of which only the heads have learned to read? Chapters 1 and 3.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dnabook import attacks, data, losses, measures, regression, training
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.experiments.pairs import (
    DIRECTIONS,
    TRAINING,
    Pair,
    Training,
    accuracies,
    attack,
    counted,
    feature_pair,
    new_pair,
    train,
)

TITLE = "What features and attacks share without learning: untrained networks, pixels, random signs"

UNTRAINED = 1000  # is added to the seed of untrained pairs: their weights are not those a pair began with
NATURAL_RIDGE = 1e-3  # of a map between natural features: of those below it predicts movements best
NATURAL_MAP = f"ridge {NATURAL_RIDGE:g}"  # the name of that map in the rows of "movement"
OWN_MAP = "movements"  # the name in the rows of "movement" of the map that is fitted on movements themselves
COMPARED = (  # what predicts, what is predicted
    ("trained", "trained"),
    ("untrained", "trained"),
    ("pixels", "trained"),
    ("trained", "untrained"),
    ("untrained", "untrained"),
)


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    architectures: tuple[str, ...] = ("cnn", "fully_connected")
    epsilons: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20)
    steps: int = 40
    ridges: tuple[float, ...] = (measures.HELDOUT_RIDGE, 1e-3, 1e-1)
    feature_images: int = 10_000
    test_images: int = 1000


SCALES = {
    "smoke": Config(TRAINING["smoke"], ("cnn",), epsilons=(0.10,), steps=5, feature_images=2000,
                    test_images=250),
    "laptop": Config(TRAINING["laptop"], epsilons=(0.05, 0.10, 0.15), steps=20, feature_images=5000,
                     test_images=250),
    "paper": Config(),
}  # fmt: skip


def settings(config: Config) -> list[dict[str, Any]]:
    """One trial for each architecture."""
    return [{"architecture": architecture} for architecture in config.architectures]


def run(config: Config, setting: dict[str, Any], seed: int, context: Context) -> dict[str, Any]:
    """Train the regular pair of `transfer` (or take it), and the heads of an untrained one, and compare.

    Values: "accuracy" of the trained pair on all test images, "accuracy_of_heads" of that with untrained
    features; "predictability", rows of held-out R² and CKA for every two of `COMPARED`, with the target's
    effective rank, on test images in random order; "maps" and "movement" as `movement` gives them; "damage",
    rows of `damage` on the first `test_images` test images; "transfer", on the same, rows of PGD-ℓ∞ from
    networks with untrained features to trained ones.
    """
    architecture = setting["architecture"]
    pair, _ = train(config.training, architecture, "regular", seed, context)
    untrained = new_pair(architecture, seed + UNTRAINED, context)
    heads = new_pair(architecture, seed + UNTRAINED, context)
    train_heads(config.training, heads, seed + UNTRAINED, context, architecture=architecture)
    test = data.load("mnist", "test", device=context.device)
    mixed = shuffled(test, config.feature_images, seed)
    combinations = list(itertools.product(config.epsilons, DIRECTIONS))
    few, damaged, transferred = test[: config.test_images], [], []
    for epsilon, direction in context.progress(combinations, "attacks"):
        damaged.append(damage(pair, untrained, few, epsilon, direction, config.steps, seed))
        source, target = direction
        across = heads[source - 1], [pair[target - 1]]
        (row,) = attacked_through(*across, few, epsilon, config.steps, seed)
        transferred.append({"source": source, "target": target, **row})
    return {
        "data": test.digest,
        "accuracy": accuracies(pair, test),
        "accuracy_of_heads": accuracies(heads, test),
        "predictability": list(predictability(pair, heads, mixed.x)),
        **movement(pair, mixed, config.epsilons, config.ridges, seed),
        "damage": damaged,
        "transfer": transferred,
    }


def shuffled(images: Images, limit: int, seed: int) -> Images:
    """So many of the images in random order, so that both halves of a held-out R² are alike."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[:limit].to(images.y.device)]


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


def predictability(pair: Pair, untrained: Pair, x: Tensor) -> Iterator[dict[str, Any]]:
    """Held-out R² and CKA from each source of `COMPARED` to each target, and the target's effective rank.

    Sources are the first network of a pair, targets the second, so nothing predicts itself.
    """
    pixels = x.flatten(1)
    z = {"trained": feature_pair(pair, x), "untrained": feature_pair(untrained, x), "pixels": 2 * (pixels,)}
    for source, target in COMPARED:
        z1, z2 = z[source][0], z[target][1]
        yield {
            "source": source,
            "target": target,
            "heldout": measures.r_squared(z1, z2, heldout=True),
            "cka": measures.cka(z1, z2),
            "effective_rank": measures.effective_rank(z2),
        }


def movement(
    pair: Pair, images: Images, epsilons: tuple[float, ...], ridges: tuple[float, ...], seed: int
) -> dict[str, list[dict[str, Any]]]:
    """How well a map from features 1 to features 2 predicts how FGSM-ℓ∞ through model 1 moves them.

    Maps are fitted on the natural features of the first half of the images, one with each ridge. "maps": a
    row for each with its held-out R², on the other half.  "movement": for each map and ε the share of the
    squared movement that it "explains" there (no movement would score 0), beside that of a map "movements",
    fitted on the movements of the first half, without a constant as the others have none for a movement.
    """
    half = len(images) // 2
    z1, z2 = map(regression.double, feature_pair(pair, images.x))
    fits = {f"ridge {r:g}": regression.fit(z1[:half], z2[:half], ridge=r, eta=0.0) for r in ridges}
    target = z2[half:]
    around = target - target.mean(0)
    maps = [
        {"map": name, "natural": _explained(fit.residual(z1[half:], target), around)}
        for name, fit in fits.items()
    ]
    rows = []
    for epsilon in epsilons:
        method = attack("fgsm-linf", epsilon, images, steps=1, seed=seed)
        x_adv = attacks.craft(method, pair[0], images.x, images.y)
        z1_adv, z2_adv = map(regression.double, feature_pair(pair, x_adv))
        moved1, moved2 = z1_adv - z1, z2_adv - z2
        signed = (torch.cat([moved[:half], -moved[:half]]) for moved in (moved1, moved2))  # their mean is 0
        own = regression.fit(*signed, ridge=measures.HELDOUT_RIDGE, eta=0.0)
        for name, fit in {**fits, OWN_MAP: own}.items():
            astray = moved2[half:] - moved1[half:] @ fit.weight
            rows.append({"map": name, "epsilon": epsilon, "explains": _explained(astray, moved2[half:])})
    return {"maps": maps, "movement": rows}


def _explained(error: Tensor, whole: Tensor) -> float:
    return (1 - error.square().sum() / whole.square().sum()).item()


def damage(
    pair: Pair, untrained: Pair, images: Images, epsilon: float, direction: tuple[int, int], steps: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What an attack on one model does to the other, beside what needs no trained model.

    Of the images that both models read and that PGD-ℓ∞ turns wrong for the source ("counted"), how many the
    target misreads when they are attacked so ("attacked"), when each pixel moves by ±ε at random ("signs"),
    and when they are attacked through an untrained network ("untrained"). attacked / counted is the
    conditioned transfer rate.
    """
    source, target = direction
    x, y, reader = images.x, images.y, pair[target - 1]

    def crafted(model: nn.Module) -> Tensor:
        return attacks.craft(attack("pgd-linf", epsilon, images, steps=steps, seed=seed), model, x, y)

    versions = {
        "attacked": crafted(pair[source - 1]),
        "signs": _random_signs(x, epsilon, seed),
        "untrained": crafted(untrained[source - 1]),
    }
    taken = measures.predictions(pair[source - 1], versions["attacked"]) != y
    for model in pair:
        taken &= measures.predictions(model, x) == y
    wrong = {name: measures.predictions(reader, moved) != y for name, moved in versions.items()}
    return {
        "epsilon": epsilon, "source": source, "target": target, "counted": int(taken.sum()),
        **{name: int((each & taken).sum()) for name, each in wrong.items()},
    }  # fmt: skip


def attacked_through(
    source: nn.Module, targets: Sequence[nn.Module], images: Images, epsilon: float, steps: int, seed: int
) -> list[dict[str, Any]]:
    """PGD-ℓ∞ on one network, read by others: for each the counts of `pairs.counted`.

    "signs_clean": of the images that the conditioned rate counts ("source_fooled_clean"), how many the target
    misreads when each pixel moves by ±ε at random instead.
    """
    x, y = images.x, images.y
    method = attack("pgd-linf", epsilon, images, steps=steps, seed=seed)
    x_adv, signs = attacks.craft(method, source, x, y), _random_signs(x, epsilon, seed)
    fooled, known = measures.predictions(source, x_adv) != y, measures.predictions(source, x) == y
    rows = []
    for target in targets:
        wrong, clean = measures.predictions(target, x_adv) != y, measures.predictions(target, x) == y
        astray, clean = measures.predictions(target, signs) != y, clean & known
        counts = counted(fooled, wrong, clean)
        counts["signs_clean"] = int((astray & fooled & clean).sum())
        rows.append({"attack": "pgd-linf", "epsilon": epsilon, **counts})
    return rows


def _random_signs(x: Tensor, epsilon: float, seed: int) -> Tensor:
    return attacks.random_signs(x, epsilon, generator=torch.Generator().manual_seed(seed))

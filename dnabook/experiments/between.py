"""What holds between two networks of any kind or pair: the one that is attacked and the one that reads.

`relations`, `movements` and `transfers` take a trial's networks by name, a kind or arm and a number, and the
cells that are asked for: (attacked, reads). Rows come back with both names, so a table can ask for any of
them. `movement` and `attacked_through` are what they do to one cell, and to one network that is attacked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnabook import attacks, measures, regression
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.experiments.pairs import Pair, attack, counted, feature_pair

NATURAL_RIDGE = 1e-3  # of a map between natural features: of those in `controls` it predicts movements best
NATURAL_MAP = f"ridge {NATURAL_RIDGE:g}"  # the name of that map in the rows of "movement"
OWN_MAP = "movements"  # the name in the rows of "movement" of the map that is fitted on movements themselves

Network = tuple[str, int]  # kind or arm, and number
Networks = Mapping[Network, nn.Module]
Cell = tuple[Network, Network]  # who is attacked, and who reads
Reading = Callable[[Tensor, Tensor], float]  # of two feature tensors, (N, M1) and (N, M2)


def relations(
    networks: Networks, cells: Sequence[Cell], mixed: Images, few: Images, others: Mapping[str, Reading] = {}
) -> Iterator[dict[str, Any]]:
    """For each cell held-out R² of the reader's features from the attacked one's, and the gradients' cosine.

    mixed: images in random order, for R² and the `others`, readings of both feature tensors by their name.
    few: those on which the mean cosine of the input gradients is taken.
    """
    z = {name: measures.features(model, mixed.x) for name, model in networks.items()}
    for source, target in cells:
        across = networks[source], networks[target]
        yield {
            **named(source, target),
            "heldout": measures.r_squared(z[source], z[target], heldout=True),
            **{name: reading(z[source], z[target]) for name, reading in others.items()},
            "gradient_cosine": measures.gradient_cosine(*across, few.x, few.y),
        }


def movements(
    networks: Networks, cells: Sequence[Cell], mixed: Images, epsilons: tuple[float, ...], seed: int,
    context: Context,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """For each cell the rows of `movement`, with one ridge."""
    for source, target in context.progress(cells, "movements"):
        across = networks[source], networks[target]
        for row in movement(across, mixed, epsilons, (NATURAL_RIDGE,), seed)["movement"]:
            yield {**named(source, target), **row}


def transfers(
    networks: Networks, cells: Sequence[Cell], images: Images, epsilons: tuple[float, ...], steps: int,
    seed: int, context: Context,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """For each ε and cell the counts of `attacked_through`; each network is attacked once an ε."""
    combinations = list(itertools.product(epsilons, dict.fromkeys(source for source, _ in cells)))
    for epsilon, source in context.progress(combinations, "attacks"):
        read_by = [target for attacked, target in cells if attacked == source]
        readers = [networks[target] for target in read_by]
        rows = attacked_through(networks[source], readers, images, epsilon, steps, seed)
        for target, row in zip(read_by, rows, strict=True):
            yield {**named(source, target), **row}


def named(source: Network, target: Network) -> dict[str, Any]:
    """The columns of a row that say which cell it is."""
    return {"source_arm": source[0], "source": source[1], "target_arm": target[0], "target": target[1]}


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


def attacked_through(
    source: nn.Module, targets: Sequence[nn.Module], images: Images, epsilon: float, steps: int, seed: int
) -> list[dict[str, Any]]:
    """PGD-ℓ∞ on one network, read by others: for each the counts of `pairs.counted`.

    "signs_clean": of the images that the conditioned rate counts ("source_fooled_clean"), how many the target
    misreads when each pixel moves by ±ε at random instead.
    """
    x, y = images.x, images.y
    method = attack("pgd-linf", epsilon, images, steps=steps, seed=seed)
    x_adv, signs = attacks.craft(method, source, x, y), random_signs(x, epsilon, seed)
    fooled, known = measures.predictions(source, x_adv) != y, measures.predictions(source, x) == y
    rows = []
    for target in targets:
        wrong, clean = measures.predictions(target, x_adv) != y, measures.predictions(target, x) == y
        astray, clean = measures.predictions(target, signs) != y, clean & known
        counts = counted(fooled, wrong, clean)
        counts["signs_clean"] = int((astray & fooled & clean).sum())
        rows.append({"attack": "pgd-linf", "epsilon": epsilon, **counts})
    return rows


def random_signs(x: Tensor, epsilon: float, seed: int) -> Tensor:
    """`attacks.random_signs`, drawn from the seed on the CPU, so that they are the same on every device."""
    return attacks.random_signs(x, epsilon, generator=torch.Generator().manual_seed(seed))

"""What holds between two networks of any kind or pair: the one that is attacked and the one that reads.

Each function takes a trial's networks by name, a kind or arm and a number, and the cells that are asked
for: (attacked, reads). Rows come back with both names, so a table can ask for any of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dnabook import measures
from dnabook.data import Images
from dnabook.experiments import Context
from dnabook.experiments.controls import NATURAL_RIDGE, attacked_through, movement

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
    """For each cell the rows of `controls.movement`, with one ridge."""
    for source, target in context.progress(cells, "movements"):
        across = networks[source], networks[target]
        for row in movement(across, mixed, epsilons, (NATURAL_RIDGE,), seed)["movement"]:
            yield {**named(source, target), **row}


def transfers(
    networks: Networks, cells: Sequence[Cell], images: Images, epsilons: tuple[float, ...], steps: int,
    seed: int, context: Context,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """For each ε and cell the counts of `controls.attacked_through`; each network is attacked once an ε."""
    combinations = list(itertools.product(epsilons, networks))
    for epsilon, source in context.progress(combinations, "attacks"):
        read_by = [target for attacked, target in cells if attacked == source]
        readers = [networks[target] for target in read_by]
        rows = attacked_through(networks[source], readers, images, epsilon, steps, seed)
        for target, row in zip(read_by, rows, strict=True):
            yield {**named(source, target), **row}


def named(source: Network, target: Network) -> dict[str, Any]:
    """The columns of a row that say which cell it is."""
    return {"source_arm": source[0], "source": source[1], "target_arm": target[0], "target": target[1]}

"""dnabook: why adversarial examples transfer between models, and what decorrelating their features does.

Each module imports only those before it: `memory`, `graphs` and `products` (which make things fast and can
be skipped at first), `data` (images as tensors), `models` and `autoencoders` (Figures 11 to 13),
`regression` and `measures` (R², transfer rates), `losses` (Algorithm 1, Eqs. 4, 5 and 8), `attacks` (Eqs. 1
to 3, 10 and 11), `training` (one loop), `dverge`, then `experiments/` (one file a finding), `engines`
(trials in parallel), `records` (what was run, when, where), `summaries` (their statistics), `claims` (the
paper's, and the rules that judge them), `scoreboard`, `findings` (the first page's lines), `figures`,
`tables/` (the chapters' tables and sentences), `costs`, `widgets` and the book's `pieces`.
"""

import importlib
from types import ModuleType

from dnabook import (
    attacks,
    autoencoders,
    data,
    dverge,
    losses,
    measures,
    models,
    regression,
    training,
)
from dnabook._version import __version__
from dnabook.attacks import L2, Linf, craft, fgsm, pgd, targeted, untargeted
from dnabook.losses import correlation_loss
from dnabook.measures import r_squared, transfer_matrix, transfer_rate
from dnabook.models import CNN, FullyConnected

__all__ = [
    "CNN", "L2", "FullyConnected", "Linf", "__version__", "attacks", "autoencoders", "correlation_loss",
    "craft", "data", "dverge", "fgsm", "losses", "measures", "models", "pgd", "r_squared", "regression",
    "targeted", "training", "transfer_matrix", "transfer_rate", "untargeted",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """The modules below these, such as `dnabook.records`, are imported when they are asked for."""
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":  # something that it needs is missing
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

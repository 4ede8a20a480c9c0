"""dnabook: why adversarial examples transfer between models, and what decorrelating their features does.

Read it in this order: `data` (images as tensors), `models` (Figure 11), `regression` and `measures` (R²,
transfer rates), `losses` (Algorithm 1, Eqs. 5 and 8), `attacks` (Eqs. 1 to 3), `training` (one loop), then
`experiments/` (one file a finding), `records` (what was run, when, where) and `figures`.
Each imports only those before it.
"""

from dnabook import attacks, data, losses, measures, models, regression, training
from dnabook._version import __version__
from dnabook.attacks import L2, Linf, fgsm, pgd
from dnabook.losses import correlation_loss
from dnabook.measures import r_squared, transfer_matrix, transfer_rate
from dnabook.models import CNN, FullyConnected

__all__ = [
    "CNN", "L2", "FullyConnected", "Linf", "__version__", "attacks", "correlation_loss", "data", "fgsm",
    "losses", "measures", "models", "pgd", "r_squared", "regression", "training", "transfer_matrix",
    "transfer_rate",
]  # fmt: skip

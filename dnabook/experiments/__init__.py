"""One file a finding. Each has a frozen `Config` whose defaults are the paper's settings, `SCALES`,
`settings(config)` and `run(config, setting, seed, context) -> values` that fit into JSON. What else it may
have, and a whole one to begin with, stands in CONTRIBUTING.md.

A trial is one setting and one seed, independent of all others. Experiments know neither clock nor disk:
what they need of the world comes in the context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from dnabook.training import Checkpoint, quiet

NAMES = (
    "parameter_distance", "feature_correlation", "transfer", "dverge", "autoencoder_mnist",
    "autoencoder_cifar", "shared_layers", "variants", "correlation_weights", "strangers", "disagreement",
    "controls", "learned_features", "surrogate", "features_or_gradients", "architectures",
    "capacity",
)  # fmt: skip


class Context(NamedTuple):
    """Where a trial runs, how it shows progress, where a training run keeps its state, what is kept of it.

    checkpoint(**settings) gives the place for a training run with these settings, or None. They must name all
      that tells the run from others of its seed, such as arm, stage and λ: runs with equal settings share
      the place, also where the trials' own settings or scales differ, and across `records.SHARING`. The seed,
      the device and the code that trains count anyway: for an experiment that is neither there nor in
      `records.TRAINING_CODE`, that of its module, too.
    keep(**items) hands over trained models and tensors that the chapters' live cells load.
    """

    device: torch.device
    progress: Callable[..., Iterable] = quiet
    checkpoint: Callable[..., Checkpoint | None] = lambda **settings: None
    keep: Callable[..., None] = lambda **items: None

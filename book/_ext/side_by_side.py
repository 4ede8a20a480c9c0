"""Sphinx extension: chapters are executed side by side, as many as there are cores, up to four.

`jupyter-book build` has no option for it. Sphinx deals pages out in runs of neighbours; the order given to it
here puts neighbours, the long chapters among them, into different runs.
"""

from __future__ import annotations

import os
from typing import Any

# Both work on all pages together after these are read, and do not say so to Sphinx.
SAFE = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
CORES = 4  # at most: every chapter's kernel takes a few hundred MiB


def deal(pages: list[str], hands: int) -> list[str]:
    """The pages in an order whose equal runs, `hands` of them, take every `hands`-th page each."""
    return [page for hand in range(hands) for page in pages[hand::hands]]


def prepare(app: Any, config: Any) -> None:
    for name in SAFE:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def order(app: Any, env: Any, pages: list[str]) -> None:
    pages[:] = deal(pages, app.parallel)


def setup(app: Any) -> dict[str, bool]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    app.parallel = max(app.parallel, min(cores, CORES))
    if app.parallel > 1:  # kernels that share the cores would wait for each other at every step
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // app.parallel)))
    app.connect("config-inited", prepare)
    app.connect("env-before-read-docs", order)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""PYTHONSTARTUP of the kernels at smoke scale: cells of a chapter train on at most 3,000 images.

Every cell still runs as it is printed; only its training is short, and test images are not touched. At the
other scales a chapter loads what it says.
"""


def _few_images(most=3000):
    from functools import wraps

    from dnabook import data

    load = data.load

    @wraps(load)
    def few(name="mnist", split="train", *, limit=None, device=None):
        small = split == "train" and (limit is None or limit > most)
        return load(name, split, limit=most if small else limit, device=device)

    data.load = few


_few_images()
del _few_images  # the chapter starts with no name that it has not defined

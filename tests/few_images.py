"""PYTHONSTARTUP of the kernels at smoke scale: cells train on at most 1,000 images, and PGD makes 3 steps.

Every cell still runs as it is printed; only its training and its attacks are short, and test images are not
touched. At the other scales a chapter does what it says.
"""


def _few_images(most=1000, most_steps=3):
    from functools import wraps

    import dnabook
    from dnabook import attacks, data

    load, pgd = data.load, attacks.pgd

    @wraps(load)
    def few(name="mnist", split="train", *, limit=None, device=None):
        small = split == "train" and (limit is None or limit > most)
        return load(name, split, limit=most if small else limit, device=device)

    @wraps(pgd)
    def short(objective, x, ball, *, steps=most_steps, **options):
        return pgd(objective, x, ball, steps=min(steps, most_steps), **options)

    data.load = few
    attacks.pgd = dnabook.pgd = short


_few_images()
del _few_images  # the chapter starts with no name that it has not defined

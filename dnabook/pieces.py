"""The book's interactive pieces: a digit under attack and any digit, live (chapter 1), which digits fool whom
and λ as a dial (chapter 4), DVERGE by epoch (chapter 5), reconstructions under attack (chapter 6).

Each gives `widgets.frames` something to draw: the pictures are `figures`', the sentences say what they show.
"""

from __future__ import annotations

import functools
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps, ImageStat
from torch import Tensor, nn

from dnabook import attacks, figures, measures, summaries, widgets
from dnabook.autoencoders import Reconstructor
from dnabook.data import Images
from dnabook.experiments import pairs, reconstruction
from dnabook.models import evaluating
from dnabook.records import Record
from dnabook.widgets import WIDE, Frame, Note, choice, frames, live, slider

# --- Chapter 1: a digit under attack -------------------------------------------------------------

EPSILONS = tuple(i / 50 for i in range(11))  # 0 to 0.20


def digit_under_attack(
    models: pairs.Pair, digit: Images, *, epsilons: Sequence[float] = EPSILONS, steps: int = 20
) -> Any:
    """One digit, attacked through model 1 by FGSM or PGD in ℓ∞, and how sure both models are of each class.

    models: two classifiers of (N, 1, 28, 28) with ten classes.  digit: `Images` of length 1.
    """
    names = {"FGSM": "fgsm-linf", "PGD": "pgd-linf"}

    @functools.lru_cache
    def attacked(name: str, epsilon: float) -> tuple[Tensor, Tensor]:
        return _attacked(models, digit, name, epsilon, steps)

    def draw(name: str, epsilon: float) -> Frame:
        image, shares = attacked(name, epsilon)
        title = f"{figures.ATTACKS[name]}\nε = {epsilon:.2f}"
        sentence = f"{figures.ATTACKS[name]} on model 1 at ε = {epsilon:.2f}: {_readings(shares)}."
        return Frame(figures.probabilities(image[0], shares, title), sentence)

    def still() -> Frame:
        label = int(digit.y)
        few = [epsilons[round(i * (len(epsilons) - 1) / 4)] for i in range(5)]
        images = torch.cat([attacked("pgd-linf", epsilon)[0] for epsilon in few])
        titles = [f"ε = {epsilon:.2f}" for epsilon in few]
        all_shares = {  # (2, 10, len(epsilons))
            text: torch.stack([attacked(name, epsilon)[1] for epsilon in epsilons], 2)
            for text, name in names.items()
        }
        said = "; ".join(
            f"{text}: {_first_misread(shares, label, epsilons)}" for text, shares in all_shares.items()
        )
        sentence = (
            f"A {label} under growing ε, attacked through model 1, and when it is first misread. {said}."
        )
        courses = {text: shares[:, label] for text, shares in all_shares.items()}
        return Frame(figures.attack_course(images, titles, epsilons, courses), sentence)

    controls = [choice("attack", names), slider("strength ε", epsilons, "{:.2f}")]
    return frames("digit-under-attack", draw, controls, still=still, start=(0, len(epsilons) // 2))


def _attacked(
    models: pairs.Pair, digit: Images, name: str, epsilon: float, steps: int
) -> tuple[Tensor, Tensor]:
    """The digit (1, 1, 28, 28) attacked through model 1, and both models' probabilities, (2, 10)."""
    how = pairs.attack(name, epsilon, digit, steps=steps, seed=0)
    x_adv = attacks.craft(how, models[0], digit.x, digit.y)
    with torch.no_grad(), evaluating(*models):
        return x_adv, torch.cat([model(x_adv).softmax(1) for model in models])


def _readings(shares: Tensor) -> str:
    """ "model 1 reads 3 (81 %), model 2 reads 7 (64 %)" of probabilities (2, 10)."""
    best = shares.max(1)
    return ", ".join(
        f"model {number} reads {int(answer)} ({summaries.percent(float(share))})"
        for number, (share, answer) in enumerate(zip(best.values, best.indices, strict=True), 1)
    )


def _first_misread(shares: Tensor, label: int, epsilons: Sequence[float]) -> str:
    """ "by model 1 at ε = 0.08, by model 2 never" of probabilities (2, 10, len(epsilons))."""
    parts = []
    for number, wrong in enumerate((shares.argmax(1) != label).tolist(), 1):
        at = next(
            (f"at ε = {e:.2f}" for e, is_wrong in zip(epsilons, wrong, strict=True) if is_wrong), "never"
        )
        parts.append(f"by model {number} {at}")
    return ", ".join(parts)


# --- Chapter 4: which digits fool whom, and λ as a dial ------------------------------------------


class Outcome(NamedTuple):
    """What an attack through model 1 did to N images: what both models answer and what they got right before.

    x_adv: (N, 1, 28, 28);  answers: (2, N);  before: (2, N), whether the clean image was read correctly.
    """

    x_adv: Tensor
    y: Tensor
    answers: Tensor
    before: Tensor

    def fate(self, i: int) -> str:
        """The key of `figures.OUTCOMES` for image i."""
        if not self.before[:, i].all():
            return "misread before"
        fate = {(0, 0): "fools neither", (1, 0): "fools model 1 only", (0, 1): "fools model 2 only"}
        wrong = (self.answers[:, i] != self.y[i]).tolist()
        return fate.get((int(wrong[0]), int(wrong[1])), "fools both")

    def counts(self) -> tuple[int, int, int]:
        """Images that fool both, that fool model 1, and all; of those that both read correctly before."""
        before = self.before.all(0)
        first, second = (self.answers != self.y) & before
        return int((first & second).sum()), int(first.sum()), int(before.sum())

    def rate(self) -> float:
        """The conditioned transfer rate from model 1 to model 2; nan when nothing fools model 1."""
        both, source, _ = self.counts()
        return both / source if source else math.nan


def pair_explorer(
    models: Mapping[str, pairs.Pair],
    images: Images,
    *,
    epsilons: Sequence[float] = (0.0, 0.05, 0.10, 0.15, 0.20),
    steps: int = 20,
    shown: int = 15,
) -> Any:
    """Which attacked digits fool model 1, and which of those model 2, for named pairs and all four attacks.

    images: attacked through model 1 and counted; the first `shown` are drawn, each with its label and both
    models' answers. The rate counts only images that both models read correctly before the attack.
    """

    @functools.lru_cache
    def outcome(pair: str, name: str, epsilon: float) -> Outcome:
        how = pairs.attack(name, epsilon, images, steps=steps, seed=0)
        x_adv = attacks.craft(how, models[pair][0], images.x, images.y)
        answers, clean = (
            torch.stack([measures.predictions(model, x) for model in models[pair]]) for x in (x_adv, images.x)
        )
        return Outcome(x_adv, images.y, answers, clean == images.y)

    def draw(pair: str, name: str, epsilon: float) -> Frame:
        found = outcome(pair, name, epsilon)
        few = range(min(shown, len(images)))
        titles = [f"{int(found.y[i])}: {int(found.answers[0, i])}, {int(found.answers[1, i])}" for i in few]
        both, source, n = found.counts()
        rate = f", a transfer rate of {summaries.percent(found.rate())}" if source else ""
        sentence = (
            f"{figures.ATTACKS[name]} on model 1 of the {pair} pair at ε = {epsilon:.2f}: of {n} "
            f"digits that both models read correctly before, {source} fool model 1, and {both} of these fool "
            f"model 2 too{rate}."
        )
        return Frame(figures.fooled(found.x_adv[:shown], titles, [found.fate(i) for i in few]), sentence)

    def still() -> Frame:
        rates = {
            name: {pair: [outcome(pair, name, e).rate() for e in epsilons] for pair in models}
            for name in figures.ATTACKS
        }
        middle = len(epsilons) // 2
        each = [
            f"{figures.ATTACKS[name]}: "
            + ", ".join(f"{_share(values[middle])} ({pair})" for pair, values in by_pair.items())
            for name, by_pair in rates.items()
        ]
        sentence = f"Transfer from model 1 to model 2 at ε = {epsilons[middle]:.2f}. {'; '.join(each)}."
        return Frame(figures.explored(rates, epsilons), sentence)

    controls = [
        choice("pair", {pair: pair for pair in models}),
        choice("attack", {text: name for name, text in figures.ATTACKS.items()}),
        slider("strength ε", epsilons, "{:.2f}"),
    ]
    start = (0, list(figures.ATTACKS).index("pgd-linf"), len(epsilons) // 2)
    return frames("pair-explorer", draw, controls, still=still, start=start)


def _share(rate: float) -> str:
    return "nothing to count" if math.isnan(rate) else summaries.percent(rate)


def correlation_dial(record: Record) -> Any:
    """The scatter of Figure 2 with λ as a dial, for every seed of a record of `correlation_weights`."""
    weights, seeds = tuple(record.config["weights"]), record.whole_seeds

    def draw(seed: int, weight: float) -> Frame:
        values = record.find({"correlation_weight": weight}, seed)["values"]
        forth, back = (row["heldout"] for row in values["predictability"])
        rate = summaries.mean([summaries.rate(row) for row in values["transfer"]])
        accuracy = [summaries.percent(share) for share in values["accuracy"]]
        lost = [i for i, share in enumerate(values["accuracy"], 1) if share < summaries.LEARNED]
        note = f" Model {lost[0]} has collapsed: this pair says nothing about transfer." if lost else ""
        first = _number(values["first_component"]["r_squared"])
        sentence = (
            f"λ = {weight:g}, pair {seed + 1}: R² of the first components {first}, of all features, held "
            f"out, {_number(forth)} from model 1 to 2 and {_number(back)} back. PGD-ℓ∞ at "
            f"ε = {record.config['epsilon']:.2f} transfers in {_share(rate)}. The models read {accuracy[0]} "
            f"and {accuracy[1]} of the test digits correctly.{note}"
        )
        return Frame(figures.components(record, weight, seed), sentence)

    def still() -> Frame:
        kept = summaries.healthy(record)
        ends = (weights[0], weights[-1])
        first = [kept.values("first_component", "r_squared", correlation_weight=w) for w in ends]
        rates = [summaries.transfer(kept, correlation_weight=w) for w in ends]
        accuracy = [summaries.accuracy(kept, correlation_weight=w) for w in ends]
        broken, of = summaries.collapsed(record)
        sentence = (
            f"From λ = {ends[0]:g} to {ends[1]:g}, means over pairs: R² of the first components "
            f"{' → '.join(_number(summaries.mean(values)) for values in first)}, transfer of PGD-ℓ∞ at "
            f"ε = {record.config['epsilon']:.2f} {' → '.join(_share(rate.mean) for rate in rates)}, accuracy "
            f"{' → '.join(_share(share.mean) for share in accuracy)}; {broken} of {of} pairs collapsed."
        )
        return Frame(figures.correlation_weights(record), sentence)

    controls = [
        choice("pair", {str(seed + 1): seed for seed in seeds}),
        slider("weight λ", weights),
    ]
    return frames("correlation-dial", draw, controls, still=still)


def _number(value: float) -> str:
    return "without a value" if math.isnan(value) else f"{value:.2f}"


# --- Chapter 5: DVERGE, epoch by epoch -----------------------------------------------------------


def dverge_course(record: Record) -> Any:
    """Transfer against natural accuracy after every epoch of DVERGE, from every start in the record."""
    last, epsilons = record.config["epochs"], tuple(record.config["epsilons"])
    courses = functools.cache(functools.partial(figures.trade_offs, record))

    def sentence(course: Mapping[Any, Any], epoch: int, epsilon: float) -> str:
        each = [
            f"{figures.STARTS[start].replace(chr(10), ' ')}: {summaries.percent(points[epoch][1])} and "
            f"{summaries.percent(points[epoch][0])}"
            for start, points in course.items()
        ]
        when = f"Epoch {epoch}, PGD-ℓ∞ at ε = {epsilon:.2f}"
        if not each:
            return f"{when}: every pair had collapsed before DVERGE."
        return f"{when}, transfer and natural accuracy. {'; '.join(each)}."

    def draw(epsilon: float, epoch: int) -> Frame:
        course = courses(epsilon)
        return Frame(figures.trade_off(record, course, epoch, epsilon), sentence(course, epoch, epsilon))

    def still() -> Frame:
        all_of_it = draw(epsilons[len(epsilons) // 2], last)
        return all_of_it._replace(sentence=f"From epoch 0 (hollow) to the last. {all_of_it.sentence}")

    controls = [choice("ε of PGD", {f"{e:.2f}": e for e in epsilons}), slider("epoch", range(last + 1))]
    return frames("dverge-course", draw, controls, still=still, start=(len(epsilons) // 2, 0))


# --- Chapter 6: reconstructions under attack -----------------------------------------------------


def reconstructions(
    model: Reconstructor,
    images: Images,
    *,
    epsilons: Sequence[float] = EPSILONS,
    steps: int = 20,
    shown: int = 5,
) -> Any:
    """What both paths of a DNA make of digits under PGD-ℓ∞, as printed or with the smaller loss raised.

    images: attacked and counted; the first `shown` are drawn with both reconstructions. Over each column: the
    label, then what the classifier reads in the first and in the second.
    """
    variants = {"as printed (Eq. 10)": "printed", "the smaller loss raised": "corrected"}
    x, y = images.x, images.y

    @functools.lru_cache
    def attacked(variant: str, epsilon: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(0)
        objective = attacks.paths(model, y, variant)
        x_adv = attacks.pgd(objective, x, attacks.Linf(epsilon), steps=steps, generator=generator)
        logits = measures.in_batches(model, x_adv)
        shares = {rule: float(f.float().mean()) for rule, f in reconstruction.right(logits, y).items()}
        return x_adv[:shown], logits[:shown].argmax(2), shares

    def rows(variant: str, epsilon: float) -> dict[str, Tensor]:
        x_adv, _, _ = attacked(variant, epsilon)
        with torch.no_grad(), evaluating(model):
            first, second = model.autoencoder(x_adv)
        return {"attacked": x_adv, "path 1": first, "path 2": second}

    def draw(variant: str, epsilon: float) -> Frame:
        _, read, shares = attacked(variant, epsilon)
        titles = [f"{t}: {a}, {b}" for t, (a, b) in zip(y[:shown].tolist(), read.tolist(), strict=True)]
        text = next(text for text, value in variants.items() if value == variant)
        first, second, either = (summaries.percent(shares[rule]) for rule in ("first", "second", "either"))
        sentence = (
            f"PGD-ℓ∞, {text}, at ε = {epsilon:.2f}: of {len(images)} digits path 1 reads {first} correctly, "
            f"path 2 {second}, and {either} are read correctly by one path or the other."
        )
        return Frame(figures.images(rows(variant, epsilon), titles, cell=0.72), sentence)

    def still() -> Frame:
        few = [epsilons[0], epsilons[len(epsilons) // 2], epsilons[-1]]
        shown_rows = {
            f"{name}\nε = {epsilon:.2f}": row
            for epsilon in few
            for name, row in rows("printed", epsilon).items()
            if name != "attacked"
        }
        either = {
            text: [summaries.percent(attacked(variant, epsilon)[2]["either"]) for epsilon in few]
            for text, variant in variants.items()
        }
        at = ", ".join(f"{epsilon:.2f}" for epsilon in few)
        sentence = f"Digits that either path reads correctly at ε = {at}. PGD-ℓ∞ " + "; ".join(
            f"{text}: {', '.join(values)}" for text, values in either.items()
        )
        titles = [str(label) for label in y[:shown].tolist()]
        return Frame(figures.images(shown_rows, titles, cell=0.72), sentence + ".")

    controls = [choice("PGD", variants), slider("strength ε", epsilons, "{:.2f}")]
    return frames("reconstructions", draw, controls, still=still, start=(0, len(epsilons) // 2))


# --- Any digit, live -----------------------------------------------------------------------------

PAD = """
<canvas width="28" height="28" role="img" aria-label="Drawing pad: draw a digit with mouse, pen or finger"
 style="width:196px;height:196px;background:#000;image-rendering:pixelated;touch-action:none;cursor:crosshair"
 onpointerdown="HANDLE" onpointermove="HANDLE" onpointerup="HANDLE"></canvas>
<button type="button" onclick="var c=this.parentNode.querySelector('canvas');
c.getContext('2d').clearRect(0,0,28,28)">clear</button>
"""
HANDLE = """
var c=this, g=c.getContext('2d'), k=28/c.clientWidth, p=[event.offsetX*k, event.offsetY*k];
if (event.type=='pointerdown') { c.last=p; c.setPointerCapture(event.pointerId); }
if (!c.last) return;
g.strokeStyle='#fff'; g.lineWidth=2.4; g.lineCap='round';
g.beginPath(); g.moveTo(c.last[0],c.last[1]); g.lineTo(p[0]+0.01,p[1]); g.stroke(); c.last=p;
if (event.type!='pointerup') return;
c.last=null;
var d=g.getImageData(0,0,28,28).data, s='';
for (var i=3; i&lt;d.length; i+=4) s+=(256+d[i]).toString(16).slice(1);
var t=c.closest('.dnabook-pad').querySelector('textarea');
t.value=s;
['input','change'].forEach(function (e) { t.dispatchEvent(new Event(e,{bubbles:true})); });
"""


def live_attack(models: pairs.Pair, images: Images, *, steps: int = 20) -> Any:
    """Attack a test digit, one that the reader draws or one uploaded as a picture, with any ε up to 0.3.

    models: two classifiers; the first is attacked.  images: test digits to choose from.
    Returns an `ipywidgets.VBox` where `live()`, else a `Note` that says so. A reader's digit has no label: it
    is attacked away from what model 1 reads in it.
    """
    if not live():
        return Note("Run this chapter in Colab or Jupyter to attack a digit that you draw or upload here.")
    import ipywidgets

    digits = [(f"test digit {i + 1}: a {int(label)}", i) for i, label in enumerate(images.y)]
    which = ipywidgets.Dropdown(
        options=[*digits, ("drawn", "drawn"), ("uploaded", "uploaded")], description="image"
    )
    how = ipywidgets.Dropdown(
        options=[(text, name) for name, text in figures.ATTACKS.items()], description="attack"
    )
    epsilon = ipywidgets.FloatSlider(
        value=0.1, max=0.3, step=0.01, description="ε", continuous_update=False, style=WIDE
    )
    upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="upload")
    pixels = ipywidgets.Textarea(description="pixels", layout={"display": "none"})
    canvas = ipywidgets.HTML(PAD.replace("HANDLE", HANDLE.replace("\n", " ").strip()))
    pad = ipywidgets.VBox([canvas, pixels])
    pad.add_class("dnabook-pad")
    picture = ipywidgets.HTML()

    def chosen() -> Images:
        if not isinstance(which.value, str):
            return images[which.value : which.value + 1]
        x = drawn(pixels.value) if which.value == "drawn" else uploaded(upload.value)
        x = x.to(images.x.device)
        return replace(images, x=x, y=measures.predictions(models[0], x))

    def show(_: Any = None) -> None:
        try:
            digit = chosen()
        except ValueError as error:
            picture.value = f"<p>{html.escape(str(error))}</p>"
            return
        image, shares = _attacked(models, digit, how.value, epsilon.value, steps)
        title = f"{figures.ATTACKS[how.value]}\nε = {epsilon.value:.2f}"
        sentence = f"{figures.ATTACKS[how.value]} on model 1 at ε = {epsilon.value:.2f}: {_readings(shares)}."
        picture.value = widgets.shown(Frame(figures.probabilities(image[0], shares, title), sentence))

    def switch(name: str) -> Callable[[Any], None]:
        def to(_: Any) -> None:
            which.value = name
            show()

        return to

    pixels.observe(switch("drawn"), "value")
    upload.observe(switch("uploaded"), "value")
    for field in (which, how, epsilon):
        field.observe(show, "value")
    show()
    return ipywidgets.VBox([which, how, epsilon, ipywidgets.HBox([pad, upload]), picture])


def drawn(pixels: str) -> Tensor:
    """The pad's pixels, two hexadecimal digits each, as a digit (1, 1, 28, 28) like MNIST's."""
    if len(pixels) != 2 * 28 * 28:
        raise ValueError("nothing is drawn yet: draw a digit on the black square")
    return as_digit(torch.tensor(list(bytes.fromhex(pixels)), device="cpu").reshape(28, 28) / 255)


def uploaded(value: Any) -> Tensor:
    """What a FileUpload of ipywidgets 7 or 8 holds, as a digit (1, 1, 28, 28) like MNIST's."""
    files = list(value.values()) if isinstance(value, Mapping) else list(value)
    if not files:
        raise ValueError("nothing is uploaded yet: choose a picture of one digit")
    try:
        with Image.open(io.BytesIO(bytes(files[-1]["content"]))) as image:
            grey, alpha = ImageOps.exif_transpose(image).convert("RGBA").convert("LA").split()
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError("this file is not a picture that can be read") from error
    if alpha.getextrema()[0] < 255:  # on a transparent ground: black under light ink, white under dark
        light = alpha.getbbox() and ImageStat.Stat(grey, alpha).mean[0] > 127
        grey = Image.composite(grey, Image.new("L", grey.size, 0 if light else 255), alpha)
    grey.thumbnail((280, 280))
    return as_digit(torch.tensor(list(grey.tobytes()), device="cpu").reshape(grey.height, grey.width) / 255)


def as_digit(image: Tensor) -> Tensor:
    """A grey picture (H, W) in [0, 1] as MNIST has its digits: light on dark, its longer side of 20 pixels,
    centred by mass. A light ground, known by its edge, is turned dark. Returns (1, 1, 28, 28).

    Raises ValueError for a picture without contrast.
    """
    edge = torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
    image = 1 - image if edge.median() > 0.5 else image
    low, high = image.min(), image.max()
    if high - low < 0.1:
        raise ValueError("no digit is to be seen: the picture is all of one grey")
    image = (image - low) / (high - low)
    ink = image > 0.25
    rows, columns = (ink.any(1 - axis).nonzero().flatten() for axis in (0, 1))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / max(image.shape)
    size = [max(1, round(side * scale)) for side in image.shape]
    small = nn.functional.interpolate(image[None, None], size, mode="bilinear", antialias=True)[0, 0]
    heights, widths = (torch.arange(side, device="cpu") for side in size)
    mass = small.sum()
    centre = (small.sum(1) @ heights.float() / mass, small.sum(0) @ widths.float() / mass)
    top, left = (
        min(max(round(13.5 - float(at)), 0), 28 - side) for at, side in zip(centre, size, strict=True)
    )
    digit = torch.zeros(1, 1, 28, 28, device="cpu")
    digit[0, 0, top : top + size[0], left : left + size[1]] = small.clamp(0, 1)
    return digit

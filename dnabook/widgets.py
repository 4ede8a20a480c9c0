"""Pictures that a reader turns: sliders and choices over frames that `figures` draws.

`frames` is the only mechanism. In a built page every frame is drawn beforehand, and a script of a few lines,
which loads nothing, chooses among them; under them lies a still picture that tells the same without a script
and in print. Where a reader sits at a kernel, the same controls are ipywidgets, and each frame is drawn when
it is asked for. `pieces` holds the book's own.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 150  # of the pictures: more than an ordinary screen shows, for those that are finer
COLOURS = 64  # of a picture's palette: the digits are grey, and the figures have few colours


class Frame(NamedTuple):
    """A picture, and the sentence that says what it shows, with its numbers: alt text and caption in one."""

    figure: Figure
    sentence: str


class Control(NamedTuple):
    """What a reader sets: a label, the values it takes, and how each value is written.

    kind: "range", a slider, or "choice", radio buttons.
    """

    label: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    kind: str = "range"


def slider(label: str, values: Sequence[Any], text: str = "{:g}") -> Control:
    """A slider over values in their order, each written by the format `text`."""
    return Control(label, tuple(values), tuple(text.format(value) for value in values))


def choice(label: str, options: Mapping[str, Any]) -> Control:
    """Radio buttons: one for each text, standing for its value."""
    return Control(label, tuple(options.values()), tuple(options), "choice")


def frames(
    name: str,
    draw: Callable[..., Frame],
    controls: Sequence[Control],
    *,
    still: Callable[[], Frame],
    start: Sequence[int] | None = None,
) -> Any:
    """The frames that `draw` gives for every combination of the controls' values, to be moved through.

    name    of the piece, in small letters and hyphens, unique on its page.
    draw    is called with one value of each control, in their order.
    still   gives the picture that stands for the whole piece where nothing can be moved.
    start   the position of each control at first; None: the first of each.

    Returns `Frames`, or an `ipywidgets.VBox` where `live()`; either shows itself at the end of a cell.
    Raises ValueError for a name of other letters, for no control, for a control without label or values or
    with a start outside them, for a frame without a sentence, and for frames that say the same.
    """
    start = (0,) * len(controls) if start is None else tuple(start)
    _check(name, controls, start)
    if live():
        return _panel(draw, controls, start)
    drawn = [draw(*values) for values in itertools.product(*(c.values for c in controls))]
    beneath = still()
    sentences = [frame.sentence for frame in (*drawn, beneath)]
    if not all(sentence.strip() for sentence in sentences):
        raise ValueError(f"every frame of {name!r} needs a sentence: it is the picture's alt text")
    if len(set(sentences)) < len(sentences):
        twice = next(s for s in sentences if sentences.count(s) > 1)
        raise ValueError(f"two frames of {name!r} say the same: {twice!r}")
    return Frames(name, tuple(controls), start, tuple(map(_picture, drawn)), _picture(beneath))


def _check(name: str, controls: Sequence[Control], start: tuple[int, ...]) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"a piece's name is made of small letters, digits and hyphens, got {name!r}")
    if not controls:
        raise ValueError(f"{name!r} has no control: there is nothing to move")
    if len(start) != len(controls):
        raise ValueError(f"{name!r} needs one start for each of {len(controls)} controls, got {start}")
    for control, at in zip(controls, start, strict=True):
        if not control.label.strip():
            raise ValueError(f"a control of {name!r} has no label")
        if not control.values:
            raise ValueError(f"the control {control.label!r} has no values")
        if len(control.texts) != len(control.values):
            raise ValueError(f"the control {control.label!r} needs one text for each value")
        if not 0 <= at < len(control.values):
            raise ValueError(
                f"the control {control.label!r} has {len(control.values)} values, cannot start at {at}"
            )


def live() -> bool:
    """Whether a reader sits at the kernel and ipywidgets are there: in Jupyter, Colab or an editor.

    Such a front end can ask its reader for input, and says so with every cell that it runs. What runs a
    notebook on its own (the book's build, nbmake, nbconvert) cannot. $DNABOOK_WIDGETS, "live" or "static",
    decides instead where it is set.
    """
    wanted = os.environ.get("DNABOOK_WIDGETS", "")
    if wanted not in ("", "live", "static"):
        raise ValueError(f"DNABOOK_WIDGETS is live or static, got {wanted!r}")
    if wanted == "static" or find_spec("ipywidgets") is None:
        return False
    return wanted == "live" or _asks_its_reader()


def _asks_its_reader() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))


# --- Pictures in a page --------------------------------------------------------------------------


class Picture(NamedTuple):
    """A WebP as a data URI, its size in pixels of the page, and its alt text."""

    source: str
    width: int
    height: int
    sentence: str

    def tag(self) -> str:
        """The picture as HTML, never wider than its column."""
        return (
            f'<img src="{self.source}" alt="{html.escape(self.sentence)}" width="{self.width}" '
            f'height="{self.height}" style="max-width: 100%; height: auto">'
        )


def _picture(frame: Frame) -> Picture:
    """The frame as a small WebP: a palette without loss; the same bytes whenever it is drawn."""
    figure = frame.figure
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.convert("RGB").save(file, format="WEBP", lossless=True)
    source = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(source, image.width * 96 // DPI, image.height * 96 // DPI, frame.sentence)


@dataclass(frozen=True)
class Frames:
    """Drawn frames and the controls that choose among them, as HTML that needs no kernel and no other file.

    pictures: one for each combination of the controls' values, the last control changing fastest.
    """

    name: str
    controls: tuple[Control, ...]
    start: tuple[int, ...]
    pictures: tuple[Picture, ...]
    still: Picture

    @property
    def strides(self) -> list[int]:
        """How many frames one step of each control passes over."""
        sizes = [len(control.values) for control in self.controls]
        return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]

    def at(self, positions: Sequence[int]) -> Picture:
        """The frame at a position of each control."""
        return self.pictures[sum(s * p for s, p in zip(self.strides, positions, strict=True))]

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.pictures)} frames>\n{self.still.sentence}"

    def _repr_html_(self) -> str:
        """The controls and the first frame, which only the script reveals, and the still picture beneath."""
        first = self.at(self.start)
        fields = "\n".join(
            _field(f"{self.name}-{i}", control, at)
            for i, (control, at) in enumerate(zip(self.controls, self.start, strict=True))
        )
        return f"""<div class="dnabook-frames" id="{self.name}" data-piece="{self.name}">
<div class="dnabook-play" hidden>
<div class="dnabook-controls">
{fields}
</div>
{first.tag()}
<p class="dnabook-sentence" role="status">{html.escape(first.sentence)}</p>
</div>
<div class="dnabook-still">
{self.still.tag()}
<p class="dnabook-sentence">{html.escape(self.still.sentence)}</p>
</div>
<script>{self.script()}</script>
</div>"""

    def script(self) -> str:
        """What runs in the page: it shows the frame that the controls choose, and says so."""
        sources = list(dict.fromkeys(picture.source for picture in self.pictures))
        place = {source: i for i, source in enumerate(sources)}
        found = {
            "name": self.name,
            "strides": self.strides,
            "texts": [control.texts for control in self.controls],
            "sources": sources,
            "frames": [[place[picture.source], picture.sentence] for picture in self.pictures],
        }
        data = json.dumps(found, ensure_ascii=False).replace("<", "\\u003c")
        return f"({SCRIPT.strip()})({data});"


def _field(group: str, control: Control, at: int) -> str:
    label, text = html.escape(control.label), html.escape(control.texts[at])
    if control.kind == "range":
        return (
            f'<label class="dnabook-field"><span>{label}</span>'
            f'<input type="range" min="0" max="{len(control.values) - 1}" step="1" value="{at}" '
            f'aria-valuetext="{text}" {INPUT}><b aria-hidden="true">{text}</b></label>'
        )
    buttons = "".join(
        f'<label><input type="radio" name="{group}" value="{i}" {INPUT}'
        f"{' checked' * (i == at)}> {html.escape(option)}</label>"
        for i, option in enumerate(control.texts)
    )
    return f'<fieldset class="dnabook-field"><legend>{label}</legend>{buttons}</fieldset>'


# A reload begins at the start again; JupyterLab leaves the keys to the input.
INPUT = 'autocomplete="off" data-lm-suppress-shortcuts="true"'

SCRIPT = """
function (data) {
  document.querySelectorAll('[data-piece="' + data.name + '"]:not([data-ready])').forEach(function (piece) {
    var play = piece.querySelector(".dnabook-play"), image = play.querySelector("img");
    var fields = play.querySelectorAll(".dnabook-field"), sentence = play.querySelector(".dnabook-sentence");
    function show() {
      var at = 0;
      fields.forEach(function (field, i) {
        var range = field.querySelector("input[type=range]");
        var value = Number((range || field.querySelector("input:checked")).value);
        if (range) {
          range.setAttribute("aria-valuetext", data.texts[i][value]);
          field.querySelector("b").textContent = data.texts[i][value];
        }
        at += data.strides[i] * value;
      });
      var frame = data.frames[at];
      image.src = data.sources[frame[0]];
      image.alt = sentence.textContent = frame[1];
    }
    piece.addEventListener("input", show);
    piece.setAttribute("data-ready", "");
    play.hidden = false;
    piece.querySelector(".dnabook-still").hidden = true;
    show();
  });
}
"""


# --- The same, live ------------------------------------------------------------------------------


def _panel(draw: Callable[..., Frame], controls: Sequence[Control], start: tuple[int, ...]) -> Any:
    """The controls as ipywidgets over the frame that they choose, drawn when it is chosen."""
    import ipywidgets

    kinds = {"range": ipywidgets.SelectionSlider, "choice": ipywidgets.RadioButtons}
    fields = []
    for control, at in zip(controls, start, strict=True):
        options = list(zip(control.texts, range(len(control.values)), strict=True))
        field = kinds[control.kind](options=options, value=at, description=control.label, style=WIDE)
        if control.kind == "range":
            field.continuous_update = False
        fields.append(field)
    picture = ipywidgets.HTML()

    def show(_: Any = None) -> None:
        chosen = (c.values[field.value] for c, field in zip(controls, fields, strict=True))
        picture.value = shown(draw(*chosen))

    for field in fields:
        field.observe(show, "value")
    show()
    return ipywidgets.VBox([*fields, picture])


WIDE = {"description_width": "initial"}


def shown(frame: Frame) -> str:
    """The frame as HTML, its sentence under the picture."""
    return f"{_picture(frame).tag()}<p>{html.escape(frame.sentence)}</p>"


class Note(NamedTuple):
    """A line that stands in the page in place of what only runs live."""

    text: str

    def _repr_html_(self) -> str:
        return f'<p class="dnabook-note">{html.escape(self.text)}</p>'

"""Pieces that a reader turns: labelled controls, one true sentence a frame, the same live as in the page."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import math
import queue
import re
import shutil
import subprocess

import matplotlib
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from jupyter_client.manager import start_new_kernel
from matplotlib.figure import Figure
from PIL import Image

from dnabook import (
    attacks,
    autoencoders,
    data,
    figures,
    losses,
    measures,
    models,
    pieces,
    records,
    summaries,
    training,
    widgets,
)
from dnabook.experiments import correlation_weights, pairs
from dnabook.widgets import Frame, Frames, choice, frames, slider

matplotlib.use("agg")
DOSE, COLOUR = slider("dose <g>", (1, 2, 3), "{} g"), choice("colour", {"red": "r", "blue": "b"})


@pytest.fixture
def static(monkeypatch):
    monkeypatch.setenv("DNABOOK_WIDGETS", "static")


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("DNABOOK_WIDGETS", "live")


@pytest.fixture(scope="module")
def pair(trained_cnn):
    """The trained CNN, and one like it with other answers: its weights are shaken."""
    other = copy.deepcopy(trained_cnn)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in other.parameters():
            p += 0.3 * p.std() * torch.randn(p.shape, generator=generator)
    return trained_cnn.eval(), other.eval()


def square(dose, colour="r"):
    figure = Figure((1, 1))
    figure.add_axes((0, 0, dose / 4, 1)).set_facecolor(colour)
    return Frame(figure, f"{dose} g of {colour} & <more>")


def still():
    return Frame(Figure((1, 1)), "All doses at once")


def toy(controls=(DOSE, COLOUR), draw=square, **options):
    return frames("toy", draw, controls, still=options.pop("still", still), **options)


def page(piece):
    return BeautifulSoup(piece._repr_html_(), "html.parser")


def pixels(source):
    """The picture behind a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))))


def every_position(piece):
    return itertools.product(*(range(len(control.values)) for control in piece.controls))


# --- The page ------------------------------------------------------------------------------------


def test_there_is_one_frame_for_every_combination_and_positions_find_it(static):
    piece = toy()
    assert len(piece.pictures) == 3 * 2 and piece.strides == [2, 1]
    for dose, colour in every_position(piece):
        expected = square(DOSE.values[dose], COLOUR.values[colour]).sentence
        assert piece.at((dose, colour)).sentence == expected


def test_every_control_is_a_native_input_with_a_label_and_a_spoken_value(static):
    soup = page(toy(start=(2, 1)))
    ranges, radios = soup.select("input[type=range]"), soup.select("input[type=radio]")
    assert len(ranges) == 1 and len(radios) == 2 and len(soup.select("input")) == 3
    assert ranges[0].find_parent("label").get_text().startswith("dose <g>")
    assert ranges[0]["aria-valuetext"] == ranges[0].find_next("b").get_text() == "3 g"
    assert (ranges[0]["min"], ranges[0]["max"], ranges[0]["step"], ranges[0]["value"]) == ("0", "2", "1", "2")
    assert [radio.find_parent("label").get_text().strip() for radio in radios] == ["red", "blue"]
    assert radios[0].find_parent("fieldset").legend.get_text() == "colour"
    assert [radio.has_attr("checked") for radio in radios] == [False, True]
    assert len({radio["name"] for radio in radios}) == 1
    assert all(field["autocomplete"] == "off" for field in soup.select("input"))  # a reload starts anew
    assert all(field.has_attr("data-lm-suppress-shortcuts") for field in soup.select("input"))  # JupyterLab


def test_the_page_starts_with_the_frame_that_the_controls_show(static):
    piece = toy(start=(2, 1))
    play = page(piece).select_one(".dnabook-play")
    assert play.img["src"] == piece.at((2, 1)).source
    assert play.img["alt"] == play.select_one("[role=status]").get_text() == "3 g of b & <more>"


def test_a_still_picture_stands_outside_of_the_script_and_the_controls_wait_for_it(static):
    soup = page(toy())
    beneath = soup.select_one(".dnabook-still")
    assert beneath.img["alt"] == beneath.p.get_text() == "All doses at once"
    assert beneath.find_parent("script") is None and not beneath.has_attr("hidden")
    assert soup.select_one(".dnabook-play").has_attr("hidden")
    assert [tag["class"] for tag in soup.find_all("div", recursive=False)] == [["dnabook-frames"]]


def test_nothing_is_loaded_from_elsewhere_and_every_picture_is_in_the_page(static):
    piece = toy()
    markup = piece._repr_html_()
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", markup)
    assert "//" not in text and "@import" not in text and "url(" not in text
    assert all(image["src"].startswith("data:image/") for image in page(piece).select("img"))


def test_the_pictures_are_those_that_were_drawn(static):
    red, blue = (pixels(toy().at((2, colour)).source)[50, 50] for colour in (0, 1))
    assert red.tolist()[:3] == [255, 0, 0] and blue.tolist()[:3] == [0, 0, 255]


def test_the_same_piece_is_the_same_page_whenever_it_is_drawn(static):
    assert toy()._repr_html_() == toy()._repr_html_()


def test_equal_pictures_are_stored_once(static):
    def alike(dose):
        return Frame(square(1).figure, f"dose {dose}")

    markup = toy((DOSE,), alike)._repr_html_()
    assert len(set(re.findall(r"data:image/[^\"]+", markup.partition("<script>")[2]))) == 1


def test_a_sentence_cannot_end_the_script(static):
    def tricky(dose):
        return Frame(square(dose).figure, f"</script><b>{dose}</b>")

    soup = page(toy((DOSE,), tricky))
    assert len(soup.select("script")) == 1 and not soup.select(".dnabook-sentence b")
    assert soup.select_one(".dnabook-play img")["alt"] == "</script><b>1</b>"


FAKE_PAGE = """
const fields = SPEC.map(function (control) {
  const input = {value: "0", said: null, setAttribute: function (name, text) { this.said = [name, text]; }};
  const b = {};
  return {input: input, b: b, querySelector: function (what) {
    if (what === "b") return b;
    return what.includes("range") === (control === "range") ? input : null;
  }};
});
const image = {}, sentence = {}, beneath = {};
const play = {
  hidden: true, querySelectorAll: function () { return fields; },
  querySelector: function (what) { return what === "img" ? image : sentence; },
};
let moved;
const piece = {
  addEventListener: function (name, act) { if (name === "input") moved = act; }, setAttribute: function () {},
  querySelector: function (what) { return what === ".dnabook-play" ? play : beneath; },
};
global.document = {querySelectorAll: function (what) { return what.includes("toy") ? [piece] : []; }};
SCRIPT
const seen = [];
for (const position of POSITIONS) {
  position.forEach(function (at, i) { fields[i].input.value = String(at); });
  moved();
  const said = fields.map(function (field) { return [field.input.said, field.b.textContent]; });
  seen.push([image.src, image.alt, sentence.textContent, said]);
}
console.log(JSON.stringify({seen: seen, shown: !play.hidden && beneath.hidden}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_script_shows_and_says_the_frame_that_the_controls_choose(static):
    piece = toy()
    positions = list(every_position(piece))
    source = FAKE_PAGE.replace("SPEC", json.dumps([c.kind for c in piece.controls]))
    source = source.replace("SCRIPT", piece.script()).replace("POSITIONS", json.dumps(positions))
    run = subprocess.run(["node", "-"], input=source, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(run.stdout)
    assert found["shown"]
    for position, (shown, alt, sentence, said) in zip(positions, found["seen"], strict=True):
        picture = piece.at(position)
        assert (shown, alt, sentence) == (picture.source, picture.sentence, picture.sentence)
        text = DOSE.texts[position[0]]
        assert said == [[["aria-valuetext", text], text], [None, None]]


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("change, message", [
    ({"controls": ()}, "'toy' has no control"),
    ({"controls": (slider("dose", ()),)}, "'dose' has no values"),
    ({"controls": (slider(" ", (1,)),)}, "has no label"),
    ({"controls": (DOSE._replace(texts=("1 g",)),)}, "one text for each value"),
    ({"start": (3, 0)}, "'dose <g>' has 3 values, cannot start at 3"),
    ({"start": (0,)}, "one start for each of 2 controls"),
    ({"draw": lambda *_: Frame(Figure(), " ")}, "needs a sentence"),
    ({"still": lambda: Frame(Figure(), "")}, "needs a sentence"),
    ({"draw": lambda *_: Frame(Figure(), "so")}, "two frames of 'toy' say the same: 'so'"),
])  # fmt: skip
def test_what_would_leave_a_reader_without_words_is_refused(static, change, message):
    with pytest.raises(ValueError, match=message):
        toy(**change)


@pytest.mark.parametrize("name", ["", "Toy", "a b", 'x"', "-a", "a--b"])
def test_a_name_that_is_no_plain_id_is_refused(static, name):
    with pytest.raises(ValueError, match="small letters"):
        frames(name, square, (DOSE,), still=still)


# --- Live or static ------------------------------------------------------------------------------


def test_without_a_reader_at_a_kernel_pieces_are_static(monkeypatch):
    monkeypatch.delenv("DNABOOK_WIDGETS", raising=False)
    assert not widgets.live() and isinstance(toy(), Frames)


def test_an_unknown_wish_is_refused(monkeypatch):
    monkeypatch.setenv("DNABOOK_WIDGETS", "maybe")
    with pytest.raises(ValueError, match="live or static, got 'maybe'"):
        widgets.live()


def test_a_kernel_is_live_for_a_front_end_that_can_ask_its_reader_and_static_for_a_build(monkeypatch):
    monkeypatch.delenv("DNABOOK_WIDGETS", raising=False)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        said = [
            _run(client, "from dnabook import widgets; print(widgets.live())", reader)
            for reader in (True, False)
        ]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert said == ["True", "False"]


def _run(client, code, reader):
    message = client.execute(code, allow_stdin=reader)
    said = ""
    while True:
        try:
            answer = client.get_iopub_msg(timeout=120)
        except queue.Empty:
            raise AssertionError("the kernel does not answer") from None
        if answer["parent_header"].get("msg_id") != message:
            continue
        content = answer["content"]
        if answer["msg_type"] == "error":
            raise AssertionError(content["evalue"])
        if content.get("name") == "stdout":
            said += content["text"]
        if content.get("execution_state") == "idle":
            return said.strip()


def test_a_static_page_creates_no_widget_whose_state_could_get_into_it(static, pair, mnist_test):
    from ipywidgets.widgets import widget

    before = len(widget._instances)
    toy()
    note = pieces.live_attack(pair, mnist_test[:2])
    assert len(widget._instances) == before
    assert "Colab or Jupyter" in note._repr_html_() and not page(note).select("script, canvas, input")


def test_live_controls_draw_what_the_page_shows(monkeypatch):
    monkeypatch.setenv("DNABOOK_WIDGETS", "static")
    piece = toy(start=(1, 1))
    monkeypatch.setenv("DNABOOK_WIDGETS", "live")
    *fields, picture = toy(start=(1, 1)).children
    assert [field.description for field in fields] == [control.label for control in piece.controls]
    assert [field.value for field in fields] == [1, 1]
    for position in [(1, 1), *every_position(piece)]:
        for field, at in zip(fields, position, strict=True):
            field.value = at
        shown = BeautifulSoup(picture.value, "html.parser")
        expected = piece.at(position)
        assert (shown.img["src"], shown.img["alt"]) == (expected.source, expected.sentence)
        assert shown.p.get_text() == expected.sentence


def test_live_pieces_draw_only_what_is_asked_for(live):
    drawn = []

    def note(dose):
        drawn.append(dose)
        return square(dose)

    *fields, _ = toy((DOSE,), note).children
    assert drawn == [1]
    fields[0].value = 2
    assert drawn == [1, 3]


# --- Chapter 1 -----------------------------------------------------------------------------------


@pytest.fixture
def digit_piece(static, pair, mnist_test):
    return pieces.digit_under_attack(pair, mnist_test[:1], epsilons=(0.0, 0.1, 0.3), steps=3)


def test_the_digit_s_sentences_say_what_both_models_read_and_how_surely(digit_piece, pair, mnist_test):
    digit = mnist_test[:1]
    assert len(digit_piece.pictures) == 6
    for name, epsilon in itertools.product(("fgsm-linf", "pgd-linf"), (0.0, 0.1, 0.3)):
        method = pairs.attack(name, epsilon, digit, steps=3, seed=0)
        x_adv = attacks.craft(method, pair[0], digit.x, digit.y)
        with torch.no_grad():
            shares = [model(x_adv).softmax(1)[0] for model in pair]
        read = [f"model {i} reads {int(s.argmax())} ({100 * s.max():.0f} %)" for i, s in enumerate(shares, 1)]
        sentence = f"{figures.ATTACKS[name]} on model 1 at ε = {epsilon:.2f}: {read[0]}, {read[1]}."
        assert sentence in [picture.sentence for picture in digit_piece.pictures]


def test_the_digit_s_still_picture_tells_when_each_model_first_misreads_it(digit_piece):
    said = digit_piece.still.sentence
    assert said.startswith("A 7 under growing ε, attacked through model 1")
    for position, text in enumerate(("FGSM", "PGD")):
        for number in (1, 2):
            read = [
                re.search(rf"model {number} reads (\d)", digit_piece.at((position, i)).sentence)[1]
                for i in range(3)
            ]
            wrong = [
                f"at ε = {e:.2f}" for e, answer in zip((0, 0.1, 0.3), read, strict=True) if answer != "7"
            ]
            expected = f"by model {number} {wrong[0] if wrong else 'never'}"
            assert expected in said.partition(f"{text}: ")[2].partition(";")[0]
    assert "ε = 0.30" in said or "ε = 0.10" in said


def test_the_digit_can_be_attacked_live_with_the_same_result(digit_piece, live, pair, mnist_test):
    panel = pieces.digit_under_attack(pair, mnist_test[:1], epsilons=(0.0, 0.1, 0.3), steps=3)
    attack, epsilon, picture = panel.children
    for position in every_position(digit_piece):
        attack.value, epsilon.value = position
        shown = BeautifulSoup(picture.value, "html.parser").img
        assert shown["alt"] == digit_piece.at(position).sentence
        assert shown["src"] == digit_piece.at(position).source


# --- Any digit, live -----------------------------------------------------------------------------


class Desk:
    """The parts of `live_attack`."""

    def __init__(self, panel):
        self.which, self.how, self.epsilon, sources, self.picture = panel.children
        pad, self.upload = sources.children
        self.canvas, self.pixels = pad.children

    @property
    def shown(self):
        return BeautifulSoup(self.picture.value, "html.parser")


@pytest.fixture
def desk(live, pair, mnist_test):
    return Desk(pieces.live_attack(pair, mnist_test[:3], steps=3))


def test_a_test_digit_attacked_live_is_the_frame_of_the_page(digit_piece, desk):
    desk.how.value, desk.epsilon.value = "pgd-linf", 0.3
    assert desk.shown.img["alt"] == digit_piece.at((1, 2)).sentence
    assert desk.shown.img["src"] == digit_piece.at((1, 2)).source
    desk.which.value = 1
    assert desk.shown.img["src"] != digit_piece.at((1, 2)).source


def hexadecimal(image):
    return bytes((255 * image).round().to(torch.uint8).flatten().tolist()).hex()


def test_a_drawn_digit_is_read_and_attacked(desk, pair, mnist_test):
    desk.epsilon.value = 0
    desk.pixels.value = hexadecimal(mnist_test.x[1])
    assert desk.which.value == "drawn"
    x = pieces.drawn(desk.pixels.value)
    read = [int(model(x).argmax()) for model in pair]
    assert f"model 1 reads {read[0]} (" in desk.shown.img["alt"] and read[0] == int(mnist_test.y[1])
    clean = desk.shown.img["alt"]
    desk.epsilon.value = 0.3
    assert desk.shown.img["alt"].partition(": ")[2] != clean.partition(": ")[2]


def uploads(*contents):
    """What a FileUpload holds, in ipywidgets 8 and in 7."""
    new = tuple({"name": f"{i}", "content": memoryview(c)} for i, c in enumerate(contents))
    return new, {f"{i}": {"content": c} for i, c in enumerate(contents)}


def test_an_uploaded_picture_is_read_whatever_its_size_and_ground(desk, pair, mnist_test):
    paper = np.full((300, 420, 3), 250, np.uint8)
    ink = mnist_test.x[1, 0].numpy().repeat(6, 0).repeat(6, 1)
    paper[40:208, 200:368] = (250 - 220 * ink[..., None]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(paper).save(file, format="PNG")
    for value in uploads(file.getvalue()):
        x = pieces.uploaded(value)
        assert x.shape == (1, 1, 28, 28) and (x - mnist_test.x[1]).abs().mean() < 0.08
        assert int(measures.predictions(pair[0], x)) == int(mnist_test.y[1])
    desk.epsilon.value = 0
    sent = {"name": "2.png", "type": "image/png", "size": 1, "last_modified": 0}
    desk.upload.set_state({"value": [{**sent, "content": memoryview(file.getvalue())}]})  # as a browser does
    assert desk.which.value == "uploaded"
    assert f"model 1 reads {int(mnist_test.y[1])} (" in desk.shown.img["alt"]


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_ground_is_seen_whatever_its_colour(ink, mnist_test):
    digit = (mnist_test.x[1, 0].numpy() * 255).astype(np.uint8).repeat(6, 0).repeat(6, 1)
    file = io.BytesIO()
    Image.fromarray(np.stack([np.full_like(digit, ink)] * 3 + [digit], 2), "RGBA").save(file, format="PNG")
    x = pieces.uploaded(uploads(file.getvalue())[0])
    assert (x - mnist_test.x[1]).abs().mean() < 0.08


def test_a_photograph_is_turned_as_its_camera_says(mnist_test):
    digit = Image.fromarray((mnist_test.x[1, 0].numpy() * 255).astype(np.uint8).repeat(6, 0).repeat(6, 1))
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    digit.transpose(Image.Transpose.ROTATE_90).save(file, format="PNG", exif=exif)
    x = pieces.uploaded(uploads(file.getvalue())[0])
    assert (x - mnist_test.x[1]).abs().mean() < 0.08


def test_a_picture_too_large_to_open_is_refused(monkeypatch):
    file = io.BytesIO()
    Image.new("L", (40, 40)).save(file, format="PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="not a picture that can be read"):
        pieces.uploaded(uploads(file.getvalue())[0])


def test_what_is_missing_or_unreadable_is_said_in_place_of_the_picture(desk):
    for which, message in (("drawn", "nothing is drawn yet"), ("uploaded", "nothing is uploaded yet")):
        desk.which.value = which
        assert message in desk.shown.get_text() and not desk.shown.img
    desk.which.value = 0
    assert desk.shown.img
    for value in uploads(b"no picture"):
        with pytest.raises(ValueError, match="not a picture"):
            pieces.uploaded(value)
    with pytest.raises(ValueError, match="all of one grey"):
        pieces.as_digit(torch.full((40, 30), 0.5))


def test_a_digit_is_brought_to_mnist_s_size_and_centre():
    stroke = torch.zeros(100, 60)
    stroke[10:50, 5:9] = 1  # 40 high, 4 wide, far from the middle
    digit = pieces.as_digit(stroke)[0, 0]
    rows, columns = (torch.nonzero(digit.amax(axis) > 0.5).flatten() for axis in (1, 0))
    assert len(rows) == 20 and len(columns) == 2
    assert rows[0] == 4 and 12 <= columns[0] <= 14
    assert pieces.as_digit(1 - stroke).equal(pieces.as_digit(stroke))


def test_the_pad_sends_its_pixels_where_the_kernel_listens(desk):
    soup = BeautifulSoup(desk.canvas.value, "html.parser")
    assert (soup.canvas["width"], soup.canvas["height"]) == ("28", "28") and soup.canvas["aria-label"]
    for event in ("onpointerdown", "onpointermove", "onpointerup"):
        assert "closest('.dnabook-pad').querySelector('textarea')" in soup.canvas[event]
    with pytest.raises(ValueError, match="nothing is drawn"):
        pieces.drawn("00" * 12)


# --- Chapters 4 to 6 -----------------------------------------------------------------------------


def test_an_image_s_fate_is_named_by_who_is_fooled_and_who_was_right_before():
    y = torch.zeros(5, dtype=torch.int64)
    answers = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 1, 1, 1]])
    before = torch.tensor([[True] * 5, [True, True, True, True, False]])
    outcome = pieces.Outcome(torch.zeros(5, 1, 28, 28), y, answers, before)
    fates = ["fools neither", "fools model 1 only", "fools model 2 only", "fools both", "misread before"]
    assert [outcome.fate(i) for i in range(5)] == fates and set(fates) == set(figures.OUTCOMES)
    assert outcome.counts() == (1, 2, 4) and outcome.rate() == 0.5
    assert math.isnan(outcome._replace(answers=torch.zeros_like(answers)).rate())


def test_the_explorer_counts_what_transfer_rows_count(static, pair, mnist_test):
    images, epsilons = mnist_test[:30], (0.0, 0.15)
    piece = pieces.pair_explorer(
        {"one": pair, "other": pair[::-1]}, images, epsilons=epsilons, steps=2, shown=7
    )
    assert len(piece.pictures) == 2 * 4 * 2
    context = correlation_weights.Context(torch.device("cpu"))
    for name, both in (("one", pair), ("other", pair[::-1])):
        rows = pairs.transfer_rows(both, images, pairs.ATTACKS, (0.15,), steps=2, seed=0, context=context)
        for row in rows[::2]:
            start = f"{figures.ATTACKS[row['attack']]} on model 1 of the {name} pair at ε = 0.15: of "
            fooled = row["source_fooled_clean"], row["both_fooled_clean"]
            counted = (
                f"{row['n_clean']} digits that both models read correctly before, {fooled[0]} fool model 1, "
                f"and {fooled[1]} of these fool model 2 too"
            )
            assert sum(start + counted in picture.sentence for picture in piece.pictures) == 1
            share = summaries.percent(summaries.rate(row))
            assert f"{share} ({name})" in piece.still.sentence


def test_the_dial_says_what_the_record_holds(static, smoke):
    record = smoke("correlation_weights")
    piece = pieces.correlation_dial(record)
    assert len(piece.pictures) == len(record.config["weights"])
    for weight, picture in zip(record.config["weights"], piece.pictures, strict=True):
        values = record.find({"correlation_weight": weight}, 0)["values"]
        numbers = [values["first_component"]["r_squared"], *(r["heldout"] for r in values["predictability"])]
        assert f"λ = {weight:g}, pair 1" in picture.sentence
        assert all(f"{number:.2f}" in picture.sentence for number in numbers)
        rate = summaries.mean([summaries.rate(row) for row in values["transfer"]])
        assert f"transfers in {100 * rate:.0f} %" in picture.sentence
        assert all(f"{100 * share:.0f} %" in picture.sentence for share in values["accuracy"])


def test_the_dial_says_that_a_pair_has_collapsed(static, smoke):
    record = copy.deepcopy(smoke("correlation_weights"))
    for weight, accuracy in ((0.0, [0.9, 0.9]), (0.05, [0.9, 0.1])):
        record.find({"correlation_weight": weight}, 0)["values"]["accuracy"] = accuracy
    alive, dead = (picture.sentence for picture in pieces.correlation_dial(record).pictures)
    assert "collapsed" not in alive and "Model 2 has collapsed" in dead
    assert "1 of 2 pairs collapsed" in pieces.correlation_dial(record).still.sentence


def test_dverge_s_sentences_hold_the_means_of_every_start_and_epoch(static, smoke):
    record = smoke("dverge")
    piece = pieces.dverge_course(record)
    epochs, epsilons = record.config["epochs"], record.config["epsilons"]
    assert len(piece.pictures) == (epochs + 1) * len(epsilons)
    arms = [tuple(arm) for arm in record.config["arms"]]
    for epoch, picture in enumerate(piece.pictures):
        assert picture.sentence.startswith(f"Epoch {epoch}, PGD-ℓ∞ at ε = {epsilons[0]:.2f}")
        for arm, preset in arms:
            where = {"arm": arm, "preset": preset, "epoch": epoch}
            rate = summaries.transfer(record, conditioned=False, epsilon=epsilons[0], **where).mean
            (row,) = record.rows("epochs", **where)
            numbers = f"{100 * rate:.0f} % and {100 * summaries.mean(row['accuracy']):.0f} %"
            assert f"{figures.STARTS[arm, preset]}: {numbers}".replace("\n", " ") in picture.sentence


def test_dverge_s_frames_say_that_every_pair_had_collapsed(static, smoke):
    record = copy.deepcopy(smoke("dverge"))
    for trial in record.trials:
        trial["values"]["epochs"][0]["accuracy"] = [0.1, 0.9]
    piece = pieces.dverge_course(record)
    assert all("every pair had collapsed" in p.sentence for p in (*piece.pictures, piece.still))


@pytest.fixture(scope="module")
def reconstructor(mnist_train):
    """A DNA and its classifier, trained for a moment: the paths are read correctly at different rates."""
    torch.manual_seed(0)
    dna, classifier = autoencoders.mnist_autoencoder(), autoencoders.mnist_classifier()
    batches = data.Batches(mnist_train, 100)
    objective = losses.reconstruction(dna, correlation_weight=0.01, variant="released")
    training.fit(objective, objective.parameters(), batches, epochs=10, learning_rate=3e-3)
    reading = losses.reading(classifier, dna)
    training.fit(reading, classifier.parameters(), batches, epochs=10, learning_rate=3e-3)
    return autoencoders.Reconstructor(dna, classifier).eval()


def test_reconstructions_are_counted_over_all_images_under_both_objectives(static, reconstructor, mnist_test):
    images = mnist_test[:50]  # whole percents: no half is rounded
    epsilons, texts = (0.0, 0.1), {"printed": "as printed (Eq. 10)", "corrected": "the smaller loss raised"}
    piece = pieces.reconstructions(reconstructor, images, epsilons=epsilons, steps=3, shown=3)
    assert len(piece.pictures) == 4
    for (variant, text), epsilon in itertools.product(texts.items(), epsilons):
        objective = attacks.paths(reconstructor, images.y, variant)
        generator = torch.Generator().manual_seed(0)
        x_adv = attacks.pgd(objective, images.x, attacks.Linf(epsilon), steps=3, generator=generator)
        right = measures.in_batches(reconstructor, x_adv).argmax(2) == images.y[:, None]
        first, second, either = (
            f"{100 * share.double().mean():.0f} %" for share in (right[:, 0], right[:, 1], right.any(1))
        )
        sentence = (
            f"PGD-ℓ∞, {text}, at ε = {epsilon:.2f}: of 50 digits path 1 reads {first} correctly, "
            f"path 2 {second}, and {either} are read correctly by one path or the other."
        )
        assert sentence in [picture.sentence for picture in piece.pictures]
        assert first != second or epsilon


def test_kept_weights_come_back_as_the_pair_that_was_trained(smoke):
    record = smoke("correlation_weights")
    weights = records.weights(record)
    test = data.load("mnist", "test", device="cpu")
    for weight in record.config["weights"]:
        pair = correlation_weights.pair_of(weights, weight)
        trained = record.find({"correlation_weight": weight}, 0)["values"]["accuracy"]
        assert pairs.accuracies(pair, test) == pytest.approx(trained, abs=2e-4)
        assert all(isinstance(model, models.CNN) and not model.training for model in pair)
    with pytest.raises(KeyError):
        correlation_weights.pair_of(weights, 0.3)

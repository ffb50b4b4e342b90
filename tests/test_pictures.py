"""Pictures: what is drawn is what was given, each reads itself in a sentence, and stands in a page of any colours."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import throughtime as tt
from throughtime.chunk import Chunk
from throughtime.flow import FLOOR, ErrorByLag, error_by_lag, measure, saliency, units_over_time
from throughtime.nets import Adapted, Network, cross_entropy
from throughtime.pictures import (
    Algorithms,
    Eigenvalues,
    ErrorAgainstLag,
    ErrorMap,
    GateActivity,
    HiddenUnits,
    LearningCurves,
    Picture,
    Saliency,
    gallery,
)
from throughtime.pictures.maps import _typeset
from throughtime.pictures.style import DARK, LIGHT, decades, glyph, percent, power

T, B, A, H = 24, 2, 5, 6


def network(cell: str, **options: int) -> Network:
    torch.manual_seed(0)
    return Network(cell, inputs=A, units=H, outputs=A, **{"embedding": 3, **options}).double().eval()


def stream() -> Chunk:
    torch.manual_seed(1)
    ids = torch.randint(A, (T + 1, B))
    return Chunk(ids[:-1], ids[1:])


def tokens() -> list[str]:
    return list("to be or\nnot $x$ 7☃\x00😀<&>"[:T].ljust(T, "e"))


def lag_of(slope: float, lags: int = 50, steps: int = 3) -> ErrorByLag:
    """An error that changes by the factor 10^slope with every step back."""
    norms = np.tile(10.0 ** (slope * np.arange(lags + 1))[:, None, None], (1, steps, 2))
    return ErrorByLag(np.arange(lags + 1), np.arange(steps) + lags, norms)


def records(*validation: float | None) -> list[dict]:
    return [{"update": i, "loss": 2.0 - i / 10, "validation": v} for i, v in enumerate(validation)]


@pytest.fixture(scope="module")
def kinds() -> dict[str, Picture]:
    """One picture of each kind."""
    comparison = tt.compare(network("elman"), stream(), ["bptt:h=2"], windows=2)
    steps = np.linspace(0, 6, T)
    return {
        "learning": LearningCurves(records(4.0, None, 1.5), ("$a 5-gram$", 1.669)),
        "several": LearningCurves({"a": records(4.0, 1.5), "b": records(3.0, 2.0)}),
        "error": ErrorAgainstLag(lag_of(-0.1), 10),
        "errors": ErrorAgainstLag({"a": lag_of(-0.1), "b": lag_of(-0.2)}, {"a": 10, "b": None}),
        "map": ErrorMap(lag_of(-0.1, steps=T), 10, tokens()),
        "units": HiddenUnits(np.stack([np.sin(steps), np.cos(steps)], 1), tokens()),
        "numbered units": HiddenUnits(3 * np.stack([np.sin(steps), np.cos(steps)], 1)),
        "saliency": Saliency(np.exp(steps), tokens(), T - 1, "e"),
        "gates": GateActivity({"forget gate": np.linspace(0, 1, 40)}),
        "activity": GateActivity({"h": np.linspace(-1, 1, 40)}, gates=False),
        "eigenvalues": Eigenvalues({"W_h": np.linalg.eigvals(np.random.default_rng(0).normal(size=(H, H)))}),
        "algorithms": Algorithms(comparison),
    }


NAMES = (
    *("learning", "several", "error", "errors", "map", "units", "numbered units", "saliency", "gates", "activity"),
    *("eigenvalues", "algorithms"),
)


# What every picture holds to


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_draws_on_given_axes_or_its_own_and_names_its_units(kinds: dict[str, Picture], name: str):
    picture = kinds[name]
    ax = Figure(layout="constrained").subplots()
    assert picture.plot(ax) is ax
    own = picture.plot()
    assert own is not ax
    labels = [own.get_xlabel(), own.get_ylabel(), *(other.get_ylabel() for other in own.figure.axes[1:])]
    if name == "saliency":  # the text is its own axis; its colours have the unit
        assert labels[2] == "% of the strongest"
    else:
        assert all(labels)
    assert picture.heading
    assert isinstance(picture.data, dict)


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_reads_itself_in_a_line(kinds: dict[str, Picture], name: str):
    reading = kinds[name].reading
    assert "\n" not in reading
    assert reading.endswith(".")
    assert "nan" not in reading


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("name", NAMES)
def test_every_drawing_is_whole_and_takes_its_colours_from_the_page(kinds: dict[str, Picture], name: str, size: str):
    text = kinds[name].svg(size)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == kinds[name].reading
    assert not any(colour in text for colour in LIGHT.values())
    assert "var(--ink)" in text
    fixed = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert fixed <= ({"#000000", "#ffffff"} if name in ("map", "saliency") else set())  # on coloured cells
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert not re.search(r'href="(?!#|data:image/png)', text)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_it_on_a_ground_of_its_own(kinds: dict[str, Picture], name: str):
    text = kinds[name]._repr_html_()
    figure = ElementTree.fromstring(text)
    style = figure.find("style")
    assert style is not None
    for colours in (LIGHT, DARK):
        assert all(f"--{name}: {colour};" in style.text for name, colour in colours.items())
    assert style.text.count("background: #") == 2
    assert figure.find("figcaption").text == kinds[name].reading
    assert text == kinds[name]._repr_html_()


def test_pictures_share_no_names_on_a_page(kinds: dict[str, Picture]):
    ids = [
        name
        for picture in kinds.values()
        for size in picture.sizes
        for name in re.findall(r' id="([^"]+)"', picture.svg(size))
    ]
    assert len(ids) == len(set(ids)) > 20


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize(("colours", "page"), [(LIGHT, "#fcfcfa"), (DARK, "#14171b")])
def test_text_and_lines_stand_out_from_the_page(colours: dict[str, str], page: str):
    def contrast(name: str) -> float:
        low, high = sorted((luminance(colours[name]), luminance(page)))
        return (high + 0.05) / (low + 0.05)

    assert contrast("ink") > 12
    assert all(contrast(name) > 2.9 for name in ("first", "second", "third", "fourth", "faint"))
    assert all(contrast(name) > 2 for name in colours)


def test_loads_matplotlib_only_to_draw_and_never_pyplot():
    code = (
        "import sys, throughtime as tt\n"
        "picture = tt.pictures.LearningCurves([{'update': 1, 'loss': 2.0}])\n"
        "picture.reading, picture.data\n"
        "assert 'matplotlib' not in sys.modules\n"
        "picture._repr_html_()\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Learning curves


def test_learning_curves_are_the_records(kinds: dict[str, Picture]):
    ax = kinds["learning"].plot()
    assert [line.get_label() for line in ax.lines] == ["training", "validation", "$a 5-gram$: 1.669"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [(0, 2.0), (1, 1.9), (2, 1.8)])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [(0, 4.0), (2, 1.5)])
    assert ax.lines[2].get_ydata()[0] == 1.669
    assert ax.get_xlabel() == "updates"
    counted = [{**record, "targets": 40.0 * place} for place, record in enumerate(records(4.0, 1.5))]
    ax = LearningCurves(counted, unit="word").plot()
    assert ax.get_xlabel() == "words read in training"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 40])
    assert [line.get_label() for line in kinds["several"].plot().lines] == ["a", "b"]


def test_long_trainings_are_drawn_through_the_means_of_neighbours():
    losses = np.random.default_rng(0).normal(size=50_000)
    many = [{"update": place, "loss": loss} for place, loss in enumerate(losses)]
    line = LearningCurves(many).plot().lines[0]
    assert len(line.get_xdata()) == 400
    assert line.get_ydata().mean() == pytest.approx(losses.mean(), abs=1e-12)
    assert line.get_xdata()[-1] == 49_999
    assert len(LearningCurves(many).svg()) < 60_000


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (LearningCurves(records(4.0, 1.5), ("n-grams", 1.6)), "The validation loss goes from 4.000 to 1.500 nats per "
         "character; below the dashed line it is better than the baseline."),
        (LearningCurves(records(4.0, 1.2, 1.5)), "after 1.200 at its lowest, where the weights are kept."),
        (LearningCurves(records(None, None)), "The training loss goes from 2.000 to 1.900 nats per character."),
        (LearningCurves([]), "No loss was recorded."),
        (LearningCurves({"a": records(4.0, 1.5, 1.7), "b": records(1.6)}), "a comes lowest, to 1.500 nats per "
         "character, b 0.100 above it."),
    ],
)  # fmt: skip
def test_the_readings_of_learning_curves(picture: Picture, sentence: str):
    assert sentence in picture.reading


# The error against the lag


@pytest.mark.parametrize(
    ("lag", "h", "sentence"),
    [
        (lag_of(-0.1), None, "Over 50 steps back the typical gradient of the error shrinks by a factor "
         "of 100,000; half of it is gone after 3 steps."),
        (lag_of(-0.2), None, "shrinks by a factor of 10¹⁰; half of it is gone after 1.5 steps."),
        (lag_of(0.01), None, "grows by a factor of 3.2."),
        (lag_of(-0.1), 10, "Training cut the error off at h = 10. Before it lies 90 % of the norm"),
        (lag_of(-0.1), 45, "Before it lies over 99.9 % of the norm"),
        (lag_of(-0.1), 70, "Training cut the error off after h = 70 steps, beyond this picture."),
        (lag_of(float("nan")), 3, "Restarts left nothing to measure."),
        ({"a": lag_of(-0.1), "b": lag_of(0.1)}, None, "Half of the error is gone: a after 3 steps, b at none of these "
         "lags. Over 50 steps back: a shrinks by a factor of 100,000, b grows by a factor of 100,000."),
    ],
)  # fmt: skip
def test_the_readings_of_the_error_against_the_lag(lag, h: int | None, sentence: str):
    assert sentence in ErrorAgainstLag(lag, h).reading


def test_one_line_a_network_and_a_mark_at_each_h(kinds: dict[str, Picture]):
    ax = kinds["errors"].plot()
    assert [line.get_label() for line in ax.lines[:2]] == ["a", "b"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), -0.2 * np.arange(51), atol=1e-12)
    assert ax.lines[2].get_xdata()[0] == 10
    assert "cut at h = 10 (a)" in [text.get_text() for text in ax.texts]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in ax.lines[:2]}) == 2
    assert len({line.get_marker() for line in ax.lines[:2]}) == 2
    assert len(ErrorAgainstLag(lag_of(-0.1), 70).plot().lines) == 1
    assert "cut at h = 10" in [text.get_text() for text in kinds["error"].plot().texts]


@pytest.mark.parametrize(
    ("low", "high", "places", "names"),
    [
        (-7.2, 0.3, [-6, -4, -2, 0], ["10⁻⁶", "10⁻⁴", "10⁻²", "1"]),
        (-2.5, -1.2, np.log10([0.005, 0.01, 0.02, 0.05]), ["0.005", "10⁻²", "0.02", "0.05"]),
        (-5.1, -4.6, np.log10([1e-5, 2e-5]), ["10⁻⁵", "2·10⁻⁵"]),
        (1.9, 2.4, np.log10([100, 200]), ["10²", "2e+02"]),
    ],
)
def test_an_axis_of_logarithms_shows_numbers(low: float, high: float, places, names: list[str]):
    np.testing.assert_allclose(decades(low, high), places, atol=1e-12)
    assert [power(place) for place in decades(low, high)] == names


def test_a_share_is_not_rounded_up_to_the_whole():
    assert [percent(share) for share in (0.5, 0.99999, 1.0, 0.0)] == ["50 %", "over 99.9 %", "100 %", "0 %"]


# Maps


def test_the_map_is_the_mean_of_logarithms_over_the_streams():
    generator = np.random.default_rng(0)
    norms = generator.uniform(size=(4, 3, 2))
    norms[2:, 1] = np.nan
    norms[3, 0, 0] = np.nan
    norms[0, 2] = 0
    picture = ErrorMap(ErrorByLag(np.arange(4), np.array([5, 7, 9]), norms), 2)
    found = picture.data["log10"]
    for k in range(4):
        for n in range(3):
            there = [max(norm, FLOOR) for norm in norms[k, n] if not np.isnan(norm)]
            wanted = np.mean(np.log10(there)) if there else np.nan
            np.testing.assert_allclose(found[k, n], wanted, rtol=1e-12)
    ax = picture.plot()
    np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), found)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["5", "7", "9"]
    assert ax.lines[0].get_ydata()[0] == 1.5  # between the last lag that is kept and the first that is not


def test_the_reading_of_the_map_finds_the_step_that_reaches_furthest():
    norms = np.stack([0.5 ** np.arange(13), 0.7 ** np.arange(13), 0.5 ** np.arange(13)], 1)[:, :, None]
    picture = ErrorMap(ErrorByLag(np.arange(13), np.array([12, 13, 14]), norms), None, ["a", "b", "c"])
    # 0.5^6 is 0.016, 0.5^7 is 0.008; 0.7^12 is 0.014
    assert "for 6 steps back in the median, for 12 at most, at “b” (step 13)" in picture.reading
    nothing = ErrorMap(ErrorByLag(np.arange(2), np.array([3]), np.full((2, 1, 1), np.nan)))
    assert nothing.reading == "Restarts left nothing to measure."
    nothing.svg()
    silent = ErrorMap(ErrorByLag(np.arange(2), np.array([3]), np.zeros((2, 1, 1))))
    assert silent.reading == "No error arrives at any state."
    silent.svg()


def test_the_units_that_change_most_are_shown():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(30, 9)) * np.array([1, 9, 2, 8, 3, 7, 4, 6, 5]) / 100
    picture = HiddenUnits(values, ["x"] * 30, most=3)
    assert picture.data["units"].tolist() == [1, 3, 5]
    np.testing.assert_array_equal(picture.data["values"], values[:, [1, 3, 5]].T)
    ax = picture.plot()
    np.testing.assert_array_equal(ax.images[0].get_array(), picture.data["values"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1", "3", "5"]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (-1, 1)


def test_the_reading_of_the_units_finds_the_slowest():
    steps = np.arange(40)
    fast, slow, still = (-1.0) ** steps, np.sign(np.sin(steps / 6)), np.full(40, 0.3)
    reading = HiddenUnits(np.stack([fast, still, slow], 1)).reading
    assert "unit 2 holds its value longest (r = 0.8" in reading
    assert "The 3 of 3 units of h of layer 1" in reading
    assert HiddenUnits(np.ones((4, 2))).reading == "No unit of h of layer 1 changes over this text."


def test_a_long_text_shows_its_end_as_far_as_it_fits():
    text = [chr(97 + place % 26) for place in range(300)]
    ax = HiddenUnits(np.random.default_rng(0).normal(size=(300, 2)), text).plot()
    shown = [tick.get_text() for tick in ax.get_xticklabels()]
    assert 50 < len(shown) < 90
    assert shown == text[-len(shown) :]
    assert ax.images[0].get_array().shape == (2, len(shown))


def test_saliency_is_a_share_of_the_strongest():
    picture = Saliency([1.0, 8.0, 4.0, 3.0, 99.0], list("abcde"), 3, "z")
    np.testing.assert_array_equal(picture.data["share"], [0.125, 1, 0.5, 0.375])
    assert picture.data["tokens"] == list("abcd")
    # 3 + 4 = 7 of 16 in the last two, 15 of 16 in the last three
    assert picture.reading == (
        "The prediction of “z” depends most on “b”, 2 before; half of its dependence lies in the last 3 inputs, "
        "95 % in the last 4."
    )
    shown = [text.get_text() for text in picture.plot().texts]
    assert shown == ["a", "b", "c", "d", "→ z"]
    assert Saliency([0.0, 0.0], list("ab"), 1).reading == "No input reaches this prediction."
    assert "depends most on the present input; half of its dependence lies in the last input" in (
        Saliency([1.0, 8.0], list("ab"), 1).reading
    )


@pytest.mark.parametrize(
    "words", [list("to be or not to be, that is the question"), ["to", "be", "or", "not", "to", "be"] * 4]
)
@pytest.mark.parametrize(("columns", "rows"), [(16, 2), (30, 4), (200, 3)])
def test_text_is_set_in_lines_that_fit(words: list[str], columns: int, rows: int):
    placed, lines = _typeset(words, columns, rows)
    assert lines <= rows
    assert [place for place, *_ in placed] == list(range(placed[0][0], len(words)))
    taken = [(row, cell) for _, row, column, width in placed for cell in range(column, column + width)]
    assert len(taken) == len(set(taken))
    assert max(cell for _, cell in taken) < columns - 3  # what came has its place behind the last one
    assert taken == sorted(taken)
    if placed[0][0]:  # one more would not have fitted
        assert _typeset(words, columns, rows + 1)[0][0][0] < placed[0][0]


def test_tokens_that_print_nothing_get_a_sign():
    assert glyph(" \n\t\x00a☃") == "␣↵⇥\ufffda☃"


# The inside


def test_gate_activity_counts_every_value():
    values = np.random.default_rng(0).uniform(size=(7, 3, 4))
    values[0, 0] = [0.0, 0.005, 0.999, 1.0]
    row = GateActivity({"forget gate": values}).data["values"]["forget gate"]
    assert row["percent"].sum() == pytest.approx(100)
    assert row["percent"][3] == pytest.approx(100 * ((values >= 0.15) & (values < 0.2)).mean())
    assert row["mean"] == pytest.approx(values.mean())
    assert (row["low"], row["high"]) == ((values < 0.01).mean(), (values > 0.99).mean())
    halves = GateActivity({"forget gate": [0.0, 0.5, 1.0, 0.5]})
    assert halves.reading == "Forget gate 0.50 in the mean (shut 25 % of the time, open 25 %)."
    units = GateActivity({"h": [-1.0, 0.0, 0.5, 0.995]}, gates=False)
    assert units.reading == "Values beyond ±0.99, where little error passes: h 50 %."
    assert units.data["values"]["h"]["percent"].sum() == 100
    free = GateActivity({"h": [0.0, 4.0], "c": [-5.0, 1.0]}, gates=False)
    assert free.reading == "The largest value is 5 in size; in the mean they are: h 2, c -2."
    assert free.data["edges"][0] == -5
    assert free.data["values"]["h"]["percent"][18] == 50  # between 4 and 4.5


def test_eigenvalues_lie_where_they_are():
    picture = Eigenvalues({"W_h": np.linalg.eigvals([[0.0, -2.0], [2.0, 0.0]]), "V": [0.5]})
    assert picture.reading.startswith(
        "The largest modulus is 2.00 in W_h (2 of 2 outside), 0.50 in V (0 of 1 outside)."
    )
    ax = picture.plot()
    circle, *points = [line for line in ax.lines if not line.get_label().startswith("_")]
    np.testing.assert_allclose(np.hypot(*circle.get_xydata().T), 1, rtol=1e-12)
    assert sorted(points[0].get_xydata().round(12).tolist()) == [[0, -2], [0, 2]]
    assert ax.get_aspect() == 1


def test_the_comparison_of_algorithms_is_that_of_compare(kinds: dict[str, Picture]):
    picture = kinds["algorithms"]
    assert isinstance(picture, Algorithms)
    assert picture.data["smallest_h"] == picture.comparison.smallest_h
    assert picture.reading == picture.comparison.sentences()[-1]
    np.testing.assert_array_equal(picture.plot().lines[0].get_xdata(), picture.comparison.curve.h)


# All of a network


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "ctrnn:alpha=0.5"])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_gallery_shows_what_flow_measures(cell: str, layers: int):
    net, chunk = network(cell, layers=layers), stream()
    flow = measure(net, cross_entropy, chunk, h=4)
    found = list(gallery(net, cross_entropy, chunk, flow, tokens()))
    units = [picture for picture in found if isinstance(picture, HiddenUnits)]
    others = {type(picture): picture for picture in found}
    assert set(others) == {ErrorAgainstLag, ErrorMap, HiddenUnits, Saliency, GateActivity, Eigenvalues}
    seen = units_over_time(net, chunk)
    for layer, picture in enumerate(units):
        np.testing.assert_array_equal(picture.values, seen.states[f"h of layer {layer + 1}"][:, 0])
    assert len(units) == layers
    first = Chunk(chunk.x[:, :1], chunk.y[:, :1])
    whole = error_by_lag(net, cross_entropy, first, T // 2, samples=T)
    np.testing.assert_allclose(others[ErrorMap].error.norms, whole.norms, rtol=1e-9)
    np.testing.assert_array_equal(others[ErrorMap].error.at, range(T // 2, T))
    assert others[ErrorMap].tokens == tokens()[T // 2 :]
    np.testing.assert_allclose(others[Saliency].weights, saliency(net, cross_entropy, first, T - 2)[:, 0])
    assert others[Saliency].target == tokens()[-1]
    gates = {"gru": 2 * layers, "lstm": 3 * layers}.get(cell, layers)
    assert len(others[GateActivity].values) == gates
    assert others[GateActivity].gates == (cell in ("gru", "lstm"))
    assert len(others[Eigenvalues].values) == len(flow.spectra)
    assert all(("layer" in name) == (layers > 1) for name in others[Eigenvalues].values)


def test_any_module_has_a_gallery_without_tokens():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.GRU(3, H), nn.Linear(H, A)

        def forward(self, x, state):
            h, state = self.inner(x, state)
            return self.head(h), state

    chunk = Chunk(torch.randn(T, B, 3), torch.randint(A, (T, B)))
    net = Adapted(Net())
    found = list(gallery(net, cross_entropy, chunk, measure(net, cross_entropy, chunk)))
    assert {type(picture) for picture in found} >= {ErrorAgainstLag, ErrorMap, HiddenUnits, Eigenvalues}
    assert not any(isinstance(picture, Saliency) for picture in found)
    for picture in found:
        picture.plot()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: HiddenUnits(np.zeros(3)),
            "values must be [(]T, H[)], of one layer and one stream; got shape [(]3,[)]",
        ),
        (lambda: HiddenUnits(np.zeros((3, 2)), "ab"), "tokens must be one a step, 3; got 2"),
        (lambda: ErrorMap(lag_of(-1), None, "ab"), "tokens must be one a sampled step, 3; got 2"),
        (lambda: Saliency(np.zeros((2, 2)), "ab", 0), "weights must be [(]T,[)], of one stream"),
        (lambda: Saliency(np.zeros(2), "ab", 2), "t must be a step of these 2; got 2"),
        (lambda: GateActivity({}), "values must hold at least one gate"),
        (lambda: Eigenvalues({"W": []}), "values must hold at least one matrix"),
        (lambda: next(gallery(network("gru"), cross_entropy, stream(), None, "ab")), "tokens must be one a step, 24"),
    ],
)
def test_what_cannot_be_drawn_is_said(make: Callable[[], object], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_axes_of_the_caller_keep_their_style():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    LearningCurves(records(4.0, 1.5)).plot(left)
    assert isinstance(right, Axes)
    assert right.spines["top"].get_visible()
    assert not left.spines["top"].get_visible()

"""Pictures of forecasts and classes: what is drawn is what was given, by the definitions of scikit-learn and Wilson."""

from __future__ import annotations

import datetime
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from throughtime.pictures import (
    Calibration,
    ClassScores,
    ConfusionMatrix,
    ErrorByHorizon,
    ForecastFan,
    LearningCurves,
    Picture,
)
from throughtime.pictures.classes import _counted, confusion, wilson
from throughtime.pictures.forecasts import first_fans
from throughtime.pictures.style import LIGHT, number, shown

HOSTILE = [
    *("<script>alert(1)</script>", "שלום עולם", "😀👨‍👩‍👧", "a name that goes on and on " * 9, "", "$x_{$", "x\ny\x00"),
    "\u202eturned",
]


def fan(**options) -> ForecastFan:
    """Five values of a straight line and three that follow, the second of them unknown."""
    given = {
        "time": np.arange("2020-01", "2020-06", dtype="datetime64[M]"),
        "history": [2.0, 4.0, np.nan, 8.0, 10.0],
        "ahead": np.arange("2020-06", "2020-09", dtype="datetime64[M]"),
        "median": [12.0, 14.0, 16.0],
        "bands": {90: ([11, 12, 13], [13, 16, 19]), 50: ([11.5, 13, 15], [12.5, 15, 17])},
        "happened": [12.6, np.nan, 16.2],
        "baselines": {"naive": [10, 10, 10]},
        "name": "line",
    }
    return ForecastFan(**{**given, **options})


def labels(classes: int, count: int = 200, names: list | None = None, seed: int = 0) -> tuple[list, list, list]:
    generator = np.random.default_rng(seed)
    names = names or [f"class {place}" for place in range(classes)]
    truth = generator.integers(classes, size=count)
    predicted = np.where(generator.random(count) < 0.7, truth, generator.integers(classes, size=count))
    return [names[i] for i in truth], [names[i] for i in predicted], names


PICTURES: dict[str, Picture] = {
    "fan": fan(),
    "numbered": fan(time=np.arange(5), ahead=np.arange(5, 8), happened=None, bands={}, baselines={}),
    "one step": fan(
        ahead=[datetime.date(2020, 6, 1)], median=[1e12], bands={80: ([0], [2e12])}, happened=None, baselines={}
    ),
    "no history": fan(time=[], history=[]),
    "hostile fan": fan(name=HOSTILE[0], value=HOSTILE[6], baselines={name: [1, 2, 3] for name in HOSTILE}),
    "horizon": ErrorByHorizon({"GRU": [0.5, 0.9], "naive": [0.8, 0.7], HOSTILE[0]: [np.nan, 0.7]}, forecasts=12),
    "one horizon": ErrorByHorizon({"network": [0.5]}),
    "two classes": ConfusionMatrix(*labels(2)),
    "hostile classes": ConfusionMatrix(*labels(8, names=HOSTILE)),
    "twenty classes": ConfusionMatrix(*labels(20, 3000)),
    "many classes": ConfusionMatrix(*labels(60)),
    "perfect": ConfusionMatrix("ab", "ab", "abc"),
    "perfect of many": ConfusionMatrix(range(30), range(30), range(30)),
    "no examples": ConfusionMatrix([], [], "ab"),
    "scores": ClassScores(*labels(8, names=HOSTILE)),
    "scores of many": ClassScores(*labels(60, 500)),
    "scores of none": ClassScores([], [], "ab"),
    "calibration": Calibration([True, False, True, True], [0.9, 0.35, 1.0, 0.4]),
    "one example": Calibration([True], [0.5]),
}


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("name", PICTURES)
def test_every_drawing_is_whole_and_takes_its_colours_from_the_page(name: str, size: str):
    picture = PICTURES[name]
    text = picture.svg(size)
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == picture.reading
    assert not any(colour in text for colour in LIGHT.values())
    assert "var(--ink)" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    fixed = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert fixed <= ({"#000000", "#ffffff"} if isinstance(picture, ConfusionMatrix) else set())  # on coloured cells
    assert len(text) < 120_000
    inches = float(root.get("height").removesuffix("pt")) / 72
    assert inches == pytest.approx(picture.size(size)[1])
    assert 1 < inches < 9


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_reads_itself_in_a_line_and_names_its_axes(name: str):
    picture = PICTURES[name]
    assert picture.reading.endswith(".")
    assert not re.search(r"\n|\bnan\b|\binf\b|None|\u202e|on and on a name that goes on and on", picture.reading)
    assert picture.heading
    ax = Figure(layout="constrained").subplots()
    assert picture.plot(ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert isinstance(picture.data, dict)
    assert picture._repr_html_().startswith("<figure")


# Names and numbers


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cat", "cat"),
        (3, "3"),
        ("New \n York", "New York"),
        ("abcdefghijk", "abcdefghi…"),
        ("日本語日本語", "日本語日…"),
        ("", "“”"),
        ("\x00\u202e\ud800", "\ufffd\ufffd\ufffd"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("שלום", "שלום"),
    ],
)
def test_a_name_stands_in_a_line(name: object, text: str):
    assert shown(name, 10) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7123, "0.712"),
        (0, "0"),
        (-12.34, "−12.3"),
        (1234567, "1,230,000"),
        (1.234e-7, "1.23·10⁻⁷"),
        (-2e12, "−2·10¹²"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_a_number_in_words(value: float, text: str):
    assert number(value) == text


def test_a_loss_in_another_measure_than_nats():
    curves = LearningCurves([{"update": 1, "loss": 2.0}], unit="value", measure="pinball loss")
    assert curves.reading == "The training loss goes from 2.000 to 2.000 pinball loss per value."
    assert curves.plot().get_ylabel() == "loss (pinball loss per value)"


# Forecasts


def test_the_fan_is_what_was_given():
    ax = fan().plot()
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["what happened"].get_ydata(), [2, 4, np.nan, 8, 10, 12.6, np.nan, 16.2])
    np.testing.assert_array_equal(lines["network"].get_ydata(), [12, 14, 16])
    np.testing.assert_array_equal(lines["naive"].get_ydata(), [10, 10, 10])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["what happened", "90 % band", "50 % band", "network", "naive"]
    bands = [collection.get_paths()[0].vertices[:, 1] for collection in ax.collections]
    assert [(band.min(), band.max()) for band in bands] == [(11, 19), (11.5, 17)]
    assert "history" in [line.get_label() for line in fan(happened=None).plot().lines]


def test_the_fan_counts_what_lies_in_its_bands():
    picture = fan()
    assert picture.data["inside"] == {50.0: 0.5, 90.0: 1.0}  # 12.6 is above 12.5, what is unknown does not count
    assert picture.reading == (
        "Of the 2 values that came, 1 (50 %) lie in the 50 % band and 2 (100 %) lie in the 90 % band. "
        "The network is off by 0.4 in the mean; naive by 4.4."
    )
    assert fan(happened=None).reading == (
        "The network forecasts 12 one step ahead and 16 after 3 steps, there between 13 and 19 at 90 %; what happened "
        "is not known."
    )
    assert fan(median=[1, np.nan, 2]).reading == "The forecast is not finite: the network diverged."
    assert fan(name="").heading == "The forecast"


def test_the_fan_shows_the_last_of_a_long_history():
    time = np.arange(1_000_000)
    picture = fan(time=time, history=time / 2.0, ahead=[10**6, 10**6 + 1, 10**6 + 2])
    assert len(picture.data["time"]) == len(picture.data["history"]) == 24
    assert (picture.data["time"][-1], picture.data["history"][-1]) == (999_999, 999_999 / 2)
    assert len(replace(picture, last=3).data["history"]) == 3
    long = np.arange(10_000)
    band = {90: (np.sin(long) - 1, np.sin(long) + 1)}
    huge = fan(time=time, history=time, ahead=long, median=long, bands=band, happened=None, baselines={})
    assert len(huge.data["history"]) == 2000
    assert len(huge.svg()) < 300_000
    drawn = huge.plot().collections[0].get_paths()[0].vertices
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == pytest.approx((-2, 2), abs=1e-4)  # the extremes stay


def test_times_may_be_dates_of_any_kind():
    day = datetime.date(2020, 1, 1)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    dates = [day + datetime.timedelta(days=n) for n in range(5)]
    moments = [datetime.datetime(2020, 1, 1 + n, 12, tzinfo=zone) for n in range(5)]
    assert fan(time=dates).data["time"][1] == np.datetime64("2020-01-02")
    assert fan(time=moments).data["time"][1] == np.datetime64("2020-01-02T12:00")
    assert fan(time=range(5), ahead=range(5, 8)).plot().get_xlabel() == "time"
    assert fan().plot().get_xlabel() == "date"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ahead": [], "median": []}, "ahead must have at least one time; got none."),
        ({"median": [1, 2]}, r"median must have one value a time, 3; got shape \(2,\)"),
        ({"history": [[1, 2, 3, 4, 5]]}, r"history must have one value a time, 5; got shape \(1, 5\)"),
        ({"happened": [1]}, "happened must have one value a time, 3"),
        ({"bands": {90: ([1, 2, 3], [1])}}, "the band of 90 % must have one value a time, 3"),
        ({"bands": {100: ([1, 2, 3], [1, 2, 3])}}, "bands must be by levels between 0 and 100 percent; got 100"),
        ({"baselines": {"naive": [1]}}, "the baseline naive must have one value a time"),
        ({"time": [[1, 2]]}, "time must be one row of times"),
        ({"last": 0}, "last must be 1 or more; got 0"),
        ({"time": list(range(5))}, "time and ahead must both be dates or both be numbers"),
    ],
)
def test_what_makes_no_fan_is_refused(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        fan(**wrong)


def test_times_of_text_are_refused():
    with pytest.raises(TypeError, match="time must be dates or numbers; got <U"):
        fan(time=list("abcde"))


def test_the_first_fans_of_many_are_named_as_such():
    fans = [fan(name=str(place)) for place in range(12)]
    assert first_fans(fans) == (fans[:3], "Drawn are the first 3 of 12 series.")
    assert first_fans(fans[:3]) == (fans[:3], "")
    twice = [one for one in fans[:3] for _ in range(2)]  # the past of a series and its future
    assert first_fans(twice) == (twice, "")
    assert first_fans([*twice, fans[3]]) == (twice, "Drawn are the first 3 of 4 series.")
    with pytest.raises(ValueError, match="most must be 1 or more; got 0"):
        first_fans(fans, 0)


def test_errors_by_horizon_are_lines_of_their_means():
    picture = ErrorByHorizon({"network": [0.5, 0.75, 1.0], "naive": [0.8, 0.7, np.nan]})
    assert picture.data["mean"] == {"network": 0.625, "naive": 0.75}  # of the first two
    assert picture.reading == (
        "The MASE of network is 0.5 one step ahead and 1 at 3 steps; in the mean network 0.625, naive 0.75; "
        "network is lowest at 1 of 2 steps."
    )
    np.testing.assert_array_equal(picture.plot().lines[0].get_xydata(), [(1, 0.5), (2, 0.75), (3, 1.0)])
    apart = ErrorByHorizon({"a": [1, np.nan], "b": [np.nan, 1], "c": [np.nan, np.nan]})
    assert apart.reading == "The MASE of a is 1 one step ahead; at no step all of them were measured."
    assert ErrorByHorizon({"a": [np.nan]}).reading == "No finite MASE was measured of a."
    assert ErrorByHorizon({"a": [np.nan, 2]}, "RMSSE").reading == "The RMSSE of a is 2 at 2 steps."
    with pytest.raises(ValueError, match=r"the errors of b must have one value a time, 2; got shape \(1,\)"):
        ErrorByHorizon({"a": [1, 2], "b": [1]})
    for nothing in ({}, {"a": []}):
        with pytest.raises(ValueError, match="errors must h"):
            ErrorByHorizon(nothing)


# Classes


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_scores_are_those_of_scikit_learn(classes: int):
    truth, predicted, names = labels(classes, 150, seed=classes)
    names = [*names, "never seen"]
    predicted[:3] = ["never seen"] * 3
    np.testing.assert_array_equal(confusion(truth, predicted, names), confusion_matrix(truth, predicted, labels=names))
    wanted = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=np.nan)
    data = ClassScores(truth, predicted, names).data
    for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        np.testing.assert_allclose(data[name], values, rtol=1e-12)


def test_the_matrix_counts_and_shares_by_row():
    picture = ConfusionMatrix("aaaabb", "aaabbb", "abc")
    np.testing.assert_array_equal(picture.data["counts"], [[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(picture.data["shares"], [[0.75, 0.25, 0], [0, 1, 0], [np.nan] * 3])
    assert picture.data["pairs"] == [("a", "b", 1, 0.25)]
    assert picture.reading == (
        "5 of 6 examples are classified right (83.3 %); most often confused: “a” taken for “b”, 1 of 4."
    )
    ax = picture.plot()
    np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), picture.data["shares"])
    assert sorted(text.get_text() for text in ax.texts) == ["1\n25 %", "2\n100 %", "3\n75 %"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]
    assert PICTURES["perfect"].reading == "2 of 2 examples are classified right (100 %)."
    assert PICTURES["no examples"].reading == "No example was classified."


def test_of_many_classes_the_most_confused_pairs_are_drawn():
    truth = [*range(30), 7, 7, 8]
    predicted = [*range(30), 9, 9, 9]
    picture = ConfusionMatrix(truth, predicted, range(30))
    assert picture.data["pairs"] == [(7, 9, 2, 2 / 3), (8, 9, 1, 0.5)]
    assert "“7” taken for “9”, 2 of 3; “8” taken for “9”, 1 of 2." in picture.reading
    ax = picture.plot()
    assert not ax.images
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["7 → 9", "8 → 9"]
    assert [patch.get_width() for patch in ax.patches] == [2, 1]


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("count", [3000, 90_000])
@pytest.mark.parametrize("classes", [2, 9, 13, 20, 21])
def test_numbers_stay_inside_their_cells(classes: int, count: int, size: str):
    picture = ConfusionMatrix(*labels(classes, count))
    figure = Figure(figsize=picture.size(size), layout="constrained")
    ax = picture.plot(figure.subplots())
    figure.draw_without_rendering()
    assert bool(ax.images) == (classes <= 20 if size == "wide" else classes < 13)
    if ax.images:
        cell = ax.get_window_extent().width / classes
        assert max(text.get_window_extent().width for text in ax.texts) < 1.05 * cell
        assert min(text.get_fontsize() for text in ax.texts) >= 5


@pytest.mark.parametrize(
    ("count", "plain", "brief"),
    [
        *((7, "7", "7"), (999, "999", "999"), (1234, "1,234", "1.2k"), (9949, "9,949", "9.9k")),
        *((9950, "9,950", "10k"), (999_499, "999,499", "999k"), (1_500_000, "1,500,000", "1.5M")),
    ],
)
def test_counts_in_brief(count: int, plain: str, brief: str):
    assert (_counted(count, brief=False), _counted(count, brief=True)) == (plain, brief)


def test_the_scores_of_many_classes_are_the_best_and_the_worst():
    picture = ClassScores(*labels(60, 2000))
    f1 = picture.data["f1"]
    ax = picture.plot()
    drawn = next(line for line in ax.lines if line.get_label() == "F1").get_xdata()
    order = np.sort(f1)[::-1]
    np.testing.assert_array_equal(drawn, [*order[:15], *order[-15:]])
    assert "30 classes between are left out" in ax.get_xlabel()
    few = ClassScores("aaaabb", "aaabbb", "ab")
    assert few.reading == (
        "The mean F1 of the classes is 0.829: lowest for “b” at 0.800 (2 examples), highest for “a” at 0.857 "
        "(4 examples)."
    )
    names = [tick.get_text() for tick in few.plot().get_yticklabels()]
    assert names == ["a\u200e (4)", "b\u200e (2)"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ab", "a", "ab"), "predicted must be one a truth, 2; got 1"),
        (("ab", "ax", "ab"), "classes must hold every label; got the label 'x' besides"),
        (("ab", "ab", "aba"), "classes must be one or more different names; got 3, 2 different"),
        (("", "", ""), "classes must be one or more different names; got 0"),
    ],
)
@pytest.mark.parametrize("kind", [ConfusionMatrix, ClassScores])
def test_labels_that_are_no_classes_are_refused(kind: type, arguments: tuple, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        kind(*arguments)


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe (1998), table I, method 3
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_of_wilson(right: int, count: int, interval: tuple[float, float]):
    assert wilson(right, count) == pytest.approx(interval, abs=5e-5)
    low, high = wilson(count - right, count)
    assert (1 - high, 1 - low) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(("right", "count"), [(3, 2), (-1, 2), (0, 0)])
def test_no_interval_of_what_is_no_share(right: int, count: int):
    with pytest.raises(ValueError, match="right must be between 0 and count, and count 1 or more"):
        wilson(right, count)


def test_calibration_counts_by_bins_of_the_probability():
    data = Calibration([1, 0, 1, 1, 0], [0.91, 0.99, 1.0, 0.31, 0.39]).data
    np.testing.assert_allclose(data["probability"], [0.35, 2.9 / 3])
    np.testing.assert_allclose(data["share"], [0.5, 2 / 3])
    assert data["count"].tolist() == [2, 3]
    np.testing.assert_allclose(data["interval"][1], wilson(2, 3))
    assert data["gap"] == pytest.approx((0.15 * 2 + 0.3 * 3) / 5)
    sure = Calibration([1, 0] * 50, [0.99] * 100).reading
    assert "gives the class that it names 99 % in the mean, and is right in 50 %: it is too sure of itself." in sure
    assert "less sure than it could be" in Calibration([1] * 50, [0.6] * 50).reading
    assert "as sure as it is right" in Calibration([1, 0] * 9, [0.55] * 18).reading
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]; got 0.0 to 1.5"):
        Calibration([1, 0], [0, 1.5])
    with pytest.raises(ValueError, match="probability must be one an example"):
        Calibration([1, 0], [0.5])

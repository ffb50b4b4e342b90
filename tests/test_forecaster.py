"""The forecaster's laws: nothing of the future, streaming equals one pass, near its anchor, frames as given."""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone

from throughtime.data import co2
from throughtime.estimators.anchor import Past, border_of, choose, fit_anchor
from throughtime.estimators.forecaster import Forecaster
from throughtime.estimators.weighing import readouts
from throughtime.nets import Committee, Network, Window, parameters_of

QUICK: dict[str, Any] = {"updates": 60, "units": 8, "networks": 1, "random_state": 0}


def waves(steps: int, seed: int = 0) -> np.ndarray:
    """What a linear forecast does not see: the logistic map, and a little trend."""
    z, random = [0.3], np.random.default_rng(seed)
    for _ in range(steps - 1):
        z.append(3.8 * z[-1] * (1 - z[-1]))
    return np.array(z) + 0.01 * random.normal(size=steps)


def frame(values: np.ndarray, start: int = 0, id: str = "a", **more: Any) -> pl.DataFrame:
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=start + k) for k in range(len(values))]
    return pl.DataFrame({"unique_id": [id] * len(values), "ds": days, "y": values, **more})


def numbers(found: pl.DataFrame) -> np.ndarray:
    return found.select(pl.selectors.numeric()).to_numpy()


# Short series


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([2, 4, 6, 8, 10], [12, 14, 16]), ([1, 2, 3], [4, 5, 6]), ([5], [5, 5, 5]), ([7] * 20, [7, 7, 7])],
)
def test_few_values_are_carried_on(values: list[float], wanted: list[float]) -> None:
    model = Forecaster(3, random_state=0).fit(values)
    found = model.predict(level=[90])
    assert found["throughtime"] == pytest.approx(wanted, rel=1e-6)
    assert (found["throughtime-lo-90"] <= found["throughtime"] + 1e-9).all()
    assert "too few values" in model.notes_[-1]


def test_a_line_with_noise_goes_on() -> None:
    values = 100 + 3.0 * np.arange(40) + np.random.default_rng(0).normal(size=40)
    found = Forecaster(10, **QUICK).fit(values).predict()["throughtime"]
    assert found == pytest.approx(100 + 3.0 * np.arange(40, 50), abs=6)


def test_a_series_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match="y of 'b' must have at least one value"):
        Forecaster(2).fit({"a": [1.0, 2.0], "b": [np.nan, np.nan]})
    with pytest.raises(ValueError, match="y must have at least one value; all are missing"):
        Forecaster(2).fit([np.nan])


# What is chosen comes from the past


def test_the_anchor_knows_nothing_of_what_comes_later() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(size=200)) + 10
    spoiled = values.copy()
    border = border_of(200, 12)
    spoiled[border:] *= 1000
    past, other = Past(values, 0, 12, 7.0), Past(spoiled, 0, 12, 7.0)
    kinds = choose([past])
    assert fit_anchor(past.cut(border), kinds) is not None
    one, two = fit_anchor(past.cut(border), kinds), fit_anchor(other.cut(border), kinds)
    assert one is not None
    assert two is not None
    assert one.parts == two.parts
    assert (one.spread == two.spread).all()


def test_the_network_learns_what_the_anchor_cannot() -> None:
    values = waves(500)
    model = Forecaster(1, random_state=0, updates=400, networks=1).fit(values[:400])
    errors, naive = [], []
    for k in range(400, 440):
        errors.append(abs(model.predict()["throughtime"][0] - values[k]))
        naive.append(abs(model.anchor_of(next(iter(model.standings_)), 1, np.zeros((1, 0)))[0] - values[k]))
        model.update(values[k : k + 1])
    assert np.mean(errors) < 0.6 * np.mean(naive)
    assert model.share_ > 0.5


def test_of_a_random_walk_the_anchor_is_kept_and_that_is_said() -> None:
    walk = np.cumsum(np.random.default_rng(4).normal(size=150))
    model = Forecaster(6, **QUICK).fit(walk)
    found = model.predict()["throughtime"]
    away = np.abs(found - model.anchor_of(next(iter(model.standings_)), 6, np.zeros((6, 0))))
    assert away.max() <= 1e-6 if model.share_ == 0 else away.max() < 3
    assert any("adds nothing" in note or "has a share of" in note for note in model.notes_)


# Streaming


def with_gaps(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[np.random.default_rng(2).random(len(values)) < 0.1] = np.nan
    return values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "recursive", "samples": 20},
        {"head": "gaussian", "layers": 2, "cell": "lstm"},
        {"head": "point", "mode": "recursive"},
        {"cell": "mlp", "window": 5},
        {"networks": 2},
    ],
)
def test_one_value_at_a_time_equals_one_pass(options: dict[str, Any]) -> None:
    values = with_gaps(waves(320) + np.sin(np.arange(320) / 3))
    one = Forecaster(5, **(QUICK | options)).fit(frame(values[:200]))
    for readout in readouts(one.net_):
        torch.nn.init.normal_(readout.weight, std=0.3)  # a network that says something
    two = copy.deepcopy(one)
    before = numbers(one.predict())
    one.update(frame(values[200:], 200))
    for k in range(200, 320):
        if np.isnan(values[k]) and k % 2 and k < 319:
            continue  # a row that is not there is the same as a value that is missing
        two.update(frame(values[k : k + 1], k))
    level = [] if options.get("head") == "point" else [50, 90]
    found, other = numbers(one.predict(level=level)), numbers(two.predict(level=level))
    assert np.abs(found - other).max() <= 1e-6 * np.abs(found).max()
    assert np.abs(found[:, 0] - before[:, 0]).max() > 1e-3


def test_a_committee_says_the_mean_of_its_networks() -> None:
    nets = [Network("gru", inputs=2, units=3, outputs=4) for _ in range(3)]
    x = torch.randn(6, 2, 2)
    y, state = Committee(nets)(x[:4])
    later, _ = Committee(nets)(x[4:], state)
    wanted = torch.stack([net(x)[0] for net in nets]).mean(0)
    assert torch.allclose(torch.cat((y, later)), wanted, atol=1e-6)


def test_an_update_costs_what_is_new() -> None:
    model = Forecaster(3, **QUICK).fit(waves(3000))
    at = next(iter(model.standings_.values()))
    assert len(at.z) < 200


def test_the_state_is_that_of_reading_everything() -> None:
    """The network over the whole series at once gives the forecast from the carried state."""
    from throughtime.estimators.anchor import track_of
    from throughtime.estimators.horizons import look

    values = waves(150)
    model = Forecaster(4, **QUICK).fit(values)
    torch.nn.init.normal_(model.net_.readout.weight, std=0.3)
    at = next(iter(model.standings_.values()))
    scaling = at.anchor.scaling
    track = track_of(at.anchor, scaling.inward(values), np.isnan(values), start=0, more=4)
    seen, paths = look(model._view, track, np.arange(150))
    out, _ = model.net_(torch.from_numpy(seen).float()[:, None])
    r = model._head.median(out[-1].double().detach().numpy())[0]
    wanted = scaling.outward(paths[-1] + at.anchor.spread * r)
    assert model.predict()["throughtime"] == pytest.approx(wanted, rel=1e-5)


def test_partial_fit_learns_on_from_the_carried_state() -> None:
    values = waves(300)
    model = Forecaster(2, **QUICK).partial_fit(frame(values[:200]))
    before = [weight.detach().clone() for weight in model.net_.parameters()]
    state = model.standings_["a"].state
    model.partial_fit(frame(values[200:], 200))
    moved = [not torch.equal(a, b) for a, b in zip(before, model.net_.parameters(), strict=True)]
    assert any(moved)
    assert not torch.equal(model.standings_["a"].state[0], state[0])
    assert model.predict()["ds"][0] == dt.date(2020, 1, 1) + dt.timedelta(days=300)


# Frames, levels, covariates


def test_forecasts_have_nixtlas_columns_and_ordered_quantiles() -> None:
    both = pl.concat([frame(waves(120), id="b"), frame(waves(90, 1) + 5, 3, id="a")])
    model = Forecaster(7, **QUICK).fit(both)
    found = model.predict(4, level=[90, 50])
    bounds = ["throughtime-lo-90", "throughtime-lo-50", "throughtime", "throughtime-hi-50", "throughtime-hi-90"]
    assert found.columns == ["unique_id", "ds", "throughtime", *bounds[:2], *bounds[3:]]
    assert found["unique_id"].to_list() == ["b"] * 4 + ["a"] * 4
    assert found["ds"][4] == dt.date(2020, 1, 1) + dt.timedelta(days=93)
    table = found.select(bounds).to_numpy()
    assert (np.diff(table, axis=1) >= 0).all()
    assert np.allclose(found["throughtime"], model.predict(4)["throughtime"])


def test_many_series_share_a_network_and_one_choice() -> None:
    random = np.random.default_rng(5)
    data = {k: 10 * k + np.sin(np.arange(40) / 2) + 0.1 * random.normal(size=40) for k in range(25)}
    found = Forecaster(3, **QUICK).fit(data).predict()
    wanted = np.concatenate([10 * k + np.sin(np.arange(40, 43) / 2) for k in data])
    assert np.abs(found["throughtime"] - wanted).mean() < 0.4


def test_known_covariates_reach_the_forecast() -> None:
    random = np.random.default_rng(6)
    price = random.normal(size=260)
    values = 20 + 4 * price + 0.3 * random.normal(size=260)
    model = Forecaster(5, known_future=("price",), **QUICK).fit(frame(values[:200], price=price[:200]))
    future = frame(np.zeros(5), 200, price=price[200:205]).drop("y")
    error = np.abs(model.predict(future=future)["throughtime"].to_numpy() - values[200:205]).mean()
    assert error < 1.2  # without the price: about 3.2
    two = copy.deepcopy(model)
    model.update(frame(values[200:250], 200, price=price[200:250]))
    for k in range(200, 250):
        two.update(frame(values[k : k + 1], k, price=price[k : k + 1]))
    later = frame(np.zeros(5), 250, price=price[250:255]).drop("y")
    one, other = numbers(model.predict(future=later)), numbers(two.predict(future=later))
    assert one == pytest.approx(other, rel=1e-6)
    with pytest.raises(ValueError, match="future must be a frame with price of the next 5 steps; got none"):
        model.predict()
    with pytest.raises(ValueError, match="future must cover the 5 steps after the last value of 'a'"):
        model.predict(future=future)


def test_a_seed_gives_the_same_forecast_and_leaves_torchs_alone() -> None:
    state = torch.get_rng_state()
    one, two = (Forecaster(4, mode="recursive", samples=30, **QUICK).fit(waves(100)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.predict(level=[80])["throughtime-hi-80"] == two.predict(level=[80])["throughtime-hi-80"]).all()
    assert (one.predict()["throughtime"] == one.predict()["throughtime"]).all()


def test_scikit_learns_conventions() -> None:
    model = Forecaster(4, cell="lstm", dropout=0.1)
    other = clone(model)
    assert other.get_params() == model.get_params()
    assert not hasattr(other.set_params(units=5), "net_")
    with pytest.raises(Exception, match="not fitted"):
        other.predict()


@pytest.mark.parametrize("credit", ["bptt:h=16,every=8", "uoro"])
def test_any_credit_trains_it(credit: str) -> None:
    model = Forecaster(2, credit=credit, **(QUICK | {"updates": 5})).fit(waves(120))
    assert np.isfinite(model.predict()["throughtime"]).all()


def test_the_network_without_memory_has_as_many_parameters() -> None:
    one, two = (Forecaster(4, cell=cell, **QUICK).fit(waves(80)) for cell in ("gru", "mlp"))
    assert isinstance(two.net_, Window)
    assert two.net_.window == 16
    assert parameters_of(two.net_) == pytest.approx(parameters_of(one.net_), rel=0.1)


def test_a_gap_at_the_end_is_forecast_over() -> None:
    values = np.sin(np.arange(130) / 3)
    gap = np.r_[values[:80], np.full(40, np.nan)]
    found = Forecaster(10, **QUICK).fit(gap).predict()["throughtime"]
    assert found == pytest.approx(values[120:], abs=0.05)


def test_weeks_with_gaps_are_read_and_said() -> None:
    days, ppm = co2()
    values = pl.DataFrame({"ds": days[:400].astype("datetime64[us]"), "y": ppm[:400]})
    model = Forecaster(8, **QUICK).fit(values.with_columns(pl.col("ds").cast(pl.Date)))
    said = " ".join(model.notes_)
    assert "values are missing" in said
    assert "the weeks of a year" in said
    assert np.isfinite(numbers(model.predict(level=[90]))).all()


def test_refusals() -> None:
    values = waves(60)
    model = Forecaster(3, **QUICK).fit(frame(values))
    for options, sentence in (
        ({"mode": "both"}, "mode must be direct or recursive"),
        ({"head": "mixture"}, "head must be quantile, gaussian or point"),
        ({"window": 3}, "window must go with cell='mlp'"),
        ({"horizon": 0}, "horizon must be a whole number, at least 1"),
        ({"networks": 0}, "networks must be at least 1"),
        ({"season": 0}, "season must be at least 1 step"),
        ({"quantiles": (0.1, 0.9)}, "quantiles must have the median"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Forecaster(**options).fit(values)
    with pytest.raises(TypeError, match="known_future must be a sequence of columns"):
        Forecaster(known_future="price").fit(values)
    with pytest.raises(ValueError, match="horizon must be at most the 3 steps that were learned; got 4"):
        model.predict(4)
    with pytest.raises(ValueError, match="level must be percentages"):
        model.predict(level=[0.9, 190])
    with pytest.raises(ValueError, match="future must be left out"):
        model.predict(future=frame(values))
    with pytest.raises(ValueError, match="data must come after 2020-02-29"):
        model.update(frame(values[:1], 59))
    with pytest.raises(ValueError, match="got the id 'z'"):
        model.update(frame(values, 60, id="z"))
    with pytest.raises(ValueError, match="fitted; got no ids"):
        model.update(frame(values[:1], 60).drop("unique_id"))
    plain = Forecaster(3, **QUICK).fit(frame(values).drop("unique_id"))
    with pytest.raises(ValueError, match="data must come after 2020-02-29, the last step that was seen"):
        plain.update(frame(values[:1], 59).drop("unique_id"))
    point = Forecaster(3, head="point", **QUICK).fit(values)
    with pytest.raises(ValueError, match="level must be left out with head='point'"):
        point.predict(level=[90])


@pytest.mark.parametrize("size", [1e-13, 1e-9, 1e12])
def test_the_size_of_the_values_changes_nothing(size: float) -> None:
    values = waves(80)
    for options in ({}, {"head": "gaussian", "mode": "recursive", "samples": 20}):
        one, two = (Forecaster(3, **(QUICK | options)).fit(v).predict(level=[90]) for v in (values, size * values))
        for name in ("throughtime", "throughtime-lo-90", "throughtime-hi-90"):
            assert two[name] / size == pytest.approx(one[name], rel=1e-4)


def test_settings_of_a_wrong_type_are_named() -> None:
    values = waves(40)
    with pytest.raises(ValueError, match=r"season must be at least 1 step .* got '7'"):
        Forecaster(2, season="7", **QUICK).fit(values)
    with pytest.raises(ValueError, match=r"networks must be at least 1, or None to choose; got 1\.5"):
        Forecaster(2, **(QUICK | {"networks": 1.5})).fit(values)
    with pytest.raises(ValueError, match=r"level must be percentages between 0 and 100.* got None"):
        Forecaster(2, **QUICK).fit(values).predict(level=None)

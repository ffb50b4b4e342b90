"""Forecasts of one series or many, by a network that carries its state and departs from a linear anchor.

See `anchor` for what is chosen without a network, `horizons` for what is read and asked, `weighing` for the share that
the network has, `standing` for the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from throughtime.baselines.series import Numbers
from throughtime.credit import BPTT, Credit
from throughtime.data.axis import plain
from throughtime.data.panel import SAMPLE, Columns, Line, Panel, read_panel, trimmed, write_panel
from throughtime.estimators.anchor import carried
from throughtime.estimators.backtest import Backtest, walk
from throughtime.estimators.forecast_fit import STEPS, Design, fit_forecaster, season_for
from throughtime.estimators.heads import Head
from throughtime.estimators.horizons import Horizons, Span
from throughtime.estimators.intake import seed_of
from throughtime.estimators.learning import adam, learn
from throughtime.estimators.standing import Continued, Standing, append, direct, move, recursive, stand

LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
NAME = "throughtime"
"""The column of the forecast; those of its intervals are throughtime-lo-90, throughtime-hi-90."""
MODES = ("direct", "recursive")


class Forecaster(BaseEstimator):
    """Forecasts with the columns of Nixtla's libraries: id, time, value in; id, time, throughtime and intervals out.

    horizon     steps ahead that are learned; with mode="recursive" those that the anchor is chosen for.
    mode        direct: at every step all horizons at once. recursive: one step, fed its own values; intervals are
                those of `samples` sampled paths, and any horizon can be asked for.
    head        quantile (of `quantiles`), gaussian, or point (no intervals).
    cell        a spelled cell (`gru`, `lstm`, `elman`, ...), or `mlp`: the network without memory, over the last
                `window` steps (default 16), with as many parameters as the GRU of these units and layers.
    networks    that learn each on their own, averaged; None: 3, or 1 for more than 20,000 steps.
    season      in steps, 1 for none; None: from the frequency, else found in the data. `notes_` says which.
    known_future   columns of covariates that are known ahead; predict needs them of the horizon.
    credit      how the error travels back, as in `train`; default BPTT over chunks of 64 steps.
    dropout, learning_rate, weight_decay, updates, seconds, patience   of the training, which stops after `patience`
                looks at the last fifth of every series without a lower loss.

    The forecast is the median (head point: the mean). Learned: net_, season_, notes_ (what was done to the data, what
    was chosen, what the network is worth), records_ (of the training), share_ (that of the network, 0 to 1).
    """

    def __init__(
        self,
        horizon: int = 12,
        *,
        mode: str = "direct",
        head: str = "quantile",
        quantiles: Sequence[float] = LEVELS,
        samples: int = 200,
        cell: str = "gru",
        units: int = 32,
        layers: int = 1,
        networks: int | None = None,
        window: int | None = None,
        season: float | None = None,
        known_future: Sequence[str] = (),
        credit: Credit | str | None = None,
        dropout: float = 0.2,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        updates: int = 1000,
        seconds: float | None = None,
        patience: int = 15,
        random_state: Any = None,
    ) -> None:
        self.horizon = horizon
        self.mode = mode
        self.head = head
        self.quantiles = quantiles
        self.samples = samples
        self.cell = cell
        self.units = units
        self.layers = layers
        self.networks = networks
        self.window = window
        self.season = season
        self.known_future = known_future
        self.credit = credit
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.updates = updates
        self.seconds = seconds
        self.patience = patience
        self.random_state = random_state

    def fit(
        self, data: Any, y: None = None, *, id: str = "unique_id", time: str = "ds", value: str = "y"
    ) -> Forecaster:
        """Learn from a long frame (pandas, polars, pyarrow), one row of numbers, or a dict of rows by id.

        Steps must be equal; missing rows and values are allowed. Raises ValueError for what cannot be read or learned.
        """
        self._checked()
        return self.fit_panel(read_panel(data, Columns(id, time, value, tuple(self.known_future))))

    def fit_panel(self, panel: Panel) -> Forecaster:
        """`fit` on a panel that was read."""
        head, design = self._checked()
        self._seed = seed_of(self.random_state)
        lines, notes = trimmed(panel)
        self.season_, said = season_for(lines, panel.axis, self.season)
        self._centre, self._size = _sizes(lines)
        lines = [self._scaled(line) for line in lines]
        fitted = fit_forecaster(
            lines,
            horizon=self.horizon,
            season=self.season_,
            direct=self.mode == "direct",
            head=head,
            design=design,
            seed=self._seed,
        )
        self.net_, self.records_ = fitted.net, fitted.records
        self.share_ = 0.0 if fitted.weighed is None else fitted.weighed.share
        self.notes_ = (*panel.notes, *notes, said, *fitted.notes)
        self._view, self._head = fitted.view, fitted.head
        self.panel_ = replace(panel, lines=())
        self.standings_ = {
            line.id: stand(self.net_, self._view, anchor, line)
            for line, anchor in zip(lines, fitted.anchors, strict=True)
        }
        return self

    def update(self, data: Any) -> Forecaster:
        """Move the state on over new rows, without learning, in a time that only the new rows decide.

        Gaps before the first new row count as missing values. Rows must come after those that were seen; ids must be
        known.
        """
        return self.move_lines(self._news(data))

    def move_lines(self, lines: Sequence[Line]) -> Forecaster:
        """`update` by lines that begin where each series ends, their covariates not scaled yet."""
        for line in lines:
            at = self.standings_[line.id]
            scaled = self._scaled(line, before=at.covariates[-1:])
            self.standings_[line.id] = move(self.net_, self._view, at, line.values, scaled.covariates)
        return self

    def partial_fit(
        self, data: Any, y: None = None, *, id: str = "unique_id", time: str = "ds", value: str = "y"
    ) -> Forecaster:
        """Learn on from new rows, in one pass from the state that was carried here; the first call is `fit`.

        Scaling, anchors and the horizon's spread stay as fitted.
        """
        if not hasattr(self, "net_"):
            return self.fit(data, id=id, time=time, value=value)
        lines = self._news(data)
        for line in lines:
            at = self.standings_[line.id]
            self._learn_on(at, self._scaled(line, before=at.covariates[-1:]))
        return self.move_lines(lines)

    def predict(self, horizon: int | None = None, *, level: Sequence[float] = (), future: Any = None) -> Any:
        """Forecasts of the next steps of every series, as the kind of data that was fitted.

        level   of central intervals in percent, such as [50, 90]. future: a frame of the covariates in known_future,
        for every series and step of the horizon.
        """
        check_is_fitted(self, "net_")
        steps = self._steps(horizon)
        levels = self._levels(level)
        wanted = np.array([0.5, *(0.5 - one / 200 for one in levels), *(0.5 + one / 200 for one in levels)])
        ahead = self._future(future, steps)
        names = [NAME, *(f"{NAME}-lo-{one:g}" for one in levels), *(f"{NAME}-hi-{one:g}" for one in levels)]
        order = [NAME, *(f"{NAME}-lo-{one:g}" for one in reversed(levels)), *(f"{NAME}-hi-{one:g}" for one in levels)]
        tables = []
        for one, at in self.standings_.items():
            found = self._forecast(at, steps, wanted, ahead.get(one))
            columns = dict(zip(names, found.T, strict=True))
            tables.append({name: columns[name] for name in order})
        stands = list(self.standings_.values())
        return write_panel(self.panel_, [at.stop for at in stands], tables, [at.id for at in stands])

    def backtest(
        self,
        data: Any,
        *,
        windows: int = 4,
        step: int | None = None,
        horizon: int | None = None,
        level: Sequence[float] = (50, 90),
        refit: bool = False,
        id: str = "unique_id",
        time: str = "ds",
        value: str = "y",
    ) -> Backtest:
        """What copies of this forecaster and the baselines would have said at the last `windows` origins, `step` apart.

        step is the horizon by default. The copy is fitted once, before the first origin, and its state carried on;
        refit=True fits one before each. Nothing of the forecaster itself changes.
        """
        self._checked()
        steps = self._steps(horizon)
        for name, count in (("windows", windows), ("step", steps if step is None else step)):
            if not isinstance(count, (int, np.integer)) or count < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {count!r}.")
        panel = read_panel(data, Columns(id, time, value, tuple(self.known_future)))
        lines, notes = trimmed(panel)
        return walk(
            lambda: clone(self),
            replace(panel, lines=tuple(lines), notes=(*panel.notes, *notes)),
            windows=windows,
            step=steps if step is None else step,
            horizon=steps,
            level=[] if self.head == "point" else self._levels(level),
            refit=refit,
        )

    def quantiles_of(self, id: Any, steps: int, wanted: Numbers, covariates: Numbers) -> Numbers:
        """(steps, Q): the wanted quantiles of the next values of a series, given covariates not scaled yet."""
        at = self.standings_[id]
        ahead = self._scaled(Line(id, at.stop, np.zeros(steps), covariates), before=at.covariates[-1:]).covariates
        return self._forecast(at, steps, wanted, ahead)

    def anchor_of(self, id: Any, steps: int, covariates: Numbers) -> Numbers:
        """(steps,): what the anchor alone says of the next values of a series."""
        at = self.standings_[id]
        ahead = self._scaled(Line(id, at.stop, np.zeros(steps), covariates), before=at.covariates[-1:]).covariates
        z = at.track(ahead, steps).paths(np.array([len(at.z) - 1]), steps)[0]
        return at.anchor.scaling.outward(z)

    # What a forecast is made of

    def _forecast(self, at: Standing, steps: int, wanted: Numbers, future: Numbers | None) -> Numbers:
        if self.mode == "direct":
            return direct(self.net_, self._view, self._head, at, wanted, future)[:steps]
        random = np.random.default_rng(self._seed)
        return recursive(
            self.net_, self._view, self._head, at, wanted, future, horizon=steps, samples=self.samples, random=random
        )

    def _steps(self, horizon: int | None) -> int:
        steps = self.horizon if horizon is None else horizon
        if not isinstance(steps, (int, np.integer)) or steps < 1:
            raise ValueError(f"horizon must be a whole number of steps, at least 1; got {horizon!r}.")
        if self.mode == "direct" and steps > self.horizon:
            raise ValueError(
                f"horizon must be at most the {self.horizon} steps that were learned; got {steps}. "
                f"Fit with horizon={steps}, or with mode='recursive'."
            )
        return int(steps)

    def _levels(self, level: Any) -> list[float]:
        try:
            levels = sorted({float(one) for one in np.atleast_1d(level)})
        except (TypeError, ValueError):
            levels = [np.nan]
        if levels and self.head == "point":
            raise ValueError("level must be left out with head='point', which has no intervals. Use head='quantile'.")
        if any(not 0 < one < 100 for one in levels):
            raise ValueError(f"level must be percentages between 0 and 100, such as [50, 90]; got {level!r}.")
        return levels

    def _future(self, future: Any, steps: int) -> dict[Any, Numbers]:
        """The scaled covariates (steps, C) of each series beyond its last step."""
        known = tuple(self.known_future)
        if not known:
            if future is not None:
                raise ValueError("future must be left out: known_future names no column. Fit with known_future=(...).")
            return {}
        if future is None:
            raise ValueError(f"future must be a frame with {', '.join(known)} of the next {steps} steps; got none.")
        panel = read_panel(future, self.panel_.columns, axis=self.panel_.axis, values=False)
        lines = {line.id: line for line in panel.lines}
        found = {}
        for one, at in self.standings_.items():
            line = lines.get(one)
            places = np.arange(at.stop, at.stop + steps) - (0 if line is None else line.start)
            if line is None or places[0] < 0 or places[-1] >= len(line.covariates):
                raise ValueError(f"future must cover the {steps} steps after the last value of {one!r}; it does not.")
            table = (line.covariates[places] - self._centre) / self._size
            if np.isnan(table).any():
                raise ValueError(
                    f"future must have a number for every covariate and step of {one!r}; some are missing."
                )
            found[one] = table
        return found

    # What is learned on

    def _news(self, data: Any) -> list[Line]:
        """New rows as lines that begin where each series ends."""
        check_is_fitted(self, "net_")
        panel = read_panel(data, self.panel_.columns, axis=self.panel_.axis)
        lines = []
        for line in panel.lines:
            at = self.standings_.get(line.id)
            if at is None:
                got = "no ids" if line.id is SAMPLE else f"the id {line.id!r}"
                raise ValueError(f"data must be of series that were fitted; got {got}. Fit with it.")
            start = at.stop if panel.form.kind != "frame" else line.start
            gap = start - at.stop
            if gap < 0:
                stamp = plain(self.panel_.axis.stamps(np.array([at.stop - 1]))[0])
                whose = "" if line.id is SAMPLE else f" of {line.id!r}"
                raise ValueError(f"data must come after {stamp}, the last step{whose} that was seen.")
            values = np.concatenate([np.full(gap, np.nan), line.values])
            covariates = np.concatenate([np.full((gap, line.covariates.shape[1]), np.nan), line.covariates])
            lines.append(Line(line.id, at.stop, values, covariates))
        return lines

    def _scaled(self, line: Line, before: Numbers | None = None) -> Line:
        """The line with its covariates scaled; a missing one is the last that was there."""
        table = (line.covariates - self._centre) / self._size
        if not table.shape[1] or not np.isnan(table).any():
            return replace(line, covariates=table)
        first = np.zeros((1, table.shape[1])) if before is None or not len(before) else before
        filled = np.concatenate([first, table])
        return replace(line, covariates=np.stack([carried(column) for column in filled.T], axis=1)[1:])

    def _learn_on(self, at: Standing, line: Line) -> None:
        """One pass over the steps whose next values are new, from the state before them."""
        whole = append(at, line.values, line.covariates)
        first, stop = at.read, len(whole.z) - 1
        if stop <= first or np.isnan(line.values).all():
            return
        track = whole.track(None, self._view.horizon)
        span = Span(track, first, stop, first, len(whole.z), since=len(at.z))
        source = Horizons(self._view, [span], 1, STEPS, carried=at.state is not None)
        net = Continued(self.net_, at.state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self.records_ += learn(
                net,
                source,
                loss=self._head.loss,
                credit=BPTT(h=STEPS, every=STEPS) if self.credit is None else self.credit,
                optimizer=adam(net, self.learning_rate / 5, self.weight_decay),
            )

    # Arguments

    def _checked(self) -> tuple[Head, Design]:
        if self.mode not in MODES:
            raise ValueError(f"mode must be direct or recursive; got {self.mode!r}.")
        for name in ("horizon", "updates", "samples", "patience"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}.")
        if self.networks is not None and (not isinstance(self.networks, (int, np.integer)) or self.networks < 1):
            raise ValueError(f"networks must be at least 1, or None to choose; got {self.networks!r}.")
        if self.window is not None and self.cell != "mlp":
            raise ValueError(f"window must go with cell='mlp'; got window={self.window} with cell={self.cell!r}.")
        if isinstance(self.known_future, str):
            raise TypeError(f"known_future must be a sequence of columns; got the text {self.known_future!r}.")
        window = (16 if self.window is None else self.window) if self.cell == "mlp" else None
        design = Design(
            cell=self.cell,
            units=self.units,
            layers=self.layers,
            window=window,
            dropout=self.dropout,
            credit=self.credit,
            rate=self.learning_rate,
            decay=self.weight_decay,
            updates=self.updates,
            seconds=self.seconds,
            patience=self.patience,
            networks=self.networks,
        )
        return Head(self.head, tuple(float(q) for q in self.quantiles)), design


def _sizes(lines: Sequence[Line]) -> tuple[Numbers, Numbers]:
    """The mean and the standard deviation of every covariate; 1 for a constant."""
    table = np.concatenate([line.covariates for line in lines])
    if not table.shape[1]:
        return np.zeros(0), np.ones(0)
    if np.isnan(table).all(axis=0).any():
        raise ValueError("known_future must be columns with numbers; one of them has none. Leave it out.")
    deviation = np.nanstd(table, axis=0)
    return np.nanmean(table, axis=0), np.where(deviation > 0, deviation, 1.0)

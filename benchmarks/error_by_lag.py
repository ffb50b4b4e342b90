"""Draw the error by lag of a run that was trained on text, with the line where h cuts it off.

    python benchmarks/error_by_lag.py runs/demo docs/error-by-lag.svg
"""

from __future__ import annotations

import sys

import throughtime as tt
from throughtime.cli.fitting import text_of
from throughtime.credit import credit_named
from throughtime.flow import error_by_lag
from throughtime.report import plot_error_by_lag, read_error_by_lag

LAGS = 128

run = tt.load(sys.argv[1])
h = credit_named(run.config["training"]["credit"]).h
lag = error_by_lag(run.net, tt.cross_entropy, text_of(run).chunks(8, 2 * LAGS, "validation")[0], LAGS)
plot_error_by_lag(lag, h=h).figure.savefig(sys.argv[2], facecolor="white", metadata={"Date": None})
print(read_error_by_lag(lag, h))

"""What a network has to beat: n-grams where it reads text, simple linear forecasts where it reads numbers."""

from throughtime.baselines.ngrams import (
    Baseline,
    Level,
    Mixture,
    Ngram,
    best_ngram,
    count,
    discounts,
    kinds,
    kneser_ney,
    places,
    witten_bell,
)
from throughtime.baselines.series import (
    Linear,
    autoregression,
    drift,
    mean,
    naive,
    season_of,
    seasonal_naive,
)

__all__ = [
    "Baseline",
    "Level",
    "Linear",
    "Mixture",
    "Ngram",
    "autoregression",
    "best_ngram",
    "count",
    "discounts",
    "drift",
    "kinds",
    "kneser_ney",
    "mean",
    "naive",
    "places",
    "season_of",
    "seasonal_naive",
    "witten_bell",
]

"""Networks that learn while they run: one step at a time, by BPTT(h; every) with the update inside, in river's manner.

    h_t = P(W_x x_t + b_x, W_h h_{t-1} + b_h, h_{t-1}),  y_t = W_q h_t + b_q       the state is carried, never replayed
    every `every` steps  w <- rule(w, dE/dw),  E the mean error of the newest `every` steps, h steps back

Williams and Peng (1990); credit/bptt.py says what replay changes. The compiled part does it without a call of Python
between two steps; without it the library's own credit and torch's optimiser do the same, some hundred times slower.
"""

from throughtime.online.faces import OnlineClassifier, OnlineRegressor

__all__ = ["OnlineClassifier", "OnlineRegressor"]

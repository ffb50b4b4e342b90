// Twin of src/throughtime/cells/ctrnn.py.
#pragma once
#include "elman.hpp"

namespace throughtime {
namespace {

// h_t = (1 - alpha) h_{t-1} + alpha f with f = phi(u_t + v_t), which is kept.
template <class S> struct Ctrnn {
    static constexpr int gates = 1, rows = 1, input_row = 0, slots = 1, kept = 1;
    static constexpr int recurrent[] = {0}, input[] = {0};
    static constexpr bool reads_h = false, reads_before = false;

    static void forward(const Sweep& it, long units, const S* pre, const S* before, S* h, S*, S* kept, long) {
        V<S> alpha = all<S>(S(it.alpha)), rest = all<S>(S(1 - it.alpha));
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> f = phi_of<S>(it.phi, load(pre + j));
            if (kept) store(kept + j, f);
            store(h + j, fma(rest, load(before + j), alpha * f));
        }
    }

    static void backward(const Sweep& it, long units, const S* kept, const S*, const S*, const S*, S* dh, S*, S* d, long) {
        V<S> alpha = all<S>(S(it.alpha)), rest = all<S>(S(1 - it.alpha));
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> up = load(dh + j);
            store(d + j, alpha * up * slope_of<S>(it.phi, load(kept + j)));
            store(dh + j, rest * up);
        }
    }
};

}  // namespace
}  // namespace throughtime

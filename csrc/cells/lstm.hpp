// Twin of src/throughtime/cells/lstm.py.
#pragma once
#include "../kernel.hpp"
#include "../simd.hpp"

namespace throughtime {
namespace {

// Rows of `pre` and `d` in torch's order i, f, g, o. Kept: i, f, g, o, c.
template <class S> struct Lstm {
    static constexpr int gates = 4, rows = 4, input_row = 0, slots = 2, kept = 5;
    static constexpr int recurrent[] = {0, 1, 2, 3}, input[] = {0, 1, 2, 3};
    static constexpr bool reads_h = false, reads_before = false;

    static void forward(const Sweep&, long units, const S* pre, const S*, S* h, S* c, S* kept, long stride) {
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> i = sigmoid<S>(load(pre + j)), f = sigmoid<S>(load(pre + units + j));
            V<S> g = tanh<S>(load(pre + 2 * units + j)), o = sigmoid<S>(load(pre + 3 * units + j));
            V<S> cell = fma(f, load(c + j), i * g);
            if (kept) {
                store(kept + j, i);
                store(kept + stride + j, f);
                store(kept + 2 * stride + j, g);
                store(kept + 3 * stride + j, o);
                store(kept + 4 * stride + j, cell);
            }
            store(c + j, cell);
            store(h + j, o * tanh<S>(cell));
        }
    }

    static void backward(const Sweep&, long units, const S* kept, const S*, const S*, const S* c_before, S* dh, S* dc, S* d, long stride) {
        V<S> one = all<S>(S(1));
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> i = load(kept + j), f = load(kept + stride + j), g = load(kept + 2 * stride + j), o = load(kept + 3 * stride + j);
            V<S> tanh_c = tanh<S>(load(kept + 4 * stride + j));
            V<S> up = load(dh + j);
            V<S> dcell = fma(up * o, fma(-tanh_c, tanh_c, one), load(dc + j));
            store(d + j, dcell * g * i * (one - i));
            store(d + stride + j, dcell * load(c_before + j) * f * (one - f));
            store(d + 2 * stride + j, dcell * i * fma(-g, g, one));
            store(d + 3 * stride + j, up * tanh_c * o * (one - o));
            store(dc + j, dcell * f);
            store(dh + j, V<S>{});
        }
    }
};

}  // namespace
}  // namespace throughtime

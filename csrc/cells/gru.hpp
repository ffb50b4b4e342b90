// Twin of src/throughtime/cells/gru.py.
#pragma once
#include "../kernel.hpp"
#include "../simd.hpp"

namespace throughtime {
namespace {

// Rows of `pre`: v_n, u_r + v_r, u_z + v_z, u_n, so that what W_h adds to and what W_x adds to are each contiguous;
// rows of `d` in the same order: dv_n, dr, dz, du_n. Kept: r, z, n, v_n.
template <class S> struct Gru {
    static constexpr int gates = 3, rows = 4, input_row = 1, slots = 1, kept = 4;
    static constexpr int recurrent[] = {2, 0, 1}, input[] = {0, 1, 2};
    static constexpr bool reads_h = false, reads_before = true;

    static void forward(const Sweep&, long units, const S* pre, const S* before, S* h, S*, S* kept, long stride) {
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> v_n = load(pre + j);
            V<S> r = sigmoid<S>(load(pre + units + j));
            V<S> z = sigmoid<S>(load(pre + 2 * units + j));
            V<S> n = tanh<S>(fma(r, v_n, load(pre + 3 * units + j)));
            if (kept) {
                store(kept + j, r);
                store(kept + stride + j, z);
                store(kept + 2 * stride + j, n);
                store(kept + 3 * stride + j, v_n);
            }
            store(h + j, fma(z, load(before + j) - n, n));
        }
    }

    static void backward(const Sweep&, long units, const S* kept, const S*, const S* before, const S*, S* dh, S*, S* d, long stride) {
        V<S> one = all<S>(S(1));
        for (long j = 0; j < units; j += lanes<S>) {
            V<S> r = load(kept + j), z = load(kept + stride + j), n = load(kept + 2 * stride + j), v_n = load(kept + 3 * stride + j);
            V<S> up = load(dh + j);
            V<S> dz = up * (load(before + j) - n) * z * (one - z);
            V<S> dn = up * (one - z) * fma(-n, n, one);
            store(d + j, dn * r);
            store(d + stride + j, dn * v_n * r * (one - r));
            store(d + 2 * stride + j, dz);
            store(d + 3 * stride + j, dn);
            store(dh + j, up * z);
        }
    }
};

}  // namespace
}  // namespace throughtime

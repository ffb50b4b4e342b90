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

    static void forward(const Sweep&, long Hp, const S* pre, S* h, S*, S* kept) {
        for (long j = 0; j < Hp; j += lanes<S>) {
            V<S> v_n = load(pre + j);
            V<S> r = sigmoid<S>(load(pre + Hp + j));
            V<S> z = sigmoid<S>(load(pre + 2 * Hp + j));
            V<S> n = tanh<S>(fma(r, v_n, load(pre + 3 * Hp + j)));
            if (kept) {
                store(kept + j, r);
                store(kept + Hp + j, z);
                store(kept + 2 * Hp + j, n);
                store(kept + 3 * Hp + j, v_n);
            }
            store(h + j, fma(z, load(h + j) - n, n));
        }
    }

    static void backward(const Sweep&, long Hp, const S* kept, const S*, const S* h, const S*, S* dh, S*, S* d) {
        V<S> one = all<S>(S(1));
        for (long j = 0; j < Hp; j += lanes<S>) {
            V<S> r = load(kept + j), z = load(kept + Hp + j), n = load(kept + 2 * Hp + j), v_n = load(kept + 3 * Hp + j);
            V<S> up = load(dh + j);
            V<S> dz = up * (load(h + j) - n) * z * (one - z);
            V<S> dn = up * (one - z) * fma(-n, n, one);
            store(d + j, dn * r);
            store(d + Hp + j, dn * v_n * r * (one - r));
            store(d + 2 * Hp + j, dz);
            store(d + 3 * Hp + j, dn);
            store(dh + j, up * z);
        }
    }
};

}  // namespace
}  // namespace throughtime

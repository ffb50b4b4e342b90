// Twin of src/throughtime/cells/elman.py.
#pragma once
#include "../kernel.hpp"
#include "../simd.hpp"

namespace throughtime {
namespace {

template <class S> TT_INLINE V<S> phi_of(Phi phi, V<S> a) {
    switch (phi) {
        case Phi::tanh: return tanh<S>(a);
        case Phi::relu: return a < all<S>(S(0)) ? V<S>{} : a;  // NaN stays
        case Phi::sigmoid: return sigmoid<S>(a);
        default: return a;
    }
}

// The slope of phi as a function of its value.
template <class S> TT_INLINE V<S> slope_of(Phi phi, V<S> f) {
    V<S> one = all<S>(S(1));
    switch (phi) {
        case Phi::tanh: return fma(-f, f, one);
        case Phi::relu: return f > all<S>(S(0)) ? one : V<S>{};
        case Phi::sigmoid: return f * (one - f);
        default: return one;
    }
}

// h_t = phi(u_t + v_t); `pre` is u + v on entry. Nothing is kept: the slope is a function of h.
template <class S> struct Elman {
    static constexpr int gates = 1, rows = 1, input_row = 0, slots = 1, kept = 0;
    static constexpr int recurrent[] = {0}, input[] = {0};
    static constexpr bool reads_h = true, reads_before = false;

    static void forward(const Sweep& it, long units, const S* pre, const S*, S* h, S*, S*, long) {
        for (long j = 0; j < units; j += lanes<S>) store(h + j, phi_of<S>(it.phi, load(pre + j)));
    }

    static void backward(const Sweep& it, long units, const S*, const S* h, const S*, const S*, S* dh, S*, S* d, long) {
        for (long j = 0; j < units; j += lanes<S>) {
            store(d + j, load(dh + j) * slope_of<S>(it.phi, load(h + j)));
            store(dh + j, V<S>{});
        }
    }
};

}  // namespace
}  // namespace throughtime

// Products with a matrix as it lies in memory, and the rules by which it changes: for weights that change at every step.
#pragma once
#include "kernel.hpp"
#include "rows.hpp"

namespace throughtime {
namespace {

template <int... at> struct Lanes {};
template <int n, int... at> struct CountLanes : CountLanes<n - 1, n - 1, at...> {};
template <int... at> struct CountLanes<0, at...> { using type = Lanes<at...>; };

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TT_SHUFFLE(S, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#if !defined(TT_SHUFFLE)
#define TT_SHUFFLE(S, a, b, ...) __builtin_shuffle(a, b, typename Vector<S>::bits{__VA_ARGS__})
#endif

// Two vectors of blocks of 2 w lanes as one: the halves of each block added, a's before b's.
template <class S, int w, int... at> TT_INLINE V<S> merged(V<S> a, V<S> b, Lanes<at...>) {
    constexpr int L = lanes<S>;
    V<S> low = TT_SHUFFLE(S, a, b, (at / (2 * w) * 2 * w + at % w + (at / w % 2) * L)...);
    V<S> high = TT_SHUFFLE(S, a, b, (at / (2 * w) * 2 * w + w + at % w + (at / w % 2) * L)...);
    return low + high;
}

// The sums of as many vectors as a vector has lanes, in their order; uses them up.
template <class S, int w = lanes<S> / 2> TT_INLINE V<S> sums(V<S>* v) {
    // Vectors that are w apart meet, so that lane k of the last one is the sum of vector k.
#pragma GCC unroll 8
    for (int k = 0; k < w; ++k) v[k] = merged<S, w>(v[k], v[k + w], typename CountLanes<lanes<S>>::type());
    if constexpr (w > 1) return sums<S, w / 2>(v);
    return v[0];
}

template <class S> TT_INLINE V<S> root(V<S> v) {
    V<S> r;
    for (int lane = 0; lane < lanes<S>; ++lane) r[lane] = sizeof(S) == 4 ? S(__builtin_sqrtf(float(v[lane]))) : S(__builtin_sqrt(v[lane]));
    return r;
}

TT_INLINE double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// out (rows of it, a multiple of 64 bytes) += W[:, 0:columns) z.
template <class S> static void dots(const S* W, long stride, long columns, long rows, const S* z, S* out) {
    constexpr int L = lanes<S>, R = L < 8 ? 8 : L;  // chains enough to hide the latency of one
    for (long i = 0; i < rows; i += R) {
        V<S> sum[R] = {};
        const S* row = W + i * stride;
        for (long j = 0; j < columns; j += L) {
            V<S> right = load(z + j);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) sum[r] = fma(load(row + r * stride + j), right, sum[r]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r += L) store(out + i + r, load(out + i + r) + sums<S>(sum + r));
    }
}

// dz (N vectors) += sum_i d_i W[i], with U chains for each vector.
template <class S, int N, int U> TT_INLINE void add_rows(const S* W, long stride, long rows, const S* d, S* dz) {
    constexpr int L = lanes<S>;
    V<S> sum[U][N] = {};
    long i = 0;
    for (; i + U <= rows; i += U)
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u) {
            V<S> left = all(d[i + u]);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[u][n] = fma(left, load(W + (i + u) * stride + n * L), sum[u][n]);
        }
    for (; i < rows; ++i)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[0][n] = fma(all(d[i]), load(W + i * stride + n * L), sum[0][n]);
#pragma GCC unroll 8
    for (int u = 1; u < U; ++u)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[0][n] += sum[u][n];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) store(dz + n * L, load(dz + n * L) + sum[0][n]);
}

// dz (columns of it, a multiple of 64 bytes) += W[0:rows, 0:columns)^T d.
template <class S> static void back(const S* W, long stride, long columns, long rows, const S* d, S* dz) {
    constexpr int L = lanes<S>;
    long j = 0;
    for (; j + 8 * L <= columns; j += 8 * L) add_rows<S, 8, 1>(W + j, stride, rows, d, dz + j);
    for (; j + 4 * L <= columns; j += 4 * L) add_rows<S, 4, THROUGHTIME_BYTES == 64 ? 4 : 2>(W + j, stride, rows, d, dz + j);
    for (; j < columns; j += L) add_rows<S, 1, 8>(W + j, stride, rows, d, dz + j);
}

// The rules: the weights and slots at `at` after the gradient g.
template <class S> struct Sgd {
    S *w, *velocity;
    V<S> rate, momentum;
    static Sgd of(const Online& it, int64_t) {
        return {static_cast<S*>(it.weights), static_cast<S*>(it.slots[0]), all<S>(S(it.rate)), all<S>(S(it.momentum))};
    }
    __attribute__((always_inline)) void operator()(long at, V<S> g) const {
        if (velocity) {
            g = fma(momentum, load(velocity + at), g);
            store(velocity + at, g);
        }
        store(w + at, fma(-rate, g, load(w + at)));
    }
};

template <class S> struct Adam {
    S *w, *mean, *square;
    V<S> beta1, beta2, rate, unbiased, epsilon;
    static Adam of(const Online& it, int64_t update) {
        double first = 1 - power(it.momentum, update), second = 1 - power(it.decay, update);
        return {static_cast<S*>(it.weights), static_cast<S*>(it.slots[0]), static_cast<S*>(it.slots[1]),
                all<S>(S(1 - it.momentum)),  all<S>(S(it.decay)),          all<S>(S(it.rate / first)),
                all<S>(S(1 / __builtin_sqrt(second))), all<S>(S(it.epsilon))};
    }
    __attribute__((always_inline)) void operator()(long at, V<S> g) const {
        V<S> m = load(mean + at), v = load(square + at);
        m = fma(g - m, beta1, m);
        v = fma((all<S>(S(1)) - beta2) * g, g, beta2 * v);
        store(mean + at, m);
        store(square + at, v);
        store(w + at, load(w + at) - rate * m / fma(root<S>(v), unbiased, epsilon));
    }
};

constexpr int strip_rows = 4;
constexpr int strip_vectors = THROUGHTIME_BYTES == 64 ? 4 : 3;  // sums, right sides and a left one fit the registers

// strip_rows rows by N vectors of D^T Z over n steps; d and z point at the oldest one.
template <class S, int N, class To>
TT_INLINE void strip(const S* d, long d_stride, const S* z, long z_stride, long n, const To& rule, long at, long stride) {
    constexpr int L = lanes<S>;
    V<S> sum[strip_rows][N] = {};
    for (long m = 0; m < n; ++m, d += d_stride, z += z_stride) {
        V<S> right[N];
#pragma GCC unroll 4
        for (int k = 0; k < N; ++k) right[k] = load(z + k * L);
#pragma GCC unroll 4
        for (int r = 0; r < strip_rows; ++r) {
            V<S> left = all(d[r]);
#pragma GCC unroll 4
            for (int k = 0; k < N; ++k) sum[r][k] = fma(left, right[k], sum[r][k]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < strip_rows; ++r)
#pragma GCC unroll 4
        for (int k = 0; k < N; ++k) rule(at + r * stride + k * L, sum[r][k]);
}

// The rows [0, rows) and columns [0, columns) of a weight matrix at `at`, whose gradient is D^T Z.
template <class S, class To>
static void weigh(const S* d, long d_stride, long rows, const S* z, long z_stride, long columns, long n, const To& rule,
                  long at, long stride) {
    constexpr int L = lanes<S>;
    for (long j = 0; j < columns;) {
        long left = (columns - j) / L;
        int wide = int(ceil_div(left, ceil_div(left, strip_vectors)));  // 3 and 3, not 4 and 2, whose sums are too few
        for (long i = 0; i < rows; i += strip_rows) {
            long to = at + i * stride + j;
            if (wide == strip_vectors) strip<S, strip_vectors>(d + i, d_stride, z + j, z_stride, n, rule, to, stride);
            else if (wide == 2) strip<S, 2>(d + i, d_stride, z + j, z_stride, n, rule, to, stride);
            else if (wide == 3) strip<S, 3>(d + i, d_stride, z + j, z_stride, n, rule, to, stride);
            else strip<S, 1>(d + i, d_stride, z + j, z_stride, n, rule, to, stride);
        }
        j += wide * L;
    }
}

}  // namespace
}  // namespace throughtime

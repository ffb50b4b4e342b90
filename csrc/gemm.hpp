// C = D + A B for tall or flat A: the only product of the library.
//
// Every element of C is one chain c <- fma(a_k, b_k, c) from d on with k rising, whatever the tile, the number of rows or
// the blocking: a row's result depends on that row alone. That is what makes outputs bit-identical in every plan.
#pragma once
#include "simd.hpp"

namespace throughtime {
namespace {

#if THROUGHTIME_BYTES == 64 || (defined(__ARM_NEON) && defined(__aarch64__))
constexpr int panel_vectors = 4, accumulators = 24;  // 32 registers
#else
constexpr int panel_vectors = 2, accumulators = 12;  // 16 registers
#endif
constexpr int tile_rows = 6;
constexpr int block_bytes = (THROUGHTIME_BYTES == 64 ? 32 : 16) * 1024;  // of a panel that stay in L1 while rows pass by

template <class S> constexpr int panel_columns = panel_vectors * lanes<S>;
template <class S> constexpr long block_steps = block_bytes / (panel_vectors * THROUGHTIME_BYTES);

TT_INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }
TT_INLINE long round_up(long a, long b) { return ceil_div(a, b) * b; }

// B packed: panels of panel_vectors vectors of columns, the last one narrower; in a panel row after row.
template <class S> struct Packed {
    S* data;
    long vectors;  // of columns
    long rows;     // K
    long panels() const { return ceil_div(vectors, panel_vectors); }
    long stride() const { return rows * panel_columns<S>; }
    int width(long panel) const {
        long left = vectors - panel * panel_vectors;
        return left < panel_vectors ? int(left) : panel_vectors;
    }
    S* at(long panel) const { return data + panel * stride(); }
};

// What C starts from: row r at data + r stride. A stride of 0 starts every row from the same one.
template <class S> struct From {
    const S* data;
    long stride;
};

// R rows by N vectors, the columns of N / W panels of W vectors each, k from 0 to K.
template <class S, int R, int N, int W>
__attribute__((noinline)) static void tile(const S* const* a, long a_step, const S* b, long b_stride, long K, From<S> d, S* c,
                                           long c_stride) {
    constexpr int L = lanes<S>;
    V<S> sum[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) sum[r][n] = load(d.data + r * d.stride + n * L);
    const S* row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = a[r];
    for (long k = 0, at = 0; k < K; ++k, at += a_step) {
        if constexpr (R <= 3) {
            V<S> left[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) left[r] = all(row[r][at]);
#pragma GCC unroll 24
            for (int n = 0; n < N; ++n) {
                V<S> right = load(b + (n / W) * b_stride + (n % W) * L);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) sum[r][n] = fma(left[r], right, sum[r][n]);
            }
        } else {
            V<S> right[N];
#pragma GCC unroll 24
            for (int n = 0; n < N; ++n) right[n] = load(b + (n / W) * b_stride + (n % W) * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                V<S> left = all(row[r][at]);
#pragma GCC unroll 24
                for (int n = 0; n < N; ++n) sum[r][n] = fma(left, right[n], sum[r][n]);
            }
        }
        b += W * L;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) store(c + r * c_stride + n * L, sum[r][n]);
}

template <class S, int N, int W>
static void rows_of_tile(int rows, const S* const* a, long a_step, const S* b, long b_stride, long K, From<S> d, S* c,
                         long c_stride) {
    switch (rows) {
        case 1: return tile<S, 1, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
        case 2: return tile<S, 2, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
        case 3: return tile<S, 3, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
        case 4: return tile<S, 4, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
        case 5: return tile<S, 5, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
        default: return tile<S, 6, N, W>(a, a_step, b, b_stride, K, d, c, c_stride);
    }
}

template <class S>
static void narrow_tile(int width, int rows, const S* const* a, long a_step, const S* b, long b_stride, long K,
                        From<S> d, S* c, long c_stride) {
    switch (width) {
        case 1: return rows_of_tile<S, 1, 1>(rows, a, a_step, b, b_stride, K, d, c, c_stride);
#if THROUGHTIME_BYTES == 64 || (defined(__ARM_NEON) && defined(__aarch64__))
        case 2: return rows_of_tile<S, 2, 2>(rows, a, a_step, b, b_stride, K, d, c, c_stride);
        case 3: return rows_of_tile<S, 3, 3>(rows, a, a_step, b, b_stride, K, d, c, c_stride);
#endif
        default: return rows_of_tile<S, panel_vectors, panel_vectors>(rows, a, a_step, b, b_stride, K, d, c, c_stride);
    }
}

// One to three rows keep few sums a panel, too few to hide the latency of a chain: several panels go side by side.
// Returns the number of panels done.
template <class S, int R, int side>
static long side_by_side(const S* const* a, long a_step, const Packed<S>& b, long panel, From<S> d, S* c, long c_stride) {
    for (long full = b.vectors / panel_vectors; panel + side <= full; panel += side)
        tile<S, R, side * panel_vectors, panel_vectors>(a, a_step, b.at(panel), b.stride(), b.rows,
                                                        {d.data + panel * panel_columns<S>, d.stride}, c + panel * panel_columns<S>, c_stride);
    return panel;
}

template <class S, int R>
static long several_panels(const S* const* a, long a_step, const Packed<S>& b, From<S> d, S* c, long c_stride) {
    long done = 0;
    if constexpr (R * 4 * panel_vectors <= accumulators) done = side_by_side<S, R, 4>(a, a_step, b, done, d, c, c_stride);
    if constexpr (R * 3 * panel_vectors <= accumulators) done = side_by_side<S, R, 3>(a, a_step, b, done, d, c, c_stride);
    return side_by_side<S, R, 2>(a, a_step, b, done, d, c, c_stride);
}

// Some panels: C (rows at c + r c_stride) = D + A (row r at a[r], steps a_step apart) B. D may be C.
template <class S>
static void gemm(const S* const* a, long a_step, long rows, const Packed<S>& b, long first_panel, long end_panel, From<S> d,
                 S* c, long c_stride) {
    long blocks = ceil_div(rows, tile_rows);
    for (long panel = first_panel; panel < end_panel; ++panel) {
        long column = panel * panel_columns<S>;
        int width = b.width(panel);
        for (long k = 0; k < b.rows || k == 0; k += block_steps<S>) {
            long K = b.rows - k < block_steps<S> ? b.rows - k : block_steps<S>;
            const S* right = b.at(panel) + k * width * lanes<S>;
            for (long block = 0; block < blocks; ++block) {
                long first = block * rows / blocks, last = (block + 1) * rows / blocks;
                const S* left[tile_rows];
                for (long r = first; r < last; ++r) left[r - first] = a[r] + k * a_step;
                From<S> start = k ? From<S>{c, c_stride} : d;
                narrow_tile<S>(width, int(last - first), left, a_step, right, 0, K, {start.data + first * start.stride + column, start.stride},
                               c + first * c_stride + column, c_stride);
            }
        }
    }
}

template <class S>
static void gemm(const S* const* a, long a_step, long rows, const Packed<S>& b, From<S> d, S* c, long c_stride) {
    if (rows == 0) return;
    long done = rows == 1   ? several_panels<S, 1>(a, a_step, b, d, c, c_stride)
                : rows == 2 ? several_panels<S, 2>(a, a_step, b, d, c, c_stride)
                : rows == 3 ? several_panels<S, 3>(a, a_step, b, d, c, c_stride)
                            : 0;
    gemm(a, a_step, rows, b, done, b.panels(), d, c, c_stride);
}

// Packs the transpose of W's rows: column q * units + n of B is row gates[q] * H + first + n of W (G H, K), a unit beyond H
// zeros. Vectors of columns from `from` to `to`, so that threads may share the work.
template <class S>
static void pack_transposed(const S* W, long H, long K, const int* gates, long first, long units, const Packed<S>& b, long from, long to) {
    constexpr int L = lanes<S>;
    long per_gate = units / L;
    for (long vector = from; vector < to; ++vector) {
        long gate = vector / per_gate, unit = first + vector % per_gate * L;
        long panel = vector / panel_vectors;
        S* out = b.at(panel) + vector % panel_vectors * L;
        long step = b.width(panel) * L;
        int real = H - unit < L ? int(H - unit) : L;
        const S* rows = W + (gates[gate] * H + unit) * K;
        for (long k = 0; k < K; ++k, out += step) {
            V<S> v{};
            if (real == L)
                for (int lane = 0; lane < L; ++lane) v[lane] = rows[lane * K + k];
            else
                for (int lane = 0; lane < real; ++lane) v[lane] = rows[lane * K + k];
            store(out, v);
        }
    }
}

// Packs W's rows as they are: row q * Hp + unit of B is row gates[q] * H + unit of W (G H, N) from column `first` on, a
// padding row zeros.
template <class S>
static void pack_rows(const S* W, long H, long N, const int* gates, int count, long first, const Packed<S>& b, long from, long to) {
    constexpr int L = lanes<S>;
    long Hp = round_up(H, L);
    for (long vector = from; vector < to; ++vector) {
        long panel = vector / panel_vectors, step = b.width(panel) * L, column = first + vector * L;
        S* out = b.at(panel) + vector % panel_vectors * L;
        int real = N - column < L ? int(N - column) : L;
        for (int gate = 0; gate < count; ++gate)
            for (long unit = 0; unit < Hp; ++unit, out += step)
                store(out, unit < H ? load_some(W + (gates[gate] * H + unit) * N + column, real) : V<S>{});
    }
}

}  // namespace
}  // namespace throughtime

// Which rows run at which step, which thread owns them, and where its memory lies.
#pragma once
#include <cstddef>

#include "gemm.hpp"
#include "kernel.hpp"

namespace throughtime {
namespace {

constexpr long hand = 4;                    // rows of unequal length are dealt to the threads by fours, where they are many

TT_INLINE long least(long a, long b) { return a < b ? a : b; }
TT_INLINE long most(long a, long b) { return a > b ? a : b; }

// Hands out parts of one block of memory; with no block it only counts.
struct Layout {
    char* base;
    size_t at;
    template <class X> X* take(long count) {
        at = (at + 63) / 64 * 64;
        X* part = base && count > 0 ? reinterpret_cast<X*>(base + at) : nullptr;  // null where nothing is wanted
        at += size_t(most(count, 0)) * sizeof(X);
        return part;
    }
};

// A stride that does not put every row in the same set of the cache.
template <class S> TT_INLINE long stride_of(long columns) { return columns * long(sizeof(S)) % 1024 ? columns : columns + 64 / long(sizeof(S)); }

template <class S> TT_INLINE void clear(S* to, long count) {
    for (long i = 0; i < count; ++i) to[i] = S(0);
}
template <class S> TT_INLINE void copy(S* to, const S* from, long count) {
    long i = 0;
    for (; i + lanes<S> <= count; i += lanes<S>) store(to + i, load(from + i));
    for (; i < count; ++i) to[i] = from[i];
}
// H units and zeros up to Hp.
template <class S> TT_INLINE void copy_padded(S* to, const S* from, long H, long Hp) {
    if (!from) return clear(to, Hp);
    copy(to, from, H);
    for (long i = H; i < Hp; ++i) to[i] = S(0);
}

// The rows sorted by length, the longest first, and where each step's rows begin when all steps stand in one line.
struct Order {
    int64_t* row;     // B: which row of the batch stands at a position
    int64_t* length;  // B, by position
    int64_t* first;   // T + 1
    int64_t* counts;  // T + 2, scratch
    bool equal;

    void lay(Layout& memory, const Sweep& it) {
        row = memory.take<int64_t>(it.B);
        length = memory.take<int64_t>(it.B);
        first = memory.take<int64_t>(it.T + 1);
        counts = memory.take<int64_t>(it.T + 2);
    }

    void fill(const Sweep& it) {
        equal = !it.lengths;
        if (equal) {
            for (int64_t b = 0; b < it.B; ++b) row[b] = b, length[b] = it.T;
            for (int64_t t = 0; t <= it.T; ++t) first[t] = t * it.B;
            return;
        }
        for (int64_t t = 0; t <= it.T + 1; ++t) counts[t] = 0;
        for (int64_t b = 0; b < it.B; ++b) ++counts[it.T - it.lengths[b] + 1];
        for (int64_t t = 1; t <= it.T + 1; ++t) counts[t] += counts[t - 1];
        // counts[T - n] rows are longer than n steps: that many run at step n.
        first[0] = 0;
        for (int64_t t = 0; t < it.T; ++t) first[t + 1] = first[t] + counts[it.T - t];
        for (int64_t b = 0; b < it.B; ++b) {
            int64_t position = counts[it.T - it.lengths[b]]++;
            row[position] = b, length[position] = it.lengths[b];
        }
    }

    int64_t running(int64_t t) const { return first[t + 1] - first[t]; }
};

TT_INLINE int64_t total_steps(const Sweep& it) {
    if (!it.lengths) return it.T * it.B;
    int64_t total = 0;
    for (int64_t b = 0; b < it.B; ++b) total += it.lengths[b];
    return total;
}

// The positions that one of `threads` threads owns, ascending.
struct Share {
    int thread, threads;
    bool equal;
    int64_t B;
    long deal() const { return B >= 2 * hand * threads ? hand : 1; }
    int64_t begin_of(int which) const { return (B * which + threads - 1) / threads; }
    int64_t count_below(int64_t positions) const {  // how many of the first positions are mine
        if (equal) return most(0, least(positions, begin_of(thread + 1)) - begin_of(thread));
        int64_t round = deal() * threads, whole = positions / round * deal(), rest = positions % round - deal() * thread;
        return whole + most(0, least(rest, deal()));
    }
    int64_t position(int64_t mine) const {
        return equal ? begin_of(thread) + mine : mine / deal() * deal() * threads + deal() * thread + mine % deal();
    }
    int64_t rows() const { return count_below(B); }
    // The first thread has the only row: it walks alone, and the others do what it need not wait for.
    bool alone() const { return B == 1 && threads > 1; }
};

}  // namespace
}  // namespace throughtime

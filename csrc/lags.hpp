// All windows of BPTT(h; 1) over a stretch of time at once: the twin of src/throughtime/credit/lag.py for one layer.
//
//     G_1 = e,    G_{k+1}[t] = e_t + gamma (W_h^T B_{t+1} + P_{t+1}) G_k[t+1]        B, P diagonal, of each slot
//
// G_k is overwritten by G_{k+1} from the first step to the last, a block of rows at a time: step t asks for t+1 alone.
// Threads divide the rows (time and streams in one line) and save what they need of the next one's before it changes.
#pragma once
#include "gemm.hpp"
#include "kernel.hpp"
#include "pool.hpp"
#include "rows.hpp"
#include "threads.hpp"

namespace throughtime {
namespace {

constexpr long lag_rows = 48;  // of a block: its deltas stay in L1

template <class S> struct LagSweep {
    static constexpr int L = lanes<S>;
    const Lags& it;
    long H, Hp, B, N;

    struct Room {
        S* ahead[2];  // G_k of the first B rows of the next thread
        S *d, *back;  // [lag_rows][d_stride], [lag_rows][h_stride]
        const S** rows;
        long d_stride, h_stride;
    };

    Room lay(Layout& memory) const {
        Room mine;
        for (S*& slot : mine.ahead) slot = memory.take<S>(B * H);
        mine.d_stride = stride_of<S>(it.G * Hp), mine.h_stride = stride_of<S>(Hp);
        mine.d = memory.take<S>(lag_rows * mine.d_stride);
        mine.back = memory.take<S>(lag_rows * mine.h_stride);
        mine.rows = memory.take<const S*>(lag_rows);
        return mine;
    }

    S* G(int slot, long row) const { return static_cast<S*>(it.out[slot]) + row * H; }
    const S* factor(const void* all, long row, long width) const { return static_cast<const S*>(all) + row * width; }

    // to (+)= a b
    static void multiply(S* to, const S* a, const S* b, long count, bool add) {
        long i = 0;
        if (add) {
            for (; i + L <= count; i += L) store(to + i, fma(load(a + i), load(b + i), load(to + i)));
            for (; i < count; ++i) to[i] += a[i] * b[i];
        } else {
            for (; i + L <= count; i += L) store(to + i, load(a + i) * load(b + i));
            for (; i < count; ++i) to[i] = a[i] * b[i];
        }
    }

    // G_{k+1} of the rows from `from` to `until`, which asks for G_k of those B further on; `own` are those of this thread.
    void block(const Room& mine, const Packed<S>& W_h, long from, long until, long own) const {
        auto ahead = [&](int slot, long row) { return row < own ? G(slot, row) : mine.ahead[slot] + (row - own) * H; };
        const S* e = static_cast<const S*>(it.errors);
        bool straight = it.S == 1 && !it.ds[0][0] && it.gamma == 1 && H == Hp;  // the product is all that is added to e
        for (long n = from; n < until; ++n) {
            long r = n - from, m = n + B;
            S* d = mine.d + r * mine.d_stride;
            mine.rows[r] = d;
            for (long gate = 0; gate < it.G; ++gate)
                for (int slot = 0; slot < it.S; ++slot)
                    multiply(d + gate * Hp, factor(it.dv[slot], m, it.G * H) + gate * H, ahead(slot, m), H, slot > 0);
            if (!straight) pointwise(mine.back + r * mine.h_stride, 0, m, ahead);
        }
        if (straight) gemm(mine.rows, 1, until - from, W_h, {e + from * H, H}, G(0, from), H);
        else gemm(mine.rows, 1, until - from, W_h, {mine.back, mine.h_stride}, mine.back, mine.h_stride);
        for (long n = from; n < until; ++n) {
            bool restarts = it.reset && it.reset[n + B];
            const S* back = mine.back + (n - from) * mine.h_stride;
            S gamma = S(it.gamma);
            if (it.S > 1) second(mine, n, restarts, ahead);
            S* to = G(0, n);
            if (restarts) copy(to, e + n * H, H);
            else if (!straight)
                for (long i = 0; i < H; ++i) to[i] = e[n * H + i] + gamma * back[i];
        }
    }

    // sum over the slots of P, from each slot after the step, to `index` before it
    template <class Ahead> void pointwise(S* to, int index, long m, const Ahead& ahead) const {
        bool any = false;
        for (int slot = 0; slot < it.S; ++slot)
            if (it.ds[index][slot]) {
                multiply(to, factor(it.ds[index][slot], m, H), ahead(slot, m), H, any);
                any = true;
            }
        if (!any) clear(to, H);
    }

    // The second slot, of which no product is made. Row n itself is not asked for any more.
    template <class Ahead> void second(const Room& mine, long n, bool restarts, const Ahead& ahead) const {
        S* to = G(1, n);
        if (restarts) return clear(to, H);
        pointwise(mine.d, 1, n + B, ahead);
        for (long i = 0; i < H; ++i) to[i] = S(it.gamma) * mine.d[i];
    }

    static void run(const Lags& it) {
        LagSweep sweep{it, it.H, round_up(it.H, L), it.B, it.T * it.B};
        double products = double(sweep.N) * it.G * it.H * it.H;
        int threads = products < 500e3 ? 1 : it.threads;
        Layout count{nullptr, 0};
        count.take<S>(it.G * sweep.Hp * sweep.Hp);
        for (int thread = 0; thread < threads; ++thread) sweep.lay(count);
        Block memory(count.at + 64);
        Layout layout{static_cast<char*>(memory.data()), 0};
        Packed<S> W_h{layout.take<S>(it.G * sweep.Hp * sweep.Hp), sweep.Hp / L, it.G * sweep.Hp};
        const int in_order[] = {0, 1, 2, 3};
        pack_rows<S>(static_cast<const S*>(it.W_h), it.H, it.H, in_order, int(it.G), 0, W_h, 0, W_h.vectors);
        for (int slot = 0; slot < it.S; ++slot)
            if (slot) clear(sweep.G(slot, 0), sweep.N * it.H);
            else copy(sweep.G(0, 0), static_cast<const S*>(it.errors), sweep.N * it.H);
        parallel(threads, [&](int thread, int granted) {
            Layout own = layout;
            Room mine{};
            for (int which = 0; which <= thread; ++which) mine = sweep.lay(own);
            clear(mine.d, lag_rows * mine.d_stride);  // what fills up the units stays 0
            sweep.walk(mine, W_h, thread, granted);
        });
    }

    void walk(const Room& mine, const Packed<S>& W_h, int thread, int threads) const {
        for (long k = 1; k < it.h; ++k) {
            long first = most(0, it.T - it.fresh - k) * B, rows = N - B - first;  // before `first` all is 0
            long from = first + rows * thread / threads, until = first + rows * (thread + 1) / threads;
            for (int slot = 0; slot < it.S; ++slot) copy(mine.ahead[slot], G(slot, until), B * H);
            barrier(threads);
            for (long n = from; n < until; n += lag_rows) block(mine, W_h, n, least(until, n + lag_rows), until);
            barrier(threads);
        }
    }
};

}  // namespace
}  // namespace throughtime

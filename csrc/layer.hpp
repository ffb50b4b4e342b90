// What forward and backward share: one layer in one direction, its weights packed, and the parts that threads have in it.
//
// A part is some rows of the batch, and some units of each. In most plans a thread has all units of its own rows and
// walks through time alone. Where rows are few and W is large, every thread has its own units of all rows instead, so
// that each reads only its part of W; then they wait for each other at every step.
//
// Rows are sorted by length, so those still running are the first of every part. Gates of a row stand one after
// another: in what is shared Hp units each (H rounded up to whole vectors), in pre-activations the units of the part.
#pragma once
#include <cstddef>

#include "gemm.hpp"
#include "kernel.hpp"
#include "pool.hpp"
#include "rows.hpp"
#include "threads.hpp"

namespace throughtime {
namespace {

constexpr long small_work = 200 * 1000;  // products below which a second thread costs more than it brings

// Rows of D that one chunk of the backward pass makes, about: few save memory, many read a large dW more seldom.
TT_INLINE long chunk_rows(const Sweep& it) { return it.H > 256 ? 256 : 128; }
TT_INLINE long chunk_steps(const Sweep& it) { return least(most(1, chunk_rows(it) / most(it.B, 1)), most(it.T, 1)); }

template <class S> struct Part {
    Share share;         // its rows
    long first, units;   // its units: whole vectors
    long real;           // those that are not padding
    long pre_stride;     // of a row of pre-activations
    Packed<S> W_h, W_x;  // transposed, its columns only, for products from the left
    S* bias;             // Cell::rows rows of `units`
    int thread, together;  // of the threads that have units of the same rows
};

template <class S, template <class> class CellOf> struct Layer {
    using Cell = CellOf<S>;
    static constexpr int L = lanes<S>;
    static constexpr long line = 64 / long(sizeof(S));  // units of one cache line, which no two threads should write

    const Sweep& it;
    long H, Hp, I;
    long d_stride, h_stride;  // of a row of deltas, of a row of units
    long chunk;               // steps of a backward chunk
    bool divided;             // units, not rows, are dealt to the threads
    S* W_h;                   // room for packed weights
    S* W_x;
    S* zeros;  // as long as any row of a product that starts from nothing, or of states
    Meeting meeting;
    Order order;

    Layer(const Sweep& sweep, bool back) : it(sweep), H(sweep.H), Hp(round_up(sweep.H, L)), I(sweep.I) {
        d_stride = stride_of<S>(Cell::rows * Hp);
        h_stride = stride_of<S>(Hp);
        chunk = chunk_steps(sweep);
        divided = divides(sweep, back);
    }

    // ------------------------------------------------------------------ plans

    static int threads_for(const Sweep& it) {
        double products = double(total_steps(it)) * Cell::gates * it.H * (it.H + it.I);
        return products < small_work ? 1 : it.threads;
    }

    // Whether threads divide the units: each then reads only its part of W_h, and waits for the others at every step.
    // That pays where W_h is larger than the caches of a core, or rows are few and reading it takes longer than the wait;
    // the wider the vectors, the faster it is read. Going back, the others have dW to sum where one thread walks alone.
    static bool divides(const Sweep& it, bool back) {
        constexpr bool wide = THROUGHTIME_BYTES == 64;
        double bytes = double(Cell::gates) * it.H * it.H * sizeof(S), wait = 4, bytes_per_ns = 20;
        double one = !wide ? 40e3 : back ? 300e3 : 150e3, few = wide ? 2 * one : 200e3, many = 2.5e6;
        double enough = it.B == 1 ? one : it.B <= 2 * it.threads ? few : many;
        return bytes > enough && threads_for(it) > 1 && bytes / 2 / bytes_per_ns > wait * recent_latency();
    }
    bool by_units(int threads) const { return divided && threads > 1 && Hp / line >= threads; }

    // What the threads do forward, if all of them are granted.
    static const char* plan(const Sweep& it) {
        int threads = threads_for(it);
        if (threads == 1) return "only one needed";
        if (Layer(it, false).by_units(threads)) return "each with units of its own in every row";
        return it.B == 1 ? "one walks, the others project inputs and sum dW" : "each with rows of its own";
    }

    Part<S> part_of(int thread, int threads) const {
        Part<S> part{};
        bool apart = by_units(threads);
        auto begin_of = [&](int which) { return which < threads ? Hp * which / threads / line * line : Hp; };
        part.thread = apart ? thread : 0, part.together = apart ? threads : 1;
        part.share = apart ? Share{0, 1, !it.lengths, it.B} : Share{thread, threads, !it.lengths, it.B};
        part.first = apart ? begin_of(thread) : 0;
        part.units = (apart ? begin_of(thread + 1) : Hp) - part.first;
        part.real = most(0, least(H - part.first, part.units));
        part.pre_stride = stride_of<S>(Cell::rows * part.units);
        part.W_h = {W_h ? W_h + Cell::gates * part.first * H : nullptr, Cell::gates * part.units / L, H};
        part.W_x = {W_x ? W_x + Cell::gates * part.first * I : nullptr, Cell::gates * part.units / L, I};
        return part;
    }

    // Bytes that the threads need at most, however many of them are granted.
    template <class Lay> size_t most_memory(int threads, const Lay& lay) const {
        size_t bytes = 0;
        for (int of = 1; of <= threads; ++of) {
            Layout count{nullptr, 0};
            for (int which = 0; which < of; ++which) {
                Part<S> part = part_of(which, of);
                lay(count, part);
            }
            bytes = count.at > bytes ? count.at : bytes;
        }
        return bytes + 64;
    }

    // ------------------------------------------------------------------ weights and inputs

    void lay(Layout& memory) {
        order.lay(memory, it);
        W_h = memory.take<S>(Cell::gates * Hp * H);
        W_x = memory.take<S>(Cell::gates * Hp * I);
        zeros = memory.take<S>(zeros_count());
        meeting.counts = memory.take<uint32_t>(it.threads * Meeting::line);
    }
    long zeros_count() const { return most(most(round_up(I, L), panel_columns<S>), Hp); }

    void fill() {
        order.fill(it);
        clear(zeros, zeros_count());
        for (int i = 0; i < it.threads * Meeting::line; ++i) meeting.counts[i] = 0;
    }

    // The threads that have units of the same rows wait for each other.
    void meet(const Part<S>& part) const { meeting.meet(part.thread, part.together); }

    void pack(const Part<S>& part) const {
        const Share& share = part.share;
        auto mine = [&](long vectors, int which) { return vectors * which / share.threads; };
        pack_transposed<S>(static_cast<const S*>(it.W_h), H, H, Cell::recurrent, part.first, part.units, part.W_h,
                           mine(part.W_h.vectors, share.thread), mine(part.W_h.vectors, share.thread + 1));
        pack_transposed<S>(static_cast<const S*>(it.W_x), H, I, Cell::input, part.first, part.units, part.W_x,
                           mine(part.W_x.vectors, share.thread), mine(part.W_x.vectors, share.thread + 1));
        clear(part.bias, Cell::rows * part.units);
        add_bias(part, it.b_x, Cell::input, Cell::input_row);
        add_bias(part, it.b_h, Cell::recurrent, 0);
    }

    void add_bias(const Part<S>& part, const void* from, const int* gates, int row) const {
        if (!from) return;
        for (int gate = 0; gate < Cell::gates; ++gate)
            for (long unit = 0; unit < part.real; ++unit)
                part.bias[(row + gate) * part.units + unit] += static_cast<const S*>(from)[gates[gate] * H + part.first + unit];
    }

    const S* x_at(int64_t t, int64_t b) const { return static_cast<const S*>(it.x) + t * it.x_t + b * it.x_b; }
    S* y_at(int64_t t, int64_t b) const { return static_cast<S*>(it.y) + t * it.y_t + b * it.y_b; }
    bool restarts(int64_t t, int64_t b) const { return it.reset && it.reset[t * it.B + b]; }
    const S* start(int slot, int64_t b) const { return static_cast<const S*>(it.s0[slot]) + b * H; }

    // pre <- bias + W_x x for the rows of this part that run in the steps from t0 to t1. Returns their number.
    long project(const Part<S>& part, int64_t t0, int64_t t1, S* pre, const S** pointers) const {
        long count = 0;
        for (int64_t t = t0; t < t1; ++t) {
            long running = part.share.count_below(order.running(t));
            for (long r = 0; r < running; ++r, ++count) {
                int64_t b = order.row[part.share.position(r)];
                S* row = pre + count * part.pre_stride;
                if (Cell::input_row) copy(row, part.bias, Cell::input_row * part.units);
                if (it.ids)
                    add_column(part, row, it.ids[t * it.ids_t + b * it.ids_b]);
                else
                    pointers[count] = x_at(t, b);
            }
        }
        long at = Cell::input_row * part.units;
        if (!it.ids) gemm(pointers, it.x_i, count, part.W_x, {part.bias + at, 0}, pre + at, part.pre_stride);
        return count;
    }

    // The product with a one-hot row: a column of W_x.
    static void add_column(const Part<S>& part, S* pre, int64_t id) {
        const S* start = part.bias + Cell::input_row * part.units;
        S* to = pre + Cell::input_row * part.units;
        for (long panel = 0; panel < part.W_x.panels(); ++panel) {
            int vectors = part.W_x.width(panel);
            const S* from = part.W_x.at(panel) + id * vectors * L;
            long at = panel * panel_columns<S>;
            for (int v = 0; v < vectors; ++v) store(to + at + v * L, load(start + at + v * L) + load(from + v * L));
        }
    }

    // What the forward pass keeps: gates by running line, or c at the start of every segment.
    S* gates_at(int64_t line) const { return static_cast<S*>(it.kept) + line * Cell::kept * Hp; }
    S* segment_at(int64_t segment, int64_t position) const { return static_cast<S*>(it.kept) + (segment * it.B + position) * Hp; }

    static size_t kept_bytes(const Sweep& it) {
        size_t Hp = size_t(round_up(it.H, L));
        if (it.keep == Keep::gates) return size_t(total_steps(it)) * Cell::kept * Hp * sizeof(S);
        if (it.keep == Keep::states && Cell::slots > 1) return size_t(ceil_div(it.T, chunk_steps(it)) * it.B) * Hp * sizeof(S);
        return 0;
    }
};

}  // namespace
}  // namespace throughtime

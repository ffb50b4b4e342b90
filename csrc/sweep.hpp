// Forward and backward over time for one layer in one direction: the twin of src/throughtime/sweep.py.
//
// Rows of the batch are dealt to the threads, and each thread walks through time alone. Rows are sorted by length,
// so those still running are the first of every thread. Gates of a row stand one after another, Hp units each: H
// rounded up to whole vectors. W_x and W_h are packed once a call.
//
// Backward goes by chunks of steps. In a chunk each thread carries delta back through its rows and leaves the deltas
// of the gates and what they are multiplied with; after a barrier dW is made of these, divided by tiles of dW and
// summed in an order that knows nothing of threads.
#pragma once
#include <cstddef>

#include "cells/ctrnn.hpp"
#include "cells/elman.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "gemm.hpp"
#include "kernel.hpp"
#include "pool.hpp"
#include "rows.hpp"
#include "threads.hpp"

namespace throughtime {
namespace {

constexpr long chunk_rows = 512;            // rows of D that one chunk of the backward pass makes, about
constexpr long forward_bytes = 256 * 1024;   // of pre-activations that a thread projects ahead
constexpr long small_work = 200 * 1000;     // products below which a second thread costs more than it brings
constexpr long strip_width = 16;           // units of one gate that a thread makes dW of at a time

TT_INLINE long chunk_steps(const Sweep& it) { return least(most(1, chunk_rows / most(it.B, 1)), most(it.T, 1)); }

template <class S, template <class> class CellOf> struct Engine {
    using Cell = CellOf<S>;
    static constexpr int L = lanes<S>;

    const Sweep& it;
    long H, Hp, I;
    long width;       // of a row of pre-activations or deltas
    long pre_stride, h_stride;
    long chunk;       // steps of a backward chunk
    Packed<S> W_h, W_x;  // transposed, for products from the left
    S* bias;             // Cell::rows rows of Hp
    S* zeros;            // as long as any row of a product that starts from nothing
    Order order;

    explicit Engine(const Sweep& sweep) : it(sweep), H(sweep.H), Hp(round_up(sweep.H, L)), I(sweep.I) {
        width = Cell::rows * Hp;
        pre_stride = stride_of<S>(width);
        h_stride = stride_of<S>(Hp);
        chunk = chunk_steps(sweep);
        W_h = {nullptr, Cell::gates * Hp / L, H};
        W_x = {nullptr, Cell::gates * Hp / L, I};
    }

    static int threads_for(const Sweep& it) {
        double products = double(total_steps(it)) * Cell::gates * it.H * (it.H + it.I);
        return products < small_work ? 1 : it.threads;
    }

    // ------------------------------------------------------------------ what is shared by both directions

    void lay_weights(Layout& memory) {
        order.lay(memory, it);
        W_h.data = memory.take<S>(Cell::gates * Hp * H);
        W_x.data = memory.take<S>(Cell::gates * Hp * I);
        bias = memory.take<S>(width);
        zeros = memory.take<S>(most(round_up(I, L), panel_columns<S>));
    }

    void pack_weights(const Share& share) const {
        auto part = [&](long vectors, int which) { return vectors * which / share.threads; };
        pack_transposed<S>(static_cast<const S*>(it.W_h), H, H, Cell::recurrent, W_h, part(W_h.vectors, share.thread),
                           part(W_h.vectors, share.thread + 1));
        pack_transposed<S>(static_cast<const S*>(it.W_x), H, I, Cell::input, W_x, part(W_x.vectors, share.thread),
                           part(W_x.vectors, share.thread + 1));
    }

    void fill_bias() const {
        clear(bias, width);
        clear(zeros, most(round_up(I, L), panel_columns<S>));
        auto add = [&](const void* from, const int* gates, int row) {
            if (!from) return;
            for (int gate = 0; gate < Cell::gates; ++gate)
                for (long unit = 0; unit < H; ++unit)
                    bias[(row + gate) * Hp + unit] += static_cast<const S*>(from)[gates[gate] * H + unit];
        };
        add(it.b_x, Cell::input, Cell::input_row);
        add(it.b_h, Cell::recurrent, 0);
    }

    const S* x_at(int64_t t, int64_t b) const { return static_cast<const S*>(it.x) + t * it.x_t + b * it.x_b; }
    S* y_at(int64_t t, int64_t b) const { return static_cast<S*>(it.y) + t * it.y_t + b * it.y_b; }
    bool restarts(int64_t t, int64_t b) const { return it.reset && it.reset[t * it.B + b]; }
    const S* start(int slot, int64_t b) const { return static_cast<const S*>(it.s0[slot]) + b * H; }

    // The step before t of row b: H numbers, or null for zeros.
    const S* h_before(int64_t t, int64_t b) const {
        if (restarts(t, b)) return nullptr;
        return t ? y_at(t - 1, b) : start(0, b);
    }

    // pre <- bias + W_x x for the rows of this thread that run in the steps from t0 to t1. Returns their number.
    long project(const Share& share, int64_t t0, int64_t t1, S* pre, const S** pointers) const {
        long count = 0;
        for (int64_t t = t0; t < t1; ++t) {
            long running = share.count_below(order.running(t));
            for (long r = 0; r < running; ++r, ++count) {
                int64_t b = order.row[share.position(r)];
                S* row = pre + count * pre_stride;
                if (Cell::input_row) copy(row, bias, Cell::input_row * Hp);
                if (it.ids)
                    add_column(row, it.ids[t * it.ids_t + b * it.ids_b]);
                else
                    pointers[count] = x_at(t, b);
            }
        }
        constexpr int first = Cell::input_row;
        if (!it.ids) gemm(pointers, it.x_i, count, W_x, {bias + first * Hp, 0}, pre + first * Hp, pre_stride);
        return count;
    }

    // The product with a one-hot row: a column of W_x.
    void add_column(S* pre, int64_t id) const {
        const S* start = bias + Cell::input_row * Hp;
        S* to = pre + Cell::input_row * Hp;
        for (long panel = 0; panel < W_x.panels(); ++panel) {
            int vectors = W_x.width(panel);
            const S* from = W_x.at(panel) + id * vectors * L;
            long at = panel * panel_columns<S>;
            for (int v = 0; v < vectors; ++v) store(to + at + v * L, load(start + at + v * L) + load(from + v * L));
        }
    }

    // ------------------------------------------------------------------ forward

    struct Forward {
        S *pre[2], *h, *c;
        const S **pointers, **rows;
        long steps;  // projected ahead
    };

    Forward lay_forward(Layout& memory, const Share& share) const {
        long capacity = most(1, share.rows());
        Forward mine;
        mine.steps = most(1, least(it.T, forward_bytes / long(sizeof(S)) / (pre_stride * capacity)));
        for (S*& pre : mine.pre) pre = memory.take<S>(mine.steps * capacity * pre_stride);
        mine.h = memory.take<S>(capacity * h_stride);
        mine.c = memory.take<S>(Cell::slots > 1 ? capacity * h_stride : 0);
        mine.pointers = memory.take<const S*>(mine.steps * capacity);
        mine.rows = memory.take<const S*>(capacity);
        return mine;
    }

    S* gates_at(int64_t line) const { return static_cast<S*>(it.kept) + line * Cell::kept * Hp; }
    S* segment_at(int64_t segment, int64_t position) const { return static_cast<S*>(it.kept) + (segment * it.B + position) * Hp; }

    void walk(const Share& share, const Forward& mine, const Forward& first) const {
        long count = share.count_below(it.B);
        for (long r = 0; r < count; ++r) {
            int64_t b = order.row[share.position(r)];
            mine.rows[r] = mine.h + r * h_stride;
            copy_padded(mine.h + r * h_stride, start(0, b), H, Hp);
            if (Cell::slots > 1) copy_padded(mine.c + r * h_stride, start(1, b), H, Hp);
        }
        if (share.alone()) walk_alone(share, first);
        else
            for (int64_t t0 = 0; t0 < it.T; t0 += mine.steps) {
                int64_t t1 = least(it.T, t0 + mine.steps);
                project(share, t0, t1, mine.pre[0], mine.pointers);
                walk_steps(share, mine, t0, t1, mine.pre[0]);
            }
        for (long r = 0; r < count; ++r) finish(share.position(r), mine, r);
    }

    // One row: the second thread projects the steps that the first one walks after them.
    void walk_alone(const Share& share, const Forward& first) const {
        Share owner = share;
        owner.thread = 0;
        for (int64_t piece = 0, pieces = ceil_div(it.T, first.steps); piece <= pieces; ++piece) {
            int64_t t0 = piece * first.steps;
            if (share.thread == 1 && piece < pieces)
                project(owner, t0, least(it.T, t0 + first.steps), first.pre[piece % 2], first.pointers);
            if (share.thread == 0 && piece > 0) walk_steps(owner, first, t0 - first.steps, least(it.T, t0), first.pre[(piece - 1) % 2]);
            barrier(share.threads);
        }
    }

    void walk_steps(const Share& share, const Forward& mine, int64_t t0, int64_t t1, S* pre) const {
        for (int64_t t = t0; t < t1; ++t) {
            long running = share.count_below(order.running(t));
            step(share, mine, t, running, pre);
            pre += running * pre_stride;
        }
    }

    void step(const Share& share, const Forward& mine, int64_t t, long running, S* pre) const {
        if (it.reset)
            for (long r = 0; r < running; ++r)
                if (restarts(t, order.row[share.position(r)])) {
                    clear(mine.h + r * h_stride, Hp);
                    if (Cell::slots > 1) clear(mine.c + r * h_stride, Hp);
                }
        if (Cell::slots > 1 && it.keep == Keep::states && t % chunk == 0)
            for (long r = 0; r < running; ++r) copy(segment_at(t / chunk, share.position(r)), mine.c + r * h_stride, Hp);
        gemm(mine.rows, 1, running, W_h, {pre, pre_stride}, pre, pre_stride);
        for (long r = 0; r < running; ++r) {
            int64_t position = share.position(r);
            S* h = mine.h + r * h_stride;
            S* kept = Cell::kept && it.keep == Keep::gates ? gates_at(order.first[t] + position) : nullptr;
            Cell::forward(it, Hp, pre + r * pre_stride, h, mine.c + r * h_stride, kept);
            copy(y_at(t, order.row[position]), h, H);
        }
    }

    void finish(int64_t position, const Forward& mine, long r) const {
        int64_t b = order.row[position];
        for (int64_t t = order.length[position]; t < it.T; ++t) clear(y_at(t, b), H);
        if (it.last[0]) copy(static_cast<S*>(it.last[0]) + b * H, mine.h + r * h_stride, H);
        if (Cell::slots > 1 && it.last[1]) copy(static_cast<S*>(it.last[1]) + b * H, mine.c + r * h_stride, H);
    }

    static void forward(const Sweep& it) {
        Engine engine(it);
        int threads = threads_for(it);
        bool equal = !it.lengths;
        Layout count{nullptr, 0};
        engine.lay_weights(count);
        Block block(count.at + engine.most_memory(threads, [&](Layout& memory, const Share& share) {
            engine.lay_forward(memory, share);
        }));
        Layout memory{static_cast<char*>(block.data()), 0};
        engine.lay_weights(memory);
        engine.order.fill(it);
        parallel(threads, [&](int thread, int granted) {
            Share share{thread, granted, equal, it.B};
            Layout own = memory;
            Forward first = engine.lay_forward(own, Share{0, granted, equal, it.B}), mine = first;
            for (int which = 1; which <= thread; ++which) mine = engine.lay_forward(own, Share{which, granted, equal, it.B});
            engine.pack_weights(share);
            if (thread == 0) engine.fill_bias();
            barrier(granted);
            engine.walk(share, mine, first);
        });
    }

    // ------------------------------------------------------------------ backward

    struct Piece {  // what the steps from t0 to t1 hand to dW
        S* d;                 // [rows][pre_stride]
        Packed<S> before, x;  // h_{t-1} and x of the same rows
        long rows;
        int64_t t0, t1;
    };

    struct Backward {
        S *dh, *dc, *h, *before, *c_before;  // padded rows
        S *kept, *pre, *zero_row;            // of a chunk, where gates are rebuilt
        S *dx, *strip, *sum, *tile;
        const S **pointers, **rows;
    };

    struct Shared {
        Piece pieces[2];  // one may still be read by a slower thread while the other one is written
        Packed<S> W_h, W_x;  // as they are: for products with W transposed
    };

    bool rebuilds() const { return Cell::kept && it.keep == Keep::states; }

    Shared lay_shared(Layout& memory, const Gradients& to) const {
        Shared all;
        long rows = chunk * it.B;
        for (Piece& part : all.pieces) {
            part.d = memory.take<S>(rows * pre_stride);
            part.before = {memory.take<S>(rows * Hp), Hp / L, rows};
            part.x = {memory.take<S>(it.ids || !to.dW_x ? 0 : rows * round_up(I, L)), ceil_div(I, L), rows};
        }
        all.W_h = {memory.take<S>(Cell::gates * Hp * Hp), Hp / L, Cell::gates * Hp};
        all.W_x = {memory.take<S>(to.dx ? Cell::gates * Hp * round_up(I, L) : 0), ceil_div(I, L), Cell::gates * Hp};
        return all;
    }

    Backward lay_backward(Layout& memory, const Share& share, const Gradients& to) const {
        long capacity = most(1, share.rows()), rows = chunk * capacity;
        Backward mine;
        mine.dh = memory.take<S>(capacity * h_stride);
        mine.dc = memory.take<S>(Cell::slots > 1 ? capacity * h_stride : 0);
        mine.h = memory.take<S>(Hp);
        mine.before = memory.take<S>(Hp);
        mine.c_before = memory.take<S>(Hp);
        mine.kept = memory.take<S>(rebuilds() ? rows * Cell::kept * Hp : 0);
        mine.pre = memory.take<S>(rebuilds() ? rows * pre_stride : 0);
        mine.zero_row = memory.take<S>(rebuilds() ? Hp : 0);
        mine.dx = memory.take<S>(to.dx ? tile_rows * round_up(I, L) : 0);
        mine.strip = memory.take<S>(chunk * it.B * strip_width);
        mine.sum = memory.take<S>(strip_width);
        mine.tile = memory.take<S>(strip_width * panel_columns<S>);
        mine.pointers = memory.take<const S*>(rows);
        mine.rows = memory.take<const S*>(capacity);
        return mine;
    }

    Piece piece_of(const Shared& all, int64_t index) const {
        Piece piece = all.pieces[index % 2];
        piece.t0 = index * chunk, piece.t1 = least(it.T, piece.t0 + chunk);
        piece.rows = piece.before.rows = piece.x.rows = order.first[piece.t1] - order.first[piece.t0];
        return piece;
    }

    void pack_for_backward(const Share& share, const Shared& all, const Gradients& to) const {
        auto part = [&](long vectors, int which) { return vectors * which / share.threads; };
        pack_rows<S>(static_cast<const S*>(it.W_h), H, H, Cell::recurrent, Cell::gates, all.W_h,
                     part(all.W_h.vectors, share.thread), part(all.W_h.vectors, share.thread + 1));
        if (to.dx)
            pack_rows<S>(static_cast<const S*>(it.W_x), H, I, Cell::input, Cell::gates, all.W_x,
                         part(all.W_x.vectors, share.thread), part(all.W_x.vectors, share.thread + 1));
        if (rebuilds()) pack_weights(share);
        if (share.thread == 0) fill_bias();
    }

    // What the forward pass would have kept of the steps from t0 to t1: one product for all of them, then the cells.
    void rebuild(const Share& share, const Backward& mine, int64_t t0, int64_t t1) const {
        long count = project(share, t0, t1, mine.pre, mine.pointers), line = 0;
        clear(mine.zero_row, Hp);
        for (int64_t t = t0; t < t1; ++t)
            for (long r = 0, running = share.count_below(order.running(t)); r < running; ++r, ++line) {
                const S* h = h_before(t, order.row[share.position(r)]);
                mine.pointers[line] = h ? h : mine.zero_row;
            }
        gemm(mine.pointers, 1, count, W_h, {mine.pre, pre_stride}, mine.pre, pre_stride);
        line = 0;
        for (int64_t t = t0; t < t1; ++t)
            for (long r = 0, running = share.count_below(order.running(t)), before = share.count_below(order.running(t - (t > t0)));
                 r < running; ++r, ++line) {
                int64_t position = share.position(r);
                if (Cell::slots > 1) {
                    const S* c = t > t0 ? mine.kept + ((line - before) * Cell::kept + Cell::kept - 1) * Hp
                                        : segment_at(t0 / chunk, position);
                    if (restarts(t, order.row[position])) clear(mine.c_before, Hp);
                    else copy(mine.c_before, c, Hp);
                }
                clear(mine.before, Hp);  // h is known already; what the cell makes of this one is not read
                Cell::forward(it, Hp, mine.pre + line * pre_stride, mine.before, mine.c_before, mine.kept + line * Cell::kept * Hp);
            }
    }

    // Carry delta from step t1 - 1 to t0 for the rows of this thread.
    void carry(const Share& share, const Backward& mine, const Shared& all, const Piece& part, const Gradients& to) const {
        int64_t t0 = part.t0, t1 = part.t1;
        if (rebuilds()) rebuild(share, mine, t0, t1);
        long line = 0;
        if (rebuilds())
            for (int64_t t = t0; t < t1; ++t) line += share.count_below(order.running(t));
        for (int64_t t = t1; t-- > t0;) {
            long running = share.count_below(order.running(t)), first = order.first[t] - order.first[t0];
            line -= running;
            for (long r = 0; r < running; ++r) {
                int64_t position = share.position(r), b = order.row[position];
                long row = first + position;
                S* d = part.d + row * pre_stride;
                S* dh = mine.dh + r * h_stride;
                if (to.dy) add_error(dh, to, t, b);
                const S* before = h_before(t, b);
                place(part.before, row, before, 1, H);
                if (part.x.data) place(part.x, row, x_at(t, b), it.x_i, I);
                const S* h = Cell::reads_h ? padded(mine.h, y_at(t, b)) : nullptr;
                const S* h0 = Cell::reads_before ? padded(mine.before, before) : nullptr;
                const S* kept = !Cell::kept ? nullptr
                                : rebuilds() ? mine.kept + (line + r) * Cell::kept * Hp
                                             : gates_at(order.first[t] + position);
                const S* c0 = Cell::slots > 1 ? c_before(share, mine, t, t0, line + r, position) : nullptr;
                Cell::backward(it, Hp, kept, h, h0, c0, dh, mine.dc + r * h_stride, d);
                if (H != Hp)  // 0 * Inf in what fills up the vectors must not become a delta
                    for (int gate = 0; gate < Cell::rows; ++gate) clear(d + gate * Hp + H, Hp - H);
                mine.rows[r] = d;
            }
            gemm(mine.rows, 1, running, all.W_h, {mine.dh, h_stride}, mine.dh, h_stride);
            if (to.dx) input_errors(share, mine, all, to, t, running);
            if (it.reset)
                for (long r = 0; r < running; ++r)
                    if (restarts(t, order.row[share.position(r)])) {
                        clear(mine.dh + r * h_stride, Hp);
                        if (Cell::slots > 1) clear(mine.dc + r * h_stride, Hp);
                    }
        }
    }

    const S* padded(S* room, const S* row) const {
        if (row && H == Hp) return row;
        copy_padded(room, row, H, Hp);
        return room;
    }

    const S* c_before(const Share& share, const Backward& mine, int64_t t, int64_t t0, long line, int64_t position) const {
        int64_t b = order.row[position];
        if (restarts(t, b)) {
            clear(mine.c_before, Hp);
            return mine.c_before;
        }
        if (t == 0) return padded(mine.c_before, start(1, b));
        if (it.keep == Keep::gates) return gates_at(order.first[t - 1] + position) + 4 * Hp;
        if (t == t0) return segment_at(t0 / chunk, position);
        return mine.kept + ((line - share.count_below(order.running(t - 1))) * Cell::kept + 4) * Hp;
    }

    void add_error(S* dh, const Gradients& to, int64_t t, int64_t b) const {
        const S* dy = static_cast<const S*>(to.dy) + t * to.dy_t + b * to.dy_b;
        long j = 0;
        if (to.dy_i == 0)
            for (V<S> one = all<S>(*dy); j + L <= H; j += L) store(dh + j, load(dh + j) + one);
        else
            for (; j + L <= H; j += L) store(dh + j, load(dh + j) + load(dy + j));
        for (; j < H; ++j) dh[j] += dy[j * to.dy_i];
    }

    // One row of a packed matrix; null for zeros.
    static void place(const Packed<S>& b, long row, const S* from, long step, long count) {
        S* to = b.data + row * panel_columns<S>;
        long column = 0;
        if (from && step == 1)
            for (; column + panel_columns<S> <= count; column += panel_columns<S>, to += b.stride())
                for (int v = 0; v < panel_vectors; ++v) store(to + v * L, load(from + column + v * L));
        for (long panel = column / panel_columns<S>; panel < b.panels(); ++panel) {
            int wide = b.width(panel) * L;
            to = b.at(panel) + row * wide;
            for (int n = 0; n < wide; ++n, ++column) to[n] = from && column < count ? from[column * step] : S(0);
        }
    }

    void input_errors(const Share& share, const Backward& mine, const Shared& all, const Gradients& to, int64_t t, long running) const {
        long Ip = round_up(I, L);
        for (long r0 = 0; r0 < running; r0 += tile_rows) {
            long count = least(tile_rows, running - r0);
            const S* rows[tile_rows];
            for (long r = 0; r < count; ++r) rows[r] = mine.rows[r0 + r] + Cell::input_row * Hp;
            gemm(rows, 1, count, all.W_x, {zeros, 0}, mine.dx, Ip);
            for (long r = 0; r < count; ++r)
                copy(static_cast<S*>(to.dx) + (t * it.B + order.row[share.position(r0 + r)]) * I, mine.dx + r * Ip, I);
        }
    }

    // dW of the strips of this thread, from all rows of a chunk.
    void weigh(const Share& share, const Backward& mine, const Piece& part, const Gradients& to) const {
        long per_row = ceil_div(Hp, strip_width), strips = Cell::rows * per_row;
        for (long which = strips * share.thread / share.threads; which < strips * (share.thread + 1) / share.threads; ++which) {
            int row = int(which / per_row);
            long unit = which % per_row * strip_width, columns = least(strip_width, Hp - unit), real = least(strip_width, H - unit);
            bool recurrent = row < Cell::gates, input = row >= Cell::input_row;
            cut(part, row * Hp + unit, columns, mine);
            const S* left[strip_width];
            for (long m = 0; m < real; ++m) left[m] = mine.strip + m;
            if (recurrent) {
                long at = Cell::recurrent[row] * H + unit;
                if (to.dW_h) accumulate(left, real, part.before, static_cast<S*>(to.dW_h) + at * H, H, mine);
                if (to.db_h) add(static_cast<S*>(to.db_h) + at, mine.sum, real);
            }
            if (input) {
                long at = Cell::input[row - Cell::input_row] * H + unit;
                if (to.dW_x && it.ids) scatter(mine, static_cast<S*>(to.dW_x) + at * I, real, part);
                else if (to.dW_x) accumulate(left, real, part.x, static_cast<S*>(to.dW_x) + at * I, I, mine);
                if (to.db_x) add(static_cast<S*>(to.db_x) + at, mine.sum, real);
            }
        }
    }

    // A strip of deltas, close together, and its sum over the rows.
    void cut(const Piece& part, long column, long columns, const Backward& mine) const {
        V<S> sum[strip_width / L] = {};
        for (long row = 0; row < part.rows; ++row) {
            const S* from = part.d + row * pre_stride + column;
            for (long n = 0; n < columns; n += L) {
                V<S> d = load(from + n);
                store(mine.strip + row * strip_width + n, d);
                sum[n / L] += d;
            }
        }
        for (long n = 0; n < columns; n += L) store(mine.sum + n, sum[n / L]);
    }

    // dW (from row `at` on, `columns` wide) += the strip's deltas times what they are multiplied with.
    void accumulate(const S* const* left, long count, const Packed<S>& right, S* dW, long columns, const Backward& mine) const {
        for (long panel = 0; panel < right.panels(); ++panel) {
            Packed<S> one{right.at(panel), right.width(panel), right.rows};
            gemm(left, strip_width, count, one, 0, 1, {zeros, 0}, mine.tile, panel_columns<S>);
            long first = panel * panel_columns<S>, wide = least(panel_columns<S>, columns - first);
            for (long m = 0; m < count; ++m) add(dW + m * columns + first, mine.tile + m * panel_columns<S>, wide);
        }
    }

    static void add(S* to, const S* from, long count) {
        long i = 0;
        for (; i + L <= count; i += L) store(to + i, load(to + i) + load(from + i));
        for (; i < count; ++i) to[i] += from[i];
    }

    // dW_x of one-hot rows: each delta goes to the column of its id.
    void scatter(const Backward& mine, S* dW, long count, const Piece& part) const {
        const S* d = mine.strip;
        for (int64_t t = part.t0; t < part.t1; ++t)
            for (int64_t position = 0; position < order.running(t); ++position, d += strip_width) {
                S* column = dW + it.ids[t * it.ids_t + order.row[position] * it.ids_b];
                for (long m = 0; m < count; ++m) column[m * I] += d[m];
            }
    }

    void begin(const Share& share, const Backward& mine, const Gradients& to) const {
        for (long r = 0, count = share.count_below(it.B); r < count; ++r) {
            int64_t b = order.row[share.position(r)];
            copy_padded(mine.dh + r * h_stride, to.dlast[0] ? static_cast<const S*>(to.dlast[0]) + b * H : nullptr, H, Hp);
            if (Cell::slots > 1)
                copy_padded(mine.dc + r * h_stride, to.dlast[1] ? static_cast<const S*>(to.dlast[1]) + b * H : nullptr, H, Hp);
        }
        auto zero = [&](void* data, long count) {
            long from = count * share.thread / share.threads, until = count * (share.thread + 1) / share.threads;
            if (data) clear(static_cast<S*>(data) + from, until - from);
        };
        zero(to.dW_h, Cell::gates * H * H);
        zero(to.dW_x, Cell::gates * H * I);
        zero(to.db_h, Cell::gates * H);
        zero(to.db_x, Cell::gates * H);
    }

    void end(const Share& share, const Backward& mine, const Gradients& to) const {
        for (long r = 0, count = share.count_below(it.B); r < count; ++r) {
            int64_t position = share.position(r), b = order.row[position];
            if (to.ds0[0]) copy(static_cast<S*>(to.ds0[0]) + b * H, mine.dh + r * h_stride, H);
            if (Cell::slots > 1 && to.ds0[1]) copy(static_cast<S*>(to.ds0[1]) + b * H, mine.dc + r * h_stride, H);
            if (to.dx)
                for (int64_t t = order.length[position]; t < it.T; ++t) clear(static_cast<S*>(to.dx) + (t * it.B + b) * I, I);
        }
    }

    // From the last chunk to the first: carry, wait for the others, weigh. A thread that walks alone carries on to the
    // next chunk while the others weigh the last one.
    void by_chunks(const Share& share, const Backward& mine, const Shared& all, const Gradients& to) const {
        Share others{share.thread - 1, share.threads - 1, share.equal, share.B};
        int64_t chunks = ceil_div(it.T, chunk);
        for (int64_t index = chunks; index-- > 0;) {
            Piece piece = piece_of(all, index);
            if (!share.alone() || share.thread == 0) carry(share, mine, all, piece, to);
            else if (index + 1 < chunks) weigh(others, mine, piece_of(all, index + 1), to);
            barrier(share.threads);
            if (!share.alone() || index == 0) weigh(share, mine, piece, to);
        }
    }

    static void backward(const Sweep& it, const Gradients& to) {
        Engine engine(it);
        int threads = threads_for(it);
        bool equal = !it.lengths;
        Layout count{nullptr, 0};
        engine.lay_weights(count);
        engine.lay_shared(count, to);
        Block block(count.at + engine.most_memory(threads, [&](Layout& memory, const Share& share) {
            engine.lay_backward(memory, share, to);
        }));
        Layout memory{static_cast<char*>(block.data()), 0};
        engine.lay_weights(memory);
        Shared all = engine.lay_shared(memory, to);
        engine.order.fill(it);
        parallel(threads, [&](int thread, int granted) {
            Share share{thread, granted, equal, it.B};
            Layout own = memory;
            Backward mine{};
            for (int which = 0; which <= thread; ++which) mine = engine.lay_backward(own, Share{which, granted, equal, it.B}, to);
            engine.pack_for_backward(share, all, to);
            engine.begin(share, mine, to);
            barrier(granted);
            engine.by_chunks(share, mine, all, to);
            engine.end(share, mine, to);
        });
    }

    // Bytes that the threads need at most, however many of them are granted.
    template <class Lay> size_t most_memory(int threads, const Lay& lay) const {
        size_t bytes = 0;
        for (int of = 1; of <= threads; ++of) {
            Layout count{nullptr, 0};
            for (int which = 0; which < of; ++which) lay(count, Share{which, of, !it.lengths, it.B});
            bytes = count.at > bytes ? count.at : bytes;
        }
        return bytes + 64;
    }

    static size_t kept_bytes(const Sweep& it) {
        size_t Hp = size_t(round_up(it.H, L));
        if (it.keep == Keep::gates) return size_t(total_steps(it)) * Cell::kept * Hp * sizeof(S);
        if (it.keep == Keep::states && Cell::slots > 1) return size_t(ceil_div(it.T, chunk_steps(it)) * it.B) * Hp * sizeof(S);
        return 0;
    }
};

}  // namespace
}  // namespace throughtime

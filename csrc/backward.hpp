// Backward over time, by chunks of steps from the last to the first.
//
// In a chunk each thread carries delta back through its part and leaves the deltas of the gates and what they are
// multiplied with; after a barrier dW is made of these, divided by tiles of dW and summed in an order that knows nothing
// of threads, and dx.
#pragma once
#include "layer.hpp"

namespace throughtime {
namespace {

constexpr long strip_width = 16;  // units of one gate that a thread makes dW of at a time
constexpr long dx_rows = 96;      // rows of dx that one pass over W_x makes

template <class S, template <class> class CellOf> struct Backward {
    using Cell = CellOf<S>;
    static constexpr int L = lanes<S>;

    const Layer<S, CellOf>& layer;
    const Sweep& it;
    const Gradients& to;

    struct Piece {          // what the steps from t0 to t1 hand to dW
        S* d;               // [rows][d_stride]
        Packed<S> before, x;  // h_{t-1} and x of the same rows
        long rows;
        int64_t t0, t1;
    };

    struct Shared {
        Piece pieces[2];     // one may still be read by a slower thread while the other one is written
        Packed<S> W_h, W_x;  // as they are: for products with W transposed
    };

    struct Room {
        S *dh, *dc;               // of the units of the part, h_stride apart
        S *h, *before, *c_before;  // padded rows
        S *kept, *pre;            // of a chunk, where gates are rebuilt
        S *dx, *strip, *sum, *tile;
        const S **pointers, **rows;
        Packed<S> W_h;  // the columns of the units of the part
    };

    bool rebuilds() const { return Cell::kept && it.keep == Keep::states; }

    Shared lay_shared(Layout& memory) const {
        Shared all;
        long rows = layer.chunk * it.B, Hp = layer.Hp, Ip = round_up(layer.I, L);
        for (Piece& piece : all.pieces) {
            piece.d = memory.take<S>(rows * layer.d_stride);
            piece.before = {memory.take<S>(rows * Hp), Hp / L, rows};
            piece.x = {memory.take<S>(it.ids || !to.dW_x ? 0 : rows * Ip), Ip / L, rows};
        }
        all.W_h = {memory.take<S>(Cell::gates * Hp * Hp), Hp / L, Cell::gates * Hp};
        all.W_x = {memory.take<S>(to.dx ? Cell::gates * Hp * Ip : 0), Ip / L, Cell::gates * Hp};
        return all;
    }

    Room lay(Layout& memory, Part<S>& part, const Shared& all) const {
        long capacity = most(1, part.share.rows()), rows = layer.chunk * capacity, Hp = layer.Hp;
        Room mine;
        mine.dh = memory.take<S>(capacity * layer.h_stride);
        mine.dc = memory.take<S>(Cell::slots > 1 ? capacity * layer.h_stride : 0);
        mine.h = memory.take<S>(Hp);
        mine.before = memory.take<S>(Hp);
        mine.c_before = memory.take<S>(Hp);
        mine.kept = memory.take<S>(rebuilds() ? rows * Cell::kept * Hp : 0);
        mine.pre = memory.take<S>(rebuilds() ? rows * part.pre_stride : 0);
        mine.dx = memory.take<S>(to.dx ? dx_rows * round_up(layer.I, L) : 0);
        mine.strip = memory.take<S>(layer.chunk * it.B * strip_width);
        mine.sum = memory.take<S>(strip_width);
        mine.tile = memory.take<S>(strip_width * panel_columns<S>);
        mine.pointers = memory.take<const S*>(rows);
        mine.rows = memory.take<const S*>(capacity);
        mine.W_h = {all.W_h.data ? all.W_h.data + part.first * all.W_h.rows : nullptr, part.units / L, all.W_h.rows};
        part.bias = memory.take<S>(Cell::rows * part.units);
        return mine;
    }

    Piece piece_of(const Shared& all, int64_t index) const {
        Piece piece = all.pieces[index % 2];
        piece.t0 = index * layer.chunk, piece.t1 = least(it.T, piece.t0 + layer.chunk);
        piece.rows = piece.before.rows = piece.x.rows = layer.order.first[piece.t1] - layer.order.first[piece.t0];
        return piece;
    }

    void pack(const Part<S>& part, const Room& mine, const Shared& all, int thread, int threads) const {
        const Share& share = part.share;
        pack_rows<S>(static_cast<const S*>(it.W_h), layer.H, layer.H, Cell::recurrent, Cell::gates, part.first, mine.W_h,
                     mine.W_h.vectors * share.thread / share.threads, mine.W_h.vectors * (share.thread + 1) / share.threads);
        if (to.dx)
            pack_rows<S>(static_cast<const S*>(it.W_x), layer.H, layer.I, Cell::input, Cell::gates, 0, all.W_x,
                         all.W_x.vectors * thread / threads, all.W_x.vectors * (thread + 1) / threads);
        if (rebuilds()) layer.pack(part);
    }

    // ------------------------------------------------------------------ delta

    // The step before t of row b: H numbers, or null for zeros.
    const S* h_before(int64_t t, int64_t b) const {
        if (layer.restarts(t, b)) return nullptr;
        return t ? layer.y_at(t - 1, b) : layer.start(0, b);
    }

    // What the forward pass would have kept of the steps from t0 to t1: one product for all of them, then the cells.
    void rebuild(const Part<S>& part, const Room& mine, int64_t t0, int64_t t1) const {
        const Order& order = layer.order;
        long count = layer.project(part, t0, t1, mine.pre, mine.pointers), line = 0;
        for (int64_t t = t0; t < t1; ++t)
            for (long r = 0, running = part.share.count_below(order.running(t)); r < running; ++r, ++line) {
                const S* h = h_before(t, order.row[part.share.position(r)]);
                mine.pointers[line] = h ? h : layer.zeros;
            }
        gemm(mine.pointers, 1, count, part.W_h, {mine.pre, part.pre_stride}, mine.pre, part.pre_stride);
        line = 0;
        for (int64_t t = t0; t < t1; ++t)
            for (long r = 0, running = part.share.count_below(order.running(t)); r < running; ++r, ++line) {
                S* kept = mine.kept + line * Cell::kept * layer.Hp + part.first;
                if (Cell::slots > 1) {
                    const S* c = c_before(part, mine, t, t0, line, part.share.position(r));
                    copy(mine.h, c + part.first, part.units);
                }
                // h is known already: what the cell makes of this one is not read.
                Cell::forward(it, part.units, mine.pre + line * part.pre_stride, layer.zeros, mine.before, mine.h, kept, layer.Hp);
            }
    }

    // Carry delta from step t1 - 1 to t0 through a part.
    void carry(const Part<S>& part, const Room& mine, const Piece& piece) const {
        const Order& order = layer.order;
        int64_t t0 = piece.t0;
        long line = 0;
        if (rebuilds()) rebuild(part, mine, t0, piece.t1);
        for (int64_t t = t0; t < piece.t1; ++t) line += part.share.count_below(order.running(t));
        for (int64_t t = piece.t1; t-- > t0;) {
            long running = part.share.count_below(order.running(t)), first = order.first[t] - order.first[t0];
            line -= running;
            for (long r = 0; r < running; ++r) {
                int64_t position = part.share.position(r), b = order.row[position];
                long row = first + position;
                S* d = piece.d + row * layer.d_stride;
                const S* before = h_before(t, b);
                if (part.together == 1 || row % part.together == part.thread) {
                    place(piece.before, row, before, 1, layer.H);
                    if (piece.x.data) place(piece.x, row, layer.x_at(t, b), it.x_i, layer.I);
                }
                step_back(part, mine, {t, t0, line + r, position, b}, mine.dh + r * layer.h_stride, mine.dc + r * layer.h_stride, before, d);
                mine.rows[r] = d;
            }
            layer.meet(part);
            gemm(mine.rows, 1, running, mine.W_h, {mine.dh, layer.h_stride}, mine.dh, layer.h_stride);
            if (it.reset)
                for (long r = 0; r < running; ++r)
                    if (layer.restarts(t, order.row[part.share.position(r)])) {
                        clear(mine.dh + r * layer.h_stride, part.units);
                        if (Cell::slots > 1) clear(mine.dc + r * layer.h_stride, part.units);
                    }
        }
    }

    struct Where {
        int64_t t, t0;
        long line;  // of what the part has rebuilt
        int64_t position, b;
    };

    // Delta of the gates of one row at one step, and the pointwise part of what goes on to the step before.
    void step_back(const Part<S>& part, const Room& mine, const Where& at, S* dh, S* dc, const S* before, S* d) const {
        if (to.dy) add_error(part, dh, at.t, at.b);
        const S* h = Cell::reads_h ? padded(mine.h, layer.y_at(at.t, at.b)) + part.first : nullptr;
        const S* h0 = Cell::reads_before ? padded(mine.before, before) + part.first : nullptr;
        const S* kept = !Cell::kept ? nullptr
                        : rebuilds() ? mine.kept + at.line * Cell::kept * layer.Hp
                                     : layer.gates_at(layer.order.first[at.t] + at.position);
        const S* c0 = Cell::slots > 1 ? c_before(part, mine, at.t, at.t0, at.line, at.position) + part.first : nullptr;
        Cell::backward(it, part.units, Cell::kept ? kept + part.first : nullptr, h, h0, c0, dh, dc, d + part.first, layer.Hp);
        if (part.real != part.units)  // 0 * Inf in what fills up the vectors must not become a delta
            for (int gate = 0; gate < Cell::rows; ++gate) clear(d + gate * layer.Hp + layer.H, layer.Hp - layer.H);
    }

    const S* padded(S* room, const S* row) const {
        if (row && layer.H == layer.Hp) return row;
        copy_padded(room, row, layer.H, layer.Hp);
        return room;
    }

    const S* c_before(const Part<S>& part, const Room& mine, int64_t t, int64_t t0, long line, int64_t position) const {
        const Order& order = layer.order;
        int64_t b = order.row[position];
        if (layer.restarts(t, b)) return layer.zeros;
        if (t == 0) return padded(mine.c_before, layer.start(1, b));
        if (it.keep == Keep::gates) return layer.gates_at(order.first[t - 1] + position) + (Cell::kept - 1) * layer.Hp;
        if (t == t0) return layer.segment_at(t0 / layer.chunk, position);
        return mine.kept + ((line - part.share.count_below(order.running(t - 1))) * Cell::kept + Cell::kept - 1) * layer.Hp;
    }

    void add_error(const Part<S>& part, S* dh, int64_t t, int64_t b) const {
        const S* dy = static_cast<const S*>(to.dy) + t * to.dy_t + b * to.dy_b + part.first * to.dy_i;
        long j = 0;
        if (to.dy_i == 0)
            for (V<S> one = all<S>(*dy); j + L <= part.real; j += L) store(dh + j, load(dh + j) + one);
        else
            for (; j + L <= part.real; j += L) store(dh + j, load(dh + j) + load(dy + j));
        for (; j < part.real; ++j) dh[j] += dy[j * to.dy_i];
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

    // ------------------------------------------------------------------ dW and dx

    // dW of the strips of this thread, and its share of dx, from all rows of a chunk.
    void weigh(int thread, int threads, const Room& mine, const Shared& all, const Piece& piece) const {
        long H = layer.H, Hp = layer.Hp, I = layer.I, per_row = ceil_div(Hp, strip_width), strips = Cell::rows * per_row;
        if (to.dx) input_errors(thread, threads, mine, all.W_x, piece);
        for (long which = strips * thread / threads; which < strips * (thread + 1) / threads; ++which) {
            int row = int(which / per_row);
            long unit = which % per_row * strip_width, columns = least(strip_width, Hp - unit), real = least(strip_width, H - unit);
            bool recurrent = row < Cell::gates, input = row >= Cell::input_row;
            cut(piece, row * Hp + unit, columns, mine);
            const S* left[strip_width];
            for (long m = 0; m < real; ++m) left[m] = mine.strip + m;
            if (recurrent) {
                long at = Cell::recurrent[row] * H + unit;
                if (to.dW_h) accumulate(left, real, piece.before, static_cast<S*>(to.dW_h) + at * H, H, mine);
                if (to.db_h) add(static_cast<S*>(to.db_h) + at, mine.sum, real);
            }
            if (input) {
                long at = Cell::input[row - Cell::input_row] * H + unit;
                if (to.dW_x && it.ids) scatter(mine, static_cast<S*>(to.dW_x) + at * I, real, piece);
                else if (to.dW_x) accumulate(left, real, piece.x, static_cast<S*>(to.dW_x) + at * I, I, mine);
                if (to.db_x) add(static_cast<S*>(to.db_x) + at, mine.sum, real);
            }
        }
    }

    // A strip of deltas, close together, and its sum over the rows.
    void cut(const Piece& piece, long column, long columns, const Room& mine) const {
        V<S> sum[strip_width / L] = {};
        for (long row = 0; row < piece.rows; ++row) {
            const S* from = piece.d + row * layer.d_stride + column;
            for (long n = 0; n < columns; n += L) {
                V<S> d = load(from + n);
                store(mine.strip + row * strip_width + n, d);
                sum[n / L] += d;
            }
        }
        for (long n = 0; n < columns; n += L) store(mine.sum + n, sum[n / L]);
    }

    // dW (from row `at` on, `columns` wide) += the strip's deltas times what they are multiplied with.
    void accumulate(const S* const* left, long count, const Packed<S>& right, S* dW, long columns, const Room& mine) const {
        for (long panel = 0; panel < right.panels(); ++panel) {
            Packed<S> one{right.at(panel), right.width(panel), right.rows};
            gemm(left, strip_width, count, one, 0, 1, {layer.zeros, 0}, mine.tile, panel_columns<S>);
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
    void scatter(const Room& mine, S* dW, long count, const Piece& piece) const {
        const S* d = mine.strip;
        for (int64_t t = piece.t0; t < piece.t1; ++t)
            for (int64_t position = 0; position < layer.order.running(t); ++position, d += strip_width) {
                S* column = dW + it.ids[t * it.ids_t + layer.order.row[position] * it.ids_b];
                for (long m = 0; m < count; ++m) column[m * layer.I] += d[m];
            }
    }

    // dx of the rows of a chunk that fall to this thread.
    void input_errors(int thread, int threads, const Room& mine, const Packed<S>& W_x, const Piece& piece) const {
        long from = piece.rows * thread / threads, until = piece.rows * (thread + 1) / threads, row = 0, count = 0;
        const S* rows[dx_rows];
        S* targets[dx_rows];
        auto make = [&] {
            long Ip = W_x.vectors * L;
            gemm(rows, 1, count, W_x, {layer.zeros, 0}, mine.dx, Ip);
            for (long r = 0; r < count; ++r) copy(targets[r], mine.dx + r * Ip, layer.I);
            count = 0;
        };
        for (int64_t t = piece.t0; t < piece.t1; ++t)
            for (int64_t position = 0; position < layer.order.running(t); ++position, ++row) {
                if (row < from || row >= until) continue;
                rows[count] = piece.d + row * layer.d_stride + Cell::input_row * layer.Hp;
                targets[count] = static_cast<S*>(to.dx) + (t * it.B + layer.order.row[position]) * layer.I;
                if (++count == dx_rows) make();
            }
        make();
    }

    // ------------------------------------------------------------------ from the last step to the first

    void begin(const Part<S>& part, const Room& mine, int thread, int threads) const {
        for (long r = 0, count = part.share.count_below(it.B); r < count; ++r) {
            int64_t b = layer.order.row[part.share.position(r)];
            auto take = [&](S* errors, const void* last) {
                const S* from = last ? static_cast<const S*>(last) + b * layer.H + part.first : nullptr;
                copy_padded(errors + r * layer.h_stride, from, part.real, part.units);
            };
            take(mine.dh, to.dlast[0]);
            if (Cell::slots > 1) take(mine.dc, to.dlast[1]);
        }
        auto zero = [&](void* data, long count) {
            long from = count * thread / threads, until = count * (thread + 1) / threads;
            if (data) clear(static_cast<S*>(data) + from, until - from);
        };
        zero(to.dW_h, Cell::gates * layer.H * layer.H);
        zero(to.dW_x, Cell::gates * layer.H * layer.I);
        zero(to.db_h, Cell::gates * layer.H);
        zero(to.db_x, Cell::gates * layer.H);
    }

    void end(const Part<S>& part, const Room& mine) const {
        for (long r = 0, count = part.share.count_below(it.B); r < count; ++r) {
            int64_t position = part.share.position(r), b = layer.order.row[position];
            auto hand = [&](void* start, const S* errors) {
                if (start) copy(static_cast<S*>(start) + b * layer.H + part.first, errors + r * layer.h_stride, part.real);
            };
            hand(to.ds0[0], mine.dh);
            if (Cell::slots > 1) hand(to.ds0[1], mine.dc);
            if (to.dx && part.first == 0)
                for (int64_t t = layer.order.length[position]; t < it.T; ++t)
                    clear(static_cast<S*>(to.dx) + (t * it.B + b) * layer.I, layer.I);
        }
    }

    // Carry, wait for the others, weigh. A thread that walks alone carries on to the next chunk while the others weigh
    // the last one.
    void by_chunks(const Part<S>& part, const Room& mine, const Shared& all, int thread, int threads) const {
        bool alone = part.share.alone();
        int64_t chunks = ceil_div(it.T, layer.chunk);
        for (int64_t index = chunks; index-- > 0;) {
            Piece piece = piece_of(all, index);
            if (!alone || thread == 0) carry(part, mine, piece);
            else if (index + 1 < chunks) weigh(thread - 1, threads - 1, mine, all, piece_of(all, index + 1));
            barrier(threads);
            if (!alone || index == 0) weigh(thread, threads, mine, all, piece);
        }
    }

    static void run(const Sweep& it, const Gradients& to) {
        Layer<S, CellOf> layer(it, true);
        Backward backward{layer, it, to};
        int threads = layer.threads_for(it);
        Layout count{nullptr, 0};
        layer.lay(count);
        Shared all = backward.lay_shared(count);
        Block block(count.at + layer.most_memory(threads, [&](Layout& memory, Part<S>& part) { backward.lay(memory, part, all); }));
        Layout memory{static_cast<char*>(block.data()), 0};
        layer.lay(memory);
        all = backward.lay_shared(memory);
        layer.fill();
        parallel(threads, [&](int thread, int granted) {
            Layout own = memory;
            Part<S> part{};
            Room mine{};
            for (int which = 0; which <= thread; ++which) {
                part = layer.part_of(which, granted);
                mine = backward.lay(own, part, all);
            }
            backward.pack(part, mine, all, thread, granted);
            backward.begin(part, mine, thread, granted);
            barrier(granted);
            backward.by_chunks(part, mine, all, thread, granted);
            backward.end(part, mine);
        });
    }
};

}  // namespace
}  // namespace throughtime

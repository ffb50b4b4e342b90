// Whole streams of online BPTT(h; every) with the update inside: the twin of credit/bptt.py under an optimiser of torch.
//
// Row m of Z is [h_{m-1} | x_m], row i of W is [W_h | W_x] of one unit of a gate, and the window is the last h rows of Z:
//   forward   pre = b + W z, a dot product a row
//   back      dh += W_h^T d_m, rows of W added up, from the newest step to the oldest
//   update    W <- rule(W, D^T Z), tile by tile: the gradient never leaves the registers
// so W lies in memory once, and nothing is transposed or packed when it changes.
#pragma once
#include <cstddef>

#include "cells/ctrnn.hpp"
#include "cells/elman.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "kernel.hpp"
#include "pool.hpp"
#include "rows.hpp"
#include "strips.hpp"
#include "threads.hpp"

namespace throughtime {
namespace {

template <class S, template <class> class CellOf> struct Learner {
    using Cell = CellOf<S>;
    static constexpr int L = lanes<S>;
    static constexpr long part = 64 / long(sizeof(S));  // what every part is a multiple of, whatever the vectors

    const Online& it;
    Sweep map;  // what the maps of the cells read: phi and alpha
    long I, H, A, Hp, Ap;
    long z_stride, v_stride, d_stride;
    long capacity;  // steps that the past has room for
    S *W, *b_h, *b_x, *Q, *b_q;
    S *h, *c;    // the state that is carried
    S *Z;        // [h_{m-1} | x_m]
    S *values;   // h_m; c_{m-1} of a cell that has one; what the cell keeps
    S *then;     // the state before each step as it was when the stream passed, for replays
    S *E;        // the target of a step until it is settled, then its error
    S *flags;    // whether a target counts, whether a sequence starts
    S *D, *pre, *cell, *dh, *dc, *db, *y;  // scratch

    explicit Learner(const Online& online) : it(online), map{}, I(online.I), H(online.H), A(online.A) {
        map.cell = online.cell, map.phi = online.phi, map.alpha = online.alpha;
        Hp = round_up(H, part), Ap = round_up(A, part);
        z_stride = stride_of<S>(Hp + round_up(I, part));
        v_stride = stride_of<S>((Cell::slots + Cell::kept) * Hp);
        d_stride = stride_of<S>(Cell::rows * Hp);
        capacity = 2 * online.h + 8;
    }

    // ------------------------------------------------------------------ where everything lies

    void lay_weights(Layout& memory) {
        W = memory.take<S>(Cell::rows * Hp * z_stride);
        b_h = memory.take<S>(Cell::rows * Hp);
        b_x = memory.take<S>(Cell::rows * Hp);
        Q = memory.take<S>(Ap * Hp);
        b_q = memory.take<S>(Ap);
    }

    void lay_past(Layout& memory) {
        h = memory.take<S>(Hp);
        c = memory.take<S>(Hp);
        Z = memory.take<S>(capacity * z_stride);
        values = memory.take<S>(capacity * v_stride);
        then = memory.take<S>(it.replay ? capacity * 2 * Hp : 0);
        E = memory.take<S>(capacity * Ap);
        flags = memory.take<S>(2 * capacity);
    }

    void lay_scratch(Layout& memory) {
        D = memory.take<S>(it.h * d_stride);
        pre = memory.take<S>(Cell::rows * Hp);
        cell = memory.take<S>(Hp);
        dh = memory.take<S>(Hp);
        dc = memory.take<S>(Hp);
        db = memory.take<S>(Cell::rows * Hp);
        y = memory.take<S>(Ap);
    }

    static OnlineSizes sizes(const Online& it) {
        Learner learner(it);
        Layout weights{nullptr, 0}, past{nullptr, 0};
        learner.lay_weights(weights);
        learner.lay_past(past);
        return {int64_t(weights.at / sizeof(S)), int64_t(past.at / sizeof(S))};
    }

    // Lays everything out and calls `with` on it.
    template <class With> static void on(const Online& it, const With& with) {
        Learner learner(it);
        Layout weights{static_cast<char*>(it.weights), 0}, past{static_cast<char*>(it.past), 0}, count{nullptr, 0};
        learner.lay_weights(weights);
        learner.lay_past(past);
        learner.lay_scratch(count);
        Block block(count.at + size_t(learner.z_stride + learner.v_stride) * sizeof(S) + 128);
        Layout scratch{static_cast<char*>(block.data()), 0};
        learner.lay_scratch(scratch);
        FlushTiny flush;
        with(learner, scratch);
    }

    static bool recurrent(int row) { return row < Cell::gates; }
    static bool input(int row) { return row >= Cell::input_row; }
    long first_column(int row) const { return recurrent(row) ? 0 : Hp; }
    long columns(int row) const { return (input(row) ? Hp + round_up(I, part) : Hp) - first_column(row); }
    long begin_of(int row) const { return row * Hp * z_stride + first_column(row); }  // in W

    // ------------------------------------------------------------------ forward

    // The cell over z = [h_{m-1} | x_m]: leaves h_m in v and c_m in `cell`.
    void forward(const S* z, S* v) const {
        for (int row = 0; row < Cell::rows; ++row) {
            S* to = pre + row * Hp;
            for (long j = 0; j < Hp; j += L) store(to + j, load(b_h + row * Hp + j) + load(b_x + row * Hp + j));
            dots(W + begin_of(row), z_stride, columns(row), round_up(H, part), z + first_column(row), to);
        }
        if (Cell::slots > 1) copy(cell, v + Hp, Hp);
        Cell::forward(map, Hp, pre, z, v, cell, v + Cell::slots * Hp, Hp);
        clear(v + H, Hp - H);  // phi(0) of what fills up the vectors must not become an input
    }

    // What the readout says of h_m; probabilities for softmax.
    void read(const S* v, S* to) const {
        copy(to, b_q, Ap);
        dots(Q, Hp, Hp, Ap, v, to);
        if (it.loss == Loss::softmax) softmax(to);
    }

    void softmax(S* to) const {
        S top = to[0], total = 0;
        for (long a = 1; a < A; ++a) top = to[a] > top ? to[a] : top;
        for (long a = A; a < Ap; ++a) to[a] = top;
        for (long a = 0; a < Ap; a += L) {
            Parts<S> e = split_exp<S>(load(to + a) - all(top));
            store(to + a, fma(e.power, e.m, e.power));
        }
        for (long a = 0; a < A; ++a) total += to[a];
        for (long a = 0; a < A; ++a) to[a] /= total;
        for (long a = A; a < Ap; ++a) to[a] = 0;
    }

    // ------------------------------------------------------------------ the window

    struct Clock {
        int64_t *at;
        int64_t& end() const { return at[0]; }      // one behind the newest row
        int64_t& length() const { return at[1]; }   // rows of the window
        int64_t& fresh() const { return at[2]; }    // of these, not settled yet
        int64_t& updates() const { return at[3]; }
    };

    void move(S* rows, long stride, const Clock& clock) const {
        if (rows) copy(rows, rows + (clock.end() - clock.length()) * stride, clock.length() * stride);
    }

    void to_the_front(const Clock& clock) const {
        move(Z, z_stride, clock);
        move(values, v_stride, clock);
        move(then, 2 * Hp, clock);
        move(E, Ap, clock);
        move(flags, 2, clock);
        clock.end() = clock.length();
    }

    // Put the state before step m.
    void enter(long m) const {
        copy(Z + m * z_stride, h, Hp);
        if (Cell::slots > 1) copy(values + m * v_stride + Hp, c, Hp);
    }

    // Run step m and carry its state on.
    void pass(long m) const {
        S* v = values + m * v_stride;
        forward(Z + m * z_stride, v);
        copy(h, v, Hp);
        if (Cell::slots > 1) copy(c, cell, Hp);
    }

    void restart() const {
        clear(h, Hp);
        clear(c, Hp);
    }

    void arrive(const Clock& clock, const Steps& steps, int64_t t) const {
        if (clock.end() == capacity) to_the_front(clock);
        long m = clock.end()++;
        bool counts = !steps.mask || steps.mask[t], starts = steps.reset && steps.reset[t];
        flags[2 * m] = counts, flags[2 * m + 1] = starts;
        if (starts) restart();
        copy_padded(Z + m * z_stride + Hp, static_cast<const S*>(steps.x) + t * I, I, round_up(I, part));
        enter(m);
        if (it.replay) copy(then + m * 2 * Hp, h, Hp), copy(then + m * 2 * Hp + Hp, c, Hp);
        S* target = E + m * Ap;
        clear(target, Ap);
        if (counts && it.loss == Loss::softmax) target[static_cast<const int64_t*>(steps.y)[t]] = 1;
        else if (counts) copy(target, static_cast<const S*>(steps.y) + t * A, A);
        pass(m);
        clock.length() = least(clock.length() + 1, it.h);
        ++clock.fresh();
    }

    // Run the window again under the weights of now; what is carried on is not touched.
    void replay(const Clock& clock, S* room) const {
        Learner again = *this;
        again.h = room, again.c = room + Hp;
        long first = clock.end() - clock.length();
        copy(again.h, then + first * 2 * Hp, 2 * Hp);
        for (long m = first; m < clock.end(); ++m) {
            if (flags[2 * m + 1] != 0) again.restart();
            again.enter(m);
            again.pass(m);
        }
    }

    // ------------------------------------------------------------------ back

    S counted(const Clock& clock) const {
        S count = 0;
        for (long m = clock.end() - clock.fresh(); m < clock.end(); ++m) count += flags[2 * m];
        return count;
    }

    // E of step m from its target to its error over `count`; adds what comes down to h_m.
    void inject(long m, S count) const {
        S* e = E + m * Ap;
        if (flags[2 * m] == 0) return clear(e, Ap);
        read(values + m * v_stride, y);
        for (long a = 0; a < Ap; a += L) store(e + a, (load(y + a) - load(e + a)) / all(count));
        back(Q, Hp, Hp, A, e, dh);
    }

    // Carry delta from the newest step back; the row of the oldest one that it reached.
    long carry(const Clock& clock, S count) const {
        long end = clock.end(), first = end - clock.length(), fresh = end - clock.fresh();
        clear(dh, Hp), clear(dc, Hp), clear(db, Cell::rows * Hp);
        for (long m = end; m-- > first;) {
            if (m >= fresh) inject(m, count);
            S *v = values + m * v_stride, *d = D + (m - first) * d_stride;
            Cell::backward(map, Hp, v + Cell::slots * Hp, v, Z + m * z_stride, v + Hp, dh, dc, d, Hp);
            for (long j = 0; j < Cell::rows * Hp; j += L) store(db + j, load(db + j) + load(d + j));
            if (m == first) break;
            if (flags[2 * m + 1] == 0)
                for (int row = 0; row < Cell::gates; ++row) back(W + row * Hp * z_stride, z_stride, Hp, H, d + row * Hp, dh);
            else if (m <= fresh) return m;
            else clear(dh, Hp), clear(dc, Hp);
        }
        return first;
    }

    template <class To> void change(const To& rule, const Clock& clock, long oldest) const {
        long end = clock.end(), first = end - clock.length(), fresh = end - clock.fresh();
        for (int row = 0; row < Cell::rows; ++row) {
            weigh(D + (oldest - first) * d_stride + row * Hp, d_stride, H, Z + oldest * z_stride + first_column(row), z_stride,
                  columns(row), end - oldest, rule, begin_of(row), z_stride);
            for (long j = row * Hp; j < (row + 1) * Hp; j += L) {
                if (recurrent(row)) rule(b_h - W + j, load(db + j));
                if (input(row)) rule(b_x - W + j, load(db + j));
            }
        }
        weigh(E + fresh * Ap, Ap, A, values + fresh * v_stride, v_stride, Hp, end - fresh, rule, Q - W, Hp);
        for (long a = 0; a < Ap; a += L) {
            V<S> g = {};
            for (long m = fresh; m < end; ++m) g += load(E + m * Ap + a);
            rule(b_q - W + a, g);
        }
    }

    void settle(const Clock& clock, S* room) const {
        S count = counted(clock);
        if (count != 0) {
            if (it.replay && clock.length() > clock.fresh()) replay(clock, room);
            long oldest = carry(clock, count);
            ++clock.updates();
            if (it.rule == Rule::adam) change(Adam<S>::of(it, clock.updates()), clock, oldest);
            else change(Sgd<S>::of(it, clock.updates()), clock, oldest);
        }
        clock.fresh() = 0;
    }

    // ------------------------------------------------------------------ what is asked for

    static void learn(const Online& it, const Steps& steps) {
        on(it, [&](const Learner& learner, Layout& scratch) {
            S* room = scratch.take<S>(2 * learner.Hp);
            Clock clock{it.clock};
            for (int64_t t = 0; t < steps.T; ++t) {
                learner.arrive(clock, steps, t);
                if (steps.prediction) {
                    learner.read(learner.values + (clock.end() - 1) * learner.v_stride, learner.y);
                    copy(static_cast<S*>(steps.prediction) + t * it.A, learner.y, it.A);
                }
                if (clock.fresh() == it.every) learner.settle(clock, room);
            }
        });
    }

    static void predict(const Online& it, const void* x, bool reset, void* prediction) {
        on(it, [&](const Learner& learner, Layout& scratch) {
            S *z = scratch.take<S>(learner.z_stride), *v = scratch.take<S>(learner.v_stride);
            copy_padded(z, reset ? nullptr : learner.h, learner.Hp, learner.Hp);
            copy_padded(z + learner.Hp, static_cast<const S*>(x), it.I, round_up(it.I, part));
            if (Cell::slots > 1) copy_padded(v + learner.Hp, reset ? nullptr : learner.c, learner.Hp, learner.Hp);
            learner.forward(z, v);
            learner.read(v, learner.y);
            copy(static_cast<S*>(prediction), learner.y, it.A);
        });
    }

    // Torch's rows of gate `gate` and the packed ones of row `row`, `columns` of each.
    static void exchange(bool out, S* packed, long packed_stride, void* own, long gate, long rows, long columns) {
        for (long i = 0; i < rows; ++i) {
            S *ours = packed + i * packed_stride, *theirs = static_cast<S*>(own) + (gate * rows + i) * columns;
            out ? copy(theirs, ours, columns) : copy(ours, theirs, columns);
        }
    }

    static void pack(const Online& it, void* packed, const Unpacked& to, bool out) {
        Learner learner(it);
        Layout memory{static_cast<char*>(packed), 0};
        learner.lay_weights(memory);
        long H = learner.H, Hp = learner.Hp, stride = learner.z_stride;
        if (!out) clear(learner.W, long(memory.at / sizeof(S)));
        for (int gate = 0; gate < Cell::gates; ++gate) {
            int row = gate, into = Cell::recurrent[gate];
            exchange(out, learner.W + row * Hp * stride, stride, to.W_h, into, H, H);
            exchange(out, learner.b_h + row * Hp, 1, to.b_h, into, H, 1);
            row = Cell::input_row + gate, into = Cell::input[gate];
            exchange(out, learner.W + row * Hp * stride + Hp, stride, to.W_x, into, H, it.I);
            exchange(out, learner.b_x + row * Hp, 1, to.b_x, into, H, 1);
        }
        exchange(out, learner.Q, Hp, to.W_q, 0, it.A, H);
        exchange(out, learner.b_q, 1, to.b_q, 0, it.A, 1);
    }
};

}  // namespace
}  // namespace throughtime

// Forward over time: the inputs of some steps are projected ahead, then each step adds its product with W_h.
#pragma once
#include "layer.hpp"

namespace throughtime {
namespace {

constexpr long forward_bytes = 256 * 1024;  // of pre-activations that a thread projects ahead

template <class S, template <class> class CellOf> struct Forward {
    using Cell = CellOf<S>;

    const Layer<S, CellOf>& layer;
    const Sweep& it;

    struct Room {
        S *pre[2], *h[2], *c;
        const S **pointers, **rows;
        long steps;  // projected ahead
    };

    Room lay(Layout& memory, Part<S>& part) const {
        long capacity = most(1, part.share.rows());
        Room mine;
        mine.steps = most(1, least(it.T, forward_bytes / long(sizeof(S)) / (part.pre_stride * capacity)));
        for (S*& pre : mine.pre) pre = memory.take<S>(mine.steps * capacity * part.pre_stride);
        mine.h[0] = memory.take<S>(capacity * layer.h_stride);
        mine.h[1] = part.together > 1 ? memory.take<S>(capacity * layer.h_stride) : mine.h[0];
        mine.c = memory.take<S>(Cell::slots > 1 ? capacity * layer.h_stride : 0);
        mine.pointers = memory.take<const S*>(mine.steps * capacity);
        mine.rows = memory.take<const S*>(capacity);
        part.bias = memory.take<S>(Cell::rows * part.units);
        return mine;
    }

    void begin(const Part<S>& part, const Room& mine) const {
        for (long r = 0, count = part.share.count_below(it.B); r < count; ++r) {
            int64_t b = layer.order.row[part.share.position(r)];
            copy_padded(mine.h[0] + r * layer.h_stride + part.first, layer.start(0, b) + part.first, part.real, part.units);
            if (Cell::slots > 1) copy_padded(mine.c + r * layer.h_stride, layer.start(1, b) + part.first, part.real, part.units);
        }
    }

    void walk(const Part<S>& part, const Room& mine) const {
        for (int64_t t0 = 0; t0 < it.T; t0 += mine.steps) {
            int64_t t1 = least(it.T, t0 + mine.steps);
            layer.project(part, t0, t1, mine.pre[0], mine.pointers);
            walk_steps(part, mine, t0, t1, mine.pre[0]);
        }
        end(part, mine);
    }

    // One row of few units: the second thread projects the steps that the first one walks after them.
    void walk_alone(const Part<S>& first, const Room& room, int thread, int threads) const {
        for (int64_t piece = 0, pieces = ceil_div(it.T, room.steps); piece <= pieces; ++piece) {
            int64_t t0 = piece * room.steps;
            if (thread == 1 && piece < pieces)
                layer.project(first, t0, least(it.T, t0 + room.steps), room.pre[piece % 2], room.pointers);
            if (thread == 0 && piece > 0) walk_steps(first, room, t0 - room.steps, least(it.T, t0), room.pre[(piece - 1) % 2]);
            barrier(threads);
        }
        if (thread == 0) end(first, room);
    }

    void walk_steps(const Part<S>& part, const Room& mine, int64_t t0, int64_t t1, S* pre) const {
        for (int64_t t = t0; t < t1; ++t) {
            long running = part.share.count_below(layer.order.running(t));
            step(part, mine, t, running, pre);
            pre += running * part.pre_stride;
        }
    }

    void step(const Part<S>& part, const Room& mine, int64_t t, long running, S* pre) const {
        const S* before = mine.h[t % 2];
        S* after = mine.h[(t + 1) % 2];
        for (long r = 0; r < running; ++r) {
            int64_t position = part.share.position(r);
            bool restarts = layer.restarts(t, layer.order.row[position]);
            mine.rows[r] = restarts ? layer.zeros : before + r * layer.h_stride;
            if (Cell::slots > 1) {
                S* c = mine.c + r * layer.h_stride;
                if (restarts) clear(c, part.units);
                if (it.keep == Keep::states && t % layer.chunk == 0) copy(layer.segment_at(t / layer.chunk, position) + part.first, c, part.units);
            }
        }
        gemm(mine.rows, 1, running, part.W_h, {pre, part.pre_stride}, pre, part.pre_stride);
        for (long r = 0; r < running; ++r) {
            int64_t position = part.share.position(r);
            S* h = after + r * layer.h_stride + part.first;
            S* kept = Cell::kept && it.keep == Keep::gates ? layer.gates_at(layer.order.first[t] + position) + part.first : nullptr;
            Cell::forward(it, part.units, pre + r * part.pre_stride, mine.rows[r] + part.first, h, mine.c + r * layer.h_stride, kept,
                          layer.Hp);
            copy(layer.y_at(t, layer.order.row[position]) + part.first, h, part.real);
        }
        layer.meet(part);
    }

    void end(const Part<S>& part, const Room& mine) const {
        for (long r = 0, count = part.share.count_below(it.B); r < count; ++r) {
            int64_t position = part.share.position(r), b = layer.order.row[position], length = layer.order.length[position];
            for (int64_t t = length; t < it.T; ++t) clear(layer.y_at(t, b) + part.first, part.real);
            auto hand = [&](void* last, const S* from) {
                if (last) copy(static_cast<S*>(last) + b * layer.H + part.first, from, part.real);
            };
            hand(it.last[0], mine.h[length % 2] + r * layer.h_stride + part.first);
            if (Cell::slots > 1) hand(it.last[1], mine.c + r * layer.h_stride);
        }
    }

    static void run(const Sweep& it) {
        Layer<S, CellOf> layer(it, false);
        Forward forward{layer, it};
        int threads = layer.threads_for(it);
        Layout count{nullptr, 0};
        layer.lay(count);
        Block block(count.at + layer.most_memory(threads, [&](Layout& memory, Part<S>& part) { forward.lay(memory, part); }));
        Layout memory{static_cast<char*>(block.data()), 0};
        layer.lay(memory);
        layer.fill();
        parallel(threads, [&](int thread, int granted) {
            Layout own = memory;
            Part<S> first = layer.part_of(0, granted), part = first;
            Room room = forward.lay(own, first), mine = room;
            part.bias = first.bias;
            for (int which = 1; which <= thread; ++which) {
                part = layer.part_of(which, granted);
                mine = forward.lay(own, part);
            }
            if (part.together > 1) mine.h[0] = room.h[0], mine.h[1] = room.h[1];  // shared by all
            layer.pack(part);
            forward.begin(part, mine);
            barrier(granted);
            if (part.share.alone()) forward.walk_alone(first, room, thread, granted);
            else forward.walk(part, mine);
        });
    }
};

}  // namespace
}  // namespace throughtime

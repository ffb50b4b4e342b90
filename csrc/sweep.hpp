// Forward and backward over time for one layer in one direction: the twin of src/throughtime/sweep.py.
//
// A cell says how many gates it has, and maps `units` units of one row:
//   forward(it, units, pre, before, h, c, kept, stride)            rows of pre `units` apart, of kept `stride`
//   backward(it, units, kept, h, before, c_before, dh, dc, d, stride)   rows of kept and d `stride` apart
// h may be `before`; c, dh and dc are changed in place.
#pragma once
#include "backward.hpp"
#include "cells/ctrnn.hpp"
#include "cells/elman.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "forward.hpp"

namespace throughtime {
namespace {

template <class S, template <class> class CellOf> struct Engine {
    static size_t kept_bytes(const Sweep& it) { return Layer<S, CellOf>::kept_bytes(it); }
    static const char* plan(const Sweep& it) { return Layer<S, CellOf>::plan(it); }
    static void forward(const Sweep& it) { Forward<S, CellOf>::run(it); }
    static void backward(const Sweep& it, const Gradients& to) { Backward<S, CellOf>::run(it, to); }
};

}  // namespace
}  // namespace throughtime

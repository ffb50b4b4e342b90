// One instruction set's kernel: this file is compiled once for each, with its own flags and three definitions:
// THROUGHTIME_KERNEL (the symbol), THROUGHTIME_NAME (its name), THROUGHTIME_BYTES (of a vector).
#include "kernel.hpp"
#include "lags.hpp"
#include "online.hpp"
#include "sweep.hpp"

namespace throughtime {
namespace {

// Calls `with` on the engine of the cell and number type that are asked for.
template <class S, class With> auto engine_of(CellKind cell, const With& with) {
    switch (cell) {
        case CellKind::elman: return with(static_cast<Engine<S, Elman>*>(nullptr));
        case CellKind::ctrnn: return with(static_cast<Engine<S, Ctrnn>*>(nullptr));
        case CellKind::gru: return with(static_cast<Engine<S, Gru>*>(nullptr));
        default: return with(static_cast<Engine<S, Lstm>*>(nullptr));
    }
}

template <class With> auto dispatch(const Sweep& it, bool is_double, const With& with) {
    return is_double ? engine_of<double>(it.cell, with) : engine_of<float>(it.cell, with);
}

size_t kept_bytes(const Sweep& it, bool is_double) {
    return dispatch(it, is_double, [&](auto* engine) { return engine->kept_bytes(it); });
}

const char* plan(const Sweep& it, bool is_double) {
    return dispatch(it, is_double, [&](auto* engine) { return engine->plan(it); });
}

void forward(const Sweep& it, bool is_double) {
    dispatch(it, is_double, [&](auto* engine) { engine->forward(it); });
}

void backward(const Sweep& it, const Gradients& to, bool is_double) {
    dispatch(it, is_double, [&](auto* engine) { engine->backward(it, to); });
}

void lags(const Lags& it, bool is_double) {
    if (is_double) LagSweep<double>::run(it);
    else LagSweep<float>::run(it);
}

template <class S, class With> auto learner_of(CellKind cell, const With& with) {
    switch (cell) {
        case CellKind::elman: return with(static_cast<Learner<S, Elman>*>(nullptr));
        case CellKind::ctrnn: return with(static_cast<Learner<S, Ctrnn>*>(nullptr));
        case CellKind::gru: return with(static_cast<Learner<S, Gru>*>(nullptr));
        default: return with(static_cast<Learner<S, Lstm>*>(nullptr));
    }
}

template <class With> auto dispatch(const Online& it, bool is_double, const With& with) {
    return is_double ? learner_of<double>(it.cell, with) : learner_of<float>(it.cell, with);
}

OnlineSizes online_sizes(const Online& it, bool is_double) {
    return dispatch(it, is_double, [&](auto* kind) { return kind->sizes(it); });
}

void learn(const Online& it, const Steps& steps, bool is_double) {
    dispatch(it, is_double, [&](auto* kind) { kind->learn(it, steps); });
}

void predict(const Online& it, const void* x, bool reset, void* prediction, bool is_double) {
    dispatch(it, is_double, [&](auto* kind) { kind->predict(it, x, reset, prediction); });
}

void pack(const Online& it, void* packed, const Unpacked& to, bool out, bool is_double) {
    dispatch(it, is_double, [&](auto* kind) { kind->pack(it, packed, to, out); });
}

// Chains of products as many as hide the latency of one.
double flops_of_one_thread() {
    constexpr int chains = 12;
    constexpr long rounds = 30000000;  // long enough for the clock that a processor keeps up, not the one it starts with
    V<float> sum[chains], a = all(0.999f), b = all(1e-3f);
    for (int chain = 0; chain < chains; ++chain) sum[chain] = all(float(chain));  // equal ones would be made one
    double start = seconds();
    for (long round = 0; round < rounds; ++round)
#pragma GCC unroll 12
        for (int chain = 0; chain < chains; ++chain) sum[chain] = fma(sum[chain], a, b);
    double time = seconds() - start;
    float total = 0;
    for (int chain = 0; chain < chains; ++chain) total += sum[chain][0];
    volatile float used = total;
    (void)used;
    return 2.0 * chains * lanes<float> * double(rounds) / time;
}

double peak(int threads) {
    double total[64] = {};
    parallel(threads < 64 ? threads : 64, [&](int thread, int granted) {
        barrier(granted);
        total[thread] = flops_of_one_thread();
    });
    double sum = 0;
    for (double one : total) sum += one;
    return sum / 1e9;
}

}  // namespace

extern const Kernel THROUGHTIME_KERNEL;
const Kernel THROUGHTIME_KERNEL = {THROUGHTIME_NAME, THROUGHTIME_BYTES, kept_bytes, plan, forward, backward,
                                   lags,            online_sizes,      learn,      predict, pack, peak};

}  // namespace throughtime

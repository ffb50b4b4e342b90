// The Python face: pointers come as integers, Python has checked shapes, dtypes and lifetimes (kernels/native.py).
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel.hpp"
#include "pool.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace throughtime;

namespace {

using Pointer = uintptr_t;

// The kernels that this processor can run, best first.
std::vector<const Kernel*> runnable() {
    std::vector<const Kernel*> kernels;
#if defined(THROUGHTIME_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma"))
        kernels.push_back(&kernel_avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(&kernel_avx2);
#endif
    kernels.push_back(&kernel_baseline);
    return kernels;
}

const std::vector<const Kernel*> kernels = runnable();
std::atomic<const Kernel*> chosen{kernels.front()};

// What forward leaves for backward; its memory goes back to the pool with it.
struct Kept {
    const Kernel* kernel;
    Keep keep;
    Block block;
};

// One layer in one direction, as Python describes it.
struct Task : Sweep {
    bool is_double;
};

Task task(int cell, int phi, double alpha, bool is_double, std::vector<int64_t> sizes, Pointer x,
          std::vector<int64_t> x_strides, bool ids, std::vector<Pointer> weights, std::vector<Pointer> s0, Pointer reset,
          Pointer lengths, Pointer y, std::vector<int64_t> y_strides, int threads) {
    Task it{};
    it.cell = CellKind(cell);
    it.phi = Phi(phi);
    it.alpha = alpha;
    it.is_double = is_double;
    it.T = sizes.at(0), it.B = sizes.at(1), it.I = sizes.at(2), it.H = sizes.at(3);
    if (ids) {
        it.ids = reinterpret_cast<const int64_t*>(x);
        it.ids_t = x_strides.at(0), it.ids_b = x_strides.at(1);
    } else {
        it.x = reinterpret_cast<const void*>(x);
        it.x_t = x_strides.at(0), it.x_b = x_strides.at(1), it.x_i = x_strides.at(2);
    }
    it.W_x = reinterpret_cast<const void*>(weights.at(0));
    it.W_h = reinterpret_cast<const void*>(weights.at(1));
    it.b_x = reinterpret_cast<const void*>(weights.at(2));
    it.b_h = reinterpret_cast<const void*>(weights.at(3));
    for (size_t slot = 0; slot < s0.size() && slot < 2; ++slot) it.s0[slot] = reinterpret_cast<const void*>(s0[slot]);
    it.reset = reinterpret_cast<const uint8_t*>(reset);
    it.lengths = reinterpret_cast<const int64_t*>(lengths);
    it.y = reinterpret_cast<void*>(y);
    it.y_t = y_strides.at(0), it.y_b = y_strides.at(1);
    it.threads = threads < 1 ? 1 : threads;
    return it;
}

std::string plan(int cell, bool is_double, std::vector<int64_t> sizes, int threads) {
    Sweep it{};
    it.cell = CellKind(cell);
    it.T = sizes.at(0), it.B = sizes.at(1), it.I = sizes.at(2), it.H = sizes.at(3);
    it.threads = threads < 1 ? 1 : threads;
    return chosen.load()->plan(it, is_double);
}

nb::object forward(Task it, std::vector<Pointer> last, int keep) {
    for (size_t slot = 0; slot < last.size() && slot < 2; ++slot) it.last[slot] = reinterpret_cast<void*>(last[slot]);
    const Kernel* kernel = chosen;
    it.keep = Keep(keep);
    std::unique_ptr<Kept> kept;
    {
        nb::gil_scoped_release released;
        if (it.keep != Keep::nothing) {
            kept.reset(new Kept{kernel, it.keep, Block(kernel->kept_bytes(it, it.is_double))});
            it.kept = kept->block.data();
        }
        kernel->forward(it, it.is_double);
    }
    return kept ? nb::cast(kept.release(), nb::rv_policy::take_ownership) : nb::none();
}

void backward(Task it, const Kept& kept, Pointer dy, std::vector<int64_t> dy_strides, std::vector<Pointer> dlast,
              Pointer dx, std::vector<Pointer> dweights, std::vector<Pointer> ds0) {
    Gradients to{};
    to.dy = reinterpret_cast<const void*>(dy);
    if (dy) to.dy_t = dy_strides.at(0), to.dy_b = dy_strides.at(1), to.dy_i = dy_strides.at(2);
    to.dx = reinterpret_cast<void*>(dx);
    to.dW_x = reinterpret_cast<void*>(dweights.at(0));
    to.dW_h = reinterpret_cast<void*>(dweights.at(1));
    to.db_x = reinterpret_cast<void*>(dweights.at(2));
    to.db_h = reinterpret_cast<void*>(dweights.at(3));
    for (size_t slot = 0; slot < 2; ++slot) {
        if (slot < dlast.size()) to.dlast[slot] = reinterpret_cast<const void*>(dlast[slot]);
        if (slot < ds0.size()) to.ds0[slot] = reinterpret_cast<void*>(ds0[slot]);
    }
    it.keep = kept.keep;
    it.kept = kept.block.data();
    nb::gil_scoped_release released;
    kept.kernel->backward(it, to, it.is_double);
}

void lags(bool is_double, std::vector<int64_t> sizes, double gamma, std::vector<Pointer> dv, std::vector<Pointer> ds, Pointer W_h,
          Pointer errors, Pointer reset, std::vector<Pointer> out, int threads) {
    Lags it{};
    it.T = sizes.at(0), it.B = sizes.at(1), it.G = sizes.at(2), it.H = sizes.at(3), it.fresh = sizes.at(4), it.h = sizes.at(5);
    it.S = int64_t(out.size());
    it.gamma = gamma;
    for (size_t slot = 0; slot < out.size(); ++slot) {
        it.dv[slot] = reinterpret_cast<const void*>(dv.at(slot));
        it.out[slot] = reinterpret_cast<void*>(out[slot]);
        for (size_t after = 0; after < out.size(); ++after)
            it.ds[slot][after] = reinterpret_cast<const void*>(ds.at(slot * out.size() + after));
    }
    it.W_h = reinterpret_cast<const void*>(W_h);
    it.errors = reinterpret_cast<const void*>(errors);
    it.reset = reinterpret_cast<const uint8_t*>(reset);
    it.threads = threads < 1 ? 1 : threads;
    chosen.load()->lags(it, is_double);
}

// A layer that learns online, as Python describes it.
struct Learner : Online {
    bool is_double;
    const Kernel* kernel;
};

Learner online(std::vector<int> kinds, double alpha, bool is_double, std::vector<int64_t> sizes, bool replay, std::vector<double> rule) {
    Learner it{};
    it.cell = CellKind(kinds.at(0));
    it.phi = Phi(kinds.at(1));
    it.loss = Loss(kinds.at(2));
    it.rule = Rule(kinds.at(3));
    it.alpha = alpha;
    it.is_double = is_double;
    it.I = sizes.at(0), it.H = sizes.at(1), it.A = sizes.at(2), it.h = sizes.at(3), it.every = sizes.at(4);
    it.replay = replay;
    it.rate = rule.at(0), it.momentum = rule.at(1), it.decay = rule.at(2), it.epsilon = rule.at(3);
    it.kernel = chosen;
    return it;
}

void hold(Learner& it, Pointer weights, std::vector<Pointer> slots, Pointer past, Pointer clock) {
    it.weights = reinterpret_cast<void*>(weights);
    for (size_t slot = 0; slot < slots.size() && slot < 2; ++slot) it.slots[slot] = reinterpret_cast<void*>(slots[slot]);
    it.past = reinterpret_cast<void*>(past);
    it.clock = reinterpret_cast<int64_t*>(clock);
}

void learn(const Learner& it, int64_t T, Pointer x, Pointer y, Pointer mask, Pointer reset, Pointer prediction) {
    Steps steps{T, reinterpret_cast<const void*>(x), reinterpret_cast<const void*>(y), reinterpret_cast<const uint8_t*>(mask),
                reinterpret_cast<const uint8_t*>(reset), reinterpret_cast<void*>(prediction)};
    it.kernel->learn(it, steps, it.is_double);
}

void predict(const Learner& it, Pointer x, bool reset, Pointer prediction) {
    it.kernel->predict(it, reinterpret_cast<const void*>(x), reset, reinterpret_cast<void*>(prediction), it.is_double);
}

void pack(const Learner& it, Pointer packed, std::vector<Pointer> own, bool out) {
    auto at = [&](size_t which) { return reinterpret_cast<void*>(own.at(which)); };
    it.kernel->pack(it, reinterpret_cast<void*>(packed), {at(0), at(1), at(2), at(3), at(4), at(5)}, out, it.is_double);
}

std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const Kernel* kernel : kernels) names.emplace_back(kernel->name);
    return names;
}

void use(const std::string& name) {
    for (const Kernel* kernel : kernels)
        if (kernel->name == name) {
            chosen = kernel;
            return;
        }
    throw std::invalid_argument("name must be an instruction set that this processor has; got '" + name + "'.");
}

}  // namespace

NB_MODULE(_native, module) {
    nb::set_leak_warnings(false);  // a graph that is alive when Python ends holds what it kept, and that is no leak
    module.doc() = "Compiled sweeps: see csrc/kernel.hpp for what each argument is.";
    nb::class_<Task>(module, "Task");
    nb::class_<Kept>(module, "Kept").def_prop_ro("bytes", [](const Kept& kept) { return kept.block.size(); });
    module.def("task", &task, "Describe one layer in one direction; pointers as integers, 0 for none.");
    module.def("plan", &plan, "What the threads do in a layer of these sizes, T, B, I, H.");
    module.def("forward", &forward, "Run a task; returns what backward needs, None where nothing is kept.");
    module.def("backward", &backward, "Run a task's backward; each gradient with a pointer is written.");
    module.def("lags", &lags, nb::call_guard<nb::gil_scoped_release>(), "Carry errors back over h lags at once.");
    nb::class_<Learner>(module, "Learner")
        .def_prop_ro("sizes", [](const Learner& it) {
            OnlineSizes sizes = it.kernel->online_sizes(it, it.is_double);
            return std::vector<int64_t>{sizes.weights, sizes.past};
        })
        .def("hold", &hold, "Work on these arrays from now on.")
        .def("learn", &learn, nb::call_guard<nb::gil_scoped_release>(), "Learn from T steps.")
        .def("predict", &predict, nb::call_guard<nb::gil_scoped_release>(), "Predict one step; nothing moves.")
        .def("pack", &pack, "Weights or a slot from torch's layout, or out of ours.");
    module.def("online", &online, "Describe a layer that learns online.");
    module.def("instruction_sets", &names, "The instruction sets that this processor can run, best first.");
    module.def("instruction_set", [] { return std::string(chosen.load()->name); }, "The one in use.");
    module.def("use", &use, "Use another instruction set from now on; for tests.");
    module.def("openmp", &has_openmp, "Whether it was built with OpenMP; without it one thread runs.");
    module.def("peak", [](int threads) { return chosen.load()->peak(threads); }, nb::call_guard<nb::gil_scoped_release>(),
               "Measured float32 FMA peak of some threads, GFLOP/s.");
    module.def("latency", &core_latency, nb::call_guard<nb::gil_scoped_release>(),
               "One way between two threads' cores, ns; 0 where only one thread is granted.");
}

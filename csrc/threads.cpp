// What of the threads need not be compiled for each instruction set.
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <thread>

namespace throughtime {

bool has_openmp() {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
}

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void give_way() { std::this_thread::yield(); }

static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Threads that share a core would wait for each other's time slices: for `limit` seconds at most.
static double ping_pong(int rounds, double limit) {
    std::atomic<int> turn{0};
    std::atomic<bool> late{false};
    double time = 0;
    parallel(2, [&](int thread, int threads) {
        if (threads < 2) return;
        double start = seconds();
        for (int round = 0; round < rounds && !late; ++round) {
            for (long spin = 1; turn.load(std::memory_order_acquire) != 2 * round + thread && !late; ++spin) {
                relax();
                if (spin % 1024 == 0 && seconds() - start > limit) late = true;
            }
            turn.store(2 * round + thread + 1, std::memory_order_release);
        }
        if (thread == 0 && !late) time = seconds() - start;
    });
    return time / (2 * rounds) * 1e9;
}

double core_latency() { return ping_pong(20000, 0.2); }

double recent_latency() {
    constexpr double lasts = 10, unknown = 1e9;
    static std::atomic<double> latency{unknown}, measured{-lasts};
    if (seconds() - measured > lasts) {
        measured = seconds();
        double found = ping_pong(1000, 0.01);
        latency = found > 0 ? found : unknown;
    }
    return latency;
}

}  // namespace throughtime

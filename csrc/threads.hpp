// Threads are torch's: OpenMP regions, no pool of our own (two runtimes on the same cores would spin against each other).
#pragma once
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace throughtime {

bool has_openmp();

// Seconds of a clock that never goes back.
double seconds();

// One way between the cores of two threads, ns; 0 where only one thread is granted, or both share a core.
double core_latency();

// The same as it was a few seconds ago: a host moves virtual cores nearer and farther.
double recent_latency();

// While this lives, numbers below the smallest normal one count as 0 on its thread: an error that has vanished would else
// take ten times as long to carry on as one that has not.
class FlushTiny {
#if defined(__SSE__)
    unsigned before = __builtin_ia32_stmxcsr();

public:
    FlushTiny() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~FlushTiny() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;

public:
    FlushTiny() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" : : "r"(before | (uint64_t(1) << 24)));
    }
    ~FlushTiny() { asm volatile("msr fpcr, %0" : : "r"(before)); }
#else
public:
    FlushTiny() {}
    ~FlushTiny() {}
#endif
    FlushTiny(const FlushTiny&) = delete;
    FlushTiny& operator=(const FlushTiny&) = delete;
};

// Runs work(thread, threads) on at most `threads` threads; inside another parallel region on one.
template <class Work>
static void parallel([[maybe_unused]] int threads, const Work& work) {
#if defined(_OPENMP)
    if (threads > 1 && !omp_in_parallel()) {
#pragma omp parallel num_threads(threads)
        {
            FlushTiny flush;
            work(omp_get_thread_num(), omp_get_num_threads());
        }
        return;
    }
#endif
    FlushTiny flush;
    work(0, 1);
}

// All threads of the region that called `work` wait here for each other.
static inline void barrier([[maybe_unused]] int threads) {
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp barrier
    }
#endif
}

// Lets another thread of this core run.
void give_way();

// Where a few threads wait for each other at every step of time: a count of each on a cache line of its own, all 0 at first.
// A wait costs one way between the cores and back, a third of OpenMP's barrier.
struct Meeting {
    static constexpr int line = 16;
    uint32_t* counts;

    void meet(int thread, int threads) const {
        if (threads == 1) return;
        uint32_t mine = counts[thread * line] + 1;
        __atomic_store_n(counts + thread * line, mine, __ATOMIC_RELEASE);
        for (int other = 0; other < threads; ++other)
            for (long tries = 0; int32_t(__atomic_load_n(counts + other * line, __ATOMIC_ACQUIRE) - mine) < 0; ++tries)
                if (tries > 20000) give_way();  // it is not running: its core may be this one
    }
};

}  // namespace throughtime

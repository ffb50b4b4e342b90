// What a kernel is asked for: one layer in one direction, forward or back through time. Pointers and sizes only.
//
// S is float or double. All strides count elements and may be 0 or negative unless said otherwise.
// Nothing that is written may overlap anything else. A null pointer means: not given, or not wanted.
#pragma once
#include <cstddef>
#include <cstdint>

namespace throughtime {

enum class CellKind : int { elman, ctrnn, gru, lstm };
enum class Phi : int { tanh, relu, sigmoid, identity };

// What a forward pass leaves for the backward pass beside x and y.
//   gates   what the cell's derivative needs of every step
//   states  only what y does not tell: the cells c of an LSTM at the start of every segment; gates are rebuilt
enum class Keep : int { nothing, gates, states };

struct Sweep {
    CellKind cell;
    Phi phi;          // elman and ctrnn
    double alpha;     // ctrnn
    int64_t T, B, I, H;

    const void* x;    // (T, B, I) of S; null where ids are given
    int64_t x_t, x_b, x_i;
    const int64_t* ids;  // (T, B): x is the one-hot row of each id, 0 <= id < I
    int64_t ids_t, ids_b;

    const void* W_x;  // (G H, I) contiguous
    const void* W_h;  // (G H, H) contiguous
    const void* b_x;  // (G H) or null
    const void* b_h;  // (G H) or null
    const void* s0[2];       // (B, H) contiguous each; slots of the cell
    const uint8_t* reset;    // (T, B) contiguous, 1: the row restarts from zeros before this step; or null
    const int64_t* lengths;  // (B), 0 <= length <= T; or null: T each

    void* y;          // (T, B, H), written by forward (zeros after a row's last step), read by backward
    int64_t y_t, y_b; // its units are contiguous
    void* last[2];    // (B, H) contiguous each, written by forward; may be null

    Keep keep;
    void* kept;       // kept_bytes(...) bytes aligned to 64, written by forward, read by backward
    int threads;      // at most; at least 1
};

struct Gradients {
    const void* dy;   // (T, B, H) or null; steps after a row's last one are not read
    int64_t dy_t, dy_b, dy_i;  // dy_i is 0 or 1
    const void* dlast[2];  // (B, H) contiguous each, or null
    void* dx;         // (T, B, I) contiguous, written; or null
    void* dW_x;       // as the weights, contiguous, written; or null
    void* dW_h;
    void* db_x;
    void* db_h;
    void* ds0[2];     // (B, H) contiguous each, written; or null
};

// The backward half of all windows of BPTT(h; 1) at once, of one layer whose backward step is given as factors.
struct Lags {
    int64_t T, B, G, H, S;  // S slots: 1 or 2; G gates: at most 4
    int64_t fresh, h;       // only the last `fresh` steps have errors
    double gamma;           // the weight of an error falls by this factor a step
    const void* dv[2];      // of each slot (T, B, G, H): dv for ds
    const void* ds[2][2];   // of each slot before the step, for each slot after it, (T, B, H); null where 0
    const void* W_h;        // (G H, H)
    const void* errors;     // (T, B, H)
    const uint8_t* reset;   // (T, B) or null
    void* out[2];           // of each slot (T, B, H), written: the sum over the lags below h; all contiguous
    int threads;
};

// Errors of a step: half the squared error of every output, or -ln softmax of the class that was seen.
enum class Loss : int { squared, softmax };

// sgd with its momentum, which may be 0; adam (Kingma and Ba 2015). Both as torch.optim computes them.
enum class Rule : int { sgd, adam };

// One layer with a linear readout that learns by BPTT(h; every) while its stream of one row passes.
//
// The four arrays belong to the caller and hold all that lasts from call to call. Their parts begin at multiples of 64
// bytes in every instruction set, so that an array may be written by one and read by another.
struct Online {
    CellKind cell;
    Phi phi;
    double alpha;
    int64_t I, H, A;  // at least 1
    int64_t h, every; // 1 <= every <= h
    bool replay;      // the window is run again under the weights of now; else the activations of then are used
    Loss loss;
    Rule rule;
    double rate, momentum, decay, epsilon;  // momentum and decay are adam's beta1 and beta2

    void* weights;     // OnlineSizes::weights of S, aligned to 64, written; what fills up a part is 0
    void* slots[2];    // as the weights: momentum, or the two moments; null where the rule has none
    void* past;        // OnlineSizes::past of S, aligned to 64, written; all 0 before the first step
    int64_t* clock;    // 4: end and length of the window, steps not settled yet, updates made; written
};

struct OnlineSizes {
    int64_t weights, past;  // numbers, of S
};

// Steps of the stream. Nothing may overlap the arrays of Online.
struct Steps {
    int64_t T;
    const void* x;          // (T, I) contiguous
    const void* y;          // (T, A) contiguous of S, or (T) int64 classes, 0 <= class < A; may be null where nothing counts
    const uint8_t* mask;    // (T): 0 where a step has no target; null: all have one
    const uint8_t* reset;   // (T): 1 where a sequence starts anew before the step; null: nowhere
    void* prediction;       // (T, A) contiguous, written: what is predicted before the target is learned, for softmax
                            // the probabilities; or null
};

// The weights as torch has them: W_x (G H, I), W_h (G H, H), b_x and b_h (G H), W_q (A, H), b_q (A), contiguous.
struct Unpacked {
    void *W_x, *W_h, *b_x, *b_h, *W_q, *b_q;
};

// The functions of one instruction set.
struct Kernel {
    const char* name;
    int bytes;  // of a vector
    size_t (*kept_bytes)(const Sweep&, bool is_double);
    const char* (*plan)(const Sweep&, bool is_double);  // what its threads do, in words; nothing but sizes is read
    void (*forward)(const Sweep&, bool is_double);
    void (*backward)(const Sweep&, const Gradients&, bool is_double);
    void (*lags)(const Lags&, bool is_double);
    OnlineSizes (*online_sizes)(const Online&, bool is_double);
    void (*learn)(const Online&, const Steps&, bool is_double);
    // What would be predicted of one x (I) from here; nothing but prediction (A) is written.
    void (*predict)(const Online&, const void* x, bool reset, void* prediction, bool is_double);
    // One array laid out as weights, into torch's layout or out of it.
    void (*pack)(const Online&, void* packed, const Unpacked&, bool out, bool is_double);
    double (*peak)(int threads);  // float32 FMA of this instruction set, GFLOP/s
};

extern const Kernel kernel_baseline;
#if defined(THROUGHTIME_X86)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
#endif

}  // namespace throughtime

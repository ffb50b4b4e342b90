// Vectors of the instruction set that this translation unit is compiled for, and the functions of the cells on them.
//
// Everything here has internal linkage: the same source is compiled once per instruction set, and the linker must
// never put one set's copy in the place of another's. For the same reason no standard template is used below.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define TT_INLINE static inline __attribute__((always_inline))

namespace throughtime {
namespace {

template <class S> struct Vector;

template <> struct Vector<float> {
    static constexpr int lanes = THROUGHTIME_BYTES / 4;
    typedef float type __attribute__((vector_size(THROUGHTIME_BYTES)));
    // Loads and stores go through this type; memcpy makes g++ 12 split a 32-byte load into two copies on the stack.
    typedef float loose __attribute__((vector_size(THROUGHTIME_BYTES), aligned(4), may_alias));
    typedef int32_t bits __attribute__((vector_size(THROUGHTIME_BYTES)));
    static constexpr float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    static constexpr int mantissa = 23;
    static constexpr int32_t bias = 127;
    static constexpr float lowest = -87.0f;  // exp of it is a normal number
};

template <> struct Vector<double> {
    static constexpr int lanes = THROUGHTIME_BYTES / 8;
    typedef double type __attribute__((vector_size(THROUGHTIME_BYTES)));
    typedef double loose __attribute__((vector_size(THROUGHTIME_BYTES), aligned(8), may_alias));
    typedef int64_t bits __attribute__((vector_size(THROUGHTIME_BYTES)));
    static constexpr double shift = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr int mantissa = 52;
    static constexpr int64_t bias = 1023;
    static constexpr double lowest = -708.0;
};

template <class S> using V = typename Vector<S>::type;
template <class S> constexpr int lanes = Vector<S>::lanes;

template <class S> TT_INLINE V<S> load(const S* p) { return *reinterpret_cast<const typename Vector<S>::loose*>(p); }
template <class S> TT_INLINE void store(S* p, V<S> v) { *reinterpret_cast<typename Vector<S>::loose*>(p) = v; }
template <class S> TT_INLINE V<S> all(S value) { return value - V<S>{}; }

// a * b + c, rounded once where the processor can; the same instruction wherever it is written.
#if defined(__AVX512F__) && THROUGHTIME_BYTES == 64
TT_INLINE V<float> fma(V<float> a, V<float> b, V<float> c) { return _mm512_fmadd_ps(a, b, c); }
TT_INLINE V<double> fma(V<double> a, V<double> b, V<double> c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__FMA__) && THROUGHTIME_BYTES == 32
TT_INLINE V<float> fma(V<float> a, V<float> b, V<float> c) { return _mm256_fmadd_ps(a, b, c); }
TT_INLINE V<double> fma(V<double> a, V<double> b, V<double> c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
TT_INLINE V<float> fma(V<float> a, V<float> b, V<float> c) { return (V<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
TT_INLINE V<double> fma(V<double> a, V<double> b, V<double> c) { return (V<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#else
template <class T> TT_INLINE T fma(T a, T b, T c) { return a * b + c; }
#endif

// The greater of a limit and x; NaN in x stays, as in the processor's own instructions, which return their second operand.
#if defined(__AVX512F__) && THROUGHTIME_BYTES == 64
TT_INLINE V<float> at_least(V<float> limit, V<float> x) { return _mm512_max_ps(limit, x); }
TT_INLINE V<double> at_least(V<double> limit, V<double> x) { return _mm512_max_pd(limit, x); }
#elif defined(__AVX__) && THROUGHTIME_BYTES == 32
TT_INLINE V<float> at_least(V<float> limit, V<float> x) { return _mm256_max_ps(limit, x); }
TT_INLINE V<double> at_least(V<double> limit, V<double> x) { return _mm256_max_pd(limit, x); }
#else
template <class T> TT_INLINE T at_least(T limit, T x) { return x < limit ? limit : x; }
#endif

// The first n lanes; the others are zeros.
template <class S> TT_INLINE V<S> load_some(const S* p, int n) {
    if (n >= lanes<S>) return load(p);
    V<S> v{};
    for (int lane = 0; lane < n; ++lane) v[lane] = p[lane];
    return v;
}
// The coefficients of expm1(r) = r + r^2 (1/2 + r/6 + ...) on |r| <= ln 2 / 2, from the highest power down.
template <class S> struct Exponential;
template <> struct Exponential<float> {
    // Minimax coefficients as in Cephes' expf (Moshier 1989).
    static constexpr float terms[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                      4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <> struct Exponential<double> {
    // Taylor's: the first term left out, r^14 / 14!, is below 2e-17 of r.
    static constexpr double terms[] = {1.6059043836821613e-10, 2.0876756987868099e-9, 2.5052108385441719e-8,
                                       2.7557319223985891e-7,  2.7557319223985891e-6, 2.4801587301587302e-5,
                                       1.9841269841269841e-4,  1.3888888888888889e-3, 8.3333333333333333e-3,
                                       4.1666666666666667e-2,  1.6666666666666667e-1, 0.5};
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};

// exp(x) = 2^n (1 + m) where |x| <= -lowest; below `lowest` x counts as `lowest`. NaN goes through.
template <class S> struct Parts {
    V<S> power, m;
};
template <class S> TT_INLINE Parts<S> split_exp(V<S> x) {
    using E = Exponential<S>;
    using Bits = typename Vector<S>::bits;
    x = at_least(all<S>(Vector<S>::lowest), x);
    V<S> shifted = fma(x, all<S>(S(1.4426950408889634)), all<S>(Vector<S>::shift));
    V<S> n = shifted - all<S>(Vector<S>::shift);
    V<S> r = fma(n, all<S>(-E::ln2_high), x);
    r = fma(n, all<S>(-E::ln2_low), r);
    V<S> p = all<S>(E::terms[0]);
    for (unsigned term = 1; term < sizeof(E::terms) / sizeof(S); ++term) p = fma(p, r, all<S>(E::terms[term]));
    // The low bits of `shifted` are n; two shifts leave n + bias in the exponent.
    Bits whole = (Bits)shifted + Vector<S>::bias;
    return {(V<S>)(whole << Vector<S>::mantissa), fma(p * r, r, r)};
}

template <class S> TT_INLINE V<S> magnitude(V<S> x, V<S>& sign) {
    using Bits = typename Vector<S>::bits;
    Bits top = (Bits)all<S>(S(-0.0));
    sign = (V<S>)((Bits)x & top);
    return (V<S>)((Bits)x & ~top);
}

// tanh |x| = -m / (m + 2) with m = expm1(-2 |x|): relative accuracy is kept near 0.
template <class S> TT_INLINE V<S> tanh(V<S> x) {
    using Bits = typename Vector<S>::bits;
    V<S> sign;
    V<S> size = magnitude<S>(x, sign);
    Parts<S> e = split_exp<S>(all<S>(S(-2)) * size);
    V<S> m = fma(e.power, e.m, e.power - all<S>(S(1)));
    V<S> t = (all<S>(S(0)) - m) / (m + all<S>(S(2)));
    return (V<S>)((Bits)t | (Bits)sign);
}

template <class S> TT_INLINE V<S> sigmoid(V<S> x) {
    Parts<S> e = split_exp<S>(-at_least(all<S>(Vector<S>::lowest), x));
    return all<S>(S(1)) / (all<S>(S(1)) + fma(e.power, e.m, e.power));
}

}  // namespace
}  // namespace throughtime

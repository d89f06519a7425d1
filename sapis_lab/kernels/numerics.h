// Small functions of rows and of lanes: exponentials, SiLU, sums, and weights per head as lanes.

#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "gemm.h"

#define IVDEP _Pragma("GCC ivdep")  // rows of different arrays do not overlap

namespace sapis {

template <class T> inline typename Lanes<T>::v8 all(T x) { return typename Lanes<T>::v8{} + x; }

// exp in float, relative error 2e-7: 2^n times a polynomial on |r| <= ln 2 / 2.
inline void exponentials(float* x, int64_t n) {
    typedef int32_t i16 __attribute__((vector_size(64)));
    for (int64_t k = 0; k < n; k += 16) {
        f16 v;
        int64_t width = std::min<int64_t>(16, n - k);
        if (width == 16)
            v = load<f16>(x + k);
        else {
            v = f16{};
            std::memcpy(&v, x + k, width * sizeof(float));
        }
        v = v > 88.0f ? f16{} + 88.0f : v;
        v = v < -87.0f ? f16{} - 87.0f : v;  // NaN passes both
        f16 scaled = v * 1.44269504f;
        i16 whole = __builtin_convertvector(scaled + (scaled > 0.0f ? f16{} + 0.5f : f16{} - 0.5f), i16);
        f16 count = __builtin_convertvector(whole, f16);
        f16 r = (v - count * 0.693359375f) - count * -2.12194440e-4f;
        f16 p = 1.9875691500e-4f * r + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * r * r + r + 1.0f;
        f16 result = p * (f16)((whole + 127) << 23);
        result = v == v ? result : v;
        if (width == 16)
            store(x + k, result);
        else
            std::memcpy(x + k, &result, width * sizeof(float));
    }
}
inline void exponentials(double* x, int64_t n) {
    IVDEP
    for (int64_t k = 0; k < n; k++) x[k] = std::exp(x[k]);
}

template <class T> inline T sum8(typename Lanes<T>::v8 v) {
    T s[8];
    std::memcpy(s, &v, sizeof s);
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

// A weight per head as lanes, and back: lane j belongs to head j mod H.
template <class T> inline typename Lanes<T>::v8 expand(const T* per_head, int64_t heads) {
    typename Lanes<T>::v8 v;
    switch (heads) {
    case 8: return load<typename Lanes<T>::v8>(per_head);
    case 4:
        std::memcpy(&v, per_head, 4 * sizeof(T));
        std::memcpy(reinterpret_cast<T*>(&v) + 4, per_head, 4 * sizeof(T));
        return v;
    case 2:
        for (int j = 0; j < 8; j++) v[j] = per_head[j & 1];
        return v;
    default: return all<T>(per_head[0]);
    }
}
template <class T> inline void fold(T* per_head, typename Lanes<T>::v8 v, int64_t heads) {
    T s[8];
    std::memcpy(s, &v, sizeof s);
    for (int64_t width = 8; width > heads; width /= 2)
        for (int64_t j = 0; j < width / 2; j++) s[j] += s[j + width / 2];
    for (int64_t h = 0; h < heads; h++) per_head[h] = s[h];
}

template <class T> inline void add_rows(T* sum, int64_t rows, const T* y, int64_t yn, int64_t columns) {
    for (int64_t r = 0; r < rows; r++) IVDEP
    for (int64_t k = 0; k < columns; k++) sum[k] += y[r * yn + k];
}

template <class T> inline void fill_rows(T* y, int64_t rows, int64_t yn, const T* bias, int64_t columns) {
    for (int64_t r = 0; r < rows; r++) std::memcpy(y + r * yn, bias, columns * sizeof(T));
}

template <class T> inline void add_to(T* y, const T* x, int64_t n) {
    IVDEP
    for (int64_t k = 0; k < n; k++) y[k] += x[k];
}

// SiLU z sigma(z) on rows: values, and its first and second derivative from z and sigma.
template <class T> inline void sigmoid(const T* z, T* sigma, int64_t n) {
    IVDEP
    for (int64_t k = 0; k < n; k++) sigma[k] = -z[k];
    exponentials(sigma, n);
    IVDEP
    for (int64_t k = 0; k < n; k++) sigma[k] = 1 / (1 + sigma[k]);
}

template <class T> inline T silu_slope(T z, T sigma) { return sigma * (1 + z * (1 - sigma)); }

template <class T> inline T silu_curvature(T z, T sigma) {
    return sigma * (1 - sigma) * (2 + z * (1 - 2 * sigma));
}

}  // namespace sapis

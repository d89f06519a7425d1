// The parts of update (iii), each with its adjoint and the tangents of both:
//
//     <a, b>_l = sum_m a_m b_m / sqrt(2l + 1),   a (x) b = F ((G a) (G b)) with G to and F from the Lebedev
//     grid, gates_l times the product.

#pragma once
#include "geat_step.h"

namespace sapis {

// <a, b>_l of every coupling channel; a is the first, b the second half of the rows.
template <class T, int L>
inline void Geat<T, L>::pair_products(int64_t N, int64_t n, const T* a, const T* b, T* invariants,
                                      bool add) const {
    for (int l = 0; l < L; l++)
        for (int64_t k = 0; k < Wp; k += 8) {
            v8 sum{};
            for (int m = l * l; m < (l + 1) * (l + 1); m++)
                sum += load<v8>(a + (m * N + n) * 2 * Wp + k) * load<v8>(b + (m * N + n) * 2 * Wp + Wp + k);
            sum *= T(1 / std::sqrt(2 * l + 1.0));
            store(invariants + l * Wp + k, add ? load<v8>(invariants + l * Wp + k) + sum : sum);
        }
}

// adjoint: a~ += invariants~ b, b~ += invariants~ a.
template <class T, int L>
inline void Geat<T, L>::pair_products_adjoint(int64_t N, int64_t n, const T* invariants, const T* ab,
                                              T* adjoint) const {
    for (int l = 0; l < L; l++) {
        const T scale = T(1 / std::sqrt(2 * l + 1.0));
        for (int m = l * l; m < (l + 1) * (l + 1); m++) {
            const T* row = ab + (m * N + n) * 2 * Wp;
            T* out = adjoint + (m * N + n) * 2 * Wp;
            IVDEP
            for (int64_t k = 0; k < Wp; k++)
                out[k] += scale * invariants[l * Wp + k] * row[Wp + k],
                    out[Wp + k] += scale * invariants[l * Wp + k] * row[k];
        }
    }
}

// y = product * gate_l, rows of node_out hold the gates behind the scalars.
template <class T, int L>
inline void Geat<T, L>::gate(int64_t N, const T* x, const T* node_out, T* y, bool add) const {
    for (int m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            const T *g = node_out + n * CW + Cp + degree(m) * Wp, *row = x + (m * N + n) * Wp;
            T* out = y + (m * N + n) * Wp;
            IVDEP
            for (int64_t k = 0; k < Wp; k++) out[k] = (add ? out[k] : 0) + row[k] * g[k];
        }
}

template <class T, int L>
inline void Geat<T, L>::gate_adjoint(int64_t N, const T* yb, const T* x, T* node_out_b) const {  // adds
    for (int m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            T* g = node_out_b + n * CW + Cp + degree(m) * Wp;
            const T *row = yb + (m * N + n) * Wp, *other = x + (m * N + n) * Wp;
            IVDEP
            for (int64_t k = 0; k < Wp; k++) g[k] += row[k] * other[k];
        }
}

// a (x) b = F ((G a) (G b)); without the product, a is handed on.
template <class T, int L> inline void Geat<T, L>::to_grid_of(int64_t N, const T* ab, T* grid) const {
    gemm<T>(n_grid, N * 2 * Wp, M, to_grid.data(), M, 1, ab, N * 2 * Wp, grid, N * 2 * Wp, false);
}

template <class T, int L> inline void Geat<T, L>::copy_factors(int64_t N, const T* ab, T* x) const {
    for (int64_t r = 0; r < M * N; r++) std::memcpy(x + r * Wp, ab + r * 2 * Wp, Wp * sizeof(T));
}

template <class T, int L> inline void Geat<T, L>::product(int64_t N, Values<T>& v) const {
    if (!s.gaunt) return copy_factors(N, v.factors, v.product);
    to_grid_of(N, v.factors, v.grid);
    std::vector<T>& t = scratch<T>(1, n_grid * N * Wp);
    multiply(n_grid * N, v.grid, v.grid, t.data(), false);
    gemm<T>(M, N * Wp, n_grid, from_grid.data(), n_grid, 1, t.data(), N * Wp, v.product, N * Wp, false);
}

template <class T, int L>
inline void Geat<T, L>::multiply(int64_t rows, const T* a, const T* b, T* y, bool add) const {
    for (int64_t r = 0; r < rows; r++) IVDEP
    for (int64_t k = 0; k < Wp; k++)
        y[r * Wp + k] = (add ? y[r * Wp + k] : 0) + a[r * 2 * Wp + k] * b[r * 2 * Wp + Wp + k];
}

template <class T, int L>
inline void Geat<T, L>::product_tangent(int64_t N, const Values<T>& v, Values<T>& t) const {
    if (!s.gaunt) return copy_factors(N, t.factors, t.product);
    to_grid_of(N, t.factors, t.grid);
    std::vector<T>& y = scratch<T>(1, n_grid * N * Wp);
    multiply(n_grid * N, t.grid, v.grid, y.data(), false);
    multiply(n_grid * N, v.grid, t.grid, y.data(), true);
    gemm<T>(M, N * Wp, n_grid, from_grid.data(), n_grid, 1, y.data(), N * Wp, t.product, N * Wp, false);
}

// b.product: adjoint of the product; b.grid: first half the adjoint on the grid.  Adds to b.factors.
template <class T, int L>
inline void Geat<T, L>::product_adjoint(int64_t N, const Values<T>& v, Values<T>& b) const {
    if (!s.gaunt) {
        for (int64_t r = 0; r < M * N; r++) add_to(b.factors + r * 2 * Wp, b.product + r * Wp, Wp);
        return;
    }
    gemm<T>(n_grid, N * Wp, M, from_grid_t.data(), M, 1, b.product, N * Wp, b.grid, N * Wp, false);
    std::vector<T>& both = scratch<T>(1, n_grid * N * 2 * Wp);
    swap_multiply(n_grid * N, b.grid, v.grid, both.data(), false);
    gemm<T>(M, N * 2 * Wp, n_grid, to_grid_t.data(), n_grid, 1, both.data(), N * 2 * Wp, b.factors,
            N * 2 * Wp, true);
}

template <class T, int L>
inline void Geat<T, L>::product_adjoint_tangent(int64_t N, const Values<T>& v, const Values<T>& t,
                                                const Values<T>& b, Values<T>& bd) const {
    if (!s.gaunt) {
        for (int64_t r = 0; r < M * N; r++) add_to(bd.factors + r * 2 * Wp, bd.product + r * Wp, Wp);
        return;
    }
    gemm<T>(n_grid, N * Wp, M, from_grid_t.data(), M, 1, bd.product, N * Wp, bd.grid, N * Wp, false);
    std::vector<T>& both = scratch<T>(1, n_grid * N * 2 * Wp);
    swap_multiply(n_grid * N, bd.grid, v.grid, both.data(), false);
    swap_multiply(n_grid * N, b.grid, t.grid, both.data(), true);
    gemm<T>(M, N * 2 * Wp, n_grid, to_grid_t.data(), n_grid, 1, both.data(), N * 2 * Wp, bd.factors,
            N * 2 * Wp, true);
}

template <class T, int L>
inline void Geat<T, L>::swap_multiply(int64_t rows, const T* y, const T* ab, T* out, bool add) const {
    for (int64_t r = 0; r < rows; r++) IVDEP
    for (int64_t k = 0; k < Wp; k++) {
        T *a = out + r * 2 * Wp + k, *b = a + Wp;
        *a = (add ? *a : 0) + y[r * Wp + k] * ab[r * 2 * Wp + Wp + k];
        *b = (add ? *b : 0) + y[r * Wp + k] * ab[r * 2 * Wp + k];
    }
}

}  // namespace sapis

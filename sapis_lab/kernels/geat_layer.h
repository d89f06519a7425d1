// One layer,   x -> x + m (ii),   x -> x + scalars + W (gates * a (x) b) (iii),   in four forms: forward,
// adjoint, and the tangents of both, the last with the gradients of its parameters. Forward and adjoint are
// in two parts: what every atom sends (`sources`: queries, keys and values, rows of its own), and what it
// makes of what its neighbours have sent (`receive`).

#pragma once
#include "geat_step.h"

namespace sapis {

template <class T, int L> inline void Geat<T, L>::sources(Chunk<T>& c, int64_t layer) const {
    const Weights<T>& a = w[layer];
    Values<T>& v = c.value[layer];
    Extra<T>& e = c.extra[layer];
    const int64_t N = c.n;
    norm(N, v.x, e.rho, v.xn, s.norm_attention);
    fill_rows(v.project, N, M * PR, a.project_bias, PR);
    for (int m = 0; m < M; m++) {
        const Map<T>& map = a.project[degree(m)];
        gemm<T>(N, PR, C, v.xn + m * N * Cp, Cp, 1, map.w, PR, v.project + m * PR, M * PR, m == 0);
    }
    dense(a.scalar_value, N, v.xn, Cp, C, v.scalar_value, Cp, false, false);
}

template <class T, int L> inline void Geat<T, L>::receive(Chunk<T>& c, int64_t layer) const {
    const Weights<T>& a = w[layer];
    Values<T>& v = c.value[layer];
    Extra<T>& e = c.extra[layer];
    const int64_t N = c.n, all_ = M * N * Cp;
    edges(c, a, v, e);
    std::memcpy(v.middle, v.x, all_ * sizeof(T));
    maps(a.merge, N, v.message, N * Cp, Cp, Cp, v.middle, N * Cp, Cp, true, false);
    norm(N, v.middle, e.rho_middle, v.xm, s.norm_update);
    maps(a.factors, N, v.xm, N * Cp, Cp, C, v.factors, N * 2 * Wp, 2 * Wp, false, false);
    for (int64_t n = 0; n < N; n++) {
        std::memcpy(v.node_in + n * CW, v.xm + n * Cp, Cp * sizeof(T));
        pair_products(N, n, v.factors, v.factors, v.node_in + n * CW + Cp, false);
    }
    fill_rows(v.zn, N, Up, a.node_in_bias, Up);
    dense(a.node_in, N, v.node_in, CW, CW, v.zn, Up, true, false);
    sigmoid(v.zn, e.sigma_node, N * Up);
    std::vector<T>& h = scratch<T>(0, N * Up);
    IVDEP
    for (int64_t k = 0; k < N * Up; k++) h[k] = v.zn[k] * e.sigma_node[k];
    const int64_t columns = a.node_out.columns;
    fill_rows(v.node_out, N, columns, a.node_out_bias, columns);
    dense(a.node_out, N, h.data(), Up, U, v.node_out, columns, true, false);
    if (last(layer)) {
        IVDEP
        for (int64_t k = 0; k < N * Cp; k++) c.x0[k] = v.middle[k] + v.node_out[k];
        return;
    }
    product(N, v);
    T* x = c.value[layer + 1].x;
    std::memcpy(x, v.middle, all_ * sizeof(T));
    std::vector<T>& gated = scratch<T>(1, M * N * Wp);
    gate(N, v.product, v.node_out, gated.data(), false);
    maps(a.couple, N, gated.data(), N * Wp, Wp, W, x, N * Cp, Cp, true, false);
    for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, v.node_out + n * CW, Cp);
}

// Given the adjoint of the layer's output in `xb` (M, N, Cp; the last layer: (N, Cp)), that of x + m in
// b.middle; adds those of queries, keys and values to b.project and b.scalar_value.
template <class T, int L>
inline void Geat<T, L>::receive_adjoint(Chunk<T>& c, int64_t layer, const T* xb) const {
    const Weights<T>& a = w[layer];
    const Values<T>& v = c.value[layer];
    const Extra<T>& e = c.extra[layer];
    Values<T>& b = c.adjoint[layer];
    const int64_t N = c.n, all_ = M * N * Cp, columns = a.node_out.columns;
    std::memset(b.factors, 0, M * N * 2 * Wp * sizeof(T));
    std::memset(b.middle, 0, all_ * sizeof(T));
    std::memcpy(b.middle, xb, (last(layer) ? N * Cp : all_) * sizeof(T));
    std::memset(b.node_out, 0, N * columns * sizeof(T));
    for (int64_t n = 0; n < N; n++) std::memcpy(b.node_out + n * columns, xb + n * Cp, Cp * sizeof(T));
    if (!last(layer)) {
        std::vector<T>& gated = scratch<T>(2, M * N * Wp);
        maps(a.couple, N, xb, N * Cp, Cp, C, gated.data(), N * Wp, Wp, false, true);
        gate_adjoint(N, gated.data(), v.product, b.node_out);
        gate(N, gated.data(), v.node_out, b.product, false);
        product_adjoint(N, v, b);
    }
    dense(a.node_out, N, b.node_out, columns, columns, b.zn, Up, false,
          true);  // b.zn: adjoint of the hidden layer's output
    std::vector<T>& zb = scratch<T>(0, N * Up);
    IVDEP
    for (int64_t k = 0; k < N * Up; k++) zb[k] = silu_slope(v.zn[k], e.sigma_node[k]) * b.zn[k];
    dense(a.node_in, N, zb.data(), Up, U, b.node_in, CW, false, true);
    for (int64_t n = 0; n < N; n++)
        pair_products_adjoint(N, n, b.node_in + n * CW + Cp, v.factors, b.factors);
    maps(a.factors, N, b.factors, N * 2 * Wp, 2 * Wp, 2 * Wp, b.xm, N * Cp, Cp, false, true);
    for (int64_t n = 0; n < N; n++) add_to(b.xm + n * Cp, b.node_in + n * CW, Cp);
    norm_adjoint(N, v.middle, e.rho_middle, b.xm, b.middle, s.norm_update);
    maps(a.merge, N, b.middle, N * Cp, Cp, C, b.message, N * Cp, Cp, false, true);
    edges_adjoint(c, a, v, e, b);
}

// The adjoint of the layer's input in b.x.
template <class T, int L> inline void Geat<T, L>::sources_adjoint(Chunk<T>& c, int64_t layer) const {
    const Weights<T>& a = w[layer];
    const Values<T>& v = c.value[layer];
    Values<T>& b = c.adjoint[layer];
    const int64_t N = c.n, all_ = M * N * Cp;
    maps(a.project, N, b.project, PR, M * PR, PR, b.xn, N * Cp, Cp, false, true);
    dense(a.scalar_value, N, b.scalar_value, Cp, Cp, b.xn, Cp, true, true);
    std::memcpy(b.x, b.middle, all_ * sizeof(T));
    norm_adjoint(N, v.x, c.extra[layer].rho, b.xn, b.x, s.norm_attention);
}

template <class T, int L>
inline void Geat<T, L>::layer_tangent(const Chunk<T>& c, int64_t layer, std::vector<Values<T>>& tangents,
                                      T* x0_dot, const T* radial_dot, const T* log_f_dot) const {
    const Weights<T>& a = w[layer];
    const Values<T>& v = c.value[layer];
    const Extra<T>& e = c.extra[layer];
    Values<T>& t = tangents[layer];
    const int64_t N = c.n, all_ = M * N * Cp, columns = a.node_out.columns;
    norm_tangent(N, v.x, t.x, e.rho, t.xn, s.norm_attention);
    for (int m = 0; m < M; m++)
        gemm<T>(N, PR, C, t.xn + m * N * Cp, Cp, 1, a.project[degree(m)].w, PR, t.project + m * PR, M * PR,
                false);
    dense(a.scalar_value, N, t.xn, Cp, C, t.scalar_value, Cp, false, false);
    edges_tangent(c, a, v, e, t, radial_dot, log_f_dot);
    std::memcpy(t.middle, t.x, all_ * sizeof(T));
    maps(a.merge, N, t.message, N * Cp, Cp, Cp, t.middle, N * Cp, Cp, true, false);
    norm_tangent(N, v.middle, t.middle, e.rho_middle, t.xm, s.norm_update);
    maps(a.factors, N, t.xm, N * Cp, Cp, C, t.factors, N * 2 * Wp, 2 * Wp, false, false);
    for (int64_t n = 0; n < N; n++) {
        std::memcpy(t.node_in + n * CW, t.xm + n * Cp, Cp * sizeof(T));
        pair_products(N, n, t.factors, v.factors, t.node_in + n * CW + Cp, false);
        pair_products(N, n, v.factors, t.factors, t.node_in + n * CW + Cp, true);
    }
    dense(a.node_in, N, t.node_in, CW, CW, t.zn, Up, false, false);
    std::vector<T>& hd = scratch<T>(0, N * Up);
    IVDEP
    for (int64_t k = 0; k < N * Up; k++) hd[k] = silu_slope(v.zn[k], e.sigma_node[k]) * t.zn[k];
    dense(a.node_out, N, hd.data(), Up, U, t.node_out, columns, false, false);
    if (last(layer)) {
        IVDEP
        for (int64_t k = 0; k < N * Cp; k++) x0_dot[k] = t.middle[k] + t.node_out[k];
        return;
    }
    product_tangent(N, v, t);
    T* x = tangents[layer + 1].x;
    std::memcpy(x, t.middle, all_ * sizeof(T));
    std::vector<T>& gated = scratch<T>(1, M * N * Wp);
    gate(N, t.product, v.node_out, gated.data(), false);
    gate(N, v.product, t.node_out, gated.data(), true);
    maps(a.couple, N, gated.data(), N * Wp, Wp, W, x, N * Cp, Cp, true, false);
    for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, t.node_out + n * CW, Cp);
}

template <class T, int L>
inline void Geat<T, L>::layer_adjoint_tangent(const Chunk<T>& c, int64_t layer,
                                              const std::vector<Values<T>>& tangents, Values<T>& d,
                                              const T* xb, const T* xbd, const T* radial_dot,
                                              Weights<T>& grad) const {
    const Weights<T>& a = w[layer];
    const Values<T>&v = c.value[layer], &b = c.adjoint[layer], &t = tangents[layer];
    const Extra<T>& e = c.extra[layer];
    const int64_t N = c.n, all_ = M * N * Cp, columns = a.node_out.columns;
    std::memset(d.factors, 0, M * N * 2 * Wp * sizeof(T));
    std::memset(d.middle, 0, all_ * sizeof(T));
    std::memcpy(d.middle, xbd, (last(layer) ? N * Cp : all_) * sizeof(T));
    std::memset(d.node_out, 0, N * columns * sizeof(T));
    for (int64_t n = 0; n < N; n++) std::memcpy(d.node_out + n * columns, xbd + n * Cp, Cp * sizeof(T));
    if (!last(layer)) {
        std::vector<T>&gated = scratch<T>(1, M * N * Wp), &gated_d = scratch<T>(2, M * N * Wp),
        &gated_b = scratch<T>(3, M * N * Wp);
        gate(N, v.product, v.node_out, gated.data(), false);
        outer(grad.couple, N, gated.data(), N * Wp, Wp, W, xbd, N * Cp, Cp);
        gate(N, t.product, v.node_out, gated.data(), false);
        gate(N, v.product, t.node_out, gated.data(), true);
        outer(grad.couple, N, gated.data(), N * Wp, Wp, W, xb, N * Cp, Cp);
        maps(a.couple, N, xb, N * Cp, Cp, C, gated_b.data(), N * Wp, Wp, false, true);
        maps(a.couple, N, xbd, N * Cp, Cp, C, gated_d.data(), N * Wp, Wp, false, true);
        gate_adjoint(N, gated_d.data(), v.product, d.node_out);
        gate_adjoint(N, gated_b.data(), t.product, d.node_out);
        gate(N, gated_d.data(), v.node_out, d.product, false);
        gate(N, gated_b.data(), t.node_out, d.product, true);
        product_adjoint_tangent(N, v, t, b, d);
    }
    dense(a.node_out, N, d.node_out, columns, columns, d.zn, Up, false, true);
    std::vector<T>&h = scratch<T>(0, N * Up), &hd = scratch<T>(1, N * Up), &zb = scratch<T>(2, N * Up),
    &zbd = scratch<T>(3, N * Up);
    IVDEP
    for (int64_t k = 0; k < N * Up; k++) {
        const T z = v.zn[k], sigma = e.sigma_node[k], slope = silu_slope(z, sigma);
        h[k] = z * sigma, hd[k] = slope * t.zn[k], zb[k] = slope * b.zn[k];
        zbd[k] = slope * d.zn[k] + silu_curvature(z, sigma) * t.zn[k] * b.zn[k];
    }
    outer(grad.node_out, N, h.data(), Up, U, d.node_out, columns);
    outer(grad.node_out, N, hd.data(), Up, U, b.node_out, columns);
    add_rows(grad.node_out_bias, N, d.node_out, columns, columns);
    outer(grad.node_in, N, v.node_in, CW, CW, zbd.data(), Up);
    outer(grad.node_in, N, t.node_in, CW, CW, zb.data(), Up);
    add_rows(grad.node_in_bias, N, zbd.data(), Up, U);
    dense(a.node_in, N, zbd.data(), Up, U, d.node_in, CW, false, true);
    for (int64_t n = 0; n < N; n++) {
        pair_products_adjoint(N, n, d.node_in + n * CW + Cp, v.factors, d.factors);
        pair_products_adjoint(N, n, b.node_in + n * CW + Cp, t.factors, d.factors);
    }
    outer(grad.factors, N, v.xm, N * Cp, Cp, C, d.factors, N * 2 * Wp, 2 * Wp);
    outer(grad.factors, N, t.xm, N * Cp, Cp, C, b.factors, N * 2 * Wp, 2 * Wp);
    maps(a.factors, N, d.factors, N * 2 * Wp, 2 * Wp, 2 * Wp, d.xm, N * Cp, Cp, false, true);
    for (int64_t n = 0; n < N; n++) add_to(d.xm + n * Cp, d.node_in + n * CW, Cp);
    norm_adjoint_tangent(N, v.middle, t.middle, e.rho_middle, b.xm, d.xm, d.middle, s.norm_update);
    outer(grad.merge, N, v.message, N * Cp, Cp, Cp, d.middle, N * Cp, Cp);
    outer(grad.merge, N, t.message, N * Cp, Cp, Cp, b.middle, N * Cp, Cp);
    maps(a.merge, N, d.middle, N * Cp, Cp, C, d.message, N * Cp, Cp, false, true);
    std::memset(d.project, 0, N * M * PR * sizeof(T));
    std::memset(d.scalar_value, 0, N * Cp * sizeof(T));
    edges_adjoint_tangent(c, a, v, e, t, b, d, radial_dot, grad);
    outer(grad.project, N, v.xn, N * Cp, Cp, C, d.project, PR, M * PR);
    outer(grad.project, N, t.xn, N * Cp, Cp, C, b.project, PR, M * PR);
    add_rows(grad.project_bias, N, d.project, M * PR, PR);
    outer(grad.scalar_value, N, v.xn, Cp, C, d.scalar_value, Cp);
    outer(grad.scalar_value, N, t.xn, Cp, C, b.scalar_value, Cp);
    maps(a.project, N, d.project, PR, M * PR, PR, d.xn, N * Cp, Cp, false, true);
    dense(a.scalar_value, N, d.scalar_value, Cp, Cp, d.xn, Cp, true, true);
    std::memcpy(d.x, d.middle, all_ * sizeof(T));
    norm_adjoint_tangent(N, v.x, t.x, e.rho, b.xn, d.xn, d.x, s.norm_attention);
}

}  // namespace sapis

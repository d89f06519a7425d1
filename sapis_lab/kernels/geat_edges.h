// The edge network of (ii) and what it drives, over blocks of pairs:
//
//     z = W_R R + W_q <q_i, k_j> + b,   (e, g_l, h) = W y + b,   y the soft norm of silu(z),
//
// then softmax and message; forward, adjoint, and the tangents of both.

#pragma once
#include "geat_attention.h"

namespace sapis {

// The hidden layer of the edge network of one pair, h = silu(z) and its soft norm y = h rho, rho = (1 +
// kappa sum h^2)^(-1/2), the sum over the first `born_hidden`.
template <class T, int L> inline T Geat<T, L>::counted(const T* x, const T* y) const {
    v8 sum{};
    int64_t k = 0;
    for (; k + 8 <= s.born_hidden; k += 8) sum += load<v8>(x + k) * load<v8>(y + k);
    T total = sum8<T>(sum);
    for (; k < s.born_hidden; k++) total += x[k] * y[k];
    return total;
}

template <class T, int L> inline T Geat<T, L>::inner(const T* x, const T* y) const {
    v8 sum{};
    for (int64_t k = 0; k < Ep; k += 8) sum += load<v8>(x + k) * load<v8>(y + k);
    return sum8<T>(sum);
}

template <class T, int L> inline void Geat<T, L>::hidden(const T* z, const T* sigma, T* h) const {
    IVDEP
    for (int64_t k = 0; k < Ep; k++) h[k] = z[k] * sigma[k];
}

template <class T, int L>
inline void Geat<T, L>::hidden_tangent(const T* z, const T* sigma, const T* zd, T* hd) const {
    IVDEP
    for (int64_t k = 0; k < Ep; k++) hd[k] = silu_slope(z[k], sigma[k]) * zd[k];
}

template <class T, int L>
inline void Geat<T, L>::hidden_adjoint(const T* h, T rho, const T* yb, T* hb) const {
    const T on_h = -T(s.norm_edge) * rho * rho * rho * inner(h, yb);
    IVDEP
    for (int64_t k = 0; k < Ep; k++) hb[k] = rho * yb[k];
    IVDEP
    for (int64_t k = 0; k < s.born_hidden; k++) hb[k] += on_h * h[k];
}

// Rows of pairs in blocks of whole centres.
template <class T, int L> template <class F> inline void Geat<T, L>::blocks(const Chunk<T>& c, F&& f) {
    for (int64_t i = 0; i < c.n;) {
        int64_t end = i + 1;
        while (end < c.n && c.first[end + 1] - c.first[i] <= 384) end++;
        f(i, end, c.first[i], c.first[end]);
        i = end;
    }
}

template <class T, int L>
inline void Geat<T, L>::edges(Chunk<T>& c, const Weights<T>& a, Values<T>& v, Extra<T>& e) const {
    blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
        const int64_t P = p1 - p0;
        std::vector<T>& h = scratch<T>(0, P * Ep);
        for (int64_t i = i0; i < i1; i++) invariants<false>(c, i, v.project, nullptr, v.invariants);
        fill_rows(v.z + p0 * Ep, P, Ep, a.edge_bias, Ep);
        dense(a.edge_radial, P, c.radial + p0 * Bp, Bp, B, v.z + p0 * Ep, Ep, true, false);
        dense(a.edge_invariant, P, v.invariants + p0 * Qp, Qp, Q, v.z + p0 * Ep, Ep, true, false);
        sigmoid(v.z + p0 * Ep, e.sigma + p0 * Ep, P * Ep);
        for (int64_t p = 0; p < P; p++) {
            T* row = h.data() + p * Ep;
            hidden(v.z + (p0 + p) * Ep, e.sigma + (p0 + p) * Ep, row);
            const T rho = e.rho_edge[p0 + p] = 1 / std::sqrt(1 + T(s.norm_edge) * counted(row, row));
            IVDEP
            for (int64_t k = 0; k < Ep; k++) row[k] *= rho;
        }
        fill_rows(v.edge_out + p0 * Op, P, Op, a.edge_out_bias, Op);
        dense(a.edge_out, P, h.data(), Ep, E, v.edge_out + p0 * Op, Op, true, false);
        for (int64_t i = i0; i < i1; i++) {
            attention(c, i, v.edge_out);
            message(c, i, v, v.message, c.n);
        }
    });
}

template <class T, int L>
inline void Geat<T, L>::edges_adjoint(Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                                      Values<T>& b) const {
    blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
        const int64_t P = p1 - p0;
        std::vector<T>& zb = scratch<T>(0, P * Ep);
        for (int64_t i = i0; i < i1; i++) {
            message_adjoint(c, i, v, b.message, b, e.weights, c.n);
            T mean[MOST_HEADS] = {};
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                for (int64_t h = 0; h < H; h++)
                    mean[h] +=
                        v.edge_out[p * Op + h] * alpha_adjoint(v.edge_out + p * Op, e.weights + p * Op, h);
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                T *ob = b.edge_out + p * Op, total = 0;
                const T* out = v.edge_out + p * Op;
                for (int64_t h = 0; h < H; h++) {
                    const T on_alpha = alpha_adjoint(out, e.weights + p * Op, h);
                    const T on_logit = out[h] * (s.softmax ? on_alpha - mean[h] : on_alpha);
                    total += on_logit;
                    ob[h] = s.softmax ? on_logit : 0;
                    UNROLL
                    for (int g = 0; g <= L; g++) ob[(g + 1) * H + h] = e.weights[p * Op + g * H + h] * out[h];
                }
                c.log_f_adjoint[p] += total;
            }
        }
        dense(a.edge_out, P, b.edge_out + p0 * Op, Op, O, b.z + p0 * Ep, Ep, false,
              true);  // b.z: adjoint of the hidden layer's output
        std::vector<T>& h = scratch<T>(1, Ep);
        for (int64_t p = 0; p < P; p++) {
            const T *z = v.z + (p0 + p) * Ep, *sigma = e.sigma + (p0 + p) * Ep;
            T* row = zb.data() + p * Ep;
            hidden(z, sigma, h.data());
            hidden_adjoint(h.data(), e.rho_edge[p0 + p], b.z + (p0 + p) * Ep, row);
            IVDEP
            for (int64_t k = 0; k < Ep; k++) row[k] *= silu_slope(z[k], sigma[k]);
        }
        dense(a.edge_radial, P, zb.data(), Ep, E, c.radial_adjoint + p0 * Bp, Bp, true, true);
        dense(a.edge_invariant, P, zb.data(), Ep, E, b.invariants + p0 * Qp, Qp, false, true);
        for (int64_t i = i0; i < i1; i++)
            invariants_adjoint<false>(c, i, b.invariants, nullptr, v.project, nullptr, b.project);
    });
}

template <class T, int L>
inline void Geat<T, L>::edges_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v,
                                      const Extra<T>& e, Values<T>& t, const T* radial_dot,
                                      const T* log_f_dot) const {
    blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
        const int64_t P = p1 - p0;
        std::vector<T>& hd = scratch<T>(0, P * Ep);
        for (int64_t i = i0; i < i1; i++) invariants<true>(c, i, v.project, t.project, t.invariants);
        dense(a.edge_radial, P, radial_dot + p0 * Bp, Bp, B, t.z + p0 * Ep, Ep, false, false);
        dense(a.edge_invariant, P, t.invariants + p0 * Qp, Qp, Q, t.z + p0 * Ep, Ep, true, false);
        std::vector<T>& h = scratch<T>(1, Ep);
        for (int64_t p = 0; p < P; p++) {
            const T *z = v.z + (p0 + p) * Ep, *sigma = e.sigma + (p0 + p) * Ep;
            T* row = hd.data() + p * Ep;
            hidden(z, sigma, h.data());
            hidden_tangent(z, sigma, t.z + (p0 + p) * Ep, row);
            const T rho = e.rho_edge[p0 + p],
                    change = -T(s.norm_edge) * rho * rho * rho * counted(h.data(), row);
            IVDEP
            for (int64_t k = 0; k < Ep; k++) row[k] = rho * row[k] + change * h[k];
        }
        dense(a.edge_out, P, hd.data(), Ep, E, t.edge_out + p0 * Op, Op, false, false);
        for (int64_t i = i0; i < i1; i++) {
            T mean[MOST_HEADS] = {};
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                for (int64_t h = 0; h < H; h++)
                    mean[h] += v.edge_out[p * Op + h] * (t.edge_out[p * Op + h] += log_f_dot[p]);
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                for (int64_t h = 0; h < H; h++)
                    t.edge_out[p * Op + h] = v.edge_out[p * Op + h] *
                                             (s.softmax ? t.edge_out[p * Op + h] - mean[h] : log_f_dot[p]);
            message_tangent(c, i, v, t, c.harmonics_dot, t.message, c.n);
        }
    });
}

template <class T, int L>
inline void Geat<T, L>::edges_adjoint_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v,
                                              const Extra<T>& e, const Values<T>& t, const Values<T>& b,
                                              Values<T>& bd, const T* radial_dot, Weights<T>& grad) const {
    blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
        const int64_t P = p1 - p0;
        std::vector<T>&h = scratch<T>(0, P * Ep), &hd = scratch<T>(1, P * Ep), &zb = scratch<T>(2, P * Ep),
        &zbd = scratch<T>(3, P * Ep);
        std::vector<T>&wd = scratch<T>(4, P * Op), &invariants_d = scratch<T>(5, P * Qp);
        for (int64_t i = i0; i < i1; i++) {
            message_adjoint_tangent(c, i, v, t, c.harmonics_dot, b.message, bd.message, bd,
                                    wd.data() - p0 * Op, c.n);
            T mean[MOST_HEADS] = {}, mean_d[MOST_HEADS] = {};
            auto on_alpha = [&](int64_t p, int64_t h_) {
                return alpha_adjoint(v.edge_out + p * Op, e.weights + p * Op, h_);
            };
            auto on_alpha_d = [&](int64_t p, int64_t h_) {
                return alpha_adjoint(v.edge_out + p * Op, wd.data() + (p - p0) * Op, h_) +
                       alpha_adjoint(t.edge_out + p * Op, e.weights + p * Op, h_);
            };
            if (s.softmax)
                for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                    for (int64_t h_ = 0; h_ < H; h_++) {
                        const T alpha = v.edge_out[p * Op + h_], alpha_d = t.edge_out[p * Op + h_],
                                ab = on_alpha(p, h_);
                        mean[h_] += alpha * ab, mean_d[h_] += alpha_d * ab + alpha * on_alpha_d(p, h_);
                    }
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                T* ob = bd.edge_out + p * Op;
                for (int64_t h_ = 0; h_ < H; h_++) {
                    const T alpha = v.edge_out[p * Op + h_], alpha_d = t.edge_out[p * Op + h_];
                    ob[h_] = s.softmax ? alpha_d * (on_alpha(p, h_) - mean[h_]) +
                                             alpha * (on_alpha_d(p, h_) - mean_d[h_])
                                       : 0;
                    UNROLL
                    for (int g = 0; g <= L; g++)
                        ob[(g + 1) * H + h_] =
                            wd[(p - p0) * Op + g * H + h_] * alpha + e.weights[p * Op + g * H + h_] * alpha_d;
                }
            }
        }
        dense(a.edge_out, P, bd.edge_out + p0 * Op, Op, O, zbd.data(), Ep, false, true);
        const T kappa = T(s.norm_edge);
        for (int64_t p = 0; p < P; p++) {  // to the outputs y = h rho and y', and from the adjoints of y
                                           // and y' to those of z and z'
            const T *z = v.z + (p0 + p) * Ep, *sigma = e.sigma + (p0 + p) * Ep, *zd = t.z + (p0 + p) * Ep,
                    *yb = b.z + (p0 + p) * Ep;
            T *y = h.data() + p * Ep, *yd = hd.data() + p * Ep, *hb = zb.data() + p * Ep,
              *hbd = zbd.data() + p * Ep;
            hidden(z, sigma, y);
            hidden_tangent(z, sigma, zd, yd);
            const T rho = e.rho_edge[p0 + p], cube = rho * rho * rho, change = -kappa * cube * counted(y, yd);
            const T along = inner(y, yb), along_d = inner(yd, yb) + inner(y, hbd);
            hidden_adjoint(y, rho, yb, hb);
            IVDEP
            for (int64_t k = 0; k < Ep; k++) hbd[k] = rho * hbd[k] + change * yb[k];
            const T on_h = -kappa * (3 * rho * rho * change * along + cube * along_d),
                    on_hd = -kappa * cube * along;
            IVDEP
            for (int64_t k = 0; k < s.born_hidden; k++) hbd[k] += on_h * y[k] + on_hd * yd[k];
            IVDEP
            for (int64_t k = 0; k < Ep; k++) {
                const T slope = silu_slope(z[k], sigma[k]);
                hbd[k] = slope * hbd[k] + silu_curvature(z[k], sigma[k]) * zd[k] * hb[k];
                hb[k] *= slope;
                yd[k] = rho * yd[k] + change * y[k];
                y[k] *= rho;
            }
        }
        outer(grad.edge_out, P, h.data(), Ep, E, bd.edge_out + p0 * Op, Op);
        outer(grad.edge_out, P, hd.data(), Ep, E, b.edge_out + p0 * Op, Op);
        add_rows(grad.edge_out_bias, P, bd.edge_out + p0 * Op, Op, O);
        outer(grad.edge_radial, P, c.radial + p0 * Bp, Bp, B, zbd.data(), Ep);
        outer(grad.edge_radial, P, radial_dot + p0 * Bp, Bp, B, zb.data(), Ep);
        outer(grad.edge_invariant, P, v.invariants + p0 * Qp, Qp, Q, zbd.data(), Ep);
        outer(grad.edge_invariant, P, t.invariants + p0 * Qp, Qp, Q, zb.data(), Ep);
        add_rows(grad.edge_bias, P, zbd.data(), Ep, E);
        dense(a.edge_invariant, P, zbd.data(), Ep, E, invariants_d.data(), Qp, false, true);
        for (int64_t i = i0; i < i1; i++)
            invariants_adjoint<true>(c, i, b.invariants, invariants_d.data() - p0 * Qp, v.project, t.project,
                                     bd.project);
    });
}

}  // namespace sapis

// Attention (ii): the edge network, the softmax and the message.

#pragma once
#include "geat_step.h"

namespace sapis {

// The hidden layer of the edge network of one pair, h = silu(z) and its soft norm y = h rho, rho = (1 +
// kappa sum h^2)^(-1/2), the sum over the first `edge_units`.
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

// inv_q = <query_i, key_j>_q over components and key channels; with tangents, its derivative.
template <class T, int L>
template <bool tangent>
inline void Geat<T, L>::invariants(const Chunk<T>& c, int64_t i, const T* project, const T* dot_,
                                   T* invariants) const {
    const int64_t to = c.first[i + 1];
    const T *q0 = query(project, i, 0), *qd0 = tangent ? query(dot_, i, 0) : nullptr;
    T acc[2][512];
    for (int64_t p = c.first[i]; p < to; p += 2) {  // two pairs at a time share the loads of the query
        const bool two = p + 1 < to;
        const int64_t j = c.neighbor[p], k = c.neighbor[two ? p + 1 : p];
        const T *kj = query(project, j, 0) + Dp, *kk = query(project, k, 0) + Dp;
        const T *kdj = tangent ? query(dot_, j, 0) + Dp : nullptr,
                *kdk = tangent ? query(dot_, k, 0) + Dp : nullptr;
        for (int64_t v = 0; v < Dp; v += 8) {
            v8 a{}, b{};
            UNROLL
            for (int m = 0; m < M; m++) {
                const int64_t at = m * PR + v;
                const v8 q = load<v8>(q0 + at);
                if (tangent) {
                    const v8 qd = load<v8>(qd0 + at);
                    a += q * load<v8>(kdj + at), b += q * load<v8>(kdk + at);
                    a += qd * load<v8>(kj + at), b += qd * load<v8>(kk + at);
                } else {
                    a += q * load<v8>(kj + at), b += q * load<v8>(kk + at);
                }
            }
            store(acc[0] + v, a), store(acc[1] + v, b);
        }
        for (int r = 0; r <= int(two); r++) {
            T* row = invariants + (p + r) * Qp;
            for (int64_t q = 0; q < Q; q++) row[q] = acc[r][q];
            for (int64_t d = 1; d < D; d++)
                for (int64_t q = 0; q < Q; q++) row[q] += acc[r][d * Q + q];
        }
    }
}

// queries~ += invariants~ keys, keys~ += invariants~ queries; with tangents, the derivative of both.
template <class T, int L>
template <bool tangent>
inline void Geat<T, L>::invariants_adjoint(const Chunk<T>& c, int64_t i, const T* invariants,
                                           const T* invariants_dot, const T* project, const T* dot_,
                                           T* adjoint) const {
    const int64_t from = c.first[i], n = c.first[i + 1] - from, sides = tangent ? 2 : 1;
    std::vector<T>& rows = scratch<T>(6, n * sides * Dp);
    T* e = rows.data();
    for (int64_t p = 0; p < n; p++)
        for (int64_t d = 0; d < D; d++)
            for (int64_t q = 0; q < Q; q++) {
                e[p * sides * Dp + d * Q + q] = invariants[(from + p) * Qp + q];
                if (tangent) e[(p * 2 + 1) * Dp + d * Q + q] = invariants_dot[(from + p) * Qp + q];
            }
    if (Q * D < Dp)
        for (int64_t r = 0; r < n * sides; r++)
            for (int64_t k = Q * D; k < Dp; k++) e[r * Dp + k] = 0;
    typedef typename Lanes<T>::wide wide;
    constexpr int64_t lanes_ = sizeof(wide) / sizeof(T);
    int64_t v = 0;
    for (; v + lanes_ <= Dp; v += lanes_)
        adjoint_columns<tangent, wide>(c, i, n, v, e, project, dot_, adjoint);
    for (; v < Dp; v += 8) adjoint_columns<tangent, v8>(c, i, n, v, e, project, dot_, adjoint);
}

template <class T, int L>
template <bool tangent, class V>
inline void Geat<T, L>::adjoint_columns(const Chunk<T>& c, int64_t i, int64_t n, int64_t v, const T* e,
                                        const T* project, const T* dot_, T* adjoint) const {
    const int64_t from = c.first[i], sides = tangent ? 2 : 1;
    for (int m = 0; m < M; m++) {
        const V q = load<V>(query(project, i, m) + v), qd = tangent ? load<V>(query(dot_, i, m) + v) : V{};
        V own{};
        for (int64_t p = 0; p < n; p++) {
            const int64_t at = (c.neighbor[from + p] * M + m) * PR + Dp + v;
            const V a = load<V>(e + p * sides * Dp + v);
            V kb = load<V>(adjoint + at);
            if (tangent) {
                const V ad = load<V>(e + (p * 2 + 1) * Dp + v);
                own += ad * load<V>(project + at), kb += ad * q;
                own += a * load<V>(dot_ + at), kb += a * qd;
            } else {
                own += a * load<V>(project + at), kb += a * q;
            }
            store(adjoint + at, kb);
        }
        store(query(adjoint, i, m) + v, load<V>(query(adjoint, i, m) + v) + own);
    }
}

// Weights of heads from the edge network's rows: logits become alpha in place.
template <class T, int L> inline void Geat<T, L>::attention(const Chunk<T>& c, int64_t i, T* out) const {
    for (int64_t h = 0; h < H; h++) {
        T* a = out + h;
        const int64_t from = c.first[i], to = c.first[i + 1];
        if (!s.softmax) {
            for (int64_t p = from; p < to; p++) a[p * Op] = c.log_f[p];
        } else {
            T most = a[from * Op];
            for (int64_t p = from; p < to; p++) most = std::max(most, a[p * Op] += c.log_f[p]);
            for (int64_t p = from; p < to; p++) a[p * Op] -= most;
        }
    }
    T e[64];
    for (int64_t p = c.first[i];
         p < c.first[i + 1];) {  // a few rows at a time: exponentials want whole registers
        int64_t rows = std::min<int64_t>(64 / H, c.first[i + 1] - p);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t h = 0; h < H; h++) e[r * H + h] = out[(p + r) * Op + h];
        exponentials(e, rows * H);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t h = 0; h < H; h++) out[(p + r) * Op + h] = e[r * H + h];
        p += rows;
    }
    for (int64_t h = 0; h < H; h++) {
        T total = 0;
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) total += out[p * Op + h];
        const T scale = s.softmax ? 1 / total : T(s.uniform);
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) out[p * Op + h] *= scale;
    }
}

// g_l alpha and h alpha of a centre's pairs as lanes, L + 1 registers a pair; with tangents, followed by
// theirs.
template <class T, int L>
template <bool tangent>
inline const T* Geat<T, L>::lanes(const Chunk<T>& c, int64_t i, const T* out, const T* out_dot) const {
    constexpr int sides = tangent ? 2 : 1;
    std::vector<T>& rows = scratch<T>(7, (c.first[i + 1] - c.first[i]) * sides * (L + 1) * 8);
    T* row = rows.data();
    for (int64_t p = c.first[i]; p < c.first[i + 1]; p++, row += sides * (L + 1) * 8) {
        const v8 alpha = expand<T>(out + p * Op, H),
                 alpha_dot = tangent ? expand<T>(out_dot + p * Op, H) : v8{};
        UNROLL
        for (int g = 0; g <= L; g++) {
            const v8 filter = expand<T>(out + p * Op + (g + 1) * H, H);
            store(row + g * 8, filter * alpha);
            if (tangent)
                store(row + (L + 1 + g) * 8,
                      expand<T>(out_dot + p * Op + (g + 1) * H, H) * alpha + filter * alpha_dot);
        }
    }
    return rows.data();
}

// m_i = sum_j alpha [ g_l Y_m s_j + h v_jm ].
template <class T, int L>
inline void Geat<T, L>::message(const Chunk<T>& c, int64_t i, const Values<T>& v, T* m_out, int64_t N) const {
    const T* weights = lanes<false>(c, i, v.edge_out, nullptr);
    for (int64_t ch = 0; ch < Cp; ch += 8) {
        v8 sum[M] = {};
        const T* row = weights;
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++, row += (L + 1) * 8) {
            const int64_t j = c.neighbor[p];
            const T* y = c.harmonics + p * MP;
            const v8 scalar = load<v8>(v.scalar_value + j * Cp + ch), on_x = load<v8>(row + L * 8);
            const T* values = v.project + j * M * PR + 2 * Dp + ch;
            UNROLL
            for (int l = 0; l < L; l++) {
                const v8 e = load<v8>(row + l * 8) * scalar;
                UNROLL
                for (int m = l * l; m < (l + 1) * (l + 1); m++)
                    sum[m] += y[m] * e, sum[m] += on_x * load<v8>(values + m * PR);
            }
        }
        UNROLL
        for (int m = 0; m < M; m++) store(m_out + (m * N + i) * Cp + ch, sum[m]);
    }
}

template <class T, int L>
inline void Geat<T, L>::message_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v, const Values<T>& t,
                                        const T* yd_, T* m_out, int64_t N) const {
    const T* weights = lanes<true>(c, i, v.edge_out, t.edge_out);
    for (int64_t ch = 0; ch < Cp; ch += 8) {
        v8 sum[M] = {};
        const T* row = weights;
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++, row += 2 * (L + 1) * 8) {
            const int64_t j = c.neighbor[p];
            const T *y = c.harmonics + p * MP, *yd = yd_ + p * MP;
            const v8 scalar = load<v8>(v.scalar_value + j * Cp + ch),
                     change = load<v8>(t.scalar_value + j * Cp + ch);
            const v8 on_x = load<v8>(row + L * 8), on_xd = load<v8>(row + (2 * L + 1) * 8);
            const T *values = v.project + j * M * PR + 2 * Dp + ch,
                    *changes = t.project + j * M * PR + 2 * Dp + ch;
            UNROLL
            for (int l = 0; l < L; l++) {
                const v8 g = load<v8>(row + l * 8), e = g * scalar,
                         ed = load<v8>(row + (L + 1 + l) * 8) * scalar + g * change;
                UNROLL
                for (int m = l * l; m < (l + 1) * (l + 1); m++) {
                    sum[m] += yd[m] * e, sum[m] += y[m] * ed;
                    sum[m] += on_xd * load<v8>(values + m * PR), sum[m] += on_x * load<v8>(changes + m * PR);
                }
            }
        }
        UNROLL
        for (int m = 0; m < M; m++) store(m_out + (m * N + i) * Cp + ch, sum[m]);
    }
}

// Adjoints of message: into weights (g_l alpha, h alpha: rows of H (L + 1)), Y, scalars and values of the
// neighbours.
template <class T, int L>
inline void Geat<T, L>::message_adjoint(Chunk<T>& c, int64_t i, const Values<T>& v, const T* mb, Values<T>& b,
                                        T* weights, int64_t N) const {
    const T* row = lanes<false>(c, i, v.edge_out, nullptr);
    for (int64_t p = c.first[i]; p < c.first[i + 1]; p++, row += (L + 1) * 8) {
        const int64_t j = c.neighbor[p];
        const T* y = c.harmonics + p * MP;
        const v8 on_x = load<v8>(row + L * 8);
        v8 on_filter[L + 1] = {}, on_y[M] = {};
        for (int64_t ch = 0; ch < Cp; ch += 8) {
            const v8 scalar = load<v8>(v.scalar_value + j * Cp + ch);
            const T* values = v.project + j * M * PR + 2 * Dp + ch;
            T* values_b = b.project + j * M * PR + 2 * Dp + ch;
            v8 scalar_b = load<v8>(b.scalar_value + j * Cp + ch);
            UNROLL
            for (int l = 0; l < L; l++) {
                const v8 g = load<v8>(row + l * 8), e = g * scalar;
                v8 along{};
                UNROLL
                for (int m = l * l; m < (l + 1) * (l + 1); m++) {
                    const v8 seed = load<v8>(mb + (m * N + i) * Cp + ch);
                    along += y[m] * seed;
                    on_y[m] += seed * e;
                    on_filter[L] += seed * load<v8>(values + m * PR);
                    store(values_b + m * PR, load<v8>(values_b + m * PR) + on_x * seed);
                }
                on_filter[l] += along * scalar;
                scalar_b += g * along;
            }
            store(b.scalar_value + j * Cp + ch, scalar_b);
        }
        UNROLL
        for (int g = 0; g <= L; g++) fold<T>(weights + p * Op + g * H, on_filter[g], H);
        UNROLL
        for (int m = 0; m < M; m++) c.harmonics_adjoint[p * MP + m] += sum8<T>(on_y[m]);
    }
}

template <class T, int L>
inline void Geat<T, L>::message_adjoint_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v,
                                                const Values<T>& t, const T* yd_, const T* mb, const T* mbd,
                                                Values<T>& bd, T* weights, int64_t N) const {
    const T* row = lanes<true>(c, i, v.edge_out, t.edge_out);
    for (int64_t p = c.first[i]; p < c.first[i + 1]; p++, row += 2 * (L + 1) * 8) {
        const int64_t j = c.neighbor[p];
        const T *y = c.harmonics + p * MP, *yd = yd_ + p * MP;
        v8 on_filter[L + 1] = {}, on_values{};
        const v8 on_x = load<v8>(row + L * 8), on_xd = load<v8>(row + (2 * L + 1) * 8);
        for (int64_t ch = 0; ch < Cp; ch += 8) {
            const v8 scalar = load<v8>(v.scalar_value + j * Cp + ch),
                     change = load<v8>(t.scalar_value + j * Cp + ch);
            const T *values = v.project + j * M * PR + 2 * Dp + ch,
                    *changes = t.project + j * M * PR + 2 * Dp + ch;
            T* values_b = bd.project + j * M * PR + 2 * Dp + ch;
            v8 scalar_b = load<v8>(bd.scalar_value + j * Cp + ch);
            UNROLL
            for (int l = 0; l < L; l++) {
                const v8 g = load<v8>(row + l * 8), gd = load<v8>(row + (L + 1 + l) * 8);
                v8 along{}, along_d{}, along_e{};
                UNROLL
                for (int m = l * l; m < (l + 1) * (l + 1); m++) {
                    const v8 seed = load<v8>(mb + (m * N + i) * Cp + ch),
                             seed_d = load<v8>(mbd + (m * N + i) * Cp + ch);
                    along += y[m] * seed;
                    along_d += yd[m] * seed, along_e += y[m] * seed_d;
                    on_filter[L] += seed_d * load<v8>(values + m * PR),
                        on_values += seed * load<v8>(changes + m * PR);
                    store(values_b + m * PR, load<v8>(values_b + m * PR) + on_xd * seed + on_x * seed_d);
                }
                along_d += along_e;
                on_filter[l] += along_d * scalar, on_filter[l] += along * change;
                scalar_b += gd * along, scalar_b += g * along_d;
            }
            store(bd.scalar_value + j * Cp + ch, scalar_b);
        }
        on_filter[L] += on_values;
        UNROLL
        for (int g = 0; g <= L; g++) fold<T>(weights + p * Op + g * H, on_filter[g], H);
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
inline T Geat<T, L>::alpha_adjoint(const T* out, const T* weights, int64_t h) const {
    T total = 0;
    UNROLL
    for (int g = 0; g <= L; g++) total += weights[g * H + h] * out[(g + 1) * H + h];
    return total;
}

template <class T, int L>
inline void Geat<T, L>::edges_adjoint(Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                                      Values<T>& b) const {
    blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
        const int64_t P = p1 - p0;
        std::vector<T>& zb = scratch<T>(0, P * Ep);
        for (int64_t i = i0; i < i1; i++) {
            message_adjoint(c, i, v, b.message, b, e.weights, c.n);
            T mean[8] = {};
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                for (int64_t h = 0; h < H; h++)
                    mean[h] +=
                        v.edge_out[p * Op + h] * alpha_adjoint(v.edge_out + p * Op, e.weights + p * Op, h);
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                T *ob = b.edge_out + p * Op, total = 0;
                const T* out = v.edge_out + p * Op;
                for (int64_t h = 0; h < H; h++) {
                    const T on_alpha = alpha_adjoint(out, e.weights + p * Op, h),
                            on_logit = out[h] * (s.softmax ? on_alpha - mean[h] : on_alpha);
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
            T mean[8] = {};
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
            T mean[8] = {}, mean_d[8] = {};
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

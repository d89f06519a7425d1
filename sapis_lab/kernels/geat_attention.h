// The parts of attention (ii) that run over the pairs of one centre i:
//
//     <q_i, k_j>_q,   alpha_ij = softmax_j( e_ij + log f ),   m_i^l = sum_j alpha_ij [ g_l Y^l V0 x_j^0 + h
//     V^l x_j^l ],
//
// each with its adjoint and the tangents of both.

#pragma once
#include "geat_step.h"

namespace sapis {

// invariants_q = <query_i, key_j>_q over components and key channels; with tangents, their derivative.
template <class T, int L>
template <bool tangent>
inline void Geat<T, L>::invariants(const Chunk<T>& c, int64_t i, const T* project, const T* dot_,
                                   T* invariants) const {
    const int64_t to = c.first[i + 1];
    const T *q0 = query(project, i, 0), *qd0 = tangent ? query(dot_, i, 0) : nullptr;
    T acc[2][(MOST_KEYS + 63) / 64 * 64];
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

// alpha~ of head h from the adjoints of g_l alpha and h alpha.
template <class T, int L>
inline T Geat<T, L>::alpha_adjoint(const T* out, const T* weights, int64_t h) const {
    T total = 0;
    UNROLL
    for (int g = 0; g <= L; g++) total += weights[g * H + h] * out[(g + 1) * H + h];
    return total;
}

}  // namespace sapis

// The weights, padded, from the parameters; and gradients back into their shape.

#pragma once
#include "geat_step.h"

namespace sapis {

// Every parameter is visited as (entry of the parameter, places in the padded maps), by one routine for
// both directions: filling the maps from the parameters, and the gradients of the parameters from
// gradients in the shape of the maps.
template <class T, int L>
template <class F>
inline void Geat<T, L>::visit_layer(int64_t layer, Weights<T>& a, F&& f) const {
    const int64_t base = layer * PER_LAYER, keys = 2 * Q * D, wide = keys + C;
    auto projected = [&](int64_t c) {
        if (c >= keys) return 2 * Dp + lane(c - keys);
        int64_t side = c / (Q * D), q = c % (Q * D) / D, d = c % D;
        return side * Dp + key(q, d);
    };
    // rows of node_in, columns of node_out
    auto invariant = [&](int64_t c) { return c < C ? c : Cp + (c - C) / W * Wp + (c - C) % W; };
    auto factor_ = [&](int64_t c) { return c / W * Wp + c % W; };
    auto value = [&](int64_t c) { return lane(c); };
    auto same = [](int64_t c) { return c; };
    for (int l = 0; l < L; l++) {
        f(base + PROJECT, l * C * wide, a.project[l], C, wide, same, projected, false);
        f(base + MERGE, l * C * C, a.merge[l], C, C, value, same, false);
        f(base + FACTORS, l * C * 2 * W, a.factors[l], C, 2 * W, same, factor_, false);
        if (!last(layer)) f(base + COUPLE, l * W * C, a.couple[l], W, C, same, same, false);
    }
    auto vector = [](T* p) {
        Map<T> v;
        v.w = p;
        return v;
    };
    f(base + PROJECT_BIAS, 0, vector(a.project_bias), 1, wide, same, projected, false);
    f(base + SCALAR_VALUE, 0, a.scalar_value, C, C, same, value, false);
    f(base + EDGE_RADIAL, 0, a.edge_radial, B, E, same, same, true);
    f(base + EDGE_INVARIANT, 0, a.edge_invariant, Q, E, same, same, true);
    f(base + EDGE_BIAS, 0, vector(a.edge_bias), 1, E, same, same, false);
    const int64_t logits = s.softmax ? 0 : H;  // without attention there are no rows of logits
    auto output = [&](int64_t c) { return c + logits; };
    f(base + EDGE_OUT, 0, a.edge_out, E, O - logits, same, output, true);
    f(base + EDGE_OUT_BIAS, 0, vector(a.edge_out_bias), 1, O - logits, same, output, false);
    const int64_t outputs = last(layer) ? C : C + L * W;
    f(base + NODE_IN, 0, a.node_in, C + L * W, U, invariant, same, false);
    f(base + NODE_IN_BIAS, 0, vector(a.node_in_bias), 1, U, same, same, false);
    f(base + NODE_OUT, 0, a.node_out, U, outputs, same, invariant, false);
    f(base + NODE_OUT_BIAS, 0, vector(a.node_out_bias), 1, outputs, same, invariant, false);
}

template <class T, int L> template <class F> inline void Geat<T, L>::visit_ends(Ends<T>& a, F&& f) const {
    const int64_t base = s.layers * PER_LAYER;
    auto same = [](int64_t c) { return c; };
    auto vector = [](T* p, int64_t columns) {
        Map<T> v;
        v.w = p;
        v.columns = columns;
        return v;
    };
    auto radial = [&](int64_t r) { return r / B * Bp + r % B; };
    for (int l = 0; l < L; l++)
        f(base + REPRESENT, l * S * B * C, a.represent[l], S * B, C, radial, same, false);
    f(base + EMBEDDING, 0, vector(a.embedding, Cp), S, C, same, same, false);
    f(base + READOUT_IN, 0, a.readout_in, C, C, same, same, false);
    f(base + READOUT_IN_BIAS, 0, vector(a.readout_in_bias, Cp), 1, C, same, same, false);
    f(base + READOUT_OUT, 0, vector(a.readout_out, 1), C, 1, same, same, false);
    f(base + READOUT_OUT_BIAS, 0, vector(a.readout_out_bias, 1), 1, 1, same, same, false);
    f(base + READOUT_SKIP, 0, vector(a.readout_skip, 1), C, 1, same, same, false);
}

// Parts of the arena for weights with, if `both`, their transposes.
template <class T, int L>
inline void Geat<T, L>::shape_weights(Arena& arena, std::vector<Weights<T>>& all_, Ends<T>& e,
                                      bool both) const {
    auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
    auto map = [&](Map<T>& m, int64_t rows, int64_t columns) {
        m.rows = round8(rows), m.columns = columns;
        get(m.w, m.rows * columns);
        m.transposed = nullptr;
        if (both) get(m.transposed, columns * m.rows);
    };
    for (int64_t layer = 0; layer < s.layers; layer++) {
        Weights<T>& a = all_[layer];
        for (int l = 0; l < L; l++) {
            map(a.project[l], Cp, PR);
            map(a.merge[l], Cp, Cp);
            map(a.factors[l], Cp, 2 * Wp);
            if (!last(layer)) map(a.couple[l], Wp, Cp);
        }
        map(a.scalar_value, Cp, Cp);
        map(a.edge_radial, Bp, Ep);
        map(a.edge_invariant, Qp, Ep);
        map(a.edge_out, Ep, Op);
        map(a.node_in, CW, Up);
        map(a.node_out, Up, last(layer) ? Cp : CW);
        get(a.project_bias, PR);
        get(a.edge_bias, Ep);
        get(a.edge_out_bias, Op);
        get(a.node_in_bias, Up);
        get(a.node_out_bias, CW);
    }
    for (int l = 0; l < L; l++) map(e.represent[l], SB, Cp);
    map(e.readout_in, Cp, Cp);
    get(e.embedding, S * Cp);
    get(e.readout_in_bias, Cp);
    get(e.readout_out, Cp);
    get(e.readout_out_bias, 1);
    get(e.readout_skip, Cp);
}

template <class T, int L>
template <class F>
inline void Geat<T, L>::places(std::vector<int64_t>& at, int64_t columns, F&& column) {
    at.resize(columns);
    for (int64_t c = 0; c < columns; c++) at[c] = column(c);
}

// m of W = m p; the sum over neighbours in (i) is scaled within the weights of the representation.
template <class T, int L> inline double Geat<T, L>::factor(int64_t parameter) const {
    return multipliers[parameter] * (parameter == s.layers * PER_LAYER + REPRESENT ? s.sum_scale : 1.0);
}

template <class T, int L> inline void Geat<T, L>::make_weights() {
    w.resize(s.layers);
    shape_weights(weights_, w, ends, true);
    weights_.allocate();
    shape_weights(weights_, w, ends, true);
    std::memset(weights_.base, 0, weights_.used);
    const int64_t block = 16;  // rows at a time: the transposed map is written a cache line at a time
    std::vector<int64_t> at;
    auto fill = [&](int64_t parameter, int64_t offset, const Map<T>& map, int64_t rows, int64_t columns,
                    auto row, auto column, bool turned) {
        const T* p = params[parameter] + offset;
        const T m = T(factor(parameter));
        places(at, columns, column);
        for (int64_t first = 0; first < rows; first += block) {
            const int64_t end = std::min(first + block, rows);
            for (int64_t r = first; r < end; r++) {
                T* y = map.w + row(r) * map.columns;
                for (int64_t c = 0; c < columns; c++)
                    y[at[c]] = m * (turned ? p[c * rows + r] : p[r * columns + c]);
            }
            if (!map.transposed) continue;
            for (int64_t c = 0; c < columns; c++) {
                T* y = map.transposed + at[c] * map.rows;
                for (int64_t r = first; r < end; r++)
                    y[row(r)] = m * (turned ? p[c * rows + r] : p[r * columns + c]);
            }
        }
    };
    for (int64_t layer = 0; layer < s.layers; layer++) visit_layer(layer, w[layer], fill);
    visit_ends(ends, fill);
}

}  // namespace sapis

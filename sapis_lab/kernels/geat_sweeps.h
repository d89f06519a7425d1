// The sweeps over all layers and the readout   E_i = silu(y W + b) W' + b' + y w,   y the soft norm of the
// scalars: `forward` gives energies with dE/dv, `backward` the gradients of the parameters.

#pragma once
#include "geat_step.h"

namespace sapis {

// Adjoint of the scalars at the end of the layers, for the seed 1 (and its tangent for the seed c_i).
template <class T, int L> inline void Geat<T, L>::readout_adjoint(const Chunk<T>& c, T* x0b) const {
    std::vector<T>& zb = scratch<T>(0, c.n * Cp);
    for (int64_t n = 0; n < c.n; n++) IVDEP
    for (int64_t k = 0; k < Cp; k++) {
        const int64_t at = n * Cp + k;
        zb[at] = silu_slope(c.zr[at], c.sigma_r[at]) * ends.readout_out[k];
        c.xr_adjoint[at] = ends.readout_skip[k];
        x0b[at] = 0;
    }
    dense(ends.readout_in, c.n, zb.data(), Cp, C, c.xr_adjoint, Cp, true, true);
    norm_adjoint(c.n, c.x0, c.rho_r, c.xr_adjoint, x0b, s.norm_readout, 1);
}

// From the adjoint of the representation to those of Y and R of the pairs; adds.
template <class T, int L> inline void Geat<T, L>::representation_adjoint(Chunk<T>& c, const T* xb) const {
    const int64_t N = c.n;
    std::vector<T>& basis_b = scratch<T>(0, N * M * SB);
    maps(ends.represent, N, xb, N * Cp, Cp, C, basis_b.data(), SB, M * SB, false, true);
    basis_adjoint(c, basis_b.data());
}

// dE/dv of the pairs from the adjoints of Y, R and log f.
template <class T, int L>
template <bool add>
inline void Geat<T, L>::pair_gradients(const Chunk<T>& c, T* gradient) const {
    const int64_t stride = batch.entries;
    for (int64_t p = 0; p < c.pairs; p++) {
        if (c.entry[p] < 0) continue;
        v8 along{};
        for (int64_t k = 0; k < Bp; k += 8)
            along += load<v8>(c.radial_adjoint + p * Bp + k) * load<v8>(c.radial_slope + p * Bp + k);
        const T radial_ = sum8<T>(along) + c.log_f_adjoint[p] * c.slope[p];
        for (int k3 = 0; k3 < 3; k3++) {
            v8 sum{};
            for (int64_t m = 0; m < MP; m += 8)
                sum +=
                    load<v8>(c.harmonics_adjoint + p * MP + m) * load<v8>(c.jacobian + (p * 3 + k3) * MP + m);
            const T g = T(batch.energy_scale) * (sum8<T>(sum) + radial_ * c.unit[3 * p + k3]);
            T& to = gradient[k3 * stride + c.entry[p]];
            to = add ? to + g : g;
        }
    }
}

template <class T, int L> inline void Geat<T, L>::sweep_back(Chunk<T>& c, T* gradient) const {
    const int64_t N = c.n, P = c.pairs;
    std::memset(c.radial_adjoint, 0, P * Bp * sizeof(T));
    std::memset(c.harmonics_adjoint, 0, P * MP * sizeof(T));
    std::memset(c.log_f_adjoint, 0, P * sizeof(T));
    std::vector<T>& x0b = scratch<T>(5, N * Cp);
    readout_adjoint(c, x0b.data());
    const T* xb = x0b.data();
    for (int64_t layer = s.layers - 1; layer >= 0; layer--) {
        Values<T>& b = c.adjoint[layer];
        std::memset(b.project, 0, N * M * PR * sizeof(T));
        std::memset(b.scalar_value, 0, N * Cp * sizeof(T));
        receive_adjoint(c, layer, xb);
        sources_adjoint(c, layer);
        xb = b.x;
    }
    representation_adjoint(c, xb);
    pair_gradients<false>(c, gradient);
}

template <class T, int L>
inline void Geat<T, L>::backward_chunk(Chunk<T>& c, const T* energy, const T* gradient, const T* features,
                                       std::vector<Weights<T>>& grad, Ends<T>& grad_ends) const {
    const int64_t N = c.n, P = c.pairs, stride = batch.entries;
    const T scale = T(batch.energy_scale);
    Arena arena;
    std::vector<Values<T>> t(s.layers);
    Values<T> d;
    T *radial_dot, *log_f_dot, *basis_dot, *x0_dot, *x0b, *x0bd, *xbd;
    auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
    auto shape = [&] {
        get(c.harmonics_dot, P * MP);
        get(radial_dot, P * Bp);
        get(log_f_dot, P);
        get(basis_dot, N * M * SB);
        get(x0_dot, N * Cp);
        get(x0b, N * Cp);
        get(x0bd, N * Cp);
        get(xbd, M * N * Cp);
        for (int64_t layer = 0; layer < s.layers; layer++) shape_values(arena, c, t[layer], last(layer));
        shape_values(arena, c, d, s.layers == 1);
    };
    shape();
    arena.allocate();
    shape();

    for (int64_t p = 0; p < P; p++) {  // tangents of the geometry along w
        T along = 0, v[3] = {0, 0, 0};
        if (c.entry[p] >= 0)
            for (int k3 = 0; k3 < 3; k3++) {
                v[k3] = scale * gradient[k3 * stride + c.entry[p]];
                along += v[k3] * c.unit[3 * p + k3];
            }
        for (int64_t m = 0; m < MP; m += 8) {
            v8 sum{};
            for (int k3 = 0; k3 < 3; k3++) sum += v[k3] * load<v8>(c.jacobian + (p * 3 + k3) * MP + m);
            store(c.harmonics_dot + p * MP + m, sum);
        }
        for (int64_t k = 0; k < Bp; k += 8)
            store(radial_dot + p * Bp + k, along * load<v8>(c.radial_slope + p * Bp + k));
        log_f_dot[p] = along * c.slope[p];
    }
    std::memset(basis_dot, 0, N * M * SB * sizeof(T));
    add_basis(c, c.harmonics_dot, c.radial, basis_dot);
    add_basis(c, c.harmonics, radial_dot, basis_dot);
    maps(ends.represent, N, basis_dot, SB, M * SB, SB, t[0].x, N * Cp, Cp, false, false);
    for (int64_t layer = 0; layer < s.layers; layer++)
        layer_tangent(c, layer, t, x0_dot, radial_dot, log_f_dot);

    readout_adjoint(c, x0b);
    std::vector<T>&zd = scratch<T>(1, N * Cp), &zb = scratch<T>(2, N * Cp), &zbd = scratch<T>(3, N * Cp);
    std::vector<T>&xr_dot = scratch<T>(4, N * Cp), &xrbd = scratch<T>(5, N * Cp);
    norm_tangent(N, c.x0, x0_dot, c.rho_r, xr_dot.data(), s.norm_readout, 1);
    dense(ends.readout_in, N, xr_dot.data(), Cp, C, zd.data(), Cp, false, false);
    for (int64_t n = 0; n < N; n++) {
        const T seed = scale * energy[c.atom[n]];
        grad_ends.readout_out_bias[0] += seed;
        IVDEP
        for (int64_t k = 0; k < Cp; k++) {
            const int64_t at = n * Cp + k;
            const T z = c.zr[at], sigma = c.sigma_r[at], out = ends.readout_out[k];
            grad_ends.readout_out[k] += seed * z * sigma + silu_slope(z, sigma) * zd[at];
            grad_ends.readout_skip[k] += seed * c.xr[at] + xr_dot[at];
            zb[at] = silu_slope(z, sigma) * out;
            zbd[at] = silu_curvature(z, sigma) * zd[at] * out + silu_slope(z, sigma) * seed * out;
            xrbd[at] = seed * ends.readout_skip[k];
            x0bd[at] = 0;
        }
    }
    if (features)
        for (int64_t n = 0; n < N; n++)
            std::memcpy(x0bd + n * Cp, features + int64_t(c.atom[n]) * C, C * sizeof(T));
    outer(grad_ends.readout_in, N, c.xr, Cp, C, zbd.data(), Cp);
    outer(grad_ends.readout_in, N, xr_dot.data(), Cp, C, zb.data(), Cp);
    add_rows(grad_ends.readout_in_bias, N, zbd.data(), Cp, Cp);
    dense(ends.readout_in, N, zbd.data(), Cp, C, xrbd.data(), Cp, true, true);
    norm_adjoint_tangent(N, c.x0, x0_dot, c.rho_r, c.xr_adjoint, xrbd.data(), x0bd, s.norm_readout, 1);

    const T *xb = x0b, *seeds = x0bd;
    for (int64_t layer = s.layers - 1; layer >= 0; layer--) {
        layer_adjoint_tangent(c, layer, t, d, xb, seeds, radial_dot, grad[layer]);
        std::memcpy(xbd, d.x, M * N * Cp * sizeof(T));
        xb = c.adjoint[layer].x, seeds = xbd;
    }
    outer(grad_ends.represent, N, c.basis, SB, M * SB, SB, seeds, N * Cp, Cp);
    outer(grad_ends.represent, N, basis_dot, SB, M * SB, SB, xb, N * Cp, Cp);
    for (int64_t n = 0; n < N; n++) add_to(grad_ends.embedding + c.species[n] * Cp, seeds + n * Cp, Cp);
}

// (i): x of the first layer, from Y and R.
template <class T, int L> inline void Geat<T, L>::representation(Chunk<T>& c) const {
    const int64_t N = c.n;
    std::memset(c.basis, 0, N * M * SB * sizeof(T));
    add_basis(c, c.harmonics, c.radial, c.basis);
    T* x = c.value[0].x;
    maps(ends.represent, N, c.basis, SB, M * SB, SB, x, N * Cp, Cp, false, false);
    for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, ends.embedding + c.species[n] * Cp, Cp);
}

// Energies of the atoms and, unless null, their features, from the scalars at the end of the layers.
template <class T, int L> inline void Geat<T, L>::readout(Chunk<T>& c, T* energy, T* features) const {
    const int64_t N = c.n;
    fill_rows(c.zr, N, Cp, ends.readout_in_bias, Cp);
    norm(N, c.x0, c.rho_r, c.xr, s.norm_readout, 1);
    dense(ends.readout_in, N, c.xr, Cp, C, c.zr, Cp, true, false);
    sigmoid(c.zr, c.sigma_r, N * Cp);
    for (int64_t n = 0; n < N; n++) {
        T total = ends.readout_out_bias[0];
        for (int64_t k = 0; k < C; k++) {
            const int64_t at = n * Cp + k;
            total += c.zr[at] * c.sigma_r[at] * ends.readout_out[k] + c.xr[at] * ends.readout_skip[k];
        }
        energy[c.atom[n]] = T(batch.energy_scale) * total;
        if (features) std::memcpy(features + int64_t(c.atom[n]) * C, c.x0 + n * Cp, C * sizeof(T));
    }
}

template <class T, int L> inline void Geat<T, L>::forward(T* energy, T* features, T* gradient) {
    std::memset(gradient, 0, 3 * batch.entries * sizeof(T));
    for (auto& c : chunks) {
        geometry(c);
        representation(c);
        for (int64_t layer = 0; layer < s.layers; layer++) sources(c, layer), receive(c, layer);
        readout(c, energy, features);
        sweep_back(c, gradient);
    }
}

// `features`: cotangent of the scalar features (A, C), or null where the loss does not depend on them.
template <class T, int L>
inline void Geat<T, L>::backward(const T* energy, const T* gradient, const T* features, T* const* grads) {
    Arena arena;
    std::vector<Weights<T>> grad(s.layers);
    Ends<T> grad_ends;
    shape_weights(arena, grad, grad_ends, false);
    arena.allocate();
    shape_weights(arena, grad, grad_ends, false);
    std::memset(arena.base, 0, arena.used);
    for (auto& c : chunks) backward_chunk(c, energy, gradient, features, grad, grad_ends);
    std::vector<int64_t> at;
    auto write = [&](int64_t parameter, int64_t offset, const Map<T>& map, int64_t rows, int64_t columns,
                     auto row, auto column, bool turned) {
        T* p = grads[parameter] + offset;
        const T m = T(factor(parameter));
        places(at, columns, column);
        for (int64_t r = 0; r < rows; r++) {
            const T* x = map.w + row(r) * map.columns;
            for (int64_t c = 0; c < columns; c++) p[turned ? c * rows + r : r * columns + c] = m * x[at[c]];
        }
    };
    for (int64_t layer = 0; layer < s.layers; layer++) visit_layer(layer, grad[layer], write);
    visit_ends(grad_ends, write);
}

}  // namespace sapis

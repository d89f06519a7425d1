// Pairs within the cutoff, the memory of a chunk, the geometry features and the representation (i).

#pragma once
#include "geat_step.h"

namespace sapis {

// Chunks of whole frames, about 32 atoms each.
template <class T, int L> inline void Geat<T, L>::make_chunks() {
    const int64_t per_chunk = 32;
    int64_t atom = 0;
    for (int64_t frame = 0; frame < batch.n_frames;) {
        chunks.emplace_back();
        Chunk<T>& c = chunks.back();
        const int64_t start = atom;
        while (frame < batch.n_frames && (c.n == 0 || c.n + batch.n_atoms[frame] <= per_chunk + 8)) {
            add_frame(c, frame, atom, start);
            atom += batch.n_atoms[frame++];
        }
        c.first.push_back(c.pairs = int64_t(c.neighbor.size()));
    }
    for (auto& c : chunks) shape_chunk(saved_, c), c.kind = c.species.data();
    saved_.allocate();
    for (auto& c : chunks) shape_chunk(saved_, c);
}

// The pairs of a frame, centre by centre: (i, i) first, then the neighbours within the cutoff.
template <class T, int L>
inline void Geat<T, L>::add_frame(Chunk<T>& c, int64_t frame, int64_t atom, int64_t start) {
    const T* v = static_cast<const T*>(batch.vectors);
    const int64_t stride = batch.entries, n = batch.n_atoms[frame];
    const T limit = T(s.cutoff) * T(s.cutoff);
    for (int64_t a = 0; a < n; a++) {
        c.first.push_back(int64_t(c.neighbor.size()));
        c.species.push_back(int32_t(batch.species[atom + a]));
        c.atom.push_back(int32_t(atom + a));
        c.neighbor.push_back(int32_t(c.n + a));
        c.entry.push_back(-1);
        const int64_t row = batch.block ? (frame * batch.block + a) * batch.block : (atom + a) * batch.slots;
        const int64_t slots = batch.block ? n : batch.slots;
        for (int64_t k = 0; k < slots; k++) {
            if (batch.block ? k == a : !batch.mask[row + k]) continue;
            const int64_t e = row + k;
            const T x = v[e], y = v[stride + e], z = v[2 * stride + e];
            if (x * x + y * y + z * z >= limit) continue;  // NaN stays, and shows
            c.neighbor.push_back(int32_t(batch.block ? c.n + k : batch.neighbor[row + k] - start));
            c.entry.push_back(e);
        }
    }
    c.n += n;
}

// Parts of the arena for the values of one layer.
template <class T, int L>
inline void Geat<T, L>::shape_values(Arena& arena, const Chunk<T>& c, Values<T>& v, bool last_layer) const {
    auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
    const int64_t N = c.n, P = c.pairs;
    get(v.x, M * N * Cp);
    get(v.xn, M * N * Cp);
    get(v.project, N * M * PR);
    get(v.scalar_value, N * Cp);
    get(v.invariants, P * Qp);
    get(v.z, P * Ep);
    get(v.edge_out, P * Op);
    get(v.message, M * N * Cp);
    get(v.middle, M * N * Cp);
    get(v.xm, M * N * Cp);
    get(v.factors, M * N * 2 * Wp);
    get(v.node_in, N * CW);
    get(v.zn, N * Up);
    get(v.node_out, N * CW);
    v.grid = v.product = nullptr;
    if (last_layer) return;
    get(v.grid, n_grid * N * 2 * Wp);
    get(v.product, M * N * Wp);
}

// Parts of the arena for all that a chunk keeps.
template <class T, int L> inline void Geat<T, L>::shape_chunk(Arena& arena, Chunk<T>& c) const {
    auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
    const int64_t N = c.n, P = c.pairs;
    get(c.harmonics, P * MP);
    get(c.radial, P * Bp);
    get(c.radial_slope, P * Bp);
    get(c.log_f, P);
    get(c.slope, P);
    get(c.unit, P * 3);
    get(c.jacobian, P * 3 * MP);
    get(c.basis, N * M * SB);
    get(c.x0, N * Cp);
    get(c.xr, N * Cp);
    get(c.rho_r, N);
    get(c.xr_adjoint, N * Cp);
    get(c.zr, N * Cp);
    get(c.sigma_r, N * Cp);
    get(c.radial_adjoint, P * Bp);
    get(c.harmonics_adjoint, P * MP);
    get(c.log_f_adjoint, P);
    c.value.resize(s.layers), c.adjoint.resize(s.layers), c.extra.resize(s.layers);
    for (int64_t layer = 0; layer < s.layers; layer++) {
        shape_values(arena, c, c.value[layer], last(layer));
        shape_values(arena, c, c.adjoint[layer], last(layer));
        Extra<T>& e = c.extra[layer];
        get(e.rho, L * N);
        get(e.rho_middle, L * N);
        get(e.sigma, P * Ep);
        get(e.sigma_node, N * Up);
        get(e.rho_edge, P);
        get(e.weights, P * Op);
    }
}

// Y with its Jacobian along v, R and log f with their slopes along r: the equations of
// geometry/{harmonics,radial}.py.
template <class T, int L> inline void Geat<T, L>::geometry(Chunk<T>& c) const {
    const T* v = static_cast<const T*>(batch.vectors);
    const int64_t stride = batch.entries;
    std::memset(c.harmonics, 0, c.pairs * MP * sizeof(T));
    std::memset(c.jacobian, 0, c.pairs * 3 * MP * sizeof(T));
    std::vector<T> decay(c.pairs);
    for (int64_t p = 0; p < c.pairs; p++) {
        c.harmonics[p * MP] = 1;
        const int64_t e = c.entry[p];
        if (e < 0) {
            c.log_f[p] = c.slope[p] = decay[p] = 0;
            c.unit[3 * p] = c.unit[3 * p + 1] = c.unit[3 * p + 2] = 0;
            continue;
        }
        const T x = v[e], y = v[stride + e], z = v[2 * stride + e];
        const T r = std::sqrt(x * x + y * y + z * z);
        const T u[3] = {x / r, y / r, z / r};
        std::memcpy(c.unit + 3 * p, u, sizeof u);
        harmonics(u, r, c.harmonics + p * MP, c.jacobian + p * 3 * MP);
        const T t = r / T(s.cutoff), inside = std::max(1 - t, T(1e-9));
        const T f = 1 + t * (3 + t * (6 + t * (10 + t * (15 + 21 * t))));
        c.log_f[p] = 3 * std::log(inside) + std::log(f);
        c.slope[p] = ((3 + t * (12 + t * (30 + t * (60 + 105 * t)))) / f - 3 / inside) / T(s.cutoff);
        decay[p] = -5 * t;
    }
    exponentials(decay.data(), c.pairs);
    const T steep = T(10 / s.cutoff);
    for (int64_t p = 0; p < c.pairs; p++) {
        T *row = c.radial + p * Bp, *slope = c.radial_slope + p * Bp;
        IVDEP
        for (int64_t k = 0; k < Bp; k++) {
            const T offset = decay[p] - T(k < B ? centers[k] : 0), width = T(k < B ? widths[k] : 0);
            row[k] = k < B && c.entry[p] >= 0 ? c.log_f[p] - width * offset * offset : T(-1e4);
            slope[k] = steep * width * offset * decay[p] + c.slope[p];
        }
    }
    exponentials(c.radial, c.pairs * Bp);
    for (int64_t p = 0; p < c.pairs; p++) {
        IVDEP
        for (int64_t k = 0; k < Bp; k++) {
            if (k >= B || c.entry[p] < 0) c.radial[p * Bp + k] = 0;
            c.radial_slope[p * Bp + k] *= c.radial[p * Bp + k];
        }
    }
}

// Y_lm(u) and dY_lm/dv of one pair, u = v / r with components y, z, x.
template <class T, int L> inline void Geat<T, L>::harmonics(const T* u, T r, T* value, T* jacobian) const {
    const T Y = u[0], Z = u[1], X = u[2];
    T power[L + 1], re[L + 1], im[L + 1];
    power[0] = re[0] = 1, im[0] = 0;
    for (int k = 1; k <= L; k++) {
        power[k] = power[k - 1] * Z;
        re[k] = X * re[k - 1] - Y * im[k - 1];
        im[k] = X * im[k - 1] + Y * re[k - 1];
    }
    for (int l = 0; l < L; l++)
        for (int m = -l; m <= l; m++) {
            const int a = std::abs(m), at = l * l + l + m;
            const double* k = coefficients.data() + (l * L + a) * L;
            T radial = 0, slope = 0;
            for (int p = l - a; p >= 0; p -= 2) radial += T(k[p]) * power[p];
            for (int p = l - a; p >= 1; p -= 2) slope += T(p * k[p]) * power[p - 1];
            const T azimuthal = m < 0 ? im[a] : re[a];
            value[at] = radial * (a ? azimuthal : T(1));
            T d[3] = {0, slope * (a ? azimuthal : T(1)), 0};
            if (a) {
                const T lower_re = a * re[a - 1], lower_im = a * im[a - 1];
                d[2] = radial * (m < 0 ? lower_im : lower_re);
                d[0] = radial * (m < 0 ? lower_re : -lower_im);
            }
            const T along = u[0] * d[0] + u[1] * d[1] + u[2] * d[2];
            for (int k3 = 0; k3 < 3; k3++) jacobian[k3 * MP + at] = (d[k3] - u[k3] * along) / r;
        }
}

// The sum in (i): basis_i += Y_m(r_ij) delta(s, Z_j) R_k(r_ij), rows (i, m) of S Bp.
template <class T, int L>
inline void Geat<T, L>::add_basis(const Chunk<T>& c, const T* harmonics_, const T* radial_, T* basis) const {
    for (int64_t i = 0; i < c.n; i++)
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
            if (c.entry[p] < 0) continue;
            T* row = basis + i * M * SB + c.kind[c.neighbor[p]] * Bp;
            UNROLL
            for (int m = 0; m < M; m++)
                for (int64_t k = 0; k < Bp; k += 8)
                    store(row + m * SB + k, load<v8>(row + m * SB + k) +
                                                harmonics_[p * MP + m] * load<v8>(radial_ + p * Bp + k));
        }
}

// From the adjoint of the basis to those of Y and R; adds.
template <class T, int L> inline void Geat<T, L>::basis_adjoint(Chunk<T>& c, const T* basis_b) const {
    for (int64_t i = 0; i < c.n; i++)
        for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
            if (c.entry[p] < 0) continue;
            const T* row = basis_b + i * M * SB + c.kind[c.neighbor[p]] * Bp;
            v8 on_y[M] = {};
            for (int64_t k = 0; k < Bp; k += 8) {
                v8 on_r = load<v8>(c.radial_adjoint + p * Bp + k);
                const v8 r = load<v8>(c.radial + p * Bp + k);
                UNROLL
                for (int m = 0; m < M; m++) {
                    const v8 seed = load<v8>(row + m * SB + k);
                    on_r += c.harmonics[p * MP + m] * seed;
                    on_y[m] += r * seed;
                }
                store(c.radial_adjoint + p * Bp + k, on_r);
            }
            UNROLL
            for (int m = 0; m < M; m++) c.harmonics_adjoint[p * MP + m] += sum8<T>(on_y[m]);
        }
}

}  // namespace sapis

// One training step of GEAT (models/geat.py) on one CPU thread: energies with dE/dv, then gradients of the
// parameters.
//
// `forward` computes the energy of every atom and its derivative in every displacement v, by one forward and
// one backward sweep. `backward` is given the cotangents c_i = dL/dE_i and w = dL/d(dE/dv) of a loss and
// returns dL/dparameters.  It needs no second backward pass through the first one: since
//
//     sum w . dE/dv = D_w E,   the derivative of E along v -> v + t w,
//
// dL/dparameters is the derivative along w of the backward sweep itself (forward-over-reverse, Pearlmutter
// 1994).  So `backward` carries a tangent ("dot") beside every value of the forward sweep and beside every
// adjoint of the backward sweep.  A linear map y = x W has
//
//     y' = x' W,   x~ = y~ W^T,   x~' = y~' W^T,   dL/dW = x^T y~' + x'^T y~,
//
// with ' the tangent and ~ the adjoint of E; the loss of energies enters as the tangent c_i of the adjoint 1
// of E_i.  A loss of the scalar features at the end of the layers, which further readouts use, enters there:
// its cotangent is added to the tangent of their adjoint.
//
// Layout.  Atoms are taken in chunks of whole frames, small enough for the second-level cache.  Node features
// are component-first (M, N, C), edge features one row per pair, all rows padded to 8 lanes with zeros. Pairs
// beyond the cutoff are dropped; the pair (i, i) is a row of its own.  The channels of values are ordered
// with the head as the fast index, so that a weight per head is a repeating pattern of lanes and a sum over
// the channels of a head folds one register.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "gemm.h"

#define IVDEP _Pragma("GCC ivdep")  // rows of different arrays do not overlap

namespace sapis {

// ---- what Python hands over

// Sizes and constants of a model, by the names that Python has for them.
struct Shape {
    int64_t lmax, layers, channels, heads, invariants, key_width;
    int64_t n_radial, edge_hidden, coupling_channels, node_width, n_species, n_grid;
    int64_t softmax, gaunt;  // 1, or 0 for the cheaper forms: weights f / mean_neighbors, gated linear update
    int64_t born_hidden;     // hidden units of the edge networks whose squares their soft norm counts
    double cutoff, sum_scale, uniform;
    double norm_attention, norm_update, norm_edge, norm_readout;  // 1 / (tau n) of the soft norms
    double energy_scale;
};

struct Batch {
    int64_t n_frames;
    int64_t block;    // atoms of a padded molecule, 0 for a table
    int64_t slots;    // K
    int64_t entries;  // G I K of `vectors`
    const int64_t *n_atoms, *neighbor;
    const uint8_t* mask;
    const int64_t* species;  // row of the species of every atom
    const void* vectors;     // (3, G, I, K)
};

enum {
    PROJECT,
    PROJECT_BIAS,
    SCALAR_VALUE,
    EDGE_RADIAL,
    EDGE_INVARIANT,
    EDGE_BIAS,
    EDGE_OUT,
    EDGE_OUT_BIAS,
    MERGE,
    FACTORS,
    NODE_IN,
    NODE_IN_BIAS,
    NODE_OUT,
    NODE_OUT_BIAS,
    COUPLE,
    PER_LAYER
};
enum { REPRESENT, EMBEDDING, READOUT_IN, READOUT_IN_BIAS, READOUT_OUT, READOUT_OUT_BIAS, READOUT_SKIP, ENDS };

// ---- memory

// Large buffers are kept and used again: fresh ones would cost a page fault every 4 KiB of every step.
class Pool {
    std::mutex lock;
    std::vector<std::pair<size_t, void*>> free_;

public:
    void* take(size_t& bytes) {
        {
            std::lock_guard<std::mutex> guard(lock);
            for (size_t i = 0; i < free_.size(); i++)
                if (free_[i].first >= bytes && free_[i].first <= 2 * bytes + (1 << 20)) {
                    auto found = free_[i];
                    free_.erase(free_.begin() + i);
                    bytes = found.first;
                    return found.second;
                }
        }
        bytes = (bytes + bytes / 8 + 4095) & ~size_t(4095);  // batches of nearly the same size share a buffer
        void* p = nullptr;
        if (posix_memalign(&p, 4096, bytes)) throw std::bad_alloc();
        return p;
    }
    void give(void* p, size_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        free_.emplace_back(bytes, p);
        if (free_.size() > 6) {
            std::free(free_.front().second);
            free_.erase(free_.begin());
        }
    }
};
static Pool pool;

// Hands out aligned parts of one buffer; a first round without a buffer only measures.
struct Arena {
    char* base = nullptr;
    size_t used = 0, size = 0;
    template <class T> T* get(int64_t n) {
        size_t at = used;
        used += (size_t(n) * sizeof(T) + 127) &
                ~size_t(63);  // a spare line: rows may be read past their end by one register
        return base ? reinterpret_cast<T*>(base + at) : nullptr;
    }
    void allocate() {
        size = used;
        base = static_cast<char*>(pool.take(size));
        used = 0;
    }
    ~Arena() {
        if (base) pool.give(base, size);
    }
};

// ---- functions

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

// ---- the model

// Weights with their multipliers, padded, both ways round (y = x W and x~ = y~ W^T), or gradients in the
// place of `w`.
template <class T> struct Map {
    int64_t rows = 0, columns = 0;  // padded
    T *w = nullptr, *transposed = nullptr;
};

template <class T> struct Weights {
    Map<T> project[8], merge[8], factors[8], couple[8];  // one a degree
    Map<T> scalar_value, edge_radial, edge_invariant, edge_out, node_in, node_out;
    T *project_bias, *edge_bias, *edge_out_bias, *node_in_bias, *node_out_bias;
};

template <class T> struct Ends {
    Map<T> represent[8], readout_in;
    T *embedding, *readout_in_bias, *readout_out, *readout_out_bias, *readout_skip;
};

// The values of one layer; the same struct holds their tangents, adjoints and tangents of adjoints.
template <class T> struct Values {
    T *x, *xn, *project, *scalar_value, *invariants, *z, *edge_out, *message, *middle, *xm, *factors,
        *node_in, *zn, *node_out, *grid, *product;
};
template <class T>
struct Extra {  // of the values: norms and sigmoids; of the adjoints: gradients in the weights of heads
    T *rho, *sigma, *rho_middle, *sigma_node, *rho_edge, *weights;
};

template <class T> struct Chunk {
    int64_t n = 0, pairs = 0;
    std::vector<int64_t> first, entry;  // rows of a centre; place in `vectors`, -1 for the pair (i, i)
    std::vector<int32_t> neighbor, species, atom;
    T *harmonics, *harmonics_dot, *radial, *radial_slope, *log_f, *slope, *unit, *jacobian, *basis;
    T *x0, *xr, *rho_r, *zr, *sigma_r, *xr_adjoint, *radial_adjoint, *harmonics_adjoint, *log_f_adjoint;
    std::vector<Values<T>> value, adjoint;
    std::vector<Extra<T>> extra;
};

template <class T, int L> class Geat {
    typedef typename Lanes<T>::v8 v8;
    static constexpr int M = L * L;
    static constexpr int64_t MP = (M + 7) & ~7;

    const Shape s;
    const int64_t C, Cp, H, Q, D, Dp, PR, B, Bp, E, Ep, O, Op, Qp, W, Wp, U, Up, CW, S, SB,
        n_grid;  // p: padded to 8
    Batch batch;
    Arena weights_, saved_;
    std::vector<Weights<T>> w;
    Ends<T> ends;
    std::vector<T> to_grid, from_grid, to_grid_t, from_grid_t;
    std::vector<double> coefficients, centers, widths;
    std::vector<const T*> params;
    std::vector<double> multipliers;
    std::vector<Chunk<T>> chunks;

    static int degree(int m) {
        int l = 0;
        while ((l + 1) * (l + 1) <= m) l++;
        return l;
    }
    bool last(int64_t layer) const { return layer == s.layers - 1; }
    int64_t lane(int64_t c) const {
        return (c % (C / H)) * H + c / (C / H);
    }  // place of channel c among the values
    int64_t key(int64_t q, int64_t d) const { return d * Q + q; }

public:
    Geat(const Shape& shape, const Batch& b, const void* const* p, const double* m,
         const double* coefficients_, const double* centers_, const double* widths_, const double* to,
         const double* from)
        : s(shape), C(s.channels), Cp(round8(C)), H(s.heads), Q(s.invariants), D(s.key_width),
          Dp(round8(Q * D)), PR(2 * Dp + Cp), B(s.n_radial), Bp(round8(B)), E(s.edge_hidden), Ep(round8(E)),
          O(H * (L + 2)), Op(round8(O) + 8), Qp(round8(Q)), W(s.coupling_channels), Wp(round8(W)),
          U(s.node_width), Up(round8(U)), CW(Cp + L * Wp), S(s.n_species), SB(S * Bp), n_grid(s.n_grid),
          batch(b), coefficients(coefficients_, coefficients_ + L * L * L),
          centers(centers_, centers_ + s.n_radial), widths(widths_, widths_ + s.n_radial) {
        int64_t count = s.layers * PER_LAYER + ENDS;
        multipliers.assign(m, m + count);
        for (int64_t k = 0; k < count; k++) params.push_back(static_cast<const T*>(p[k]));
        to_grid.assign(to, to + n_grid * M);
        from_grid.assign(from, from + M * n_grid);
        to_grid_t.resize(M * n_grid);
        from_grid_t.resize(n_grid * M);
        for (int64_t g = 0; g < n_grid; g++)
            for (int m_ = 0; m_ < M; m_++)
                to_grid_t[m_ * n_grid + g] = to_grid[g * M + m_],
                                        from_grid_t[g * M + m_] = from_grid[m_ * n_grid + g];
        make_weights();
        make_chunks();
    }

private:
    // ---- weights

    // Every parameter is visited as (entry of the parameter, places in the padded maps), by one routine for
    // both directions: filling the maps from the parameters, and the gradients of the parameters from
    // gradients in the shape of the maps.
    template <class F> void visit_layer(int64_t layer, Weights<T>& a, F&& f) const {
        const int64_t base = layer * PER_LAYER, keys = 2 * Q * D, wide = keys + C;
        auto projected = [&](int64_t c) {
            if (c >= keys) return 2 * Dp + lane(c - keys);
            int64_t side = c / (Q * D), q = c % (Q * D) / D, d = c % D;
            return side * Dp + key(q, d);
        };
        auto invariant = [&](int64_t c) {
            return c < C ? c : Cp + (c - C) / W * Wp + (c - C) % W;
        };  // rows of node_in, columns of node_out
        auto same = [](int64_t c) { return c; };
        for (int l = 0; l < L; l++) {
            f(base + PROJECT, l * C * wide, a.project[l], C, wide, same, projected, false);
            f(base + MERGE, l * C * C, a.merge[l], C, C, [&](int64_t c) { return lane(c); }, same, false);
            f(
                base + FACTORS, l * C * 2 * W, a.factors[l], C, 2 * W, same,
                [&](int64_t c) { return c / W * Wp + c % W; }, false);
            if (!last(layer)) f(base + COUPLE, l * W * C, a.couple[l], W, C, same, same, false);
        }
        auto vector = [](T* p) {
            Map<T> v;
            v.w = p;
            return v;
        };
        f(base + PROJECT_BIAS, 0, vector(a.project_bias), 1, wide, same, projected, false);
        f(base + SCALAR_VALUE, 0, a.scalar_value, C, C, same, [&](int64_t c) { return lane(c); }, false);
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
    template <class F> void visit_ends(Ends<T>& a, F&& f) const {
        const int64_t base = s.layers * PER_LAYER;
        auto same = [](int64_t c) { return c; };
        auto vector = [](T* p, int64_t columns) {
            Map<T> v;
            v.w = p;
            v.columns = columns;
            return v;
        };
        for (int l = 0; l < L; l++)
            f(
                base + REPRESENT, l * S * B * C, a.represent[l], S * B, C,
                [&](int64_t r) { return r / B * Bp + r % B; }, same, false);
        f(base + EMBEDDING, 0, vector(a.embedding, Cp), S, C, same, same, false);
        f(base + READOUT_IN, 0, a.readout_in, C, C, same, same, false);
        f(base + READOUT_IN_BIAS, 0, vector(a.readout_in_bias, Cp), 1, C, same, same, false);
        f(base + READOUT_OUT, 0, vector(a.readout_out, 1), C, 1, same, same, false);
        f(base + READOUT_OUT_BIAS, 0, vector(a.readout_out_bias, 1), 1, 1, same, same, false);
        f(base + READOUT_SKIP, 0, vector(a.readout_skip, 1), C, 1, same, same, false);
    }

    void shape_weights(Arena& arena, std::vector<Weights<T>>& all_, Ends<T>& e, bool both) const {
        auto map = [&](Map<T>& m, int64_t rows, int64_t columns) {
            m.rows = round8(rows), m.columns = columns;
            m.w = arena.template get<T>(m.rows * columns);
            m.transposed = both ? arena.template get<T>(columns * m.rows) : nullptr;
        };
        for (int64_t layer = 0; layer < s.layers; layer++) {
            Weights<T>& a = all_[layer];
            for (int l = 0; l < L; l++) {
                map(a.project[l], Cp, PR), map(a.merge[l], Cp, Cp), map(a.factors[l], Cp, 2 * Wp);
                if (!last(layer)) map(a.couple[l], Wp, Cp);
            }
            map(a.scalar_value, Cp, Cp), map(a.edge_radial, Bp, Ep), map(a.edge_invariant, Qp, Ep),
                map(a.edge_out, Ep, Op);
            map(a.node_in, CW, Up), map(a.node_out, Up, last(layer) ? Cp : CW);
            a.project_bias = arena.template get<T>(PR), a.edge_bias = arena.template get<T>(Ep),
            a.edge_out_bias = arena.template get<T>(Op);
            a.node_in_bias = arena.template get<T>(Up), a.node_out_bias = arena.template get<T>(CW);
        }
        for (int l = 0; l < L; l++) map(e.represent[l], SB, Cp);
        map(e.readout_in, Cp, Cp);
        e.embedding = arena.template get<T>(S * Cp), e.readout_in_bias = arena.template get<T>(Cp);
        e.readout_out = arena.template get<T>(Cp), e.readout_out_bias = arena.template get<T>(1),
        e.readout_skip = arena.template get<T>(Cp);
    }

    template <class F> static void places(std::vector<int64_t>& at, int64_t columns, F&& column) {
        at.resize(columns);
        for (int64_t c = 0; c < columns; c++) at[c] = column(c);
    }

    double factor(
        int64_t parameter) const {  // the sum over neighbours is scaled within the representation's weights
        return multipliers[parameter] * (parameter == s.layers * PER_LAYER + REPRESENT ? s.sum_scale : 1.0);
    }

    void make_weights() {
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

    // ---- pairs and memory

    void make_chunks() {
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
        for (auto& c : chunks) shape_chunk(saved_, c);
        saved_.allocate();
        for (auto& c : chunks) shape_chunk(saved_, c);
    }

    void add_frame(Chunk<T>& c, int64_t frame, int64_t atom, int64_t start) {
        const T* v = static_cast<const T*>(batch.vectors);
        const int64_t stride = batch.entries, n = batch.n_atoms[frame];
        const T limit = T(s.cutoff) * T(s.cutoff);
        for (int64_t a = 0; a < n; a++) {
            c.first.push_back(int64_t(c.neighbor.size()));
            c.species.push_back(int32_t(batch.species[atom + a]));
            c.atom.push_back(int32_t(atom + a));
            c.neighbor.push_back(int32_t(c.n + a)), c.entry.push_back(-1);
            const int64_t row =
                batch.block ? (frame * batch.block + a) * batch.block : (atom + a) * batch.slots;
            const int64_t slots = batch.block ? n : batch.slots;
            for (int64_t k = 0; k < slots; k++) {
                if (batch.block ? k == a : !batch.mask[row + k]) continue;
                const int64_t e = row + k;
                const T x = v[e], y = v[stride + e], z = v[2 * stride + e];
                if (x * x + y * y + z * z >= limit) continue;  // NaN stays, and shows
                c.neighbor.push_back(int32_t(batch.block ? c.n + k : batch.neighbor[row + k] - start)),
                    c.entry.push_back(e);
            }
        }
        c.n += n;
    }

    void shape_values(Arena& arena, const Chunk<T>& c, Values<T>& v, bool last_layer) const {
        const int64_t N = c.n, P = c.pairs;
        v.x = arena.template get<T>(M * N * Cp), v.xn = arena.template get<T>(M * N * Cp),
        v.project = arena.template get<T>(N * M * PR);
        v.scalar_value = arena.template get<T>(N * Cp), v.invariants = arena.template get<T>(P * Qp),
        v.z = arena.template get<T>(P * Ep);
        v.edge_out = arena.template get<T>(P * Op), v.message = arena.template get<T>(M * N * Cp),
        v.middle = arena.template get<T>(M * N * Cp);
        v.xm = arena.template get<T>(M * N * Cp), v.factors = arena.template get<T>(M * N * 2 * Wp),
        v.node_in = arena.template get<T>(N * CW);
        v.zn = arena.template get<T>(N * Up), v.node_out = arena.template get<T>(N * CW);
        v.grid = last_layer ? nullptr : arena.template get<T>(n_grid * N * 2 * Wp);
        v.product = last_layer ? nullptr : arena.template get<T>(M * N * Wp);
    }

    void shape_chunk(Arena& arena, Chunk<T>& c) const {
        const int64_t N = c.n, P = c.pairs;
        c.harmonics = arena.template get<T>(P * MP), c.radial = arena.template get<T>(P * Bp);
        c.radial_slope = arena.template get<T>(P * Bp), c.log_f = arena.template get<T>(P),
        c.slope = arena.template get<T>(P);
        c.unit = arena.template get<T>(P * 3), c.jacobian = arena.template get<T>(P * 3 * MP),
        c.basis = arena.template get<T>(N * M * SB);
        c.x0 = arena.template get<T>(N * Cp), c.xr = arena.template get<T>(N * Cp),
        c.rho_r = arena.template get<T>(N);
        c.xr_adjoint = arena.template get<T>(N * Cp), c.zr = arena.template get<T>(N * Cp),
        c.sigma_r = arena.template get<T>(N * Cp);
        c.radial_adjoint = arena.template get<T>(P * Bp), c.harmonics_adjoint = arena.template get<T>(P * MP);
        c.log_f_adjoint = arena.template get<T>(P);
        c.value.resize(s.layers), c.adjoint.resize(s.layers), c.extra.resize(s.layers);
        for (int64_t layer = 0; layer < s.layers; layer++) {
            shape_values(arena, c, c.value[layer], last(layer));
            shape_values(arena, c, c.adjoint[layer], last(layer));
            Extra<T>& e = c.extra[layer];
            e.rho = arena.template get<T>(L * N), e.rho_middle = arena.template get<T>(L * N),
            e.sigma = arena.template get<T>(P * Ep);
            e.sigma_node = arena.template get<T>(N * Up), e.rho_edge = arena.template get<T>(P),
            e.weights = arena.template get<T>(P * Op);
        }
    }

    // ---- geometry

    // Y with its Jacobian along v, R and log f with their slopes along r: the equations of
    // geometry/{harmonics,radial}.py.
    void geometry(Chunk<T>& c) const {
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
        for (int64_t p = 0; p < c.pairs; p++) IVDEP
        for (int64_t k = 0; k < Bp; k++) {
            if (k >= B || c.entry[p] < 0) c.radial[p * Bp + k] = 0;
            c.radial_slope[p * Bp + k] *= c.radial[p * Bp + k];
        }
    }

    void harmonics(const T* u, T r, T* value, T* jacobian) const {
        const T Y = u[0], Z = u[1], X = u[2];
        T power[L + 1], re[L + 1], im[L + 1];
        power[0] = re[0] = 1, im[0] = 0;
        for (int k = 1; k <= L; k++)
            power[k] = power[k - 1] * Z, re[k] = X * re[k - 1] - Y * im[k - 1],
            im[k] = X * im[k - 1] + Y * re[k - 1];
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

    // ---- pieces, each in four forms

    // y[m] (+)= x[m] W_l, rows of all atoms.  `x` (M, N, ldx), `y` row n of component m at y + m * ym + n *
    // yn.
    void maps(const Map<T>* map, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k, T* y, int64_t ym,
              int64_t yn, bool add, bool turned) const {
        for (int l = 0; l < L; l++) {
            const T* weight = turned ? map[l].transposed : map[l].w;
            const int64_t columns = turned ? map[l].rows : map[l].columns;
            if (xm == N * xn && ym == N * yn)
                gemm<T>((2 * l + 1) * N, columns, k, x + l * l * xm, xn, 1, weight, columns, y + l * l * ym,
                        yn, add);
            else
                for (int m = l * l; m < (l + 1) * (l + 1); m++)
                    gemm<T>(N, columns, k, x + m * xm, xn, 1, weight, columns, y + m * ym, yn, add);
        }
    }
    // dL/dW_l += sum over rows of x^T y.
    void outer(const Map<T>* grad, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k, const T* y,
               int64_t ym, int64_t yn) const {
        for (int l = 0; l < L; l++) {
            if (xm == N * xn && ym == N * yn)
                gemm<T>(k, grad[l].columns, (2 * l + 1) * N, x + l * l * xm, 1, xn, y + l * l * ym, yn,
                        grad[l].w, grad[l].columns, true);
            else
                for (int m = l * l; m < (l + 1) * (l + 1); m++)
                    gemm<T>(k, grad[l].columns, N, x + m * xm, 1, xn, y + m * ym, yn, grad[l].w,
                            grad[l].columns, true);
        }
    }
    static void dense(const Map<T>& map, int64_t rows, const T* x, int64_t xn, int64_t k, T* y, int64_t yn,
                      bool add, bool turned) {
        const int64_t columns = turned ? map.rows : map.columns;
        gemm<T>(rows, columns, k, x, xn, 1, turned ? map.transposed : map.w, columns, y, yn, add);
    }
    static void outer(const Map<T>& grad, int64_t rows, const T* x, int64_t xn, int64_t k, const T* y,
                      int64_t yn) {
        gemm<T>(k, grad.columns, rows, x, 1, xn, y, yn, grad.w, grad.columns, true);
    }
    static void add_rows(T* sum, int64_t rows, const T* y, int64_t yn, int64_t columns) {
        for (int64_t r = 0; r < rows; r++) IVDEP
        for (int64_t k = 0; k < columns; k++) sum[k] += y[r * yn + k];
    }
    static void fill_rows(T* y, int64_t rows, int64_t yn, const T* bias, int64_t columns) {
        for (int64_t r = 0; r < rows; r++) std::memcpy(y + r * yn, bias, columns * sizeof(T));
    }
    static void add_to(T* y, const T* x, int64_t n) {
        IVDEP
        for (int64_t k = 0; k < n; k++) y[k] += x[k];
    }

    // Soft norm y = x rho, rho = (1 + strength mean_m sum_c x^2)^(-1/2) per atom and degree.
    void norm(int64_t N, const T* x, T* rho, T* y, double strength, int degrees = L) const {
        for (int l = 0; l < degrees; l++)
            for (int64_t n = 0; n < N; n++) {
                const T root = 1 / std::sqrt(1 + T(strength / (2 * l + 1)) * dot(N, n, l, x, x));
                rho[l * N + n] = root;
                each(N, n, l, [&](int64_t at) { store(y + at, load<v8>(x + at) * root); });
            }
    }
    void norm_adjoint(int64_t N, const T* x, const T* rho, const T* yb, T* xb, double strength,
                      int degrees = L) const {  // adds to xb
        for (int l = 0; l < degrees; l++)
            for (int64_t n = 0; n < N; n++) {
                const T root = rho[l * N + n],
                        k = -T(strength / (2 * l + 1)) * root * root * root * dot(N, n, l, x, yb);
                each(N, n, l, [&](int64_t at) {
                    store(xb + at, load<v8>(xb + at) + root * load<v8>(yb + at) + k * load<v8>(x + at));
                });
            }
    }
    void norm_tangent(int64_t N, const T* x, const T* xd, const T* rho, T* yd, double strength,
                      int degrees = L) const {
        for (int l = 0; l < degrees; l++)
            for (int64_t n = 0; n < N; n++) {
                const T root = rho[l * N + n],
                        change = -T(strength / (2 * l + 1)) * root * root * root * dot(N, n, l, x, xd);
                each(N, n, l, [&](int64_t at) {
                    store(yd + at, load<v8>(xd + at) * root + load<v8>(x + at) * change);
                });
            }
    }
    void norm_adjoint_tangent(int64_t N, const T* x, const T* xd, const T* rho, const T* yb, const T* ybd,
                              T* xbd, double strength, int degrees = L) const {
        for (int l = 0; l < degrees; l++)
            for (int64_t n = 0; n < N; n++) {
                const T kappa = T(strength / (2 * l + 1)), root = rho[l * N + n], cube = root * root * root;
                const T change = -kappa * cube * dot(N, n, l, x, xd);
                const T t = dot(N, n, l, x, yb), td = dot(N, n, l, xd, yb) + dot(N, n, l, x, ybd);
                const T on_x = -kappa * (3 * root * root * change * t + cube * td), on_xd = -kappa * cube * t;
                each(N, n, l, [&](int64_t at) {
                    store(xbd + at, load<v8>(xbd + at) + change * load<v8>(yb + at) +
                                        root * load<v8>(ybd + at) + on_x * load<v8>(x + at) +
                                        on_xd * load<v8>(xd + at));
                });
            }
    }
    template <class F> void each(int64_t N, int64_t n, int l, F&& f) const {
        for (int m = l * l; m < (l + 1) * (l + 1); m++)
            for (int64_t c = 0; c < Cp; c += 8) f((m * N + n) * Cp + c);
    }
    T dot(int64_t N, int64_t n, int l, const T* x, const T* y) const {
        v8 total{};
        each(N, n, l, [&](int64_t at) { total += load<v8>(x + at) * load<v8>(y + at); });
        return sum8<T>(total);
    }

    // SiLU z sigma(z) on rows: values, and its first and second derivative from z and sigma.
    static void sigmoid(const T* z, T* sigma, int64_t n) {
        IVDEP
        for (int64_t k = 0; k < n; k++) sigma[k] = -z[k];
        exponentials(sigma, n);
        IVDEP
        for (int64_t k = 0; k < n; k++) sigma[k] = 1 / (1 + sigma[k]);
    }
    static T silu_slope(T z, T sigma) { return sigma * (1 + z * (1 - sigma)); }
    static T silu_curvature(T z, T sigma) { return sigma * (1 - sigma) * (2 + z * (1 - 2 * sigma)); }

    // ---- edges

    // The hidden layer of the edge network of one pair, h = silu(z) and its soft norm y = h rho, rho = (1 +
    // kappa sum h^2)^(-1/2), the sum over the first `edge_units`.
    T counted(const T* x, const T* y) const {
        v8 sum{};
        int64_t k = 0;
        for (; k + 8 <= s.born_hidden; k += 8) sum += load<v8>(x + k) * load<v8>(y + k);
        T total = sum8<T>(sum);
        for (; k < s.born_hidden; k++) total += x[k] * y[k];
        return total;
    }
    T inner(const T* x, const T* y) const {
        v8 sum{};
        for (int64_t k = 0; k < Ep; k += 8) sum += load<v8>(x + k) * load<v8>(y + k);
        return sum8<T>(sum);
    }
    void hidden(const T* z, const T* sigma, T* h) const {
        IVDEP
        for (int64_t k = 0; k < Ep; k++) h[k] = z[k] * sigma[k];
    }
    void hidden_tangent(const T* z, const T* sigma, const T* zd, T* hd) const {
        IVDEP
        for (int64_t k = 0; k < Ep; k++) hd[k] = silu_slope(z[k], sigma[k]) * zd[k];
    }
    void hidden_adjoint(const T* h, T rho, const T* yb, T* hb) const {
        const T on_h = -T(s.norm_edge) * rho * rho * rho * inner(h, yb);
        IVDEP
        for (int64_t k = 0; k < Ep; k++) hb[k] = rho * yb[k];
        IVDEP
        for (int64_t k = 0; k < s.born_hidden; k++) hb[k] += on_h * h[k];
    }

    // Rows of pairs in blocks of whole centres.
    template <class F> static void blocks(const Chunk<T>& c, F&& f) {
        for (int64_t i = 0; i < c.n;) {
            int64_t end = i + 1;
            while (end < c.n && c.first[end + 1] - c.first[i] <= 384) end++;
            f(i, end, c.first[i], c.first[end]);
            i = end;
        }
    }

    T* query(T* project, int64_t n, int m) const { return project + (n * M + m) * PR; }
    const T* query(const T* project, int64_t n, int m) const { return project + (n * M + m) * PR; }

    // inv_q = <query_i, key_j>_q over components and key channels; with tangents, its derivative.
    template <bool tangent>
    void invariants(const Chunk<T>& c, int64_t i, const T* project, const T* dot_, T* invariants) const {
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
    template <bool tangent>
    void invariants_adjoint(const Chunk<T>& c, int64_t i, const T* invariants, const T* invariants_dot,
                            const T* project, const T* dot_, T* adjoint) const {
        const int64_t from = c.first[i], n = c.first[i + 1] - from, sides = tangent ? 2 : 1;
        std::vector<T>& rows = scratch(6, n * sides * Dp);
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
    template <bool tangent, class V>
    void adjoint_columns(const Chunk<T>& c, int64_t i, int64_t n, int64_t v, const T* e, const T* project,
                         const T* dot_, T* adjoint) const {
        const int64_t from = c.first[i], sides = tangent ? 2 : 1;
        for (int m = 0; m < M; m++) {
            const V q = load<V>(query(project, i, m) + v),
                    qd = tangent ? load<V>(query(dot_, i, m) + v) : V{};
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
    void attention(const Chunk<T>& c, int64_t i, T* out) const {
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
    template <bool tangent>
    const T* lanes(const Chunk<T>& c, int64_t i, const T* out, const T* out_dot) const {
        constexpr int sides = tangent ? 2 : 1;
        std::vector<T>& rows = scratch(7, (c.first[i + 1] - c.first[i]) * sides * (L + 1) * 8);
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
    void message(const Chunk<T>& c, int64_t i, const Values<T>& v, T* m_out, int64_t N) const {
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
    void message_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v, const Values<T>& t, const T* yd_,
                         T* m_out, int64_t N) const {
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
                        sum[m] += on_xd * load<v8>(values + m * PR),
                            sum[m] += on_x * load<v8>(changes + m * PR);
                    }
                }
            }
            UNROLL
            for (int m = 0; m < M; m++) store(m_out + (m * N + i) * Cp + ch, sum[m]);
        }
    }
    // Adjoints of message: into weights (g_l alpha, h alpha: rows of H (L + 1)), Y, scalars and values of the
    // neighbours.
    void message_adjoint(Chunk<T>& c, int64_t i, const Values<T>& v, const T* mb, Values<T>& b, T* weights,
                         int64_t N) const {
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
    void message_adjoint_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v, const Values<T>& t,
                                 const T* yd_, const T* mb, const T* mbd, Values<T>& bd, T* weights,
                                 int64_t N) const {
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

    void edges(Chunk<T>& c, const Weights<T>& a, Values<T>& v, Extra<T>& e) const {
        blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
            const int64_t P = p1 - p0;
            std::vector<T>& h = scratch(0, P * Ep);
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

    void edges_adjoint(Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                       Values<T>& b) const {
        blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
            const int64_t P = p1 - p0;
            std::vector<T>& zb = scratch(0, P * Ep);
            for (int64_t i = i0; i < i1; i++) {
                message_adjoint(c, i, v, b.message, b, e.weights, c.n);
                T mean[8] = {};
                for (int64_t p = c.first[i]; p < c.first[i + 1]; p++)
                    for (int64_t h = 0; h < H; h++)
                        mean[h] += v.edge_out[p * Op + h] *
                                   alpha_adjoint(v.edge_out + p * Op, e.weights + p * Op, h);
                for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                    T *ob = b.edge_out + p * Op, total = 0;
                    const T* out = v.edge_out + p * Op;
                    for (int64_t h = 0; h < H; h++) {
                        const T on_alpha = alpha_adjoint(out, e.weights + p * Op, h),
                                on_logit = out[h] * (s.softmax ? on_alpha - mean[h] : on_alpha);
                        total += on_logit;
                        ob[h] = s.softmax ? on_logit : 0;
                        UNROLL
                        for (int g = 0; g <= L; g++)
                            ob[(g + 1) * H + h] = e.weights[p * Op + g * H + h] * out[h];
                    }
                    c.log_f_adjoint[p] += total;
                }
            }
            dense(a.edge_out, P, b.edge_out + p0 * Op, Op, O, b.z + p0 * Ep, Ep, false,
                  true);  // b.z: adjoint of the hidden layer's output
            std::vector<T>& h = scratch(1, Ep);
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
    T alpha_adjoint(const T* out, const T* weights, int64_t h) const {
        T total = 0;
        UNROLL
        for (int g = 0; g <= L; g++) total += weights[g * H + h] * out[(g + 1) * H + h];
        return total;
    }

    void edges_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                       Values<T>& t, const T* radial_dot, const T* log_f_dot) const {
        blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
            const int64_t P = p1 - p0;
            std::vector<T>& hd = scratch(0, P * Ep);
            for (int64_t i = i0; i < i1; i++) invariants<true>(c, i, v.project, t.project, t.invariants);
            dense(a.edge_radial, P, radial_dot + p0 * Bp, Bp, B, t.z + p0 * Ep, Ep, false, false);
            dense(a.edge_invariant, P, t.invariants + p0 * Qp, Qp, Q, t.z + p0 * Ep, Ep, true, false);
            std::vector<T>& h = scratch(1, Ep);
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
                        t.edge_out[p * Op + h] =
                            v.edge_out[p * Op + h] *
                            (s.softmax ? t.edge_out[p * Op + h] - mean[h] : log_f_dot[p]);
                message_tangent(c, i, v, t, c.harmonics_dot, t.message, c.n);
            }
        });
    }

    void edges_adjoint_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                               const Values<T>& t, const Values<T>& b, Values<T>& bd, const T* radial_dot,
                               Weights<T>& grad) const {
        blocks(c, [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
            const int64_t P = p1 - p0;
            std::vector<T>&h = scratch(0, P * Ep), &hd = scratch(1, P * Ep), &zb = scratch(2, P * Ep),
            &zbd = scratch(3, P * Ep);
            std::vector<T>&wd = scratch(4, P * Op), &invariants_d = scratch(5, P * Qp);
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
                            ob[(g + 1) * H + h_] = wd[(p - p0) * Op + g * H + h_] * alpha +
                                                   e.weights[p * Op + g * H + h_] * alpha_d;
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
                const T rho = e.rho_edge[p0 + p], cube = rho * rho * rho,
                        change = -kappa * cube * counted(y, yd);
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
                invariants_adjoint<true>(c, i, b.invariants, invariants_d.data() - p0 * Qp, v.project,
                                         t.project, bd.project);
        });
    }

    // ---- one layer in four forms

    void layer_forward(Chunk<T>& c, int64_t layer) const {
        const Weights<T>& a = w[layer];
        Values<T>& v = c.value[layer];
        Extra<T>& e = c.extra[layer];
        const int64_t N = c.n, all_ = M * N * Cp;
        norm(N, v.x, e.rho, v.xn, s.norm_attention);
        fill_rows(v.project, N, M * PR, a.project_bias, PR);
        for (int m = 0; m < M; m++) {
            const Map<T>& map = a.project[degree(m)];
            gemm<T>(N, PR, C, v.xn + m * N * Cp, Cp, 1, map.w, PR, v.project + m * PR, M * PR, m == 0);
        }
        dense(a.scalar_value, N, v.xn, Cp, C, v.scalar_value, Cp, false, false);
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
        std::vector<T>& h = scratch(0, N * Up);
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
        std::vector<T>& gated = scratch(1, M * N * Wp);
        gate(N, v.product, v.node_out, gated.data(), false);
        maps(a.couple, N, gated.data(), N * Wp, Wp, W, x, N * Cp, Cp, true, false);
        for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, v.node_out + n * CW, Cp);
    }

    // sum_m a b / sqrt(2l+1) of every degree and channel; a the first, b the second half of the rows.
    void pair_products(int64_t N, int64_t n, const T* a, const T* b, T* invariants, bool add) const {
        for (int l = 0; l < L; l++)
            for (int64_t k = 0; k < Wp; k += 8) {
                v8 sum{};
                for (int m = l * l; m < (l + 1) * (l + 1); m++)
                    sum +=
                        load<v8>(a + (m * N + n) * 2 * Wp + k) * load<v8>(b + (m * N + n) * 2 * Wp + Wp + k);
                sum *= T(1 / std::sqrt(2 * l + 1.0));
                store(invariants + l * Wp + k, add ? load<v8>(invariants + l * Wp + k) + sum : sum);
            }
    }
    // adjoint: a~ += invariants~ b, b~ += invariants~ a.
    void pair_products_adjoint(int64_t N, int64_t n, const T* invariants, const T* ab, T* adjoint) const {
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
    void gate(int64_t N, const T* x, const T* node_out, T* y, bool add) const {
        for (int m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++) {
                const T *g = node_out + n * CW + Cp + degree(m) * Wp, *row = x + (m * N + n) * Wp;
                T* out = y + (m * N + n) * Wp;
                IVDEP
                for (int64_t k = 0; k < Wp; k++) out[k] = (add ? out[k] : 0) + row[k] * g[k];
            }
    }
    void gate_adjoint(int64_t N, const T* yb, const T* x, T* node_out_b) const {  // adds
        for (int m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++) {
                T* g = node_out_b + n * CW + Cp + degree(m) * Wp;
                const T *row = yb + (m * N + n) * Wp, *other = x + (m * N + n) * Wp;
                IVDEP
                for (int64_t k = 0; k < Wp; k++) g[k] += row[k] * other[k];
            }
    }
    // t = P ((G a) (G b)); the plain form hands a on.
    void to_grid_of(int64_t N, const T* ab, T* grid) const {
        gemm<T>(n_grid, N * 2 * Wp, M, to_grid.data(), M, 1, ab, N * 2 * Wp, grid, N * 2 * Wp, false);
    }
    void copy_factors(int64_t N, const T* ab, T* x) const {
        for (int64_t r = 0; r < M * N; r++) std::memcpy(x + r * Wp, ab + r * 2 * Wp, Wp * sizeof(T));
    }
    void product(int64_t N, Values<T>& v) const {
        if (!s.gaunt) return copy_factors(N, v.factors, v.product);
        to_grid_of(N, v.factors, v.grid);
        std::vector<T>& t = scratch(1, n_grid * N * Wp);
        multiply(n_grid * N, v.grid, v.grid, t.data(), false);
        gemm<T>(M, N * Wp, n_grid, from_grid.data(), n_grid, 1, t.data(), N * Wp, v.product, N * Wp, false);
    }
    void multiply(int64_t rows, const T* a, const T* b, T* y, bool add) const {
        for (int64_t r = 0; r < rows; r++) IVDEP
        for (int64_t k = 0; k < Wp; k++)
            y[r * Wp + k] = (add ? y[r * Wp + k] : 0) + a[r * 2 * Wp + k] * b[r * 2 * Wp + Wp + k];
    }
    void product_tangent(int64_t N, const Values<T>& v, Values<T>& t) const {
        if (!s.gaunt) return copy_factors(N, t.factors, t.product);
        to_grid_of(N, t.factors, t.grid);
        std::vector<T>& y = scratch(1, n_grid * N * Wp);
        multiply(n_grid * N, t.grid, v.grid, y.data(), false);
        multiply(n_grid * N, v.grid, t.grid, y.data(), true);
        gemm<T>(M, N * Wp, n_grid, from_grid.data(), n_grid, 1, y.data(), N * Wp, t.product, N * Wp, false);
    }
    // b.product: adjoint of the product; b.grid: first half the adjoint on the grid.  Adds to b.factors.
    void product_adjoint(int64_t N, const Values<T>& v, Values<T>& b) const {
        if (!s.gaunt) {
            for (int64_t r = 0; r < M * N; r++) add_to(b.factors + r * 2 * Wp, b.product + r * Wp, Wp);
            return;
        }
        gemm<T>(n_grid, N * Wp, M, from_grid_t.data(), M, 1, b.product, N * Wp, b.grid, N * Wp, false);
        std::vector<T>& both = scratch(1, n_grid * N * 2 * Wp);
        swap_multiply(n_grid * N, b.grid, v.grid, both.data(), false);
        gemm<T>(M, N * 2 * Wp, n_grid, to_grid_t.data(), n_grid, 1, both.data(), N * 2 * Wp, b.factors,
                N * 2 * Wp, true);
    }
    void product_adjoint_tangent(int64_t N, const Values<T>& v, const Values<T>& t, const Values<T>& b,
                                 Values<T>& bd) const {
        if (!s.gaunt) {
            for (int64_t r = 0; r < M * N; r++) add_to(bd.factors + r * 2 * Wp, bd.product + r * Wp, Wp);
            return;
        }
        gemm<T>(n_grid, N * Wp, M, from_grid_t.data(), M, 1, bd.product, N * Wp, bd.grid, N * Wp, false);
        std::vector<T>& both = scratch(1, n_grid * N * 2 * Wp);
        swap_multiply(n_grid * N, bd.grid, v.grid, both.data(), false);
        swap_multiply(n_grid * N, b.grid, t.grid, both.data(), true);
        gemm<T>(M, N * 2 * Wp, n_grid, to_grid_t.data(), n_grid, 1, both.data(), N * 2 * Wp, bd.factors,
                N * 2 * Wp, true);
    }
    void swap_multiply(int64_t rows, const T* y, const T* ab, T* out, bool add) const {
        for (int64_t r = 0; r < rows; r++) IVDEP
        for (int64_t k = 0; k < Wp; k++) {
            T *a = out + r * 2 * Wp + k, *b = a + Wp;
            *a = (add ? *a : 0) + y[r * Wp + k] * ab[r * 2 * Wp + Wp + k];
            *b = (add ? *b : 0) + y[r * Wp + k] * ab[r * 2 * Wp + k];
        }
    }

    // Given the adjoint of the layer's output in `xb` (M, N, Cp; the last layer: (N, Cp)), the adjoint of its
    // input in b.x.
    void layer_adjoint(Chunk<T>& c, int64_t layer, const T* xb) const {
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
            std::vector<T>& gated = scratch(2, M * N * Wp);
            maps(a.couple, N, xb, N * Cp, Cp, C, gated.data(), N * Wp, Wp, false, true);
            gate_adjoint(N, gated.data(), v.product, b.node_out);
            gate(N, gated.data(), v.node_out, b.product, false);
            product_adjoint(N, v, b);
        }
        dense(a.node_out, N, b.node_out, columns, columns, b.zn, Up, false,
              true);  // b.zn: adjoint of the hidden layer's output
        std::vector<T>& zb = scratch(0, N * Up);
        IVDEP
        for (int64_t k = 0; k < N * Up; k++) zb[k] = silu_slope(v.zn[k], e.sigma_node[k]) * b.zn[k];
        dense(a.node_in, N, zb.data(), Up, U, b.node_in, CW, false, true);
        for (int64_t n = 0; n < N; n++)
            pair_products_adjoint(N, n, b.node_in + n * CW + Cp, v.factors, b.factors);
        maps(a.factors, N, b.factors, N * 2 * Wp, 2 * Wp, 2 * Wp, b.xm, N * Cp, Cp, false, true);
        for (int64_t n = 0; n < N; n++) add_to(b.xm + n * Cp, b.node_in + n * CW, Cp);
        norm_adjoint(N, v.middle, e.rho_middle, b.xm, b.middle, s.norm_update);
        maps(a.merge, N, b.middle, N * Cp, Cp, C, b.message, N * Cp, Cp, false, true);
        std::memset(b.project, 0, N * M * PR * sizeof(T));
        std::memset(b.scalar_value, 0, N * Cp * sizeof(T));
        edges_adjoint(c, a, v, e, b);
        maps(a.project, N, b.project, PR, M * PR, PR, b.xn, N * Cp, Cp, false, true);
        dense(a.scalar_value, N, b.scalar_value, Cp, Cp, b.xn, Cp, true, true);
        std::memcpy(b.x, b.middle, all_ * sizeof(T));
        norm_adjoint(N, v.x, e.rho, b.xn, b.x, s.norm_attention);
    }

    void layer_tangent(const Chunk<T>& c, int64_t layer, std::vector<Values<T>>& tangents, T* x0_dot,
                       const T* radial_dot, const T* log_f_dot) const {
        const Weights<T>& a = w[layer];
        const Values<T>& v = c.value[layer];
        const Extra<T>& e = c.extra[layer];
        Values<T>& t = tangents[layer];
        const int64_t N = c.n, all_ = M * N * Cp, columns = a.node_out.columns;
        norm_tangent(N, v.x, t.x, e.rho, t.xn, s.norm_attention);
        for (int m = 0; m < M; m++)
            gemm<T>(N, PR, C, t.xn + m * N * Cp, Cp, 1, a.project[degree(m)].w, PR, t.project + m * PR,
                    M * PR, false);
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
        std::vector<T>& hd = scratch(0, N * Up);
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
        std::vector<T>& gated = scratch(1, M * N * Wp);
        gate(N, t.product, v.node_out, gated.data(), false);
        gate(N, v.product, t.node_out, gated.data(), true);
        maps(a.couple, N, gated.data(), N * Wp, Wp, W, x, N * Cp, Cp, true, false);
        for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, t.node_out + n * CW, Cp);
    }

    void layer_adjoint_tangent(const Chunk<T>& c, int64_t layer, const std::vector<Values<T>>& tangents,
                               Values<T>& d, const T* xb, const T* xbd, const T* radial_dot,
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
            std::vector<T>&gated = scratch(1, M * N * Wp), &gated_d = scratch(2, M * N * Wp),
            &gated_b = scratch(3, M * N * Wp);
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
        std::vector<T>&h = scratch(0, N * Up), &hd = scratch(1, N * Up), &zb = scratch(2, N * Up),
        &zbd = scratch(3, N * Up);
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

    // ---- representation

    void add_basis(const Chunk<T>& c, const T* harmonics_, const T* radial_, T* basis) const {
        for (int64_t i = 0; i < c.n; i++)
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                if (c.entry[p] < 0) continue;
                T* row = basis + i * M * SB + c.species[c.neighbor[p]] * Bp;
                UNROLL
                for (int m = 0; m < M; m++)
                    for (int64_t k = 0; k < Bp; k += 8)
                        store(row + m * SB + k, load<v8>(row + m * SB + k) +
                                                    harmonics_[p * MP + m] * load<v8>(radial_ + p * Bp + k));
            }
    }
    void basis_adjoint(Chunk<T>& c, const T* basis_b) const {
        for (int64_t i = 0; i < c.n; i++)
            for (int64_t p = c.first[i]; p < c.first[i + 1]; p++) {
                if (c.entry[p] < 0) continue;
                const T* row = basis_b + i * M * SB + c.species[c.neighbor[p]] * Bp;
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

    // Buffers that live for one stage; one set a thread.
    static std::vector<T>& scratch(int which, int64_t n) {
        static thread_local std::vector<T> buffers[8];
        if (int64_t(buffers[which].size()) < n + 64) buffers[which].resize(n + 64);
        return buffers[which];
    }

public:
    void forward(T* energy, T* features, T* gradient) {
        std::memset(gradient, 0, 3 * batch.entries * sizeof(T));
        for (auto& c : chunks) {
            const int64_t N = c.n;
            geometry(c);
            std::memset(c.basis, 0, N * M * SB * sizeof(T));
            add_basis(c, c.harmonics, c.radial, c.basis);
            T* x = c.value[0].x;
            maps(ends.represent, N, c.basis, SB, M * SB, SB, x, N * Cp, Cp, false, false);
            for (int64_t n = 0; n < N; n++) add_to(x + n * Cp, ends.embedding + c.species[n] * Cp, Cp);
            for (int64_t layer = 0; layer < s.layers; layer++) layer_forward(c, layer);
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
                energy[c.atom[n]] = T(s.energy_scale) * total;
                std::memcpy(features + int64_t(c.atom[n]) * C, c.x0 + n * Cp, C * sizeof(T));
            }
            sweep_back(c, gradient);
        }
    }

private:
    // Adjoint of the scalars at the end of the layers, for the seed 1 (and its tangent for the seed c_i).
    void readout_adjoint(const Chunk<T>& c, T* x0b) const {
        std::vector<T>& zb = scratch(0, c.n * Cp);
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

    void sweep_back(Chunk<T>& c, T* gradient) const {
        const int64_t N = c.n, P = c.pairs;
        std::memset(c.radial_adjoint, 0, P * Bp * sizeof(T));
        std::memset(c.harmonics_adjoint, 0, P * MP * sizeof(T));
        std::memset(c.log_f_adjoint, 0, P * sizeof(T));
        std::vector<T>& x0b = scratch(5, N * Cp);
        readout_adjoint(c, x0b.data());
        const T* xb = x0b.data();
        for (int64_t layer = s.layers - 1; layer >= 0; layer--) {
            layer_adjoint(c, layer, xb);
            xb = c.adjoint[layer].x;
        }
        std::vector<T>& basis_b = scratch(0, N * M * SB);
        maps(ends.represent, N, xb, N * Cp, Cp, C, basis_b.data(), SB, M * SB, false, true);
        basis_adjoint(c, basis_b.data());
        const int64_t stride = batch.entries;
        for (int64_t p = 0; p < P; p++) {
            if (c.entry[p] < 0) continue;
            v8 along{};
            for (int64_t k = 0; k < Bp; k += 8)
                along += load<v8>(c.radial_adjoint + p * Bp + k) * load<v8>(c.radial_slope + p * Bp + k);
            const T radial_ = sum8<T>(along) + c.log_f_adjoint[p] * c.slope[p];
            for (int k3 = 0; k3 < 3; k3++) {
                v8 sum{};
                for (int64_t m = 0; m < MP; m += 8)
                    sum += load<v8>(c.harmonics_adjoint + p * MP + m) *
                           load<v8>(c.jacobian + (p * 3 + k3) * MP + m);
                gradient[k3 * stride + c.entry[p]] =
                    T(s.energy_scale) * (sum8<T>(sum) + radial_ * c.unit[3 * p + k3]);
            }
        }
    }

public:
    // `features`: cotangent of the scalar features (A, C), or null where the loss does not depend on them.
    void backward(const T* energy, const T* gradient, const T* features, T* const* grads) {
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
                for (int64_t c = 0; c < columns; c++)
                    p[turned ? c * rows + r : r * columns + c] = m * x[at[c]];
            }
        };
        for (int64_t layer = 0; layer < s.layers; layer++) visit_layer(layer, grad[layer], write);
        visit_ends(grad_ends, write);
    }

private:
    void backward_chunk(Chunk<T>& c, const T* energy, const T* gradient, const T* features,
                        std::vector<Weights<T>>& grad, Ends<T>& grad_ends) const {
        const int64_t N = c.n, P = c.pairs, stride = batch.entries;
        const T scale = T(s.energy_scale);
        Arena arena;
        std::vector<Values<T>> t(s.layers);
        Values<T> d;
        T *radial_dot, *log_f_dot, *basis_dot, *x0_dot, *x0b, *x0bd, *xbd;
        auto shape = [&] {
            c.harmonics_dot = arena.template get<T>(P * MP), radial_dot = arena.template get<T>(P * Bp),
            log_f_dot = arena.template get<T>(P);
            basis_dot = arena.template get<T>(N * M * SB), x0_dot = arena.template get<T>(N * Cp),
            x0b = arena.template get<T>(N * Cp);
            x0bd = arena.template get<T>(N * Cp), xbd = arena.template get<T>(M * N * Cp);
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
        std::vector<T>&zd = scratch(1, N * Cp), &zb = scratch(2, N * Cp), &zbd = scratch(3, N * Cp);
        std::vector<T>&xr_dot = scratch(4, N * Cp), &xrbd = scratch(5, N * Cp);
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
};

}  // namespace sapis

// ---- for ctypes

// One library a floating-point type and number of degrees: -DREAL=float -DDEGREES=3.
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void* geat_forward(const sapis::Shape* shape, const sapis::Batch* batch, const void* const* params,
                          const double* multipliers, const double* coefficients, const double* centers,
                          const double* widths, const double* to_grid, const double* from_grid, REAL* energy,
                          REAL* features, REAL* gradient) {
    try {
        auto* step = new sapis::Geat<REAL, DEGREES>(*shape, *batch, params, multipliers, coefficients,
                                                    centers, widths, to_grid, from_grid);
        step->forward(energy, features, gradient);
        return step;
    } catch (const std::bad_alloc&) { return nullptr; }
}
EXPORT int geat_backward(void* step, const REAL* energy, const REAL* gradient, const REAL* features,
                         REAL* const* grads) {
    try {
        static_cast<sapis::Geat<REAL, DEGREES>*>(step)->backward(energy, gradient, features, grads);
    } catch (const std::bad_alloc&) { return 1; }
    return 0;
}
EXPORT void geat_free(void* step) { delete static_cast<sapis::Geat<REAL, DEGREES>*>(step); }

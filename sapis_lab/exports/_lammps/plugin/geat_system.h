// GEAT for one large system, for use and not for training: energies of atoms with dE/dv of their pairs.
//
// The atoms of a system are rows: first those that this process owns, then the ghosts, which are periodic
// images or atoms of other processes. Pairs are given for owned atoms alone. A layer needs of a neighbour
// nothing but its keys and values, so ghosts are never computed: whoever made them (`Exchange`) copies these
// rows from their owners before every layer, and in the sweep back adds their adjoints to those of their
// owners. Ghosts must reach as far as the cutoff, however many layers there are.
//
// Memory. Kept of an atom: x, queries, keys and values of every layer. The rest of a layer is made for a
// block of atoms at a time, and again on the way back; geometry features are kept where they take less than
// KEPT.
//
// Threads. Blocks are shared out in order, so that results do not depend on chance; every thread adds
// adjoints of neighbours to rows of its own, which are summed afterwards.

#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "geat_weights.h"
#include "geat_pairs.h"
#include "geat_pieces.h"
#include "geat_attention.h"
#include "geat_edges.h"
#include "geat_update.h"
#include "geat_layer.h"
#include "geat_sweeps.h"
#include "system.h"
#include "team.h"

namespace sapis {

constexpr size_t KEPT = size_t(1) << 30;
constexpr int64_t ATOMS_OF_A_BLOCK = 32;

// One buffer that grows, laid out anew at every step by a function of an arena.
class Room {
    Arena arena;

public:
    Room() = default;
    Room(Room&&) = delete;
    ~Room() { clear(); }
    void clear() {
        std::free(arena.base);
        arena.base = nullptr, arena.size = 0;
    }
    template <class F> void lay_out(F&& shape) {
        Arena measure;
        shape(measure);
        if (measure.used > arena.size) {
            clear();
            void* p = nullptr;
            const size_t bytes = (measure.used + measure.used / 8 + 4095) & ~size_t(4095);
            if (posix_memalign(&p, 4096, bytes)) throw std::bad_alloc();
            arena.base = static_cast<char*>(p), arena.size = bytes;
        }
        arena.used = 0;
        shape(arena);
    }
    size_t bytes() const { return arena.size; }
};

template <class T, int L> class GeatSystem : public System, private Geat<T, L> {
    typedef Geat<T, L> Base;
    using Base::Bp, Base::Cp, Base::CW, Base::Dp, Base::Ep, Base::M, Base::MP, Base::n_grid, Base::Op;
    using Base::PR, Base::Qp, Base::SB, Base::Up, Base::Wp, Base::batch, Base::chunks, Base::s;

    // Of all rows: queries, keys and values of a layer, or their adjoints.
    struct Rows {
        T *project, *scalar_value;
    };
    // Of one thread: what is made for a block, and the adjoints of the neighbours of its blocks.
    struct Work {
        Room room, adjoint_room;
        Rows adjoint;
    };

    Team team;
    std::vector<Work> work;
    Room atoms_room, geometry_room, arrived_room;
    std::vector<T*> x, rho;    // a layer; owned atoms, those of a block together
    std::vector<Rows> sent;    // a layer
    T* middle = nullptr;       // adjoint of x + m of the layer that was last swept back
    Rows arrived;              // adjoints of `sent`, complete, of owned atoms
    std::vector<T> vectors, gradient_, energy_;
    int64_t n_owned = 0, n_rows = 0, layer_ = 0;
    bool geometry_is_kept = false;

public:
    GeatSystem(const Shape& shape, const void* const* parameters, const double* multipliers,
               const double* coefficients, const double* centers, const double* widths, const double* to_grid,
               const double* from_grid, double energy_scale, int threads)
        : Base(shape, Batch{}, parameters, multipliers, coefficients, centers, widths, to_grid, from_grid),
          team(threads), work(threads), x(shape.layers), rho(shape.layers), sent(shape.layers) {
        batch.energy_scale = energy_scale;
    }

    int64_t row_size() const override { return M * (Dp + Cp) + Cp; }
    void pack(int64_t row, double* to) const override { read(sent[layer_], row, to); }
    void unpack(int64_t row, const double* from) override {
        visit(sent[layer_], row, from, [](T& y, double v) { y = T(v); });
    }
    void pack_adjoint(int64_t row, double* to) const override { read(work[0].adjoint, row, to); }
    void add_adjoint(int64_t row, const double* from) override {
        visit(work[0].adjoint, row, from, [](T& y, double v) { y += T(v); });
    }

    double bytes() const override {
        size_t total = atoms_room.bytes() + geometry_room.bytes() + arrived_room.bytes();
        for (auto& w : work) total += w.room.bytes() + w.adjoint_room.bytes();
        return double(total) + double(vectors.capacity() + gradient_.capacity()) * sizeof(T);
    }

    void compute(const Pairs& pairs, Exchange& exchange, std::vector<double>& energy,
                 std::vector<double>& gradient) override {
        take(pairs);
        const int64_t end = s.layers - 1;
        each_block([&](Chunk<T>& c, int) {
            if (geometry_is_kept) this->geometry(c);
            this->representation(c);
            this->sources(c, 0);
        });
        send(exchange, 0);
        for (int64_t layer = 1; layer <= end; layer++) {
            each_block([&](Chunk<T>& c, int) {
                this->receive(c, layer - 1);
                this->sources(c, layer);
            });
            send(exchange, layer);
        }
        clear_adjoints();
        each_block([&](Chunk<T>& c, int thread) {
            this->receive(c, end);
            this->readout(c, energy_.data(), nullptr);
            T* x0_adjoint = c.adjoint[end].x;
            this->readout_adjoint(c, x0_adjoint);
            back(c, end, x0_adjoint, thread);
        });
        collect(exchange);
        for (int64_t layer = end - 1; layer >= 0; layer--) {
            each_block([&](Chunk<T>& c, int thread) {
                arrive(c, layer + 1);
                this->receive(c, layer);
                back(c, layer, c.adjoint[layer + 1].x, thread);
            });
            collect(exchange);
        }
        each_block([&](Chunk<T>& c, int) {
            arrive(c, 0);
            clear_pairs(c);
            this->representation_adjoint(c, c.adjoint[0].x);
            this->template pair_gradients<true>(c, gradient_.data());
        });
        hand_over(pairs, energy, gradient);
    }

private:
    // ---- a step

    void take(const Pairs& pairs) {
        const int64_t n_pairs = int64_t(pairs.neighbor.size());
        n_owned = pairs.n_owned, n_rows = pairs.n_rows;
        vectors.resize(3 * n_pairs);
        gradient_.assign(3 * n_pairs, T(0));
        energy_.resize(n_owned);
        for (int64_t p = 0; p < n_pairs; p++)
            for (int k = 0; k < 3; k++) vectors[k * n_pairs + p] = T(pairs.vectors[3 * p + k]);
        batch.vectors = vectors.data(), batch.entries = n_pairs;
        make_blocks(pairs);
        lay_out_atoms();
    }

    void hand_over(const Pairs& pairs, std::vector<double>& energy, std::vector<double>& gradient) const {
        const int64_t n_pairs = int64_t(pairs.neighbor.size());
        energy.assign(energy_.begin(), energy_.end());
        gradient.resize(3 * n_pairs);
        for (int64_t p = 0; p < n_pairs; p++)
            for (int k = 0; k < 3; k++) gradient[3 * p + k] = gradient_[k * n_pairs + p];
    }

    // Blocks of owned atoms as chunks; rows are counted from the first atom of the block, so that the rows of
    // all atoms seem to be the chunk's own.
    void make_blocks(const Pairs& pairs) {
        const int64_t n_blocks = (pairs.n_owned + ATOMS_OF_A_BLOCK - 1) / ATOMS_OF_A_BLOCK;
        chunks.resize(n_blocks);
        team.each(n_blocks, [&](int64_t b, int) {
            Chunk<T>& c = chunks[b];
            const int64_t start = b * ATOMS_OF_A_BLOCK;
            c.n = std::min(ATOMS_OF_A_BLOCK, pairs.n_owned - start);
            c.kind = pairs.species.data() + start;
            c.species.assign(c.kind, c.kind + c.n);
            c.first.clear(), c.neighbor.clear(), c.entry.clear(), c.atom.clear();
            for (int64_t i = 0; i < c.n; i++) {
                c.atom.push_back(int32_t(start + i));
                c.first.push_back(int64_t(c.neighbor.size()));
                c.neighbor.push_back(int32_t(i)), c.entry.push_back(-1);  // the pair (i, i)
                for (int64_t p = pairs.first[start + i]; p < pairs.first[start + i + 1]; p++)
                    c.neighbor.push_back(int32_t(pairs.neighbor[p] - start)), c.entry.push_back(p);
            }
            c.first.push_back(c.pairs = int64_t(c.neighbor.size()));
            c.value.resize(s.layers), c.adjoint.resize(s.layers), c.extra.resize(s.layers);
        });
        const int64_t n_all = int64_t(pairs.neighbor.size()) + pairs.n_owned;
        geometry_is_kept = size_t(n_all) * (4 * MP + 2 * Bp + 5) * sizeof(T) <= KEPT;
        if (!geometry_is_kept) return geometry_room.clear();
        geometry_room.lay_out([&](Arena& arena) {
            for (auto& c : chunks) shape_geometry(arena, c);
        });
    }

    void lay_out_atoms() {
        auto shape_rows = [&](Arena& arena, Rows& rows, int64_t n) {
            rows.project = arena.template get<T>(n * M * PR);
            rows.scalar_value = arena.template get<T>(n * Cp);
        };
        atoms_room.lay_out([&](Arena& arena) {
            for (auto& p : x) p = arena.template get<T>(n_owned * M * Cp);
            for (auto& p : rho) p = arena.template get<T>(n_owned * L);
            for (auto& rows : sent) shape_rows(arena, rows, n_rows);
            middle = arena.template get<T>(n_owned * M * Cp);
        });
        arrived_room.lay_out([&](Arena& arena) { shape_rows(arena, arrived, n_owned); });
        for (auto& w : work)
            w.adjoint_room.lay_out([&](Arena& arena) { shape_rows(arena, w.adjoint, n_rows); });
    }

    void send(Exchange& exchange, int64_t layer) {
        layer_ = layer;
        exchange.to_ghosts();
    }

    // f(numbers of the first, and of the second, how many) for parts of the first `n` rows of both.
    template <class F> void rows_of(const Rows& a, const Rows& b, int64_t n, F&& f) {
        team.ranges(n * M * PR, [&](int64_t k, int64_t end) { f(a.project + k, b.project + k, end - k); });
        team.ranges(n * Cp, [&](int64_t k, int64_t end) {
            f(a.scalar_value + k, b.scalar_value + k, end - k);
        });
    }

    void clear_adjoints() {
        for (auto& w : work)
            rows_of(w.adjoint, w.adjoint, n_rows,
                    [](T* y, const T*, int64_t n) { std::memset(y, 0, n * sizeof(T)); });
    }

    // The adjoints that neighbours have for the rows of an atom, from all threads and ghosts, in `arrived`.
    void collect(Exchange& exchange) {
        for (size_t k = 1; k < work.size(); k++)
            rows_of(work[0].adjoint, work[k].adjoint, n_rows,
                    [](T* y, const T* other, int64_t n) { add_to(y, other, n); });
        exchange.from_ghosts();
        rows_of(arrived, work[0].adjoint, n_owned,
                [](T* y, const T* sum, int64_t n) { std::memcpy(y, sum, n * sizeof(T)); });
        clear_adjoints();
    }

    // ---- a block

    template <class F> void each_block(F&& f) {
        team.each(int64_t(chunks.size()), [&](int64_t b, int thread) {
            Chunk<T>& c = chunks[b];
            lay_out_block(c, b * ATOMS_OF_A_BLOCK, work[thread]);
            if (!geometry_is_kept) this->geometry(c);
            f(c, thread);
        });
    }

    // From the adjoint of what the layer gives to b.middle, to the adjoints of the neighbours, and to dE/dv.
    void back(Chunk<T>& c, int64_t layer, const T* x_adjoint, int thread) {
        const int64_t start = c.atom[0];
        Values<T>& b = c.adjoint[layer];
        b.project = work[thread].adjoint.project + start * M * PR;
        b.scalar_value = work[thread].adjoint.scalar_value + start * Cp;
        clear_pairs(c);
        this->receive_adjoint(c, layer, x_adjoint);
        this->template pair_gradients<true>(c, gradient_.data());
    }

    // The adjoint of the layer's input in b.x.
    void arrive(Chunk<T>& c, int64_t layer) {
        const int64_t start = c.atom[0];
        Values<T>& b = c.adjoint[layer];
        b.project = arrived.project + start * M * PR;
        b.scalar_value = arrived.scalar_value + start * Cp;
        this->sources_adjoint(c, layer);
    }

    void clear_pairs(Chunk<T>& c) const {
        std::memset(c.radial_adjoint, 0, c.pairs * Bp * sizeof(T));
        std::memset(c.harmonics_adjoint, 0, c.pairs * MP * sizeof(T));
        std::memset(c.log_f_adjoint, 0, c.pairs * sizeof(T));
    }

    void shape_geometry(Arena& arena, Chunk<T>& c) const {
        const int64_t P = c.pairs;
        auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
        get(c.harmonics, P * MP);
        get(c.radial, P * Bp);
        get(c.radial_slope, P * Bp);
        get(c.log_f, P);
        get(c.slope, P);
        get(c.unit, P * 3);
        get(c.jacobian, P * 3 * MP);
    }

    // One set of values and one of adjoints, which the layers use in turn.
    void lay_out_block(Chunk<T>& c, int64_t start, Work& mine) {
        const int64_t N = c.n, P = c.pairs;
        Values<T> v, b;
        Extra<T> e;
        T* x_adjoint = nullptr;
        mine.room.lay_out([&](Arena& arena) {
            auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
            if (!geometry_is_kept) shape_geometry(arena, c);
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
            get(x_adjoint, M * N * Cp);
            for (Values<T>* values : {&v, &b}) shape_block(arena, c, *values);
            get(e.rho_middle, L * N);
            get(e.sigma, P * Ep);
            get(e.sigma_node, N * Up);
            get(e.rho_edge, P);
            get(e.weights, P * Op);
        });
        for (int64_t layer = 0; layer < s.layers; layer++) {
            c.value[layer] = v, c.adjoint[layer] = b, c.extra[layer] = e;
            c.value[layer].x = x[layer] + start * M * Cp;
            c.value[layer].project = sent[layer].project + start * M * PR;
            c.value[layer].scalar_value = sent[layer].scalar_value + start * Cp;
            c.extra[layer].rho = rho[layer] + start * L;
            c.adjoint[layer].x = x_adjoint;
            c.adjoint[layer].middle = middle + start * M * Cp;
        }
    }

    void shape_block(Arena& arena, const Chunk<T>& c, Values<T>& v) const {
        const int64_t N = c.n, P = c.pairs;
        auto get = [&](T*& p, int64_t n) { p = arena.template get<T>(n); };
        get(v.xn, M * N * Cp);
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
        get(v.grid, n_grid * N * 2 * Wp);
        get(v.product, M * N * Wp);
    }

    // ---- the numbers of a row that travel: keys, values and the values of scalars

    template <class F> void visit(const Rows& rows, int64_t row, const double* from, F&& f) const {
        for (int m = 0; m < M; m++) {
            T* p = rows.project + (row * M + m) * PR + Dp;
            for (int64_t k = 0; k < Dp + Cp; k++) f(p[k], *from++);
        }
        for (int64_t k = 0; k < Cp; k++) f(rows.scalar_value[row * Cp + k], *from++);
    }
    void read(const Rows& rows, int64_t row, double* to) const {
        for (int m = 0; m < M; m++) {
            const T* p = rows.project + (row * M + m) * PR + Dp;
            for (int64_t k = 0; k < Dp + Cp; k++) *to++ = p[k];
        }
        for (int64_t k = 0; k < Cp; k++) *to++ = rows.scalar_value[row * Cp + k];
    }
};

}  // namespace sapis

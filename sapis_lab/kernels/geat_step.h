// What a step keeps, and the step as a class; its parts follow in files of their own.

#pragma once
#include <cstdint>
#include <vector>

#include "geat_shape.h"
#include "memory.h"
#include "numerics.h"

namespace sapis {

// Weights with their multipliers, padded, both ways round (y = x W and x~ = y~ W^T), or gradients in the
// place of `w`.
template <class T> struct Map {
    int64_t rows = 0, columns = 0;  // padded
    T *w = nullptr, *transposed = nullptr;
};

// Of one layer.
template <class T> struct Weights {
    Map<T> project[MOST_DEGREES], merge[MOST_DEGREES], factors[MOST_DEGREES],
        couple[MOST_DEGREES];  // one a degree
    Map<T> scalar_value, edge_radial, edge_invariant, edge_out, node_in, node_out;
    T *project_bias, *edge_bias, *edge_out_bias, *node_in_bias, *node_out_bias;
};

// Of the representation (i) and the readout.
template <class T> struct Ends {
    Map<T> represent[MOST_DEGREES], readout_in;
    T *embedding, *readout_in_bias, *readout_out, *readout_out_bias, *readout_skip;
};

// The values of one layer; the same struct holds their tangents, adjoints and tangents of adjoints.
// x and xn go into (ii), with xn = soft norm of x; middle = x + m and xm go into (iii).
template <class T> struct Values {
    T *x, *xn, *project, *scalar_value, *invariants, *z, *edge_out, *message;
    T *middle, *xm, *factors, *node_in, *zn, *node_out, *grid, *product;
};
// What the sweeps back need besides: norms rho and sigmoids sigma of the values, and the adjoints of the
// weights of heads.
template <class T> struct Extra {
    T *rho, *sigma, *rho_middle, *sigma_node, *rho_edge, *weights;
};

// Whole frames that are computed together, with everything that the sweep back needs. 0, r: of the readout.
template <class T> struct Chunk {
    int64_t n = 0, pairs = 0;
    std::vector<int64_t> first, entry;  // rows of a centre; place in `vectors`, -1 for the pair (i, i)
    std::vector<int32_t> neighbor, species, atom;
    const int32_t* kind = nullptr;  // species by the rows that `neighbor` names
    T *harmonics, *harmonics_dot, *radial, *radial_slope, *log_f, *slope, *unit, *jacobian, *basis;
    T *x0, *xr, *rho_r, *zr, *sigma_r, *xr_adjoint, *radial_adjoint, *harmonics_adjoint, *log_f_adjoint;
    std::vector<Values<T>> value, adjoint;
    std::vector<Extra<T>> extra;
};

// A step in float or double (T) with L = lmax + 1 degrees.
template <class T, int L> class Geat {
    static_assert(L >= 1 && L <= MOST_DEGREES);

public:
    Geat(const Shape& shape, const Batch& b, const void* const* p, const double* m,
         const double* coefficients_, const double* centers_, const double* widths_, const double* to,
         const double* from)
        : s(shape), C(s.channels), Cp(round8(C)), H(s.heads), Q(s.invariants), Qp(round8(Q)), D(s.key_width),
          Dp(round8(Q * D)), PR(2 * Dp + Cp), B(s.n_radial), Bp(round8(B)), E(s.edge_hidden), Ep(round8(E)),
          O(H * (L + 2)), Op(round8(O) + 8), W(s.coupling_channels), Wp(round8(W)), U(s.node_width),
          Up(round8(U)), CW(Cp + L * Wp), S(s.n_species), SB(S * Bp), n_grid(s.n_grid), batch(b),
          coefficients(coefficients_, coefficients_ + L * L * L), centers(centers_, centers_ + s.n_radial),
          widths(widths_, widths_ + s.n_radial) {
        int64_t count = s.layers * PER_LAYER + ENDS;
        multipliers.assign(m, m + count);
        for (int64_t k = 0; k < count; k++) params.push_back(static_cast<const T*>(p[k]));
        to_grid.assign(to, to + n_grid * M);
        from_grid.assign(from, from + M * n_grid);
        to_grid_t.resize(M * n_grid);
        from_grid_t.resize(n_grid * M);
        for (int64_t g = 0; g < n_grid; g++)
            for (int m_ = 0; m_ < M; m_++) {
                to_grid_t[m_ * n_grid + g] = to_grid[g * M + m_];
                from_grid_t[g * M + m_] = from_grid[m_ * n_grid + g];
            }
        make_weights();
        make_chunks();
    }
    void forward(T* energy, T* features, T* gradient);
    void backward(const T* energy, const T* gradient, const T* features, T* const* grads);

protected:
    typedef typename Lanes<T>::v8 v8;
    static constexpr int M = L * L;              // components
    static constexpr int64_t MP = (M + 7) & ~7;  // padded
    const Shape s;
    // C channels, H heads, Q invariants, D key width, B radial functions, E hidden width of the edge network,
    // O its outputs (with logits), W coupling channels, U hidden width of the node network, S species; with
    // p, padded to 8 lanes. Rows: PR of queries, keys and values, CW of scalars and a value per degree and W.
    const int64_t C, Cp, H, Q, Qp, D, Dp, PR, B, Bp, E, Ep, O, Op, W, Wp, U, Up, CW, S, SB, n_grid;
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
    // Place of channel c among the values: the head is the fast index.
    int64_t lane(int64_t c) const { return (c % (C / H)) * H + c / (C / H); }
    // Place of channel d of key q: <q, k> sums d registers of all q.
    int64_t key(int64_t q, int64_t d) const { return d * Q + q; }
    // Places of the lanes of degree l of atom n in (M, N, Cp), and the inner product over them.
    template <class F> void each(int64_t N, int64_t n, int l, F&& f) const {
        for (int m = l * l; m < (l + 1) * (l + 1); m++)
            for (int64_t c = 0; c < Cp; c += 8) f((m * N + n) * Cp + c);
    }
    T dot(int64_t N, int64_t n, int l, const T* x, const T* y) const {
        v8 total{};
        each(N, n, l, [&](int64_t at) { total += load<v8>(x + at) * load<v8>(y + at); });
        return sum8<T>(total);
    }
    // The queries of component m of atom n; keys follow at Dp, values at 2 Dp.
    T* query(T* project, int64_t n, int m) const { return project + (n * M + m) * PR; }
    const T* query(const T* project, int64_t n, int m) const { return project + (n * M + m) * PR; }

    // geat_weights.h
    template <class F> void visit_layer(int64_t layer, Weights<T>& a, F&& f) const;
    template <class F> void visit_ends(Ends<T>& a, F&& f) const;
    void shape_weights(Arena& arena, std::vector<Weights<T>>& all_, Ends<T>& e, bool both) const;
    template <class F> static void places(std::vector<int64_t>& at, int64_t columns, F&& column);
    double factor(int64_t parameter) const;
    void make_weights();

    // geat_pairs.h
    void make_chunks();
    void add_frame(Chunk<T>& c, int64_t frame, int64_t atom, int64_t start);
    void shape_values(Arena& arena, const Chunk<T>& c, Values<T>& v, bool last_layer) const;
    void shape_chunk(Arena& arena, Chunk<T>& c) const;
    void geometry(Chunk<T>& c) const;
    void harmonics(const T* u, T r, T* value, T* jacobian) const;
    void add_basis(const Chunk<T>& c, const T* harmonics_, const T* radial_, T* basis) const;
    void basis_adjoint(Chunk<T>& c, const T* basis_b) const;

    // geat_pieces.h
    void maps(const Map<T>* map, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k, T* y, int64_t ym,
              int64_t yn, bool add, bool turned) const;
    void outer(const Map<T>* grad, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k, const T* y,
               int64_t ym, int64_t yn) const;
    static void dense(const Map<T>& map, int64_t rows, const T* x, int64_t xn, int64_t k, T* y, int64_t yn,
                      bool add, bool turned);
    static void outer(const Map<T>& grad, int64_t rows, const T* x, int64_t xn, int64_t k, const T* y,
                      int64_t yn);
    void norm(int64_t N, const T* x, T* rho, T* y, double strength, int degrees = L) const;
    void norm_adjoint(int64_t N, const T* x, const T* rho, const T* yb, T* xb, double strength,
                      int degrees = L) const;
    void norm_tangent(int64_t N, const T* x, const T* xd, const T* rho, T* yd, double strength,
                      int degrees = L) const;
    void norm_adjoint_tangent(int64_t N, const T* x, const T* xd, const T* rho, const T* yb, const T* ybd,
                              T* xbd, double strength, int degrees = L) const;

    // geat_attention.h
    template <bool tangent>
    void invariants(const Chunk<T>& c, int64_t i, const T* project, const T* dot_, T* invariants) const;
    template <bool tangent>
    void invariants_adjoint(const Chunk<T>& c, int64_t i, const T* invariants, const T* invariants_dot,
                            const T* project, const T* dot_, T* adjoint) const;
    template <bool tangent, class V>
    void adjoint_columns(const Chunk<T>& c, int64_t i, int64_t n, int64_t v, const T* e, const T* project,
                         const T* dot_, T* adjoint) const;
    void attention(const Chunk<T>& c, int64_t i, T* out) const;
    template <bool tangent>
    const T* lanes(const Chunk<T>& c, int64_t i, const T* out, const T* out_dot) const;
    void message(const Chunk<T>& c, int64_t i, const Values<T>& v, T* m_out, int64_t N) const;
    void message_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v, const Values<T>& t, const T* yd_,
                         T* m_out, int64_t N) const;
    void message_adjoint(Chunk<T>& c, int64_t i, const Values<T>& v, const T* mb, Values<T>& b, T* weights,
                         int64_t N) const;
    void message_adjoint_tangent(const Chunk<T>& c, int64_t i, const Values<T>& v, const Values<T>& t,
                                 const T* yd_, const T* mb, const T* mbd, Values<T>& bd, T* weights,
                                 int64_t N) const;
    T alpha_adjoint(const T* out, const T* weights, int64_t h) const;

    // geat_edges.h
    T counted(const T* x, const T* y) const;
    T inner(const T* x, const T* y) const;
    void hidden(const T* z, const T* sigma, T* h) const;
    void hidden_tangent(const T* z, const T* sigma, const T* zd, T* hd) const;
    void hidden_adjoint(const T* h, T rho, const T* yb, T* hb) const;
    template <class F> static void blocks(const Chunk<T>& c, F&& f);
    void edges(Chunk<T>& c, const Weights<T>& a, Values<T>& v, Extra<T>& e) const;
    void edges_adjoint(Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                       Values<T>& b) const;
    void edges_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                       Values<T>& t, const T* radial_dot, const T* log_f_dot) const;
    void edges_adjoint_tangent(const Chunk<T>& c, const Weights<T>& a, const Values<T>& v, const Extra<T>& e,
                               const Values<T>& t, const Values<T>& b, Values<T>& bd, const T* radial_dot,
                               Weights<T>& grad) const;

    // geat_update.h
    void pair_products(int64_t N, int64_t n, const T* a, const T* b, T* invariants, bool add) const;
    void pair_products_adjoint(int64_t N, int64_t n, const T* invariants, const T* ab, T* adjoint) const;
    void gate(int64_t N, const T* x, const T* node_out, T* y, bool add) const;
    void gate_adjoint(int64_t N, const T* yb, const T* x, T* node_out_b) const;
    void to_grid_of(int64_t N, const T* ab, T* grid) const;
    void copy_factors(int64_t N, const T* ab, T* x) const;
    void product(int64_t N, Values<T>& v) const;
    void multiply(int64_t rows, const T* a, const T* b, T* y, bool add) const;
    void product_tangent(int64_t N, const Values<T>& v, Values<T>& t) const;
    void product_adjoint(int64_t N, const Values<T>& v, Values<T>& b) const;
    void product_adjoint_tangent(int64_t N, const Values<T>& v, const Values<T>& t, const Values<T>& b,
                                 Values<T>& bd) const;
    void swap_multiply(int64_t rows, const T* y, const T* ab, T* out, bool add) const;

    // geat_layer.h
    void sources(Chunk<T>& c, int64_t layer) const;
    void receive(Chunk<T>& c, int64_t layer) const;
    void receive_adjoint(Chunk<T>& c, int64_t layer, const T* xb) const;
    void sources_adjoint(Chunk<T>& c, int64_t layer) const;
    void layer_tangent(const Chunk<T>& c, int64_t layer, std::vector<Values<T>>& tangents, T* x0_dot,
                       const T* radial_dot, const T* log_f_dot) const;
    void layer_adjoint_tangent(const Chunk<T>& c, int64_t layer, const std::vector<Values<T>>& tangents,
                               Values<T>& d, const T* xb, const T* xbd, const T* radial_dot,
                               Weights<T>& grad) const;

    // geat_sweeps.h
    void representation(Chunk<T>& c) const;
    void readout(Chunk<T>& c, T* energy, T* features) const;
    void readout_adjoint(const Chunk<T>& c, T* x0b) const;
    void representation_adjoint(Chunk<T>& c, const T* xb) const;
    template <bool add> void pair_gradients(const Chunk<T>& c, T* gradient) const;
    void sweep_back(Chunk<T>& c, T* gradient) const;
    void backward_chunk(Chunk<T>& c, const T* energy, const T* gradient, const T* features,
                        std::vector<Weights<T>>& grad, Ends<T>& grad_ends) const;
};

}  // namespace sapis

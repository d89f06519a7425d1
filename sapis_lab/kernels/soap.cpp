// One step of SOAP (sapis_lab/soap.py) for all blocks of one shape, and of Adam for vectors, on one CPU
// thread.
//
// A block (m, n) of a matrix parameter with gradient G has bases Q_L (m, m) and Q_R (n, n), covariances L and
// R, and moments M, V in the turned basis:
//
//     U = Q_L^T G Q_R,  M <- lerp(M, U),  V <- lerp(V, U^2),  P -= Q_L (rate M / (root V + f + eps)) Q_R^T,
//
// f the floor times the root of the mean of V over the block.
//
// Blocks have tens of rows and columns and are taken one by one, with the products of gemm.h: all that a step
// needs of one lies in the second-level cache, into which it is asked for while the block before is computed,
// since a whole state is read and written once a step and comes from memory. Rows are padded to 8 lanes with
// zeros in scratch space only; the state stays as PyTorch has it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <type_traits>
#include <vector>

#include "gemm.h"
#include "memory.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define IVDEP _Pragma("GCC ivdep")

typedef REAL T;
using sapis::gemm;
using sapis::round8;
using sapis::load;
using sapis::scratch;
using sapis::store;

typedef sapis::Lanes<T>::v8 v8;
typedef sapis::Lanes<T>::wide wide;
constexpr int64_t LANES = sizeof(wide) / sizeof(T);

namespace {

// Raised whenever a struct below, or an entry point, changes.
constexpr int64_t ABI = 3;

// All blocks of one shape. `state`: (k, m, n) moments M and V, (k, m, m) L and Q_L, (k, n, n) R and Q_R.
struct Stack {
    int64_t n_parameters, height, width;  // every parameter is a stack of matrices (height, width),
    int64_t rows, columns, m, n;          // cut into rows x columns blocks (m, n), those at the end filled up
    T *mean, *square, *left, *basis_left, *right, *basis_right;
};

struct Settings {
    double rate, beta1, beta2, correction1, correction2, eps, floor;
    int64_t measure, refresh;  // whether the covariances take this gradient in, whether bases are made anew
};

// Asks for memory that the next block needs, some cache lines at a time. What does not fit among the
// ranges is read when it is needed, as without asking.
class Ahead {
public:
    void add(const void* from, int64_t bytes) {
        if (count < MOST) ranges[count++] = {static_cast<const char*>(from), (bytes + LINE - 1) / LINE};
    }
    void operator()() {
        for (int64_t left = LINES; left > 0 && at < count;) {
            Range& range = ranges[at];
            const int64_t n = std::min(left, range.lines);
            for (int64_t k = 0; k < n; k++) __builtin_prefetch(range.from + k * LINE, 0, 2);
            range.from += n * LINE, range.lines -= n, left -= n;
            at += range.lines == 0;
        }
    }

private:
    static constexpr int LINES = 24, LINE = 64, MOST = 160;
    struct Range {
        const char* from;
        int64_t lines;
    } ranges[MOST];
    int count = 0, at = 0;
};

// Added to the diagonal of a covariance, a part of its mean that grows from 1 to 2 along it.
constexpr double RIDGE = 1e-6;

// (rows, columns) with `from` floats a row -> a padded row of `to` floats each, the rest zero.
void padded(const T* x, int64_t rows, int64_t columns, int64_t from, T* y, int64_t to) {
    for (int64_t i = 0; i < rows; i++) {
        std::memcpy(y + i * to, x + i * from, columns * sizeof(T));
        for (int64_t j = columns; j < to; j++) y[i * to + j] = 0;
    }
}

// Eight rows of eight, turned in registers.
inline void transpose8(v8 r[8]) {
    typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> I;
    typedef I i8 __attribute__((vector_size(8 * sizeof(I))));
    const i8 low{0, 8, 1, 9, 4, 12, 5, 13}, high{2, 10, 3, 11, 6, 14, 7, 15};
    const i8 even{0, 1, 8, 9, 4, 5, 12, 13}, odd{2, 3, 10, 11, 6, 7, 14, 15};
    const i8 left{0, 1, 2, 3, 8, 9, 10, 11}, right{4, 5, 6, 7, 12, 13, 14, 15};
    v8 a[8], b[8];
    UNROLL
    for (int k = 0; k < 8; k += 2) {
        a[k] = __builtin_shuffle(r[k], r[k + 1], low);
        a[k + 1] = __builtin_shuffle(r[k], r[k + 1], high);
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) UNROLL
    for (int h = 0; h < 2; h++) {
        b[k + 2 * h] = __builtin_shuffle(a[k + h], a[k + 2 + h], even);
        b[k + 2 * h + 1] = __builtin_shuffle(a[k + h], a[k + 2 + h], odd);
    }
    UNROLL
    for (int k = 0; k < 4; k++) {
        r[k] = __builtin_shuffle(b[k], b[4 + k], left);
        r[k + 4] = __builtin_shuffle(b[k], b[4 + k], right);
    }
}

// y (columns, to) = x^T, the rest of every row zero.
void transposed(const T* x, int64_t rows, int64_t columns, int64_t from, T* y, int64_t to) {
    int64_t i = 0;
    for (; i + 8 <= rows; i += 8) {
        int64_t j = 0;
        for (; j + 8 <= columns; j += 8) {
            v8 r[8];
            UNROLL
            for (int k = 0; k < 8; k++) r[k] = load<v8>(x + (i + k) * from + j);
            transpose8(r);
            UNROLL
            for (int k = 0; k < 8; k++) store(y + (j + k) * to + i, r[k]);
        }
        for (; j < columns; j++)
            for (int64_t k = i; k < i + 8; k++) y[j * to + k] = x[k * from + j];
    }
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t k = i; k < rows; k++) y[j * to + k] = x[k * from + j];
        for (int64_t k = rows; k < to; k++) y[j * to + k] = 0;
    }
}

// c (d, d) <- lerp(c, x x^T) with x (d, k) of strides (row, column), xt = (1 - beta) x^T (k, dp).
void take_in(int64_t d, int64_t k, const T* x, int64_t row, int64_t column, const T* xt, T* c, double beta,
             T* sum, Ahead& ahead) {
    const int64_t dp = round8(d);
    gemm<T>(d, dp, k, x, row, column, xt, dp, sum, dp, false, ahead);
    const T b = T(beta);
    for (int64_t i = 0; i < d; i++) IVDEP
    for (int64_t j = 0; j < d; j++) c[i * d + j] = b * c[i * d + j] + sum[i * dp + j];
}

// x -= tau v (v^T x) on rows k to d of a few columns of x.
template <class V, int NV>
inline void reflect_columns(T* x, int64_t k, int64_t d, int64_t dp, const T* v, T tau) {
    constexpr int lanes = sizeof(V) / sizeof(T);
    V sum[NV] = {};
    for (int64_t i = k; i < d; i++) UNROLL
    for (int c = 0; c < NV; c++) sum[c] += v[i] * load<V>(x + i * dp + c * lanes);
    UNROLL
    for (int c = 0; c < NV; c++) sum[c] *= tau;
    for (int64_t i = k; i < d; i++) UNROLL
    for (int c = 0; c < NV; c++)
        store<V>(x + i * dp + c * lanes, load<V>(x + i * dp + c * lanes) - v[i] * sum[c]);
}

// q (d, dp): the orthogonal factor of p (d, dp), which is overwritten; as LAPACK has it, by Householder
// reflections.
void orthogonal(int64_t d, T* p, T* q, T* v, T* tau) {
    const int64_t dp = round8(d);
    auto reflect = [&](T* x, int64_t k) {  // rows and columns from k on
        int64_t j = k & ~int64_t(7);
        for (; j + 2 * LANES <= dp; j += 2 * LANES)
            reflect_columns<wide, 2>(x + j, k, d, dp, v + k * dp, tau[k]);
        for (; j + LANES <= dp; j += LANES) reflect_columns<wide, 1>(x + j, k, d, dp, v + k * dp, tau[k]);
        for (; j < dp; j += 8) reflect_columns<v8, 1>(x + j, k, d, dp, v + k * dp, tau[k]);
    };
    for (int64_t k = 0; k < d; k++) {
        T* vk = v + k * dp;
        double below = 0;
        for (int64_t i = k + 1; i < d; i++) below += double(p[i * dp + k]) * p[i * dp + k];
        tau[k] = 0;
        if (!(below > 0)) continue;
        const double top = p[k * dp + k], size = std::sqrt(top * top + below);
        const double beta = top > 0 ? -size : size;
        tau[k] = T((beta - top) / beta);
        vk[k] = 1;
        const T scale = T(1 / (top - beta));
        for (int64_t i = k + 1; i < d; i++) vk[i] = p[i * dp + k] * scale;
        reflect(p, k);
    }
    std::fill(q, q + d * dp, T(0));
    for (int64_t k = 0; k < d; k++) q[k * dp + k] = 1;
    for (int64_t k = d - 1; k >= 0; k--)
        if (tau[k] != 0) reflect(q, k);
}

// One power iteration of a basis (d, d), its columns in the order of their variance, the largest first;
// `order` says which old column came where. `change` (d, dp) maps the old basis to the new one,
// Q_new^T Q_old, or is its transpose.
void refresh(int64_t d, const T* covariance, T* basis, int64_t* order, T* change, bool turned) {
    const int64_t dp = round8(d);
    T* space = scratch<T>(6, 4 * d * dp + 3 * dp).data();
    T *old = space, *product = old + d * dp, *q = product + d * dp, *v = q + d * dp, *tau = v + d * dp;
    T *w = tau + dp, *variance = w + dp;
    padded(basis, d, d, d, old, dp);
    gemm<T>(d, dp, d, covariance, d, 1, old, dp, product, dp, false);
    T trace = 0;
    for (int64_t j = 0; j < d; j++) variance[j] = 0, trace += covariance[j * d + j];
    for (int64_t i = 0; i < d; i++) {
        const T ridge = T(RIDGE) * trace / T(d) * (1 + T(i) / T(d));
        IVDEP
        for (int64_t j = 0; j < d; j++) product[i * dp + j] += ridge * old[i * dp + j];
    }
    for (int64_t i = 0; i < d; i++) IVDEP
    for (int64_t j = 0; j < d; j++) variance[j] += old[i * dp + j] * product[i * dp + j];
    for (int64_t j = 0; j < d; j++)
        if (!(variance[j] == variance[j])) variance[j] = -1;  // of NaN there is no order
    std::iota(order, order + d, int64_t(0));
    std::stable_sort(order, order + d, [&](int64_t a, int64_t b) { return variance[a] > variance[b]; });
    for (int64_t i = 0; i < d; i++) {
        T* row = product + i * dp;
        for (int64_t j = 0; j < d; j++) w[j] = row[order[j]];
        std::memcpy(row, w, d * sizeof(T));
    }
    orthogonal(d, product, q, v, tau);
    if (turned)
        gemm<T>(d, dp, d, old, 1, dp, q, dp, change, dp, false);
    else
        gemm<T>(d, dp, d, q, 1, dp, old, dp, change, dp, false);
    for (int64_t i = 0; i < d; i++) std::memcpy(basis + i * d, q + i * dp, d * sizeof(T));
}

// One block (m, n), of which rows x columns are there; `stride` between rows of parameter and gradient.
struct Block {
    int64_t m, n, rows, columns, stride;
    T* parameter;
    const T* gradient;
    T *mean, *square, *left, *basis_left, *right, *basis_right;
    const Settings* how;

    void ask_for(Ahead& ahead) const {
        rows_of(gradient, ahead);
        const int64_t mn = m * n * sizeof(T), mm = m * m * sizeof(T), nn = n * n * sizeof(T);
        if (how->measure) ahead.add(right, nn), ahead.add(left, mm);
        ahead.add(basis_left, mm), ahead.add(basis_right, nn), ahead.add(mean, mn), ahead.add(square, mn);
        rows_of(parameter, ahead);
    }
    void rows_of(const T* x, Ahead& ahead) const {
        if (columns == stride) return ahead.add(x, rows * columns * sizeof(T));
        for (int64_t i = 0; i < rows; i++) ahead.add(x + i * stride, columns * sizeof(T));
    }
};

// The bases anew, and the moments turned into them.
void turn(int64_t m, int64_t n, const Block& b) {
    const int64_t np = round8(n), mp = round8(m), most = std::max(m, n);
    T* space = scratch<T>(7, 2 * m * np + std::max(m * mp, n * np)).data();
    T *x = space, *y = x + m * np, *change = y + m * np;
    static thread_local std::vector<int64_t> order;
    if (int64_t(order.size()) < most) order.resize(most);
    refresh(m, b.left, b.basis_left, order.data(), change, false);
    padded(b.mean, m, n, n, x, np);
    gemm<T>(m, np, m, change, mp, 1, x, np, y, np, false);
    for (int64_t i = 0; i < m; i++) std::memcpy(x + i * n, b.square + order[i] * n, n * sizeof(T));
    std::memcpy(b.square, x, m * n * sizeof(T));
    refresh(n, b.right, b.basis_right, order.data(), change, true);
    gemm<T>(m, np, n, y, np, 1, change, np, x, np, false);
    for (int64_t i = 0; i < m; i++) {
        std::memcpy(b.mean + i * n, x + i * np, n * sizeof(T));
        for (int64_t j = 0; j < n; j++) y[j] = b.square[i * n + order[j]];
        std::memcpy(b.square + i * n, y, n * sizeof(T));
    }
}

void step(const Block& b, Ahead& ahead) {
    const Settings& how = *b.how;
    const int64_t m = b.m, n = b.n, rows = b.rows, columns = b.columns;
    const int64_t np = round8(n), mp = round8(m);
    T* space = scratch<T>(5, 3 * m * np + 2 * n * std::max(mp, np) + m * mp).data();
    T *g = space, *x = g + m * np, *u = x + m * np, *other = u + m * np, *sum = other + n * std::max(mp, np);
    padded(b.gradient, rows, columns, b.stride, g, np);
    std::fill(g + rows * np, g + m * np, T(0));
    if (how.measure) {
        const T share = T(1 - how.beta2);
        for (int64_t k = 0; k < m * np; k++) x[k] = share * g[k];
        take_in(n, m, g, 1, np, x, b.right, how.beta2, sum, ahead);
        transposed(x, m, n, np, other, mp);
        take_in(m, n, g, np, 1, other, b.left, how.beta2, sum, ahead);
    }
    const T* q = b.basis_right;
    if (np != n) padded(b.basis_right, n, n, n, other, np), q = other;
    gemm<T>(m, np, m, b.basis_left, 1, m, g, np, x, np, false, ahead);
    gemm<T>(m, np, n, x, np, 1, q, np, u, np, false, ahead);
    const T b1 = T(how.beta1), b2 = T(how.beta2), correct = T(1 / std::sqrt(how.correction2));
    v8 total{};
    for (int64_t i = 0; i < m; i++) {
        T *mean = b.mean + i * n, *square = b.square + i * n;
        const T* turned = u + i * np;
        IVDEP
        for (int64_t j = 0; j < n; j++) {
            mean[j] = b1 * mean[j] + (1 - b1) * turned[j];
            square[j] = b2 * square[j] + (1 - b2) * turned[j] * turned[j];
        }
        int64_t j = 0;
        for (; j + 8 <= n; j += 8) total += load<v8>(square + j);
        for (; j < n; j++) total[0] += square[j];
    }
    double mean_square = 0;
    for (int k = 0; k < 8; k++) mean_square += total[k];
    const T least = T(how.eps + how.floor * std::sqrt(mean_square / (double(rows) * columns)) * correct);
    const T rate = T(how.rate / how.correction1);
    for (int64_t i = 0; i < m; i++) {
        const T *mean = b.mean + i * n, *square = b.square + i * n;
        T* y = u + i * np;
        IVDEP
        for (int64_t j = 0; j < n; j++) y[j] = rate * mean[j] / (std::sqrt(square[j]) * correct + least);
    }
    gemm<T>(m, np, m, b.basis_left, m, 1, u, np, x, np, false, ahead);
    transposed(b.basis_right, n, n, n, other, np);
    gemm<T>(rows, np, n, x, np, 1, other, np, u, np, false, ahead);
    for (int64_t i = 0; i < rows; i++) IVDEP
    for (int64_t j = 0; j < columns; j++) b.parameter[i * b.stride + j] -= u[i * np + j];
    if (how.refresh) turn(m, n, b);
}

}  // namespace

EXPORT int64_t soap_abi() { return ABI; }
EXPORT int64_t soap_stack_bytes() { return sizeof(Stack); }
EXPORT int64_t soap_settings_bytes() { return sizeof(Settings); }

// Of all parameters, stack by stack: the address, that of the gradient (null: it has none and stays as it is,
// its gradient counts as zero) and how many matrices it holds.  0, or 1 where there is no memory for scratch
// space.
EXPORT int soap_matrices(int64_t n_stacks, const Stack* stacks, const Settings* settings,
                         T* const* parameters, const T* const* gradients, const int64_t* counts) {
    try {
        static thread_local std::vector<Block> blocks;
        static thread_local std::vector<T> nothing, unused;
        blocks.clear();
        int64_t most = 0;
        for (int64_t i = 0, p = 0; i < n_stacks; i++)
            for (int64_t end = p + stacks[i].n_parameters; p < end; p++)
                if (!gradients[p]) most = std::max(most, stacks[i].height * stacks[i].width);
        nothing.assign(most, T(0)), unused.resize(most);
        for (const Stack* s = stacks; s < stacks + n_stacks; s++, settings++) {
            const int64_t mn = s->m * s->n, mm = s->m * s->m, nn = s->n * s->n, matrix = s->height * s->width;
            int64_t k = 0;
            for (int64_t p = 0; p < s->n_parameters; p++, parameters++, gradients++, counts++)
                for (int64_t c = 0; c < *counts; c++)
                    for (int64_t i = 0; i < s->rows; i++)
                        for (int64_t j = 0; j < s->columns; j++, k++) {
                            const int64_t at = i * s->m * s->width + j * s->n;
                            T* parameter = *gradients ? *parameters + c * matrix : unused.data();
                            const T* gradient = *gradients ? *gradients + c * matrix : nothing.data();
                            blocks.push_back({s->m, s->n, std::min(s->m, s->height - i * s->m),
                                              std::min(s->n, s->width - j * s->n), s->width, parameter + at,
                                              gradient + at, s->mean + k * mn, s->square + k * mn,
                                              s->left + k * mm, s->basis_left + k * mm, s->right + k * nn,
                                              s->basis_right + k * nn, settings});
                        }
        }
        for (size_t k = 0; k < blocks.size(); k++) {
            Ahead ahead;
            if (k + 1 < blocks.size()) blocks[k + 1].ask_for(ahead);
            step(blocks[k], ahead);
        }
    } catch (const std::bad_alloc&) { return 1; }
    return 0;
}

// Adam for `count` vectors of these sizes.
EXPORT void soap_vectors(const Settings* settings, int64_t count, const int64_t* sizes, T* const* parameters,
                         const T* const* gradients, T* const* means, T* const* squares) {
    const Settings& how = *settings;
    const T b1 = T(how.beta1), b2 = T(how.beta2), rate = T(how.rate / how.correction1);
    const T correct = T(1 / std::sqrt(how.correction2)), eps = T(how.eps);
    for (int64_t v = 0; v < count; v++) {
        T *p = parameters[v], *mean = means[v], *square = squares[v];
        const T* g = gradients[v];
        IVDEP
        for (int64_t j = 0; j < sizes[v]; j++) {
            mean[j] = b1 * mean[j] + (1 - b1) * g[j];
            square[j] = b2 * square[j] + (1 - b2) * g[j] * g[j];
            p[j] -= rate * mean[j] / (std::sqrt(square[j]) * correct + eps);
        }
    }
}

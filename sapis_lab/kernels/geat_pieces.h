// Maps per degree and soft norms.

#pragma once
#include "geat_step.h"

namespace sapis {

// y[m] (+)= x[m] W_l for the rows n of all atoms: of x at x + m xm + n xn, k wide, of y at y + m ym + n yn.
template <class T, int L>
inline void Geat<T, L>::maps(const Map<T>* map, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k,
                             T* y, int64_t ym, int64_t yn, bool add, bool turned) const {
    for (int l = 0; l < L; l++) {
        const T* weight = turned ? map[l].transposed : map[l].w;
        const int64_t columns = turned ? map[l].rows : map[l].columns;
        if (xm == N * xn && ym == N * yn)
            gemm<T>((2 * l + 1) * N, columns, k, x + l * l * xm, xn, 1, weight, columns, y + l * l * ym, yn,
                    add);
        else
            for (int m = l * l; m < (l + 1) * (l + 1); m++)
                gemm<T>(N, columns, k, x + m * xm, xn, 1, weight, columns, y + m * ym, yn, add);
    }
}

// dL/dW_l += sum over m, n of x^T y.
template <class T, int L>
inline void Geat<T, L>::outer(const Map<T>* grad, int64_t N, const T* x, int64_t xm, int64_t xn, int64_t k,
                              const T* y, int64_t ym, int64_t yn) const {
    for (int l = 0; l < L; l++) {
        if (xm == N * xn && ym == N * yn)
            gemm<T>(k, grad[l].columns, (2 * l + 1) * N, x + l * l * xm, 1, xn, y + l * l * ym, yn, grad[l].w,
                    grad[l].columns, true);
        else
            for (int m = l * l; m < (l + 1) * (l + 1); m++)
                gemm<T>(k, grad[l].columns, N, x + m * xm, 1, xn, y + m * ym, yn, grad[l].w, grad[l].columns,
                        true);
    }
}

// y (+)= x W for rows of scalars.
template <class T, int L>
inline void Geat<T, L>::dense(const Map<T>& map, int64_t rows, const T* x, int64_t xn, int64_t k, T* y,
                              int64_t yn, bool add, bool turned) {
    const int64_t columns = turned ? map.rows : map.columns;
    gemm<T>(rows, columns, k, x, xn, 1, turned ? map.transposed : map.w, columns, y, yn, add);
}

// dL/dW += x^T y.
template <class T, int L>
inline void Geat<T, L>::outer(const Map<T>& grad, int64_t rows, const T* x, int64_t xn, int64_t k, const T* y,
                              int64_t yn) {
    gemm<T>(k, grad.columns, rows, x, 1, xn, y, yn, grad.w, grad.columns, true);
}

// Soft norm y = x rho per atom and degree, rho = (1 + strength mean_m sum_c x^2)^(-1/2), strength = 1/(tau
// C).
template <class T, int L>
inline void Geat<T, L>::norm(int64_t N, const T* x, T* rho, T* y, double strength, int degrees) const {
    for (int l = 0; l < degrees; l++)
        for (int64_t n = 0; n < N; n++) {
            const T root = 1 / std::sqrt(1 + T(strength / (2 * l + 1)) * dot(N, n, l, x, x));
            rho[l * N + n] = root;
            each(N, n, l, [&](int64_t at) { store(y + at, load<v8>(x + at) * root); });
        }
}

template <class T, int L>
inline void Geat<T, L>::norm_adjoint(int64_t N, const T* x, const T* rho, const T* yb, T* xb, double strength,
                                     int degrees) const {  // adds to xb
    for (int l = 0; l < degrees; l++)
        for (int64_t n = 0; n < N; n++) {
            const T root = rho[l * N + n];
            const T k = -T(strength / (2 * l + 1)) * root * root * root * dot(N, n, l, x, yb);
            each(N, n, l, [&](int64_t at) {
                store(xb + at, load<v8>(xb + at) + root * load<v8>(yb + at) + k * load<v8>(x + at));
            });
        }
}

template <class T, int L>
inline void Geat<T, L>::norm_tangent(int64_t N, const T* x, const T* xd, const T* rho, T* yd, double strength,
                                     int degrees) const {
    for (int l = 0; l < degrees; l++)
        for (int64_t n = 0; n < N; n++) {
            const T root = rho[l * N + n];
            const T change = -T(strength / (2 * l + 1)) * root * root * root * dot(N, n, l, x, xd);
            each(N, n, l,
                 [&](int64_t at) { store(yd + at, load<v8>(xd + at) * root + load<v8>(x + at) * change); });
        }
}

template <class T, int L>
inline void Geat<T, L>::norm_adjoint_tangent(int64_t N, const T* x, const T* xd, const T* rho, const T* yb,
                                             const T* ybd, T* xbd, double strength, int degrees) const {
    for (int l = 0; l < degrees; l++)
        for (int64_t n = 0; n < N; n++) {
            const T kappa = T(strength / (2 * l + 1)), root = rho[l * N + n], cube = root * root * root;
            const T change = -kappa * cube * dot(N, n, l, x, xd);
            const T t = dot(N, n, l, x, yb), td = dot(N, n, l, xd, yb) + dot(N, n, l, x, ybd);
            const T on_x = -kappa * (3 * root * root * change * t + cube * td), on_xd = -kappa * cube * t;
            each(N, n, l, [&](int64_t at) {
                store(xbd + at, load<v8>(xbd + at) + change * load<v8>(yb + at) + root * load<v8>(ybd + at) +
                                    on_x * load<v8>(x + at) + on_xd * load<v8>(xd + at));
            });
        }
}

}  // namespace sapis

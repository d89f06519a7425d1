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

#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "geat_weights.h"
#include "geat_pairs.h"
#include "geat_pieces.h"
#include "geat_attention.h"
#include "geat_edges.h"
#include "geat_update.h"
#include "geat_layer.h"
#include "geat_sweeps.h"

// One library a floating-point type and number of degrees: -DREAL=float -DDEGREES=3.
#define EXPORT extern "C" __attribute__((visibility("default")))

typedef sapis::Geat<REAL, DEGREES> Step;

// Runs `work`; false where it throws, with what it said in `error`: empty where memory did not suffice.
static thread_local std::string error;
template <class F> static bool done(F&& work) {
    error.clear();
    try {
        work();
        return true;
    } catch (const std::bad_alloc&) {
    } catch (const std::exception& e) { error = e.what(); }
    return false;
}

// What geat.py compares with its own before it calls anything else.
EXPORT int64_t geat_abi() { return sapis::ABI; }
EXPORT int64_t geat_shape_bytes() { return sizeof(sapis::Shape); }
EXPORT int64_t geat_batch_bytes() { return sizeof(sapis::Batch); }
EXPORT int64_t geat_layer_parameters() { return sapis::PER_LAYER; }
EXPORT int64_t geat_end_parameters() { return sapis::ENDS; }

// Why the last call in this thread has failed; empty where memory did not suffice.
EXPORT const char* geat_error() { return error.c_str(); }

// The step, to be freed by `geat_free`; null where it failed.
EXPORT void* geat_forward(const sapis::Shape* shape, const sapis::Batch* batch, const void* const* params,
                          const double* multipliers, const double* coefficients, const double* centers,
                          const double* widths, const double* to_grid, const double* from_grid, REAL* energy,
                          REAL* features, REAL* gradient) {
    std::unique_ptr<Step> step;
    const bool ok = done([&] {
        sapis::check(*shape, DEGREES);
        sapis::check(*shape, *batch);
        step = std::make_unique<Step>(*shape, *batch, params, multipliers, coefficients, centers, widths,
                                      to_grid, from_grid);
        step->forward(energy, features, gradient);
    });
    return ok ? step.release() : nullptr;
}

// 0, or 1 where it failed.
EXPORT int geat_backward(void* step, const REAL* energy, const REAL* gradient, const REAL* features,
                         REAL* const* grads) {
    return !done([&] { static_cast<Step*>(step)->backward(energy, gradient, features, grads); });
}

EXPORT void geat_free(void* step) { delete static_cast<Step*>(step); }

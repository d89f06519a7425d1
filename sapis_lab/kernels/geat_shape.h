// What Python hands over (kernels/geat.py), and what it must satisfy.

#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace sapis {

// Raised whenever Shape, Batch, the order of the parameters or an entry point changes; geat.py has the same.
constexpr int64_t ABI = 1;

// Bounds of buffers of fixed size.
constexpr int64_t MOST_DEGREES = 4, MOST_HEADS = 8, MOST_KEYS = 500;

// Sizes and constants of a model, by the names that Python has for them.
struct Shape {
    int64_t lmax, layers, channels, heads, invariants, key_width;
    int64_t n_radial, edge_hidden, coupling_channels, node_width, n_species, n_grid;
    int64_t softmax, gaunt;  // 1, or 0 for the cheaper forms: weights f / mean_neighbors, gated linear update
    int64_t born_hidden;     // hidden units of the edge networks whose squares their soft norm counts
    double cutoff, sum_scale, uniform;
    double norm_attention, norm_update, norm_edge, norm_readout;  // 1 / (tau n) of the soft norms
};

// Frames in one of the layouts of graphs.PairGraph.
struct Batch {
    int64_t n_frames;
    int64_t block;    // atoms of a padded molecule, 0 for a table
    int64_t slots;    // K
    int64_t entries;  // G I K of `vectors`
    const int64_t *n_atoms, *neighbor;
    const uint8_t* mask;
    const int64_t* species;  // row of the species of every atom
    const void* vectors;     // (3, G, I, K)
    double energy_scale;
};

// The parameters of a layer, and those outside of layers, in the order in which Python hands them over.
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

inline void refuse(const std::string& text) { throw std::invalid_argument(text); }

// Throws unless the step can compute a model with `degrees` degrees within its buffers.
inline void check(const Shape& s, int64_t degrees) {
    auto text = [](int64_t n) { return std::to_string(n); };
    if (s.lmax + 1 != degrees)
        refuse("lmax " + text(s.lmax) + ": this library computes lmax " + text(degrees - 1));
    for (int64_t n : {s.layers, s.channels, s.invariants, s.key_width, s.n_radial, s.edge_hidden,
                      s.coupling_channels, s.node_width, s.n_species, s.n_grid})
        if (n < 1) refuse("a size of " + text(n) + ": wanted at least 1");
    if (s.heads < 1 || s.heads > MOST_HEADS || (s.heads & (s.heads - 1)))
        refuse("heads " + text(s.heads) + ": wanted 1, 2, 4 or 8");
    if (s.channels % s.heads)
        refuse("channels " + text(s.channels) + ": wanted a multiple of heads " + text(s.heads));
    if (s.invariants > MOST_KEYS || s.key_width > MOST_KEYS || s.invariants * s.key_width > MOST_KEYS)
        refuse("invariants " + text(s.invariants) + " x key_width " + text(s.key_width) + " > " +
               text(MOST_KEYS));
    if (s.born_hidden < 1 || s.born_hidden > s.edge_hidden)
        refuse("born_hidden " + text(s.born_hidden) + ": wanted 1 to edge_hidden " + text(s.edge_hidden));
}

// Throws unless the atoms of every frame fit its layout and are of known species.
inline void check(const Shape& s, const Batch& b) {
    auto text = [](int64_t n) { return std::to_string(n); };
    int64_t n_atoms = 0;
    for (int64_t frame = 0; frame < b.n_frames; frame++) {
        const int64_t n = b.n_atoms[frame];
        if (n < 0 || (b.block && n > b.block))
            refuse("a frame of " + text(n) + " atoms in a block of " + text(b.block));
        n_atoms += n;
    }
    const int64_t entries = b.block ? b.n_frames * b.block * b.block : n_atoms * b.slots;
    if (entries != b.entries) refuse(text(b.entries) + " displacements: wanted " + text(entries));
    for (int64_t atom = 0; atom < n_atoms; atom++)
        if (b.species[atom] < 0 || b.species[atom] >= s.n_species)
            refuse("an atom of species " + text(b.species[atom]) + " of " + text(s.n_species) +
                   ": the model does not know it");
}

}  // namespace sapis

// What a pair style knows of a model and a model of a pair style.

#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sapis {

// The pairs of the owned atoms within the cutoff.
struct Pairs {
    int64_t n_owned = 0, n_rows = 0;  // rows: owned and ghosts
    std::vector<int32_t> species;     // (n_rows) row of the species in the model
    std::vector<int64_t> first;       // (n_owned + 1) the first pair of an owned atom
    std::vector<int32_t> neighbor;    // (n_pairs) row of j
    std::vector<double> vectors;      // (n_pairs, 3) r_j - r_i
};

// What the maker of ghosts does between layers, by `pack` and `unpack` of the system.
class Exchange {
public:
    virtual void to_ghosts() = 0;    // copies what owned atoms send to the rows of their ghosts
    virtual void from_ghosts() = 0;  // adds the adjoints of ghosts to those of their owners

protected:
    ~Exchange() = default;
};

// A system of either floating-point type.
class System {
public:
    virtual ~System() = default;
    virtual int64_t row_size() const = 0;  // numbers that an atom sends before a layer
    virtual void pack(int64_t row, double* to) const = 0;
    virtual void unpack(int64_t row, const double* from) = 0;
    virtual void pack_adjoint(int64_t row, double* to) const = 0;
    virtual void add_adjoint(int64_t row, const double* from) = 0;
    // Energies of the owned atoms, and dE/dv (n_pairs, 3) of the sum of all, of this and other processes.
    virtual void compute(const Pairs& pairs, Exchange& exchange, std::vector<double>& energy,
                         std::vector<double>& gradient) = 0;
    virtual double bytes() const = 0;
};

// What a model file says beside the numbers of its model.
struct Model {
    std::vector<std::string> elements;
    std::vector<double> reference_energies;  // of the elements, eV
    double cutoff = 0;                       // Angstrom
    std::unique_ptr<System> system;
};

// The model in a file. Throws std::exception where the file is none, damaged, or not for this plugin.
Model open_model(const std::string& path, bool single_precision, int threads);

}  // namespace sapis

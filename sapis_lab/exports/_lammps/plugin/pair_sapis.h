// pair_style sapis: a GEAT of sapis_lab in LAMMPS.
//
//     pair_style sapis [precision double|single] [threads N]
//     pair_coeff * * model.sapis H C O              an element for every atom type

#pragma once
#include <memory>
#include <string>
#include <vector>

#include "pair.h"
#include "system.h"

namespace LAMMPS_NS {

class PairSapis : public Pair, private sapis::Exchange {
public:
    explicit PairSapis(class LAMMPS*);
    ~PairSapis() override;
    void settings(int, char**) override;
    void coeff(int, char**) override;
    void init_style() override;
    double init_one(int, int) override;
    void compute(int, int) override;
    double memory_usage() override;

    int pack_forward_comm(int, int*, double*, int, int*) override;
    void unpack_forward_comm(int, int, double*) override;
    int pack_reverse_comm(int, int, double*) override;
    void unpack_reverse_comm(int, int*, double*) override;

private:
    sapis::Model model;
    std::vector<int32_t> species_of_type;  // row of the element in the model; from 1
    sapis::Pairs pairs;
    std::vector<double> energy, gradient;
    bool single_precision = false;
    int threads = 1;

    void to_ghosts() override;
    void from_ghosts() override;
    void find_pairs();
    void add_pair(int i, int j, double r2, const double* v);
    void tally();
};

}  // namespace LAMMPS_NS

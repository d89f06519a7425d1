#include "pair_sapis.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"
#if __has_include("version.h")  // of a LAMMPS built from source
#include "version.h"
#endif

using namespace LAMMPS_NS;

static constexpr double CLOSEST = 0.3;  // Å; no frame below it is accepted for training

PairSapis::PairSapis(LAMMPS* lmp) : Pair(lmp) {
    single_enable = restartinfo = 0;
    one_coeff = manybody_flag = 1;
    no_virial_fdotr_compute = 1;  // it is summed over pairs
    centroidstressflag = CENTROID_NOTAVAIL;
}

PairSapis::~PairSapis() {
    if (copymode || !allocated) return;
    memory->destroy(setflag);
    memory->destroy(cutsq);
}

void PairSapis::settings(int narg, char** arg) {
    if (narg % 2)
        error->all(FLERR, "pair_style sapis: wanted words with their values, got an odd number of both");
    for (int k = 0; k < narg; k += 2) {
        const std::string word = arg[k], value = arg[k + 1];
        if (word == "precision" && (value == "double" || value == "single"))
            single_precision = value == "single";
        else if (word == "threads")
            threads = utils::inumeric(FLERR, arg[k + 1], false, lmp);
        else
            error->all(FLERR, "pair_style sapis: got '" + word + " " + value +
                                  "', wanted 'precision double', 'precision single' or 'threads N'");
    }
    if (threads < 1 || threads > 1024)
        error->all(FLERR, "pair_style sapis: threads " + std::to_string(threads) + ", wanted 1 to 1024");
}

void PairSapis::coeff(int narg, char** arg) {
    const int n = atom->ntypes;
    if (narg != 3 + n || strcmp(arg[0], "*") || strcmp(arg[1], "*"))
        error->all(FLERR, "pair_coeff of sapis: wanted '* * MODEL' and an element for each of the " +
                              std::to_string(n) + " atom types, got " +
                              std::to_string(std::max(narg - 3, 0)) + " elements");
    try {
        model = sapis::open_model(arg[2], single_precision, threads);
    } catch (const std::exception& e) { error->all(FLERR, std::string("pair_coeff of sapis: ") + e.what()); }
    species_of_type.assign(n + 1, 0);
    for (int type = 1; type <= n; type++) {
        const auto& known = model.elements;
        const auto at = std::find(known.begin(), known.end(), arg[2 + type]);
        if (at == known.end()) {
            std::string names;
            for (auto& name : known) names += " " + name;
            error->all(FLERR, "pair_coeff of sapis: type " + std::to_string(type) + " is '" + arg[2 + type] +
                                  "', the model knows" + names);
        }
        species_of_type[type] = int32_t(at - known.begin());
    }
    if (!allocated) {
        allocated = 1;
        memory->create(setflag, n + 1, n + 1, "pair:setflag");
        memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
    }
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= n; j++) setflag[i][j] = 1;
    comm_forward = comm_reverse = int(model.system->row_size());
}

void PairSapis::init_style() {
    if (strcmp(update->unit_style, "metal"))
        error->all(FLERR, std::string("pair_style sapis: units ") + update->unit_style +
                              ", wanted units metal (eV and Angstrom)");
    if (!force->newton_pair)
        error->all(FLERR, "pair_style sapis: newton off, wanted newton on: forces on ghost atoms belong to "
                          "atoms of other processes or images");
    if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol)
        error->all(FLERR, "pair_style sapis: neigh_modify exclude takes pairs away that the model knows of; "
                          "wanted none");
    if (atom->molecular != Atom::ATOMIC)
        for (int k = 1; k <= 3; k++)
            if (force->special_lj[k] != 1.0)
                error->all(FLERR, "pair_style sapis: special_bonds take bonded pairs away; wanted "
                                  "special_bonds lj/coul 1 1 1");
    // a hybrid style asks its styles before they know their model
    force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
    force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
    neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairSapis::init_one(int, int) { return model.cutoff; }

void PairSapis::compute(int eflag, int vflag) {
    ev_init(eflag, vflag);
    if (comm->get_comm_cutoff() < model.cutoff)
        error->all(FLERR, "pair_style sapis: ghost atoms reach " + std::to_string(comm->get_comm_cutoff()) +
                              " Angstrom, wanted at least the cutoff of the model, " +
                              std::to_string(model.cutoff) + "; see comm_modify cutoff");
    find_pairs();
    try {
        model.system->compute(pairs, *this, energy, gradient);
    } catch (const std::bad_alloc&) {
        error->one(FLERR, "pair_style sapis: not enough memory for " + std::to_string(atom->nlocal) +
                              " atoms of a process; use more processes or precision single");
    }
    tally();
}

void PairSapis::find_pairs() {
    if (list->inum != atom->nlocal)
        error->one(FLERR, "pair_style sapis: it is given " + std::to_string(list->inum) + " of " +
                              std::to_string(atom->nlocal) +
                              " atoms; wanted all: in pair_style hybrid/overlay with every atom type");
    const double limit = model.cutoff * model.cutoff;
    double** x = atom->x;
    pairs.n_owned = atom->nlocal, pairs.n_rows = atom->nlocal + atom->nghost;
    pairs.species.resize(pairs.n_rows);
    for (int64_t k = 0; k < pairs.n_rows; k++) pairs.species[k] = species_of_type[atom->type[k]];
    pairs.first.assign(1, 0), pairs.neighbor.clear(), pairs.vectors.clear();
    for (int i = 0; i < atom->nlocal; i++) {  // lists are kept by atom, in whatever order ilist has them
        const int* js = list->firstneigh[i];
        for (int k = 0; k < list->numneigh[i]; k++) {
            const int j = js[k] & NEIGHMASK;
            const double v[3] = {x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]};
            const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
            if (r2 < limit) add_pair(i, j, r2, v);
        }
        pairs.first.push_back(int64_t(pairs.neighbor.size()));
    }
}

void PairSapis::add_pair(int i, int j, double r2, const double* v) {
    if (r2 < CLOSEST * CLOSEST)
        error->one(FLERR, "pair_style sapis: atoms " + std::to_string(atom->tag[i]) + " and " +
                              std::to_string(atom->tag[j]) + " are " + std::to_string(std::sqrt(r2)) +
                              " Angstrom apart; the model knows nothing below 0.3");
    pairs.neighbor.push_back(j);
    pairs.vectors.insert(pairs.vectors.end(), v, v + 3);
}

// Energies with reference energies; f_i = sum_j g_ij - sum_j g_ji and virial = -sum_ij v_ij (x) g_ij with
// g = dE/dv. Forces on ghosts are sent home by LAMMPS.
void PairSapis::tally() {
    double **f = atom->f, total = 0;
    for (int64_t i = 0; i < pairs.n_owned; i++) {
        const double e = energy[i] + model.reference_energies[pairs.species[i]];
        total += e;
        if (eflag_atom) eatom[i] += e;
        for (int64_t p = pairs.first[i]; p < pairs.first[i + 1]; p++) {
            const int j = pairs.neighbor[p];
            const double *g = &gradient[3 * p], *v = &pairs.vectors[3 * p];
            for (int k = 0; k < 3; k++) f[i][k] += g[k], f[j][k] -= g[k];
            if (!vflag_either) continue;
            const double w[6] = {-v[0] * g[0],
                                 -v[1] * g[1],
                                 -v[2] * g[2],
                                 -0.5 * (v[0] * g[1] + v[1] * g[0]),
                                 -0.5 * (v[0] * g[2] + v[2] * g[0]),
                                 -0.5 * (v[1] * g[2] + v[2] * g[1])};
            for (int k = 0; k < 6; k++) {
                if (vflag_global) virial[k] += w[k];
                if (vflag_atom) vatom[i][k] += 0.5 * w[k], vatom[j][k] += 0.5 * w[k];
            }
        }
    }
    if (eflag_global) eng_vdwl += total;
    if (!std::isfinite(total))
        error->one(FLERR,
                   "pair_style sapis: the energy is not finite; look at the positions of the last steps");
}

double PairSapis::memory_usage() {
    return Pair::memory_usage() + (model.system ? model.system->bytes() : 0.0);
}

// ---- rows of ghosts

void PairSapis::to_ghosts() { comm->forward_comm(this); }
void PairSapis::from_ghosts() { comm->reverse_comm(this); }

int PairSapis::pack_forward_comm(int n, int* rows, double* to, int, int*) {
    for (int k = 0; k < n; k++) model.system->pack(rows[k], to + int64_t(k) * comm_forward);
    return n * comm_forward;
}

void PairSapis::unpack_forward_comm(int n, int first, double* from) {
    for (int k = 0; k < n; k++) model.system->unpack(first + k, from + int64_t(k) * comm_forward);
}

int PairSapis::pack_reverse_comm(int n, int first, double* to) {
    for (int k = 0; k < n; k++) model.system->pack_adjoint(first + k, to + int64_t(k) * comm_reverse);
    return n * comm_reverse;
}

void PairSapis::unpack_reverse_comm(int n, int* rows, double* from) {
    for (int k = 0; k < n; k++) model.system->add_adjoint(rows[k], from + int64_t(k) * comm_reverse);
}

// ---- the plugin

extern "C" {
typedef void*(lammpsplugin_factory1)(void*);
typedef void*(lammpsplugin_factory2)(void*, int, char**);
typedef struct {  // of lammpsplugin.h, which the wheel has not
    const char *version, *style, *name, *info, *author;
    union {
        lammpsplugin_factory1* v1;
        lammpsplugin_factory2* v2;
    } creator;
    void* handle;
} lammpsplugin_t;
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t*, void*);
}

static Pair* make(LAMMPS* lmp) { return new PairSapis(lmp); }

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void* of, void* handle, void* add) {
    LAMMPS* lmp = static_cast<LAMMPS*>(of);
#if defined LAMMPS_NUMBER
    const std::string wanted = std::to_string(LAMMPS_NUMBER), here = std::to_string(lmp->num_ver);
#elif defined LAMMPS_VERSION
    const std::string wanted = LAMMPS_VERSION, here = lmp->version;
#else
    const std::string wanted = lmp->version, here = wanted;
#endif
    if (wanted != here)
        lmp->error->all(FLERR, "the plugin sapis is built for LAMMPS " + wanted + ", this is " + here +
                                   "; build it with the headers of this one, after make clean");
    lammpsplugin_t plugin;
    plugin.version = lmp->version;
    plugin.style = "pair";
    plugin.name = "sapis";
    plugin.info = "GEAT potentials of sapis_lab";
    plugin.author = "sapis_lab";
    plugin.creator.v1 = reinterpret_cast<lammpsplugin_factory1*>(&make);
    plugin.handle = handle;
    reinterpret_cast<lammpsplugin_regfunc>(add)(&plugin, lmp);
}

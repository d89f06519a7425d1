// model.sapis: a GEAT with all that is needed to compute with it, as written by sapis_lab/exports/lammps.py.
//
//     sapis-geat 1
//     crc32 1c2d3e4f           of all that follows this line
//     elements H C O
//     lmax 2                   and the other sizes of geat_shape.h, one a line
//     parameters 4320 88 ...   how many numbers every parameter has, in the order of geat_shape.h
//     numbers 98765            of eight bytes, little-endian, behind this line:
//
// cutoff, sum_scale, uniform, norm_attention, norm_update, norm_edge, norm_readout, energy_scale; a reference
// energy an element (eV); centres and widths of the radial functions; coefficients of the harmonics; the
// matrices to and from the grid; a multiplier a parameter; the parameters.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "geat_system.h"

#ifndef DEGREES
#error "build with -DDEGREES=, the degrees (lmax + 1) of the model, as the Makefile does"
#endif

namespace sapis {

static uint32_t crc32(const char* bytes, size_t n) {  // of IEEE 802.3, as zlib's
    static const std::vector<uint32_t> table = [] {
        std::vector<uint32_t> t(256);
        for (uint32_t k = 0; k < 256; k++) {
            uint32_t c = k;
            for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
            t[k] = c;
        }
        return t;
    }();
    uint32_t c = 0xFFFFFFFFu;
    for (size_t k = 0; k < n; k++) c = table[(c ^ uint8_t(bytes[k])) & 255] ^ (c >> 8);
    return c ^ 0xFFFFFFFFu;
}

class ModelFile {
    std::string path;
    std::map<std::string, int64_t> sizes;
    std::vector<int64_t> lengths;  // of the parameters
    std::vector<double> numbers;
    const double *coefficients, *centers, *widths, *to_grid, *from_grid, *multipliers, *parameters;

    [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(path + ": " + what); }

    int64_t size(const char* name) const {
        const auto at = sizes.find(name);
        if (at == sizes.end()) fail(std::string("lacks the line ") + name + "; export the model anew");
        return at->second;
    }

    void read(const std::string& text) {
        size_t at = 0;
        auto line = [&] {
            const size_t end = text.find('\n', at);
            if (end == std::string::npos) fail("ends within its header; copy or export it anew");
            std::string found = text.substr(at, end - at);
            at = end + 1;
            return found;
        };
        const std::string magic = line();
        if (magic.rfind("sapis-geat ", 0) != 0) fail("is no model of sapis export");
        if (magic != "sapis-geat 1")
            fail("has the format " + magic.substr(11) +
                 ", this plugin reads 1; build the one that was exported with it");
        const std::string sum = line();
        char wanted[32];
        std::snprintf(wanted, sizeof wanted, "crc32 %08x", crc32(text.data() + at, text.size() - at));
        if (sum != wanted)
            fail("is damaged (" + sum + ", its bytes give " + wanted + "); copy or export it anew");
        for (;;) {
            std::istringstream words(line());
            std::string key;
            words >> key;
            if (key == "elements") {
                for (std::string name; words >> name;) elements.push_back(name);
            } else if (key == "parameters") {
                for (int64_t n; words >> n;) lengths.push_back(n);
            } else {
                words >> sizes[key];
            }
            if (key == "numbers") break;
        }
        if (int64_t(text.size() - at) != size("numbers") * 8) fail("has another length than it says");
        numbers.resize(size("numbers"));
        std::memcpy(numbers.data(), text.data() + at, text.size() - at);
    }

    void place() {
        const int64_t degrees = size("lmax") + 1, n = int64_t(elements.size());
        shape.n_species = n;
        std::pair<const char*, int64_t*> of[] = {{"lmax", &shape.lmax},
                                                 {"layers", &shape.layers},
                                                 {"channels", &shape.channels},
                                                 {"heads", &shape.heads},
                                                 {"invariants", &shape.invariants},
                                                 {"key_width", &shape.key_width},
                                                 {"n_radial", &shape.n_radial},
                                                 {"edge_hidden", &shape.edge_hidden},
                                                 {"coupling_channels", &shape.coupling_channels},
                                                 {"node_width", &shape.node_width},
                                                 {"n_grid", &shape.n_grid},
                                                 {"softmax", &shape.softmax},
                                                 {"gaunt", &shape.gaunt},
                                                 {"born_hidden", &shape.born_hidden}};
        for (auto& [name, to] : of) *to = size(name);
        int64_t total = 8 + n + 2 * shape.n_radial + degrees * degrees * degrees +
                        2 * shape.n_grid * degrees * degrees + int64_t(lengths.size());
        for (int64_t length : lengths) total += length;
        if (total != int64_t(numbers.size()) ||
            int64_t(lengths.size()) != shape.layers * PER_LAYER + ENDS)
            fail("has other sizes than its model; export it anew");
        const double* p = numbers.data();
        for (double* to : {&shape.cutoff, &shape.sum_scale, &shape.uniform, &shape.norm_attention,
                           &shape.norm_update, &shape.norm_edge, &shape.norm_readout, &energy_scale})
            *to = *p++;
        auto next = [&](int64_t k) {
            const double* start = p;
            p += k;
            return start;
        };
        const double* energies = next(n);
        reference_energies.assign(energies, energies + n);
        centers = next(shape.n_radial), widths = next(shape.n_radial);
        coefficients = next(degrees * degrees * degrees);
        to_grid = next(shape.n_grid * degrees * degrees), from_grid = next(shape.n_grid * degrees * degrees);
        multipliers = next(int64_t(lengths.size()));
        parameters = p;
    }

public:
    std::vector<std::string> elements;
    std::vector<double> reference_energies;
    Shape shape;
    double energy_scale = 1;

    explicit ModelFile(const std::string& path_) : path(path_) {
        std::ifstream file(path, std::ios::binary);
        if (!file) fail("cannot be read");
        read(std::string(std::istreambuf_iterator<char>(file), {}));
        place();
        try {
            check(shape, DEGREES);
        } catch (const std::invalid_argument& e) { fail(e.what()); }
    }

    template <class T> std::unique_ptr<System> system(int threads) const {
        std::vector<std::vector<T>> values;
        std::vector<const void*> pointers;
        const double* p = parameters;
        for (int64_t length : lengths) {
            values.emplace_back(p, p + length);
            p += length;
        }
        for (auto& v : values) pointers.push_back(v.empty() ? nullptr : v.data());
        return std::make_unique<GeatSystem<T, DEGREES>>(shape, pointers.data(), multipliers, coefficients,
                                                        centers, widths, to_grid, from_grid, energy_scale,
                                                        threads);
    }
};

Model open_model(const std::string& path, bool single_precision, int threads) {
    const ModelFile file(path);
    return {file.elements, file.reference_energies, file.shape.cutoff,
            single_precision ? file.system<float>(threads) : file.system<double>(threads)};
}

}  // namespace sapis

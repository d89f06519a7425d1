"""Physical constants and conversions; inside the package: eV, Å, amu, fs, K, elementary charge.

CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010, 2021); the SI values of e, N_A and k are exact since
2019. Convert at the border and by name: `forces = forces_kcal * units.KCAL_PER_MOL_TO_EV`.
"""

AVOGADRO = 6.02214076e23
"""1/mol, exact."""
ELEMENTARY_CHARGE = 1.602176634e-19
"""C, exact; also J per eV."""
KB = 8.617333262145179e-5
"""Boltzmann constant, eV/K."""

HARTREE_TO_EV = 27.211386245988
BOHR_TO_ANGSTROM = 0.529177210903
KCAL_PER_MOL_TO_EV = 4184.0 / (AVOGADRO * ELEMENTARY_CHARGE)
KJ_PER_MOL_TO_EV = 1000.0 / (AVOGADRO * ELEMENTARY_CHARGE)
EV_PER_A3_TO_GPA = ELEMENTARY_CHARGE * 1e30 * 1e-9

ACCELERATION = ELEMENTARY_CHARGE / 1.66053906660e-27 * 1e-10
"""Å/fs² per (eV/Å/amu): multiply forces/masses by this, 9.64853e-3."""

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": KCAL_PER_MOL_TO_EV,
    "kJ/mol": KJ_PER_MOL_TO_EV,
    "Hartree": HARTREE_TO_EV,
}
"""Names of energy units a config may state, in eV."""
LENGTH = {"Angstrom": 1.0, "Bohr": BOHR_TO_ANGSTROM, "nm": 10.0}
"""Names of length units a config may state, in Å."""
DEBYE_TO_E_ANGSTROM = 1e-21 / 299_792_458 / ELEMENTARY_CHARGE * 1e10
DIPOLE = {"e*Angstrom": 1.0, "Debye": DEBYE_TO_E_ANGSTROM, "e*Bohr": BOHR_TO_ANGSTROM}
"""Names of units of dipole moments a config may state, in e Å."""

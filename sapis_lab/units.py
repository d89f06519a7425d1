"""Physical constants and conversions; inside the package: eV, Å, amu, fs, K, elementary charge.

CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010, 2021); the SI values of e, N_A and k are exact since
2019. Convert at the border and by name: `forces = forces_kcal * units.KCAL_PER_MOL_TO_EV`.
"""

from collections.abc import Iterable

AVOGADRO = 6.02214076e23
"""1/mol, exact."""
ELEMENTARY_CHARGE = 1.602176634e-19
"""C, exact; also J per eV."""
KB = 8.617333262145179e-5
"""Boltzmann constant, eV/K."""
HBAR = 6.62607015e-34 / (2 * 3.141592653589793) / ELEMENTARY_CHARGE * 1e15
"""Reduced Planck constant, eV fs."""

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
STRESS = {
    "GPa": 1 / EV_PER_A3_TO_GPA,
    "kbar": 0.1 / EV_PER_A3_TO_GPA,
    "eV/Angstrom^3": 1.0,
    "Hartree/Bohr^3": HARTREE_TO_EV / BOHR_TO_ANGSTROM**3,
}
"""Names of units of stress a config may state, in eV/Å³."""

_SPELLINGS = {
    "eV": "ev electronvolt electronvolts",
    "meV": "millielectronvolt",  # not `mev`, which is a million eV
    "kcal/mol": "kcal/mole kcalmol kcalmol-1 kcal*mol^-1 kcalpermol",
    "kJ/mol": "kj/mole kjmol kjmol-1 kj*mol^-1 kjpermol",
    "Hartree": "hartree hartrees ha eh au a.u.",
    "Angstrom": "angstrom angstroms å ang a",
    "Bohr": "bohr bohrs a0 au a.u.",
    "nm": "nanometer nanometers nanometre",
    "GPa": "gigapascal",
    "kbar": "kb kilobar",
    "eV/Angstrom^3": "ev/a^3 ev/å^3 ev/ang^3",
    "Hartree/Bohr^3": "ha/bohr^3 hartree/a0^3 au a.u.",
    "e*Angstrom": "ea eå e*å e*a eangstrom",
    "Debye": "d debyes",
    "e*Bohr": "ebohr e*a0 ea0 au a.u.",
}


def spelled(text: object, known: Iterable[str]) -> object:
    """The name among `known` that `text` spells, in any case and in the usual other ways (`ev`, `kcal/mole`,
    `Ha`, `Å`, `eV/Å³`, `kB`); `text` itself where there is none, for the caller to refuse."""
    known = list(known)
    if not isinstance(text, str) or text in known:
        return text
    plain = (
        text.replace("³", "^3").replace("**", "^").replace("⁻¹", "-1").replace("A3", "A^3").replace(" ", "")
    )
    for name in known:
        if plain in (name, *_SPELLINGS.get(name, "").split()):
            return name
    fits = [
        name
        for name in known
        if plain.casefold() in (name.casefold(), *_SPELLINGS.get(name, "").split())
        and not (name == "meV" and plain.startswith("M"))
    ]
    return fits[0] if len(fits) == 1 else text


def per_length(text: object) -> object:
    """A unit of force, such as `Ha/bohr`, in the names of ENERGY and LENGTH; `text` itself where it is
    none."""
    if not isinstance(text, str) or "/" not in text:
        return text
    energy, _, length = text.rpartition("/")
    return f"{spelled(energy, ENERGY)}/{spelled(length, LENGTH)}"

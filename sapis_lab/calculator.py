"""A trained potential as an ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from sapis_lab.config import ConfigError
from sapis_lab.potential import DESCRIPTION, Potential, Predictions, load_potential
from sapis_lab.uncertainty import FILE, Ensemble, LastLayer, Uncertainty, refuse_uncertain

_STD = ["energy_std", "forces_std"]


class SapisCalculator(Calculator):
    """Energy and its parts by atoms (eV, reference energies included in both), forces (eV/Å) and, with a
    cell, stress (eV/Å^3, Voigt, tension positive) of a trained potential; what its heads have learnt besides,
    such as `dipole` (e Å) and `charges` (e), by the keys of the targets.

    With an `uncertainty` also `energy_std` (eV) and `forces_std` (n_atoms, 3) eV/Å in `results`; of an
    ensemble everything is the mean over its members.

    Args:
        uncertainty: how the errors are estimated; its potential, or ensemble, predicts.
        stop_above: eV/Å; a calculation raises `TooUncertain` where the force on an atom has a larger standard
            deviation (sqrt of the sum over its components), so that any simulation ends there. The results
            of that structure are in `results` all the same.
    """

    implemented_properties = ["energy", "energies", "free_energy", "forces", "stress"]

    def __init__(
        self,
        potential: Potential,
        *,
        uncertainty: Uncertainty | None = None,
        stop_above: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stop_above is not None and uncertainty is None:
            raise ConfigError(
                f"stop_above={stop_above} needs an uncertainty: give several points, or a folder with {FILE}"
            )
        is_number = isinstance(stop_above, int | float | np.number) and not isinstance(stop_above, bool)
        if stop_above is not None and not (is_number and 0 < stop_above < np.inf):
            raise ConfigError(f"stop_above={stop_above!r}: wanted a number of eV/Å above 0")
        self.potential, self.uncertainty, self.stop_above = potential, uncertainty, stop_above
        energies = self.implemented_properties if potential.model.gives_energy else []
        self.implemented_properties = [*energies, *potential.heads, *(_STD if uncertainty else ())]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        # Stress costs next to nothing beside forces, and who asks for energy, forces and then stress, as NPT
        # and ASE's sockets do, would have everything computed twice.
        stress = bool(np.any(self.atoms.pbc)) and self.atoms.cell.rank == 3
        stress = stress and self.potential.model.gives_energy
        if self.uncertainty is None:
            self.results = self._results(self.potential.predict(self.atoms, stress=stress))
            return
        judged = self.uncertainty.judge(self.atoms, stress=stress)
        self.results = self._results(judged.predictions)
        self.results |= {"energy_std": float(judged.energy_std[0]), "forces_std": judged.forces_std}
        if self.stop_above is not None:
            refuse_uncertain(judged, self.atoms.numbers, stop_above=self.stop_above)

    def _results(self, found: Predictions) -> dict[str, Any]:
        own = frozenset(found.properties) - found.per_atom
        results: dict[str, Any] = {
            key: value[0] if key in own else value for key, value in found.properties.items()
        }
        if not self.potential.model.gives_energy:
            return results
        energy = float(found.energy[0])
        results |= {
            "energy": energy,
            "energies": found.atomic_energies,
            "free_energy": energy,
            "forces": found.forces,
        }
        if found.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(found.stress[0])
        return results


def load_model(
    path: str | Path | Sequence[str | Path], *, device: str = "cpu", stop_above: float | None = None
) -> SapisCalculator:
    """The finished point in `path` as an ASE calculator, or several that differ in their seed as an ensemble.

    A folder made by `sapis model uncertainty` gives standard deviations too, as an ensemble does; see
    `SapisCalculator` for these and for `stop_above`.

    Example:
        atoms.calc = sapis_lab.load_model("results/quickstart/points/geat-l2-n3.0e4-d400-s0")
    """
    if not isinstance(path, str | Path):
        members = [load_potential(one, device=device) for one in path]
        if not members:
            raise ConfigError("no path is given; wanted the folder of a finished point, or several")
        return SapisCalculator(members[0], uncertainty=Ensemble(members), stop_above=stop_above)
    potential = load_potential(path, device=device)
    folder = Path(path) if (Path(path) / DESCRIPTION).is_file() else Path(path).parent
    known = LastLayer.load(folder, potential) if (folder / FILE).is_file() else None
    return SapisCalculator(potential, uncertainty=known, stop_above=stop_above)

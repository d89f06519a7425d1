"""The form `torch`: programs that run without this package and give our numbers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_cases import SIZES, atoms_of, near, small_potential, written

from sapis_lab.config import ConfigError
from sapis_lab.exports._traced import checked, with_derivatives
from sapis_lab.exports.torch import TorchExport
from sapis_lab.potential import Potential
from sapis_lab.references import ReferencesFrom, UndeterminedEnergy

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, exports warn of sizes
CASES = [(n, periodic) for n in SIZES for periodic in (False, True)]
_ALONE = """
import sys
sys.modules["sapis_lab"] = None  # it must not be needed
sys.path.insert(0, {place!r})
import numpy as np
from predict import predict, predict_many
data = np.load({data!r})
cases = [tuple(data[f"{{k}}_{{key}}"] for key in ("z", "x", "cell", "pbc")) for k in range({n})]
found = {{}}
for k, case in enumerate(cases):
    energy, forces, stress = predict(*case)
    found |= {{f"{{k}}_e": energy, f"{{k}}_f": forces}} | ({{}} if stress is None else {{f"{{k}}_s": stress}})
energies, forces, _ = predict_many(cases[1:4])
np.savez({out!r}, many_e=energies, many_f=np.concatenate(forces), **found)
"""


def alone(place: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """What the program in `place` says of all cases, in a process that has no sapis_lab."""
    arrays = {}
    for k, (n, periodic) in enumerate(CASES):
        atoms = atoms_of(n, periodic=periodic)
        arrays |= {f"{k}_z": atoms.numbers, f"{k}_x": atoms.positions, f"{k}_pbc": atoms.pbc}
        arrays[f"{k}_cell"] = np.asarray(atoms.cell)
    np.savez(tmp_path / "given.npz", **arrays)
    names = {"place": str(place), "data": str(tmp_path / "given.npz"), "out": str(tmp_path / "found.npz")}
    program = _ALONE.format(n=len(CASES), **names)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(tmp_path / "found.npz"))


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        ("geat", "script"),
        pytest.param("geat", "export", marks=pytest.mark.long),
        pytest.param("geat", "aoti", marks=pytest.mark.long),
        pytest.param("allegro", "export", marks=pytest.mark.long),
        pytest.param("allegro", "script", marks=pytest.mark.long),
        pytest.param("transformer", "export", marks=pytest.mark.long),
    ],
)
def test_numbers_are_ours_without_this_package(kind: str, program: str, tmp_path: Path) -> None:
    if program == "aoti" and shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    potential = small_potential(kind)
    place = written(potential, TorchExport(program=program), tmp_path / "out")
    found = alone(place, tmp_path)
    for k, (n, periodic) in enumerate(CASES):
        ours = potential.predict(atoms_of(n, periodic=periodic), stress=periodic)
        assert near(found[f"{k}_e"], ours.energy[0]), (n, periodic)
        assert near(found[f"{k}_f"], ours.forces), (n, periodic)
        if ours.stress is not None:
            assert near(found[f"{k}_s"], ours.stress[0]), (n, periodic)
    many = [potential.predict(atoms_of(n, periodic=periodic)) for n, periodic in CASES[1:4]]
    assert near(found["many_e"], np.concatenate([p.energy for p in many]))
    assert near(found["many_f"], np.concatenate([p.forces for p in many]))


def test_the_comparison_asks_for_no_energy_that_people_are_warned_of() -> None:
    known = ReferencesFrom(kind="ridge", compositions=({14: 1, 26: 2},))
    potential = replace(small_potential(), references_from=known)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndeterminedEnergy)
        checked(with_derivatives(potential), potential)


def test_the_comparison_refuses_other_numbers(potential: Potential) -> None:
    function = with_derivatives(potential)

    def other(*inputs):
        energy, *rest = function(*inputs)
        return (energy + 1e-3 * energy.abs(), *rest)

    with pytest.raises(ConfigError, match="numbers are off by 1.0e-03"):
        checked(other, potential)


def test_a_family_that_cannot_be_traced_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="family 'nequip' cannot be traced as a graph that fits all sizes"):
        written(small_potential("nequip"), TorchExport(program="script"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_an_unknown_element_is_refused_by_the_script(potential: Potential, tmp_path: Path) -> None:
    place = written(potential, TorchExport(program="script"), tmp_path / "out")
    words = "from predict import predict; predict([8], [[0, 0, 0]])"
    done = subprocess.run([sys.executable, "-c", words], cwd=place, capture_output=True, text=True)
    assert "knows the elements [14, 26], got [8] as well" in done.stderr

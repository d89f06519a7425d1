"""The scaffold of a molecule: what is left of its bonds when everything that is not in a ring, or between
rings, is taken away (Bemis & Murcko, J. Med. Chem. 39, 2887, 1996).

Frames have no bonds. Two atoms are bonded here when they are closer than the sum of their covalent radii
times 1.3 (RDKit's rule, from the positions alone), and all bonds count as single ones: what is told apart is
which atoms are connected, not how. Frames of one molecule have one scaffold as long as none of its bonds
breaks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sapis_lab.data._frame_features import StoredFrames, chunks


def scaffolds(store: StoredFrames, ids: np.ndarray) -> np.ndarray:
    """For each of the frames `ids` (n,) the number of its scaffold, (n,) int64; molecules without a ring have
    one together.

    Raises:
        ValueError: a frame is periodic.   ImportError: rdkit is not installed.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDetermineBonds
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError:
        raise ImportError(
            "scaffolds of molecules need rdkit; install it with  pip install 'sapis_lab[chem]'"
        ) from None
    texts = np.empty(len(ids), dtype=object)
    for some in chunks(store, ids):
        frames = store.frames(ids[some])
        if frames.pbc.any():
            frame = int(ids[some][np.argmax(frames.pbc.any(1))])
            raise ValueError(f"order: by=scaffold, but training frame {frame} is periodic; wanted molecules")
        ends = np.cumsum(frames.n_atoms)
        for k, n, end in zip(some, frames.n_atoms, ends, strict=True):
            molecule = _molecule(Chem, frames.species[end - n : end], frames.positions[end - n : end])
            rdDetermineBonds.DetermineConnectivity(molecule)
            plain = Chem.RemoveAllHs(molecule, sanitize=False)
            for atom in plain.GetAtoms():
                atom.SetNoImplicit(True)
            Chem.FastFindRings(plain)
            texts[k] = Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(plain))
    return np.unique(texts.astype(str), return_inverse=True)[1].reshape(-1)


def _molecule(chem: Any, species: np.ndarray, positions: np.ndarray) -> Any:
    molecule = chem.RWMol()
    for z in species:
        molecule.AddAtom(chem.Atom(int(z)))
    places = chem.Conformer(len(species))
    places.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    molecule.AddConformer(places)
    return molecule

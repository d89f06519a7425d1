"""Molecules from SMILES: labels, conformers that repeat, what is left out and counted, scaffolds."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.config import load, read_yaml
from sapis_lab.data import dataset_info, moleculenet, prepare
from sapis_lab.data._molecules import canonical, read_smiles, scaffold
from sapis_lab.data.moleculenet import MoleculenetConfig

pytest.importorskip("rdkit")
needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no molecules to read"
)
REPOSITORY = Path(__file__).resolve().parents[2]
ALKANES = [("C" * n, -0.5 * n) for n in range(1, 13)]


def write(folder, rows, head="name,smiles,expt"):
    folder.mkdir(exist_ok=True)
    lines = [f"m{k},{smiles},{value}" for k, (smiles, value) in enumerate(rows)]
    (folder / "set.csv").write_text("\n".join([head, *lines]) + "\n")
    return folder


def config(root, **changes):
    settings = {"n_validation": 2, "n_test": 3, "properties": {"solvation": {"column": "expt"}}}
    return MoleculenetConfig(**{"file": "set.csv", "root": root, **settings, **changes})


def made(root, **changes):
    return prepare(config(root, **changes), cache=root / "cache")


def refusal(root, **changes):
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the text is what each test looks at)
        made(root, **changes)
    return str(refused.value)


def named(name):
    raw = read_yaml(REPOSITORY / "configs" / "data" / f"{name}.yaml")
    return load(MoleculenetConfig, raw, source=name)


# --------------------------------------------------------------------------------------------- the real files


@pytest.mark.long
@needs_files
def test_the_first_rows_of_freesolv_have_the_labels_and_atoms_that_stand_there(tmp_path):
    store = prepare(named("freesolv"), cache=tmp_path)
    # rows 1 and 2: CN(C)C(=O)c1ccc(cc1)OC is C10H13NO2 and -11.01, CS(=O)(=O)Cl is CH3SO2Cl and -4.87
    first, second = (store.frames(np.array([k])) for k in (0, 1))
    assert np.bincount(first.species)[[1, 6, 7, 8]].tolist() == [13, 10, 1, 2]
    assert np.bincount(second.species)[[1, 6, 8, 16, 17]].tolist() == [3, 1, 2, 1, 1]
    assert [f.label("hydration")[0] for f in (first, second)] == [-11.01, -4.87]
    # C10H13NO2: 10·12.011 + 13·1.008 + 14.007 + 2·15.999
    assert first.label("molecular_weight")[0] == pytest.approx(179.219, abs=2e-3)
    assert (first.label("heavy_atoms")[0], first.label("charge")[0]) == (13, 0)
    # 643 rows, of which the two of ethylene glycol diacetate are one molecule
    assert (store.n_frames, store.metadata["n_repeated_rows"], store.metadata["n_left_out"]) == (642, 1, 0)
    assert store.incomplete == ("energy", "forces")


@needs_files
def test_no_scaffold_of_esol_is_in_two_splits():
    found = moleculenet._read(named("esol"), Path(os.environ["SAPIS_DATA"]))
    splits = moleculenet._splits(named("esol"), found.molecules)
    # 1,128 rows; 11 molecules stand there twice, sorbitol with 0.06 and 1.09
    assert len(found.molecules) == 1117 and found.differences == {"log_solubility": pytest.approx(1.03)}
    assert found.molecules[0].labels == {"log_solubility": -0.77}, "amigdalin"
    of = {split: {scaffold(found.molecules[k].molecule) for k in ids} for split, ids in splits.items()}
    assert not of["train"] & of["test"] and not of["train"] & of["validation"]
    assert not of["validation"] & of["test"] and sum(map(len, splits.values())) == 1117


# ------------------------------------------------------------------------------------------------- conformers


def test_frames_are_the_molecules_with_hydrogens_and_the_same_every_time(tmp_path):
    root = write(tmp_path / "d", ALKANES)
    one = made(root)
    again = prepare(config(root), cache=tmp_path / "other")
    assert np.array_equal(one.positions, again.positions) and np.array_equal(one.species, again.species)
    for k, n in enumerate(range(1, 13)):
        frame = one.frames(np.array([k]))
        assert np.bincount(frame.species)[[1, 6]].tolist() == [2 * n + 2, n]
    methane = one.frames(np.array([0])).positions
    assert np.linalg.norm(methane[1:] - methane[0], axis=1) == pytest.approx(1.092, abs=0.005)
    other = prepare(config(root, conformer_seed=2), cache=tmp_path / "other")
    assert not np.allclose(one.positions, other.positions)


def test_a_plan_knows_the_molecules_without_making_them(tmp_path):
    root = write(tmp_path / "d", ALKANES)
    planned, store = config(root).info(cutoff=4.0), made(root)
    known = dataset_info(config(root), cutoff=4.0, cache=root / "cache")
    assert (planned.species, planned.n_train, planned.n_test) == (known.species, known.n_train, known.n_test)
    assert planned.mean_atoms == known.mean_atoms
    assert planned.labels is not None and set(planned.labels) == set(store.labels) - {"energy", "forces"}


def test_the_charge_of_an_ion_is_kept(tmp_path):
    root = write(tmp_path / "d", [("CC(=O)[O-]", 1.0), ("C[NH3+]", 2.0), ("CO", 3.0), ("CN", 4.0)] + ALKANES)
    assert made(root).label_column("charge")[:4].tolist() == [-1, 1, 0, 0]


@pytest.mark.parametrize(
    ("smiles", "why"),
    [
        ("C1#CC1", "ETKDG finds no conformer"),
        ("CB(C)C", "MMFF94 has no parameters for it"),
        ("C(C", "no SMILES that RDKit reads"),
    ],
)
def test_a_molecule_of_which_no_conformer_can_be_made_is_left_out_and_counted(tmp_path, smiles, why):
    root = write(tmp_path / "d", [ALKANES[0], (smiles, 7.0), *ALKANES[1:]])
    store = made(root)
    said = store.metadata
    assert store.n_frames == 12 and 7.0 not in store.label_column("solvation")
    assert said["n_left_out"] == 1 and why in next(iter(said["left_out_because"]))
    assert said["left_out"][0].startswith(f"{root / 'set.csv'}, row 2: ")


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path):
    root = write(tmp_path / "d", [("C1#CC1", 1.0)])
    root2 = write(tmp_path / "e", [("C(C", 1.0)])
    assert f"{root / 'set.csv'}: none of its 1 rows becomes a conformer; " in refusal(root)
    assert f"{root2 / 'set.csv'}: no row has a molecule; " in refusal(root2)


def test_rows_of_one_molecule_are_one_frame_with_their_mean(tmp_path):
    root = write(tmp_path / "d", [*ALKANES, ("OCC", 1.0), ("CCO", 2.0)])
    store = made(root)
    assert store.n_frames == 13 and store.label_column("solvation")[12] == 1.5
    assert store.metadata["n_repeated_rows"] == 1
    assert store.metadata["largest_difference_of_repeated"] == {"solvation": 1.0}


# ----------------------------------------------------------------------------------------------------- splits


def test_scaffolds_are_rings_with_linkers():
    toluene, biphenyl, alkane = (read_smiles(s) for s in ("Cc1ccccc1", "Cc1ccc(cc1)-c1ccccc1O", "CCCCN"))
    assert (scaffold(toluene), scaffold(alkane)) == ("c1ccccc1", "")
    assert scaffold(biphenyl) == canonical(read_smiles("c1ccccc1-c1ccccc1"))


def test_a_scaffold_lies_in_one_split_and_the_common_ones_in_training(tmp_path):
    rings = [(f"{'C' * n}c1ccccc1", 1.0 * n) for n in range(1, 6)]
    rare = [("C1CCCCC1C", 1.0), ("C1CCCC1C", 2.0), ("C1CCC1C", 3.0), ("c1ccc2ccccc2c1", 4.0), ("C1CC1C", 5.0)]
    root = write(tmp_path / "d", [*ALKANES, *rings, *rare])
    store = made(root, split_by="scaffold")
    names = np.array([scaffold(read_smiles(s)) for s, _ in [*ALKANES, *rings, *rare]])
    of = {split: set(names[ids]) for split, ids in store.splits.items()}
    assert (
        not of["train"] & of["validation"]
        and not of["train"] & of["test"]
        and not of["validation"] & of["test"]
    )
    assert {"", "c1ccccc1"} <= of["train"]
    assert [len(store.splits[s]) for s in ("validation", "test")] == [2, 3]


def test_what_is_held_out_has_no_element_that_training_lacks(tmp_path):
    for seed in range(6):
        root = write(tmp_path / f"d{seed}", [*ALKANES, ("CF", 1.0), ("CBr", 2.0), ("CCBr", 3.0)])
        store = made(root, seed=seed)
        train = set(store.frames(store.splits["train"]).species.tolist())
        assert {9, 35} <= train


# --------------------------------------------------------------------------------------------------- refusals


def test_a_label_that_is_no_number_or_missing_is_refused_by_file_and_row(tmp_path):
    root = write(tmp_path / "d", [*ALKANES, ("CO", "strong")])
    assert f"{root / 'set.csv'}, row 13: expt is 'strong', wanted a finite number" in refusal(root)
    root = write(tmp_path / "e", [*ALKANES, ("CO", "inf")])
    assert "row 13: expt is 'inf'" in refusal(root)
    root = write(tmp_path / "f", [*ALKANES, ("CO", "")])
    assert f"{root / 'set.csv'}, row 13: no expt; leave the row out, or set missing: mask" in refusal(root)


def test_missing_labels_are_masked_where_the_settings_say_so(tmp_path):
    root = write(tmp_path / "d", [*ALKANES, ("CO", "")])
    store = made(root, missing="mask")
    assert np.isnan(store.label_column("solvation")).sum() == 1 and "solvation" in store.incomplete


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    root = write(tmp_path / "d", ALKANES, head="name,SMILES,expt")
    assert f"{root / 'set.csv'}: no column 'smiles'; it has name, SMILES, expt" in refusal(root)
    root = write(tmp_path / "e", ALKANES, head="expt,smiles,expt")
    assert "several columns 'expt'" in refusal(root)


def test_a_row_with_too_few_cells_is_refused(tmp_path):
    root = write(tmp_path / "d", ALKANES)
    with (root / "set.csv").open("a") as file:
        file.write("m99,CO\n")
    assert f"{root / 'set.csv'}, row 13: 2 cells, wanted 3, one a column" in refusal(root)


def test_a_label_with_the_name_of_a_descriptor_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'charge' is a label of its own"):
        config(tmp_path, properties={"charge": {}})


def test_held_out_of_too_few_molecules_is_refused(tmp_path):
    root = write(tmp_path / "d", ALKANES)
    assert "lower n_test" in refusal(root, n_test=12)


def test_without_rdkit_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    root = write(tmp_path / "d", ALKANES)
    assert refusal(root) == (
        "molecules are made by RDKit, which is not installed; pip install 'sapis_lab[chem]'"
    )

"""Ligands and pockets: affinities from units, elements of PDB files, splits by target, refusals."""

import os
from pathlib import Path

import numpy as np
import pytest

from sapis_lab.config import load, read_yaml
from sapis_lab.data import prepare
from sapis_lab.data._complexes import Protein, around, minus_log10, read_protein
from sapis_lab.data.pdbbind import PdbbindConfig
from sapis_lab.data.protein_ligand_benchmark import ProteinLigandBenchmarkConfig

Chem = pytest.importorskip("rdkit.Chem")
from rdkit.Chem import rdDistGeom  # noqa: E402

needs_files = pytest.mark.skipif(
    "SAPIS_DATA" not in os.environ, reason="SAPIS_DATA is not set: no complexes to read"
)
REPOSITORY = Path(__file__).resolve().parents[2]
SMILES = ["CCO", "CCN", "CC(=O)O", "c1ccccc1O", "CCCN", "CC(C)O"]


def sdf(path, smiles=SMILES, *, names=None):
    """Poses by name lig_0, lig_1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Chem.SDWriter(str(path))
    for k, text in enumerate(smiles):
        molecule = Chem.AddHs(Chem.MolFromSmiles(text))
        rdDistGeom.EmbedMolecule(molecule, randomSeed=k + 1)
        molecule.SetProp("_Name", names[k] if names else f"lig_{k}")
        writer.write(molecule)
    writer.close()


def atom(name, residue, x, element="  ", *, record="ATOM", place=" "):
    """One line of a PDB file."""
    return (
        f"{record:<6}{1:>5} {name:<4}{place}{residue:>3} A{1:>4}    "
        f"{x[0]:8.3f}{x[1]:8.3f}{x[2]:8.3f}{1:6.2f}{0:6.2f}          {element:>2}"
    )


def measurement(value, unit="nM", kind="ic50"):
    return f"  measurement: {{type: {kind}, unit: '{unit}', value: {value}}}\n"


def benchmark(root, *, lines=None, targets=("one", "two", "three")):
    """Three targets of six ligands each, with a protein of one oxygen 5 Å away."""
    for t, target in enumerate(targets):
        folder = root / "protein_ligand_benchmark" / target
        moved = [s + "C" * t for s in SMILES]  # other molecules than those of the other targets
        sdf(folder / "ligands.sdf", [m if m[-1] == "C" or not t else m for m in moved])
        text = "".join(f"lig_{k}:\n" + measurement(10.0 ** (k + t)) for k in range(len(SMILES)))
        (folder / "ligands.yml").write_text(lines or text)
        (folder / "protein.pdb").write_text(
            "\n".join([atom(" O", "SER", (0, 0, 5), "O"), atom(" CB", "SER", (0, 0, 6.4))])
        )
    return root


def config(root, **changes):
    settings = {"targets": ("one", "two", "three"), "held_out": ("two",), "n_validation": 2, "root": root}
    return ProteinLigandBenchmarkConfig(**{**settings, **changes})


def refusal(settings, cache):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        prepare(settings, cache=cache)
    return str(refused.value)


# --------------------------------------------------------------------------------------------- the real files


@needs_files
def test_affinities_of_the_benchmark_are_those_of_its_files(tmp_path):
    raw = read_yaml(REPOSITORY / "configs" / "data" / "affinity.yaml")
    settings = load(ProteinLigandBenchmarkConfig, raw, source="affinity")
    store = prepare(settings, cache=tmp_path)
    # cdk2: the first pose is lig_20, whose first atom is H at 4.4517 38.4986 46.2155; its 49 atoms are first
    assert store.n_frames == 260 and [len(store.splits[s]) for s in ("train", "test")] == [220, 10]
    first = store.frames(np.array([0]))
    assert (first.species[0], first.positions[0].tolist()) == (1, [4.4517, 38.4986, 46.2155])
    assert first.label("of_ligand").sum() == 49 and not first.label("of_ligand")[49:].any()
    affinity = store.label_column("affinity")
    # 6.8 uM, lig_17, is the weakest of cdk2; 0.064 uM, lig_1oiy, its best; pde2 has 8.57 as it is
    assert (affinity[:10].min(), affinity[:10].max()) == pytest.approx((5.16749, 7.19382), abs=1e-5)
    assert 8.57 in affinity.tolist()
    distances = np.linalg.norm(first.positions[49:, None] - first.positions[None, :49], axis=2).min(1)
    assert len(distances) and distances.max() < 3.5


@needs_files
def test_proteins_in_the_form_of_pdbbind_are_read_with_and_without_elements():
    root = Path(os.environ["SAPIS_DATA"]) / "pdbbind"
    # counted in the files: grep -cE "^(ATOM|HETATM)", and the carbons of the second by columns 77 and 78
    assert len(read_protein(root / "1jld_protein.pdb").species) == 3080
    assert len(read_protein(root / "3ws9_protein_fixer_rdkit.pdb").species) == 2630
    assert np.bincount(read_protein(root / "3ws9_protein_fixer_rdkit.pdb").species)[6] == 1678


# ---------------------------------------------------------------------------------------------------- the way


def test_affinities_are_minus_the_logarithm_of_moles_per_litre():
    assert minus_log10(6.8, "uM", "x") == pytest.approx(5.1674911)
    assert minus_log10(500, "nM", "x") == pytest.approx(6.30103)
    assert minus_log10(2, "pM", "x") == pytest.approx(11.69897)
    for value, unit in ((0, "nM"), (-1, "nM"), (float("nan"), "nM"), (1, "kcal/mol")):
        with pytest.raises(ValueError, match="wanted (a positive concentration|one of M, mM, uM)"):
            minus_log10(value, unit, "x")


def test_the_pocket_is_the_atoms_within_the_distance():
    protein = Protein(np.array([8, 7, 6]), np.array([[0, 0, 2.9], [0, 3.1, 0], [9, 9, 9.0]]))
    ligand = np.array([[0, 0, 0], [0, 0.2, 0]])
    assert around(protein, ligand, within=3.0).species.tolist() == [8, 7]
    assert around(protein, ligand, within=2.5).species.tolist() == []


def test_an_element_that_a_pdb_file_does_not_say_is_that_of_the_name_in_an_amino_acid(tmp_path):
    path = tmp_path / "p.pdb"
    lines = [
        atom(" CA", "ALA", (0, 0, 0)),
        atom("1HB", "ALA", (1, 0, 0)),
        atom("CA  ", " CA", (3, 0, 0), "CA", record="HETATM"),
        atom(" N", "ALA", (4, 0, 0), place="B"),
        "ENDMDL",
        atom(" O", "ALA", (5, 0, 0)),
    ]
    path.write_text("\n".join(lines))
    assert read_protein(path).species.tolist() == [6, 1, 20]
    path.write_text("\n".join([*lines[:2], atom(" CA", "LIG", (3, 0, 0), record="HETATM")]))
    with pytest.raises(ValueError, match=r"p.pdb, line 3: no element in columns 77 and 78"):
        read_protein(path)
    path.write_text(lines[0].replace("   0.000", "   x.000", 1))
    with pytest.raises(ValueError, match="line 1: coordinates .* wanted three numbers of eight columns"):
        read_protein(path)
    path.write_text("HEADER\n")
    with pytest.raises(ValueError, match="no ATOM or HETATM"):
        read_protein(path)


def test_a_target_that_is_held_out_is_the_test_and_in_no_other_split(tmp_path):
    store = prepare(config(benchmark(tmp_path)), cache=tmp_path / "cache")
    assert store.splits["test"].tolist() == list(range(6, 12))
    assert sorted(np.concatenate([store.splits[s] for s in ("train", "validation")]).tolist()) == [
        *range(6),
        *range(12, 18),
    ]
    # 10^(k + t) nM
    assert store.label_column("affinity")[6:12] == pytest.approx([8, 7, 6, 5, 4, 3])
    several = prepare(config(tmp_path, held_out=("two", "three")), cache=tmp_path / "cache")
    assert several.splits["test_three"].tolist() == list(range(12, 18)) and "test" not in several.splits


def test_atoms_of_the_pocket_join_the_ligand(tmp_path):
    root = benchmark(tmp_path)
    alone = prepare(config(root), cache=tmp_path / "cache")
    together = prepare(config(root, pocket=7.0), cache=tmp_path / "cache")
    n = np.diff(together.offsets) - np.diff(alone.offsets)
    assert n.min() >= 1 and n.max() == 2
    assert "no atom of the protein is within 0.5 Å" in refusal(config(root, pocket=0.5), tmp_path / "cache")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (measurement(5, kind="activity"), "a measurement of type 'activity', value 5.0; wanted ic50, ki, kd"),
        (measurement(5, unit="mg"), "unit 'mg', wanted one of M, mM, uM"),
        (measurement("strong"), "no measurement with type, value and unit"),
        ("  smiles: CCO\n", "no measurement with type, value and unit"),
    ],
)
def test_a_measurement_that_is_not_read_is_refused_by_file_and_ligand(tmp_path, line, message):
    root = benchmark(tmp_path)
    path = root / "protein_ligand_benchmark" / "two" / "ligands.yml"
    path.write_text(path.read_text().replace(measurement(1000.0), line))
    said = refusal(config(root), tmp_path / "cache")
    assert said.startswith(f"{path}, lig_2: ") and message in said


def test_poses_and_measurements_that_do_not_belong_together_are_refused(tmp_path):
    root = benchmark(tmp_path)
    folder = root / "protein_ligand_benchmark" / "one"
    text = (folder / "ligands.yml").read_text()
    (folder / "ligands.yml").write_text(text + "lig_9:\n" + measurement(1))
    assert f"{folder / 'ligands.sdf'}: no pose of 'lig_9'" in refusal(config(root), tmp_path / "cache")
    (folder / "ligands.yml").write_text(text.replace("lig_3", "lig_x"))
    assert "no pose of 'lig_x'" in refusal(config(root), tmp_path / "cache")
    (folder / "ligands.yml").write_text(text)
    sdf(folder / "ligands.sdf", names=["lig_0", "lig_0", *(f"lig_{k}" for k in range(2, 6))])
    assert "'lig_0' stands there more than once" in refusal(config(root), tmp_path / "cache")
    (folder / "ligands.sdf").write_text("nothing\n")
    assert "ligands.sdf" in refusal(config(root), tmp_path / "cache")


def test_a_flat_molecule_is_no_pose(tmp_path):
    root = benchmark(tmp_path)
    folder = root / "protein_ligand_benchmark" / "one"
    writer = Chem.SDWriter(str(folder / "ligands.sdf"))
    for k, smiles in enumerate(SMILES):
        molecule = Chem.MolFromSmiles(smiles)
        molecule.SetProp("_Name", f"lig_{k}")
        writer.write(molecule)
    writer.close()
    assert "lig_0: the molecule has no coordinates in space" in refusal(config(root), tmp_path / "cache")


@pytest.mark.parametrize("held_out", [("four",), ("one", "two", "three")])
def test_held_out_targets_are_some_of_the_targets(tmp_path, held_out):
    said = refusal(config(benchmark(tmp_path), held_out=held_out), tmp_path / "cache")
    assert "wanted some of the targets and not all: one, two, three" in said


# ---------------------------------------------------------------------------------------------------- PDBbind


def pdbbind(root, *lines):
    """Six complexes, three of them in a folder of their own."""
    codes = [f"1ab{k}" for k in range(6)]
    for k, code in enumerate(codes):
        place = root / "mine" / code if k % 2 else root / "mine"
        sdf(place / f"{code}_ligand.sdf", [SMILES[k]])
        (place / f"{code}_protein.pdb").write_text(atom(" O", "SER", (0, 0, 5), "O") + "\n")
    index = [f"{c}  2.00  2001  {9 - k:.2f}  Ki={10**k}nM // x.pdf (LIG)" for k, c in enumerate(codes)]
    (root / "mine" / "INDEX").write_text("\n".join(["# a comment", *index, *lines]) + "\n")
    return PdbbindConfig(folder="mine", index="INDEX", n_validation=1, n_test=1, pocket=9.0, root=root)


def test_complexes_are_read_by_their_index(tmp_path):
    settings = pdbbind(tmp_path, "2abc  1.50  2002  4.00  Kd>100uM // y.pdf (LIG)")
    store = prepare(settings, cache=tmp_path / "cache")
    assert store.label_column("affinity").tolist() == [9, 8, 7, 6, 5, 4]
    assert store.metadata["left_out_because"] == {"the value is a bound or a guess": 1}
    assert store.label_column("of_ligand")[store.offsets[1:] - 1].tolist() == [0] * 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2abc 1.50 2002 4.00", "wanted code, resolution, year, -log10(K) and K"),
        ("2abc 1.50 2002 4.00 Ki=10xM", "unit 'xM', wanted one of M, mM"),
        ("2abc 1.50 2002 4.00 Ki=10uM", "the affinity 4.0 does not follow from Ki=10uM, which gives 5.00"),
        ("../a 1.50 2002 5.00 Ki=10uM", "wanted code, resolution"),
    ],
)
def test_a_line_of_the_index_that_is_not_read_is_refused(tmp_path, line, message):
    said = refusal(pdbbind(tmp_path, line), tmp_path / "cache")
    assert said.startswith(f"{tmp_path / 'mine' / 'INDEX'}, line 8: ") and message in said


def test_a_complex_without_its_files_is_refused_with_both_places(tmp_path):
    said = refusal(pdbbind(tmp_path, "2abc 1.50 2002 5.00 Ki=10uM"), tmp_path / "cache")
    assert "missing file: wanted" in said and "2abc/2abc_ligand.sdf or" in said

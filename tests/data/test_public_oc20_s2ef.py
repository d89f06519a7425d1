"""OC20: chunks with their texts, adsorption energies, official sets, and what is refused of them."""

import lzma

import numpy as np
import pytest
from public_cases import made, sizes, springs

from sapis_lab.data.oc20_s2ef import Oc20S2efConfig


def write_chunk(folder, number, n, *, seed, lines=None, text=".txt.xz"):
    """n waters in a cell of 12 Å; the energies of the file are 100 eV below, and so are the references."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, told = [], []
    for k, (x, e, f) in enumerate(zip(*springs(n, seed=seed), strict=True)):
        rows += [
            "3",
            'Lattice="12 0 0 0 12 0 0 0 12" Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3 '
            f'energy={e - 100:.10f} free_energy={e - 100:.10f} pbc="T T T"',
        ]
        for a, symbol in enumerate("OHH"):
            numbers = " ".join(f"{v:.10f}" for v in (*x[a], *f[a]))
            first, last = numbers.split()[:3], numbers.split()[3:]
            rows.append(" ".join([symbol, *first, "T", str(a), *last]))
        told.append(f"random{seed}{k},frame{k},{-2100.0 - 0.001 * k:.6f}")
    with lzma.open(folder / f"{number}.extxyz.xz", "wt") as file:
        file.write("\n".join(rows) + "\n")
    with (
        lzma.open(folder / f"{number}{text}", "wt")
        if text.endswith("xz")
        else (folder / f"{number}{text}").open("w") as file
    ):
        file.write("\n".join(told[:lines]) + "\n")


def official(root):
    train = root / "oc20/s2ef_train_200K/s2ef_train_200K"
    write_chunk(train, 2, 30, seed=0)
    write_chunk(train, 10, 30, seed=1, text=".txt")
    write_chunk(root / "oc20/s2ef_val_id", 0, 20, seed=2)
    return root


def test_adsorption_energies_are_totals_less_references(tmp_path):
    official(tmp_path)
    config = Oc20S2efConfig(tests=("id",), test_frames=12, n_validation=5, root=tmp_path)
    store = made(config, tmp_path / "cache")
    assert sizes(store) == {"train": 55, "validation": 5, "test_id": 12}
    # the chunk 2 comes before the chunk 10, and the reference of frame k is -2100 - 0.001 k
    _, e, f = springs(30)
    assert np.allclose(store.energy[:30], e - 100 + 2100 + 0.001 * np.arange(30), atol=1e-6)
    assert np.allclose(store.energy[30:60], springs(30, seed=1)[1] + 2000 + 0.001 * np.arange(30), atol=1e-6)
    assert np.allclose(store.forces[:90], f.reshape(-1, 3), atol=1e-5)
    assert store.pbc.all() and np.allclose(store.cell[0], 12 * np.eye(3))
    assert config.info(cutoff=5.0).n_test == {"test_id": 12}
    total = made(config.model_copy(update={"energy": "total"}), tmp_path / "cache")
    assert np.allclose(total.energy[:30], e - 100, atol=1e-6)


def test_frames_may_be_held_out_where_official_tests_are_not_at_hand(tmp_path):
    official(tmp_path)
    config = Oc20S2efConfig(tests=(), n_test=10, n_validation=5, root=tmp_path)
    assert sizes(made(config, tmp_path / "cache")) == {"train": 45, "validation": 5, "test": 10}
    with pytest.raises(ValueError, match="exactly one of them"):
        Oc20S2efConfig(tests=())
    with pytest.raises(ValueError, match=r"s2ef_val_ood_ads: wanted a folder"):
        Oc20S2efConfig(tests=("ood_ads",), root=tmp_path).info(cutoff=5.0)


@pytest.mark.parametrize(
    ("lines", "said"), [(29, "29 lines, wanted one for each frame"), (0, "1 lines, wanted")]
)
def test_a_text_that_does_not_fit_its_frames_is_refused(tmp_path, lines, said):
    official(tmp_path)
    write_chunk(tmp_path / "oc20/s2ef_train_200K/s2ef_train_200K", 2, 30, seed=0, lines=lines)
    with pytest.raises(ValueError, match=said if lines else "wanted `system,frame,reference energy`"):
        made(Oc20S2efConfig(tests=("id",), n_validation=5, root=tmp_path), tmp_path / "cache")


def test_a_chunk_without_its_text_is_refused(tmp_path):
    official(tmp_path)
    (tmp_path / "oc20/s2ef_train_200K/s2ef_train_200K/10.txt").unlink()
    with pytest.raises(ValueError, match=r"10\.extxyz\.xz: no 10\.txt beside it"):
        made(Oc20S2efConfig(tests=("id",), n_validation=5, root=tmp_path), tmp_path / "cache")
    (tmp_path / "oc20/s2ef_train_200K/s2ef_train_200K/2.txt.xz").unlink()
    with pytest.raises(ValueError, match="no chunks such as"):
        Oc20S2efConfig(tests=("id",), n_validation=5, root=tmp_path).info(cutoff=5.0)

"""The Allegro-like model is strictly local, and its fast tensor product is the one of the definition."""

from __future__ import annotations

import numpy as np
import torch

from sapis_lab.geometry.harmonics import spherical_harmonics
from sapis_lab.models import Model
from sapis_lab.models._layers import block, coupling, paths
from sapis_lab.models.allegro import AllegroConfig, Product
from sapis_lab.models.nequip import NequipConfig
from sapis_lab.selftest import Frame, batch_of, build


def energies(model: Model, positions: list[list[float]]) -> torch.Tensor:
    frame = Frame(np.array(positions), np.array([6, 8, 1, 6])[: len(positions)])
    batch = batch_of([frame], layout=model.layout, cutoff=model.cutoff, dtype=torch.float64)
    with torch.no_grad():
        features = model.features(batch.graph.vectors(batch.positions, batch.cell), batch)
        return model.atomic_energy(features, batch)[0]


def test_an_atom_does_not_feel_the_neighbour_of_its_neighbour() -> None:
    # the third is beyond the cutoff of the first
    near, moved = ([[0, 0, 0], [2.4, 0, 0], [4.6, y, 0.3]] for y in (0.0, 0.7))
    allegro = build(AllegroConfig(cutoff=3.5, layers=3), dtype=torch.float64, seed=0)
    difference = energies(allegro, near) - energies(allegro, moved)
    assert abs(difference[0]) < 1e-14
    assert abs(difference[1]) > 1e-6 and abs(difference[2]) > 1e-6
    nequip = build(NequipConfig(cutoff=3.5), dtype=torch.float64, seed=0)
    assert abs((energies(nequip, near) - energies(nequip, moved))[0]) > 1e-6, (
        "message passing reaches further"
    )


def test_tensor_products_equal_the_sum_over_paths_at_every_pair() -> None:
    config, n, k, mean_neighbors = AllegroConfig(lmax=2, channels=8, tensor_channels=3), 4, 5, 6.0
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    product = Product(config, last=False, mean_neighbors=mean_neighbors).double()
    x, tensors, envelope = random(8, n * k), random(3, n, 9, k), random(n * k).abs()
    v = random(3, n * k)
    harmonics = spherical_harmonics(v / v.norm(dim=0), 2).view(9, n, k)
    _, found = product(
        x, tensors.view(3 * n, 9, k), harmonics_nKM=harmonics.permute(1, 2, 0), envelope=envelope
    )

    weight = (product.environment @ x / 8**0.5).view(3, 3, n, k)  # channel, degree
    gamma = (
        torch.cat([torch.einsum("cnk,mnk->cnm", weight[:, l], harmonics[block(l)]) for l in range(3)], 2)
        / mean_neighbors**0.5
    )
    members = paths(range(3), range(3), range(3))
    wanted = torch.zeros(3, n, 9, k, dtype=torch.float64)
    for p, path in enumerate(members):
        count = sum(other.l3 == path.l3 for other in members)
        term = torch.einsum(
            "abo,cnak,cnb->cnok", coupling(path), tensors[:, :, block(path.l1)], gamma[:, :, block(path.l2)]
        )
        wanted[:, :, block(path.l3)] += product.path_weight[:, p].view(3, 1, 1, 1) * term / count**0.5
    assert (found.view(3, n, 9, k) - wanted).abs().max() < 1e-12

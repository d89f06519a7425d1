"""The module that metatomic wants, in the part of Python that TorchScript knows; importing needs metatomic.

Not with postponed annotations: TorchScript reads them.
"""

from typing import Dict, List, Optional, Tuple  # noqa: UP035

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System


class SapisModule(torch.nn.Module):
    """Energies of systems, or of their atoms, differentiable in positions and cells.

    Args:
        energies: TorchScript, atomic energies (A,) float64 of the inputs of `sapis_lab.exports._traced`.
        cutoff: Å.   edges: whether these inputs are edges, and not tables of neighbours.
    """

    def __init__(self, energies: torch.nn.Module, cutoff: float, edges: bool) -> None:
        super().__init__()
        self.energies = energies
        self.edges = edges
        self.options = NeighborListOptions(cutoff=cutoff, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        return [self.options]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        found: Dict[str, TensorMap] = {}  # noqa: UP006
        if "energy" not in outputs or len(systems) == 0:
            return found
        device = systems[0].positions.device
        position: List[torch.Tensor] = []  # noqa: UP006
        cell: List[torch.Tensor] = []  # noqa: UP006
        species: List[torch.Tensor] = []  # noqa: UP006
        frame: List[torch.Tensor] = []  # noqa: UP006
        number: List[torch.Tensor] = []  # noqa: UP006
        pairs: List[torch.Tensor] = []  # noqa: UP006
        shifts: List[torch.Tensor] = []  # noqa: UP006
        first = 0
        for k, system in enumerate(systems):
            n = len(system)
            position.append(system.positions)
            cell.append(system.cell)
            species.append(system.types.to(torch.int64))
            frame.append(torch.full((n,), k, dtype=torch.int64, device=device))
            number.append(torch.arange(n, dtype=torch.int64, device=device))
            samples = system.get_neighbor_list(self.options).samples.values.to(torch.int64)
            pairs.append(samples[:, :2] + first)
            shifts.append(samples[:, 2:])
            first += n
        x, of = torch.cat(position), torch.cat(frame)
        tail = self._neighbors(torch.cat(pairs), torch.cat(shifts), len(x))
        atomic = self.energies(
            x.to(torch.float64), torch.stack(cell).to(torch.float64), torch.cat(species), of, *tail
        )
        atomic = atomic.to(x.dtype)
        samples = torch.stack([of, torch.cat(number)], 1).to(torch.int32)
        if selected_atoms is not None:
            chosen = torch.zeros(len(x), dtype=torch.bool, device=device)
            wanted = selected_atoms.values.to(device)
            for k in range(len(wanted)):
                chosen |= (samples == wanted[k]).all(1)
            atomic = torch.where(chosen, atomic, torch.zeros_like(atomic))
            samples = samples[chosen]
            per_atom = atomic[chosen]
        else:
            per_atom = atomic
        if outputs["energy"].sample_kind == "atom":
            block_values, names = per_atom, ["system", "atom"]
        else:
            block_values = torch.zeros(len(systems), dtype=x.dtype, device=device).index_add(0, of, atomic)
            samples = torch.arange(len(systems), dtype=torch.int32, device=device).unsqueeze(1)
            names = ["system"]
        block = TensorBlock(
            values=block_values.unsqueeze(1),
            samples=Labels(names, samples),
            components=torch.jit.annotate(List[Labels], []),  # noqa: UP006
            properties=Labels(["energy"], torch.zeros(1, 1, dtype=torch.int32, device=device)),
        )
        keys = Labels(["_"], torch.zeros(1, 1, dtype=torch.int32, device=device))
        found["energy"] = TensorMap(keys, [block])
        return found

    def _neighbors(
        self, pairs: torch.Tensor, shifts: torch.Tensor, n: int
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # noqa: UP006
        """The last three inputs, of pairs (E, 2) counted over all systems and shifts (E, 3)."""
        order = torch.argsort(pairs[:, 0], stable=True)
        i, j, s = pairs[order, 0], pairs[order, 1], shifts[order].to(torch.float32)
        if self.edges:
            return i, j, s
        count = torch.bincount(i, minlength=n)
        width = 2
        if len(i) > 0:
            width = max(2, 1 + int(count.max()))
        column = 1 + torch.arange(len(i), device=i.device) - (torch.cumsum(count, 0) - count)[i]
        table = torch.arange(n, device=i.device).unsqueeze(1).repeat(1, width)
        mask = torch.zeros(n, width, dtype=torch.bool, device=i.device)
        shift = torch.zeros(n, width, 3, dtype=torch.float32, device=i.device)
        table[i, column] = j
        mask[i, column] = True
        shift[i, column] = s
        return table, mask, shift

"""Frames generated on the spot: Langevin dynamics of one molecule on an xTB surface, labelled by the same
method.

Training, validation and test frames come from separate trajectories, each equilibrated from its own random
momenta, so no test frame is a neighbour in time of a training frame. The training order is stratified over
the training trajectories. With tblite one force of ethanol takes 1.1 ms, so 600 frames, 100 fs apart, are
made in 40 to 50 s on two free cores.

Ethanol at 500 K samples what it should: NVE at 1 fs keeps the total energy to 1.7 meV; the configurational
temperature ⟨|F|²⟩ / k⟨∇²U⟩ (Rugh, Phys. Rev. Lett. 78, 772, 1997) of the 600 default frames at 1 fs is 518 ±
10 K, the kinetic one 495 K; std(E) of the training frames, 0.140 eV, is the sqrt(21/2) kT of 21 harmonic
vibrations. The RMS force is 1.01 eV/Å per component.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from sapis_lab.data._trajectories import Structure, TrajectoryDataConfig, g2_molecule, trajectory_tasks
from sapis_lab.oracles import OracleConfig
from sapis_lab.oracles.xtb import Method, XtbConfig
from sapis_lab.samplers import SamplerConfig
from sapis_lab.samplers.langevin import LangevinConfig

__all__ = ["XtbDataConfig", "trajectory_tasks"]


class XtbDataConfig(TrajectoryDataConfig):
    """Langevin dynamics of one molecule with GFN-xTB: the kind `dynamics` with its plainest settings in one
    place."""

    version: ClassVar[int] = 1
    kind: Literal["xtb"] = "xtb"
    molecule: str = "CH3CH2OH"
    """Name of a molecule in `ase.build.molecule` (the G2 set); the default is ethanol."""
    method: Method = "GFN2-xTB"
    """The surface that is sampled and that labels the frames."""
    temperature: float = Field(default=500.0, ge=1, le=5000)
    """K."""
    timestep: float = Field(default=1.0, ge=0.01, le=2.0)
    """fs."""
    friction: float = Field(default=0.01, ge=1e-6, le=10)
    """Langevin friction, 1/fs: 0.01 lets momenta forget within 100 fs."""

    def structure(self) -> Structure:
        return g2_molecule(self.molecule)

    def surface(self) -> OracleConfig:
        return XtbConfig(method=self.method)

    def dynamics(self) -> SamplerConfig:
        return LangevinConfig(temperature=self.temperature, timestep=self.timestep, friction=self.friction)

    def origin(self) -> str:
        return f"Langevin dynamics (BAOAB) of {self.molecule} at {self.temperature:g} K, generated"

    def more_metadata(self) -> dict[str, Any]:
        return {"temperature_kelvin": self.temperature}

"""What every form of an exported potential is: settings that write its files."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from sapis_lab.config import ConfigError, KindConfig

if TYPE_CHECKING:
    from sapis_lab.potential import Potential


class Export(KindConfig):
    """Settings of a form of a potential for another program; subclasses are the kinds. The first line of
    their docstring stands in the model card."""

    @abstractmethod
    def check(self, potential: Potential) -> None:
        """ConfigError where this potential cannot take this form; the message says why and what can be done.
        It is called before anything is written."""

    @abstractmethod
    def write(self, potential: Potential, folder: Path) -> list[Path]:
        """Write the files of this form into `folder`, which is there and empty, by `sapis_lab.files` alone;
        the paths of all of them.

        `README.md` and `card.yaml` are written beside them (`sapis_lab.exports.export`).
        """


def want_energies(potential: Potential, form: str) -> None:
    """ConfigError where the potential learnt properties alone and has no forces to give to a program."""
    if not potential.model.gives_energy:
        raise ConfigError(
            f"--to {form}: the potential learnt {', '.join(potential.heads)} and no energies, wanted one "
            "with energies and forces; export a point of another study"
        )

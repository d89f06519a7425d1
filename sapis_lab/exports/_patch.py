"""Corrections of a trained potential without training: reference energies, and what its card says.

The weights stay, byte for byte. A reference energy e' in the place of e moves the energy of a structure with
n such atoms by n (e' - e), and neither forces nor stress. Each change is noted in the potential
(`origin.patches`) with what stood there before, and so stands in every card that is made from it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sapis_lab.config import Config, ConfigError
from sapis_lab.elements import ATOMIC_NUMBER, SYMBOLS
from sapis_lab.potential import Potential


class Patch(Config):
    """What is changed; what is not named stays."""

    reference_energies: dict[str, float] = {}
    """New reference energies of elements, eV, by symbol."""
    licence: str | None = None
    """Licence of the data, and so of what may be done with the potential."""
    level_of_theory: str | None = None
    """Of the labels."""
    citation: tuple[str, ...] = ()
    """BibTeX entries of the data."""
    notes: str | None = None
    """Anything else that its users must know."""

    @property
    def about(self) -> dict[str, Any]:
        """What it says for the card."""
        given = {name: getattr(self, name) for name in ("licence", "level_of_theory", "notes")}
        given["citation"] = list(self.citation) or None
        return {name: value for name, value in given.items() if value is not None}


def patched(potential: Potential, patch: Patch) -> Potential:
    """`potential` with the changes of `patch`, of the same weights.

    Raises:
        ConfigError: nothing is changed, an element is not known, or an energy is no finite number.
    """
    references, changes = dict(potential.references), []
    for symbol, energy in patch.reference_energies.items():
        z = ATOMIC_NUMBER.get(symbol)
        if z not in references:
            raise ConfigError(
                f"reference_energies.{symbol}: wanted one of the elements of the potential, "
                f"{', '.join(SYMBOLS[z] for z in potential.model.species)}"
            )
        assert z is not None
        if not abs(energy) < 1e9:
            raise ConfigError(f"reference_energies.{symbol}: wanted an energy in eV, got {energy}")
        changes.append(f"reference energy of {symbol}: {references[z]!r} eV became {energy!r} eV")
        references[z] = energy
    before = dict(potential.origin.get("about", {}))
    for name, value in patch.about.items():
        changes.append(f"{name}: {before.get(name, 'as of the data')!r} became {value!r}")
    if not changes:
        raise ConfigError(
            "nothing is changed; wanted KEY=VALUE, as in reference_energies.H=-13.6 or licence='CC BY 4.0'"
        )
    date = datetime.now(UTC).date().isoformat()
    origin = {
        **potential.origin,
        "patches": [*potential.origin.get("patches", ()), *({"date": date, "what": c} for c in changes)],
    }
    if before | patch.about:
        origin["about"] = before | patch.about
    return replace(potential, references=references, origin=origin)

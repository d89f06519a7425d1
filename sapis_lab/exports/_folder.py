"""The folder of an exported potential, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sapis_lab.config import ConfigError, yaml_text
from sapis_lab.errors import disk_error
from sapis_lab.exports._base import Export
from sapis_lab.exports._card import SETTINGS as POINT_SETTINGS
from sapis_lab.exports._card import card_text
from sapis_lab.files import new_folder, read_bytes, write_bytes, write_text
from sapis_lab.potential import WEIGHTS, Potential, save_potential
from sapis_lab.records import RECORD
from sapis_lab.uncertainty import FILE as UNCERTAINTY
from sapis_lab.uncertainty import LastLayer

README, CARD = "README.md", "card.yaml"


def export(
    potential: Potential,
    form: Export,
    folder: Path,
    *,
    card: dict[str, Any],
    uncertainty: LastLayer | None = None,
) -> list[Path]:
    """Write `potential` in `form`, with its model card, as the new folder `folder`; the files in it.

    Args:
        card: as `card_of` gives it.   uncertainty: of the potential, which goes with its weights where the
            form has them as we write them.

    Raises:
        ConfigError: the potential cannot take that form, or there is something in the place of the folder; in
            both cases nothing was written.
        DiskError: the disk is full or not writable; nothing is left of the folder.
    """
    form.check(potential)
    with _new(folder) as temporary:
        written = form.write(potential, temporary)
        if uncertainty is not None and temporary / WEIGHTS in written:
            written = [*written, uncertainty.save(temporary)]
        names = sorted(str(path.relative_to(temporary)) for path in written)
        card = {**card, "files": names}
        write_text(temporary / CARD, yaml_text(card))
        write_text(temporary / README, card_text(card))
    return [folder / name for name in (README, CARD, *names)]


def write_potential(
    potential: Potential, folder: Path, *, like: Path, uncertainty: LastLayer | None = None
) -> None:
    """Write `potential` as the new folder `folder`, as a point holds it; errors as `export`.

    Args:
        like: the folder that it comes from, whose settings and record, which the card is made of, are copied,
            and whose uncertainty is where none is given: the weights are the same.
    """
    if uncertainty is None and (like / UNCERTAINTY).is_file():
        uncertainty = LastLayer.load(like, potential)
    with _new(folder) as temporary:
        save_potential(temporary, potential)
        if uncertainty is not None:
            uncertainty.save(temporary)
        for name in (POINT_SETTINGS, RECORD):
            if (like / name).is_file():
                write_bytes(temporary / name, read_bytes(like / name))


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when all is in it."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"{folder}: there is something of that name; name another folder, or remove that one"
        )
    try:
        with new_folder(folder) as temporary:
            yield temporary
    except OSError as error:
        raise disk_error(error, about=folder) or error from None

"""The folder of an exported potential, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sapis_lab.config import ConfigError, yaml_text
from sapis_lab.errors import disk_error
from sapis_lab.exports._base import Export
from sapis_lab.exports._card import card_text
from sapis_lab.files import new_folder, write_text
from sapis_lab.potential import Potential

README, CARD = "README.md", "card.yaml"


def export(potential: Potential, form: Export, folder: Path, *, card: dict[str, Any]) -> list[Path]:
    """Write `potential` in `form`, with its model card, as the new folder `folder`; the files in it.

    Args:
        card: as `card_of` gives it.

    Raises:
        ConfigError: the potential cannot take that form, or there is something in the place of the folder; in
            both cases nothing was written.
        DiskError: the disk is full or not writable; nothing is left of the folder.
    """
    form.check(potential)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"{folder}: there is something of that name; name another folder, or remove that one"
        )
    try:
        with new_folder(folder) as temporary:
            written = form.write(potential, temporary)
            names = sorted(str(path.relative_to(temporary)) for path in written)
            card = {**card, "files": names}
            write_text(temporary / CARD, yaml_text(card))
            write_text(temporary / README, card_text(card))
    except OSError as error:
        raise disk_error(error, about=folder) or error from None
    return [folder / name for name in (README, CARD, *names)]

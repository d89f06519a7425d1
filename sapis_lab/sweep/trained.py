"""The folder of a trained potential, from the words of a command line: NAME/POINT, NAME/best, or a path."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from sapis_lab.config import ConfigError, read_yaml
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, read_record
from sapis_lab.sweep.files import checked_name
from sapis_lab.sweep.folder import point_folder, results_folder
from sapis_lab.sweep.manifest import SETTINGS

DESCRIPTION = "model.yaml"
BEST = "best"
USUAL = "val_force_rmse"
"""What decides which point is the best, where the law of the study is of no validation error."""


def trained_folder(words: str) -> Path:
    """The folder with the potential that `words` name: `NAME/POINT` of results/, `NAME/best` for the finished
    point of that study with the lowest validation error (that of its law, or else the force RMSE), or the
    path of a folder that holds one.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    path = Path(words)
    if (path / DESCRIPTION).is_file():
        return path
    if path.is_dir() and (path / RECORD).is_file():
        raise ConfigError(
            f"{path}: its trained potential ({DESCRIPTION}) is not there; train that point again"
        )
    name, separator, id = words.rstrip("/").partition("/")
    if not separator or "/" in id or not id:
        raise ConfigError(
            f"{words}: wanted NAME/POINT of results/, NAME/{BEST}, or a folder with a trained potential"
        )
    folder = results_folder(checked_name(name))
    known = _trained(folder)
    if not known:
        raise ConfigError(
            f"{folder} holds no trained potential; run the study first (sapis study run {name}): weights are "
            "not kept with published results"
        )
    if id == BEST:
        return point_folder(folder, _best(folder, known))
    if id not in known:
        near = get_close_matches(id, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{name} has no finished point {id!r} with its potential; {hint}known: {', '.join(known)}"
        )
    return point_folder(folder, id)


def _trained(folder: Path) -> list[str]:
    """Ids of the finished points whose potential is there, sorted."""
    places = (folder / "points").glob("*")
    return sorted(p.name for p in places if (p / RECORD).is_file() and (p / DESCRIPTION).is_file())


def _best(folder: Path, known: list[str]) -> str:
    """The point of the lowest validation error, the first of several."""
    law = read_yaml(folder / SETTINGS).get("law") if (folder / SETTINGS).is_file() else None
    named = law.get("quantity") if isinstance(law, dict) else None
    key = named if isinstance(named, str) and named.startswith("val_") else USUAL
    if quantity(key).better != "lower":
        key = USUAL
    errors = {id: read_record(point_folder(folder, id)).metrics.get(key) for id in known}
    scored = {id: error for id, error in errors.items() if error is not None}
    if not scored:
        raise ConfigError(f"{folder.name}: no point has {key}, wanted it to choose the best; name a point")
    return min(scored, key=lambda id: scored[id])

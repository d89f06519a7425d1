"""The model card: what a potential was made from, what it knows, how wrong it is, and what not to ask of it.

`card.yaml` is for programs, `README.md` says the same to people. What is not known stands there as not known
(`null`, "not stated"); nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sapis_lab.catalogue import credits_of, public_set
from sapis_lab.config import ConfigError, dump, home, kind_class, load, plainly, read_yaml
from sapis_lab.data import DatasetConfig, FrameStore, is_sealed, store_folder
from sapis_lab.elements import SYMBOLS
from sapis_lab.exports._base import Export
from sapis_lab.neighbors import MIN_DISTANCE
from sapis_lab.packages import OF_A_POINT, versions
from sapis_lab.potential import UNITS, Potential
from sapis_lab.quantities import quantity
from sapis_lab.records import RECORD, Record, read_record

FORMAT = 1
NOT_STATED = "not stated"
SETTINGS = "config.yaml"


def card_of(
    potential: Potential, form: Export, *, point: Path | None = None, cache: Path | None = None
) -> dict[str, Any]:
    """The facts of the card as plain data.

    Args:
        point: the folder of the finished point, whose settings and record say what it was trained on and how
            wrong it is; without, these are not stated.   cache: folder of the frame stores, `.sapis/data` of
            the project by default; its store of the data, where there is one, says most of them.
    """
    record = read_record(point) if point is not None and (point / RECORD).is_file() else None
    data = _data(point, cache or home() / ".sapis" / "data")
    atoms = "per_atom" if potential.model.gives_energy else None
    about = dict(potential.origin.get("about", {}))
    card: dict[str, Any] = {
        "format": FORMAT,
        "form": dump(form),
        "what": (type(form).__doc__ or form.kind).strip().splitlines()[0],
        "name": potential.origin.get("id"),
        "model": dump(potential.config),
        "symmetry": potential.model.symmetry,
        "elements": [SYMBOLS[z] for z in potential.model.species],
        "cutoff_angstrom": float(potential.model.cutoff),
        "n_params": sum(p.numel() for p in potential.model.parameters()),
        "n_frames": potential.origin.get("n_frames"),
        "precision": str(potential.dtype).removeprefix("torch."),
        "units": UNITS,
        "predicts": [*(("energy", "forces", "stress") if atoms else ()), *potential.heads],
        "reference_energies_ev": {SYMBOLS[z]: float(e) for z, e in potential.references.items()},
        **data,
        "errors": {} if record is None else dict(_errors(record)),
        "limits": list(_limits(potential, data)),
        "fingerprint": potential.origin.get("fingerprint"),
        "weights_sha256": None if record is None else record.weights,
        "trained_with": {} if record is None else {**record.versions, "commit": record.commit},
        "exported_with": versions(OF_A_POINT),
        "patches": list(potential.origin.get("patches", ())),
    }
    return card | about


def data_of(point: Path) -> DatasetConfig | None:
    """The settings of the data that the point in a folder was trained on; None where it does not say.

    Raises:
        ConfigError: they are damaged, or of a kind that is not known here.
    """
    path = point / SETTINGS
    if not path.is_file():
        return None
    raw = read_yaml(path).get("data")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("kind"), str):
        raise ConfigError(f"{path}: data: wanted settings with a kind, got {str(raw)[:80]}")
    cls = plainly(lambda: kind_class("data", raw["kind"], DatasetConfig), about=f"{path}: data")
    return load(cls, raw, source=f"{path}: data", recorded=True)


def _data(point: Path | None, cache: Path) -> dict[str, Any]:
    """Data set, level of theory, periodicity, licence and citation."""
    facts: dict[str, Any] = {
        "data": None,
        "level_of_theory": None,
        "periodic": None,
        "licence": None,
        "citation": [],
    }
    config = None if point is None else data_of(point)
    if config is None:
        return facts
    facts["data"] = {key: value for key, value in dump(config).items() if key not in config.location_fields}
    found: dict[str, Any] = {}
    if config.catalogue is not None:
        found = credits_of(config.catalogue) | {"level_of_theory": public_set(config.catalogue).level}
    folder = store_folder(config, cache)
    if is_sealed(folder):
        store = FrameStore.open(folder)
        found |= store.metadata
        facts["periodic"] = bool(store.frames(store.splits["train"][:100]).pbc.any())
    for key in ("level_of_theory", "licence", "citation", "public_set", "data_doi", "temperature_kelvin"):
        if key in found:
            facts[key] = found[key]
    return facts


def _errors(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    """Errors on validation and test frames, in the package's units."""
    for key, value in record.metrics.items():
        if key.startswith(("val_", "test")):
            known = quantity(key)
            yield key, {"value": float(value), "unit": known.unit, "what": known.label}


def _limits(potential: Potential, data: Mapping[str, Any]) -> Iterator[str]:
    """What the potential must not be asked, in sentences."""
    elements = ", ".join(SYMBOLS[z] for z in potential.model.species)
    yield f"It knows the elements {elements}; structures with others are refused."
    yield (
        "Total charge, spin and electric fields are no inputs: it answers for those of its training frames, "
        "whatever a program around it believes."
    )
    yield (
        f"Interactions are local: an atom sees others within {potential.model.cutoff:g} Å and what these "
        "pass on. There is no electrostatics or dispersion beyond."
    )
    yield f"Atoms closer than {MIN_DISTANCE} Å are refused; no training frame had any."
    if data["periodic"] is not None:
        known = "periodic frames" if data["periodic"] else "frames without a cell"
        yield (
            f"It was trained on {known}; "
            + (
                "isolated molecules"
                if data["periodic"]
                else "condensed phases, their density and their stress"
            )
            + " are beyond what it has seen."
        )
    if potential.references_from is None:
        yield (
            "What its reference energies were made from is not stated; energies of reactions may have no "
            "meaning."
        )
    elif potential.references_from.kind == "ridge":
        yield (
            "Its reference energies were fitted on training frames of "
            f"{potential.references_from.names()}: energies of isolated atoms, atomisation energies and "
            "differences between compositions that are no combinations of these have no meaning."
        )
    if potential.model.symmetry == "none":
        yield "Its energy is invariant under rotations only as far as it has learnt it."


# ------------------------------------------------------------------------------------------------ for people


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown, from the plain data in `card.yaml`."""
    rows = [
        ("form", card["what"]),
        ("model", f"{card['model']['kind']}, N = {card['n_params']:,} parameters, {card['precision']}"),
        ("labels", f"D = {card['n_frames']:,} frames" if card["n_frames"] else NOT_STATED),
        ("elements", ", ".join(card["elements"])),
        ("cutoff", f"{card['cutoff_angstrom']:g} Å"),
        ("predicts", ", ".join(card["predicts"])),
        ("units", "; ".join(f"{key} {unit}" for key, unit in card["units"].items())),
        ("data", _of_data(card)),
        ("level of theory", card["level_of_theory"] or NOT_STATED),
        ("licence of the data", card["licence"] or NOT_STATED),
        ("fingerprint", card["fingerprint"] or NOT_STATED),
        ("versions", ", ".join(f"{name} {v}" for name, v in card["exported_with"].items())),
    ]
    blocks = [
        f"# {card['name'] or 'A trained potential'}",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Errors\n\n" + _error_table(card["errors"]),
    ]
    if card["citation"]:
        bibtex = "\n".join(entry.rstrip() for entry in card["citation"])
        blocks.append(f"## Cite the data\n\n```bibtex\n{bibtex}\n```")
    if card["patches"]:
        blocks.append("## Changed after training\n\n" + "\n".join(f"- {p['what']}" for p in card["patches"]))
    blocks.append("## Files\n\n" + "\n".join(f"- `{name}`" for name in card["files"]))
    return "\n\n".join(blocks) + "\n"


def _of_data(card: Mapping[str, Any]) -> str:
    data = card["data"]
    if data is None:
        return NOT_STATED
    settings = ", ".join(f"{k}={v}" for k, v in data.items() if k != "kind" and v is not None)
    return f"{data['kind']} ({settings})" if settings else data["kind"]


def _error_table(errors: Mapping[str, Mapping[str, Any]]) -> str:
    if not errors:
        return f"{NOT_STATED.capitalize()}."
    rows = [f"| {_cell(e['what'])} | {e['value']:.4g} {e['unit']} |" for e in errors.values()]
    return "| on frames that were not trained on | |\n|---|---|\n" + "\n".join(rows)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())

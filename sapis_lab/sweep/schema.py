"""The JSON schema of a study file, in which composed fields may be a name, a name with overrides, or settings
in full."""

from __future__ import annotations

from typing import Any

from sapis_lab.config import home, kind_class, kinds
from sapis_lab.sweep.study import Study


def study_schema() -> dict[str, Any]:
    """The schema of `studies/*.yaml` with every kind of this package and every name of `configs/`."""
    schema = Study.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    fields = schema["properties"]
    fields["data"] = {**_described(fields["data"]), **_composed("data", definitions)}
    fields["models"] = {
        **_described(fields["models"]),
        "type": "array",
        "minItems": 1,
        "items": _composed("models", definitions),
    }
    fields["evaluate"] = {
        **_described(fields["evaluate"]),
        "type": "array",
        "items": _composed("evaluation", definitions),
    }
    train = definitions["TrainConfig"]
    fields["train"] = {
        **_described(fields["train"]),
        "anyOf": [_name("train"), {"$ref": "#/$defs/TrainConfig"}],
    }
    train["properties"]["use"] = _name("train")
    definitions["ScaleOptions"]["properties"]["policy"] = {
        **_described(definitions["ScaleOptions"]["properties"]["policy"]),
        "anyOf": [{"enum": list(kinds("policies"))}, *_settings("policies", definitions)],
    }
    where = definitions["RunOptions"]["properties"]
    where["executor"] = {
        **_described(where["executor"]),
        "default": "local",
        "anyOf": [{"enum": list(kinds("executors"))}, *_settings("executors", definitions)],
    }
    schema["required"] = [r for r in schema["required"] if r != "name"]  # the file name is the name
    return schema


def _described(field: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in field.items() if k in ("description", "title")}


def _name(folder: str) -> dict[str, Any]:
    return {"enum": sorted(p.stem for p in (home() / "configs" / folder).glob("*.yaml"))}


def _composed(folder: str, definitions: dict[str, Any]) -> dict[str, Any]:
    options = [_name(folder), {"type": "object", "required": ["use"], "properties": {"use": _name(folder)}}]
    return {"anyOf": [*options, *_settings(folder, definitions)]}


def _settings(folder: str, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of every kind in full."""
    options = []
    for kind in kinds(folder):
        own = kind_class(folder, kind).model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(own.pop("$defs", {}))
        own["properties"]["kind"] = {"const": kind}
        own["required"] = sorted({*own.get("required", []), "kind"})
        definitions[f"{folder}-{kind}"] = own
        options.append({"$ref": f"#/$defs/{folder}-{kind}"})
    return options

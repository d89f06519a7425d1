"""Settings: frozen pydantic models <-> YAML, found by `kind`, composed by one rule, with errors a person can act on.

The one composition rule: where a field is *composed*, a string or the key `use:` names a file in `configs/<field>/`, and keys beside
`use:` override what that file says. There is no interpolation, no class path and no code in a YAML file. What is resolved is
what is recorded: `dump_yaml(config)` loads back to the same value.

A *kind folder* (models, data, oracles, ...) holds one public module per kind, with one `KindConfig` whose `kind` is the module's name.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError, ValidationInfo, model_validator

from sapis_lab.errors import ConfigError

HOME_VARIABLE = "SAPIS_HOME"

T = TypeVar("T")


def plainly(function: Callable[[], T], *, about: str = "") -> T:
    """`function()`, its failures told as a ConfigError: for calls that fail when files, packages or settings are not as they should be.

    `about` opens the message.
    """
    try:
        return function()
    except (ConfigError, BrokenPipeError):  # the latter is the end of our own reader, not a fault of the settings
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        text = str(error).strip() or type(error).__name__
        told = f"{type(error).__name__}: {text}" if isinstance(error, RuntimeError) else text
        raise ConfigError(f"{about}: {told}" if about else told) from error


class Config(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), ser_json_inf_nan="constants"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{_nearest(str(key), cls.model_fields)} known: {', '.join(cls.model_fields)}")
        return data


class KindConfig(Config):
    """Settings of one kind: a file `<folder>/<kind>.py` holds exactly one subclass and the class that it builds."""

    kind: str
    """The kind, which is the name of the module that defines it."""

    version: ClassVar[int] = 1
    """Raised when the numbers this kind produces change; part of every fingerprint."""


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ";"


def home() -> Path:
    """The project folder, with configs/, studies/ and results/: $SAPIS_HOME, else the working folder, else the checkout of the package."""
    if HOME_VARIABLE in os.environ:
        return Path(os.environ[HOME_VARIABLE])
    if Path("configs").is_dir() and Path("studies").is_dir():
        return Path.cwd()
    return Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------------------------- kinds


@cache
def kinds(folder: str) -> tuple[str, ...]:
    """The kinds in `sapis_lab/<folder>/`: its public modules, in alphabetical order."""
    package = importlib.import_module(f"sapis_lab.{folder}")
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


@cache
def kind_class(folder: str, kind: str) -> type[KindConfig]:
    """The settings class of `kind`. ValueError names the nearest kind when there is none of that name."""
    if kind not in kinds(folder):
        raise ValueError(f"no {folder} kind {kind!r}{_nearest(kind, kinds(folder))} known: {', '.join(kinds(folder))}")
    module = importlib.import_module(f"sapis_lab.{folder}.{kind}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, KindConfig) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one KindConfig, found {[c.__name__ for c in found]}")
    return found[0]


# ------------------------------------------------------------------------------------------------------- composition


def composed(folder: str, *, kind: bool = False) -> Any:
    """Marks a field as composed from `configs/<folder>/`; with `kind`, its class follows from the key `kind`.

    Use as `data: Annotated[DatasetConfig, composed("data", kind=True)]`.
    """

    def expand(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseModel):
            return value
        value = expand_use(value, folder)
        if not kind:
            return value
        if not isinstance(value, Mapping) or "kind" not in value:
            raise ValueError(f"wanted a name from configs/{folder}/ or a mapping with the key 'kind', got {value!r}")
        if not isinstance(value["kind"], str):
            raise ValueError(f"wanted the name of a kind, one of {', '.join(kinds(folder))}, got kind={_short(value['kind'])}")
        return kind_class(folder, value["kind"]).model_validate(value, context=info.context)

    return BeforeValidator(expand)


def composed_kind(folder: str, base: type[KindConfig]) -> Any:
    """The annotation of a field that holds one kind of `folder`, written in full when dumped."""
    return Annotated[SerializeAsAny[base], composed(folder, kind=True)]  # type: ignore[valid-type, misc]


def expand_use(value: Any, folder: str) -> Any:
    """`value` with the file it names laid under it: a string, or a mapping with `use`, names `configs/<folder>/<name>.yaml`."""
    if isinstance(value, str):
        value = {"use": value}
    if not isinstance(value, Mapping) or "use" not in value:
        return value
    path = _named_file(str(value["use"]), folder)
    return merge(read_yaml(path), {k: v for k, v in value.items() if k != "use"})


def _named_file(name: str, folder: str) -> Path:
    root = home() / "configs" / folder
    known = sorted(p.stem for p in root.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"configs/{folder}/ has no {name!r}{_nearest(name, known)} known: {', '.join(known) or 'none'}")
    return root / f"{name}.yaml"


def merge(under: Any, over: Any) -> Any:
    """`over` laid on `under`: mappings merge key by key, anything else replaces."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {**under, **{k: merge(under[k], v) if k in under else v for k, v in over.items()}}
    return over


def override(raw: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`raw` with dotted settings such as `train.steps=100` or `lattice.n_frames=[50,100]` laid on it.

    A setting may reach into a composed field that is only named: `data=ethanol-xtb` and `data.n_train=100` give
    `{use: ethanol-xtb, n_train: 100}`. List items are reached by number.
    """
    result = copy.deepcopy(raw)
    for setting in settings:
        dotted, sep, text = setting.partition("=")
        if not sep or not dotted:
            raise ConfigError(f"--set {setting!r}: wanted key=value, as in --set train.steps=100")
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:  # a ValueError: what looks like a date and is none
            raise ConfigError(f"--set {setting!r}: the value is not YAML: {error}") from None
        _set(result, dotted.split("."), value, setting)
    return result


def _set(node: Any, keys: list[str], value: Any, setting: str) -> None:
    head, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ConfigError(f"--set {setting!r}: {head!r} is no position in a list of {len(node)}")
        key: Any = int(head)
    else:
        key = head
    if not rest:
        node[key] = value
        return
    below = node[key] if isinstance(node, list) else node.get(key, {})
    if isinstance(below, str):
        below = {"use": below}
    if not isinstance(below, dict | list):
        raise ConfigError(f"--set {setting!r}: {head!r} holds {below!r}, which has no key {rest[0]!r}")
    node[key] = below
    _set(below, rest, value, setting)


# -------------------------------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e3 and 1.0e5 as numbers, as YAML 1.2 does (1.1 wants a dot and a sign); a key is text
    or a whole number (an element), and given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                message = f"wanted text as a key, got {_short(key)}; put it in quotes if it is meant as text"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. ConfigError names the file when it is missing, cannot be read, is not YAML, or repeats a key."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: what looks like a date and is none
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: wanted a mapping of keys to values, got {type(value).__name__}")
    return value


def dump(config: BaseModel) -> dict[str, Any]:
    """Plain Python (str, number, list, dict) of a config, all fields written, ready for YAML or JSON."""
    return config.model_dump(mode="json")


def dump_yaml(config: BaseModel) -> str:
    """The resolved settings as YAML, which load back to the same value."""
    return yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True, width=120)


def load(cls: type[BaseModel], raw: Any, *, source: str) -> Any:
    """`raw` as `cls`; ConfigError with one line per problem, naming `source`, the field, what it got and what it wanted."""
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, source))) from None


def _lines(error: ValidationError, source: str) -> Iterable[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("function-"))
        message = problem["msg"].removeprefix("Value error, ")
        got = problem.get("input")
        shown = "" if problem["type"] in ("value_error", "missing") else f", got {_short(got)}"
        yield f"{source}: {where + ': ' if where else ''}{message[0].lower() + message[1:]}{shown}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


# ------------------------------------------------------------------------------------------------------- fingerprint


@dataclass(frozen=True)
class Added:
    """Marks a setting that came when there were results already: `learning: Annotated[str, Added(before="adamw")] = "soap"`.

    At the value `before`, which gives the numbers from before the setting was there, it is left out of every identity, so that results made
    without it stay valid. `before` never changes; the default may, and then says of new results what they are.
    """

    before: Any


def identity(config: BaseModel) -> dict[str, Any]:
    """What the numbers made from `config` depend on, as plain data: all its settings but those at the value before they were `Added`."""
    plain = dump(config)
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if any(isinstance(mark, Added) and mark.before == value for mark in info.metadata):
            del plain[name]
        else:
            plain[name] = _identity_of(value, plain[name])
    return plain


def _identity_of(value: Any, plain: Any) -> Any:
    """The same inside lists and mappings of settings; `plain` is what `value` was dumped to."""
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, list | tuple):
        return [_identity_of(v, p) for v, p in zip(value, plain, strict=True)]
    if isinstance(value, Mapping):
        return {key: _identity_of(v, p) for (key, p), v in zip(plain.items(), value.values(), strict=True)}
    return plain


def fingerprint(value: Any) -> str:
    """sha256 (hex) of plain Python data, the same on every machine: canonical JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differing_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values in which two plain-Python settings differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = sorted({*a, *b}, key=str)
        return [d for k in keys for d in differing_keys(a.get(k), b.get(k), f"{prefix}.{k}" if prefix else str(k))]
    return [] if a == b else [prefix]

"""Settings: frozen pydantic models <-> YAML, found by `kind`, composed by one rule, with errors a person can
act on.

The one composition rule: where a field is *composed*, a string or the key `use:` names a file in
`configs/<field>/`, and keys beside `use:` override what that file says. There is no interpolation, no class
path and no code in a YAML file. What is resolved is what is recorded: `dump_yaml(config)` loads back to the
same value.

A *kind folder* (models, data, oracles, ...) holds one public module per kind, with one `KindConfig` whose
`kind` is the module's name.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, overload

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sapis_lab import outside
from sapis_lab.errors import ConfigError, DiskError, disk_error
from sapis_lab.files import MAX_DEPTH, MIB, check_plain, read_text
from sapis_lab.text import without_password

HOME_VARIABLE = "SAPIS_HOME"

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def plainly(function: Callable[[], T], *, about: str = "") -> T:
    """`function()`, its failures raised as a ConfigError: for calls that fail when files, packages or
    settings are not as they should be.

    `about` opens the message. What the disk does not take or give stays a DiskError.
    """
    try:
        return function()
    except (
        ConfigError,
        BrokenPipeError,
    ):
        # the latter is the end of our own reader, not a fault of the settings
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        disk = disk_error(error) if isinstance(error, OSError) else None
        if disk is not None:
            raise DiskError(f"{about}: {disk}" if about else str(disk)) from error
        text = str(error).strip() or type(error).__name__
        message = f"{type(error).__name__}: {text}" if isinstance(error, RuntimeError) else text
        raise ConfigError(f"{about}: {message}" if about else message) from error


MOST_INTEGER = 2**63 - 1
"""Largest whole number of a setting, that of the int64 columns of our tables."""
MOST_NAME = 100
"""Longest name of a study, a model or a split, characters: files and folders are named after them, and file
systems allow 255 bytes."""

Seed = Annotated[int, Field(ge=0, le=MOST_INTEGER)]
"""A seed of random numbers."""
Size = Annotated[float, Field(ge=1, le=1e11)]
"""A number of parameters that is asked for."""
FrameCount = Annotated[int, Field(ge=1, le=10**9)]
"""A number of labelled frames."""


class Config(BaseModel):
    """Base of all settings: immutable, unknown keys are refused with the nearest known one, and numbers are
    finite numbers.

    A field whose type admits no bool refuses true and false, which Python would take for 1 and 0; whole
    numbers fit into 64 bits, and text can be written as UTF-8. Ranges are those of the fields.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        ser_json_inf_nan="constants",
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, Mapping):
            if info.context is not None and info.context.get(_RECORDED):
                data = {**_before(cls), **data}
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(
                        f"unknown key {_short(key)}{_nearest(str(key), cls.model_fields)} known: "
                        f"{', '.join(cls.model_fields)}"
                    )
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _plain_values(cls, value: Any, info: ValidationInfo) -> Any:
        types = _leaf_types(cls, str(info.field_name))
        if types & {int, float} and not types & {bool, Any}:
            _refuse_unusable(value, bool_is_number=False)
        elif not types & {Any}:
            _refuse_unusable(value, bool_is_number=True)
        return value


_RECORDED = "recorded"


def _before(cls: type[Config]) -> dict[str, Any]:
    """The values that settings had before they were `Added`: what settings recorded without them mean."""
    return {
        name: mark.before
        for name, info in cls.model_fields.items()
        for mark in info.metadata
        if isinstance(mark, Added)
    }


class KindConfig(Config):
    """Settings of one kind: a file `<folder>/<kind>.py` holds exactly one subclass and the class that it
    builds."""

    kind: str
    """The kind, which is the name of the module that defines it."""

    version: ClassVar[int] = 1
    """Raised when the numbers this kind produces change; part of every fingerprint."""


K = TypeVar("K", bound=KindConfig)


@cache
def _leaf_types(cls: type[Config], field: str) -> frozenset[Any]:
    """The types that a field admits, those of the items of lists and mappings included."""
    return frozenset(_leaves(cls.model_fields[field].annotation))


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple, list, dict):
        parts = get_args(annotation)
        for part in parts[:1] if get_origin(annotation) is Annotated else parts:
            yield from _leaves(part)
    else:
        yield annotation


def _refuse_unusable(value: Any, *, bool_is_number: bool) -> None:
    """ValueError for what pydantic would let pass: a bool as a number, an integer beyond 64 bits, text that
    no file can hold."""
    if isinstance(value, bool):
        if not bool_is_number:
            raise ValueError(f"wanted a number, got {str(value).lower()}")
    elif isinstance(value, int):
        if abs(value) > MOST_INTEGER:
            shown = str(value) if value.bit_length() < 200 else f"an integer of {value.bit_length()} bits"
            raise ValueError(f"wanted an integer of at most {MOST_INTEGER}, got {shown}")
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"wanted text of Unicode characters without zero bytes, got {_short(value)}")
    elif isinstance(value, bytes | set | frozenset):  # of the tags !!binary and !!set
        raise ValueError(f"wanted a number, text, a list or a mapping, got {_short(value)}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_unusable(key, bool_is_number=True)
            _refuse_unusable(item, bool_is_number=bool_is_number)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_unusable(item, bool_is_number=bool_is_number)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word[:MOST_NAME], list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ";"


def home() -> Path:
    """The project folder, with configs/, studies/ and results/: $SAPIS_HOME, else the working folder, else
    the checkout of the package."""
    if HOME_VARIABLE in os.environ:
        return Path(os.environ[HOME_VARIABLE])
    if Path("configs").is_dir() and Path("studies").is_dir():
        return Path.cwd()
    return Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------------------ kinds


def kinds(folder: str) -> tuple[str, ...]:
    """The kinds of `<folder>`, in alphabetical order: the public modules in `sapis_lab/<folder>/`, in
    `<folder>/` of the folders that $SAPIS_KINDS or a study names (`outside`), and the entry points that
    installed packages have in the group `sapis_lab.<folder>`."""
    return tuple(_modules(folder, outside.folders()))


@cache
def _modules(folder: str, outside_folders: tuple[Path, ...]) -> dict[str, str]:
    """Module names by kind, in alphabetical order. ValueError: a kind has several."""
    package = importlib.import_module(f"sapis_lab.{folder}")
    found = [(name, f"sapis_lab.{folder}.{name}") for name in _public(package.__path__)]
    places = [str(place / folder) for place in outside_folders if (place / folder).is_dir()]
    found += [(name, f"sapis_lab.outside.{folder}.{name}") for name in _public(places)]
    found += [(point.name, point.value) for point in entry_points(group=f"sapis_lab.{folder}")]
    modules: dict[str, str] = {}
    for kind, module in sorted(found):
        if kind in modules:
            raise ValueError(
                f"{folder} kind {kind!r} is defined twice, by {modules[kind]} and {module}; rename one of "
                f"them"
            )
        modules[kind] = module
    return modules


def _public(places: Iterable[str]) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(list(places)) if not m.name.startswith("_")]


def kind_module(folder: str, kind: str) -> ModuleType:
    """The module of `kind`. ValueError names the nearest kind when there is none of that name."""
    modules = _modules(folder, outside.folders())
    if kind not in modules:
        raise ValueError(
            f"no {folder} kind {_short(kind)}{_nearest(kind, modules)} known: {', '.join(modules)}"
        )
    outside.refresh()
    return importlib.import_module(modules[kind])


@overload
def kind_class(folder: str, kind: str) -> type[KindConfig]: ...
@overload
def kind_class(folder: str, kind: str, base: type[K]) -> type[K]: ...
def kind_class(folder: str, kind: str, base: type[KindConfig] = KindConfig) -> type[KindConfig]:
    """The settings class of `kind`, a `base`. ValueError names the nearest kind when there is none of that
    name."""
    module = kind_module(folder, kind)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, KindConfig) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(
            f"{module.__file__} must define exactly one KindConfig, found {[c.__name__ for c in found]}"
        )
    if not issubclass(found[0], base):
        raise ValueError(f"{module.__file__}: {found[0].__name__} must be a {base.__name__}")
    return found[0]


# ------------------------------------------------------------------------------------------------ composition


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
            raise ValueError(
                f"wanted a name from configs/{folder}/ or a mapping with the key 'kind', got {_short(value)}"
            )
        if not isinstance(value["kind"], str):
            raise ValueError(
                f"wanted the name of a kind, one of {', '.join(kinds(folder))}, got "
                f"kind={_short(value['kind'])}"
            )
        return kind_class(folder, value["kind"]).model_validate(value, context=info.context)

    return BeforeValidator(expand)


def composed_kind(folder: str, base: type[KindConfig]) -> Any:
    """The annotation of a field that holds one kind of `folder`, written in full when dumped."""
    return Annotated[SerializeAsAny[base], composed(folder, kind=True)]  # type: ignore[valid-type, misc]


def named_kind(folder: str, base: type[K], given: Any, context: Any = None) -> K:
    """The kind of `folder`, a `base`, that a name, or a mapping with `kind` and settings, stands for.

    For fields that are not composed: the name is that of a kind, with its defaults, and not of a file.

    Raises:
        ValueError: it is neither; the nearest kind is named where there is none of that name.
    """
    if isinstance(given, base):
        return given
    settings = {"kind": given} if isinstance(given, str) else given
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ValueError(
            f"wanted the name of a kind, one of {', '.join(kinds(folder))}, or a mapping with the key "
            f"'kind', got {_short(given)}"
        )
    return kind_class(folder, settings["kind"], base).model_validate(settings, context=context)


def expand_use(value: Any, folder: str) -> Any:
    """`value` with the file it names laid under it: a string, or a mapping with `use`, names
    `configs/<folder>/<name>.yaml`."""
    if isinstance(value, str):
        value = {"use": value}
    if not isinstance(value, Mapping) or "use" not in value:
        return value
    if not isinstance(value["use"], str):
        raise ValueError(f"wanted a name from configs/{folder}/ after 'use:', got {_short(value['use'])}")
    path = _named_file(value["use"], folder)
    return merge(read_yaml(path), {k: v for k, v in value.items() if k != "use"})


def _named_file(name: str, folder: str) -> Path:
    root = home() / "configs" / folder
    known = sorted(p.stem for p in root.glob("*.yaml"))
    if name not in known:
        raise ValueError(
            f"configs/{folder}/ has no {_short(name)}{_nearest(name, known)} known: "
            f"{', '.join(known) or 'none'}"
        )
    return root / f"{name}.yaml"


def merge(under: Any, over: Any) -> Any:
    """`over` laid on `under`: mappings merge key by key, anything else replaces."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {**under, **{k: merge(under[k], v) if k in under else v for k, v in over.items()}}
    return over


def override(raw: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`raw` with dotted settings such as `train.steps=100` or `lattice.n_frames=[50,100]` laid on it.

    A setting may reach into a composed field that is only named: `data=ethanol-xtb` and `data.n_train=100`
    give `{use: ethanol-xtb, n_train: 100}`. List items are reached by number.
    """
    result = copy.deepcopy(raw)
    for setting in settings:
        dotted, sep, text = setting.partition("=")
        if not sep or not dotted:
            raise ConfigError(f"--set {_short(setting)}: wanted key=value, as in --set train.steps=100")
        shown = _short(setting)
        keys = dotted.split(".")
        if len(keys) > MAX_DEPTH:
            raise ConfigError(f"--set {shown}: wanted at most {MAX_DEPTH} keys, got {len(keys)}")
        value = _parsed(text, message=f"--set {shown}: the value is not YAML")
        check_plain(value, source=f"--set {shown}")
        _set(result, keys, value, shown)
    return result


def _set(node: Any, keys: list[str], value: Any, setting: str) -> None:
    head, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not re.fullmatch("[0-9]{1,9}", head) or int(head) >= len(node):
            raise ConfigError(f"--set {setting}: {_short(head)} is no position in a list of {len(node)}")
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
        raise ConfigError(
            f"--set {setting}: {_short(head)} holds {_short(below)}, which has no key {rest[0]!r}"
        )
    node[key] = below
    _set(below, rest, value, setting)


# ------------------------------------------------------------------------------------------------------- YAML


YAML_LIMIT = MIB
"""Largest YAML file that is read, bytes."""
MAX_NODES = 50_000
"""Most values and keys in a YAML file, an alias counting as all that it stands for."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e3 and 1.0e5 as numbers, as YAML 1.2 does (1.1 wants a dot and a sign); a key is
    text or a whole number (an element), and given once. Size and depth are limited, with aliases written out:
    a few bytes of nested aliases stand for more values than any memory holds, and nobody could walk through
    them."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._extents: dict[int, tuple[int, int]] = {}
        """Number of nodes and depth of every finished node, by its id."""
        self._open = [[0, 0]]
        """The same of the nodes that are being read, so far; the last is the innermost."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        self._open.append([1, 1])
        if len(self._open) - 1 > MAX_DEPTH + 1:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        n_nodes, depth = self._open.pop()
        if alias:
            if id(node) not in self._extents:
                raise yaml.composer.ComposerError(None, None, "an alias within what it stands for", mark)
            n_nodes, depth = self._extents[id(node)]
        self._extents[id(node)] = n_nodes, depth
        above = self._open[-1]
        above[0], above[1] = above[0] + n_nodes, max(above[1], depth + 1)
        if above[0] > MAX_NODES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MAX_NODES} values, with every alias written out", mark
            )
        if depth + len(self._open) - 1 > MAX_DEPTH + 1:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                message = f"wanted text as a key, got {_short(key)}; put it in quotes if it is meant as text"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number."""


_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"
)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))  # type: ignore[attr-defined]


def _parsed(text: str, *, message: str) -> Any:
    """The value of YAML text; ConfigError, opened by `message`, where it is none."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # other than YAMLError: what looks like a date and is none, or has a tag such as !!int that it does
        # not fit
        what = (
            _fault(error)
            if isinstance(error, yaml.YAMLError | ValueError)
            else f"a value does not fit its tag ({type(error).__name__})"
        )
        raise ConfigError(f"{message}: {what}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. ConfigError names the file when it is missing, cannot be read, is not YAML,
    or repeats a key; when it is too large, nested too deeply, or holds an integer beyond 64 bits
    (`sapis_lab.files`)."""
    value = _parsed(read_text(path, limit=YAML_LIMIT), message=f"{path}: not valid YAML")
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: wanted a mapping of keys to values, got "
            f"{'nothing' if value is None else type(value).__name__}"
        )
    check_plain(value, source=str(path))
    return value


def _fault(error: Exception) -> str:
    """What is wrong with a YAML text, and where, without the piece of it that PyYAML cuts out: half a
    password is not known as one."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    words = [w for w in (getattr(error, "context", None), getattr(error, "problem", None)) if w]
    return f"{', '.join(words)}, in line {mark.line + 1}, column {mark.column + 1}"


def dump(config: BaseModel) -> dict[str, Any]:
    """Plain Python (str, number, list, dict) of a config, all fields written, ready for YAML or JSON."""
    return config.model_dump(mode="json")


def dump_yaml(config: BaseModel) -> str:
    """The resolved settings as YAML, which load back to the same value."""
    return yaml_text(dump(config))


def yaml_text(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML, which `read_yaml` reads back as they are."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def load(cls: type[M], raw: Any, *, source: str, recorded: bool = False) -> M:
    """`raw` as `cls`; ConfigError with one line per problem, naming `source`, the field, what it got and what
    it wanted.

    Args:
        recorded: these are settings that results were made with: one that was `Added` since has the value
            from before, not today's default.
    """
    try:
        return cls.model_validate(raw, context={_RECORDED: recorded})
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, source))) from None


def _lines(error: ValidationError, source: str) -> Iterable[str]:
    by_place: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False, include_context=False):
        by_place.setdefault(
            ".".join(str(part) for part in problem["loc"] if not _BRANCH.fullmatch(str(part))), []
        ).append(problem)
    problems = [
        (where, problem)
        for where, several in by_place.items()
        for problem in _telling(several)
        # a list is too short as well where what is in it was refused, and of the types that a value may have
        # the one it nearly is speaks from inside of it
        if not (_is_outer(problem) and any(other.startswith(f"{where}.") for other in by_place))
    ]
    for where, problem in problems[:_PROBLEMS]:
        message = problem["msg"].removeprefix("Value error, ")
        got = problem.get("input")
        shown = "" if problem["type"] in ("value_error", "missing") else f", got {_short(got)}"
        yield f"{source}: {_cut(where) + ': ' if where else ''}{message[:1].lower() + message[1:]}{shown}"
    if len(problems) > _PROBLEMS:
        yield f"{source}: and {len(problems) - _PROBLEMS} more"


def _is_outer(problem: Any) -> bool:
    return bool(problem["type"] == "too_short" or problem["type"].endswith(("_type", "literal_error")))


def _telling(problems: list[Any]) -> list[Any]:
    """Of the problems that one value has with the types it may have: what the type says that it nearly is,
    else all."""
    for other in (("_type", "literal_error", "_parsing"), ("_type", "literal_error")):
        if near := [p for p in problems if not p["type"].endswith(other)]:
            return near[:1]
    return problems


# what pydantic adds to the place of a problem for every type that a field may have
_BRANCH = re.compile(
    r"(constrained-)?(float|int|str|bool|none)|(dict|tuple|list|literal|function-[a-z]*|nullable)\b.*",
    re.DOTALL,
)
_PROBLEMS = 20
"""Most problems named at once."""


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to write out thousands of digits
        return f"an integer of {value.bit_length()} bits"
    # before it is cut: a password without its end would not be known as one
    return _cut(without_password(repr(value)))


def _cut(text: str) -> str:
    return text if len(text) < 80 else text[:77] + "..."


# ------------------------------------------------------------------------------------------------ fingerprint


@dataclass(frozen=True)
class Added:
    """Marks a setting that came when there were results already: `learning: Annotated[str,
    Added(before="adamw")] = "soap"`.

    At the value `before`, which gives the numbers from before the setting was there, it is left out of every
    identity, so that results made without it stay valid. `before` never changes; the default may, and then
    says of new results what they are.
    """

    before: Any


def identity(config: BaseModel) -> dict[str, Any]:
    """What the numbers made from `config` depend on, as plain data: all its settings but those at the value
    before they were `Added`."""
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
        return [
            d for k in keys for d in differing_keys(a.get(k), b.get(k), f"{prefix}.{k}" if prefix else str(k))
        ]
    return [] if a == b else [prefix]

"""Text that leaves the program: without passwords, and with nothing that a terminal or a spreadsheet would
obey instead of showing it.

Names, questions and reasons of failure come from files that others may have written, and settings from
commands that hold passwords. No outside package is imported here.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

# -------------------------------------------------------------------------------------------------- passwords

_PASSWORD = re.compile(r"(?<=//)(?P<user>[^\s:@/]*):\S*(?=@)|\bpassword=[^&\s'\"]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """`text` with the passwords of all URLs in it, and of all `password=...`, replaced by ***."""
    return _PASSWORD.sub(lambda m: "password=***" if m["user"] is None else f"{m['user']}:***", text)


# -------------------------------------------------------------------------------------------------- terminals

_OBEYED = re.compile(
    # control characters but for tab and newline: ESC begins colours, titles, moves of the cursor
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions: what follows is shown in another order
    # separators, annotations, halves of characters, invisible tags
    "\u2028\u2029\ufff9-\ufffb\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with every character that a terminal obeys, but for newline and tab, written out: `\\x1b[2J`."""
    return _OBEYED.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


_PLAIN = {
    "Å": "A",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ψ": "psi",
    "σ": "sigma",
    "∞": "inf",
    "≤": "<=",
    "≥": ">=",
    "−": "-",
    "–": "-",
    "·": "*",
    "×": "x",
    "±": "+-",
    "√": "sqrt",
    "…": "...",
    "→": "->",
    "━": "#",
    "╌": "-",
    "²": "^2",
    "³": "^3",
    "⁻": "^-",
}
_HANDLER = "sapis_lab.text"


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(c) or c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in missing
    ), error.end


codecs.register_error(_HANDLER, _unencodable)


def never_fails(*streams: Any) -> None:
    """Let text streams write in plain letters what their encoding lacks (a pipe in Latin-1, LC_ALL=C), where
    they would raise an error: eV/Å becomes eV/A, other characters \\u2764."""
    for stream in streams:
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=_HANDLER)


# ----------------------------------------------------------------------------------------------- spreadsheets

_FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠", "'")
"""What a cell begins with that a spreadsheet calculates or hides; an apostrophe is what keeps it from
that."""


def as_cell(value: Any) -> Any:
    """`value` as a spreadsheet shows it: text that it would calculate gets an apostrophe in front. Numbers,
    and texts of numbers, stay.

    Control characters are written out (`visible`): a carriage return alone would end the row for many
    readers.
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def from_cell(value: Any) -> Any:
    """What `as_cell` was given, control characters aside."""
    return (
        value[1:]
        if isinstance(value, str) and value.startswith("'") and value[1:].startswith(_FORMULA)
        else value
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text


def for_spreadsheets(table: DataFrame) -> DataFrame:
    """A table with all its texts as cells, for a CSV file that people open; numbers stay as they are."""
    return _mapped(table, as_cell)


def from_spreadsheets(table: DataFrame) -> DataFrame:
    """The table that `for_spreadsheets` was given, read from its CSV file; control characters in texts stay
    written out."""
    return _mapped(table, from_cell)


def _mapped(table: DataFrame, function: Any) -> DataFrame:
    texts = [
        k for k, dtype in enumerate(table.dtypes) if dtype.kind == "O" or str(dtype) in ("str", "string")
    ]
    changed = {k: table.iloc[:, k].map(function, na_action="ignore") for k in texts}
    changed = {k: column for k, column in changed.items() if not column.equals(table.iloc[:, k])}
    if not changed:
        return table
    result = table.copy()
    for k, column in changed.items():
        result.isetitem(k, column)
    return result

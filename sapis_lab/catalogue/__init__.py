"""Public data sets: what they hold, in which units, at which level of theory, under which licence, whom to
cite, and where their official files are.

One module of `sets/` per data set, whose name is the data set's; there is no list to extend. Facts only, and
each set names where they were taken from: a size or a checksum that is not known is left out, never guessed.
"""

from sapis_lab.catalogue._base import (
    Citation,
    Label,
    OfficialFile,
    PublicSet,
    github,
    github_files,
    size_text,
)
from sapis_lab.catalogue._presence import Presence, presence
from sapis_lab.catalogue._search import fetching_advice, names, public_set, public_sets
from sapis_lab.catalogue._text import (
    LEGEND,
    TABLE_HEAD,
    credits_of,
    described,
    markdown_page,
    table_row,
    total_size,
)

__all__ = [
    "LEGEND",
    "TABLE_HEAD",
    "Citation",
    "Label",
    "OfficialFile",
    "Presence",
    "PublicSet",
    "credits_of",
    "described",
    "fetching_advice",
    "github",
    "github_files",
    "markdown_page",
    "names",
    "presence",
    "public_set",
    "public_sets",
    "size_text",
    "table_row",
    "total_size",
]

"""The console of every command: what is printed is shown as it stands, whatever is in it; sentences break
between words on a terminal, and nowhere in a file or a pipe. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from sapis_lab.screen import wrapped
from sapis_lab.text import visible


class PlainConsole(Console):
    """A rich console to which names, questions and reasons of failure are text and nothing else.

    What comes from a file may hold `[red]`, `:smile:` or an escape sequence that retitles the terminal; the
    first two are no markup here, and the last is written out. Colours and cursor moves of our own tables and
    boards are made after that.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """As rich prints, but for sentences: these have line breaks between words on a terminal, and none
        of ours elsewhere."""
        if soft_wrap is None:
            soft_wrap = bool(objects) and all(isinstance(o, str | Text) for o in objects)
        if soft_wrap and self.file.isatty():
            width = self.width
            objects = tuple(
                wrapped(o if isinstance(o, Text) else Text(o), width) if isinstance(o, str | Text) else o
                for o in objects
            )
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

"""Output of the commands: tables, JSON, and errors on stderr."""

import json as json_text
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.message import Message
from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 100
"""Width of a line where the output is not a terminal, in characters."""

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"


@dataclass(frozen=True)
class Screen:
    """Output of one command."""

    out: Console
    err: Console
    json: bool
    """True: `out` gets JSON alone."""

    @classmethod
    def of_process(cls, *, json: bool) -> "Screen":
        """Creates a screen for the process's present streams."""
        return cls(_console(stderr=False), _console(stderr=True), json)

    def show(self, *renderables: RenderableType) -> None:
        """Prints tables and texts; markup in texts is not interpreted."""
        for renderable in renderables:
            self.out.print(renderable, markup=False, highlight=False)

    def dump(self, reply: Message | Mapping[str, object]) -> None:
        """Prints JSON, with the schema's own field names."""
        fields = (
            json_format.MessageToDict(
                reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            if isinstance(reply, Message)
            else reply
        )
        json_text.dump(fields, self.out.file, indent=2, ensure_ascii=not self._unicode)
        self.out.file.write("\n")

    def fitted(self, made: Table, *spare: str) -> Table:
        """Removes spare columns, in the order named, until no word of the table has to be split."""
        # Measurements are limited to the width that they are taken in.
        unbounded = self.out.options.update_width(10_000)
        for name in spare:
            if Measurement.get(self.out, unbounded, made).minimum <= self.out.width:
                break
            made.columns = [column for column in made.columns if column.header != name]
        return made

    def complain(self, message: str) -> None:
        """Prints an error message as one line on stderr."""
        self.err.print(f"trimtab: {plain(message)}", markup=False, highlight=False, soft_wrap=True)

    def sparkline(self, values: Sequence[float]) -> str:
        """Returns one character for each value; its height is the value relative to the largest."""
        blocks = _BLOCKS if self._unicode else _ASCII_BLOCKS
        largest = max(values, default=0)
        steps = len(blocks) - 1
        # A value above 0 is never drawn as a space.
        heights = (
            [max(1, round(steps * v / largest)) if v > 0 else 0 for v in values]
            if largest > 0
            else []
        )
        return "".join(blocks[height] for height in heights)

    def bar(self, share: float, width: int = 10) -> str:
        """Returns a bar for a share from 0 to 1, `width` characters at 1."""
        return ("█" if self._unicode else "#") * round(width * min(max(share, 0), 1))

    def move(self, places: int) -> Text:
        """Returns the number of places that an item rose or fell, with an arrow."""
        if places == 0:
            return Text("=", style="dim")
        up, down = ("▲", "▼") if self._unicode else ("+", "-")
        return Text(f"{up}{places}", "green") if places > 0 else Text(f"{down}{-places}", "red")

    @property
    def _unicode(self) -> bool:
        return self.out.encoding.lower().startswith("utf")


def table(*columns: str) -> Table:
    """Creates a table in the style of all commands.

    Args:
        columns: headings. A heading that starts with ">" is a column of numbers, one with "=" a
            column of single words; only other columns are wrapped.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        whole = column.startswith((">", "="))
        made.add_column(
            column[1:] if whole else column,
            justify="right" if column.startswith(">") else "left",
            no_wrap=whole,
            overflow="crop" if whole else "fold",
        )
    return made


def cell(text: object, style: str = "") -> Text:
    """Returns a text from the server as a cell of a table."""
    return Text(plain(str(text)), style)


def plain(text: str) -> str:
    """Returns the text in one line, with spaces for control characters and line breaks."""
    return "".join(char if char.isprintable() else " " for char in text)


def short_id(digest: str) -> str:
    """Returns the first 12 characters of a digest."""
    return plain(digest)[:12]


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(file=stream, width=width, emoji=False)

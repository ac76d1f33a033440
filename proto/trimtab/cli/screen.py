"""Where commands write: tables for people, JSON for programs, complaints on stderr."""

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

# Without a terminal nobody has said how wide a line may be.
PLAIN_WIDTH = 100

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"


@dataclass(frozen=True)
class Screen:
    """Output of one command."""

    out: Console
    err: Console
    json: bool
    """True: only JSON goes to out."""

    @classmethod
    def of_process(cls, *, json: bool) -> "Screen":
        """The process's own streams, as they are now."""
        return cls(_console(stderr=False), _console(stderr=True), json)

    def show(self, *renderables: RenderableType) -> None:
        """Prints for people. Markup in texts is text."""
        for renderable in renderables:
            self.out.print(renderable, markup=False, highlight=False)

    def dump(self, reply: Message | Mapping[str, object]) -> None:
        """Prints for programs: every field under the schema's own name."""
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
        """The table, without spare columns (the first named goes first) where words would be torn apart."""
        unbounded = self.out.options.update_width(
            10_000
        )  # a measure stops at the width that it is taken in
        for name in spare:
            if Measurement.get(self.out, unbounded, made).minimum <= self.out.width:
                break
            made.columns = [column for column in made.columns if column.header != name]
        return made

    def complain(self, message: str) -> None:
        """One line on stderr."""
        self.err.print(f"trimtab: {plain(message)}", markup=False, highlight=False, soft_wrap=True)

    def sparkline(self, values: Sequence[float]) -> str:
        """One character a value, as tall as the value is beside the largest."""
        blocks = _BLOCKS if self._unicode else _ASCII_BLOCKS
        largest = max(values, default=0)
        steps = len(blocks) - 1
        # What is above 0 is never drawn as nothing.
        heights = (
            [max(1, round(steps * v / largest)) if v > 0 else 0 for v in values]
            if largest > 0
            else []
        )
        return "".join(blocks[height] for height in heights)

    def bar(self, share: float, width: int = 10) -> str:
        """A bar of a share from 0 to 1."""
        return ("█" if self._unicode else "#") * round(width * min(max(share, 0), 1))

    def move(self, places: int) -> Text:
        """By how many places an item rose or fell."""
        if places == 0:
            return Text("=", style="dim")
        up, down = ("▲", "▼") if self._unicode else ("+", "-")
        return Text(f"{up}{places}", "green") if places > 0 else Text(f"{down}{-places}", "red")

    @property
    def _unicode(self) -> bool:
        return self.out.encoding.lower().startswith("utf")


def table(*columns: str) -> Table:
    """A table in the one style of all commands.

    Args:
        columns: their headings. Texts may be wrapped, but not where the heading starts with ">",
            which holds numbers, or with "=", which holds single words.
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
    """A text from the server as a table's cell."""
    return Text(plain(str(text)), style)


def plain(text: str) -> str:
    """One line that cannot command the terminal: control characters and line breaks become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def short_id(digest: str) -> str:
    """As much of a digest as tells bundles apart."""
    return plain(digest)[:12]


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(file=stream, width=width, emoji=False)

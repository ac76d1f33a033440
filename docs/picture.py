"""Draws the output of a command as an SVG: python docs/picture.py OUT.svg trimtab ..."""

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100


def main() -> None:
    """Runs the command with colours, and saves its output beside the command line itself."""
    out, *command = sys.argv[1:]
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    printed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    console = Console(record=True, width=WIDTH, file=Path(os.devnull).open("w"))  # noqa: SIM115 -- until exit
    console.print(Text("$ " + " ".join(f'"{word}"' if "=" in word else word for word in command)))
    console.print(Text.from_ansi(printed))
    svg = console.export_svg(title="trimtab")
    # The page must not fetch a font from elsewhere; any monospaced one will do.
    Path(out).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()

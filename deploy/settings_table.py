"""Writes the settings into docs/operating.md: python deploy/settings_table.py [--check].

The table is generated from service/settings.py, which also defines the flags and the environment
variables.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import PydanticUndefined

from service.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operating.md"
BEGIN = "<!-- settings: made by deploy/settings_table.py from service/settings.py -->\n"
END = "<!-- end of settings -->\n"


def main() -> None:
    """Writes the table into the page, or compares it with the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed page, write nothing"
    )
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE.name}: expected the lines {BEGIN!r} and {END!r}, found one or neither")
    fresh = "".join([before, BEGIN, *(f"{line}\n" for line in rows()), END, after])
    if not check:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != page:
        sys.exit(f"stale settings in docs/{PAGE.name}: run python deploy/settings_table.py")


def rows() -> Iterator[str]:
    """Yields the lines of the table: one row for each setting, in the order of the class."""
    shortcuts = Settings.model_config.get("cli_shortcuts") or {}
    yield "| flag | environment | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        flags = [f"`--{name.replace('_', '-')}`"]
        if shortcut := shortcuts.get(name.replace("_", "-")):
            flags += [
                f"`--{part}`" for part in ([shortcut] if isinstance(shortcut, str) else shortcut)
            ]
        default = "required" if field.default is PydanticUndefined else f"`{field.default}`"
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| {', '.join(flags)} | `TRIMTAB_{name.upper()}` | {default} | {meaning} |"


if __name__ == "__main__":
    main()

"""Derives command line flags from options: name, type, default and help have one source."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from training.options import documented

Config = TypeVar("Config")


def add_flags(
    parser: argparse.ArgumentParser, kind: type[Any], prefix: str = "", title: str | None = None
) -> None:
    """Adds one flag per documented field of the options: --PREFIX-NAME, with dashes."""
    group = parser.add_argument_group(title or kind.__name__)
    for name, option in documented(kind).items():
        flag = f"--{prefix}{name}".replace("_", "-")
        shown = "" if option.default is None else f" (default: {_shown(option.default)})"
        settings: dict[str, Any] = {
            "dest": prefix + name,
            "default": option.default,
            "help": option.text.replace("%", "%%") + shown,
        }
        if option.annotation is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings |= {"type": _parser(option.annotation), "metavar": name.upper()}
        group.add_argument(flag, **settings)


def read_flags(
    kind: type[Config], parsed: argparse.Namespace, prefix: str = "", **others: Any
) -> Config:
    """Builds the options that the parsed flags describe; others are fields without a flag.

    Raises:
        ConfigError: if a value is out of its bounds.
    """
    values = {
        name: getattr(parsed, prefix + name)
        for name in documented(kind)
        if hasattr(parsed, prefix + name)
    }
    return kind(**values, **others)


def _parser(annotation: Any) -> Callable[[str], Any]:
    """Returns a parser of a flag's text as that type; its __name__ is shown in argparse's errors.

    Bounds and choices are left to the options, whose errors name the option.
    """
    types = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Literal:
        return str
    kind = types[0] if types else annotation
    adapter = TypeAdapter(kind)

    def parse(text: str) -> Any:
        try:
            return adapter.validate_strings(text)
        except ValidationError as error:
            raise ValueError(text) from error

    parse.__name__ = kind.__name__
    return parse


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

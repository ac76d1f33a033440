"""Command line flags derived from configuration dataclasses: name, type, default and help have one source."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

Config = TypeVar("Config")


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a dataclass and of those that it extends, read from their source."""
    docs: dict[str, str] = {}
    for part in reversed([part for part in kind.__mro__ if dataclasses.is_dataclass(part)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        if not isinstance(body, ast.ClassDef):
            continue
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def add_flags(
    parser: argparse.ArgumentParser, kind: type[Any], prefix: str = "", title: str | None = None
) -> None:
    """One flag per documented field: --PREFIX-NAME, with dashes. Fields without text under them get none."""
    group = parser.add_argument_group(title or kind.__name__)
    types, docs = get_type_hints(kind), field_docs(kind)
    for option in dataclasses.fields(kind):
        if option.name not in docs:
            continue
        flag = f"--{prefix}{option.name}".replace("_", "-")
        help_text = docs[option.name].replace("%", "%%")
        settings: dict[str, Any] = {"dest": prefix + option.name, "default": option.default}
        if types[option.name] is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings |= {"type": _parser(types[option.name]), "metavar": option.name.upper()}
        shown = "" if option.default is None else f" (default: {_shown(option.default)})"
        group.add_argument(flag, help=help_text + shown, **settings)


def read_flags(
    kind: type[Config], parsed: argparse.Namespace, prefix: str = "", **others: Any
) -> Config:
    """The dataclass that the parsed flags describe; others are fields without a flag."""
    documented = field_docs(kind)
    values = {
        name: getattr(parsed, prefix + name)
        for name in documented
        if hasattr(parsed, prefix + name)
    }
    return kind(**values, **others)


def _parser(annotation: Any) -> Any:
    options = [option for option in get_args(annotation) if option is not NoneType]
    kind = options[0] if options else annotation
    if kind not in (int, float, str, Path):
        raise TypeError(f"no flag for a field of type {annotation}")
    return kind


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

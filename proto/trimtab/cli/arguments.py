"""What arguments are made of: texts into numbers, edits, conditions and ids, or a readable refusal."""

import argparse
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from trimtab.channels import check_timeout
from trimtab.filter_text import parse_condition
from trimtab.steer_text import MAX_NEURON, parse_edit
from trimtab.v1.recommendation_pb2 import Filter

_Parsed = TypeVar("_Parsed")

STEER_HELP = (
    "an edit of a concept or of a neuron: 'Film-Noir=+1', '#123=-0.5', 'Film-Noir:set=2' (also scale, cap, "
    "blend, boost), 'Film-Noir:ablate'; 'raw' after the number gives it in units of the code; may be repeated"
)


class InputError(ValueError):
    """Input that no request can be made of; the message says what was found."""


class Commands(Protocol):
    """Where commands are registered."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Adds one."""


def readable(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """The parser as argparse wants it: it shows the text of no other error."""

    def parsed(text: str) -> _Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _seconds(text: str) -> float:
    try:
        return check_timeout(float(text))
    except ValueError:
        raise ValueError(f"{text!r} found, expected seconds above 0") from None


def _whole(text: str, largest: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > largest:
        raise ValueError(f"{text!r} found, expected a whole number from 0 to {largest}")
    return int(text)


def _ids(text: str) -> list[str]:
    ids = [item.strip() for item in text.split(",")] if text else []
    if not all(ids):
        raise ValueError(f"{text!r}: an empty id found, expected ID,ID")
    return ids


seconds = readable(_seconds)
count = readable(lambda text: _whole(text, 2**32 - 1))
neuron = readable(lambda text: _whole(text.removeprefix("#"), MAX_NEURON))
ids = readable(_ids)


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """How long a list is, what may be in it, how it is steered, and by which bundle."""
    parser.add_argument(
        "--n", metavar="N", type=count, default=10, help="how many items; default 10"
    )
    parser.add_argument(
        "--steer",
        metavar="EDIT",
        type=readable(parse_edit),
        action="append",
        default=[],
        help=STEER_HELP,
    )
    parser.add_argument(
        "--filter",
        metavar="CONDITION",
        type=readable(parse_condition),
        action="append",
        default=[],
        help="only items with 'genres=Comedy,Drama' (any of them) or 'year=1990..1999'; may be repeated",
    )
    parser.add_argument(
        "--not",
        metavar="CONDITION",
        dest="filter_out",
        type=readable(parse_condition),
        action="append",
        default=[],
        help="no items with 'genres=Horror'; may be repeated",
    )
    add_bundle_option(parser)


def add_bundle_option(parser: argparse.ArgumentParser) -> None:
    """Which of the server's bundles answers."""
    parser.add_argument(
        "--bundle",
        default="",
        metavar="ID",
        help="a bundle's id or label; the server's default if empty",
    )


def add_history_option(parser: argparse.ArgumentParser) -> None:
    """A history in place of the stored one."""
    parser.add_argument(
        "--history",
        metavar="ID,ID",
        type=ids,
        help="item ids, oldest first, in place of the stored history ('' for none)",
    )


def filter_of(args: argparse.Namespace) -> Filter | None:
    """The filter that --filter and --not make."""
    if not args.filter and not args.filter_out:
        return None
    return Filter(all_of=args.filter, none_of=args.filter_out)

"""Converts command-line arguments to numbers, edits, conditions and ids; adds shared options."""

import argparse
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from trimtab.connection import check_timeout
from trimtab.filter_text import parse_condition
from trimtab.steer_text import MAX_NEURON, parse_edit
from trimtab.v1.recommendation_pb2 import Filter

_Parsed = TypeVar("_Parsed")

STEER_HELP = (
    "an edit of a concept or a neuron: 'Film-Noir=+1', '#123=-0.5', 'Film-Noir:set=2' (also scale, "
    "cap, blend, boost), 'Film-Noir:ablate'; 'raw' after the number means units of the code; may "
    "be repeated"
)


class InputError(ValueError):
    """Input that is not a valid request; the message names what was expected and found."""


class Commands(Protocol):
    """The part of argparse's subparsers that registers a command."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Adds a command."""


def readable(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """Makes a parser raise ArgumentTypeError, the only error whose text argparse shows."""

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
        raise ValueError(f"expected seconds above 0, found {text!r}") from None


def _whole(text: str, largest: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > largest:
        raise ValueError(f"expected a whole number from 0 to {largest}, found {text!r}")
    return int(text)


def _ids(text: str) -> list[str]:
    ids = [item.strip() for item in text.split(",")] if text else []
    if not all(ids):
        raise ValueError(f"{text!r}: expected ID,ID, found an empty id")
    return ids


seconds = readable(_seconds)
count = readable(lambda text: _whole(text, 2**32 - 1))
neuron = readable(lambda text: _whole(text.removeprefix("#"), MAX_NEURON))
ids = readable(_ids)


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the length, steering, filters and bundle of a list."""
    parser.add_argument(
        "--n", metavar="N", type=count, default=10, help="number of items; default 10"
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
        help="only items that fulfil 'genres=Comedy,Drama' (any of them) or 'year=1990..1999'; may "
        "be repeated",
    )
    parser.add_argument(
        "--not",
        metavar="CONDITION",
        dest="filter_out",
        type=readable(parse_condition),
        action="append",
        default=[],
        help="no items that fulfil 'genres=Horror'; may be repeated",
    )
    add_bundle_option(parser)


def add_bundle_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that selects a bundle."""
    parser.add_argument(
        "--bundle",
        default="",
        metavar="ID",
        help="id or label of a bundle; default: the server's default bundle",
    )


def add_history_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that replaces the stored history."""
    parser.add_argument(
        "--history",
        metavar="ID,ID",
        type=ids,
        help="item ids, oldest first, instead of the stored history ('' for an empty one)",
    )


def filter_of(args: argparse.Namespace) -> Filter | None:
    """Returns the filter from --filter and --not, None if neither is given."""
    if not args.filter and not args.filter_out:
        return None
    return Filter(all_of=args.filter, none_of=args.filter_out)

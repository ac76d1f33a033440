"""The `trimtab` command: what a server recommends, knows and holds, on a terminal.

Exit status: 0 all is well, 1 the server said no, could not be reached or does not serve, 2 wrong
usage.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import grpc

from trimtab.channels import DEFAULT_TARGET
from trimtab.cli import cards, concepts, recommend, record, server
from trimtab.cli.arguments import InputError, seconds
from trimtab.cli.screen import Screen
from trimtab.client import Client
from trimtab.errors import TrimtabError

TARGET_VARIABLE = "TRIMTAB_TARGET"
TOKEN_VARIABLE = "TRIMTAB_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments after the command's name; those of the process if None.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(
            stream, "reconfigure"
        ):  # a title that the terminal cannot write is no reason to stop
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    screen = Screen.of_process(json=args.json)
    try:
        with _client(args) as client:
            status: int = args.run(client, args, screen)
        sys.stdout.flush()
    except TrimtabError as error:
        screen.complain("; ".join([str(error), *getattr(error, "__notes__", ())]))
        return 1
    except InputError as error:
        screen.complain(str(error))
        return 2
    except UnicodeEncodeError:
        screen.complain("an argument that is not UTF-8 text found")
        return 2
    except BrokenPipeError:
        # Who read the output has gone; what is still buffered must not be complained about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        screen.complain("interrupted")
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab",
        description=textwrap.dedent(__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_connection(parser, top=True)
    common = argparse.ArgumentParser(add_help=False)
    _add_connection(common, top=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (recommend, concepts, cards, record, server):
        module.register(commands, common)
    return parser


def _add_connection(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """The options of every command, which may stand before or after its name.

    Only the first of the two may have defaults: the second would overwrite what was given before
    the name.
    """

    def default(value: object) -> object:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("connection and output")
    group.add_argument(
        "--target",
        metavar="HOST:PORT",
        default=default(os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET),
        help=f"the server; default ${TARGET_VARIABLE}, else {DEFAULT_TARGET}",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=default(None),
        help="deadline of each call; default 5, for record 30",
    )
    group.add_argument(
        "--token",
        default=default(os.environ.get(TOKEN_VARIABLE)),
        help=f"bearer token; default ${TOKEN_VARIABLE}",
    )
    group.add_argument(
        "--tls", action="store_true", default=default(False), help="encrypt the connection"
    )
    group.add_argument(
        "--ca",
        metavar="FILE",
        type=Path,
        default=default(None),
        help="PEM of who vouches for the server; means --tls",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=default(False),
        help="print the reply as JSON, for programs",
    )


def _client(args: argparse.Namespace) -> Client:
    credentials = None
    if args.tls or args.ca:
        try:
            roots = args.ca.read_bytes() if args.ca else None
        except OSError as error:
            raise InputError(f"--ca {args.ca}: {error.strerror}") from error
        credentials = grpc.ssl_channel_credentials(roots)
    if not args.target:
        raise InputError("--target: an empty text found, expected HOST:PORT")
    return Client(args.target, credentials=credentials, token=args.token)

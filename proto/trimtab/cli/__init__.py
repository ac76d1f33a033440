"""Shows recommendations, concepts and state of a Trimtab server in the terminal.

Exit status: 0 success, 1 the server refused, could not be reached or is not serving, 2 wrong usage.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import grpc

from trimtab.cli import cards, concepts, recommend, record, server
from trimtab.cli.arguments import InputError, seconds
from trimtab.cli.screen import Screen
from trimtab.client import Client
from trimtab.connection import DEFAULT_TARGET
from trimtab.errors import TrimtabError

TARGET_VARIABLE = "TRIMTAB_TARGET"
TOKEN_VARIABLE = "TRIMTAB_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments after the command's name; None for those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # The terminal's encoding may lack a character of a title.
        if hasattr(stream, "reconfigure"):
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
        screen.complain("arguments: expected UTF-8 text, found bytes that are not UTF-8")
        return 2
    except BrokenPipeError:
        # The reader closed the pipe. Python would report what is still buffered at exit.
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
    """Adds the options of every command, which may come before or after its name.

    Only those before the name (`top`) have defaults; defaults after the name would overwrite
    options that were given before it.
    """

    def default(value: object) -> object:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("connection and output")
    group.add_argument(
        "--target",
        metavar="HOST:PORT",
        default=default(os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET),
        help=f"address of the server; default ${TARGET_VARIABLE}, else {DEFAULT_TARGET}",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=default(None),
        help="deadline of each call; default 5, record 30, label sets 60",
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
        help="PEM file of the certificate authority of the server; implies --tls",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=default(False),
        help="print the reply as JSON",
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
        raise InputError("--target: expected HOST:PORT, found an empty text")
    return Client(args.target, credentials=credentials, token=args.token)

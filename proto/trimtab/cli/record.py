"""Commands record and forget: add events of users, and remove what is stored about a user."""

import argparse
import dataclasses
import time
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trimtab.cli.arguments import Commands, InputError, readable
from trimtab.cli.event_files import open_events, parse_time
from trimtab.cli.screen import Screen, cell
from trimtab.client import Client
from trimtab.connection import RECORD_TIMEOUT_S
from trimtab.event_messages import EVENT_KINDS, interaction
from trimtab.recording import RecordTotals
from trimtab.v1.recommendation_pb2 import Interaction


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Registers the commands."""
    parser = commands.add_parser(
        "record",
        parents=[common],
        help="add one event or a file of events",
        description="Adds one event (--user, --item) or a file of events (--from).",
    )
    parser.add_argument("--user", metavar="ID", help="id of the user")
    parser.add_argument("--item", metavar="ID", help="id of the item")
    parser.add_argument("--kind", choices=EVENT_KINDS, help="kind of feedback; default: unknown")
    parser.add_argument(
        "--value", metavar="X", type=float, help="value of a rating, on the data set's own scale"
    )
    parser.add_argument(
        "--time",
        metavar="T",
        type=readable(parse_time),
        help="seconds since 1970 or ISO 8601; default: now",
    )
    parser.add_argument(
        "--event-id", metavar="ID", default="", help="events with the same id count once"
    )
    parser.add_argument(
        "--from",
        metavar="FILE",
        dest="path",
        type=Path,
        help="a .parquet, .csv, .tsv, .inter or .jsonl file with the columns user_id and item_id; "
        "optional columns: rating or value, timestamp (seconds), kind, event_id. A file that is "
        "recorded again does not count twice",
    )
    parser.set_defaults(run=record)

    parser = commands.add_parser(
        "forget", parents=[common], help="remove everything that is stored about a user"
    )
    parser.add_argument("user", metavar="USER", help="id of the user")
    parser.set_defaults(run=forget)


def record(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Records one event or a file of events."""
    one = {"--user": args.user, "--item": args.item, "--kind": args.kind, "--value": args.value}
    one |= {"--time": args.time, "--event-id": args.event_id or None}
    if args.path is not None:
        if extra := [name for name, value in one.items() if value is not None]:
            raise InputError(f"expected either --from or {', '.join(extra)}, found both")
        return _record_file(client, args, screen)
    if args.user is None or args.item is None:
        raise InputError("expected --user and --item, or --from FILE, found neither")
    event = _event(args)
    totals = client.record([event], timeout=args.timeout or RECORD_TIMEOUT_S)
    if screen.json:
        screen.dump(dataclasses.asdict(totals))
    else:
        screen.show(cell(_summary(totals)))
    return 0


def forget(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Removes everything that is stored about a user."""
    reply = client.forget_user(args.user, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    elif reply.found:
        screen.show(cell(f"everything stored about user {args.user} is removed"))
    else:
        screen.show(cell(f"nothing was stored about user {args.user}"))
    return 0


def _event(args: argparse.Namespace) -> Interaction:
    try:
        return interaction(
            args.user,
            args.item,
            kind=args.kind,
            value=args.value,
            time=args.time,
            event_id=args.event_id,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _record_file(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    file = open_events(args.path)
    start = time.perf_counter()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen.err,
        transient=True,
        disable=not screen.err.is_terminal,
    ) as progress:
        task = progress.add_task(file.path.name, total=file.row_count)
        totals = client.record(
            file.interactions,
            timeout=args.timeout or RECORD_TIMEOUT_S,
            progress=lambda so_far: progress.update(task, completed=so_far.sent_count),
        )
    seconds = time.perf_counter() - start
    rate = totals.sent_count / seconds
    if screen.json:
        screen.dump(dataclasses.asdict(totals) | {"seconds": seconds, "events_per_second": rate})
    else:
        screen.show(
            cell(_summary(totals)),
            cell(f"{seconds:.1f} s, {rate:,.0f} events/s, {totals.call_count:,} calls"),
        )
    return 0


def _summary(totals: RecordTotals) -> str:
    parts = [f"{totals.accepted_count:,} recorded"]
    if totals.duplicate_count:
        parts.append(f"{totals.duplicate_count:,} had been recorded before")
    if totals.unknown_item_count:
        parts.append(
            f"{totals.unknown_item_count:,} with items that the default bundle does not know"
        )
    return ", ".join(parts)

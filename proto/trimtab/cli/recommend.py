"""Commands recommend and similar: lists, unsteered lists, reasons and steering reports."""

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.table import Table
from rich.text import Text

from trimtab.cli.arguments import (
    Commands,
    InputError,
    add_history_option,
    add_list_options,
    filter_of,
    ids,
    readable,
)
from trimtab.cli.screen import Screen, cell, table
from trimtab.cli.served_by import enum_text, served_by_line
from trimtab.client import Client
from trimtab.share_text import parse_share
from trimtab.steering_messages import steering
from trimtab.v1.recommendation_pb2 import (
    Reason,
    ReasonKind,
    Recommendation,
    RecommendResponse,
    Timing,
)
from trimtab.v1.steering_pb2 import (
    Bound,
    EditReport,
    Operation,
    Steering,
    SteeringReport,
    TargetReport,
)

_BOUNDS = {
    Bound.BOUND_BUDGET: "limited by the budget",
    Bound.BOUND_TARGET: "set by the target shares",
}


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Registers the commands."""
    parser = commands.add_parser(
        "recommend", parents=[common], help="recommend items for a user or a history"
    )
    parser.add_argument("--user", metavar="ID", help="id of the user")
    add_history_option(parser)
    add_list_options(parser)
    parser.add_argument(
        "--exclude",
        metavar="ID,ID",
        type=ids,
        action="extend",
        default=[],
        help="items to leave out",
    )
    parser.add_argument(
        "--mode",
        choices=["residual", "reconstruct"],
        help="how the edited code returns into the model",
    )
    parser.add_argument(
        "--share",
        metavar="SHARE",
        type=readable(parse_share),
        action="append",
        default=[],
        help="target share of a concept in the list: 'Film-Noir>=0.3', 'Drama<=0.5', "
        "'Comedy=0.2..0.4', or as a multiple of its share without steering: 'Drama<=0.5x'; may be "
        "repeated",
    )
    parser.add_argument(
        "--budget",
        "--max-relevance-loss",
        metavar="LOSS",
        type=float,
        help="largest relevance loss that steering may cause, from 0 to 1",
    )
    parser.add_argument(
        "--policy", metavar="NAME", default="", help="name of a stored steering policy"
    )
    parser.add_argument("--explain", action="store_true", help="show the reasons of each item")
    parser.add_argument(
        "--unsteered", action="store_true", help="show the list without steering, too"
    )
    parser.add_argument("--report", action="store_true", help="show what steering did")
    parser.set_defaults(run=recommend)

    parser = commands.add_parser("similar", parents=[common], help="recommend items similar to one")
    parser.add_argument("item", metavar="ITEM", help="id of the item")
    add_list_options(parser)
    parser.set_defaults(run=similar)


def recommend(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows one list, and the unsteered one if requested."""
    if args.user is None and args.history is None:
        raise InputError("expected --user or --history, found neither")
    start = time.perf_counter()
    reply = client.recommend(
        args.user,
        n=args.n,
        history=args.history,
        steer=_steering(args),
        filter=filter_of(args),
        exclude=args.exclude,
        explain=args.explain,
        include_unsteered=args.unsteered,
        include_report=args.report,
        bundle=args.bundle,
        timeout=args.timeout,
    )
    round_trip_ms = (time.perf_counter() - start) * 1e3
    if screen.json:
        screen.dump(reply)
        return 0
    if reply.unsteered:
        screen.show(
            screen.fitted(_side_by_side(reply, screen, explain=args.explain), "score", "unsteered")
        )
    else:
        screen.show(_list(reply.items, explain=args.explain))
    if reply.HasField("report"):
        screen.show(*_report(reply.report, screen))
    screen.show(
        served_by_line(reply.served_by),
        Text(_timing(reply.timing, round_trip_ms), "dim"),
    )
    return 0


def similar(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the list for a history that consists of one item."""
    reply = client.similar_items(
        args.item,
        n=args.n,
        steer=args.steer or None,
        filter=filter_of(args),
        bundle=args.bundle,
        timeout=args.timeout,
    )
    if screen.json:
        screen.dump(reply)
    else:
        screen.show(_list(reply.items), served_by_line(reply.served_by))
    return 0


def _steering(args: argparse.Namespace) -> Steering | None:
    message = steering(
        args.steer,
        shares=args.share,
        max_relevance_loss=args.budget,
        mode=args.mode,
        policy=args.policy,
    )
    return None if message == Steering() else message


def _list(items: Sequence[Recommendation], *, explain: bool = False) -> Table | str:
    if not items:
        return "no items left: all were seen, excluded or filtered out"
    made = table(">#", "item", "title", ">score", *(["why"] if explain else []))
    for item in items:
        why = [_why(item.reasons)] if explain else []
        made.add_row(
            str(item.rank), cell(item.item_id), cell(item.title), f"{item.score:.4g}", *why
        )
    return made


def _side_by_side(reply: RecommendResponse, screen: Screen, *, explain: bool) -> Table:
    made = table(">#", "unsteered", "steered", ">moved", ">score", *(["why"] if explain else []))
    for rank, (before, item) in enumerate(zip_longest(reply.unsteered, reply.items), start=1):
        left = cell(before.title or before.item_id, "dim") if before is not None else ""
        if item is None:
            made.add_row(str(rank), left)
            continue
        if item.HasField("unsteered_rank"):
            moved = screen.move(item.unsteered_rank - item.rank)
        else:
            moved = Text("new", "cyan")
        why = [_why(item.reasons)] if explain else []
        made.add_row(
            str(rank), left, cell(item.title or item.item_id), moved, f"{item.score:.4g}", *why
        )
    return made


def _why(reasons: Sequence[Reason]) -> Text:
    return cell(
        "  ".join(f"{_reason_name(reason)} {reason.contribution:+.3g}" for reason in reasons)
    )


def _reason_name(reason: Reason) -> str:
    kind = reason.WhichOneof("source")
    if kind == "neuron":
        return f"#{reason.neuron}"
    if kind == "concept":
        return reason.concept
    return enum_text(ReasonKind.Name(reason.kind), "REASON_KIND") if kind else "?"


def _report(report: SteeringReport, screen: Screen) -> Iterator[Table | Text]:
    parts = [
        f"{report.applied_fraction:.0%} of the steering applied",
        *([_BOUNDS[report.bound]] if report.bound in _BOUNDS else []),
        f"relevance loss {report.relevance_loss:.1%}",
        f"{report.overlap:.0%} of the items in both lists",
    ]
    yield Text("; ".join(parts))
    if report.edits:
        yield screen.fitted(_edits(report.edits), "raw", "operation")
    if report.concepts:
        yield _shares(report)


def _edits(edits: Sequence[EditReport]) -> Table:
    made = table("edit of", "=operation", ">raw", ">before", ">after", ">applied")
    for edit in edits:
        applied = Text("no effect", "yellow") if edit.no_effect else f"{edit.applied_fraction:.0%}"
        operation = enum_text(Operation.Name(edit.operation), "OPERATION")
        levels = (
            f"{value:.3g}" for value in (edit.raw_strength, edit.level_before, edit.level_after)
        )
        made.add_row(cell(edit.target), operation, *levels, applied)
    return made


def _shares(report: SteeringReport) -> Table:
    """Builds the table of concept shares, by items and by exposure; targets are by items."""
    targets = {target.concept: target for target in report.targets}
    made = table(
        "share of the list", ">items before", ">items", ">exposure before", ">exposure", "=target"
    )
    for share in report.concepts:
        parts = (share.unsteered_item_share, share.item_share, share.unsteered_share, share.share)
        target = targets.get(share.concept)
        made.add_row(cell(share.concept), *(f"{part:.1%}" for part in parts), _target(target))
    return made


def _target(target: TargetReport | None) -> Text | str:
    if target is None:
        return ""
    met = Text("met", "green") if target.met else Text("not met", "yellow")
    met.append(f": {target.items} in {target.min_items}..{target.max_items}")
    return met.append(f", lift {target.lift:.3g}") if target.lift else met


def _timing(timing: Timing, round_trip_ms: float) -> str:
    stages = [
        f"{field.name.removesuffix('_us')} {value / 1e3:.2f}"
        for field, value in timing.ListFields()
        if field.name != "total_us"
    ]
    inside = f"{timing.total_us / 1e3:.2f} ms in the server" + (
        f" ({', '.join(stages)})" if stages else ""
    )
    return f"{round_trip_ms:.1f} ms round trip, {inside}"

"""Commands bundles and status: loaded bundles and health of a server."""

import argparse
from collections.abc import Iterator, Sequence

from google.protobuf import json_format
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.cli.arguments import Commands, seconds
from trimtab.cli.screen import Screen, cell, short_id, table
from trimtab.client import Client
from trimtab.connection import ServerStatus
from trimtab.v1.bundle_pb2 import LoadedBundle

_STYLES = {"SERVING": "green", "NOT_SERVING": "red"}


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Registers the commands."""
    group = commands.add_parser("bundles", help="show the bundles of the server")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = inner.add_parser("list", parents=[common], help="list the loaded bundles")
    parser.set_defaults(run=list_bundles)

    parser = commands.add_parser(
        "status", parents=[common], help="show the health of the server; fails if it is not serving"
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait up to this time until the server is serving",
    )
    parser.set_defaults(run=show_status)


def list_bundles(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the loaded bundles."""
    reply = client.list_bundles(timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    elif reply.bundles:
        screen.show(_bundles(reply.bundles, screen))
    else:
        screen.show("the server has no bundle")
    return 0


def show_status(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the health of each service and the bundles. Returns 1 if the server is not serving."""
    if args.wait > 0:
        client.wait_until_serving(args.wait)
    status = client.status(timeout=args.timeout)
    if screen.json:
        screen.dump(_fields(status))
    else:
        screen.show(*_status(status, screen))
    return 0 if status.serving else 1


def _status(status: ServerStatus, screen: Screen) -> Iterator[RenderableType]:
    yield cell(f"{status.target} answers, a health check takes {status.latency_ms:.2f} ms")
    made = table("service", "=health")
    for name, health in status.services.items():
        made.add_row(name or "the server as a whole", Text(health, _STYLES.get(health, "dim")))
    yield made
    if status.bundles_error:
        yield cell(f"the bundles cannot be listed: {status.bundles_error}")
    if status.bundles:
        yield _bundles(status.bundles, screen)


def _bundles(bundles: Sequence[LoadedBundle], screen: Screen) -> Table:
    made = table("=bundle", "labels", "data", "models", ">items", ">neurons", ">k", "=made")
    for bundle in bundles:
        manifest = bundle.manifest
        provenance = manifest.provenance
        sizes = manifest.dimensions
        made.add_row(
            short_id(bundle.bundle_id),
            cell(", ".join(bundle.labels) or "-"),
            cell(provenance.data_set),
            cell(f"{provenance.recommender}, {provenance.sae}"),
            f"{sizes.n_items:,}",
            f"{sizes.n_neurons:,}",
            str(sizes.k),
            f"{manifest.create_time.ToDatetime():%Y-%m-%d}"
            if manifest.HasField("create_time")
            else "-",
        )
    return screen.fitted(made, "made", "k", "models", "neurons", "items")


def _fields(status: ServerStatus) -> dict[str, object]:
    return {
        "target": status.target,
        "serving": status.serving,
        "latency_ms": status.latency_ms,
        "services": status.services,
        "bundles": [
            json_format.MessageToDict(bundle, preserving_proto_field_name=True)
            for bundle in status.bundles
        ],
        "bundles_error": status.bundles_error,
    }

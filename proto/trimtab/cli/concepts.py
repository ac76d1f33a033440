"""Commands for concepts: list, search, and exchange of label sets."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trimtab.cli.arguments import Commands, InputError, add_bundle_option, count
from trimtab.cli.screen import Screen, cell, table
from trimtab.client import Client
from trimtab.connection import LABELS_TIMEOUT_S
from trimtab.errors import InvalidArgument
from trimtab.label_files import LabelFileError, read_labels, write_labels
from trimtab.v1.concept_pb2 import Concept, ListConceptsResponse, SearchResult

_RECORD = re.compile(r"records\[(\d+)\]\.?(.*)", re.DOTALL)


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Registers the commands."""
    group = commands.add_parser("concepts", help="list, search and exchange concepts")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = inner.add_parser("list", parents=[common], help="list all concepts")
    add_bundle_option(parser)
    parser.set_defaults(run=list_all)

    parser = inner.add_parser("search", parents=[common], help="find concepts and neurons by text")
    parser.add_argument("query", metavar="TEXT", nargs="+")
    parser.add_argument(
        "--n", metavar="N", type=count, default=20, help="number of results; default 20"
    )
    add_bundle_option(parser)
    parser.set_defaults(run=search)

    parser = inner.add_parser("export", parents=[common], help="write a label set as JSON lines")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="default: standard output"
    )
    parser.add_argument(
        "--label-set", metavar="VERSION", default="", help="default: the current label set"
    )
    add_bundle_option(parser)
    parser.set_defaults(run=export_labels)

    parser = inner.add_parser("import", parents=[common], help="add a label set from JSON lines")
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the whole label set: it replaces the current one"
    )
    text = "keep the current label set; requests may pin the new one by its version"
    parser.add_argument("--pinned-only", action="store_true", help=text)
    add_bundle_option(parser)
    parser.set_defaults(run=import_labels)

    parser = inner.add_parser("sets", parents=[common], help="list the label sets of the bundle")
    add_bundle_option(parser)
    parser.set_defaults(run=list_sets)

    parser = inner.add_parser(
        "use", parents=[common], help="make another label set the current one"
    )
    parser.add_argument("label_set", metavar="VERSION")
    add_bundle_option(parser)
    parser.set_defaults(run=use_set)


def list_all(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows all concepts, from all pages."""
    concepts = list(client.list_concepts(bundle=args.bundle, timeout=args.timeout))
    if screen.json:
        screen.dump(ListConceptsResponse(concepts=concepts))
    elif concepts:
        screen.show(
            screen.fitted(_concepts(concepts), "unit", "top neurons", "AUC", "attribute"),
            Text(
                "share: mean in lists of 20 for validation users, unsteered and steered by +1",
                "dim",
            ),
        )
    else:
        screen.show("the bundle has no concepts")
    return 0


def search(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the concepts and neurons that match a text."""
    query = " ".join(args.query)
    reply = client.search_concepts(query, n=args.n, bundle=args.bundle, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    elif reply.results:
        screen.show(_results(reply.results))
    else:
        screen.show(cell(f"no concept and no neuron's label matches {query!r}"))
    return 0


def export_labels(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Writes a label set to a file or to standard output."""
    timeout = args.timeout or LABELS_TIMEOUT_S
    records = client.export_labels(label_set=args.label_set, bundle=args.bundle, timeout=timeout)
    if args.file is None:
        write_labels(screen.out.file, records)
        return 0
    try:
        with args.file.open("w", encoding="utf-8") as file:
            count = write_labels(file, records)
    except OSError as error:
        raise InputError(f"{args.file}: {error.strerror}") from error
    screen.show(f"{count:,} records in {args.file}")
    return 0


def import_labels(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Adds a label set from a file; the error for a refused record names its line."""
    try:
        records = list(read_labels(args.file))
        reply = client.import_labels(
            records,
            pinned_only=args.pinned_only,
            bundle=args.bundle,
            timeout=args.timeout or LABELS_TIMEOUT_S,
        )
    except LabelFileError as error:
        raise InputError(str(error)) from error
    except InvalidArgument as error:
        for violation in error.violations:
            if match := _RECORD.match(violation.field):
                line = int(match[1]) + 1
                field = f"{match[2]}: " if match[2] else ""
                text = f"{args.file}, line {line}: {field}{violation.description}"
                raise InputError(text) from error
        raise
    if screen.json:
        screen.dump(reply)
        return 0
    screen.show(
        f"label set {reply.label_set}: {reply.imported_count:,} records,"
        f" {reply.concept_count:,} concepts"
    )
    if reply.lost_concepts:
        screen.show(
            cell(f"concepts of the previous set that it lacks: {', '.join(reply.lost_concepts)}")
        )
    return 0


def list_sets(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the label set of the bundle itself and the imported ones."""
    reply = client.list_label_sets(bundle=args.bundle, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
        return 0
    made = table("label set", ">concepts", "current", "from")
    for label_set in reply.label_sets:
        made.add_row(
            label_set.label_set,
            f"{label_set.concept_count:,}",
            "*" if label_set.current else "",
            "the bundle" if label_set.of_bundle else "an import",
        )
    screen.show(made)
    return 0


def use_set(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Makes another label set the current one."""
    reply = client.use_label_set(args.label_set, bundle=args.bundle, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    else:
        screen.show(cell(f"current label set: {args.label_set}"))
    return 0


def _concepts(concepts: Sequence[Concept]) -> Table:
    made = table(
        "concept", "=attribute", ">items", ">AUC", ">share", ">steered", ">unit", "top neurons"
    )
    for concept in concepts:
        made.add_row(
            cell(concept.name, "bold"),
            cell(concept.attribute),
            f"{concept.item_count:,}",
            f"{concept.auc:.2f}" if concept.HasField("auc") else "-",
            f"{concept.unsteered_share:.1%}",
            f"{concept.steered_share:.1%}",
            f"{concept.unit:.3g}",
            " ".join(f"#{weighted.neuron}" for weighted in concept.top_neurons[:3]),
        )
    return made


def _results(results: Sequence[SearchResult]) -> Table:
    made = table(">match", "steer by", "what it is")
    for result in results:
        if result.WhichOneof("result") == "neuron":
            card = result.neuron
            labels = "; ".join(label.text for label in card.labels) or "without a label"
            name = f"#{card.neuron}"
            what = f"neuron: {labels}"
        else:
            concept = result.concept
            name = concept.name
            what = f"concept of {concept.attribute}, {concept.item_count:,} items"
        made.add_row(f"{result.match:.0%}", cell(name, "bold"), cell(what))
    return made

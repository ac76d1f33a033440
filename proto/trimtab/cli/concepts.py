"""trimtab concepts: what can be steered by name."""

import argparse
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from trimtab.cli.arguments import Commands, add_bundle_option, count
from trimtab.cli.screen import Screen, cell, table
from trimtab.client import Client
from trimtab.v1.concept_pb2 import Concept, ListConceptsResponse, SearchResult


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the commands."""
    group = commands.add_parser("concepts", help="what can be steered by name")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = inner.add_parser("list", parents=[common], help="every concept")
    add_bundle_option(parser)
    parser.set_defaults(run=list_all)

    parser = inner.add_parser("search", parents=[common], help="concepts and neurons by text")
    parser.add_argument("query", metavar="TEXT", nargs="+")
    parser.add_argument("--n", metavar="N", type=count, default=20, help="how many; default 20")
    add_bundle_option(parser)
    parser.set_defaults(run=search)


def list_all(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Every concept, from all pages."""
    concepts = list(client.list_concepts(bundle=args.bundle, timeout=args.timeout))
    if screen.json:
        screen.dump(ListConceptsResponse(concepts=concepts))
    elif concepts:
        screen.show(
            screen.fitted(_concepts(concepts), "unit", "top neurons", "AUC", "attribute"),
            Text("share: of lists of 20 for validation users, unsteered and steered by +1", "dim"),
        )
    else:
        screen.show("the bundle has no concepts")
    return 0


def search(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Concepts and neurons by text."""
    query = " ".join(args.query)
    reply = client.search_concepts(query, n=args.n, bundle=args.bundle, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    elif reply.results:
        screen.show(_results(reply.results))
    else:
        screen.show(cell(f"no concept and no neuron's label matches {query!r}"))
    return 0


def _concepts(concepts: Sequence[Concept]) -> Table:
    made = table("concept", "=attribute", ">items", ">AUC", ">share", ">steered", ">unit", "top neurons")
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
            name, what = f"#{card.neuron}", f"neuron: {labels}"
        else:
            concept = result.concept
            name, what = concept.name, f"concept of {concept.attribute}, {concept.item_count:,} items"
        made.add_row(f"{result.match:.0%}", cell(name, "bold"), cell(what))
    return made

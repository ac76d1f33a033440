"""Commands neuron, user and contrast: concept cards, active neurons and differences of sets."""

import argparse
import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.cli.arguments import (
    Commands,
    InputError,
    add_bundle_option,
    add_history_option,
    count,
    ids,
    neuron,
)
from trimtab.cli.screen import Screen, cell, table
from trimtab.cli.served_by import served_by_line
from trimtab.client import Client
from trimtab.v1.concept_pb2 import (
    ConceptDifference,
    ConceptLevel,
    HistoryItem,
    ItemActivation,
    NeuronActivation,
    NeuronCard,
    NeuronDifference,
)

_QUANTILES = ("median", "75%", "90%", "95%", "99%", "largest")


def register(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Registers the commands."""
    parser = commands.add_parser("neuron", parents=[common], help="show the card of a neuron")
    parser.add_argument(
        "neuron",
        metavar="NEURON",
        type=neuron,
        help="index of the neuron, for instance 123 or '#123'",
    )
    add_bundle_option(parser)
    parser.set_defaults(run=show_neuron)

    parser = commands.add_parser(
        "user", parents=[common], help="show the active neurons and concepts of a user"
    )
    parser.add_argument("user", metavar="USER", nargs="?", help="id of the user")
    add_history_option(parser)
    parser.add_argument(
        "--n", metavar="N", type=count, default=15, help="rows of each table; default 15"
    )
    add_bundle_option(parser)
    parser.set_defaults(run=show_user)

    parser = commands.add_parser(
        "contrast", parents=[common], help="show the differences between two sets of users or items"
    )
    for side in ("left", "right"):
        parser.add_argument(
            side, metavar="ID,ID", type=ids, help="ids of users, or of items with --items"
        )
    parser.add_argument("--items", action="store_true", help="the ids are item ids")
    parser.add_argument(
        "--n", metavar="N", type=count, default=15, help="rows of each table; default 15"
    )
    add_bundle_option(parser)
    parser.set_defaults(run=show_contrast)


def show_neuron(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the card of one neuron."""
    reply = client.get_neuron(args.neuron, bundle=args.bundle, timeout=args.timeout)
    if screen.json:
        screen.dump(reply)
    else:
        screen.show(*_card(reply.card, screen))
    return 0


def show_user(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the history, the active neurons and the concept levels of a user."""
    if args.user is None and args.history is None:
        raise InputError("expected USER or --history, found neither")
    reply = client.inspect_user(
        args.user, history=args.history, bundle=args.bundle, timeout=args.timeout
    )
    if screen.json:
        screen.dump(reply)
        return 0
    screen.show(*_history(reply.history, args.n))
    if reply.neurons:
        screen.show(_neurons(reply.neurons[: args.n], screen))
    else:
        screen.show("no neuron is active")
    levels = sorted(reply.concepts, key=lambda level: -level.strength)[: args.n]
    if levels:
        screen.show(_levels(levels))
    screen.show(served_by_line(reply.served_by))
    return 0


def show_contrast(client: Client, args: argparse.Namespace, screen: Screen) -> int:
    """Shows the concepts and neurons that differ most between two sets."""
    reply = client.contrast(
        args.left, args.right, items=args.items, n=args.n, bundle=args.bundle, timeout=args.timeout
    )
    if screen.json:
        screen.dump(reply)
        return 0
    kind = "items" if args.items else "users"
    screen.show(f"{reply.left_count:,} {kind} on the left, {reply.right_count:,} on the right")
    if reply.ignored_count:
        screen.show(f"{reply.ignored_count:,} ignored: the bundle does not know them")
    if reply.concepts:
        screen.show(_differences("concept", [(one.concept, one) for one in reply.concepts]))
    named = [(f"#{one.neuron} {one.label}".rstrip(), one) for one in reply.neurons]
    screen.show(_differences("neuron", named))
    return 0


def _card(card: NeuronCard, screen: Screen) -> Iterator[RenderableType]:
    name = card.labels[0].text if card.labels else "without a label"
    dead = " (dead: never active in training users)" if card.dead else ""
    yield cell(f"neuron {card.neuron}: {name}{dead}", "bold")
    if card.labels:
        yield _labels(card)
    yield from _activations(card, screen)
    if card.top_items or card.raised_items or card.lowered_items:
        yield _items(card)
    yield from _similarities(card)


def _activations(card: NeuronCard, screen: Screen) -> Iterator[RenderableType]:
    yield cell(f"active in {card.density:.2%} of users; one unit of strength is {card.unit:.3g}")
    if card.quantiles:
        named = zip(_QUANTILES, card.quantiles, strict=False)
        yield cell(
            "activation where active: " + ", ".join(f"{name} {value:.3g}" for name, value in named)
        )
    if any(card.histogram):
        drawn = screen.sparkline([math.log1p(users) for users in card.histogram])
        top = f"{card.quantiles[-1]:.3g}" if card.quantiles else "largest"
        # Not cell(): the bars are not from the server.
        yield Text(f"0 |{drawn}| {top}   users per bin of activation, log scale")


def _similarities(card: NeuronCard) -> Iterator[RenderableType]:
    if card.HasField("monosemanticity"):
        yield cell(
            f"monosemanticity {card.monosemanticity:.2f}: similarity of the items that activate it"
        )
    if card.HasField("entropy"):
        yield cell(f"entropy over concepts {card.entropy:.2f}, from 0 (one) to 1 (all alike)")
    if card.nearest:
        nearest = (f"#{n.neuron} {n.label} ({n.cosine:.2f})" for n in card.nearest)
        yield cell("nearest by decoder row: " + ", ".join(nearest))


def _labels(card: NeuronCard) -> Table:
    made = table("label", "method", ">score", "provenance")
    for label in card.labels:
        made.add_row(
            cell(label.text),
            cell(label.method),
            f"{label.score:.2f}",
            cell(label.provenance, "dim"),
        )
    return made


def _items(card: NeuronCard) -> Table:
    made = table("fires most for", ">", "raises", ">", "lowers", ">")
    for row in zip_longest(card.top_items, card.raised_items, card.lowered_items):
        made.add_row(*(part for item in row for part in _item(item)))
    return made


def _item(item: ItemActivation | None) -> tuple[RenderableType, str]:
    return ("", "") if item is None else (cell(item.title or item.item_id), f"{item.value:.3g}")


def _history(history: Sequence[HistoryItem], n: int) -> Iterator[RenderableType]:
    if not history:
        yield "no history with items that the bundle knows"
        return
    yield f"history as it was read, newest of {len(history):,} first"
    made = table("item", "title")
    for item in history[:n]:
        made.add_row(cell(item.item_id), cell(item.title))
    if len(history) > n:
        made.add_row("", Text(f"and {len(history) - n:,} more", "dim"))
    yield made


def _neurons(neurons: Sequence[NeuronActivation], screen: Screen) -> Table:
    made = table(">neuron", "label", ">activation", ">strength", "")
    strongest = max(max(one.strength for one in neurons), 1e-9)
    for one in neurons:
        bar = screen.bar(one.strength / strongest)
        made.add_row(
            f"#{one.neuron}", cell(one.label), f"{one.activation:.3g}", f"{one.strength:.2f}", bar
        )
    return made


def _levels(levels: Sequence[ConceptLevel]) -> Table:
    made = table("concept", ">level", ">strength")
    for one in levels:
        made.add_row(cell(one.concept), f"{one.level:.3g}", f"{one.strength:+.2f}")
    return made


def _differences(
    kind: str, named: Sequence[tuple[str, NeuronDifference] | tuple[str, ConceptDifference]]
) -> Table:
    made = table(kind, ">left", ">right", ">difference", ">left has more")
    for name, one in named:
        means = (f"{one.left_mean:.3g}", f"{one.right_mean:.3g}")
        made.add_row(cell(name), *means, f"{one.strength:+.2f}", f"{one.auc:.0%}")
    return made

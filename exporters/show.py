"""Prints bundles and exports as tables on a terminal."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from trimtab.manifest import FLAT
from trimtab.v1.bundle_pb2 import AttributeKind, BundleManifest, IndexInfo, ScaleRule

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from exporters.carry_over import CarriedOver


CONCEPTS_SHOWN = 20
"""Rows of the table of concepts, so that it fits on a screen."""


def print_summary(
    console: Console, directory: Path, manifest: BundleManifest, *, seconds: float, new: bool
) -> None:
    """Prints the outcome of an export; new is False if the same bundle was there already."""
    rows = [("bundle", str(directory)), ("id", manifest.bundle_id[:12]), *_model_rows(manifest)]
    size = sum(file.size_bytes for file in manifest.files)
    rows += [
        ("size", f"{_bytes(size)} in {len(manifest.files) + 1} files"),
        ("took", f"{seconds:.1f} s"),
    ]
    title = (
        "Exported, and checked against torch"
        if new
        else "Already there and the same: nothing written"
    )
    console.print(_pairs(title, rows))
    if manifest.index.trials:
        console.print(_trials(manifest.index))


def print_details(console: Console, directory: Path, manifest: BundleManifest) -> None:
    """Prints everything that the manifest says, and the concepts."""
    made = manifest.provenance
    console.print(
        _pairs(
            "Bundle",
            [
                ("directory", str(directory)),
                ("id", manifest.bundle_id),
                ("model id", manifest.model_id),
                ("label set", manifest.label_set),
                ("format", str(manifest.format_version)),
                ("created", manifest.create_time.ToJsonString()),
                *_model_rows(manifest),
                (
                    "attributes",
                    ", ".join(f"{one.name} ({_kind(one.kind)})" for one in manifest.attributes),
                ),
            ],
        )
    )
    trained = [
        ("data set", made.data_set),
        ("split", made.split),
        ("seed", str(made.seed)),
        ("code", made.code_version),
        *((f"{name}", f"{made.metrics[name]:.4f}") for name in sorted(made.metrics)),
        *_settings(made.config_json),
    ]
    console.print(_pairs("Trained on", trained))
    if manifest.index.trials:
        console.print(_trials(manifest.index))
    files = Table(title="Files", title_justify="left")
    for name, side in (("file", "left"), ("size", "right"), ("shape", "right"), ("sha256", "left")):
        files.add_column(name, justify="right" if side == "right" else "left")
    for file in manifest.files:
        shape = " x ".join(f"{length:,}" for length in file.shape)
        files.add_row(file.name, _bytes(file.size_bytes), shape, file.sha256[:12])
    console.print(files)
    console.print(_concepts(directory))


def _model_rows(manifest: BundleManifest) -> list[tuple[str, str]]:
    dims = manifest.dimensions
    history = manifest.history
    rule = ScaleRule.Name(manifest.scale_rule).removeprefix("SCALE_RULE_").lower().replace("_", " ")
    threshold = f", values from {history.min_value:g}" if history.HasField("min_value") else ""
    order = ", in order" if history.ordered else ""
    head = "nonlinear head" if dims.has_head else "no head"
    head += f" with a context of {dims.context:,}" if dims.context else ""
    return [
        ("recommender", f"{manifest.provenance.recommender}, read at {manifest.hook_point}"),
        ("items", f"{dims.n_items:,}" + (" with biases" if dims.has_bias else "")),
        ("widths", f"d {dims.d}, p {dims.p}, {head}"),
        ("SAE", f"{manifest.provenance.sae}: {dims.n_neurons:,} neurons, at most {dims.k} active"),
        ("scale", f"{rule}, times {manifest.scale_factor:g}"),
        ("history", f"newest {history.max_length:,} positive items{threshold}{order}"),
        ("gains", manifest.gains or "none: BOOST moves the items that have the tag"),
        ("index", _index(manifest.index)),
        ("opset", str(manifest.opset)),
    ]


def _index(index: IndexInfo) -> str:
    if index.kind == FLAT:
        return f"{FLAT}: every item is scored"
    filtered = f", {index.recall_filtered:.4f} under filters" if index.recall_filtered else ""
    recall = (
        f"recall@100 {index.recall_plain:.4f} plain, {index.recall_steered:.4f} steered{filtered}"
    )
    over_fetch = f", {index.over_fetch:g} times over-fetched" if index.over_fetch > 1 else ""
    return f"{index.kind}{over_fetch}, {recall}"


def _trials(index: IndexInfo) -> Table:
    table = Table(
        title="Kinds of index: the quickest with enough recall is chosen",
        title_justify="left",
        caption="Recall of the best 100; CPU time of a query, one at a time and in batches of 32",
        caption_justify="left",
    )
    table.add_column("index")
    for heading in (
        "effort",
        "over-fetch",
        "plain",
        "steered",
        "filtered",
        "us alone",
        "us batched",
    ):
        table.add_column(heading, justify="right")
    for trial in index.trials:
        recalls = (
            f"{recall:.4f}"
            for recall in (trial.recall_plain, trial.recall_steered, trial.recall_filtered)
        )
        times = (f"{us:,.0f}" if us else "too low" for us in (trial.single_us, trial.batched_us))
        chosen = trial.kind == index.kind and trial.over_fetch == index.over_fetch
        style = "bold" if chosen else ""
        table.add_row(
            trial.kind,
            f"{trial.effort or ''}",
            f"{trial.over_fetch:g}",
            *recalls,
            *times,
            style=style,
        )
    return table


def print_carried(console: Console, earlier: Path, carried: "CarriedOver") -> None:
    """Prints which names of an earlier bundle were kept, carried over, changed or lost."""
    table = Table(title=f"Names of {earlier}", title_justify="left")
    for heading in ("concept", "outcome", "similarity", "why"):
        table.add_column(heading, justify="right" if heading == "similarity" else "left")
    order = ("lost", "changed", "carried", "kept")
    for fate in sorted(carried.fates, key=lambda fate: order.index(fate.outcome)):
        similarity = "" if math.isnan(fate.similarity) else f"{fate.similarity:.2f}"
        table.add_row(escape(fate.name), fate.outcome, similarity, escape(fate.reason))
    console.print(table)
    console.print(
        f"{carried.labels_carried:,} labels carried over, {carried.labels_lost:,} left behind: "
        "their neurons have no similar neuron in the run",
        highlight=False,
    )


def _concepts(directory: Path) -> Table:
    columns = ["name", "attribute", "item_count", "auc", "unsteered_share", "steered_share"]
    rows = pq.read_table(directory / "concepts.parquet", columns=columns).to_pylist()
    rows.sort(key=lambda row: -int(row["item_count"]))
    shown = rows[:CONCEPTS_SHOWN]
    table = Table(
        title=f"Concepts: the {len(shown)} largest of {len(rows)}"
        if len(rows) > len(shown)
        else "Concepts",
        title_justify="left",
        caption="Mean exposure share in lists of 20, unsteered and at strength 1",
        caption_justify="left",
    )
    for heading in ("concept", "attribute"):
        table.add_column(heading)
    for heading in ("items", "AUC", "share", "steered"):
        table.add_column(heading, justify="right")
    for row in shown:
        auc = "" if row["auc"] is None else f"{row['auc']:.3f}"
        table.add_row(
            escape(row["name"]),
            escape(row["attribute"]),
            f"{row['item_count']:,}",
            auc,
            f"{row['unsteered_share']:.3f}",
            f"{row['steered_share']:.3f}",
        )
    return table


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def _settings(config_json: str) -> Sequence[tuple[str, str]]:
    return [
        (name, json.dumps(value))
        for name, value in json.loads(config_json).items()
        if name not in ("seed",)
    ]


def _kind(kind: AttributeKind.ValueType) -> str:
    return AttributeKind.Name(kind).removeprefix("ATTRIBUTE_KIND_").lower()


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"

"""Makes the bundle's Parquet tables; docs/bundle.md describes their columns."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from exporters.cards import NeuronCards, Ranked
from exporters.contents import MAX_BLEND_NEURONS, attribute_columns
from service.arrays import Floats
from training.concepts import FittedConcept, Label
from training.concepts.mapping.purity import Purity
from training.interactions import AttributeKind

_LABEL = pa.struct(
    [
        ("text", pa.string()),
        ("method", pa.string()),
        ("score", pa.float32()),
        ("provenance", pa.string()),
    ]
)
_CONCEPT_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("item_count", pa.int32()),
        ("method", pa.string()),
        ("weights", pa.list_(pa.float32())),
        ("unit", pa.float32()),
        ("auc", pa.float32()),
        ("blend_neurons", pa.list_(pa.int32())),
        ("unsteered_share", pa.float32()),
        ("steered_share", pa.float32()),
    ]
)
_ATTRIBUTE_TYPES = {
    AttributeKind.TAGS: pa.list_(pa.string()),
    AttributeKind.TEXT: pa.string(),
    AttributeKind.NUMBER: pa.float64(),
}


def item_table(items: pl.DataFrame, attributes: dict[str, AttributeKind]) -> pa.Table:
    """Makes items.parquet: one row for each item, in index order."""
    schema = [("item_id", pa.string()), ("title", pa.string()), ("popularity", pa.int64())]
    schema += [(name, _ATTRIBUTE_TYPES[attributes[name]]) for name in attribute_columns(items)]
    columns = [items[name].to_arrow().cast(kind) for name, kind in schema]
    return pa.Table.from_arrays(columns, schema=pa.schema(schema))


def neuron_table(
    cards: NeuronCards, labels: Sequence[Sequence[Label]], purity: Purity | None
) -> pa.Table:
    """Makes neurons.parquet: one row for each neuron, in index order."""
    activity = cards.activity
    unknown = np.full(len(labels), np.nan)
    measured = purity or Purity(unknown, unknown)
    return pa.table(
        {
            "labels": pa.array(
                [[label._asdict() for label in row] for row in labels], pa.list_(_LABEL)
            ),
            "density": activity.density,
            "unit": activity.unit,
            "dead": activity.dead,
            "quantiles": _rows(activity.quantiles, pa.float32()),
            "histogram": _rows(activity.histogram, pa.int32()),
            "top_items": _ranked(cards.top_items, "item", "value"),
            "raised_items": _ranked(cards.raised_items, "item", "value"),
            "lowered_items": _ranked(cards.lowered_items, "item", "value"),
            "nearest": _ranked(cards.nearest, "neuron", "cosine"),
            "monosemanticity": pa.array(measured.monosemanticity, pa.float32(), from_pandas=True),
            "entropy": pa.array(measured.entropy, pa.float32(), from_pandas=True),
        }
    )


def concept_table(concepts: Sequence[FittedConcept]) -> pa.Table:
    """Makes concepts.parquet: one row for each concept."""
    rows = [
        {
            "name": concept.name,
            "attribute": concept.attribute,
            "value": concept.value,
            "item_count": concept.item_count,
            "method": concept.method,
            "weights": np.asarray(concept.weights, np.float32),
            "unit": concept.unit,
            "auc": concept.auc,
            "blend_neurons": [int(neuron) for neuron in concept.blend_neurons[:MAX_BLEND_NEURONS]],
            "unsteered_share": concept.unsteered_share,
            "steered_share": concept.steered_share,
        }
        for concept in concepts
    ]
    return pa.Table.from_pylist(rows, schema=_CONCEPT_SCHEMA)


def _rows(
    values: Floats | np.ndarray[tuple[int, ...], np.dtype[np.int32]], kind: pa.DataType
) -> pa.Array:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel(), kind))


def _ranked(ranked: Ranked, index_name: str, value_name: str) -> pa.Array:
    present = ranked.indices >= 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    entries = pa.StructArray.from_arrays(
        [
            pa.array(ranked.indices[present], pa.int32()),
            pa.array(ranked.values[present], pa.float32()),
        ],
        [index_name, value_name],
    )
    return pa.ListArray.from_arrays(pa.array(offsets), entries)

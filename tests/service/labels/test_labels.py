"""Label sets: round trips, versions, imports that leave the bundle alone, refusals by record."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from trimtab.v1 import concept_pb2 as cp
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp
from trimtab.v1.concept_pb2_grpc import ConceptServiceStub
from trimtab.v1.recommendation_pb2_grpc import RecommendationServiceStub

from service.bundle.bundle import Bundle
from service.bundle.registry import BundleRegistry
from service.errors import InvalidRequest, StoreUnavailable
from service.labels.records import MAX_LABELS, read_label_set, records_of
from service.labels.redis_store import MAX_SETS, LabelStore, StoredVersions
from service.labels.sync import LabelSync
from tests.support.servers import StartServer

HISTORY = pb.History(events=[pb.Event(item_id=f"item-{number}") for number in (3, 17, 40)])


def neuron_label(neuron: int, text: str, score: float = 1.0) -> cp.LabelRecord:
    return cp.LabelRecord(neuron=neuron, label=cp.Label(text=text, method="person", score=score))


def renamed(bundle: Bundle, **names: str) -> list[cp.LabelRecord]:
    """Renames concepts of the bundle's own set; the empty name leaves one out."""
    records = []
    for record in records_of(bundle.own_labels):
        name = names.get(record.concept, record.concept)
        if record.HasField("concept"):
            record.concept = name
        if name or record.HasField("neuron"):
            records.append(record)
    return records


def read(bundle: Bundle, records: list[cp.LabelRecord]) -> Any:
    return read_label_set(records, bundle.own_labels, bundle.catalogue.attributes)


def test_a_bundles_own_set_exported_and_read_again_is_its_own(bundle: Bundle) -> None:
    records = list(records_of(bundle.labels))
    assert read(bundle, records) is bundle.own_labels
    assert {record.WhichOneof("target") for record in records} == {"concept", "neuron"}


def test_a_renamed_concept_keeps_weights_items_and_unit_and_makes_a_new_version(
    bundle: Bundle,
) -> None:
    made = read(bundle, renamed(bundle, Drama="Serious films"))
    concept = made.concept("Serious films")
    before = bundle.labels.concept("Drama")
    assert before is not None
    assert made.concept("Drama") is None
    assert (concept.value, concept.attribute, concept.item_count) == (
        "Drama",
        "genres",
        before.item_count,
    )
    np.testing.assert_array_equal(concept.target.weights, before.target.weights)
    np.testing.assert_allclose(concept.target.direction, before.target.direction, atol=1e-6)
    assert concept.target.unit == before.target.unit
    assert made.version not in (bundle.labels.version, "")
    again = read(bundle, list(records_of(made)))
    assert again.version == made.version
    assert read(bundle, renamed(bundle, Drama="Sad films")).version != made.version


def test_a_concept_made_of_two_neurons_gets_their_units_weighted(bundle: Bundle) -> None:
    weights = [sp.WeightedNeuron(neuron=4, weight=3), sp.WeightedNeuron(neuron=9, weight=-1)]
    record = cp.LabelRecord(concept="Mine", attribute="genres", value="Drama", weights=weights)
    (concept,) = read(bundle, [record]).concepts
    units = bundle.labels.units
    assert concept.target.unit == pytest.approx((3 * units[4] + units[9]) / 4)
    assert concept.method == "imported"
    assert np.flatnonzero(concept.target.weights).tolist() == [4, 9]


def test_a_concept_without_weights_is_the_bundles(bundle: Bundle) -> None:
    (concept,) = read(bundle, [cp.LabelRecord(concept="Drama")]).concepts
    own = bundle.labels.concept("Drama")
    assert own is not None
    np.testing.assert_array_equal(concept.target.weights, own.target.weights)
    assert (concept.item_count, concept.target.unit) == (own.item_count, own.target.unit)


@pytest.mark.parametrize(
    ("records", "field", "text"),
    [
        (
            [neuron_label(3, "x"), neuron_label(5000, "y")],
            "records[1].neuron",
            "a neuron from 0 to 127, found 5000",
        ),
        ([neuron_label(3, " ")], "records[0].label.text", "found none"),
        ([neuron_label(3, "x")] * (MAX_LABELS + 1), f"records[{MAX_LABELS}]", "at most 32 labels"),
        ([cp.LabelRecord(concept="Drama")] * 2, "records[1].concept", "twice"),
        ([cp.LabelRecord(concept="Nowhere")], "records[0].weights", "found neither: 'Nowhere'"),
        (
            [cp.LabelRecord(label=cp.Label(text="x"))],
            "records[0]",
            "a neuron or a concept, found neither",
        ),
        ([neuron_label(1, "x", float("nan"))], "records[0].label.score", "nan"),
    ],
)
def test_a_record_at_fault_is_named(
    bundle: Bundle, records: list[cp.LabelRecord], field: str, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text) as failure:
        read(bundle, records)
    assert failure.value.field == field


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attribute": "colour"}, "expected an attribute of the items .*, found 'colour'"),
        ({"unit": -1.0}, "found -1.0"),
        ({"weights": [sp.WeightedNeuron(neuron=700, weight=1)]}, "found 700"),
        ({"weights": [sp.WeightedNeuron(neuron=7, weight=0)]}, "not all 0"),
        ({"weights": [sp.WeightedNeuron(neuron=7, weight=float("inf"))]}, "finite weights"),
        ({"weights": [sp.WeightedNeuron(neuron=7, weight=1)] * 2}, "found one twice"),
        ({"concept": "x" * 300}, "256 bytes, found 300"),
    ],
)
def test_a_concept_that_cannot_be_steered_is_refused(
    bundle: Bundle, changes: dict[str, Any], text: str
) -> None:
    good: dict[str, Any] = {
        "concept": "Mine",
        "attribute": "genres",
        "weights": [sp.WeightedNeuron(neuron=7, weight=1)],
    }
    assert read(bundle, [cp.LabelRecord(**good)]).concepts
    with pytest.raises(InvalidRequest, match=text):
        read(bundle, [cp.LabelRecord(**good | changes)])


async def test_the_store_keeps_the_last_sets_and_always_the_current_one(valkey: str) -> None:
    store = LabelStore(valkey)
    try:
        await store.add("b", "v0", [neuron_label(0, "zero")], current=True)
        for number in range(1, MAX_SETS + 5):
            await store.add("b", f"v{number}", [neuron_label(number, "more")], current=False)
        stored = await store.versions("b")
        assert len(stored.versions) == MAX_SETS
        assert stored.versions[0] == stored.current == "v0"
        assert stored.versions[-1] == f"v{MAX_SETS + 4}"
        assert await store.read("b", "v0") == [neuron_label(0, "zero")]
        assert await store.read("b", "v1") is None
        await store.use("b", "")
        assert (await store.versions("b")).current == ""
        assert await store.versions("another") == ((), "")
    finally:
        await store.close()


class GoneStore:
    """A store that answers reads and fails writes."""

    async def versions(self, *_: object) -> StoredVersions:
        return StoredVersions((), "")

    async def read(self, *_: object) -> None:
        return None

    async def add(self, *_: object, **__: object) -> None:
        raise StoreUnavailable("Redis: gone")

    async def use(self, *_: object) -> None:
        raise StoreUnavailable("Redis: gone")


async def test_without_a_store_an_import_is_refused_and_nothing_changes(bundle: Bundle) -> None:
    bundles = BundleRegistry()
    bundles.add(bundle, "stable")
    label_sync = LabelSync(GoneStore(), bundles)
    with pytest.raises(StoreUnavailable):
        await label_sync.import_records(bundle, renamed(bundle, Drama="Dramatic"), current=True)
    assert bundles.get() is bundle


async def test_a_stored_set_that_does_not_fit_the_bundle_is_left_out(
    bundle: Bundle, valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = LabelStore(valkey)
    bundles = BundleRegistry()
    bundles.add(bundle, "stable")
    try:
        await store.add(bundle.id, "strange", [neuron_label(5000, "x")], current=True)
        async with LabelSync(store, bundles).following():
            await asyncio.sleep(0.7)
            assert bundles.get() is bundle
        assert caplog.text.count("label set strange") == 1, "said once, not at every look"
    finally:
        await store.close()


class Labels:
    """Calls a server that the test started."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.concepts = ConceptServiceStub(channel)
        self.lists = RecommendationServiceStub(channel)

    def put(self, records: list[cp.LabelRecord], **options: Any) -> cp.ImportLabelsResponse:
        return self.concepts.ImportLabels(
            cp.ImportLabelsRequest(record=record, **options) for record in records
        )

    def steer(self, concept: str, **steering: Any) -> pb.RecommendResponse:
        edits = [sp.Edit(concept=concept, strength=1)]
        request = pb.RecommendRequest(
            history=HISTORY, n=10, steering=sp.Steering(edits=edits, **steering)
        )
        return self.lists.Recommend(request)

    def export(self, version: str = "") -> list[cp.LabelRecord]:
        request = cp.ExportLabelsRequest(label_set=version)
        return [reply.record for reply in self.concepts.ExportLabels(request)]

    def sets(self) -> dict[str, tuple[bool, bool]]:
        listed = self.concepts.ListLabelSets(cp.ListLabelSetsRequest()).label_sets
        return {entry.label_set: (entry.current, entry.of_bundle) for entry in listed}


@pytest.fixture
def labels(start_server: StartServer, bundle_dir: Path, tmp_path: Path) -> Iterator[Labels]:
    with start_server(bundle_dir, tmp_path / "data") as served:
        yield Labels(served.channel)


def scores(reply: pb.RecommendResponse) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in reply.items]


def test_an_import_renames_and_what_it_lost_is_said_to_be_lost_unless_it_is_pinned(
    labels: Labels, bundle: Bundle
) -> None:
    own = bundle.labels.version
    before = labels.steer("Drama")
    reply = labels.put(renamed(bundle, Drama="Dramatic", Horror=""))
    assert list(reply.lost_concepts) == ["Drama", "Horror"]
    assert labels.sets() == {own: (False, True), reply.label_set: (True, False)}

    after = labels.steer("Dramatic")
    assert scores(after) == scores(before)
    assert after.served_by.label_set == reply.label_set
    with pytest.raises(grpc.RpcError) as lost:
        labels.steer("Drama")
    assert lost.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "nearest: Dramatic" in (lost.value.details() or "")
    with pytest.raises(grpc.RpcError) as unknown:
        labels.steer("Drivel")
    assert unknown.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    pinned = labels.steer("Drama", label_set=own)
    assert scores(pinned) == scores(before)
    assert pinned.served_by.label_set == own


def test_exports_of_every_set_can_be_imported_and_the_bundles_own_used_again(
    labels: Labels, bundle: Bundle
) -> None:
    own = bundle.labels.version
    records = [*renamed(bundle), neuron_label(3, "mine")]
    made = labels.put(records, pinned_only=True).label_set
    assert labels.sets()[own] == (True, True), (
        "a set that is only to be pinned is not the current one"
    )
    exported = labels.export(made)
    assert exported != records
    assert neuron_label(3, "mine") in exported
    assert labels.put(exported).label_set == made
    assert labels.sets()[made][0]
    assert labels.concepts.GetNeuron(cp.GetNeuronRequest(neuron=3)).card.labels[-1].text == "mine"
    labels.concepts.UseLabelSet(cp.UseLabelSetRequest(label_set=own))
    assert labels.sets()[own][0]
    assert labels.put(labels.export()).label_set == own
    with pytest.raises(grpc.RpcError) as failure:
        labels.concepts.UseLabelSet(cp.UseLabelSetRequest(label_set="none"))
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as failure:
        labels.export("none")
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_faulty_import_changes_nothing(labels: Labels, bundle: Bundle) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        labels.put([neuron_label(1, "x"), neuron_label(128, "y")])
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "records[1].neuron: expected a neuron from 0 to 127, found 128" in (
        failure.value.details() or ""
    )
    assert list(labels.sets()) == [bundle.labels.version]
    with pytest.raises(grpc.RpcError) as failure:
        labels.put([])
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_imports_outlive_the_server_and_reach_other_servers(
    start_server: StartServer, bundle_dir: Path, bundle: Bundle, tmp_path: Path, valkey: str
) -> None:
    with (
        start_server(bundle_dir, tmp_path / "a", "--redis", valkey) as one,
        start_server(bundle_dir, tmp_path / "b", "--redis", valkey) as two,
    ):
        made = Labels(one.channel).put(renamed(bundle, Drama="Dramatic")).label_set
        deadline = time.monotonic() + 3
        while not Labels(two.channel).sets().get(made, (False,))[0]:
            assert time.monotonic() < deadline, "the other server has not seen the import"
            time.sleep(0.05)
        assert Labels(two.channel).steer("Dramatic").served_by.label_set == made
    with start_server(bundle_dir, tmp_path / "a", "--redis", valkey) as again:
        assert Labels(again.channel).sets()[made] == (True, False)

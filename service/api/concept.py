"""Serves ConceptService."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.protobuf.message import Message
from trimtab.v1 import concept_pb2 as wire

from service.api.decode import concept as decode
from service.api.decode.checks import check_neuron, read_bundle
from service.api.encode import concepts as encode
from service.api.handlers import Call, Method, StreamingMethod
from service.bundle.registry import BundleRegistry
from service.engine.audience import Source
from service.engine.engine import Engine
from service.engine.query import Query
from service.errors import StoreUnavailable
from service.labels.records import records_of
from service.labels.sync import LabelSync
from service.steering.state import SparseCode

CONTRAST_PARALLEL = 32
"""Members of a contrast whose codes are computed at once."""


class ConceptRpc:
    """The methods of ConceptService that this release serves."""

    def __init__(self, engine: Engine, bundles: BundleRegistry, label_sync: LabelSync) -> None:
        self._engine = engine
        self._bundles = bundles
        self._label_sync = label_sync

    @property
    def methods(self) -> dict[str, Method | StreamingMethod]:
        """Returns the methods by their names in the .proto file."""
        return {
            "ListConcepts": self.list_concepts,
            "SearchConcepts": self.search_concepts,
            "GetNeuron": self.get_neuron,
            "InspectUser": self.inspect_user,
            "Contrast": self.contrast,
            "ImportLabels": self.import_labels,
            "ExportLabels": self.export_labels,
            "ListLabelSets": self.list_label_sets,
            "UseLabelSet": self.use_label_set,
        }

    async def list_concepts(self, request: wire.ListConceptsRequest, _call: Call) -> Message:
        """Lists a page of concepts, in the label set's order."""
        labels = read_bundle(request.bundle, self._bundles).labels
        size = decode.read_page_size(request)
        start = decode.read_page_start(request, labels)
        return encode.concepts_page(labels, start, size)

    async def search_concepts(self, request: wire.SearchConceptsRequest, _call: Call) -> Message:
        """Finds concepts and neurons by text."""
        bundle = read_bundle(request.bundle, self._bundles)
        text = decode.read_search_text(request)
        n = decode.read_result_count(request)
        matches = await asyncio.to_thread(bundle.labels.search, text, n)
        return encode.search_response(bundle, matches)

    async def get_neuron(self, request: wire.GetNeuronRequest, _call: Call) -> Message:
        """Shows one neuron's card."""
        bundle = read_bundle(request.bundle, self._bundles)
        check_neuron(request.neuron, bundle.labels, "neuron")
        return wire.GetNeuronResponse(card=encode.neuron_card(bundle, request.neuron))

    async def inspect_user(self, request: wire.InspectUserRequest, call: Call) -> Message:
        """Shows the neurons and concepts that are active in a user."""
        bundle = read_bundle(request.bundle, self._bundles)
        query = decode.read_inspection(request, bundle)
        inspection = await self._engine.inspect(query, call.remaining_s)
        return encode.inspect_response(bundle, inspection)

    async def contrast(self, request: wire.ContrastRequest, call: Call) -> Message:
        """Finds the neurons and concepts that tell two sets of users or items apart."""
        bundle = read_bundle(request.bundle, self._bundles)
        n = decode.read_result_count(request)
        left_members = decode.read_members(request.left, bundle, "left")
        right_members = decode.read_members(request.right, bundle, "right")
        left = [code async for code in self._codes(left_members, call)]
        right = [code async for code in self._codes(right_members, call)]
        decode.check_side(len(left), "left")
        decode.check_side(len(right), "right")
        rows = await asyncio.to_thread(encode.contrast_rows, bundle.labels, left, right, n)
        member_count = len(left_members) + len(right_members)
        return wire.ContrastResponse(
            neurons=rows.neurons,
            concepts=rows.concepts,
            left_count=len(left),
            right_count=len(right),
            ignored_count=member_count - len(left) - len(right),
            label_set=bundle.labels.version,
        )

    async def _codes(self, queries: Sequence[Query], call: Call) -> AsyncIterator[SparseCode]:
        """Yields the codes of the members that have a history.

        Raises:
            StoreUnavailable: a user's history cannot be read.
        """
        for start in range(0, len(queries), CONTRAST_PARALLEL):
            inspections = await asyncio.gather(
                *(
                    self._engine.inspect(query, call.remaining_s)
                    for query in queries[start : start + CONTRAST_PARALLEL]
                )
            )
            for audience, degradations in inspections:
                if audience.source is Source.PERSONAL:
                    yield audience.state.code
                elif degradations:
                    raise StoreUnavailable("the users' histories cannot be read now")

    async def import_labels(
        self, requests: AsyncIterator[wire.ImportLabelsRequest], _call: Call
    ) -> Message:
        """Adds a label set to a bundle, from a stream of its records."""
        stream = await decode.read_import(requests)
        bundle = read_bundle(stream.bundle, self._bundles)
        imported = await self._label_sync.import_records(
            bundle, stream.records, current=stream.current
        )
        return encode.import_response(imported, len(stream.records))

    async def export_labels(
        self, request: wire.ExportLabelsRequest, _call: Call
    ) -> AsyncIterator[Message]:
        """Yields a label set, record by record."""
        bundle = read_bundle(request.bundle, self._bundles)
        for record in records_of(decode.read_label_set(request, bundle)):
            yield wire.ExportLabelsResponse(record=record)

    async def list_label_sets(self, request: wire.ListLabelSetsRequest, _call: Call) -> Message:
        """Lists the bundle's label sets."""
        return encode.label_sets_response(read_bundle(request.bundle, self._bundles))

    async def use_label_set(self, request: wire.UseLabelSetRequest, _call: Call) -> Message:
        """Makes another of the bundle's label sets the current one."""
        bundle = read_bundle(request.bundle, self._bundles)
        await self._label_sync.use(bundle, request.label_set)
        return wire.UseLabelSetResponse()

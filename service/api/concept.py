"""ConceptService."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
from google.protobuf.message import Message
from trimtab.v1 import concept_pb2 as wire

from service.api.decode.request import read_history, read_user_id
from service.api.decode.steering import check_neuron
from service.api.encode import concepts as encode
from service.api.encode.lists import served_by
from service.api.handlers import Call, Method, StreamingMethod
from service.arrays import Floats
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.label_set import LabelSet
from service.bundle.registry import BundleRegistry
from service.engine.audience import Source
from service.engine.contrast import Differences, activations, differences
from service.engine.engine import Engine
from service.engine.query import Query
from service.errors import InvalidRequest, NotFound, StoreUnavailable
from service.labels.records import records_of
from service.labels.sync import Labelling, unknown_label_set
from service.steering.state import SparseCode

MAX_PAGE = 1_000


DEFAULT_PAGE = 100


DEFAULT_RESULTS = 20


MAX_QUERY = 256
"""Characters of a text search."""


MAX_MEMBERS = 1_000
"""Users and items in either set of a contrast."""


CONTRAST_PARALLEL = 32
"""Members whose codes are found at once."""


MAX_IMPORT_BYTES = 256 * 2**20


class ConceptRpc:
    """The methods of ConceptService that this release serves."""

    def __init__(self, engine: Engine, bundles: BundleRegistry, labelling: Labelling) -> None:
        self._engine = engine
        self._bundles = bundles
        self._labelling = labelling

    @property
    def methods(self) -> dict[str, Method | StreamingMethod]:
        """By name in the .proto file."""
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

    async def list_concepts(self, request: wire.ListConceptsRequest, call: Call) -> Message:
        """A page of concepts, in the bundle's order."""
        labels = self._bundles.get(request.bundle).labels
        size = _bounded(request.page_size, "page_size", DEFAULT_PAGE)
        start = _page_start(request.page_token, labels.version)
        page = labels.concepts[start : start + size]
        end = start + len(page)
        return wire.ListConceptsResponse(
            concepts=[encode.concept(found) for found in page],
            next_page_token=f"{labels.version}:{end}" if end < len(labels.concepts) else "",
            label_set=labels.version,
        )

    async def search_concepts(self, request: wire.SearchConceptsRequest, call: Call) -> Message:
        """Concepts and neurons by text."""
        bundle = self._bundles.get(request.bundle)
        if not request.query.strip() or len(request.query) > MAX_QUERY:
            raise InvalidRequest(
                "query",
                f"found {len(request.query)} characters, expected a text of 1 to {MAX_QUERY}",
            )
        results = []
        n = _bounded(request.n, "n", DEFAULT_RESULTS)
        for found in await asyncio.to_thread(bundle.labels.search, request.query, n):
            if found.concept is not None:
                results.append(
                    wire.SearchResult(concept=encode.concept(found.concept), match=found.match)
                )
            elif found.neuron is not None:
                card = encode.neuron_card(bundle, found.neuron)
                results.append(wire.SearchResult(neuron=card, match=found.match))
        return wire.SearchConceptsResponse(results=results, label_set=bundle.labels.version)

    async def get_neuron(self, request: wire.GetNeuronRequest, call: Call) -> Message:
        """One neuron's card."""
        bundle = self._bundles.get(request.bundle)
        check_neuron(request.neuron, bundle.labels, "neuron")
        return wire.GetNeuronResponse(card=encode.neuron_card(bundle, request.neuron))

    async def inspect_user(self, request: wire.InspectUserRequest, call: Call) -> Message:
        """What fires in a user."""
        bundle = self._bundles.get(request.bundle)
        given = request.HasField("history")
        if not given:
            read_user_id(request.user_id)
        query = Query(
            bundle=bundle,
            n=1,
            user_id=request.user_id,
            history=tuple(read_history(request.history)) if given else None,
        )
        seen = await self._engine.inspect(query, call.remaining_s)
        labels, code, catalogue = bundle.labels, seen.audience.state.code, bundle.catalogue
        levels = labels.levels(code)
        strengths = levels / np.array(
            [concept.target.unit for concept in labels.concepts], np.float32
        )
        order = np.argsort(-strengths, kind="stable").tolist()
        return wire.InspectUserResponse(
            neurons=[
                wire.NeuronActivation(
                    neuron=neuron,
                    label=labels.label(neuron),
                    activation=activation,
                    strength=activation / float(labels.units[neuron]),
                )
                for neuron, activation in zip(
                    code.neurons.tolist(), code.activations.tolist(), strict=True
                )
            ],
            concepts=[
                wire.ConceptLevel(
                    concept=labels.concepts[row].name,
                    level=float(levels[row]),
                    strength=float(strengths[row]),
                )
                for row in order
            ],
            history=[
                wire.HistoryItem(item_id=catalogue.item_ids[item], title=catalogue.titles[item])
                for item in reversed(seen.audience.history.tolist())
            ],
            served_by=served_by(bundle, seen.audience, seen.degradations),
        )

    async def contrast(self, request: wire.ContrastRequest, call: Call) -> Message:
        """What tells two sets apart."""
        bundle = self._bundles.get(request.bundle)
        n = _bounded(request.n, "n", DEFAULT_RESULTS)
        asked = [_members(bundle, getattr(request, side), side) for side in ("left", "right")]
        left, right = [[code async for code in self._codes(queries, call)] for queries in asked]
        for side, codes in (("left", left), ("right", right)):
            if not codes:
                raise InvalidRequest(
                    side,
                    "found neither a user with a history nor an item that the bundle knows, expected one",
                )
        neurons, concepts = await asyncio.to_thread(_differences, bundle.labels, left, right, n)
        return wire.ContrastResponse(
            neurons=neurons,
            concepts=concepts,
            left_count=len(left),
            right_count=len(right),
            ignored_count=sum(map(len, asked)) - len(left) - len(right),
            label_set=bundle.labels.version,
        )

    async def _codes(self, queries: Sequence[Query], call: Call) -> AsyncIterator[SparseCode]:
        """The codes of those who have a history."""
        for start in range(0, len(queries), CONTRAST_PARALLEL):
            part = queries[start : start + CONTRAST_PARALLEL]
            found = await asyncio.gather(
                *(self._engine.inspect(query, call.remaining_s) for query in part)
            )
            for audience, degradations in found:
                if audience.source is Source.PERSONAL:
                    yield audience.state.code
                elif degradations:
                    raise StoreUnavailable("the users' histories cannot be read now")

    async def import_labels(
        self, requests: AsyncIterator[wire.ImportLabelsRequest], call: Call
    ) -> Message:
        """A label set beside the bundle, from a stream of its records."""
        first: wire.ImportLabelsRequest | None = None
        records, size = [], 0
        async for request in requests:
            first = first or request
            size += request.ByteSize()
            if size > MAX_IMPORT_BYTES:
                raise InvalidRequest(
                    "", f"found more than {MAX_IMPORT_BYTES // 2**20} MiB of records"
                )
            records.append(request.record)
        if first is None:
            raise InvalidRequest("record", "found no record, expected at least one")
        bundle = self._bundles.get(first.bundle)
        imported = await self._labelling.read_in(bundle, records, current=not first.pinned_only)
        return wire.ImportLabelsResponse(
            label_set=imported.labels.version,
            imported_count=len(records),
            concept_count=len(imported.labels.concepts),
            lost_concepts=imported.lost,
        )

    async def export_labels(
        self, request: wire.ExportLabelsRequest, call: Call
    ) -> AsyncIterator[Message]:
        """A label set, record by record."""
        bundle = self._bundles.get(request.bundle)
        if request.label_set and request.label_set not in bundle.label_sets:
            raise NotFound(unknown_label_set(request.label_set, bundle))
        for record in records_of(bundle.pinned(request.label_set).labels):
            yield wire.ExportLabelsResponse(record=record)

    async def list_label_sets(self, request: wire.ListLabelSetsRequest, call: Call) -> Message:
        """The bundle's label sets."""
        bundle = self._bundles.get(request.bundle)
        return wire.ListLabelSetsResponse(
            label_sets=[
                wire.LabelSetInfo(
                    label_set=version,
                    current=version == bundle.labels.version,
                    of_bundle=version == bundle.own_labels.version,
                    concept_count=len(labels.concepts),
                )
                for version, labels in bundle.label_sets.items()
            ]
        )

    async def use_label_set(self, request: wire.UseLabelSetRequest, call: Call) -> Message:
        """Names are read in another of the bundle's label sets."""
        await self._labelling.use(self._bundles.get(request.bundle), request.label_set)
        return wire.UseLabelSetResponse()


def _members(bundle: Bundle, members: wire.ContrastSet, field: str) -> list[Query]:
    """A query for each user and item of a set."""
    users, items = dict.fromkeys(members.user_ids), dict.fromkeys(members.item_ids)
    if not 1 <= len(users) + len(items) <= MAX_MEMBERS:
        found = len(users) + len(items)
        raise InvalidRequest(field, f"found {found} users and items, expected 1 to {MAX_MEMBERS:,}")
    for user_id in users:
        read_user_id(user_id, f"{field}.user_ids")
    histories = ((Event(item_id, EventKind.LIKE),) for item_id in items)
    return [Query(bundle, n=1, user_id=user_id) for user_id in users] + [
        Query(bundle, n=1, history=history) for history in histories
    ]


def _differences(
    labels: LabelSet, left: Sequence[SparseCode], right: Sequence[SparseCode], n: int
) -> tuple[list[wire.NeuronDifference], list[wire.ConceptDifference]]:
    of_neurons = differences(*(activations(codes, labels.n_neurons) for codes in (left, right)))
    neurons = [
        wire.NeuronDifference(
            neuron=row, label=labels.label(row), **_facts(of_neurons, row, labels.units)
        )
        for row in of_neurons.strongest(labels.units, n).tolist()
    ]
    if not labels.concepts:
        return neurons, []
    units = np.array([concept.target.unit for concept in labels.concepts], np.float32)
    of_concepts = differences(
        *(np.array([labels.levels(code) for code in codes]) for codes in (left, right))
    )
    return neurons, [
        wire.ConceptDifference(concept=labels.concepts[row].name, **_facts(of_concepts, row, units))
        for row in of_concepts.strongest(units, n).tolist()
    ]


def _facts(found: Differences, row: int, units: Floats) -> dict[str, float]:
    left, right = float(found.left_mean[row]), float(found.right_mean[row])
    return {
        "left_mean": left,
        "right_mean": right,
        "strength": (left - right) / float(units[row]),
        "auc": float(found.auc[row]),
    }


def _bounded(size: int, field: str, default: int) -> int:
    if size > MAX_PAGE:
        raise InvalidRequest(field, f"found {size}, expected at most {MAX_PAGE}")
    return size or default


def _page_start(token: str, version: str) -> int:
    """Where a page begins; a token is "label set:position"."""
    if not token:
        return 0
    made_for, _, position = token.partition(":")
    if made_for != version or not position.isdecimal() or len(position) > 9:
        raise InvalidRequest(
            "page_token", f"found {token[:64]!r}, expected a token of label set {version}"
        )
    return int(position)

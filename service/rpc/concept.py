"""ConceptService."""

import asyncio

import numpy as np
from google.protobuf.message import Message
from trimtab.v1 import concept_pb2 as wire

from service import replies
from service.engine import Engine
from service.errors import InvalidRequest
from service.messages import check_neuron, read_history, read_user_id
from service.query import Query
from service.registry import BundleRegistry
from service.rpc.wire import Call, Method

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
DEFAULT_RESULTS = 20
MAX_QUERY = 256
"""Characters of a text search."""


class ConceptRpc:
    """The methods of ConceptService that this release serves."""

    def __init__(self, engine: Engine, bundles: BundleRegistry) -> None:
        self._engine = engine
        self._bundles = bundles

    @property
    def methods(self) -> dict[str, Method]:
        """By name in the .proto file."""
        return {
            "ListConcepts": self.list_concepts,
            "SearchConcepts": self.search_concepts,
            "GetNeuron": self.get_neuron,
            "InspectUser": self.inspect_user,
        }

    async def list_concepts(self, request: wire.ListConceptsRequest, call: Call) -> Message:
        """A page of concepts, in the bundle's order."""
        labels = self._bundles.get(request.bundle).labels
        size = _bounded(request.page_size, "page_size", DEFAULT_PAGE)
        start = _page_start(request.page_token, labels.version)
        page = labels.concepts[start : start + size]
        end = start + len(page)
        return wire.ListConceptsResponse(
            concepts=[replies.concept(found) for found in page],
            next_page_token=f"{labels.version}:{end}" if end < len(labels.concepts) else "",
            label_set=labels.version,
        )

    async def search_concepts(self, request: wire.SearchConceptsRequest, call: Call) -> Message:
        """Concepts and neurons by text."""
        bundle = self._bundles.get(request.bundle)
        if not request.query.strip() or len(request.query) > MAX_QUERY:
            raise InvalidRequest(
                "query", f"found {len(request.query)} characters, expected a text of 1 to {MAX_QUERY}"
            )
        results = []
        n = _bounded(request.n, "n", DEFAULT_RESULTS)
        for found in await asyncio.to_thread(bundle.labels.search, request.query, n):
            if found.concept is not None:
                results.append(wire.SearchResult(concept=replies.concept(found.concept), match=found.match))
            elif found.neuron is not None:
                card = replies.neuron_card(bundle, found.neuron)
                results.append(wire.SearchResult(neuron=card, match=found.match))
        return wire.SearchConceptsResponse(results=results, label_set=bundle.labels.version)

    async def get_neuron(self, request: wire.GetNeuronRequest, call: Call) -> Message:
        """One neuron's card."""
        bundle = self._bundles.get(request.bundle)
        check_neuron(request.neuron, bundle.labels, "neuron")
        return wire.GetNeuronResponse(card=replies.neuron_card(bundle, request.neuron))

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
        seen = await self._engine.inspect(query)
        labels, code, catalogue = bundle.labels, seen.audience.state.code, bundle.catalogue
        levels = labels.levels(code)
        strengths = levels / np.array([concept.target.unit for concept in labels.concepts], np.float32)
        order = np.argsort(-strengths, kind="stable").tolist()
        return wire.InspectUserResponse(
            neurons=[
                wire.NeuronActivation(
                    neuron=neuron,
                    label=labels.label(neuron),
                    activation=activation,
                    strength=activation / float(labels.units[neuron]),
                )
                for neuron, activation in zip(code.neurons.tolist(), code.activations.tolist(), strict=True)
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
            served_by=replies.served_by(bundle, seen.audience, seen.degradations),
        )


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
        raise InvalidRequest("page_token", f"found {token[:64]!r}, expected a token of label set {version}")
    return int(position)

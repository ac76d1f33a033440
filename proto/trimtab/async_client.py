"""The asynchronous client, from which proto/generate.py generates client.py."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self, Unpack

import grpc
from grpc_health.v1 import health_pb2

from trimtab import recording
from trimtab.argument_types import (
    HistoryLike,
    Id,
    InteractionLike,
    RecommendOptions,
    SimilarItemsOptions,
)
from trimtab.async_transport import AsyncTransport
from trimtab.connection import (
    DEFAULT_CHANNELS,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_S,
    LABELS_TIMEOUT_S,
    RECORD_TIMEOUT_S,
    SERVICES,
    Connection,
    ServerStatus,
    Stubs,
    batches,
)
from trimtab.errors import NotFound, TrimtabError
from trimtab.recording import RecordTotals
from trimtab.request_messages import (
    contrast_request,
    forget_user_request,
    inspect_user_request,
    recommend_request,
    similar_items_request,
)
from trimtab.v1.bundle_pb2 import ListBundlesRequest, ListBundlesResponse
from trimtab.v1.concept_pb2 import (
    Concept,
    ContrastResponse,
    ExportLabelsRequest,
    GetNeuronRequest,
    GetNeuronResponse,
    ImportLabelsRequest,
    ImportLabelsResponse,
    InspectUserResponse,
    LabelRecord,
    ListConceptsRequest,
    ListLabelSetsRequest,
    ListLabelSetsResponse,
    SearchConceptsRequest,
    SearchConceptsResponse,
    UseLabelSetRequest,
    UseLabelSetResponse,
)
from trimtab.v1.recommendation_pb2 import (
    BatchRecommendRequest,
    BatchRecommendResponse,
    ForgetUserResponse,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
)


class AsyncClient:
    """Calls a Trimtab server from asyncio.

    Replies are the messages of `trimtab.v1`. A failed call raises a `trimtab.TrimtabError`. Every
    method takes a `timeout` in seconds that overrides the client's own. Calls that find the server
    unavailable are repeated within their deadline.
    The connections belong to the event loop of the first call.

        async with AsyncClient("127.0.0.1:50051") as client:
            reply = await client.recommend(42, n=10, steer={"Film-Noir": 1, "#123": -0.5})

    Args:
        target: address of the server.
        channels: number of connections; calls use them in turn.
        timeout: default deadline of a call, in seconds.
        credentials: TLS credentials, for instance `grpc.ssl_channel_credentials()`.
        token: bearer token, sent with each call.

    Raises:
        ValueError: an empty target, no channels, or a timeout that is not above 0.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        channels: int = DEFAULT_CHANNELS,
        timeout: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        self._transport = AsyncTransport(
            Connection(
                target=target,
                channels=channels,
                timeout_s=timeout,
                credentials=credentials,
                token=token,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def target(self) -> str:
        """Returns the address of the server."""
        return self._transport.connection.target

    async def close(self) -> None:
        """Closes the connections and ends calls that are under way."""
        await self._transport.close()

    async def recommend(
        self,
        user_id: Id | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> RecommendResponse:
        """Recommends the n best unseen items for a user or a history.

        Args:
            user_id: id of the user; may be None if a history is given.
            timeout: deadline of this call, in seconds.
            options: the fields of `trimtab.RecommendOptions`.

        Raises:
            TrimtabError: the call failed.
            ValueError, TypeError: an argument has no place in the request.
        """
        request = recommend_request(user_id, **options)
        return await self._transport.call(self._stubs().recommendation.Recommend, request, timeout)

    async def batch_recommend(
        self, requests: Iterable[RecommendRequest], *, timeout: float | None = None
    ) -> BatchRecommendResponse:
        """Sends any number of requests in calls of up to 256.

        Requests come from `trimtab.recommend_request`. The results are in the order of the
        requests; each is a response or an error, which `trimtab.from_element_error` converts to an
        exception. The timeout applies to each call.
        """
        merged = BatchRecommendResponse()
        for batch in batches(requests):
            rpc = self._stubs().recommendation.BatchRecommend
            request = BatchRecommendRequest(requests=batch)
            merged.MergeFrom(await self._transport.call(rpc, request, timeout))
        return merged

    async def similar_items(
        self,
        item_id: Id,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarItemsOptions],
    ) -> SimilarItemsResponse:
        """Recommends items for a history that consists of this item alone.

        Args:
            item_id: id of the item.
            timeout: deadline of this call, in seconds.
            options: the fields of `trimtab.SimilarItemsOptions`.
        """
        request = similar_items_request(item_id, **options)
        rpc = self._stubs().recommendation.SimilarItems
        return await self._transport.call(rpc, request, timeout)

    async def record(
        self,
        interactions: Iterable[InteractionLike],
        *,
        call_events: int = recording.CALL_EVENTS,
        calls_in_flight: int = recording.CALLS_IN_FLIGHT,
        timeout: float = RECORD_TIMEOUT_S,
        progress: Callable[[RecordTotals], object] | None = None,
    ) -> RecordTotals:
        """Adds any number of events to users' histories, in several calls at a time.

        Events are grouped by user; the events of one user are sent in the order given. An event
        without a time and without an id gets an id, so that a repeated call counts once.

        Args:
            interactions: messages, (user id, item id) pairs, or mappings with the keyword
                arguments of `trimtab.interaction`.
            call_events: events in one call, at most 10,000; a user with more events gets a separate
                call.
            calls_in_flight: calls at a time.
            timeout: deadline of each call, in seconds.
            progress: called with the totals so far, each time that calls were answered.

        Raises:
            TrimtabError: a call failed; a note says how many events were recorded before.
        """
        options = recording.RecordOptions(call_events, calls_in_flight, timeout, progress)
        return await self._transport.record(interactions, options)

    async def forget_user(self, user_id: Id, *, timeout: float | None = None) -> ForgetUserResponse:
        """Removes everything that is stored about a user."""
        return await self._transport.call(
            self._stubs().recommendation.ForgetUser, forget_user_request(user_id), timeout
        )

    async def list_concepts(
        self, *, bundle: str = "", page_size: int = 1000, timeout: float | None = None
    ) -> AsyncIterator[Concept]:
        """Yields all concepts, in calls of page_size concepts; the timeout applies to each call."""
        request = ListConceptsRequest(bundle=bundle, page_size=page_size)
        while True:
            page = await self._transport.call(self._stubs().concept.ListConcepts, request, timeout)
            for concept in page.concepts:
                yield concept
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def search_concepts(
        self, query: str, *, n: int = 20, bundle: str = "", timeout: float | None = None
    ) -> SearchConceptsResponse:
        """Finds concepts by name and neurons by label, best match first."""
        request = SearchConceptsRequest(query=query, n=n, bundle=bundle)
        return await self._transport.call(self._stubs().concept.SearchConcepts, request, timeout)

    async def get_neuron(
        self, neuron: int, *, bundle: str = "", timeout: float | None = None
    ) -> GetNeuronResponse:
        """Returns the card of one neuron."""
        request = GetNeuronRequest(neuron=neuron, bundle=bundle)
        return await self._transport.call(self._stubs().concept.GetNeuron, request, timeout)

    async def inspect_user(
        self,
        user_id: Id | None = None,
        *,
        history: HistoryLike | None = None,
        bundle: str = "",
        timeout: float | None = None,
    ) -> InspectUserResponse:
        """Returns the active neurons and the concept levels of a user or a history."""
        request = inspect_user_request(user_id, history=history, bundle=bundle)
        return await self._transport.call(self._stubs().concept.InspectUser, request, timeout)

    async def contrast(
        self,
        left: Iterable[Id],
        right: Iterable[Id],
        *,
        items: bool = False,
        n: int = 20,
        bundle: str = "",
        timeout: float | None = None,
    ) -> ContrastResponse:
        """Returns the neurons and concepts that differ most between two sets of users or items."""
        request = contrast_request(left, right, items=items, n=n, bundle=bundle)
        return await self._transport.call(self._stubs().concept.Contrast, request, timeout)

    async def export_labels(
        self, *, label_set: str = "", bundle: str = "", timeout: float = LABELS_TIMEOUT_S
    ) -> AsyncIterator[LabelRecord]:
        """Yields all records of a label set, by default the current one, for `import_labels`."""
        request = ExportLabelsRequest(bundle=bundle, label_set=label_set)
        rpc = self._stubs().concept.ExportLabels
        async with aclosing(self._transport.stream(rpc, request, timeout)) as replies:
            async for reply in replies:
                yield reply.record

    async def import_labels(
        self,
        records: Iterable[LabelRecord],
        *,
        pinned_only: bool = False,
        bundle: str = "",
        timeout: float = LABELS_TIMEOUT_S,
    ) -> ImportLabelsResponse:
        """Adds a label set to a bundle and makes it the current one.

        Args:
            records: all records of the set.
            pinned_only: true to leave the current set as it is; requests may pin the new one by its
                version.
            bundle: id or label of a bundle; the default bundle if empty.
            timeout: deadline of the call, in seconds.
        """
        requests = (
            ImportLabelsRequest(bundle=bundle, record=record, pinned_only=pinned_only)
            for record in records
        )
        return await self._transport.call(self._stubs().concept.ImportLabels, requests, timeout)

    async def list_label_sets(
        self, *, bundle: str = "", timeout: float | None = None
    ) -> ListLabelSetsResponse:
        """Lists the label set of the bundle itself and the imported ones."""
        request = ListLabelSetsRequest(bundle=bundle)
        return await self._transport.call(self._stubs().concept.ListLabelSets, request, timeout)

    async def use_label_set(
        self, label_set: str, *, bundle: str = "", timeout: float | None = None
    ) -> UseLabelSetResponse:
        """Makes another label set of the bundle the current one."""
        request = UseLabelSetRequest(bundle=bundle, label_set=label_set)
        return await self._transport.call(self._stubs().concept.UseLabelSet, request, timeout)

    async def list_bundles(self, *, timeout: float | None = None) -> ListBundlesResponse:
        """Lists the bundles that the server has loaded."""
        return await self._transport.call(
            self._stubs().bundle.ListBundles, ListBundlesRequest(), timeout
        )

    async def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """Returns the health of one service, or of the server as a whole if the name is empty.

        The values are "SERVING", "NOT_SERVING" and "SERVICE_UNKNOWN".
        """
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            reply = await self._transport.call(self._stubs().health.Check, request, timeout)
        except NotFound:
            return "SERVICE_UNKNOWN"
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    async def wait_until_serving(self, within_s: float) -> bool:
        """Waits until the server is SERVING; returns false after `within_s` seconds."""
        end = time.monotonic() + within_s
        while (remaining := end - time.monotonic()) > 0:
            try:
                if await self.health(timeout=min(1.0, remaining)) == "SERVING":
                    return True
            except TrimtabError:
                pass  # the server is still starting
            await self._transport.sleep(min(0.1, max(0.0, end - time.monotonic())))
        return False

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """Returns the health of each service, the bundles, and the duration of one health check.

        Raises:
            TrimtabError: the server cannot be reached.
        """
        services = {service: await self.health(service, timeout=timeout) for service in SERVICES}
        start = time.perf_counter()
        await self.health(timeout=timeout)
        latency_ms = (time.perf_counter() - start) * 1e3
        status = ServerStatus(self.target, latency_ms, services)
        try:
            reply = await self.list_bundles(timeout=timeout)
            status.bundles = list(reply.bundles)
        except TrimtabError as error:
            status.bundles_error = str(error)
        return status

    def _stubs(self) -> Stubs:
        return self._transport.stubs()

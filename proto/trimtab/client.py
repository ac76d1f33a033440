"""The synchronous client: thin over the stubs, safe to share between threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from trimtab import channels as wire
from trimtab import recording
from trimtab.errors import NotFound, TrimtabError, from_rpc_error
from trimtab.messages import (
    HistoryLike,
    Id,
    InteractionLike,
    Shares,
    Steer,
    Values,
    Where,
    contrast_request,
    forget_user_request,
    inspect_user_request,
    recommend_request,
    similar_items_request,
)
from trimtab.recording import RecordTotals
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

_Response = TypeVar("_Response")


class Client:
    """Calls a Trimtab server.

    Replies are the messages of `trimtab.v1`. A failed call raises a `trimtab.TrimtabError`. Every
    method takes a `timeout` in seconds, in place of the client's own. Calls that find the server
    unavailable are tried again within their deadline.

        with Client("127.0.0.1:50051") as client:
            reply = client.recommend(42, n=10, steer={"Film-Noir": 1, "#123": -0.5})

    Args:
        target: address of the server.
        channels: connections that calls are spread over, one call after the other.
        timeout: deadline of a call that states none, in seconds.
        credentials: for TLS, for instance `grpc.ssl_channel_credentials()`.
        token: bearer token, sent with each call.
    """

    def __init__(
        self,
        target: str = wire.DEFAULT_TARGET,
        *,
        channels: int = wire.DEFAULT_CHANNELS,
        timeout: float = wire.DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        self._connection = wire.Connection(target, channels, timeout, credentials, token)
        self._metadata = wire.authorization(token)
        self._channels = [_open(self._connection, index) for index in range(channels)]
        self._turns = wire.round_robin([wire.stubs(channel) for channel in self._channels])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def target(self) -> str:
        """The address of the server."""
        return self._connection.target

    def close(self) -> None:
        """Ends the connections, and the calls that are under way."""
        for channel in self._channels:
            channel.close()

    def recommend(
        self,
        user_id: Id | None = None,
        *,
        n: int = 10,
        history: HistoryLike | None = None,
        steer: Steer | None = None,
        shares: Shares = (),
        max_relevance_loss: float | None = None,
        mode: str | int | None = None,
        filter: Where | None = None,
        filter_out: Mapping[str, Values] | None = None,
        exclude: Iterable[Id] = (),
        explain: bool = False,
        include_unsteered: bool = False,
        include_report: bool = False,
        bundle: str = "",
        request_id: str = "",
        unit_id: str = "",
        context: Mapping[str, str] | None = None,
        page_token: str = "",
        priority: str | int | None = None,
        timeout: float | None = None,
    ) -> RecommendResponse:
        """The n best unseen items for a user or a history. Arguments: see `trimtab.recommend_request`."""
        request = recommend_request(
            user_id,
            n=n,
            history=history,
            steer=steer,
            shares=shares,
            max_relevance_loss=max_relevance_loss,
            mode=mode,
            filter=filter,
            filter_out=filter_out,
            exclude=exclude,
            explain=explain,
            include_unsteered=include_unsteered,
            include_report=include_report,
            bundle=bundle,
            request_id=request_id,
            unit_id=unit_id,
            context=context,
            page_token=page_token,
            priority=priority,
        )
        return self._call(self._stubs().recommendation.Recommend, request, timeout)

    def batch_recommend(
        self, requests: Iterable[RecommendRequest], *, timeout: float | None = None
    ) -> BatchRecommendResponse:
        """Any number of requests, 256 a call; results in their order, each a response or an error of its own.

        Requests come from `trimtab.recommend_request`; `trimtab.from_element_error` makes an
        exception of such an error.
        """
        whole = BatchRecommendResponse()
        for batch in wire.batches(requests):
            call = self._stubs().recommendation.BatchRecommend
            whole.MergeFrom(self._call(call, BatchRecommendRequest(requests=batch), timeout))
        return whole

    def similar_items(
        self,
        item_id: Id,
        *,
        n: int = 10,
        steer: Steer | None = None,
        filter: Where | None = None,
        filter_out: Mapping[str, Values] | None = None,
        bundle: str = "",
        timeout: float | None = None,
    ) -> SimilarItemsResponse:
        """What a user whose history is just this item would be recommended."""
        request = similar_items_request(
            item_id, n=n, steer=steer, filter=filter, filter_out=filter_out, bundle=bundle
        )
        return self._call(self._stubs().recommendation.SimilarItems, request, timeout)

    def record(
        self,
        interactions: Iterable[InteractionLike],
        *,
        call_events: int = recording.CALL_EVENTS,
        calls_in_flight: int = recording.CALLS_IN_FLIGHT,
        timeout: float = wire.RECORD_TIMEOUT_S,
        progress: Callable[[RecordTotals], object] | None = None,
    ) -> RecordTotals:
        """Adds events to users' histories, any number of them, several calls at a time.

        Events are grouped by user; one user's are sent in the order given. An event without a time
        and without an id is given an id, so that a call that is tried again counts once.

        Args:
            interactions: messages, (user id, item id) pairs, or mappings with
                `trimtab.interaction`'s keywords.
            call_events: events a call, at most 10,000; a user with more than that many has a call
                alone.
            calls_in_flight: calls at a time.
            timeout: of each call, in seconds.
            progress: called with the totals so far after each job.

        Raises:
            TrimtabError: a call failed; a note on it says how much was recorded before.
        """
        recording.check_sizes(call_events, calls_in_flight)
        totals = RecordTotals()
        pending: list[Future[RecordTotals]] = []
        with ThreadPoolExecutor(calls_in_flight, "trimtab-record") as pool:
            try:
                for window in recording.windows(interactions):
                    ready = list(recording.jobs(window, call_events))
                    # Windows follow one another, since a user may be in both.
                    _drain(pending, totals, progress)
                    pending = [pool.submit(self._record_job, job, timeout) for job in ready]
                _drain(pending, totals, progress)
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                recording.note_totals(error, totals)
                raise
        return totals

    def forget_user(self, user_id: Id, *, timeout: float | None = None) -> ForgetUserResponse:
        """Removes everything stored about a user."""
        return self._call(
            self._stubs().recommendation.ForgetUser, forget_user_request(user_id), timeout
        )

    def list_concepts(
        self, *, bundle: str = "", page_size: int = 1000, timeout: float | None = None
    ) -> Iterator[Concept]:
        """Every concept, page by page as they are read; the timeout is a page's."""
        request = ListConceptsRequest(bundle=bundle, page_size=page_size)
        while True:
            page = self._call(self._stubs().concept.ListConcepts, request, timeout)
            yield from page.concepts
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def search_concepts(
        self, query: str, *, n: int = 20, bundle: str = "", timeout: float | None = None
    ) -> SearchConceptsResponse:
        """Concepts and neurons whose names and labels match a text, best first."""
        request = SearchConceptsRequest(query=query, n=n, bundle=bundle)
        return self._call(self._stubs().concept.SearchConcepts, request, timeout)

    def get_neuron(
        self, neuron: int, *, bundle: str = "", timeout: float | None = None
    ) -> GetNeuronResponse:
        """One neuron's card."""
        request = GetNeuronRequest(neuron=neuron, bundle=bundle)
        return self._call(self._stubs().concept.GetNeuron, request, timeout)

    def inspect_user(
        self,
        user_id: Id | None = None,
        *,
        history: HistoryLike | None = None,
        bundle: str = "",
        timeout: float | None = None,
    ) -> InspectUserResponse:
        """The neurons that fire for a user or a history, and the concepts' levels."""
        request = inspect_user_request(user_id, history=history, bundle=bundle)
        return self._call(self._stubs().concept.InspectUser, request, timeout)

    def contrast(
        self,
        left: Iterable[Id],
        right: Iterable[Id],
        *,
        items: bool = False,
        n: int = 20,
        bundle: str = "",
        timeout: float | None = None,
    ) -> ContrastResponse:
        """The neurons and concepts that tell two sets of users, or of items, apart; the best first."""
        request = contrast_request(left, right, items=items, n=n, bundle=bundle)
        return self._call(self._stubs().concept.Contrast, request, timeout)

    def export_labels(
        self, *, label_set: str = "", bundle: str = "", timeout: float = wire.LABELS_TIMEOUT_S
    ) -> Iterator[LabelRecord]:
        """A label set whole, record by record, as import_labels takes it; the current one by default."""
        request = ExportLabelsRequest(bundle=bundle, label_set=label_set)
        try:
            for reply in self._stubs().concept.ExportLabels(
                request, timeout=wire.check_timeout(timeout), metadata=self._metadata
            ):
                yield reply.record
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target, timeout_s=timeout) from error

    def import_labels(
        self,
        records: Iterable[LabelRecord],
        *,
        pinned_only: bool = False,
        bundle: str = "",
        timeout: float = wire.LABELS_TIMEOUT_S,
    ) -> ImportLabelsResponse:
        """Makes a label set of records beside the bundle, and reads names in it from now on.

        pinned_only: requests may pin the set by its version, but others are not read in it.
        """
        requests = (
            ImportLabelsRequest(bundle=bundle, record=record, pinned_only=pinned_only)
            for record in records
        )
        return self._call(self._stubs().concept.ImportLabels, requests, timeout)

    def list_label_sets(
        self, *, bundle: str = "", timeout: float | None = None
    ) -> ListLabelSetsResponse:
        """The bundle's own label set and those that were imported."""
        request = ListLabelSetsRequest(bundle=bundle)
        return self._call(self._stubs().concept.ListLabelSets, request, timeout)

    def use_label_set(
        self, label_set: str, *, bundle: str = "", timeout: float | None = None
    ) -> UseLabelSetResponse:
        """Reads names in another of the bundle's label sets from now on."""
        request = UseLabelSetRequest(bundle=bundle, label_set=label_set)
        return self._call(self._stubs().concept.UseLabelSet, request, timeout)

    def list_bundles(self, *, timeout: float | None = None) -> ListBundlesResponse:
        """The bundles that the server holds."""
        return self._call(self._stubs().bundle.ListBundles, ListBundlesRequest(), timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """ "SERVING", "NOT_SERVING", or "SERVICE_UNKNOWN": of one service, or of the server as a whole."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            reply = self._call(self._stubs().health.Check, request, timeout)
        except NotFound:
            return "SERVICE_UNKNOWN"
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def wait_until_serving(self, within_s: float) -> bool:
        """Waits until the server as a whole says SERVING; False if it does not within so many seconds."""
        end = time.monotonic() + within_s
        while (remaining := end - time.monotonic()) > 0:
            try:
                if self.health(timeout=min(1.0, remaining)) == "SERVING":
                    return True
            except TrimtabError:
                pass  # it is still starting
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))
        return False

    def status(self, *, timeout: float | None = None) -> wire.ServerStatus:
        """Health of each service, the bundles, and how long one check takes.

        Raises:
            TrimtabError: the server cannot be reached.
        """
        services = {service: self.health(service, timeout=timeout) for service in wire.SERVICES}
        start = time.perf_counter()
        self.health(timeout=timeout)
        status = wire.ServerStatus(self.target, (time.perf_counter() - start) * 1e3, services)
        try:
            status.bundles = list(self.list_bundles(timeout=timeout).bundles)
        except TrimtabError as error:
            status.bundles_error = str(error)
        return status

    def _stubs(self) -> wire.Stubs:
        return next(self._turns)

    def _call(
        self,
        rpc: Callable[..., _Response],
        request: Message | Iterable[Message],
        timeout: float | None,
    ) -> _Response:
        timeout_s = self._connection.timeout_s if timeout is None else wire.check_timeout(timeout)
        try:
            return rpc(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            request_id = getattr(request, "request_id", "")
            raise from_rpc_error(
                error, target=self.target, timeout_s=timeout_s, request_id=request_id
            ) from error

    def _record_job(self, job: recording.Job, timeout: float) -> RecordTotals:
        totals = RecordTotals()
        for request in job:
            reply = self._call(self._stubs().recommendation.RecordInteractions, request, timeout)
            totals.add_call(len(request.interactions), reply)
        return totals


def _open(connection: wire.Connection, index: int) -> grpc.Channel:
    options = wire.channel_options(index)
    if connection.credentials is None:
        return grpc.insecure_channel(connection.target, options)
    return grpc.secure_channel(connection.target, connection.credentials, options)


def _drain(
    pending: list[Future[RecordTotals]],
    totals: RecordTotals,
    progress: Callable[[RecordTotals], object] | None,
) -> None:
    for future in as_completed(pending):
        totals.add(future.result())
        if progress is not None:
            progress(totals)

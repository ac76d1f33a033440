"""Imports label sets, and keeps a worker's label sets equal to the stored ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

from trimtab.v1.concept_pb2 import LabelRecord

from service.bundle.bundle import Bundle
from service.bundle.label_set import LabelSet
from service.bundle.registry import BundleRegistry
from service.errors import InvalidRequest, NotFound, StoreUnavailable
from service.labels.records import read_label_set, records_of
from service.labels.redis_store import StoredVersions

REFRESH_S = 0.5
"""Seconds between reads of the stored versions; another worker's import is seen within a second."""


_log = logging.getLogger(__name__)


class Store(Protocol):
    """What LabelSync needs of a store of label sets; see LabelStore."""

    async def versions(self, bundle_id: str) -> StoredVersions:
        """Returns the imported versions."""

    async def read(self, bundle_id: str, version: str) -> list[LabelRecord] | None:
        """Returns the records of a set."""

    async def add(
        self, bundle_id: str, version: str, records: Sequence[LabelRecord], *, current: bool
    ) -> None:
        """Stores a set."""

    async def use(self, bundle_id: str, version: str) -> None:
        """Makes a version the current one."""


def unknown_label_set(version: str, bundle: Bundle) -> str:
    """Returns the message about a version that a bundle does not have."""
    known = ", ".join(bundle.label_sets)
    return f"label_set: expected one of bundle {bundle.id[:12]} ({known}), found {version[:64]!r}"


class Imported(NamedTuple):
    """An imported label set, and the names of concepts that it no longer has."""

    labels: LabelSet
    lost: list[str]


class LabelSync:
    """Imports label sets and follows the store.

    Args:
        store: Stores imported sets.
        bundles: The bundles whose label sets are kept up to date.
    """

    def __init__(self, store: Store, bundles: BundleRegistry) -> None:
        self._store = store
        self._bundles = bundles
        self._changing = asyncio.Lock()
        self._left_out: dict[str, set[str]] = {}

    async def import_records(
        self, bundle: Bundle, records: Sequence[LabelRecord], *, current: bool
    ) -> Imported:
        """Stores the label set that records make; if it becomes current, names are read in it.

        Raises:
            InvalidRequest: a record is at fault.
            StoreUnavailable: the set could not be stored; nothing changed.
        """
        made = await asyncio.to_thread(
            read_label_set, records, bundle.own_labels, bundle.catalogue.attributes
        )
        before = bundle.labels
        if made is not bundle.own_labels:
            stored = await asyncio.to_thread(lambda: list(records_of(made)))
            await self._store.add(bundle.id, made.version, stored, current=current)
        elif current:
            await self._store.use(bundle.id, "")
        await self.refresh(bundle, {made.version: made})
        names = [concept.name for concept in before.concepts]
        return Imported(made, lost=[name for name in names if made.concept(name) is None])

    async def use(self, bundle: Bundle, version: str) -> None:
        """Makes another of the bundle's label sets the current one.

        Raises:
            NotFound: the bundle has no label set of this version.
        """
        if version not in bundle.label_sets:
            raise NotFound(unknown_label_set(version, bundle))
        await self._store.use(bundle.id, "" if version == bundle.own_labels.version else version)
        await self.refresh(bundle)

    async def refresh(self, bundle: Bundle, ready: dict[str, LabelSet] | None = None) -> None:
        """Brings a bundle to the store's state.

        Args:
            bundle: The bundle.
            ready: Label sets, by version, that need not be read from the store.

        Raises:
            StoreUnavailable: nothing changed.
        """
        async with self._changing:
            bundle = self._bundles.get(bundle.id)
            stored = await self._store.versions(bundle.id)
            label_sets = {bundle.own_labels.version: bundle.own_labels}
            label_sets |= await self._stored_sets(bundle, stored, ready or {})
            current = stored.current if stored.current in label_sets else bundle.own_labels.version
            before = (list(bundle.label_sets), bundle.labels.version)
            if (list(label_sets), current) != before:
                self._bundles.relabel(bundle.id, label_sets, current)

    async def _stored_sets(
        self, bundle: Bundle, stored: StoredVersions, ready: dict[str, LabelSet]
    ) -> dict[str, LabelSet]:
        """Collects the label sets of the stored versions; reads those that are not known yet.

        A set that does not fit the bundle is read once, and then left out.
        """
        known = {**bundle.label_sets, **ready}
        left_out = self._left_out.get(bundle.id, set()) & set(stored.versions)
        label_sets = {}
        for version in stored.versions:
            if version in left_out:
                continue
            labels = known.get(version) or await self._read(bundle, version)
            if labels is None:
                left_out.add(version)
            else:
                label_sets[version] = labels
        self._left_out[bundle.id] = left_out
        return label_sets

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Loads the stored sets, if the store answers, and follows the store until exit."""
        await self._refresh_all()
        stopping = asyncio.Event()
        task = asyncio.create_task(self._follow(stopping))
        try:
            yield
        finally:
            stopping.set()  # the store's timeout bounds a call that is under way
            await task

    async def _follow(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), REFRESH_S)
            if not stopping.is_set():
                await self._refresh_all()

    async def _refresh_all(self) -> None:
        for held in self._bundles.all():
            try:
                await self.refresh(held.bundle)
            except StoreUnavailable as error:
                _log.debug("label sets stay as they are: %s", error)
            except Exception:
                _log.exception("label sets of bundle %s stay as they are", held.bundle.id[:12])

    async def _read(self, bundle: Bundle, version: str) -> LabelSet | None:
        records = await self._store.read(bundle.id, version)
        if records is None:
            return None
        try:
            return await asyncio.to_thread(
                read_label_set, records, bundle.own_labels, bundle.catalogue.attributes
            )
        except InvalidRequest as error:
            _log.warning(
                "label set %s of bundle %s is left out: %s", version, bundle.id[:12], error
            )
            return None

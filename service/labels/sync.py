"""Keeps label sets as the store has them: imports, which one is current, and other workers' changes."""

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
from service.labels.redis_store import Shelf

REFRESH_S = 0.5
"""Another worker's import is seen within a second."""


_log = logging.getLogger(__name__)


class Store(Protocol):
    """What is needed of a store of label sets; see LabelStore."""

    async def shelf(self, bundle_id: str) -> Shelf:
        """Which versions there are."""

    async def read(self, bundle_id: str, version: str) -> list[LabelRecord] | None:
        """A set's records."""

    async def add(
        self, bundle_id: str, version: str, records: Sequence[LabelRecord], *, current: bool
    ) -> None:
        """Keeps a set."""

    async def use(self, bundle_id: str, version: str) -> None:
        """Makes a version the current one."""


def unknown_label_set(version: str, bundle: Bundle) -> str:
    """What to say of a version that is not there."""
    known = ", ".join(bundle.label_sets)
    return f"label_set: found {version[:64]!r}, bundle {bundle.id[:12]} has {known}"


class Imported(NamedTuple):
    """What became of an import."""

    labels: LabelSet
    lost: list[str]


class Labelling:
    """Imports label sets and follows the store.

    Args:
        store: Where imported sets are.
        bundles: Whose bundles get them.
    """

    def __init__(self, store: Store, bundles: BundleRegistry) -> None:
        self._store = store
        self._bundles = bundles
        self._changing = asyncio.Lock()
        self._left_out: dict[str, set[str]] = {}

    async def read_in(
        self, bundle: Bundle, records: Sequence[LabelRecord], *, current: bool
    ) -> Imported:
        """Makes a label set of records and, if it is to be current, reads names in it from now on.

        Raises:
            InvalidRequest: a record is at fault.
            StoreUnavailable: the set could not be kept; nothing changed.
        """
        made = await asyncio.to_thread(
            read_label_set, records, bundle.own_labels, bundle.catalogue.attributes
        )
        before = bundle.labels
        if made is not bundle.own_labels:
            kept = await asyncio.to_thread(lambda: list(records_of(made)))
            await self._store.add(bundle.id, made.version, kept, current=current)
        elif current:
            await self._store.use(bundle.id, "")
        await self.refresh(bundle, {made.version: made})
        lost = [
            name for name in (one.name for one in before.concepts) if made.concept(name) is None
        ]
        return Imported(made, lost)

    async def use(self, bundle: Bundle, version: str) -> None:
        """Reads names in another of the bundle's label sets from now on.

        Raises:
            NotFound: there is none of this version.
        """
        if version not in bundle.label_sets:
            raise NotFound(unknown_label_set(version, bundle))
        await self._store.use(bundle.id, "" if version == bundle.own_labels.version else version)
        await self.refresh(bundle)

    async def refresh(self, bundle: Bundle, made: dict[str, LabelSet] | None = None) -> None:
        """Brings one bundle to the store's state; made holds sets that need not be read from it."""
        async with self._changing:
            bundle = self._bundles.get(bundle.id)
            shelf = await self._store.shelf(bundle.id)
            sets = {bundle.own_labels.version: bundle.own_labels}
            at_hand = {**bundle.label_sets, **(made or {})}
            left_out = self._left_out.get(bundle.id, set()) & set(shelf.versions)
            for version in shelf.versions:
                if version in left_out:  # it was read once and did not fit
                    continue
                if (
                    labels := at_hand.get(version) or await self._read(bundle, version)
                ) is not None:
                    sets[version] = labels
                else:
                    left_out.add(version)
            self._left_out[bundle.id] = left_out
            current = shelf.current if shelf.current in sets else bundle.own_labels.version
            if (list(sets), current) != (list(bundle.label_sets), bundle.labels.version):
                self._bundles.relabel(bundle.id, sets, current)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Has the store's sets on entry, if the store answers, and follows it until exit."""
        await self._refresh_all()
        stopping = asyncio.Event()
        task = asyncio.create_task(self._follow(stopping))
        try:
            yield
        finally:
            stopping.set()  # a call to the store that is under way is bounded by its timeout
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

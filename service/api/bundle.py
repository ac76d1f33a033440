"""Serves BundleService."""

from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from trimtab.v1 import bundle_pb2 as wire

from service.api.handlers import Call, Method
from service.bundle.registry import BundleRegistry


class BundleRpc:
    """The methods of BundleService that this release serves."""

    def __init__(self, bundles: BundleRegistry) -> None:
        self._bundles = bundles

    @property
    def methods(self) -> dict[str, Method]:
        """Returns the methods by their names in the .proto file."""
        return {"ListBundles": self.list_bundles}

    async def list_bundles(self, _request: wire.ListBundlesRequest, _call: Call) -> Message:
        """Lists every bundle with its labels and manifest."""
        return wire.ListBundlesResponse(
            bundles=[
                wire.LoadedBundle(
                    bundle_id=held.bundle.id,
                    labels=held.labels,
                    manifest=held.bundle.manifest,
                    load_time=_timestamp(held.load_time),
                )
                for held in self._bundles.all()
            ]
        )


def _timestamp(when: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(when)
    return message

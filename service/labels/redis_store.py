"""Stores imported label sets in Redis.

    tt:labels:{bundle}:sets        hash: version -> records, packed
    tt:labels:{bundle}:versions    list: versions by import, the oldest first
    tt:labels:{bundle}:current     the version that names are read in; absent for the bundle's own

The last 16 sets of a bundle are kept, and always the current one.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from trimtab.v1.concept_pb2 import LabelRecord

from service.errors import StoreUnavailable
from service.storage.connection import answering, connect, disconnect

MAX_SETS = 16
"""Imported sets kept for each bundle."""

MAX_UNPACKED_BYTES = 256 * 2**20
"""Bytes of one set; far more than 5,000 concepts of a large SAE take."""


_ADD = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[1])
if ARGV[3] == '1' then redis.call('SET', KEYS[3], ARGV[1]) end
local current = redis.call('GET', KEYS[3])
for _, version in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  if redis.call('LLEN', KEYS[2]) <= tonumber(ARGV[4]) then break end
  if version ~= current then
    redis.call('HDEL', KEYS[1], version)
    redis.call('LREM', KEYS[2], 0, version)
  end
end
"""


class StoredVersions(NamedTuple):
    """A bundle's imported versions, oldest first, and the current one; "" is the bundle's own."""

    versions: tuple[str, ...]
    current: str


class LabelStore:
    """Reads and writes label sets. Every method raises StoreUnavailable if Redis does not answer.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_s: Longest time that an answer may take.
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._redis = connect(url, timeout_s)

    async def close(self) -> None:
        """Closes the connections."""
        await disconnect(self._redis)

    async def versions(self, bundle_id: str) -> StoredVersions:
        """Returns the imported versions of a bundle."""
        _, versions_key, current_key = _keys(bundle_id)
        versions, current = await self._run(
            lambda pipe: (pipe.lrange(versions_key, 0, -1), pipe.get(current_key))
        )
        return StoredVersions(
            tuple(version.decode() for version in versions), (current or b"").decode()
        )

    async def read(self, bundle_id: str, version: str) -> list[LabelRecord] | None:
        """Returns the records of a set; None if it is no longer kept."""
        (blob,) = await self._run(lambda pipe: pipe.hget(_keys(bundle_id)[0], version))
        return None if blob is None else _unpacked(blob)

    async def add(
        self, bundle_id: str, version: str, records: Sequence[LabelRecord], *, current: bool
    ) -> None:
        """Stores a set in one step, and makes it the current one if current is true."""
        arguments = (version, _packed(records), int(current), MAX_SETS)
        await self._run(lambda pipe: pipe.eval(_ADD, 3, *_keys(bundle_id), *arguments))

    async def use(self, bundle_id: str, version: str) -> None:
        """Makes a version the current one; "" is the bundle's own."""
        key = _keys(bundle_id)[2]
        await self._run(lambda pipe: pipe.set(key, version) if version else pipe.delete(key))

    async def _run(self, fill: Any) -> list[Any]:
        with answering():
            async with self._redis.pipeline(transaction=True) as pipe:
                fill(pipe)
                answers: list[Any] = await pipe.execute()
                return answers


def _keys(bundle_id: str) -> tuple[str, str, str]:
    base = f"tt:labels:{{{bundle_id}}}"
    return f"{base}:sets", f"{base}:versions", f"{base}:current"


def _packed(records: Sequence[LabelRecord]) -> bytes:
    parts = [record.SerializeToString(deterministic=True) for record in records]
    return zlib.compress(b"".join(struct.pack("<I", len(part)) + part for part in parts), 6)


def _unpacked(blob: bytes) -> list[LabelRecord]:
    try:
        data = zlib.decompressobj().decompress(blob, MAX_UNPACKED_BYTES)
        records = []
        start = 0
        while start < len(data):
            (length,) = struct.unpack_from("<I", data, start)
            records.append(LabelRecord.FromString(data[start + 4 : start + 4 + length]))
            start += 4 + length
    except (zlib.error, struct.error, DecodeError) as error:
        raise StoreUnavailable(f"a stored label set cannot be read: {error}") from error
    return records

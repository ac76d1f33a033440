"""Writes and reads manifest.json, the description of a bundle.

The exporters write it and the service checks it. The file is the BundleManifest message as JSON.
Its seal, `manifest_sha256`, is the SHA-256 of the same JSON object without that field, with sorted
keys and without spaces. So every change of the file is detected.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from trimtab.v1.bundle_pb2 import BundleFile, BundleManifest

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
FLAT = "flat"
"""The index kind of bundles without an index file: every item is scored."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names the reason."""


def file_digest(path: Path) -> str:
    """Computes the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_id(files: Iterable[BundleFile]) -> str:
    """Computes the bundle id: hex SHA-256 over the sorted lines "name sha256" of its files."""
    lines = sorted(f"{file.name} {file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def combined_digest(files: Iterable[BundleFile], *names: str) -> str:
    """Computes the content id of the named files alone: the key of caches of their outputs."""
    return content_id(file for file in files if file.name in names)


def to_json(manifest: BundleManifest) -> str:
    """Returns the manifest as JSON text with its seal."""
    fields = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    fields["manifest_sha256"] = _seal(fields)
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> BundleManifest:
    """Reads a manifest from JSON text.

    Raises:
        ManifestError: not a JSON object, another format version, a wrong seal or an unknown field.
    """
    try:
        fields = json.loads(text)
        version = fields["format_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ManifestError(f"{MANIFEST_NAME} is not a manifest: {error!r}") from error
    if version != FORMAT_VERSION:
        raise ManifestError(
            f"format version: expected {FORMAT_VERSION}, found {version}: use a matching release"
        )
    if fields.get("manifest_sha256") != _seal(fields):
        raise ManifestError(
            f"{MANIFEST_NAME} was edited after it was written: its seal does not match"
        )
    try:
        return json_format.ParseDict(fields, BundleManifest())
    except json_format.ParseError as error:
        raise ManifestError(
            f"{MANIFEST_NAME} does not fit format {FORMAT_VERSION}: {error}"
        ) from error


def _seal(fields: dict[str, Any]) -> str:
    unsealed = {name: value for name, value in fields.items() if name != "manifest_sha256"}
    return hashlib.sha256(
        json.dumps(unsealed, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()

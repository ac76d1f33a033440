"""Is this directory the bundle that was written? Its manifest is sealed, and the files have digests."""

from pathlib import Path

from trimtab.manifest import MANIFEST_NAME, ManifestError, content_id, file_digest, from_json
from trimtab.v1.bundle_pb2 import BundleManifest

from exporters.errors import BundleFaultError


def read_manifest(directory: Path) -> BundleManifest:
    """Reads and unseals manifest.json.

    Raises:
        BundleFaultError: it is missing or was altered.
    """
    path = directory / MANIFEST_NAME
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleFaultError(
            f"{directory} has no readable {MANIFEST_NAME}: {error.strerror}"
        ) from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise BundleFaultError(f"{directory}: {error}") from error


def verify_files(directory: Path) -> BundleManifest:
    """Checks the seal, and that every file is there as it was written.

    Raises:
        BundleFaultError: names the first file that is missing, altered or not listed.
    """
    manifest = read_manifest(directory)
    if content_id(manifest.files) != manifest.bundle_id:
        raise BundleFaultError(
            f"{directory}: the bundle id does not fit the files that the manifest lists"
        )
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file():
            raise BundleFaultError(f"{directory}: {file.name} is missing")
        size = path.stat().st_size
        if size != file.size_bytes:
            raise BundleFaultError(
                f"{directory}: {file.name} has {size:,} bytes, the manifest says {file.size_bytes:,}"
            )
        if file_digest(path) != file.sha256:
            raise BundleFaultError(
                f"{directory}: {file.name} was altered: its SHA-256 does not match the manifest"
            )
    expected = {MANIFEST_NAME, *(file.name for file in manifest.files)}
    if strangers := sorted({path.name for path in directory.iterdir()} - expected):
        raise BundleFaultError(f"{directory}: {strangers[0]} is not in the manifest")
    return manifest

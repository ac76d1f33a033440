"""Checks that a directory is a whole bundle, as it was written, and holds nothing else."""

from pathlib import Path

from trimtab.manifest import MANIFEST_NAME
from trimtab.v1.bundle_pb2 import BundleManifest

from service.bundle.bundle import BundleError
from service.bundle.open import check_files, read_manifest


def verify_files(directory: Path) -> BundleManifest:
    """Checks the manifest's seal and every file, and returns the manifest.

    Raises:
        BundleError: names the first file that is missing, altered or not listed.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    expected = {MANIFEST_NAME, *(file.name for file in manifest.files)}
    if unlisted := sorted({path.name for path in directory.iterdir()} - expected):
        raise BundleError(
            f"{directory}: expected only the files of the manifest, found {unlisted[0]}"
        )
    return manifest

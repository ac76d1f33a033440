"""Publishes a bundle so that it is either whole or not there.

Everything is written to a temporary directory next to the output, forced to the disk, checked
against torch and renamed. A process that dies before leaves a directory `.NAME.*.partial`, which
no reader opens and which the next export to the same output removes.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trimtab.manifest import FORMAT_VERSION, MANIFEST_NAME, combined_digest, content_id, to_json
from trimtab.v1.bundle_pb2 import AttributeInfo, BundleManifest, Dimensions, IndexInfo, IndexTrial
from trimtab.v1.bundle_pb2 import AttributeKind as WireKind

from exporters.choose_index import ChosenIndex, IndexOptions, Trial
from exporters.contents import BundleContents
from exporters.errors import BundleExistsError, BundleWriteError
from exporters.graphs import OPSET, RecommenderGraphs
from exporters.parity import check_parity
from exporters.progress import Report, silent
from exporters.sealed import verify_files
from exporters.write_files import Written, new_file, write_files
from service.bundle.bundle import BundleError
from service.bundle.open import read_manifest
from training.interactions import AttributeKind

_WIRE_KINDS = {
    AttributeKind.TAGS: WireKind.ATTRIBUTE_KIND_TAGS,
    AttributeKind.TEXT: WireKind.ATTRIBUTE_KIND_TEXT,
    AttributeKind.NUMBER: WireKind.ATTRIBUTE_KIND_NUMBER,
}


def write_bundle(
    contents: BundleContents,
    out: Path,
    *,
    report: Report = silent,
    index: IndexOptions | None = None,
    graphs: RecommenderGraphs | None = None,
) -> BundleManifest:
    """Writes, checks and publishes a bundle, and returns its manifest.

    Args:
        contents: the contents.
        out: the directory to make. It may exist if it is empty or holds the same bundle.
        report: called with the name of each stage when it begins.
        index: the kinds of index that may be chosen.
        graphs: the recommender's graphs, if they were exported before for a bundle with another
            SAE. They are checked like the rest.

    Raises:
        BundleExistsError: out holds something else, from the start or by a quicker export.
        BundleWriteError: the file system refused a file.
        ParityError: the written files compute different results than torch; nothing is left.
        GraphError: a model cannot be exported.
    """
    out = out.resolve()
    check_output(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleWriteError(f"cannot make {out.parent}: {error.strerror}") from error
    with _partial_directory(out) as partial:
        written = write_files(contents, partial, report, index or IndexOptions(), graphs)
        report("checking against torch")
        manifest = _describe(contents, written)
        check_parity(partial, manifest, contents)
        with new_file(partial / MANIFEST_NAME) as file:
            file.write(to_json(manifest).encode())
        verify_files(partial)
        report("publishing")
        return _publish(partial, out, manifest)


def _describe(contents: BundleContents, written: Written) -> BundleManifest:
    dims = contents.dims
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        bundle_id=content_id(written.files),
        model_id=combined_digest(written.files, "encoder.onnx", "sae.onnx"),
        label_set=combined_digest(written.files, "concepts.parquet", "neurons.parquet")[:12],
        provenance=contents.provenance,
        hook_point=contents.recommender.hook_point,
        dimensions=Dimensions(
            n_items=dims.n_items,
            d=dims.d,
            p=dims.p,
            n_neurons=dims.n_neurons,
            k=dims.k,
            context=dims.context,
            has_head=contents.recommender.has_head,
            has_bias=contents.has_bias,
        ),
        scale_rule=contents.scale_rule,
        scale_factor=contents.sae.scale_factor,
        opset=OPSET,
        files=written.files,
        history=contents.history,
        index=_describe_index(written.chosen),
        attributes=[
            AttributeInfo(name=name, kind=_WIRE_KINDS[kind])
            for name, kind in contents.catalogue.attributes.items()
        ],
        mean_user=contents.mean_user.tolist(),
        gains=contents.gains.method if contents.gains else "",
    )
    manifest.create_time.GetCurrentTime()
    return manifest


def _describe_index(chosen: ChosenIndex) -> IndexInfo:
    def recalls(trial: Trial) -> dict[str, float]:
        return {
            f"recall_{name}": getattr(trial.recalls, name)
            for name in ("plain", "steered", "filtered")
        }

    trials = [
        IndexTrial(
            kind=trial.kind,
            effort=trial.effort,
            over_fetch=trial.over_fetch,
            single_us=trial.single_us,
            batched_us=trial.batched_us,
            **recalls(trial),
        )
        for trial in chosen.trials
    ]
    best = chosen.trial
    return IndexInfo(kind=best.kind, over_fetch=best.over_fetch, trials=trials, **recalls(best))


def _publish(partial: Path, out: Path, manifest: BundleManifest) -> BundleManifest:
    try:
        partial.chmod(0o755)
        _sync_directory(partial)
        # rename(2) replaces an empty directory and nothing else: of two exports at once, one wins.
        partial.rename(out)
        _sync_directory(out.parent)
    except OSError as error:
        if not (out.is_dir() and any(out.iterdir())):
            raise BundleWriteError(f"cannot make {out}: {error.strerror}") from error
        return _same_bundle(out, manifest)
    return manifest


def _same_bundle(out: Path, manifest: BundleManifest) -> BundleManifest:
    """Returns the manifest at `out` if it describes the bundle that was about to be written.

    Raises:
        BundleExistsError: it describes another one.
    """
    try:
        present = verify_files(out)
    except BundleError as error:
        raise BundleExistsError(f"{out}: expected a whole bundle or nothing: {error}") from error
    if present.bundle_id != manifest.bundle_id:
        raise BundleExistsError(
            f"{out}: expected bundle {manifest.bundle_id[:12]} or nothing, found bundle "
            f"{present.bundle_id[:12]}: bundles are never overwritten, choose another directory"
        )
    for field in (
        "provenance",
        "history",
        "mean_user",
        "scale_rule",
        "scale_factor",
        "hook_point",
        "gains",
    ):
        if getattr(present, field) != getattr(manifest, field):
            raise BundleExistsError(
                f"{out}: found the same files with another {field}: choose another directory"
            )
    return present


def check_output(out: Path) -> None:
    """Refuses an output directory that holds something other than a bundle, before any work.

    Raises:
        BundleExistsError: it does, or it is no directory.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleExistsError(f"{out}: expected a directory or nothing")
    if out.is_dir() and any(out.iterdir()):
        try:
            read_manifest(out)
        except BundleError as error:
            raise BundleExistsError(
                f"{out}: expected a bundle, an empty directory or nothing: {error}"
            ) from error


@contextlib.contextmanager
def _partial_directory(out: Path) -> Iterator[Path]:
    """Makes a temporary directory next to `out`: locked while in use, removed after a failure."""
    prefix = f".{out.name}."
    suffix = ".partial"
    lock = contextlib.ExitStack()
    try:
        with _locked(out.parent, fcntl.LOCK_EX):
            leftovers = [path for path in out.parent.iterdir() if path.name.startswith(prefix)]
            for leftover in (path for path in leftovers if path.name.endswith(suffix)):
                # The lock of a dead process is free; a live one's directory stays.
                with (
                    contextlib.suppress(BlockingIOError),
                    _locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB),
                ):
                    shutil.rmtree(leftover, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=out.parent))
            lock.enter_context(_locked(partial, fcntl.LOCK_EX))
    except OSError as error:
        raise BundleWriteError(f"cannot write next to {out}: {error.strerror}") from error
    with lock:
        try:
            yield partial
        finally:
            # After the rename there is nothing of this name any more.
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, mode: int) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

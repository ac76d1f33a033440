"""A bundle is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trimtab.manifest import from_json, to_json

from exporters.contents import BundleContents, Gains
from exporters.errors import BundleExistsError, BundleWriteError, ContentsError
from exporters.publish import write_bundle
from exporters.sealed import verify_files
from service.bundle.bundle import BundleError
from tests.support.bundle_factory import make_bundle, make_contents

SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
from tests.support.bundle_factory import make_contents
from exporters.contents import BundleContents
from exporters.publish import write_bundle
from exporters.errors import ExportError
contents, out = make_contents(), Path(sys.argv[1])
"""

KILLED_AT = """
def report(stage):
    if stage == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
write_bundle(contents, out, report=report)
"""

FILES_LIMITED_TO = """
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_bundle(contents, out)
    except ExportError as error:
        print(f"{type(error).__name__}: {error}")
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _ids(out: Path) -> str:
    return verify_files(out).bundle_id


def test_a_killed_export_leaves_nothing_that_counts_and_the_next_one_cleans_up(
    contents: Any, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    # All that is missing here is the rename.
    assert _run(KILLED_AT, str(out), "publishing").returncode == -signal.SIGKILL
    leftovers = list(tmp_path.iterdir())
    assert not out.exists()
    assert len(leftovers) == 1
    assert leftovers[0].name.startswith(".bundle.")
    assert (leftovers[0] / "manifest.json").exists()
    write_bundle(contents, out)
    verify_files(out)
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    done = _run(FILES_LIMITED_TO, str(tmp_path / "bundle"), "20000", "100000")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "BundleWriteError: cannot write encoder.onnx: File too large"
    assert second == "BundleWriteError: cannot write reference.npz: File too large"
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_readable_by_others_and_missing_parents_are_made(
    contents: Any, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "down" / "bundle"
    write_bundle(contents, out)
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_parent_that_is_a_file_is_a_readable_error(contents: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleWriteError, match=r"cannot make .*file"):
        write_bundle(contents, tmp_path / "file" / "bundle")


def test_the_same_contents_give_the_same_files_wherever_and_whenever(
    bundle_path: Path, tmp_path: Path
) -> None:
    again = make_bundle(tmp_path / "another name")
    first = verify_files(bundle_path)
    second = verify_files(again)
    assert first.bundle_id == second.bundle_id
    assert {
        path.name: path.read_bytes() for path in again.iterdir() if path.name != "manifest.json"
    } == {
        path.name: path.read_bytes()
        for path in bundle_path.iterdir()
        if path.name != "manifest.json"
    }
    for manifest in (first, second):
        manifest.ClearField("create_time")
        manifest.ClearField("manifest_sha256")
    assert first == second


def test_another_seed_gives_another_bundle(bundle_path: Path, tmp_path: Path) -> None:
    assert _ids(make_bundle(tmp_path / "bundle", seed=1)) != _ids(bundle_path)


def test_an_identical_bundle_stays_as_it_is(contents: Any, bundle_path: Path) -> None:
    before = (bundle_path / "manifest.json").read_bytes()
    manifest = write_bundle(contents, bundle_path)
    assert (bundle_path / "manifest.json").read_bytes() == before
    assert manifest == from_json(before.decode())


def test_another_bundle_is_not_overwritten(contents: BundleContents, tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "bundle", seed=1)
    before = _ids(out)
    with pytest.raises(BundleExistsError, match=f"found bundle {before[:12]}"):
        write_bundle(contents, out)
    assert _ids(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_the_same_files_with_another_provenance_are_not_the_same_bundle(
    contents: Any, bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle_path, out)
    manifest = verify_files(out)
    manifest.provenance.data_set = "another"
    manifest.ClearField("manifest_sha256")
    (out / "manifest.json").write_text(to_json(manifest))
    with pytest.raises(BundleExistsError, match="the same files with another provenance"):
        write_bundle(contents, out)


def test_a_directory_with_something_else_in_it_is_refused_before_any_work(
    contents: Any, tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("data")
    stages: list[str] = []
    with pytest.raises(BundleExistsError, match=r"expected a bundle.* no readable manifest\.json"):
        write_bundle(contents, tmp_path, report=stages.append)
    assert not stages
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_file_in_the_place_is_refused(contents: Any, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("not a directory")
    with pytest.raises(BundleExistsError, match="expected a directory"):
        write_bundle(contents, tmp_path / "bundle")


def test_an_empty_directory_is_filled(contents: Any, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(contents, tmp_path / "bundle")
    verify_files(tmp_path / "bundle")


def test_of_two_exports_to_one_place_the_quicker_wins_and_the_other_is_refused(
    contents: BundleContents, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"

    def overtake(stage: str) -> None:
        if stage == "publishing":
            make_bundle(out, seed=1)

    with pytest.raises(BundleExistsError, match=r"found bundle .*never overwritten"):
        write_bundle(contents, out, report=overtake)
    assert verify_files(out).provenance.seed == 1
    assert list(tmp_path.iterdir()) == [out]


def test_a_name_with_wildcards_removes_no_ones_leftovers_but_its_own(
    contents: Any, tmp_path: Path
) -> None:
    strangers = tmp_path / ".bundle.x.partial"
    strangers.mkdir()
    write_bundle(contents, tmp_path / "b*")
    assert strangers.exists()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda out: (out / "sae.onnx").unlink(), r"sae\.onnx is missing"),
        (
            lambda out: (out / "items.npy").write_bytes(b"short"),
            r"items\.npy: expected [\d,]+ bytes, found 5",
        ),
        (lambda out: _flip_last_byte(out / "items.parquet"), r"items\.parquet was altered"),
        (
            lambda out: (out / "notes.txt").touch(),
            r"expected only the files of the manifest, found notes\.txt",
        ),
        (lambda out: (out / "manifest.json").unlink(), r"no readable manifest\.json"),
        (lambda out: (out / "manifest.json").write_text("{"), "is not a manifest"),
        (lambda out: _set(out, "format_version", 99), "format version: expected 1, found 99"),
        (lambda out: _set(out, "hook_point", "elsewhere"), "was edited after it was written"),
        (lambda out: shutil.rmtree(out), r"no readable manifest\.json"),
    ],
)
def test_an_altered_bundle_is_refused_by_the_name_of_the_fault(
    bundle_path: Path, tmp_path: Path, damage: Any, fault: str
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle_path, out)
    damage(out)
    with pytest.raises(BundleError, match=fault):
        verify_files(out)


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _set(out: Path, field: str, value: object) -> None:
    fields = json.loads((out / "manifest.json").read_text())
    fields[field] = value
    (out / "manifest.json").write_text(json.dumps(fields))


def _with(contents: Any, **changes: Any) -> Any:
    fields = {name: getattr(contents, name) for name in type(contents).__dataclass_fields__}
    given = {name: value for name, value in fields.items() if name not in ("dims", "scale_rule")}
    return type(contents)(**(given | changes))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: {"b": c.b[:-1]}, "the biases: expected 200, found 199"),
        (lambda c: {"V": c.V * float("nan")}, "the item matrix: expected finite numbers"),
        (lambda c: {"labels": c.labels[:-1]}, "the lists of labels: expected 128, found 127"),
        (lambda c: {"concepts": [c.concepts[0]] * 2}, "concept names: expected distinct"),
        (lambda c: {"concepts": [_concept(c, unit=0.0)]}, "expected a unit above 0, found 0"),
        (
            lambda c: {"concepts": [_concept(c, weights=np.zeros(128))]},
            "expected 128 finite weights",
        ),
        (
            lambda c: {"concepts": [_concept(c, blend_neurons=[128])]},
            "expected blend neurons from 0 to 127, found 128",
        ),
        (
            lambda _: {"gains": Gains("ridge", np.zeros((1, 200), np.float32))},
            r"the gains: expected \(6, 200\), found \(1, 200\)",
        ),
        (
            lambda _: {"gains": Gains("ridge", np.full((6, 200), 1.5, np.float32))},
            "the gains: expected numbers from 0 to 1",
        ),
        (
            lambda _: {"gains": Gains("ridge", np.full((6, 200), np.nan, np.float32))},
            "the gains: expected numbers from 0 to 1",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_a_file_is_written(
    contents: Any, change: Any, fault: str
) -> None:
    with pytest.raises(ContentsError, match=fault):
        _with(contents, **change(contents))


def test_an_sae_that_does_not_do_what_its_scale_rule_says_is_refused() -> None:
    contents = make_contents()
    sae: Any = contents.sae
    sae.scale_rule = "standard"
    sae.scale = lambda z: z.std(dim=1, keepdim=True)  # of a sample: over d - 1
    with pytest.raises(
        ContentsError, match=r"the SAE's scale: expected .* by its scale rule 'standard', found"
    ):
        _with(contents)
    sae.scale_rule = "whitened"
    with pytest.raises(
        ContentsError, match="scale rule: expected one of unit, none, standard, found 'whitened'"
    ):
        _with(contents)


def test_a_context_that_does_not_fit_is_refused() -> None:
    contents = make_contents(with_context=True)
    recommender: Any = contents.recommender
    recommender.context_size = 5
    with pytest.raises(ContentsError, match="the context's width: expected 5, found 198"):
        _with(contents)
    recommender.context_size = 198
    recommender.has_head = False
    with pytest.raises(ContentsError, match="expected a head that reads the context of width 198"):
        _with(contents)


def _concept(contents: Any, **changes: Any) -> Any:
    concept = contents.concepts[0]
    return type(concept)(**(vars(concept) | changes))

"""trimtab-export as a person runs it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporters import cli
from exporters.cli import main
from exporters.from_run import contents_of
from exporters.sealed import verify_files
from service.bundle.open import open_bundle
from training.concepts.gains import item_gains as gains
from training.concepts.gains.item_gains import gains_of
from training.config import TrainConfig
from training.datasets.synthetic import SyntheticOptions
from training.errors import ConfigError
from training.pipeline import train
from training.recommenders import RECOMMENDERS
from training.run import load_run
from training.saes import SAES
from training.splits import SplitConfig


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    elsa = RECOMMENDERS["elsa"].options
    topk = SAES["topk"].options
    train(
        TrainConfig(
            data="synthetic",
            data_options=SyntheticOptions(n_users=300, n_items=120, n_concepts=6),
            recommender_options=elsa(d=16, epochs=4),
            sae_options=topk(k=4, expansion=4, epochs=10),
        ),
        out,
    )
    return out


def test_a_run_becomes_a_bundle_that_can_be_inspected(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert main([str(run_path), "--out", str(out)]) == 0
    manifest = verify_files(out)
    summary = capsys.readouterr()
    assert manifest.bundle_id[:12] in summary.out
    assert summary.err == ""
    assert main(["--inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "synthetic",
        "concept-00",
        "ndcg@20",
        "items.npy",
        "every item is scored",
        manifest.label_set,
    ):
        assert expected in shown


def test_provenance_says_what_trained_the_models(run_path: Path) -> None:
    run = load_run(run_path)
    made = contents_of(run).provenance
    assert (made.data_set, made.recommender, made.sae, made.seed) == (
        "synthetic",
        "elsa",
        "topk",
        42,
    )
    assert made.code_version == run.code_version
    assert dict(made.metrics) == pytest.approx(run.metrics)
    assert '"n_users": 300' in made.config_json
    assert f"{len(run.split.train)} train" in made.split


def test_gains_are_written_and_shown_and_are_what_training_finds(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert main([str(run_path), "--out", str(out), "--gains", "ridge"]) == 0
    assert "ridge" in capsys.readouterr().out
    manifest = verify_files(out)
    assert manifest.gains == "ridge"
    found = np.load(out / "gains.npy")
    run = load_run(run_path)
    np.testing.assert_array_equal(found, gains_of(run, "ridge").astype(np.float16))
    assert found.shape == (len(run.concepts), run.catalogue.n_items)
    bundle = open_bundle(out)
    for row, concept in zip(found, bundle.labels.concepts, strict=True):
        np.testing.assert_array_equal(bundle.gain(concept), row)


def test_the_ways_of_gains_that_the_command_knows_are_those_of_training() -> None:
    assert cli.GAINS == gains.GAINS
    with pytest.raises(ConfigError, match="gains: expected one of ridge, found 'magic'"):
        gains_of(SimpleNamespace(), "magic")


def test_the_index_that_is_asked_for_is_built_and_what_was_measured_is_shown(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert main([str(run_path), "--out", str(out), "--index", "sq8"]) == 0
    index = verify_files(out).index
    assert (index.kind, [trial.kind for trial in index.trials]) == ("sq8", ["sq8"])
    assert index.over_fetch >= 1.0
    assert min(index.recall_plain, index.recall_steered, index.recall_filtered) >= 0.95
    exported = capsys.readouterr().out
    assert main(["--inspect", str(out)]) == 0
    for shown in (exported, capsys.readouterr().out):
        assert "Kinds of index" in shown
        assert f"{index.recall_filtered:.4f}" in shown
        assert f"{index.trials[0].single_us:,.0f}" in shown


def test_exporting_twice_says_that_nothing_was_written(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert main([str(run_path), "--out", str(out)]) == 0
    before = (out / "manifest.json").read_bytes()
    capsys.readouterr()
    assert main([str(run_path), "--out", str(out)]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert (out / "manifest.json").read_bytes() == before


def test_the_default_place_is_bundles_and_the_runs_name(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(run_path)]) == 0
    verify_files(tmp_path / "bundles" / "tiny")


def test_the_history_is_as_long_as_the_longest_in_training_unless_said_otherwise(
    run_path: Path,
) -> None:
    run = load_run(run_path)
    longest = int(run.split.histories(run.split.train).lengths.max())
    assert contents_of(run).history.max_length == longest
    assert contents_of(run, max_history=5).history.max_length == 5
    assert contents_of(run, max_history=5).references.items.shape[1] == 5
    short = dataclasses.replace(run, config=dataclasses.replace(run.config, max_length=7))
    assert contents_of(short).history.max_length == 7


def test_provenance_says_how_users_or_items_were_held_out(run_path: Path) -> None:
    run = load_run(run_path)
    assert contents_of(run).provenance.split.startswith("users held out whole: ")
    last = dataclasses.replace(run.config, split=SplitConfig(kind="leave-one-out"))
    train, validation, test = (
        len(rows) for rows in (run.split.train, run.split.validation, run.split.test)
    )
    assert contents_of(dataclasses.replace(run, config=last)).provenance.split == (
        f"each user's last items held out: {train} users train without them, {validation} are "
        f"validated on the last but one and {test} tested on the last"
    )


def test_a_transformers_history_ends_at_the_positions_that_it_was_trained_with(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sasrec = RECOMMENDERS["sasrec"].options(d=8, epochs=1)
    config = dataclasses.replace(
        load_run(run_path).config, recommender="sasrec", recommender_options=sasrec, max_length=9
    )
    run = train(config, tmp_path / "run")
    assert contents_of(run).history.max_length == 9
    assert contents_of(run).history.ordered
    assert contents_of(run, max_history=4).history.max_length == 4
    assert (
        main([str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--max-history", "10"]) == 1
    )
    assert (
        "max_history: expected 1 to 9, found 10: sasrec was trained on no more"
        in capsys.readouterr().err
    )


def test_a_threshold_is_carried_over_and_its_absence_too(run_path: Path) -> None:
    run = load_run(run_path)
    assert not contents_of(run).history.HasField("min_value")
    rated = dataclasses.replace(
        run, config=dataclasses.replace(run.config, implicit=False, min_value=4.0)
    )
    assert contents_of(rated).history.min_value == 4.0


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "recommender.safetensors",
        "sae.json",
        "items.parquet",
        "split.npz",
        "labels.parquet",
    ],
)
def test_a_run_without_one_of_its_files_is_refused_by_the_files_name(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run_path, broken)
    (broken / name).unlink()
    assert main([str(broken), "--out", str(tmp_path / "bundle")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert name in message
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a RUN to export or --inspect BUNDLE"),
        (["run", "--inspect", "bundle"], "give either a RUN to export or --inspect BUNDLE"),
        (["--inspect", "bundle", "--max-history", "3"], "--max-history belongs to an export"),
        (["--inspect", "bundle", "--index", "hnsw"], "--index belongs to an export"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(arguments)
    assert exit_status.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("length", ["0", "1001"])
def test_a_history_length_out_of_range_is_refused(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: str
) -> None:
    assert main([str(run_path), "--out", str(tmp_path / "bundle"), "--max-history", length]) == 1
    assert f"max_history: expected 1 to 1000, found {length}" in capsys.readouterr().err


def test_inspecting_an_altered_bundle_names_the_fault(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle_path, out)
    (out / "sae.onnx").write_bytes((out / "sae.onnx").read_bytes()[:-1])
    assert main(["--inspect", str(out)]) == 1
    message = capsys.readouterr().err
    assert "sae.onnx: expected" in message
    assert "bytes, found" in message


def test_inspecting_what_is_no_bundle_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--inspect", str(tmp_path)]) == 1
    assert "no readable manifest.json" in capsys.readouterr().err


def test_help_and_inspect_do_not_load_torch(bundle_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from exporters.cli import main; main(sys.argv[1:]); "
        "sys.exit('torch' in sys.modules)"
    )
    command: list[Any] = [sys.executable, "-c", code, "--inspect", bundle_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_cards_tell_labels_with_provenance_and_how_pure_neurons_are(
    run_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    assert main([str(run_path), "--out", str(out)]) == 0
    rows = pq.read_table(out / "neurons.parquet").to_pylist()
    labelled = [label for row in rows for label in row["labels"]]
    assert {label["method"] for label in labelled} >= {"tfidf", "tfidf-unique", "correlation"}
    assert all(label["provenance"] for label in labelled)
    fires = [row for row in rows if row["monosemanticity"] is not None]
    assert fires
    assert all(-1 <= row["monosemanticity"] <= 1.0001 and 0 <= row["entropy"] <= 1 for row in fires)


def test_labels_from_a_file_stand_in_the_bundle_in_place_of_the_runs(
    run_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    file = tmp_path / "labels.jsonl"
    file.write_text(
        '{"concept": "concept-00"}\n'
        '{"neuron": 3, "label": {"text": "mine", "method": "person", "score": 0.5, '
        '"provenance": "me"}}\n'
    )
    assert main([str(run_path), "--out", str(out), "--labels", str(file)]) == 0
    rows = pq.read_table(out / "neurons.parquet").to_pylist()
    assert rows[3]["labels"] == [
        {"text": "mine", "method": "person", "score": 0.5, "provenance": "me"}
    ]
    assert not any(row["labels"] for row in rows[:3] + rows[4:])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"neuron": 64, "label": {"text": "x"}}', "line 2: neuron: expected 0 to 63, found 64"),
        (
            '{"neuron": 6, "label": {"text": ""}}',
            "line 2: text: expected the meaning of neuron 6, found none",
        ),
        (
            '{"concept": "of another run"}',
            "line 2: expected a concept of the run, found 'of another run'",
        ),
        ("nonsense", "line 2: expected a label record, found another text"),
    ],
)
def test_a_label_that_does_not_fit_the_run_is_named_by_its_line(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, text: str
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f'{{"concept": "concept-00"}}\n{line}\n')
    assert main([str(run_path), "--out", str(tmp_path / "bundle"), "--labels", str(file)]) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()

"""Checks whole runs: equal files for equal seeds, interruptions, and the bars on real data."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.config import TrainConfig
from training.datasets import load_data_set
from training.datasets.folder import FolderOptions
from training.datasets.synthetic import SyntheticOptions
from training.errors import ConfigError, DataError, DivergedError, RunError
from training.loop import EpochReport
from training.measures.ranking import compare
from training.pipeline import train
from training.progress import Silent
from training.recommenders.fitting.elsa import ElsaOptions
from training.recommenders.fitting.puresvd import PureSvdOptions
from training.run import Run, load_run
from training.saes.options import TopKOptions
from training.splits import SplitConfig
from training.studies.control.operations import OperationId, operate

TINY = TrainConfig(
    data="synthetic",
    seed=1,
    data_options=SyntheticOptions(n_users=200, n_items=80, n_concepts=4),
    recommender_options=ElsaOptions(d=8, epochs=10),
    sae_options=TopKOptions(k=4, expansion=4, epochs=20),
)
COMMAND = "import sys; from training.cli import train; sys.exit(train(sys.argv[1:]))"


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def digests(run: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(run.iterdir())
    }


def test_the_same_seed_gives_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    train(TINY, tmp_path / "one")
    train(TINY, tmp_path / "two")
    train(dataclasses.replace(TINY, seed=2), tmp_path / "other")
    one = digests(tmp_path / "one")
    other = digests(tmp_path / "other")
    assert one == digests(tmp_path / "two")
    assert set(one) == {
        *("run.json", "recommender.json", "recommender.safetensors", "sae.json", "sae.safetensors"),
        *(
            "items.parquet",
            "split.npz",
            "concepts.parquet",
            "labels.parquet",
            "data.json",
            "data.png",
        ),
    }
    assert all(
        one[name] != other[name]
        for name in ("recommender.safetensors", "sae.safetensors", "split.npz")
    )


def command(out: Path) -> list[str]:
    flags = [
        "--data",
        "synthetic",
        "--data-n-users",
        "300",
        "--data-n-items",
        "80",
        "--data-n-concepts",
        "4",
    ]
    flags += [
        "--recommender-d",
        "16",
        "--recommender-epochs",
        "60",
        "--recommender-validate-every",
        "1",
    ]
    flags += ["--sae-epochs", "300", "--sae-k", "4", "--threads", "1"]
    return [sys.executable, "-c", COMMAND, *flags, "--checkpoint-every-s", "0", "--out", str(out)]


@pytest.mark.parametrize("stage", ["recommender", "sae"])
def test_a_run_killed_in_mid_training_ends_in_the_same_file(stage: str, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    whole = tmp_path / "whole"
    process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((killed / "checkpoints").glob(f"{stage}-*[0-9]")):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline, f"no checkpoint of the {stage} within 60 s"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "run.json").exists()
    assert (killed / f"{stage}.json").exists() is False
    with pytest.raises(RunError, match="its training was not finished"):
        load_run(killed)
    resumed = subprocess.run(command(killed), capture_output=True, text=True, check=True)
    assert "going on with the unfinished run" in " ".join(resumed.stdout.split())
    subprocess.run(command(whole), capture_output=True, check=True)
    assert digests(killed) == digests(whole)


def test_a_finished_run_is_loaded_as_it_was_saved(planted_run: Run) -> None:
    loaded = load_run(planted_run.path)
    assert loaded.config == planted_run.config
    assert loaded.metrics == planted_run.metrics
    assert loaded.labels == planted_run.labels
    assert loaded.catalogue.items.equals(planted_run.catalogue.items)
    for mine, theirs in zip(loaded.concepts, planted_run.concepts, strict=True):
        assert np.array_equal(mine.weights, theirs.weights)
        assert vars(mine) | {"weights": None} == vars(theirs) | {"weights": None}
    z = loaded.recommender.embed(
        loaded.split.histories(loaded.split.test), loaded.config.max_length
    )
    assert np.array_equal(loaded.sae.encode(z), planted_run.sae.encode(z))
    assert not loaded.sae.W_dec.requires_grad


def test_the_catalogue_counts_positive_events_of_training_users(planted_run: Run) -> None:
    split = planted_run.split
    expected = np.bincount(split.histories(split.train).items, minlength=split.n_items)
    assert np.array_equal(planted_run.catalogue.popularity, expected)


def test_a_finished_run_is_not_trained_again_nor_overwritten(tmp_path: Path) -> None:
    train(TINY, tmp_path / "run")
    before = digests(tmp_path / "run")
    notes = Notes()
    train(TINY, tmp_path / "run", notes)
    assert "already finished" in notes.texts[0]
    with pytest.raises(RunError, match=r"finished run with other settings .*seed: 1 there, 9 here"):
        train(dataclasses.replace(TINY, seed=9), tmp_path / "run")
    assert digests(tmp_path / "run") == before


def test_an_unfinished_run_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train(_diverging(), tmp_path / "run")
    with pytest.raises(RunError, match=r"unfinished run with other settings .*seed"):
        train(dataclasses.replace(_diverging(), seed=5), tmp_path / "run")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="not empty and holds no run"):
        train(TINY, tmp_path)


def _diverging() -> TrainConfig:
    return dataclasses.replace(TINY, sae_options=TopKOptions(k=4, expansion=4, epochs=20, lr=1e30))


def test_a_diverging_run_names_its_step_and_keeps_what_was_good(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"sae: the loss is (nan|inf) at step \d+ of epoch \d+"):
        train(_diverging(), tmp_path / "run")
    assert (tmp_path / "run" / "recommender.safetensors").is_file()
    assert not (tmp_path / "run" / "sae.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run.json", "expected a run.json, found none"),
        ("sae.safetensors", "sae.safetensors is not a readable safetensors file"),
        ("recommender.json", "recommender.json is not a readable JSON file"),
        ("concepts.parquet", "concepts.parquet is not a readable Parquet file"),
        ("split.npz", "split.npz is not a split"),
    ],
)
def test_a_run_that_lacks_a_file_is_refused_by_its_name(
    tmp_path: Path, name: str, message: str
) -> None:
    train(TINY, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(RunError, match=message):
        load_run(tmp_path / "run")


def test_a_directory_that_is_not_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a directory that trimtab-train wrote"):
        load_run(tmp_path / "nowhere")


def test_every_registered_recommender_can_be_the_base_of_a_run(tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY,
        recommender="puresvd",
        recommender_options=PureSvdOptions(d=8),
        sae_options=TINY.sae_options,
    )
    run = train(config, tmp_path / "run")
    assert load_run(tmp_path / "run").config == run.config
    assert len(run.concepts) == 4


def test_a_run_can_be_read_where_its_data_are_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    events = pl.DataFrame(
        {"user_id": np.repeat(np.arange(100), 10), "item_id": rng.integers(0, 60, 1000)}
    )
    events.write_parquet(data / "interactions.parquet")
    pl.DataFrame({"item_id": np.arange(60)}).write_parquet(data / "items.parquet")
    config = dataclasses.replace(TINY, data=str(data), data_options=FolderOptions())
    notes = Notes()
    run = train(config, tmp_path / "run", notes)
    assert run.concepts == []
    assert any("there are no concepts" in text for text in notes.texts)
    assert any("repeated user-item pairs" in text for text in notes.texts)
    (data / "interactions.parquet").unlink()
    (data / "items.parquet").unlink()
    data.rmdir()
    loaded = load_run(tmp_path / "run")
    assert loaded.data_set == "data"
    assert loaded.config.implicit
    with pytest.raises(DataError, match="--data: expected one of"):
        train(config, tmp_path / "again")


def test_progress_reaches_the_last_epoch_of_every_stage(tmp_path: Path) -> None:
    class Last(Silent):
        seen: dict[str, tuple[int, int]] = {}  # noqa: RUF012

        def epoch(self, report: EpochReport) -> None:
            self.seen[report.task] = (report.epoch, report.epochs)

        def concept(self, done: int, total: int) -> None:
            self.seen["concepts"] = (done, total)

    train(TINY, tmp_path / "run", Last())
    assert Last.seen == {"recommender": (10, 10), "sae": (20, 20), "concepts": (4, 4)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"recommender": "gru4rec"},
        {"sae": "gated"},
        {"max_length": 0},
        {"seed": -1},
        {"implicit": True, "min_value": 3.0},
        {"sae_options": TopKOptions(k=99, expansion=1)},
        {"recommender_options": PureSvdOptions()},
    ],
)
def test_configurations_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(TINY, **wrong)  # type: ignore[arg-type]


def test_a_configuration_survives_json() -> None:
    assert TrainConfig.from_json(TINY.to_json()) == TINY
    with pytest.raises(RunError, match="not one that this version can read"):
        TrainConfig.from_json({"data": "synthetic"})


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains with the defaults on MovieLens 100K."""
    return train(TrainConfig(), tmp_path_factory.mktemp("demo") / "run")


def test_on_movielens_elsa_is_within_3_percent_of_ease(demo_run: Run) -> None:
    figures = {
        row.method: row
        for row in compare(demo_run.recommender, "elsa", demo_run.split, demo_run.config.max_length)
    }
    assert figures["elsa"].ndcg >= 0.97 * figures["EASE"].ndcg
    assert figures["elsa"].ndcg > 1.5 * figures["popularity"].ndcg
    assert figures["elsa"].ndcg == demo_run.metrics["ndcg@20"]


def test_on_movielens_the_reconstruction_costs_at_most_5_percent_at_k_32(demo_run: Run) -> None:
    assert demo_run.sae.k == 32
    assert demo_run.metrics["sae_l0"] <= 32
    assert demo_run.metrics["reconstruct_ndcg_loss@20"] <= 0.05
    assert demo_run.metrics["sae_cosine"] > 0.9


def test_on_movielens_a_genre_at_strength_1_gains_share_in_9_of_10_genres(demo_run: Run) -> None:
    run = demo_run
    users = run.split.test
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    genres = [concept for concept in run.concepts if concept.attribute == "genres"]
    top = sorted(genres, key=lambda concept: -concept.item_count)[:10]
    members = memberships(run.catalogue, run.config.concepts)
    rows = [members.names.index(concept.name) for concept in top]
    targets = run.split.targets(users)
    changes = []
    for concept, row in zip(top, rows, strict=True):
        flags = members.matrix[row].toarray()[0] > 0
        operated = dict(operate(audience, concept, flags, targets, 1.0))
        changes.append(operated[OperationId.ADD_UP].change.mean())
    assert len(changes) == 10
    assert sum(change > 0 for change in changes) >= 9


def test_an_interrupted_run_says_so_and_ends_in_the_same_file(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    whole = tmp_path / "whole"
    process = subprocess.Popen(
        command(stopped), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((stopped / "checkpoints").glob("recommender-*[0-9]")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no checkpoint within 60 s"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert (process.returncode, text.strip()) == (
        130,
        "trimtab-train: interrupted; the same command goes on from the last checkpoint",
    )
    subprocess.run(command(stopped), capture_output=True, check=True)
    subprocess.run(command(whole), capture_output=True, check=True)
    assert digests(stopped) == digests(whole)


def test_leave_one_out_without_any_order_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", time=False)
    config = TrainConfig(data=str(tmp_path / "data"), split=SplitConfig(kind="leave-one-out"))
    with pytest.raises(
        DataError, match="6 of 6 interactions have neither time nor position, but a leave"
    ):
        train(config, tmp_path / "run")


def test_interactions_are_kept_where_an_sql_condition_holds(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    events = load_data_set(
        str(tmp_path / "data"), FolderOptions(where="user_id < 2 AND rating >= 4"), 0
    ).events
    assert events["user_id"].to_list() == ["1", "1"]
    for condition, message in (
        (
            "no_such > 1",
            r"no condition on its columns \(user_id, item_id, rating, timestamp\)",
        ),
        ("user_id > 9", "none of 6 interactions has user_id > 9"),
    ):
        with pytest.raises(DataError, match=message):
            load_data_set(str(tmp_path / "data"), FolderOptions(where=condition), 0)


def write_folder(folder: Path, time: bool = True) -> None:
    folder.mkdir()
    events = pl.DataFrame(
        {"user_id": [1, 1, 1, 2, 2, 2], "item_id": [1, 2, 3, 1, 2, 3], "rating": [5, 4, 3] * 2}
    )
    if time:
        events = events.with_columns(timestamp=pl.int_range(6))
    events.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": [1, 2, 3]}).write_parquet(folder / "items.parquet")

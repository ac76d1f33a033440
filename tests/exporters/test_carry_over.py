"""Names after retraining: carried where they still mean the same, told where they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporters.carry_over import MIN_SIMILARITY, carry_over
from exporters.cli import main
from exporters.determinism import one_thread
from exporters.errors import ContentsError
from exporters.from_run import contents_of
from exporters.previous_bundle import PreviousBundle, read_previous_bundle
from exporters.publish import write_bundle
from training.concepts import Label, item_codes
from training.config import TrainConfig
from training.datasets.synthetic import SyntheticOptions
from training.pipeline import train
from training.recommenders.fitting.elsa import ElsaOptions
from training.run import Run
from training.saes.options import TopKOptions


def planted(out: Path, width: int) -> Run:
    """Trains on the same users and items each time, with another width."""
    return train(
        TrainConfig(
            data="synthetic",
            seed=1,
            data_options=SyntheticOptions(n_users=1000, n_items=150, n_concepts=6),
            recommender_options=ElsaOptions(d=width, epochs=30),
            sae_options=TopKOptions(k=8, expansion=4, epochs=80),
        ),
        out,
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():  # the models are too small to share out
        yield


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("runs") / "before", 32)


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("runs") / "now", 24)


@pytest.fixture(scope="module")
def bundle(before: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "before"
    write_bundle(contents_of(before), out)
    return out


@pytest.fixture(scope="module")
def earlier(bundle: Path) -> PreviousBundle:
    return read_previous_bundle(bundle)


def test_an_earlier_bundle_is_read_as_its_own_run_knows_it(
    before: Run, earlier: PreviousBundle
) -> None:
    codes = item_codes(before.recommender, before.sae, before.config.max_length)
    np.testing.assert_allclose(earlier.codes.toarray(), codes.toarray(), atol=1e-5)
    assert earlier.item_ids == before.catalogue.items["item_id"].to_list()
    assert [concept.name for concept in earlier.concepts] == [
        concept.name for concept in before.concepts
    ]
    assert earlier.concepts[0].value == before.concepts[0].name


def test_names_that_the_run_has_too_are_kept_with_their_similarity(
    earlier: PreviousBundle, now: Run
) -> None:
    carried = carry_over(earlier, now)
    assert carried.run.concepts == now.concepts
    assert [fate.outcome for fate in carried.fates] == ["kept"] * 6
    assert min(fate.similarity for fate in carried.fates) >= MIN_SIMILARITY


def test_a_renamed_concept_comes_over_with_weights_that_find_the_same_items(
    earlier: PreviousBundle, now: Run
) -> None:
    first = earlier.concepts[0]
    renamed = earlier._replace(concepts=[first._replace(name="Mine")])
    carried = carry_over(renamed, now)
    (fate,) = carried.fates
    assert (fate.name, fate.outcome) == ("Mine", "carried")
    mine = carried.run.concepts[-1]
    own = next(c for c in now.concepts if c.name == first.name)
    assert (mine.value, mine.method, mine.item_count) == (first.name, "carried", own.item_count)
    assert mine.steered_share > 2 * mine.unsteered_share
    cosine = mine.weights @ own.weights / np.linalg.norm(mine.weights) / np.linalg.norm(own.weights)
    assert cosine > 0.9


def test_what_has_no_like_any_more_is_lost_and_told(earlier: PreviousBundle, now: Run) -> None:
    rng = np.random.default_rng(0)
    first = earlier.concepts[0]
    chance = first._replace(name="chance", weights=np.zeros_like(first.weights))
    noise = rng.random(earlier.codes.shape).astype(np.float32)
    strange = earlier._replace(
        concepts=[
            chance._replace(weights=rng.normal(size=len(first.weights)).astype(np.float32)),
            chance._replace(name="silent"),
            first._replace(name="elsewhere", attribute="director"),
        ],
        codes=type(earlier.codes)(noise),
    )
    carried = carry_over(strange, now)
    assert [fate.outcome for fate in carried.fates] == ["lost"] * 3
    assert "similarity below 0.7" in carried.fates[0].reason
    assert "no attribute 'director'" in carried.fates[2].reason
    assert carried.run.concepts == now.concepts
    changed = carry_over(strange._replace(concepts=[chance._replace(name=first.name)]), now)
    assert [fate.outcome for fate in changed.fates] == ["changed"]


def test_labels_that_people_gave_go_to_the_neuron_that_fires_alike(
    earlier: PreviousBundle, now: Run
) -> None:
    best = int(earlier.concepts[0].weights.argmax())
    labels = [list(row) for row in earlier.labels]
    labels[best].insert(0, Label("what I call it", "person", 1.0, "me"))
    dead = (best + 1) % len(labels)
    labels[dead].append(Label("nothing fires", "person", 1.0))
    codes = earlier.codes.tolil()
    codes[:, dead] = 0
    carried = carry_over(earlier._replace(labels=labels, codes=codes.tocsr()), now)
    assert (carried.labels_carried, carried.labels_lost) == (1, 1)
    (neuron,) = [n for n, row in enumerate(carried.run.labels) if row and row[0].method == "person"]
    own = next(concept for concept in now.concepts if concept.name == earlier.concepts[0].name)
    assert neuron == own.weights.argmax()
    assert (
        f"me; neuron {best} of bundle {earlier.bundle_id[:12]}, cosine "
        in carried.run.labels[neuron][0].provenance
    )


def test_bundles_that_share_hardly_any_items_are_refused(earlier: PreviousBundle, now: Run) -> None:
    strangers = earlier._replace(item_ids=[f"other-{row}" for row in range(len(earlier.item_ids))])
    with pytest.raises(ContentsError, match=r"shares with the run .*, found 0"):
        carry_over(strangers, now)


def test_the_command_carries_an_exported_label_set_and_reports_it(
    bundle: Path, before: Run, now: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    concept = before.concepts[0]
    weights = [{"neuron": n, "weight": float(w)} for n, w in enumerate(concept.weights) if w]
    records = [
        {
            "concept": "Mine",
            "attribute": concept.attribute,
            "value": concept.name,
            "weights": weights,
        },
        {"concept": before.concepts[1].name},
    ]
    file = tmp_path / "labels.jsonl"
    out = tmp_path / "bundle"
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    command = [
        str(now.path),
        "--out",
        str(out),
        "--concepts-from",
        str(bundle),
        "--old-labels",
        str(file),
    ]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "carried" in shown
    assert "kept" in shown
    rows = pq.read_table(out / "concepts.parquet").to_pylist()
    assert (rows[-1]["name"], rows[-1]["value"], rows[-1]["method"]) == (
        "Mine",
        concept.name,
        "carried",
    )
    again = read_previous_bundle(out)
    assert again.concepts[-1].value == concept.name

    file.write_text('{"concept": "Nowhere"}\n')
    assert main([*command[:2], str(tmp_path / "other"), *command[3:]]) == 1
    assert "line 1: expected a concept of the bundle, found 'Nowhere'" in capsys.readouterr().err

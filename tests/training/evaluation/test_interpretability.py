"""Interpretability: figures against naive formulas, planted truth, and the written report."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.purity import concept_entropy, monosemanticity, neuron_entropy
from training.evaluate import main
from training.evaluation.interpretability import PROBE_SIZES, interpret, representations, stability
from training.run import Run, load_run


@given(st.integers(0, 2**32), st.integers(2, 9), st.booleans())
def test_monosemanticity_is_the_papers_double_sum(seed: int, items: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(items, 3)) if signed else np.maximum(rng.normal(size=(items, 3)), 0)
    V = rng.integers(-9, 10, (items, 4)) + 0.5
    found = monosemanticity(csr_matrix(codes), V.astype(np.float32))
    unit = V / np.linalg.norm(V, axis=1, keepdims=True)
    for neuron in range(3):
        a = codes[:, neuron] - codes[:, neuron].min()
        if (a > 0).sum() < 2:
            assert np.isnan(found[neuron])
            continue
        a = a / a.max()
        pairs = [(i, j) for i in range(items) for j in range(items) if i != j]
        over = sum(a[i] * a[j] * (unit[i] @ unit[j]) for i, j in pairs)
        assert found[neuron] == pytest.approx(over / sum(a[i] * a[j] for i, j in pairs), abs=1e-6)


def test_entropy_is_0_for_one_concept_and_1_for_all_alike() -> None:
    members = csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.float32))
    codes = csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=np.float32))
    evidence = Evidence.whole(members, codes)
    first, second, dead = neuron_entropy(evidence)
    assert (first, second) == pytest.approx((0.0, 1.0))
    assert np.isnan(dead)
    assert concept_entropy(evidence)[1] == pytest.approx(0.0)


def test_planted_concepts_are_found_by_one_neuron_of_the_sae_and_not_of_an_untrained_one(
    planted_run: Run,
) -> None:
    sae, untrained, raw = interpret(planted_run, most_concepts=100)
    assert [part.representation for part in (sae, untrained, raw)] == [
        "SAE", "untrained SAE", "raw dimensions",
    ]  # fmt: skip
    assert sae.probe_aucs[0] > 0.95
    assert sae.probe_aucs[0] > max(untrained.probe_aucs[0], raw.probe_aucs[0]) + 0.1
    assert sae.monosemanticity > untrained.monosemanticity > raw.monosemanticity
    assert sae.neuron_entropy < untrained.neuron_entropy < raw.neuron_entropy
    assert sae.confident_share * sae.alive_share * sae.neurons > 9.5, (
        "the neurons of 10 planted concepts"
    )


def test_an_untrained_sae_has_the_trained_ones_shape_and_is_the_same_each_time(
    planted_run: Run,
) -> None:
    first = representations(planted_run)
    again = representations(planted_run)
    assert first[1].codes.shape == first[0].codes.shape
    assert (np.diff(first[1].codes.indptr) <= planted_run.sae.k).all()
    assert (first[1].codes != again[1].codes).nnz == 0
    assert first[2].codes.shape[1] == 2 * planted_run.recommender.d


def test_a_run_is_stable_against_itself_and_strangers_are_not(planted_run: Run) -> None:
    shares = stability([planted_run, planted_run])
    assert shares["SAE"] == [1.0, 1.0]
    assert max(shares["untrained SAE"]) < 0.2


def test_the_report_holds_tables_curves_cards_and_figures(planted_run: Run, tmp_path: Path) -> None:
    run = str(planted_run.path)
    assert (
        main(["interpretability", "--run", run, run, "--out", str(tmp_path), "--concepts", "5"])
        == 0
    )
    text = (tmp_path / "interpretability.md").read_text()
    for name in (
        "interpretability.png",
        "interpretability-cards.png",
        "interpretability-activations.png",
    ):
        assert f"({name})" in text
        assert (tmp_path / name).stat().st_size > 5_000
    figures = json.loads((tmp_path / "interpretability.json").read_text())["figures"]
    assert figures["stability"]["SAE"] == [1.0, 1.0]
    assert len(figures["measured"][0][0]["probe_aucs"]) == len(PROBE_SIZES)


def test_runs_without_attributes_are_refused(
    planted_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in planted_run.path.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    load_run(bare).catalogue.items.drop("concepts").write_parquet(bare / "items.parquet")
    assert main(["interpretability", "--run", str(bare)]) == 1
    assert "no attribute value is on enough items" in capsys.readouterr().err

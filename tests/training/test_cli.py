"""The commands as a person uses them."""

import json
from pathlib import Path

import pytest

from training.cli import train
from training.config import TrainConfig
from training.evaluate import main as evaluate
from training.options import documented
from training.run import Run
from training.saes.options import TopKOptions

FLAGS = [
    "--data",
    "synthetic",
    "--data-n-users",
    "200",
    "--data-n-items",
    "80",
    "--data-n-concepts",
    "4",
]
FLAGS += [
    "--recommender-d",
    "8",
    "--recommender-epochs",
    "5",
    "--sae-epochs",
    "5",
    "--sae-k",
    "4",
    "--threads",
    "1",
]


def words(text: str) -> str:
    return " ".join(text.split())


def test_training_prints_what_the_sae_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*FLAGS, "--out", str(tmp_path / "run")]) == 0
    shown = words(capsys.readouterr().out)
    assert "of nDCG@20" in shown
    assert "users, items 200, 80" in shown
    assert "concept-00" in shown
    assert (tmp_path / "run" / "run.json").is_file()


def test_flags_reach_the_configuration(tmp_path: Path) -> None:
    more = [
        "--seed",
        "7",
        "--max-length",
        "30",
        "--split-min-positives",
        "6",
        "--concepts-min-items",
        "3",
    ]
    assert train([*FLAGS, *more, "--out", str(tmp_path / "run")]) == 0
    config = TrainConfig.from_json(
        json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    )
    assert (config.seed, config.max_length) == (7, 30)
    assert (config.split.min_positives, config.concepts.min_items) == (6, 3)
    assert (config.recommender_options.d, config.sae_options.k) == (8, 4)
    assert config.data_options.n_concepts == 4


def test_help_shows_every_documented_field_with_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        train(["--help"])
    shown = words(capsys.readouterr().out)
    for name in documented(TopKOptions):
        assert f"--sae-{name.replace('_', '-')}" in shown
    assert "Neurons that stay active in each code. (default: 32)" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "ml-10k"], "--data: expected one of ml-100k, synthetic"),
        (["--recommender", "gru"], "--recommender: expected one of als, bert4rec"),
        (["--sae", "gated"], "--sae: expected one of batchtopk, jumprelu"),
        (["--data", "ml-100k", "--data-dir", "/nowhere"], "pip install --no-deps recbole==1.2.1"),
        (["--sae-k", "5000"], "SAE: k: expected at most n_neurons = 256 x 4, found 5000"),
        (
            ["--sae-expansion", "0"],
            "SAE: expansion: expected at least 1, found 0",
        ),
        (["--threads", "-1"], "--threads: expected 0 or more, found -1"),
    ],
)
def test_bad_flags_get_one_clear_line_and_status_1(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*flags, "--out", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert words(captured.err).startswith("trimtab-train: ")
    assert message in words(captured.err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["ranking", "fidelity", "neurons", "steering"])
def test_evaluations_print_a_table_and_write_json(
    what: str, planted_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    assert (
        evaluate([what, "--run", str(planted_run.path), "--threads", "1", "--json", str(target)])
        == 0
    )
    figures = json.loads(target.read_text())
    shown = capsys.readouterr().out
    if what == "ranking":
        methods = {row["method"]: row["ndcg"] for row in figures[0]["methods"]}
        assert list(methods) == ["elsa", "EASE", "PureSVD", "popularity"]
        assert methods["elsa"] == planted_run.metrics["ndcg@20"]
        assert all(f"{value:.4f}" in shown for value in methods.values())
    elif what == "fidelity":
        assert figures[0]["ndcg_loss"] == planted_run.metrics["reconstruct_ndcg_loss@20"]
        assert figures[0]["l0"] <= planted_run.sae.k
    elif what == "neurons":
        assert sorted(row["concept"] for row in figures) == [
            f"concept-{number:02d}" for number in range(10)
        ]
        assert all(0 <= row["neuron"] < planted_run.sae.n_neurons for row in figures)
    else:
        changes = [concept["change"] for concept in figures[0]["concepts"].values()]
        assert len(changes) == 10
        assert all(change["ADD +x"]["mean"] > 0 > change["ADD -x"]["mean"] for change in changes)


def test_evaluating_what_is_no_run_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(["fidelity", "--run", str(tmp_path)]) == 1
    assert "expected a run.json, found none" in words(capsys.readouterr().err)

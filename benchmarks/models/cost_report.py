"""Builds the report of training_cost.py."""

from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.report import Report, Table


def report(results: list[dict[str, Any]], command: str, threads: int) -> Report:
    """Builds the report of all cells."""

    def of(measure: str) -> list[dict[str, Any]]:
        return [result for result in results if result["spec"]["measure"] == measure]

    paragraphs = [
        "Dense is arXiv 2601.11182's way: x and the scores are users x items matrices "
        "(benchmarks/models/dense_training.py). Exact has the same loss and gradient from ragged "
        "histories and one matrix of scores; linear leaves ELSA's ReLU out and holds no scores. "
        "The SAE's ways differ in how its activations are made and its codes decoded.",
        "The ways of one model take turns, epoch by epoch, with the same draws, in one process "
        f"with {threads} threads. Seconds an epoch are medians, with the least and the most; CPU "
        "seconds say the same where other work shares the machine. nDCG@20 is on the test users "
        "after the stated epochs, for the SAE of what it reconstructs.",
        "Peak memory is that of a process that does nothing else, torch and the data included; "
        "beside it is what was held before the training began.",
    ]
    tables = [
        Table(
            "Dense and ours, in turn",
            (
                "model",
                "d",
                "batch",
                "epochs",
                "way",
                "s an epoch",
                "CPU s",
                "times faster",
                "nDCG@20",
            ),
            [row for result in of("compare") for row in _compared(result)],
        ),
        Table(
            "Alone: time and peak memory",
            (
                "model",
                "data",
                "d",
                "batch",
                "way",
                "s an epoch",
                "measured steps",
                "peak MB",
                "before MB",
            ),
            [_alone(result) for result in of("alone")],
        ),
        *(
            Table(
                title,
                ("kind", "data", "d", "s an epoch", "peak MB", "before MB"),
                [_kind(result) for result in of(measure)],
            )
            for title, measure in (
                ("Every recommender", "recommender"),
                ("Every SAE, on ELSA", "sae"),
            )
        ),
    ]
    seconds = sum(result["seconds"] for result in results)
    cells = [{**result["spec"], **result["found"]} for result in results]
    return Report(
        "training-cost", "What training costs", command, paragraphs, tables, None, cells, seconds
    )


def _compared(result: dict[str, Any]) -> list[list[object]]:
    spec = result["spec"]
    found = result["found"]
    dense = np.median(found["dense"]["wall_s"])
    about = [spec["model"], spec["d"], spec["batch_size"], spec["epochs"]]
    return [
        [
            *about,
            way,
            _seconds(of["wall_s"]),
            f"{np.median(of['cpu_s']):.3f}",
            _times(dense, of),
            of["ndcg"],
        ]
        for way, of in ((way, found[way]) for way in spec["ways"])
    ]


def _times(dense: float, of: dict[str, Any]) -> str:
    return f"{dense / np.median(of['wall_s']):.1f}"


def _alone(result: dict[str, Any]) -> list[object]:
    spec = result["spec"]
    found = result["found"]
    steps = f"{found['steps']} of {found['of']}"
    about = [spec["model"], Path(spec["data"]).name, spec["d"], spec["batch_size"], spec["way"]]
    return [*about, _seconds(found["wall_s"]), steps, *_memory(found)]


def _kind(result: dict[str, Any]) -> list[object]:
    spec = result["spec"]
    found = result["found"]
    seconds = _seconds(found["wall_s"]) + (" in all" if found["whole"] else "")
    return [spec["name"], Path(spec["data"]).name, found["d"], seconds, *_memory(found)]


def _memory(found: dict[str, Any]) -> tuple[str, str]:
    return f"{found['peak_mb']:.0f}", f"{found['before_mb']:.0f}"


def _seconds(values: list[float]) -> str:
    digits = 1 if np.median(values) >= 10 else 3
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.median(values):.{digits}f}{spread}"

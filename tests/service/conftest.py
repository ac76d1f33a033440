"""Bundles of every kind with the torch models behind them: contexts, scale rules, uncounted codes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle

KINDS: dict[str, dict[str, Any]] = {
    "unit": {},
    "standard": {"with_bias": True, "scale_rule": "standard", "scale_factor": 2.5},
    "context": {
        "with_context": True,
        "k": 128,
        "padded": True,
        "scale_rule": "none",
        "scale_factor": 0.5,
    },
}


class Variant(NamedTuple):
    """A bundle and its torch models."""

    path: Path
    bundle: Bundle
    world: Any


@pytest.fixture(scope="session")
def variant(
    make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Variant]:
    """Makes the bundle of a kind, once."""
    factory = sys.modules["bundle_factory"]

    @cache
    def make(kind: str) -> Variant:
        path = make_bundle(tmp_path_factory.mktemp("bundles") / kind, **KINDS[kind])
        return Variant(path, open_bundle(path), factory.make_world(**KINDS[kind]))

    return make


@pytest.fixture(scope="session")
def program() -> Callable[..., AbstractContextManager["subprocess.Popen[str]"]]:
    """A way to run trimtab-serve as a process: bundle, data directory, port, then flags."""

    @contextmanager
    def run(
        bundle_dir: Path, data_dir: Path, port: int, *flags: str
    ) -> Iterator["subprocess.Popen[str]"]:
        command = [
            str(Path(sys.executable).with_name("trimtab-serve")),
            "--bundle",
            str(bundle_dir),
        ]
        command += [
            "--listen",
            f"127.0.0.1:{port}",
            "--metrics-port",
            "0",
            "--data-dir",
            str(data_dir),
        ]
        process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()

    return run

"""Fixtures that more than one package's tests use: a real bundle, a real Valkey, a real server."""

import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle
from service.storage.embedded_valkey import embedded_valkey
from tests.support import bundle_factory
from tests.support.bundle_factory import MakeBundle
from tests.support.grpc_log import silence_poller
from tests.support.servers import FindPort, Served, StartServer, find_port, serve

ROOT = Path(__file__).resolve().parents[1]

silence_poller()


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """Makes a small structured bundle through the exporters, without training."""
    return bundle_factory.make_bundle


@pytest.fixture(scope="session")
def bundle_dir(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a bundle with an identity head."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="session")
def head_bundle_dir(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a bundle with a nonlinear head and item biases."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "head", with_head=True, with_bias=True)


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return open_bundle(bundle_dir)


@pytest.fixture(scope="session")
def head_bundle(head_bundle_dir: Path) -> Bundle:
    return open_bundle(head_bundle_dir)


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[str]:
    """Starts an empty Valkey for one test; its URL."""
    async with embedded_valkey(tmp_path / "data") as url:
        yield url


@pytest.fixture(scope="session")
def served(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Runs one server for all tests that do not change it; they use user ids of their own."""
    with serve(bundle_dir, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="session")
def start_server() -> StartServer:
    """Runs a server of the test's own: bundle, data directory, then flags; a context manager."""
    return serve


@pytest.fixture(scope="session")
def free_port() -> FindPort:
    """Finds a port that nobody listens on."""
    return find_port


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the demo's run and bundle by its own commands with their defaults: a minute.

    The processes of one test run share them; the first that asks makes them.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "demo"
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bundle").is_dir():
            _make_demo(folder)
    return folder


def _make_demo(folder: Path) -> None:
    scripts = Path(sys.executable).parent
    run = folder / "run"
    _succeed(scripts / "trimtab-train", "--data", "ml-100k", "--out", run)
    _succeed(scripts / "trimtab-export", run, "--out", folder / "bundle")


def _succeed(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """Finds the folder of real data sets; tests that need it are skipped without it."""
    folder = Path(os.environ.get("TRIMTAB_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}: set TRIMTAB_DATA")
    return folder

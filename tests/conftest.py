"""Fixtures that more than one package's tests use: a real bundle, a real Valkey, a real server."""

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle
from service.process.server import RunningServer, running_server
from service.settings import read_settings
from service.storage.embedded_valkey import embedded_valkey

ROOT = Path(__file__).resolve().parents[1]


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "fixtures" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up the names in annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Makes a small structured bundle through the exporters, without training."""
    made: Callable[..., Path] = _load("bundle_factory").make_bundle
    return made


@pytest.fixture(scope="session")
def bundle_dir(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an identity head."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="session")
def head_bundle_dir(
    make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle with a nonlinear head and item biases."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "head", with_head=True, with_bias=True)


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return open_bundle(bundle_dir)


@pytest.fixture(scope="session")
def head_bundle(head_bundle_dir: Path) -> Bundle:
    return open_bundle(head_bundle_dir)


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty Valkey of this test's own."""
    async with embedded_valkey(tmp_path / "data") as url:
        yield url


@dataclass(frozen=True)
class Served:
    """A server running in a thread, and a channel to it."""

    running: RunningServer
    target: str
    channel: grpc.Channel
    data_dir: Path


@contextmanager
def serve(bundle_dir: Path, data_dir: Path, *flags: str) -> Iterator[Served]:
    """A real server on a free port with its own loop, so that blocking clients can be tested against it."""
    arguments = ["--bundle", str(bundle_dir), "--listen", "127.0.0.1:0", "--metrics-port", "0"]
    arguments += ["--data-dir", str(data_dir), "--drain-s", "2", *flags]
    settings = read_settings(arguments)
    started: list[RunningServer | BaseException] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        try:
            async with running_server(settings) as running:
                started.append(running)
                ready.set()
                await stop.wait()
        except BaseException as error:
            started.append(error)
            ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(30), "the server did not start within 30 s"
    try:
        if isinstance(started[0], BaseException):
            raise started[0]
        target = f"127.0.0.1:{started[0].port}"
        with grpc.insecure_channel(target) as channel:
            yield Served(started[0], target, channel, data_dir)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(40)
        assert not thread.is_alive(), (
            f"the server did not stop within 40 s: {asyncio.all_tasks(loop)}"
        )
        loop.close()


@pytest.fixture(scope="session")
def served(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it as it was; they use user ids of their own."""
    with serve(bundle_dir, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="session")
def start_server() -> Callable[..., Any]:
    """A way to run a server of the test's own: bundle, data directory, then flags; a context manager."""
    return serve


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's run and bundle, made once by its own commands with their defaults: about a minute."""
    folder = tmp_path_factory.mktemp("demo")
    scripts = Path(sys.executable).parent
    train = [scripts / "trimtab-train", "--data", "ml-100k", "--out", folder / "run"]
    export = [scripts / "trimtab-export", folder / "run", "--out", folder / "bundle"]
    for command in (train, export):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TRIMTAB_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}: set TRIMTAB_DATA")
    return folder

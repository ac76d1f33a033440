"""Real servers for tests: one in a thread of the test's process, or one as a process of its own."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from service.process.server import RunningServer, running_server
from service.settings import read_settings

START_S = 30
STOP_S = 40


@dataclass(frozen=True)
class Served:
    """A server running in a thread, and a channel to it."""

    running: RunningServer
    target: str
    channel: grpc.Channel
    data_dir: Path


class StartServer(Protocol):
    """Runs a server of the test's own until the end of the block."""

    def __call__(
        self, bundle_dir: Path, data_dir: Path, *flags: str
    ) -> AbstractContextManager[Served]: ...


class StartProgram(Protocol):
    """Runs trimtab-serve as a process until the end of the block."""

    def __call__(
        self, bundle_dir: Path, data_dir: Path, port: int, *flags: str
    ) -> AbstractContextManager["subprocess.Popen[str]"]: ...


class FindPort(Protocol):
    """Finds a port that nobody listens on."""

    def __call__(self) -> int: ...


@contextmanager
def serve(bundle_dir: Path, data_dir: Path, *flags: str) -> Iterator[Served]:
    """Runs a server on a free port with its own loop, so that blocking clients can test it."""
    arguments = ["--bundle", str(bundle_dir), "--listen", "127.0.0.1:0", "--metrics-port", "0"]
    arguments += ["--data-dir", str(data_dir), "--drain-s", "2", *flags]
    settings = read_settings(arguments)
    started: list[RunningServer | BaseException] = []
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    stop = asyncio.Event()

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        try:
            async with running_server(settings) as running:
                started.append(running)
                ready.set()
                await stop.wait()
        except BaseException as error:
            started.append(error)
            ready.set()

    # asyncio.run ends what the server's libraries leave: tasks, generators and threads.
    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(START_S), f"the server did not start within {START_S} s"
    try:
        if isinstance(started[0], BaseException):
            raise started[0]
        target = f"127.0.0.1:{started[0].port}"
        with grpc.insecure_channel(target) as channel:
            yield Served(started[0], target, channel, data_dir)
    finally:
        with suppress(RuntimeError):  # the loop is closed if the server could not start
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(STOP_S)
        assert not thread.is_alive(), (
            f"the server did not stop within {STOP_S} s: {asyncio.all_tasks(loops[0])}"
        )


@contextmanager
def run_program(
    bundle_dir: Path, data_dir: Path, port: int, *flags: str
) -> Iterator["subprocess.Popen[str]"]:
    """Runs trimtab-serve as a process; kills it at the end if it still runs."""
    command = [str(Path(sys.executable).with_name("trimtab-serve")), "--bundle", str(bundle_dir)]
    command += ["--listen", f"127.0.0.1:{port}", "--metrics-port", "0"]
    command += ["--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def find_port() -> int:
    """Finds a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

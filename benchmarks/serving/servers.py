"""Starts servers under test, each a process on chosen cores, and puts load on them."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

TRIMTAB_SERVE = str(Path(sys.executable).with_name("trimtab-serve"))
SERVER_CORE = "0"
LOAD_CORE = "1"
BOTH_CORES = "0,1"
RECOMMEND = "/trimtab.v1.RecommendationService/Recommend"
BATCH = "/trimtab.v1.RecommendationService/BatchRecommend"


class Server(NamedTuple):
    """A running server."""

    target: str
    method: str
    pid: int
    metrics_port: int = 0

    def metrics(self) -> dict[str, float]:
        """Reads the server's metrics: sample with labels -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            lines = page.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


@contextmanager
def trimtab_server(
    bundle: Path,
    data_dir: Path,
    log: Path,
    *flags: str,
    workers: int = 1,
    cores: str = SERVER_CORE,
    program: Sequence[str] = (TRIMTAB_SERVE,),
) -> Iterator[Server]:
    port = free_port()
    metrics_port = free_port()
    target = f"127.0.0.1:{port}"
    command = [*program, "--bundle", str(bundle)]
    command += [
        "--listen",
        target,
        "--metrics-port",
        str(metrics_port),
        "--data-dir",
        str(data_dir),
        *flags,
    ]
    with running([*command, "--workers", str(workers)], log, cores) as process:
        _wait_ready(target)
        server = Server(target, RECOMMEND, process.pid, metrics_port)
        while server.metrics()["trimtab_workers"] < workers:
            time.sleep(0.1)
        yield server


@contextmanager
def comparison_server(answer: Path, log: Path, bundle: Path | None = None) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.serving.handlers", "--answer", str(answer)]
    command += ["--bundle", str(bundle)] if bundle else []
    with running(command, log, SERVER_CORE) as process:
        assert process.stdout
        target = f"127.0.0.1:{int(process.stdout.readline())}"
        _wait_ready(target)
        yield Server(target, "/bench/Call", process.pid)


def put_load(
    server: Server, requests: Path, method: str = "", *, cores: str = LOAD_CORE, **options: Any
) -> dict[str, Any]:
    """Runs one block of load and reads the figures of load.py; options are LoadOptions'."""
    command = ["taskset", "-c", cores, sys.executable, "-m", "benchmarks.serving.load"]
    command += [
        "--requests",
        str(requests),
        "--target",
        server.target,
        "--method",
        method or server.method,
    ]
    command += ["--watch", str(server.pid)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@contextmanager
def running(
    command: list[str], log: Path, cores: str = "", environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Runs a process, on given cores if any, until the end of the block; logs its errors."""
    pinned = ["taskset", "-c", cores, *command] if cores else command
    with log.open("a") as file:
        process = subprocess.Popen(
            pinned, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)
            if process.stdout:
                process.stdout.close()


def _wait_ready(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result(120)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

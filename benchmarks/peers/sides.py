"""Starts, asks and loads each peer; README.md gives the reasons."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from trimtab.v1.recommendation_pb2 import RecommendRequest

from benchmarks.serving.load import Request, write_requests
from benchmarks.serving.servers import BOTH_CORES, Server, free_port, running

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
"""Holds the package `benchmarks`, for the Python of another environment."""
PATH = "/inference"
START_S = 60.0
HTTP_CONNECTIONS = 32
"""One for each call under way."""


class Setup(NamedTuple):
    """Folders and the store's address."""

    venvs: Path
    out: Path
    store: str

    @property
    def log(self) -> Path:
        return self.out / "peers.log"

    def environment(self, **more: str) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return os.environ | threads | {"PREPARED": str(self.out), "STORE": self.store, **more}


class Peer(Protocol):
    """A server with the pipeline."""

    load: ClassVar[dict[str, Any]]
    """Options of load.py."""

    @property
    def name(self) -> str:
        """Names the peer in reports, and its virtual environment."""

    def running(self, setup: Setup) -> AbstractContextManager[Server]:
        """Raises OSError if it does not start."""

    def write(self, setup: Setup, asked: Sequence[RecommendRequest]) -> Path:
        """Writes the requests in the peer's form, in a file for load.py."""

    def ask(
        self, setup: Setup, server: Server, asked: Sequence[RecommendRequest]
    ) -> list[list[str]]:
        """Asks for lists of item ids."""


def as_json(asked: RecommendRequest) -> str:
    edits = [(edit.concept or f"#{edit.neuron}", edit.strength) for edit in asked.steering.edits]
    return json.dumps({"user_id": asked.user_id, "edits": edits})


@dataclass(frozen=True)
class HttpPeer:
    """JSON over HTTP/1.1, on keep-alive connections."""

    name: str
    command: Callable[[Path, str], list[str]]
    """Makes the command from the environment's folder of programs and the port."""
    load: ClassVar[dict[str, Any]] = {"protocol": "http1", "concurrency": HTTP_CONNECTIONS}

    @contextmanager
    def running(self, setup: Setup) -> Iterator[Server]:
        port = free_port()
        command = self.command(setup.venvs / self.name / "bin", str(port))
        with running(
            command, setup.log, BOTH_CORES, setup.environment(PYTHONPATH=str(ROOT))
        ) as process:
            wait_for(port, process)
            yield Server(f"127.0.0.1:{port}", PATH, process.pid)

    def write(self, setup: Setup, asked: Sequence[RecommendRequest]) -> Path:
        path = setup.out / "json.requests"
        write_requests(path, (Request(0, as_json(one).encode()) for one in asked))
        return path

    def ask(
        self,
        setup: Setup,  # noqa: ARG002  other peers need it
        server: Server,
        asked: Sequence[RecommendRequest],
    ) -> list[list[str]]:
        lists = []
        for one in asked:
            request = urllib.request.Request(f"http://{server.target}{PATH}", as_json(one).encode())
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=10) as reply:
                lists.append(json.load(reply)["item_ids"])
        return lists


class Triton:
    """Tensors over gRPC."""

    name = "triton"
    load: ClassVar[dict[str, Any]] = {"connections": 16}

    @contextmanager
    def running(self, setup: Setup) -> Iterator[Server]:
        (packages,) = (setup.venvs / self.name / "lib").glob("python*/site-packages")
        own = packages / "pytriton" / "tritonserver"
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        backends = setup.out / "backends"
        shutil.copytree(own / "backends", backends, dirs_exist_ok=True)
        shutil.copy(
            own / "python_backend_stubs" / python / "triton_python_backend_stub",
            backends / "python",
        )
        libraries = f"{packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
        port = free_port()
        command = [
            str(own / "bin" / "tritonserver"),
            "--model-repository",
            str(HERE / "triton_models"),
        ]
        command += ["--backend-directory", str(backends), "--grpc-port", str(port)]
        command += ["--allow-http", "false", "--allow-metrics", "false"]
        environment = setup.environment(LD_LIBRARY_PATH=libraries, PYTHONPATH=f"{ROOT}:{packages}")
        with running(command, setup.log, BOTH_CORES, environment) as process:
            wait_for(port, process)
            method = "/inference.GRPCInferenceService/ModelInfer"
            yield Server(f"127.0.0.1:{port}", method, process.pid)

    def write(self, setup: Setup, asked: Sequence[RecommendRequest]) -> Path:
        path = setup.out / "triton.requests"
        self._wire(setup, asked, "write", str(path))
        return path

    def ask(
        self, setup: Setup, server: Server, asked: Sequence[RecommendRequest]
    ) -> list[list[str]]:
        return [
            json.loads(line) for line in self._wire(setup, asked, "ask", server.target).splitlines()
        ]

    def _wire(self, setup: Setup, asked: Sequence[RecommendRequest], what: str, where: str) -> str:
        program = [str(setup.venvs / self.name / "bin" / "python"), str(HERE / "triton_wire.py")]
        lines = "\n".join(map(as_json, asked))
        return subprocess.run(
            [*program, what, where], input=lines, stdout=subprocess.PIPE, text=True, check=True
        ).stdout


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    """Waits until the port accepts connections.

    Raises:
        OSError: the process ended, or took too long.
    """
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise OSError(f"{process.args!r} does not listen; its exit status is {process.poll()}")


PEERS: tuple[Peer, ...] = (
    Triton(),
    HttpPeer(
        "mosec",
        lambda programs, port: [
            *(str(programs / "python"), str(HERE / "mosec_server.py")),
            *("--address", "127.0.0.1", "--port", port, "--log-level", "warning"),
        ],
    ),
    HttpPeer(
        "fastapi",
        lambda programs, port: [
            *(
                str(programs / "uvicorn"),
                "benchmarks.peers.fastapi_server:app",
                "--workers",
                "2",
                "--port",
                port,
            ),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
        ],
    ),
)

"""Tests deploy/Dockerfile without a container engine: runs its instructions on other paths."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc

from service.settings import Settings
from tests.support.servers import FindPort

ROOT = Path(__file__).resolve().parents[2]
NO_INDEX = (
    "No matching distribution found",
    "Failed to establish a new connection",
    "Temporary failure in name",
)


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of each stage in order, as ("RUN", "pip ..."), without flags."""

    stages: tuple[tuple[tuple[str, str], ...], ...]

    def all(self, instruction: str, stage: int) -> list[str]:
        return [value for name, value in self.stages[stage] if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (pair for value in self.all("ENV", -1) for pair in value.split())
        return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    joined = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace(
        "\\\n", " "
    )
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, value = line.split(None, 1)
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, re.sub(r"^(--\S+\s+)+", "", " ".join(value.split()))))
    return Dockerfile(tuple(map(tuple, stages)))


@dataclass(frozen=True)
class Installed:
    """What the image has under /opt/trimtab, somewhere else."""

    bin: Path

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.bin / command[0], *command[1:]], capture_output=True, text=True, timeout=60
        )


@pytest.fixture(scope="module")
def installed(dockerfile: Dockerfile, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Runs the build stage's COPY and RUN lines: about half a minute, mostly pip."""
    home = tmp_path_factory.mktemp("image")
    source = home / "src"
    source.mkdir()
    places = {"/wheels": home / "wheels", "/opt/trimtab": home / "opt"}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name, value in dockerfile.stages[0]:
        if name == "COPY":
            _copy(value.split(), source)
        elif name == "RUN":
            for there, here in places.items():
                value = value.replace(there, str(here))
            done = subprocess.run(
                ["sh", "-c", value], cwd=source, env=environment, capture_output=True, text=True
            )
            if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
                pytest.skip(f"no package index for: {value}")
            assert done.returncode == 0, f"{value}\n{done.stdout}{done.stderr}"
    return Installed(home / "opt" / "bin")


def _copy(names: list[str], source: Path) -> None:
    """Copies as Docker does: the contents of a directory, without what .dockerignore excludes."""
    *origins, goal = names
    for origin in origins:
        if (ROOT / origin).is_dir():
            shutil.copytree(
                ROOT / origin, source / goal, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / origin, source / goal)


@pytest.fixture
def serving(
    dockerfile: Dockerfile,
    installed: Installed,
    bundle_dir: Path,
    tmp_path: Path,
    free_port: FindPort,
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Runs the image's ENTRYPOINT under its ENV, with other ports and paths; its port."""
    port = free_port()
    own = {
        "TRIMTAB_LISTEN": f"127.0.0.1:{port}",
        "TRIMTAB_METRICS_PORT": "0",
        "TRIMTAB_BUNDLE": str(bundle_dir),
        "TRIMTAB_DATA_DIR": str(tmp_path / "data"),
    }
    image = dockerfile.environment
    assert own.keys() <= image.keys()
    environment = {**image, **own, "PATH": f"{installed.bin}:/usr/bin:/bin"}
    (entrypoint,) = json.loads(dockerfile.all("ENTRYPOINT", -1)[0])
    process = subprocess.Popen(
        [installed.bin / entrypoint],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def test_torch_and_the_offline_packages_cannot_be_imported_in_the_image(
    installed: Installed,
) -> None:
    assert (
        installed.run(
            "python", "-c", "import service.process.server, service.process.worker, trimtab"
        ).returncode
        == 0
    )
    for name in ("torch", "polars", "scipy", "onnx", "pytest"):
        failed = installed.run("python", "-c", f"import {name}")
        assert failed.returncode != 0, name
        assert "ModuleNotFoundError" in failed.stderr


def test_the_image_serves_a_bundle_passes_its_own_health_check_and_ends_on_sigterm(
    serving: tuple["subprocess.Popen[str]", int], dockerfile: Dockerfile, installed: Installed
) -> None:
    process, port = serving
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        history = pb.History(events=[pb.Event(item_id="item-3")])
        response = stub.Recommend(pb.RecommendRequest(history=history, n=5))
        assert len(response.items) == 5
        assert response.served_by.source == pb.SOURCE_PERSONAL

    check = _health_check(dockerfile, port)
    healthy = installed.run(*check)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert installed.run(*check).returncode == 1


def _health_check(dockerfile: Dockerfile, port: int) -> list[str]:
    (line,) = dockerfile.all("HEALTHCHECK", -1)
    command: list[str] = json.loads(line.removeprefix("CMD "))
    assert "127.0.0.1:50051" in command
    return [part.replace("50051", str(port)) for part in command]


def test_the_image_installs_the_service_alone_and_runs_without_privileges(
    dockerfile: Dockerfile,
) -> None:
    build = dockerfile.all("RUN", 0)
    final = dockerfile.all("RUN", -1)
    assert [re.findall(r"\[(\w+)\]", line) for line in build if "pip install" in line] == [
        ["service"]
    ]
    assert not [line for line in final if "pip" in line]
    (user,) = dockerfile.all("USER", -1)
    assert user.split(":")[0] not in ("0", "root")
    (base,) = set(dockerfile.all("FROM", -1))
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)


def test_the_image_s_environment_names_settings_and_its_ports_are_those_that_it_exposes(
    dockerfile: Dockerfile,
) -> None:
    environment = {
        name: value for name, value in dockerfile.environment.items() if name.startswith("TRIMTAB_")
    }
    values = {name.removeprefix("TRIMTAB_").lower(): value for name, value in environment.items()}
    settings = Settings.model_validate(values)
    host, _, port = settings.listen.rpartition(":")
    assert host == "0.0.0.0"
    assert dockerfile.all("EXPOSE", -1) == [f"{port} {settings.metrics_port}"]
    assert json.loads(dockerfile.all("VOLUME", -1)[0]) == [
        str(settings.bundle),
        str(settings.data_dir),
    ]


def test_what_the_build_copies_is_what_dockerignore_lets_in(dockerfile: Dockerfile) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {name for value in dockerfile.all("COPY", 0) for name in value.split()[:-1]}
    assert copied == let_in

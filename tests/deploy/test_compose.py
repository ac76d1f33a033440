"""Tests docker-compose.yml: its text, and what compose reads from it where compose is installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def text() -> str:
    return COMPOSE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    """Reads the whole file as compose understands it."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command at hand")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("the docker command has no compose plugin")
    done = subprocess.run(
        ["docker", "compose", "--file", str(COMPOSE), "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    understood: dict[str, Any] = json.loads(done.stdout)
    return understood


def test_compose_accepts_the_file_and_every_service_restarts_and_is_bound_to_this_machine(
    configuration: dict[str, Any],
) -> None:
    assert set(configuration["services"]) == {"trimtab", "valkey", "prometheus", "grafana"}
    for name, service in configuration["services"].items():
        assert service["restart"] == "unless-stopped", name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name


def test_every_port_is_bound_to_this_machine_and_the_store_has_none(text: str) -> None:
    ports = re.findall(r"^ +- ([\d.]+:\d+:\d+|\d+:\d+)$", text, re.MULTILINE)
    assert ports == [f"127.0.0.1:{port}:{port}" for port in (50051, 9464, 9090, 3000)]


def test_every_image_has_a_whole_version(text: str) -> None:
    images = re.findall(r"^ +image: (\S+)$", text, re.MULTILINE)
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-\w+)?", image), image


def test_what_is_mounted_from_this_folder_is_there(text: str) -> None:
    for source in re.findall(r"^ +- (\./[^:]+):", text, re.MULTILINE):
        assert (ROOT / source).exists(), source


def test_the_variables_that_it_sets_in_the_server_are_settings(text: str) -> None:
    names = re.findall(r"^ +TRIMTAB_(\w+):", text, re.MULTILINE)
    assert names
    assert {name.lower() for name in names} <= Settings.model_fields.keys()


def test_what_grafana_reads_is_where_it_is_mounted(text: str) -> None:
    (mounted,) = re.findall(r"- \./deploy/grafana/dashboards:([^:]+):ro", text)
    provider = (ROOT / "deploy/grafana/provisioning/dashboards/trimtab.yml").read_text(
        encoding="utf-8"
    )
    assert f"path: {mounted}\n" in provider
    (home,) = re.findall(r"DEFAULT_HOME_DASHBOARD_PATH: (\S+)", text)
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).relative_to(mounted)).exists()
    source = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text(
        encoding="utf-8"
    )
    assert "url: http://prometheus:9090\n" in source

"""Tests the API from Node with the .proto files alone, without generated code."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc
from trimtab.v1 import steering_pb2 as sp

from tests.support.servers import Served

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "node"
NO_REGISTRY = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "E404",
    "ENETUNREACH",
    "ENOTCACHED",
)
USER_ID = "from-node"


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs recommend.mjs in a folder of pytest's cache, where its packages are installed once."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder: Path = request.config.cache.mkdir("trimtab-node") if request.config.cache else Path()
    lock = (PROGRAM / "package-lock.json").read_text(encoding="utf-8")
    installed = folder / "installed"  # content of the lock file that was installed successfully
    if not installed.exists() or installed.read_text(encoding="utf-8") != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PROGRAM / name, folder)
        _install(folder)
        installed.write_text(lock, encoding="utf-8")
    shutil.copy(PROGRAM / "recommend.mjs", folder)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["node", str(folder / "recommend.mjs"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode and any(sign in done.stderr for sign in NO_REGISTRY):
        pytest.skip("the packages cannot be installed: no registry can be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def answers(
    node: Callable[..., "subprocess.CompletedProcess[str]"], served: Served
) -> dict[str, Any]:
    """Returns the server's answers to Node."""
    spec = find_spec("google.rpc")
    assert spec
    assert spec.submodule_search_locations
    (google_rpc,) = spec.submodule_search_locations
    common = Path(google_rpc).parents[1]
    assert (common / "google/rpc/status.proto").exists()
    done = node(served.target, USER_ID, str(ROOT / "proto"), str(common))
    assert done.returncode == 0, done.stderr
    replies: dict[str, Any] = json.loads(done.stdout)
    return replies


def test_node_gets_the_same_steered_list_as_python(answers: dict[str, Any], served: Served) -> None:
    stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
    edit = sp.Edit(concept="Documentary", operation=sp.OPERATION_ADD, strength=2.0)
    events = [pb.Event(item_id="item-3"), pb.Event(item_id="item-17")]
    expected = stub.Recommend(
        pb.RecommendRequest(
            history=pb.History(events=events), n=10, steering=sp.Steering(edits=[edit])
        )
    )
    items = answers["steered"]["items"]
    assert [item["item_id"] for item in items] == [item.item_id for item in expected.items]
    assert [item["score"] for item in items] == pytest.approx(
        [item.score for item in expected.items]
    )


def test_reasons_report_and_unsteered_list_reach_node(answers: dict[str, Any]) -> None:
    steered = answers["steered"]
    for item in steered["items"]:
        total = math.fsum(reason["contribution"] for reason in item["reasons"])
        assert total == pytest.approx(item["score"], abs=1e-4)
        assert {reason["source"] for reason in item["reasons"]} == {"concept", "kind"}
    assert len(steered["unsteered"]) == 10
    (share,) = steered["report"]["concepts"]
    assert share["share"] > share["unsteered_share"]
    assert steered["report"]["applied_fraction"] == 1
    assert steered["served_by"]["source"] == "SOURCE_PERSONAL"


def test_an_invalid_request_names_its_field_in_the_status_details(answers: dict[str, Any]) -> None:
    invalid = answers["invalid"]
    assert invalid["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    (violation,) = invalid["violations"]
    assert violation["field"] == "steering.edits[0].strength"
    assert violation["description"]
    assert violation["description"] in invalid["message"]


def test_a_passed_deadline_is_reported(answers: dict[str, Any]) -> None:
    assert answers["late"]["code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def test_what_node_records_counts_once_and_personalises_the_next_list(
    answers: dict[str, Any],
) -> None:
    first, again = answers["recorded"]
    assert (first["accepted_count"], first["duplicate_count"]) == (1, 0)
    assert (again["accepted_count"], again["duplicate_count"]) == (0, 1)
    assert answers["unknown"]["served_by"]["source"] == "SOURCE_POPULAR"
    assert answers["known"]["served_by"]["source"] == "SOURCE_PERSONAL"
    assert "item-3" not in [item["item_id"] for item in answers["known"]["items"]]
    assert answers["forgotten"]["found"] is True


def test_the_packages_are_pinned_and_the_lock_file_names_no_registry() -> None:
    package = json.loads((PROGRAM / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((PROGRAM / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry
        assert not name or entry["integrity"]
    for name, version in package["dependencies"].items():
        assert version == lock["packages"][f"node_modules/{name}"]["version"]

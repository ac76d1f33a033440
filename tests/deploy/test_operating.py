"""Tests docs/operating.md: its tables are complete, and its promises hold."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc

from service.admission.ladder import Degradation
from service.engine.audience import Source
from service.settings import Settings
from service.storage.embedded_valkey import embedded_valkey
from service.users.codec import MAX_SEEN
from tests.support.servers import Served, StartServer

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operating.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """Reads the cells of the first table under a heading, without its head."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| .*$", section, re.MULTILINE)[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def record(stub: Any, user_id: str, *item_ids: str) -> None:
    interactions = [
        pb.Interaction(user_id=user_id, event=pb.Event(item_id=item_id)) for item_id in item_ids
    ]
    stub.RecordInteractions(pb.RecordInteractionsRequest(interactions=interactions))


def test_the_settings_table_is_made_from_the_settings_and_names_each(page: str) -> None:
    program = [sys.executable, str(ROOT / "deploy" / "settings_table.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    named = [variable.strip("`") for _, variable, *_ in rows(page, "Settings")]
    assert named == [f"TRIMTAB_{name.upper()}" for name in Settings.model_fields]


def test_every_degradation_and_every_source_is_explained(page: str) -> None:
    degradations = rows(page, "Degradations")
    assert [cells[0] for cells in degradations] == [f"`{kind.value}`" for kind in Degradation]
    assert [cells[1] for cells in degradations] == [
        f"`{name}`" for name in pb.Degradation.keys()[1:]
    ]
    lists = next(cells for cells in rows(page, "Metrics") if cells[0] == "`trimtab_lists_total`")
    assert all(f"`{source.value}`:" in lists[2] for source in Source)


def test_every_stage_that_is_timed_is_explained(page: str, served: Served) -> None:
    stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
    stub.Recommend(
        pb.RecommendRequest(history=pb.History(events=[pb.Event(item_id="item-3")]), n=1)
    )
    metric = served.running.metrics.stage_seconds
    timed = {sample.labels["stage"] for family in metric.collect() for sample in family.samples}
    assert timed
    explained = next(
        cells for cells in rows(page, "Metrics") if cells[0] == "`trimtab_stage_seconds`"
    )
    assert {stage for stage in timed if f"`{stage}`:" not in explained[2]} == set()


def test_the_unit_of_systemd_starts_programs_that_are_installed_and_sets_settings() -> None:
    unit = (ROOT / "deploy" / "trimtab.service").read_text(encoding="utf-8")
    for program in re.findall(r"^Exec\w+=/opt/trimtab/bin/(\S+)", unit, re.MULTILINE):
        assert Path(sys.executable).with_name(program).exists(), program
    (environment,) = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
    names = [pair.partition("=")[0] for pair in environment.split()]
    assert {name.removeprefix("TRIMTAB_").lower() for name in names} <= Settings.model_fields.keys()
    if verify := shutil.which("systemd-analyze"):
        done = subprocess.run(
            [verify, "verify", ROOT / "deploy/trimtab.service"], capture_output=True, text=True
        )
        told = [line for line in done.stderr.splitlines() if "trimtab.service" in line]
        assert [line for line in told if "is not executable" not in line] == []


async def test_the_keys_in_redis_are_those_of_the_table_and_as_large_as_it_says(
    page: str, start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    async with embedded_valkey(tmp_path / "store") as url:
        with start_server(bundle_dir, tmp_path / "data", "--redis", url) as served:
            stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
            record(stub, "u", *(f"item-{i}" for i in range(10)))
            stub.Recommend(pb.RecommendRequest(user_id="u", n=1))
            manifest = served.running.bundle.manifest
            with redis.Redis.from_url(url, protocol=3) as store:
                embedding = f"tt:{{u}}:e:{manifest.model_id[:12]}"
                for _ in range(50):  # it is cached after the reply
                    if store.exists(embedding):
                        break
                    await asyncio.sleep(0.1)
                keys = list(store.scan_iter())
                lengths = {
                    key.decode(): store.strlen(key) for key in keys if key.startswith(b"tt:{")
                }
                others = [key.decode() for key in keys if not key.startswith(b"tt:{")]
    active = (lengths[embedding] - 21 - 2 * manifest.dimensions.d) / 4
    assert active == int(active)
    assert 0 < active <= manifest.dimensions.k
    assert lengths == {
        "tt:{u}:s": 16 + 8 * 10,
        "tt:{u}:h": 16 + 25 * 10,
        embedding: lengths[embedding],
    }
    named = [cells[0].strip("`") for cells in rows(page, "What is in Redis")]
    assert named == ["tt:{USER}:s", "tt:{USER}:h", "tt:{USER}:e:{MODEL}", *others]
    assert f"at most {MAX_SEEN:,}:" in page


def test_a_copy_of_the_append_only_files_of_a_running_store_restores_the_histories(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path / "data") as served:
        record(recommendation_pb2_grpc.RecommendationServiceStub(served.channel), "kept", "item-3")
        time.sleep(0.1)
        shutil.copytree(
            tmp_path / "data/valkey/appendonlydir", tmp_path / "restored/valkey/appendonlydir"
        )
    with start_server(bundle_dir, tmp_path / "restored") as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        assert (
            stub.Recommend(pb.RecommendRequest(user_id="kept", n=1)).served_by.source
            == pb.SOURCE_PERSONAL
        )

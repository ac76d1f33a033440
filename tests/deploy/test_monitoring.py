"""Tests rules, alerts and dashboard with a real server and, where installed, a real Prometheus."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from trimtab.v1 import bundle_pb2, concept_pb2, experiment_pb2, policy_pb2, recommendation_pb2_grpc
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp

from service.admission.ladder import Degradation
from service.telemetry.metrics import BUCKETS
from tests.support.servers import FindPort, StartServer

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "trimtab.json"
OPERATING = ROOT / "docs" / "operating.md"

METRIC = re.compile(r"(?<![\w:])trimtab_\w+(?![\w:])")
RECORDED = re.compile(r"(?<![\w:])[a-z]+:trimtab_\w+:\w+")
PER_KIND = {"histogram": ("_bucket", "_sum", "_count")}
NEEDS_MISFORTUNE = ("trimtab_rejected_total", "trimtab_not_computed_total")
"""Metrics without a series until an event that the test does not cause."""


def calls(channel: grpc.Channel) -> None:
    """Makes calls for every panel: lists of every kind, events, and an error."""
    stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
    event = pb.Event(item_id="item-3")
    stub.RecordInteractions(
        pb.RecordInteractionsRequest(interactions=[pb.Interaction(user_id="watched", event=event)])
    )
    for user_id in ("watched", "watched", "nobody"):
        stub.Recommend(pb.RecommendRequest(user_id=user_id, n=5))
    drama = sp.Edit(concept="Drama", strength=1.0)
    for steering in (sp.Steering(edits=[drama]), sp.Steering(edits=[drama], label_set="long gone")):
        stub.Recommend(pb.RecommendRequest(user_id="watched", n=5, steering=steering))
    with pytest.raises(grpc.RpcError):
        stub.Recommend(pb.RecommendRequest(user_id="watched", n=1_000_000))


@pytest.fixture(scope="module")
def watched(
    start_server: StartServer, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Runs a server for this module alone, so that its metrics count this module's calls."""
    with start_server(bundle_dir, tmp_path_factory.mktemp("watched")) as served:
        calls(served.channel)
        yield served


@pytest.fixture(scope="module")
def exposed(watched: Any) -> set[str]:
    """Lists the names of the samples that a server exposes, or will expose."""
    url = f"http://127.0.0.1:{watched.running.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:
        page = response.read().decode()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE):
        names |= {name + suffix for suffix in PER_KIND.get(kind, ("",))}
    return names


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    """Every query of the dashboard by its panel's title and letter, with values for variables."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "1m")
            found[f"{panel['title']} {target['refId']}"] = re.sub(
                r"\$(instance|method)", ".*", query
            )
    return found


def test_every_metric_that_rules_and_dashboard_name_is_one_that_a_server_exposes(
    exposed: set[str], queries: dict[str, str]
) -> None:
    used = set(METRIC.findall(RULES.read_text(encoding="utf-8")))
    for query in queries.values():
        used |= set(METRIC.findall(query))
    assert used
    assert used <= exposed, sorted(used - exposed)


def test_every_metric_that_a_server_exposes_is_on_the_dashboard_and_explained(
    exposed: set[str], queries: dict[str, str]
) -> None:
    shown = "\n".join(queries.values())
    explained = OPERATING.read_text(encoding="utf-8")
    for name in exposed:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if base.endswith("_created"):
            continue
        assert base in shown, base
        assert f"`{base}`" in explained, base


def test_every_recorded_series_that_is_used_is_recorded(queries: dict[str, str]) -> None:
    rules = RULES.read_text(encoding="utf-8")
    recorded = set(re.findall(r"record: (\S+)", rules))
    used = {name for query in (rules, *queries.values()) for name in RECORDED.findall(query)}
    assert used == recorded


def test_every_label_value_that_is_selected_is_one_that_a_server_reports(
    queries: dict[str, str],
) -> None:
    files = (bundle_pb2, concept_pb2, experiment_pb2, policy_pb2, pb)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    known = {
        "job": {"trimtab"},
        "code": {code.name for code in grpc.StatusCode},
        "kind": {degradation.value for degradation in Degradation},
        "le": {str(bound) for bound in BUCKETS},
        "method": {method.name for service in services for method in service.methods},
        "result": {"hit", "miss", "given", "unknown"},
    }
    text = "\n".join([RULES.read_text(encoding="utf-8"), *queries.values()])
    for label, pattern in re.findall(r'[{ ](\w+)=~?"([^"]+)"', text):
        if pattern != ".*":
            assert set(pattern.split("|")) <= known[label], (label, pattern)


def test_the_dashboard_reads_only_the_chosen_data_source_and_its_panels_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert names == {"datasource", "instance", "method"}
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_every_alert_has_a_runbook_section_and_a_case_in_which_it_fires() -> None:
    rules = RULES.read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", rules)
    assert len(alerts) == len(set(alerts))
    assert re.findall(r"runbook: (\S+)", rules) == [
        f"docs/operating.md#{name.lower()}" for name in alerts
    ]
    headings = re.findall(r"^#+ (\w+)$", OPERATING.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(alerts) <= set(headings)
    cases = "\n".join(path.read_text(encoding="utf-8") for path in RULE_TESTS)
    fired = re.findall(r"alertname: (\w+)\s+eval_time: \w+\s+exp_alerts:\s+- exp_labels", cases)
    assert set(alerts) == set(fired)


@pytest.fixture(scope="module")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool (it comes with Prometheus)")
    return program


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "rules.yml"),
        *(("test", "rules", str(path.relative_to(PROMETHEUS))) for path in RULE_TESTS),
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_configuration_and_the_rules_do_what_their_tests_say(
    promtool: str, command: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(
    watched: Any, free_port: FindPort, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Runs a Prometheus with our configuration, but another target and interval; its URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus")
    home = tmp_path_factory.mktemp("prometheus")
    configuration = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    for ours, here in (
        ("trimtab:9464", f"127.0.0.1:{watched.running.metrics_port}"),
        ("interval: 15s", "interval: 1s"),
    ):
        assert ours in configuration
        configuration = configuration.replace(ours, here)
    (home / "prometheus.yml").write_text(configuration, encoding="utf-8")
    shutil.copy(RULES, home)
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(url: str, query: str) -> list[Any]:
    """Reads the samples of an instant query; empty while Prometheus starts."""
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            samples: list[Any] = json.load(response)["data"]["result"]
            return samples
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503:  # which is what it says while it starts
                pytest.fail(f"{query}: {error.read().decode()}")
    except OSError:
        pass
    return []


def test_a_real_prometheus_scrapes_the_server_and_every_panel_and_recorded_series_shows_something(
    prometheus: str, watched: Any, queries: dict[str, str]
) -> None:
    wanted = dict(queries)
    rules = RULES.read_text(encoding="utf-8")
    wanted |= {name: name for name in re.findall(r"record: (\S+)", rules)}
    wanted["the server"] = 'up{job="trimtab"} == 1'
    wanted = {
        name: query
        for name, query in wanted.items()
        if not any(metric in query for metric in NEEDS_MISFORTUNE)
    }
    end = time.monotonic() + 60
    while wanted and time.monotonic() < end:
        calls(watched.channel)
        time.sleep(0.5)
        for name, query in list(wanted.items()):
            samples = ask(prometheus, query)
            if samples and all(
                sample["value"][1] != "NaN" for sample in samples
            ):  # NaN: nothing was divided yet
                del wanted[name]
    assert not wanted, f"no samples for {sorted(wanted)}"


def test_queries_of_what_did_not_happen_are_valid_and_empty(
    prometheus: str, queries: dict[str, str]
) -> None:
    for query in queries.values():
        if any(metric in query for metric in NEEDS_MISFORTUNE):
            assert ask(prometheus, query) == []


def test_in_a_real_prometheus_no_alert_fires_for_a_server_that_is_well(prometheus: str) -> None:
    assert ask(prometheus, 'ALERTS{alertstate="firing", severity="page"}') == []

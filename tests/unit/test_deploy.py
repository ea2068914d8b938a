"""What lies in deploy/ for the tools of operators, read by these tools."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hasher import create_app
from hasher.settings import Settings
from hasher.stores.memory import MemoryDriver
from tests.support.servers import free_ports, program, until
from tests.unit.test_errors import Broken

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text()
ALERTS = (DEPLOY / "alerts.yml").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]
UNITS = DEPLOY / "systemd"

# What hasher counts: a sample of every kind, of which {n} grows from scrape to scrape.
SAMPLES = """\
hasher_requests_total{{method="POST",route="/messages",status="201"}} {n}
hasher_requests_total{{method="GET",route="/messages/<digest>",status="200"}} {n}
hasher_requests_total{{method="GET",route="/messages/<digest>",status="503"}} {n}
hasher_requests_total{{method="GET",route="/readyz",status="503"}} {n}
hasher_requests_total{{method="GET",route="/metrics",status="200"}} {n}
hasher_request_duration_seconds_bucket{{method="POST",route="/messages",le="0.0005"}} 0
hasher_request_duration_seconds_bucket{{method="POST",route="/messages",le="5.0"}} {n}
hasher_request_duration_seconds_bucket{{method="POST",route="/messages",le="+Inf"}} {n}
hasher_request_duration_seconds_count{{method="POST",route="/messages"}} {n}
hasher_request_duration_seconds_sum{{method="POST",route="/messages"}} {n}
hasher_requests_in_flight 1
hasher_messages_total{{outcome="new"}} {n}
hasher_messages_total{{outcome="repeated"}} {n}
hasher_received_bytes_total {n}
hasher_sent_bytes_total {n}
hasher_store_operation_duration_seconds_bucket{{operation="put",le="0.0005"}} 0
hasher_store_operation_duration_seconds_bucket{{operation="put",le="+Inf"}} {n}
hasher_store_operation_duration_seconds_count{{operation="put"}} {n}
hasher_store_operation_duration_seconds_sum{{operation="put"}} {n}
hasher_store_errors_total{{operation="put",error="unreachable"}} {n}
hasher_store_errors_total{{operation="put",error="full"}} {n}
hasher_damaged_messages_total 1
hasher_build_info{{version="0.2.0",python="3.11.2",store="redis",engine=""}} 1
"""
KNOWN = set(re.findall("^hasher_[a-z_]+", SAMPLES, re.MULTILINE))


def run(*command: str | Path) -> None:
    """Fail with what the program says, unless it is content."""
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(words: tuple[str, str, str]) -> None:
    *command, file = words
    run(program("promtool", "prometheus"), *command, DEPLOY / file)


def test_every_alert_has_its_tests_and_its_section() -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS)
    tests = (DEPLOY / "alerts_test.yml").read_text()
    fires = re.findall(r"alertname: (\w+)\n +eval_time: .*\n +exp_alerts:", tests)
    is_silent = re.findall(r"{alertname: (\w+), eval_time: \w+}", tests)
    assert len(names) == len(set(names)) > 0
    assert set(names) == set(fires) == set(is_silent)
    assert re.findall(r"runbook: (\S+)", ALERTS) == [
        f"deploy/README.md#{name.lower()}" for name in names
    ]
    assert [name for name in names if not re.search(rf"^### {name}$", README, re.MULTILINE)] == []


def test_nothing_is_asked_for_that_hasher_does_not_count() -> None:
    named = set(re.findall(r"\bhasher_[a-z_]+", "\n".join([ALERTS, README, *EXPRESSIONS])))
    table = {"hasher_messages"}  # PostgreSQL's
    assert named - KNOWN - table == set()


def labels_of(exposition: str) -> dict[str, set[str]]:
    """The labels of each sample, by its name."""
    families = text_string_to_metric_families(exposition)
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_the_stand_in_for_an_instance_counts_what_hasher_counts() -> None:
    for failure in (ConnectionError(), None):
        store = Broken(failure) if failure else MemoryDriver(limit=1000)
        client = create_app(Settings(), store=store).test_client()
        client.post("/messages", json={"message": "foo"})
    counted = labels_of(client.get("/metrics").text)
    counted = {name: labels for name, labels in counted.items() if not name.endswith("_created")}
    assert labels_of(SAMPLES.format(n=1)) == counted


def test_the_dashboard_can_be_imported_anywhere() -> None:
    panels = DASHBOARD["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(numbers) == len(set(numbers)) > 0
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = [panel["datasource"] for panel in panels]
    sources += [target["datasource"] for panel in panels for target in panel["targets"]]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    assert all(panel["title"] and panel["description"] for panel in panels)


def test_no_panel_covers_another() -> None:
    covered = [
        (place["x"] + across, place["y"] + down)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for across in range(place["w"])
        for down in range(place["h"])
    ]
    assert len(covered) == len(set(covered))
    assert max(across for across, _ in covered) < 24


class Exporter(BaseHTTPRequestHandler):
    """Stands in for an instance: its counts grow."""

    def do_GET(self) -> None:
        """Answer a scrape."""
        body = SAMPLES.format(n=time.time_ns() // 10**6).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Be silent."""


class Prometheus:
    """A prometheus with the configuration of deploy/, faster, that scrapes the stand-in."""

    def __init__(self, port: int) -> None:
        self.port = port

    def api(self, path: str) -> Any:
        """The data of an answer; none while it starts."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}")
            return json.loads(connection.getresponse().read())["data"]
        except (OSError, ValueError):
            return {}
        finally:
            connection.close()

    def query(self, expression: str) -> Any:
        """What a panel with this expression would show."""
        filled = expression.replace("$__rate_interval", "5s").replace("$instance", ".*")
        return self.api(f"query?query={quote(filled)}").get("result")

    def health(self) -> set[str]:
        """How the evaluation of the rules went."""
        groups = self.api("rules").get("groups", ())
        return {rule["health"] for group in groups for rule in group["rules"]}


@contextmanager
def stand_in() -> Iterator[int]:
    """The port of a stand-in for an instance."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def configured(folder: Path, instance: int) -> Path:
    """The configuration of deploy/ in `folder`, for one instance that is scraped every second."""
    config = (DEPLOY / "prometheus.yml").read_text()
    ports = "127.0.0.1:8001, 127.0.0.1:8002, 127.0.0.1:8003"
    assert ports in config
    config = config.replace("15s", "1s").replace(ports, f"127.0.0.1:{instance}")
    (folder / "prometheus.yml").write_text(config)
    (folder / "alerts.yml").write_text(ALERTS)
    return folder / "prometheus.yml"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A running Prometheus that knows of one instance."""
    executable, port = program("prometheus", "prometheus"), free_ports(1)[0]
    with stand_in() as instance, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                executable,
                f"--config.file={configured(tmp_path, instance)}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
        try:
            yield Prometheus(port)
        finally:
            process.kill()
            process.wait()


def test_every_panel_and_rule_works_on_a_real_prometheus(prometheus: Prometheus) -> None:
    until(lambda: prometheus.query("rate(hasher_sent_bytes_total[5s])"))
    until(lambda: prometheus.query('ALERTS{alertname="HasherDamagedMessages"}'))
    assert [asked for asked in EXPRESSIONS if not prometheus.query(asked)] == []
    until(lambda: prometheus.health() == {"ok"})
    assert prometheus.query('ALERTS{alertname="HasherAllDown"}') == []


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, as if this folder were installed."""
    for unit in (UNITS / "hasher@.service", UNITS / "hasher.target"):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/hasher", str(ROOT)))
    return [tmp_path / "hasher@.service", tmp_path / "hasher.target"]


def test_systemd_understands_the_units(units: list[Path]) -> None:
    analyze = program("systemd-analyze", "systemd")
    ended = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_units_expose_little(units: list[Path]) -> None:
    """The README's figure, in tenths; systemd counts from 0 to 10."""
    exposure = re.search(r"exposure as (\d)\.(\d) of 10", README)
    assert exposure
    analyze = program("systemd-analyze", "systemd")
    allowed = "".join(exposure.groups())
    run(analyze, "security", "--offline=yes", f"--threshold={allowed}", units[0])


def test_the_settings_of_the_units_are_settings() -> None:
    """What the example sets is what docs/settings.md knows, and is not the instance's own."""
    named = set(re.findall(r"^#?([A-Z_]+)=", (UNITS / "hasher.env").read_text(), re.MULTILINE))
    described = set(
        re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    )
    assert "HASHER_STORE" in named
    assert "PORT" not in named
    assert named - described == set()


def test_a_purge_of_no_digest_removes_nothing_and_says_so(tmp_path: Path) -> None:
    digest = "0" * 64
    key = md5(f"/messages/{digest}".encode(), usedforsecurity=False).hexdigest()
    entry = tmp_path / key[-2:] / key[-4:-2] / key
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"entry")
    for wrong in ("", "0" * 63, "A" * 64, f"{digest}.txt", f"../{digest}"):
        ended = purge(tmp_path, digest, wrong)
        assert (ended.returncode, entry.read_bytes()) == (2, b"entry")
        assert ended.stderr.startswith("Not a digest")
    assert purge(tmp_path / "elsewhere", digest).returncode != 0
    assert purge(tmp_path, digest).returncode == 0
    assert not entry.exists()


def purge(cache: Path, *digests: str) -> subprocess.CompletedProcess[str]:
    """Run deploy/purge.sh on a folder."""
    env = {**os.environ, "CACHE": str(cache)}
    command = [str(DEPLOY / "purge.sh"), *digests]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

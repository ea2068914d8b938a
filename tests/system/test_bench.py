"""Every contender that can run here runs, for a second, and does what hasher does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from bench.contenders import CONTENDERS, HASHER, Contender, hasher
from bench.load import run, single
from bench.seeds import check, sow, write_digests
from hasher_tune.clients import Client, Clients, Plan, Step
from hasher_tune.processes import PATIENCE, Process, until
from hasher_tune.race import Race
from hasher_tune.search import Field, Question, Setting
from hasher_tune.servers import Failed, Server
from hasher_tune.traffic import MIXES
from tests.support.documents import ROOT
from tests.support.servers import program, skip
from tests.support.service import is_running

HALF = single("half", reads=50)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_contender_is_right_and_can_be_measured(contender: Contender, tmp_path: Path) -> None:
    program("wrk", "wrk")
    program("taskset", "util-linux")
    if missing := contender.missing():
        skip(f"{contender.name} needs {', '.join(missing)}.")
    digests = tmp_path / "digests"
    with contender.start(tmp_path, None) as server:
        if contender.stores:
            check(server.port)
            sow(server.port, digests)
        else:
            write_digests(digests, range(10))
        figures = run(HALF, server.port, digests, 1, server.cpu)
        pss = server.memory()
    assert figures.rate > 0
    assert 1 < figures.cpu < 1e6 / figures.rate * (os.cpu_count() or 1)
    assert 0 < figures.p50 <= figures.p99
    assert 1 < pss < 500


def test_a_server_that_ends_at_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(Failed, match="it ended at start: HASHER_THREADS must be a whole number"),
        hasher(tmp_path, None, HASHER_THREADS="0"),
    ):
        pass


def test_a_load_that_is_refused_is_no_figure(tmp_path: Path) -> None:
    program("wrk", "wrk")
    digests = tmp_path / "digests"
    write_digests(digests, range(10))  # which nobody has stored
    with hasher(tmp_path, None) as server, pytest.raises(Failed, match="requests refused"):
        run(single("reads", reads=100), server.port, digests, seconds=1)


def test_the_comparison_measures_and_writes_what_it_found(tmp_path: Path) -> None:
    program("wrk", "wrk")
    bench = [sys.executable, "-m", "bench", "--results", str(tmp_path), "compare"]
    short = ["--seconds", "1", "--rounds", "1", "--stored", "2000", "--only", HASHER["memory"]]
    ended = subprocess.run([*bench, *short], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench.json", "bench.md"]
    assert (tmp_path / "bench.md").read_text() in ended.stdout
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["contenders"][HASHER["memory"]]["GET"][0]["cpu"] > 1


def test_tune_answers_and_writes_what_it_found(tmp_path: Path) -> None:
    tune = [sys.executable, "-m", "hasher", "tune", "--results", str(tmp_path), "--minutes", "0.1"]
    ended = subprocess.run(tune, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    written = sorted(file.name for file in tmp_path.iterdir())
    assert written == ["tune-memory.json", "tune-memory.svg"]
    assert ended.stdout.startswith("WEB_CONCURRENCY=1\n")


def test_a_search_on_a_store_that_is_down_says_why() -> None:
    tune = [sys.executable, "-m", "hasher", "tune", "--store", "redis://127.0.0.1:1"]
    ended = subprocess.run(tune, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"hasher tune: it answers 503: .*refused.*\.\n", ended.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_search_that_is_stopped_ends_its_services(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hasher", "tune", "--store", "memory", "--minutes", "5"]
    log = tmp_path / "log"
    search = Process(command, log, ROOT)
    search.start()
    until(lambda: "block 1" in log.read_text())
    services = children(search.process.pid)
    search.process.send_signal(number)
    search.process.send_signal(signal.SIGINT)  # of one who is impatient
    assert search.process.wait(PATIENCE) == 1
    assert log.read_text().endswith("hasher tune: stopped.\n")
    assert len(services) >= 3  # two candidates, and the clients
    until(lambda: not any(map(is_running, services)))


def children(pid: int) -> list[int]:
    """The processes that any thread of a process has started, and that live."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


SLEEPING = """
import time
from wsgi import app
answer = app.wsgi_app

def sleeping(environ, start_response):
    time.sleep(0.005)
    return answer(environ, start_response)

app.wsgi_app = sleeping
"""


class FieldWithFault(Field):
    """Candidates of which one sleeps in each request, on the one thread that it has."""

    fault = Setting(1, 1)

    def service(self, setting: Setting) -> Server:
        server = super().service(setting)
        if setting == self.fault:
            (self.folder / "sleeping.py").write_text(SLEEPING)
            server.command = [
                *server.command,
                "--pythonpath",
                str(self.folder),
                "sleeping:app",
            ]
        return server


def test_a_candidate_that_sleeps_leaves_within_three_blocks(tmp_path: Path) -> None:
    question = Question("memory", MIXES["mixed"])
    settings = [Setting(1, 4), Setting(1, 8), FieldWithFault.fault]
    race = Race(settings)
    with (
        Clients(1, question.client_cores) as clients,
        FieldWithFault(question, "memory://", tmp_path, clients) as field,
    ):
        field.start(settings)
        for _ in range(3):
            race.add({setting: field.measure(setting) for setting in race.left})
    assert FieldWithFault.fault in race.gone
    assert race.gone[FieldWithFault.fault].high < 1


def test_the_most_that_can_be_offered_is_found(tmp_path: Path) -> None:
    """At what was offered up to the limit, the latency kept to it."""
    question = Question("memory", MIXES["reads"], latency=0.5)
    with (
        Clients(1, question.client_cores) as clients,
        Field(question, "memory://", tmp_path, clients) as field,
    ):
        field.start([Setting(1, 8)])
        rate = field.measure(Setting(1, 8))
        held = field.answers[Setting(1, 8)]
    assert rate > 10
    assert [answers.p99 <= 0.5 for answers in held] == [True]


@pytest.fixture
def standing_still() -> Iterator[int]:
    """The port of a server of one connection, that once stands still for half a second."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for number, _ in enumerate(iter(lambda: lines.readline() + lines.readline(), b"")):
                lines.readline()
                time.sleep(0.5 if number == 100 else 0)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_time_counts_from_when_a_request_was_due(standing_still: int) -> None:
    """Two hundred a second over one connection: what was due in the pause came late too."""
    plan = Plan(standing_still, MIXES["reads"], (Step(2.0, 200.0),), connections=1)
    client = Client(plan, "a" * 16)
    (answers,) = client.run()
    client.close()
    late = [latency for latency in answers.latencies if latency > 0.1]
    assert len(answers.latencies) == 400
    assert 0.5 <= max(answers.latencies) < inf
    assert len(late) >= 0.9 * 0.4 * 200

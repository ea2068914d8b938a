"""What `hasher tune` makes of its measurements and of an access log: no server, no load."""

import json
import re
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest

from hasher.cpus import available_cpus
from hasher.settings import Settings
from hasher_tune import answer
from hasher_tune.clients import Answers, Clients
from hasher_tune.limits import Limits
from hasher_tune.race import Interval
from hasher_tune.search import (
    Field,
    Found,
    Question,
    Search,
    Setting,
    Standing,
    crossing,
    listed,
)
from hasher_tune.servers import Failed
from hasher_tune.traffic import MIXES, Mix, recorded, requests

BEST, DEFAULT = Setting(1, 4), Setting(2, 8)


def found(**changes: Any) -> Found:
    standings = [
        Standing(BEST, Interval(1, 1, 1), is_left=True),
        Standing(DEFAULT, Interval(0.99, 0.98, 1.0), is_left=True),
        Standing(Setting(2, 2, pinned=True), Interval(0.5, 0.4, 0.6), is_left=False),
    ]
    usual: dict[str, Any] = {
        "answer": BEST,
        "choice": BEST,
        "default": DEFAULT,
        "gain": Interval(1.2, 1.1, 1.3),
        "rate": 5000.0,
        "p99": 0.0123,
        "is_decided": True,
        "standings": standings,
        "blocks": 12,
        "seconds": 100.0,
        "clients_share": 0.25,
        "taken": "4 connections",
        "refused": [],
    }
    return Found(**{**usual, **changes})


QUESTION = Question("memory", MIXES["mixed"])


def test_the_answer_begins_with_two_lines_to_paste() -> None:
    told = answer.told(QUESTION, found()).splitlines()
    assert told[:2] == ["WEB_CONCURRENCY=1", "HASHER_THREADS=4"]
    assert told[2] == "1.20 (1.10–1.30) times the rate of the defaults (2 × 8), with 95 %."
    assert told[3] == "Expect 5,000 requests a second answered, p99 12.3 ms."
    assert told[4] == "Not better by more than 3 %, and not certainly slower: 2 × 8."
    assert "the clients took 25% of the machine's cores" in told[-1]


def test_what_is_not_certain_is_told_as_such() -> None:
    told = answer.told(
        QUESTION, found(answer=DEFAULT, is_decided=False, gain=Interval(1.2, 0.9, 1.6))
    )
    assert told.startswith("WEB_CONCURRENCY=2\nHASHER_THREADS=8\nThese are the defaults:")
    assert "nothing is certain to be better. 1 × 4 has 1.20 (0.90–1.60) times the rate" in told
    assert "Time was up: still open are 1 × 4. More --minutes may tell." in told


def test_pinning_is_a_third_line() -> None:
    told = answer.told(QUESTION, found(answer=Setting(2, 2, pinned=True)))
    assert told.splitlines()[2] == "HASHER_CPU_AFFINITY=1"


def test_an_environment_file_keeps_its_other_lines(tmp_path: Path) -> None:
    file = tmp_path / "hasher.env"
    file.write_text("# ours\nHASHER_THREADS=64\nPORT=9000\nHASHER_CPU_AFFINITY=1\n")
    answer.write_environment(file, BEST)
    assert file.read_text() == "# ours\nPORT=9000\nWEB_CONCURRENCY=1\nHASHER_THREADS=4\n"


def test_the_picture_has_every_candidate_and_the_figures_no_password(tmp_path: Path) -> None:
    question = Question("redis://:secret@localhost", MIXES["reads"])
    answer.write(question, found(), tmp_path)
    drawn = (tmp_path / "tune-redis.svg").read_text()
    assert {"1 × 4", "2 × 8", "2 × 2, pinned"} <= set(re.findall(">(.*)</text>", drawn))
    kept = (tmp_path / "tune-redis.json").read_text()
    assert "secret" not in kept
    assert json.loads(kept)["found"]["answer"] == {"workers": 1, "threads": 4, "pinned": False}


def test_the_defaults_are_those_of_hasher() -> None:
    settings = Settings.from_environ({})
    assert QUESTION.default() == Setting(settings.workers, settings.threads)
    shared = Settings.from_environ({"HASHER_STORE": "sqlite:///x.db"})
    asked = Question("sqlite", MIXES["reads"], cpus=available_cpus())
    assert asked.default() == Setting(shared.workers, shared.threads)


def test_the_defaults_are_among_the_first_candidates_and_neighbours_are_one_step_away() -> None:
    asked = Question("sqlite", MIXES["reads"], cores="0-1", cpus=2)
    assert asked.default() in asked.first()
    assert len(asked.first()) == 2 * 2 * 2  # workers, threads, pinned or not
    assert set(asked.neighbours(Setting(2, 8))) == {
        *(Setting(4, 8), Setting(1, 8), Setting(2, 16), Setting(2, 4)),
        Setting(2, 8, pinned=True),
    }
    assert {one.workers for one in QUESTION.neighbours(Setting(1, 8))} == {1}
    assert {one.threads for one in QUESTION.neighbours(Setting(1, 2))} == {2, 4}


def test_the_rate_is_where_p99_passes_the_limit() -> None:
    assert crossing([100, 200, 400], [0.01, 0.02, 0.08], 0.05) == pytest.approx(200 * 2**0.5)
    assert crossing([100, 200], [0.01, inf], 0.05) == 100
    assert crossing([100, 200], [0.01, 0.02], 0.05) == 200
    assert crossing([107, 214], [0.09], 0.05) == pytest.approx(100)


def test_a_failed_request_is_infinitely_late() -> None:
    answers = Answers(2.0, [0.001] * 97 + [inf] * 3)
    assert answers.rate == 48.5
    assert answers.p99 == inf


def test_of_the_simplest_the_one_with_the_lower_p99_is_chosen(tmp_path: Path) -> None:
    field = Field(QUESTION, "memory://", tmp_path, cast("Clients", None))
    search = Search(field, Limits(files=10_000, store=None, clients=32), say=lambda _: None)
    while not search.race.is_decided:
        search.race.add(dict.fromkeys(search.race.left, 1000.0))
    field.answers[Setting(1, 2)].append(Answers(1.0, [0.004]))
    field.answers[Setting(1, 2, pinned=True)].append(Answers(1.0, [0.003]))
    assert search.choice() == Setting(1, 2, pinned=True)


class Late(Field):
    """Services that always answer too late; none runs."""

    def measure(self, setting: Setting) -> float:
        self.answers[setting].append(Answers(1.0, [0.0626] * 100))
        return 10.0


def test_no_rate_is_recommended_at_which_p99_is_above_the_limit(tmp_path: Path) -> None:
    clients = cast("Clients", None)
    field = Late(replace(QUESTION, latency=0.02), "memory://", tmp_path, clients)
    search = Search(field, Limits(files=10_000, store=None, clients=32), say=lambda _: None)
    while not search.race.is_decided:
        search.block()
    with pytest.raises(Failed, match=r"below 20 ms: at 10 requests a second it was 62\.6 ms"):
        search.finish(begin=0.0, end=0.0)


def test_the_defaults_follow_a_limit_of_cpus() -> None:
    asked = Question("sqlite", MIXES["reads"], cores="0-7", cpus=1)
    assert asked.default() == Setting(1, 8)


def test_settings_beyond_a_limit_are_refused() -> None:
    limits = Limits(files=1024, store=100, clients=32)
    assert limits.forbid(workers=2, threads=8) == ""
    assert limits.forbid(8, 8) == "it may need 64 connections, and the store takes 100"
    assert limits.forbid(1, 300) == "a worker may need 1,296 files, and ulimit -n allows 1,024"


def test_cores_are_listed_as_taskset_takes_them() -> None:
    assert listed("0,2-4") == {0, 2, 3, 4}


def logged(**changes: Any) -> str:
    record = {"method": "GET", "route": "/messages/<digest>", "status": 200, "received": 0}
    record |= {"sent": len('{"digest":""}\n') + 64}
    return json.dumps({**record, **changes})


def test_a_log_is_replayed_as_its_mix() -> None:
    """What is none of its lines, no message's, or was refused is passed over."""
    post = {"method": "POST", "route": "/messages", "received": 514}
    lines = [
        "[INFO] Booting worker",
        logged(route="/metrics"),
        *[logged()] * 5,
        logged(status=404),
        logged(**post, status=201),
        logged(**post, status=200),
        logged(**post, status=413),
        logged(**{**post, "received": 1_300_000}, status=200, sent=3_900_000),
    ]
    assert recorded(lines) == Mix(0.75, repeats=0.5, missing=1 / 6, sizes=(500, 500))


def test_a_log_without_a_request_is_refused() -> None:
    with pytest.raises(Failed, match="no request for a message in that log"):
        recorded(["[INFO] Booting worker"])


def test_requests_are_of_the_mix_and_every_new_message_is_new() -> None:
    stream = requests(Mix(0.5, repeats=0.0, sizes=(100,)), "a" * 16)
    asked = [next(stream) for _ in range(1000)]
    writes = [request for request in asked if request.startswith(b"POST")]
    assert 400 < len(writes) < 600
    assert len(set(writes)) == len(writes)
    head, _, body = writes[0].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(json.loads(body)["message"]) == 100

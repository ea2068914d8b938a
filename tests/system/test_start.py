"""What is said at start, and the ways in which a start is refused."""

import re
import socket
from pathlib import Path

import pytest

from tests.support.service import Service, refused_start


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("HASHER_STORE", "foo://x", "must start with one of memory://, sqlite://"),
        (
            "HASHER_THREADS",
            "many",
            "HASHER_THREADS must be a whole number from 1 to 1024, got 'many'.",
        ),
        ("PORT", "99999", "PORT must be a whole number from 0 to 65535, got '99999'."),
        (
            "WEB_CONCURRENCY",
            "two",
            "WEB_CONCURRENCY must be a whole number from 0 to 1024, got 'two'.",
        ),
        ("HASHER_HOST", "192.0.2.1", "192.0.2.1:8000 cannot be listened on"),
    ],
)
def test_a_bad_setting_ends_make_run_with_one_line(name: str, value: str, line: str) -> None:
    status, said = refused_start("make", "run", **{name: value})
    assert status != 0
    assert len(said) == 1
    assert line in said[0]
    assert name in said[0]


def test_a_port_in_use_ends_the_start_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = refused_start("make", "run", PORT=str(port))
    assert status != 0
    assert said == [
        f"127.0.0.1:{port} is in use: stop what listens there, or set PORT to a free port."
    ]


def test_two_workers_cannot_be_asked_for_with_memory(tmp_path: Path) -> None:
    env = {"PORT": "0", "HASHER_HOST": "127.0.0.1"}
    for options in (("-w", "2"), ("--workers", "7"), ("-w", "0")):
        status, lines = refused_start(".venv/bin/gunicorn", *options, "wsgi:app", **env)
        assert status == 1
        assert len(lines) == 1
        assert "memory:// keeps messages in one process: use -w 1." in lines[0]


def test_the_threads_of_the_command_line_are_examined_like_those_of_the_environment() -> None:
    for threads, said in (
        ("5000", "HASHER_THREADS must be a whole number from 1 to 1024"),
        ("1024", "limit of open files is 1000"),
    ):
        serve = f"ulimit -n 1000; exec .venv/bin/gunicorn --threads {threads} wsgi:app"
        status, lines = refused_start("sh", "-c", serve, PORT="0")
        assert (status, len(lines)) == (1, 1)
        assert said in lines[0]


def test_too_few_files_end_the_start_with_what_is_needed() -> None:
    status, lines = refused_start("sh", "-c", "ulimit -n 40; exec .venv/bin/gunicorn wsgi:app")
    assert (status, len(lines)) == (1, 1)
    assert re.search(r"limit of open files is 40.*ulimit -n \d+", lines[0])


def test_the_start_is_one_line_that_says_it_all(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_THREADS="3", HASHER_MEMORY_LIMIT="1234567") as service:
        said = [line for line in service.log.splitlines() if "memory://" in line]
    assert len(said) == 1
    for part in (
        "workers: 1,",
        "threads each: 3,",
        "largest body: 1048576 bytes",
        "memory limit: 1234567 bytes",
        "messages end with this process",
    ):
        assert part in said[0]


def test_workers_that_a_platform_sets_are_lowered_with_a_warning(
    tmp_path: Path,
) -> None:
    with Service(tmp_path / "log", WEB_CONCURRENCY="2") as service:
        assert len(service.workers()) == 1
        warning = "WEB_CONCURRENCY=2 was lowered to 1"
        assert [
            line for line in service.log.splitlines() if "[WARNING]" in line and warning in line
        ]
        for _ in range(20):
            service.assert_well()


def test_flask_run_serves_with_no_setting(tmp_path: Path) -> None:
    command = ["flask", "run", "--port", "0"]
    with Service(tmp_path / "log", command=command) as service:
        service.assert_well()

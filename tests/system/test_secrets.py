"""A secret in a file is read once for all workers: at the start, and at a reload."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import until
from tests.support.service import Service


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The file with the write tokens."""
    file = tmp_path / "tokens"
    file.write_text("old\n")
    return file


@pytest.fixture
def service(tokens: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with one worker, the more easily replaced."""
    env = {"HASHER_WRITE_TOKENS_FILE": str(tokens), "WEB_CONCURRENCY": "1"}
    with Service(tmp_path / "log", HASHER_STORE=f"sqlite:///{tmp_path}/messages.db", **env) as made:  # type: ignore[arg-type] # none is "limits"
        yield made


def stores(service: Service, token: str) -> bool:
    """Whether the token lets its bearer store; False while no worker answers."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
    try:
        return service.request("POST", "/messages", b"foo", headers).status in {200, 201}
    except OSError:
        return False


def test_a_worker_that_starts_later_has_the_secrets_of_the_others(
    service: Service, tokens: Path
) -> None:
    tokens.write_text("new\n")
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: service.workers() not in ([], [worker]))
    until(lambda: stores(service, "old"))
    assert not stores(service, "new")


def test_a_reload_reads_the_files_again(service: Service, tokens: Path) -> None:
    tokens.write_text("new\n")
    service.signal(signal.SIGHUP)
    until(lambda: stores(service, "new"))
    until(lambda: not stores(service, "old"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "HASHER_WRITE_TOKENS_FILE must not name an empty file"),
        ("not a token", "HASHER_WRITE_TOKENS must be tokens of letters"),
    ],
)
def test_a_reload_that_cannot_use_a_secret_keeps_the_one_before(
    service: Service, tokens: Path, text: str, fault: str
) -> None:
    tokens.write_text(text)
    (old,) = service.workers()
    service.signal(signal.SIGHUP)
    until(lambda: old not in service.workers())
    until(service.is_answering)
    assert stores(service, "old")
    assert f"The reload keeps the secrets of before: {fault}" in service.log
    assert service.process.poll() is None


def test_a_reload_stays_with_its_store(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"sqlite:///{tmp_path}/first.db")
    with Service(tmp_path / "log", HASHER_STORE_FILE=str(file), WEB_CONCURRENCY="1") as service:
        digest = service.post("foo").json["digest"]
        file.write_text(f"sqlite:///{tmp_path}/second.db")
        (old,) = service.workers()
        service.signal(signal.SIGHUP)
        until(lambda: old not in service.workers())
        until(service.is_answering)
        assert service.get(digest).status == 200
        assert "restart the service to change it" in service.log
    assert not (tmp_path / "second.db").exists()

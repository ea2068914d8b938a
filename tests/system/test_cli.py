"""`flask store`, as an operator types it."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.servers import RedisServer, until
from tests.support.service import BIN, ROOT, Service

NAME = sha256(b"foo").hexdigest()


def flask(*words: str, store: str = "memory://", sent: bytes = b"") -> tuple[int, bytes, str]:
    """The exit status, standard output and standard error of `flask store` with these words."""
    ended = subprocess.run(
        [BIN / "flask", "store", *words],
        cwd=ROOT,
        env={**os.environ, "HASHER_STORE": store},
        input=sent,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr.decode()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file of this test's own."""
    return f"sqlite:///{tmp_path}/messages.db"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of this test's own."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


def lines(count: int) -> bytes:
    """An export of so many messages of some 100 bytes."""
    texts = (f"message {number} ".ljust(100, ".") for number in range(count))
    return b"".join(json.dumps({"message": text}).encode() + b"\n" for text in texts)


def test_a_message_goes_in_and_comes_out_as_it_is(url: str) -> None:
    message = "foo\r\n\0é".encode()
    name = sha256(message).hexdigest()
    assert flask("put", store=url, sent=message)[:2] == (0, f"{name}\n".encode())
    assert flask("get", name, store=url)[:2] == (0, message)


@pytest.mark.parametrize(
    ("words", "sent", "fault"),
    [
        (("get", "0" * 64), b"", "Error: Message not found."),
        (("get", "foo"), b"", "Error: A digest is 64 lowercase hexadecimal characters."),
        (("put",), b"\xff", "Error: It is not UTF-8 (at byte 0)."),
        (("import",), lines(2) + b"{}\n", 'Error: line 3: The body must have a "message".'),
        (("import",), lines(1) + b'{"message":1}', "Error: line 2: message must be a string"),
        (("copy", "foo://x", "sqlite:///y"), b"", "Error: The store's URL must start with one of"),
        (("copy", "memory://", "memory://"), b"", "Error: memory:// lives in one process"),
        (("copy", "sqlite:////none/x", "memory://"), b"", "there is no directory /none"),
        (("copy", "redis://127.0.0.1:1", "redis://127.0.0.1:1"), b"", "Run it again"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    url: str, words: tuple[str, ...], sent: bytes, fault: str
) -> None:
    status, _, said = flask(*words, store=url, sent=sent)
    assert status != 0
    assert fault in said
    assert "Traceback" not in said


def test_an_export_can_be_imported_again(url: str, server: RedisServer) -> None:
    assert flask("import", store=url, sent=lines(2000))[:2] == (0, b"2000 messages were new.\n")
    assert flask("import", store=url, sent=lines(2001))[:2] == (0, b"1 messages were new.\n")
    status, exported, said = flask("export", store=url)
    assert status == 0
    assert "exported 2,001 of 2,001" in said
    assert sorted(exported.splitlines()) == sorted(
        line.replace(b": ", b":") for line in lines(2001).splitlines()
    )
    assert flask("import", store=server.url, sent=exported)[1] == b"2001 messages were new.\n"


def test_the_lines_before_a_bad_one_are_stored(url: str) -> None:
    assert flask("import", store=url, sent=lines(30) + b"\n" + lines(40))[0] == 1
    assert flask("stats", store=url)[1].startswith(b"messages: 30\n")


def test_nothing_is_put_into_a_store_that_ends_with_the_command() -> None:
    for words in (("put",), ("import",), ("stats",), ("verify",), ("export",)):
        status, _, said = flask(*words, sent=b"")
        assert status == 1
        assert "set HASHER_STORE" in said


def test_nothing_is_put_into_a_server_that_evicts(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(3))
    with RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server:
        for status, _, said in (
            flask("copy", url, server.url),
            flask("put", store=server.url, sent=b"foo"),
        ):
            assert status == 1
            assert "noeviction" in said


def test_stats_says_how_much_there_is(url: str) -> None:
    flask("import", store=url, sent=lines(30))
    assert flask("stats", store=url)[1] == b"messages: 30\nbytes: 3000\nlargest: 100\n"


def test_copy_moves_all_messages_and_goes_on_where_it_stopped(
    tmp_path: Path, url: str, server: RedisServer
) -> None:
    count = 100_000
    flask("import", store=url, sent=lines(count))
    process = subprocess.Popen(
        [BIN / "flask", "store", "copy", url, server.url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with closing(server.client()) as client:
        until(lambda: client.dbsize() > count / 10)
        process.send_signal(signal.SIGINT)
        said = b"".join(process.communicate(timeout=30)).decode()
        copied = client.dbsize()
        assert process.returncode != 0
        assert "Traceback" not in said
        assert 0 < copied < count
        status, out, _ = flask("copy", url, server.url)
        assert (status, out) == (0, f"{count - copied} messages were new to the target.\n".encode())
        assert client.dbsize() == count
    back = f"sqlite:///{tmp_path}/back.db"
    assert flask("copy", server.url, back)[:2] == (
        0,
        f"{count} messages were new to the target.\n".encode(),
    )
    assert flask("verify", store=back)[0] == 0


def test_verify_finds_a_flipped_byte_and_copy_leaves_it_out(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(1000))
    flask("put", store=url, sent=b"foo")
    assert flask("verify", store=url)[:2] == (0, b"")
    with closing(sqlite3.connect(tmp_path / "messages.db")) as file:
        file.execute("UPDATE messages SET message = 'fop' WHERE digest = ?", (bytes.fromhex(NAME),))
        file.commit()
    status, out, said = flask("verify", store=url)
    assert (status, out) == (1, f"damaged: {NAME}\n".encode())
    assert "1 damaged messages were found." in said
    copy = f"sqlite:///{tmp_path}/copy.db"
    status, out, _ = flask("copy", url, copy)
    assert status == 1
    assert out == f"damaged: {NAME}\n1000 messages were new to the target.\n".encode()
    assert flask("verify", store=copy)[0] == 0


def test_an_export_is_one_that_can_be_imported_whatever_is_damaged(
    tmp_path: Path, url: str
) -> None:
    flask("import", store=url, sent=lines(3))
    flask("put", store=url, sent=b"foo")
    with closing(sqlite3.connect(tmp_path / "messages.db")) as file:
        file.execute("UPDATE messages SET message = 'fop' WHERE digest = ?", (bytes.fromhex(NAME),))
        file.commit()
    status, exported, said = flask("export", store=url)
    assert status == 1
    assert f"damaged: {NAME}" in said
    assert flask("import", store=f"sqlite:///{tmp_path}/again.db", sent=exported)[0] == 0


def test_a_running_service_sees_what_is_imported(tmp_path: Path, url: str) -> None:
    with Service(tmp_path / "log", HASHER_STORE=url) as service:
        assert service.get(NAME).status == 404
        flask("put", store=url, sent=b"foo")
        assert service.get(NAME).json == {"message": "foo"}


def test_a_terminal_gets_a_bar_with_rate_and_time_left(url: str) -> None:
    flask("import", store=url, sent=lines(3000))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BIN / "flask", "store", "verify"],
        cwd=ROOT,
        env={**os.environ, "HASHER_STORE": url, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # which is how Linux says that the other end was closed
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait() == 0
    assert b"[####" in shown
    assert b"/s" in shown
    assert b"verified 3,000 of 3,000" in shown

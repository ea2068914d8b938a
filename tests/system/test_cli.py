"""`flask store`, as an operator types it."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import RedisServer, until
from tests.support.service import BIN, ROOT, Service

NAME = sha256(b"foo").hexdigest()


def flask(
    *words: str,
    store: str = "memory://",
    sent: bytes = b"",
    source: IO[bytes] | None = None,
    output: int | IO[bytes] = subprocess.PIPE,
    program: Sequence[str | Path] = (BIN / "flask",),
) -> tuple[int, bytes, str]:
    """The exit status, standard output and standard error of `flask store` with these words."""
    given: dict[str, Any] = {"input": sent} if source is None else {"stdin": source}
    ended = subprocess.run(
        [*program, "store", *words],
        cwd=ROOT,
        env={**os.environ, "HASHER_STORE": store},
        stdout=output,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        **given,
    )
    return ended.returncode, ended.stdout or b"", ended.stderr.decode()


def alter(file: Path, digest: bytes) -> None:
    """Change a stored message behind the store's back."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE messages SET message = 'fop' WHERE digest = ?", (digest,))
        connection.commit()


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
        (("import",), lines(2) + b"{}\n", 'Error: line 3: it must have a "message".'),
        (("import",), lines(1) + b'{"message":1}', "Error: line 2: message must be a string"),
        (("copy", "foo://x", "sqlite:///y"), b"", "Error: The store's URL must start with one of"),
        (("copy", "sqlite:///\udcff", "sqlite:///y"), b"", "Error: The store's URL must be UTF-8."),
        (("copy", "memory://", "memory://"), b"", "Error: memory:// lives in one process"),
        (("copy", "sqlite:////none/x", "sqlite:///y"), b"", "/none/x does not exist"),
        (("copy", "redis://127.0.0.1:1", "redis://127.0.0.1:1"), b"", "Run it again"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    url: str, words: tuple[str, ...], sent: bytes, fault: str
) -> None:
    flask("import", store=url)
    status, _, said = flask(*words, store=url, sent=sent)
    assert status != 0
    assert fault in said
    assert "Traceback" not in said


def test_a_store_that_is_only_read_must_exist_and_is_not_made(tmp_path: Path, url: str) -> None:
    typo = f"sqlite:///{tmp_path}/typo.db"
    for words in (("stats",), ("verify",), ("export",), ("get", NAME)):
        status, out, said = flask(*words, store=typo)
        assert (status, out) == (1, b"")
        assert said == f"Error: The store cannot be used: {tmp_path}/typo.db does not exist.\n"
    status, _, said = flask("copy", typo, url, store=typo)
    assert (status, said.count("\n")) == (1, 1)
    assert flask("--help", store=typo)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_hasher_store_makes_none_either(tmp_path: Path) -> None:
    typo = f"sqlite:///{tmp_path}/typo.db"
    status, out, said = flask("stats", store=typo, program=(sys.executable, "-m", "hasher"))
    assert (status, out) == (1, b"")
    assert "does not exist" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("put",), ("import",)])
def test_a_store_that_is_written_to_is_made(tmp_path: Path, url: str, words: tuple[str]) -> None:
    assert flask(*words, store=url)[0] == 0
    assert flask("verify", store=url)[0] == 0
    copy = f"sqlite:///{tmp_path}/copy.db"
    assert flask("copy", url, copy)[0] == 0
    assert flask("verify", store=copy)[0] == 0


def test_a_folder_that_is_not_there_is_named() -> None:
    for words in (("put",), ("import",)):
        status, _, said = flask(*words, store="sqlite:////none/x")
        assert (status, said.count("\n")) == (1, 1)
        assert "there is no directory /none" in said


def test_a_remark_that_cannot_be_written_changes_nothing(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(1))
    copy = f"sqlite:///{tmp_path}/copy.db"
    for command in ("stats", "verify", "export", f"copy {url} {copy}", "import </dev/null"):
        ended = subprocess.run(
            ["/bin/sh", "-c", f'"$0" store {command} 2>/dev/full', BIN / "flask"],
            cwd=ROOT,
            env={**os.environ, "HASHER_STORE": url},
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, command
        assert bool(ended.stdout) == (command != "verify")


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("put",), b"foo"),
        (("get", NAME), b""),
        (("export",), b""),
        (("import",), lines(1)),
        (("stats",), b""),
        (("copy", "URL", "URL"), b""),
        (("verify",), b""),
    ],
)
def test_an_output_that_fails_is_said_in_a_line(
    tmp_path: Path, url: str, words: tuple[str, ...], sent: bytes
) -> None:
    flask("put", store=url, sent=b"foo")
    flask("put", store=url, sent=b"bar")
    alter(tmp_path / "messages.db", sha256(b"bar").digest())
    words = tuple(url if word == "URL" else word for word in words)
    with Path("/dev/full").open("wb") as full:
        status, _, said = flask(*words, store=url, sent=sent, output=full)
    assert status == 1
    assert "Error: Standard output failed: No space left on device.\n" in said
    assert "Traceback" not in said
    assert "Exception" not in said


def test_a_reader_of_the_output_may_have_enough(url: str) -> None:
    flask("import", store=url, sent=lines(3000))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        status, _, said = flask("export", store=url, output=broken)
    assert status == 1
    assert "Error" not in said
    assert "Exception" not in said


def test_an_input_that_fails_is_said_in_a_line(url: str) -> None:
    for words in (("put",), ("import",)):
        with Path("/proc/self/mem").open("rb") as unreadable:  # nothing is mapped at its start
            status, _, said = flask(*words, store=url, source=unreadable)
        assert status == 1
        assert "Error: Standard input failed: Input/output error.\n" in said


@pytest.mark.parametrize(
    ("command", "status", "fault"),
    [
        ("put <&-", 1, "Error: Standard input is closed.\n"),
        ("import <&-", 1, "Error: Standard input is closed.\n"),
        ("stats >&-", 1, "Error: Standard output is closed.\n"),
        ("stats 2>&-", 0, ""),
    ],
)
def test_a_stream_that_is_closed_is_said_in_a_line(
    url: str, command: str, status: int, fault: str
) -> None:
    flask("put", store=url, sent=b"foo")
    ended = subprocess.run(
        ["/bin/sh", "-c", f'"$0" store {command}', BIN / "flask"],
        cwd=ROOT,
        env={**os.environ, "HASHER_STORE": url},
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status
    assert ended.stderr.decode().endswith(fault)
    assert b"Traceback" not in ended.stderr


def test_blank_lines_are_passed_over_and_counted(url: str) -> None:
    sent = b"\n \r\n" + lines(3) + b"\n\n" + lines(4) + b"\t\n{}"
    status, _, said = flask("import", store=url, sent=sent)
    assert status == 1
    assert "Error: line 13: " in said
    assert flask("stats", store=url)[1].startswith(b"messages: 4\n")


def test_what_is_stored_again_is_mended(tmp_path: Path, url: str, server: RedisServer) -> None:
    file, copy = tmp_path / "messages.db", f"sqlite:///{tmp_path}/copy.db"
    flask("put", store=url, sent=b"foo")
    flask("copy", url, copy)
    flask("copy", url, server.url)
    exported = flask("export", store=url)[1]
    for words, sent in ((("put",), b"foo"), (("import",), exported), (("copy", copy, url), b"")):
        alter(file, bytes.fromhex(NAME))
        assert flask("verify", store=url)[0] == 1
        status, out, said = flask(*words, store=url, sent=sent)
        assert status == 0, said
        assert b"new" not in out or b"0 messages were new" in out
        assert "mended" in said
        assert flask("get", NAME, store=url)[:2] == (0, b"foo")
    with closing(server.client()) as client:
        (key,) = client.keys()
        client.set(key, "fop")
        assert flask("copy", copy, server.url)[0] == 0
        client.delete(key)
        client.rpush(key, "fop")
        assert "mended" in flask("put", store=server.url, sent=b"foo")[2]
    assert flask("verify", store=server.url)[0] == 0


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
    assert flask("import", store=url, sent=lines(30) + b"{}\n" + lines(40))[0] == 1
    assert flask("stats", store=url)[1].startswith(b"messages: 30\n")


def test_nothing_is_put_into_a_store_that_ends_with_the_command() -> None:
    for words in (
        *(("put",), ("import",), ("stats",), ("verify",), ("export",)),
        *(("remove", NAME), ("restore", NAME), ("removed",)),
    ):
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
    alter(tmp_path / "messages.db", bytes.fromhex(NAME))
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
    alter(tmp_path / "messages.db", bytes.fromhex(NAME))
    status, exported, said = flask("export", store=url)
    assert status == 1
    assert f"damaged: {NAME}" in said
    assert flask("import", store=f"sqlite:///{tmp_path}/again.db", sent=exported)[0] == 0


def test_what_is_no_text_is_damage_whatever_its_digest(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(3))
    digest = sha256(b"\xff")
    with closing(sqlite3.connect(tmp_path / "messages.db")) as connection:
        connection.execute("INSERT INTO messages VALUES (?, ?)", (digest.digest(), b"\xff"))
        connection.commit()
    damaged = f"damaged: {digest.hexdigest()}\n"
    status, exported, said = flask("export", store=url)
    assert (status, len(exported.splitlines())) == (1, 3)
    assert damaged in said
    assert "Traceback" not in said
    copy = f"sqlite:///{tmp_path}/copy.db"
    for words in (("verify",), ("copy", url, copy)):
        status, out, _ = flask(*words, store=url)
        assert (status, out.startswith(damaged.encode())) == (1, True)
    assert flask("stats", store=copy)[1].startswith(b"messages: 3\n")


def corrupt(file: Path, kind: int) -> None:
    """Overwrite a page of one kind in the middle (https://sqlite.org/fileformat.html#b_tree_pages).

    13 is a page of the table, with messages; 10 is one of its index, with digests.
    """
    content = file.read_bytes()
    size = int.from_bytes(content[16:18])
    starts = [at for at in range(size, len(content), size) if content[at] == kind]
    with file.open("r+b") as opened:
        opened.seek(starts[len(starts) // 2])
        opened.write(b"\xff" * size)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(2000))
    corrupt(tmp_path / "messages.db", kind=13)
    status, exported, said = flask("export", store=url)
    damaged = sorted(line for line in said.splitlines() if line.startswith("damaged: "))
    assert status == 1
    assert f"Error: {len(damaged)} damaged messages were found.\n" in said
    assert 1 <= len(damaged) < 100
    assert len(exported.splitlines()) + len(damaged) == 2000
    status, out, said = flask("verify", store=url)
    assert (status, sorted(out.decode().splitlines())) == (1, damaged)
    assert "Traceback" not in said
    copy = f"sqlite:///{tmp_path}/copy.db"
    assert flask("copy", url, copy)[0] == 1
    assert flask("stats", store=copy)[1].startswith(f"messages: {2000 - len(damaged)}\n".encode())
    assert flask("import", store=copy, sent=lines(2000))[0] == 0
    assert flask("verify", store=copy)[:2] == (0, b"")


def test_digests_that_cannot_be_found_are_damage_too(tmp_path: Path, url: str) -> None:
    flask("import", store=url, sent=lines(2000))
    corrupt(tmp_path / "messages.db", kind=10)
    status, exported, _ = flask("export", store=url)
    assert (status, len(exported.splitlines())) == (0, 2000)
    status, out, said = flask("verify", store=url)
    damaged = out.decode().splitlines()
    assert status == 1
    assert f"Error: {len(damaged)} damaged messages were found.\n" in said
    assert 1 <= len(damaged) < 200


def test_a_message_is_taken_down_and_may_be_stored_again(url: str, server: RedisServer) -> None:
    other = sha256(b"bar").hexdigest()
    for store in (url, server.url):
        flask("put", store=store, sent=b"foo")
        assert flask("removed", store=store)[:2] == (0, b"")
        reason = "a\tb\n\x1b[31mred \u0101"
        status, out, said = flask("remove", NAME, other, "--reason", reason, store=store)
        taken, unknown = f"taken down: {NAME}", f"taken down, and was not stored: {other}"
        assert (status, out.decode()) == (0, f"{taken}\n{unknown}\n")
        assert "docs/takedown.md" in said
        again = f"was taken down before: {NAME}\n"
        assert flask("remove", NAME, store=store)[:2] == (0, again.encode())
        rows = [row.split("\t") for row in flask("removed", store=store)[1].decode().splitlines()]
        assert sorted(row[0] for row in rows) == sorted([NAME, other])
        assert {row[2] for row in rows} == {"a b  [31mred \u0101"}
        written = [datetime.fromisoformat(row[1]) for row in rows]
        assert all(timedelta() <= datetime.now(UTC) - one < timedelta(minutes=5) for one in written)
        for words in (("get", NAME), ("put",)):
            status, out, said = flask(*words, store=store, sent=b"foo")
            assert (status, out) == (1, b"")
            assert f"The message {NAME} was taken down." in said
        assert flask("verify", store=store)[:2] == (0, b"")
        sizes = b"messages: 0\nbytes: 0\nlargest: 0\ntaken down: 2\n"
        assert flask("stats", store=store)[1].startswith(sizes)
        assert flask("restore", NAME, store=store)[1] == f"can be stored again: {NAME}\n".encode()
        assert flask("restore", NAME, store=store)[1] == f"was not taken down: {NAME}\n".encode()
        assert "Message not found." in flask("get", NAME, store=store)[2]
        assert flask("put", store=store, sent=b"foo")[0] == 0


@pytest.mark.parametrize("words", [("remove",), ("restore",)])
@pytest.mark.parametrize("name", [NAME.upper(), NAME[1:], f"{NAME}\n", "foo"])
def test_nothing_is_taken_down_unless_all_digests_are_well_formed(
    url: str, words: tuple[str], name: str
) -> None:
    flask("put", store=url, sent=b"foo")
    status, _, said = flask(*words, NAME, name, store=url)
    assert status == 1
    assert "64 lowercase hexadecimal" in said
    assert flask("removed", store=url)[1] == b""


def test_a_reason_that_would_be_cut_is_refused(url: str) -> None:
    flask("put", store=url, sent=b"foo")
    assert "at most 300 characters" in flask("remove", NAME, "--reason", "x" * 301, store=url)[2]
    assert flask("get", NAME, store=url)[1] == b"foo"
    assert flask("remove", NAME, "--reason", "x" * 300, store=url)[0] == 0


def test_an_export_carries_what_was_taken_down(url: str, server: RedisServer) -> None:
    sent = lines(10) + b'{"message":"foo"}\n{"message":"\\"removed\\""}\n'
    flask("import", store=url, sent=sent)
    flask("remove", NAME, "--reason", "spam", store=url)
    status, exported, said = flask("export", store=url)
    assert status == 0
    assert "exported 12 of 12" in said
    told = [json.loads(line) for line in exported.splitlines() if b'{"removed"' in line]
    assert [(one["removed"], one["reason"]) for one in told] == [(NAME, "spam")]
    flask("put", store=server.url, sent=b"foo")
    assert flask("import", store=server.url, sent=exported)[:2] == (0, b"11 messages were new.\n")
    assert flask("removed", store=server.url)[1] == flask("removed", store=url)[1]
    status, out, said = flask("import", store=server.url, sent=sent)
    assert (status, out) == (0, b"0 messages were new.\n")
    assert "1 messages were left out: they were taken down." in said


@pytest.mark.parametrize("before", [True, False])
def test_what_an_export_takes_down_stays_so_in_an_empty_store(url: str, *, before: bool) -> None:
    line = f'{{"removed":"{NAME}"}}\n'.encode()
    message = b'{"message":"foo"}\n'
    sent = line + message if before else message + line + message
    assert flask("import", store=url, sent=lines(5) + sent)[0] == 0
    assert flask("removed", store=url)[1].startswith(NAME.encode())
    assert flask("stats", store=url)[1].startswith(b"messages: 5\n")


@pytest.mark.parametrize("line", [b'{"removed":"foo"}', b'{"removed":1}', b'{"removed"', b"[]"])
def test_a_line_that_neither_is_nor_removes_a_message_is_named(url: str, line: bytes) -> None:
    status, _, said = flask("import", store=url, sent=lines(2) + line + b"\n")
    assert status == 1
    assert "line 3: " in said
    assert "Traceback" not in said


def test_a_copy_brings_nothing_back_and_carries_what_was_taken_down(
    url: str, server: RedisServer
) -> None:
    bar = sha256(b"bar").hexdigest()
    for store in (url, server.url):
        flask("import", store=store, sent=lines(10) + b'{"message":"bar"}\n')
    flask("put", store=url, sent=b"foo")
    flask("remove", NAME, store=server.url)
    flask("remove", bar, store=url)
    status, out, said = flask("copy", url, server.url)
    assert (status, out) == (0, b"0 messages were new to the target.\n")
    assert "1 messages were left out: they were taken down." in said
    removed = flask("removed", store=server.url)[1].decode()
    assert sorted(row[:64] for row in removed.splitlines()) == sorted([NAME, bar])
    assert flask("get", NAME, store=url)[1] == b"foo"


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


def test_a_store_is_put_through_what_hasher_promises(tmp_path: Path, url: str) -> None:
    status, out, said = flask("selftest", url)
    assert (status, said) == (0, "")
    assert out.count(b"ok: ") == len(out.splitlines()) >= 10
    assert list(tmp_path.glob("messages.db*")) == []


def test_a_store_that_breaks_a_promise_is_said_to(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", "--maxmemory", "1") as server:
        status, out, said = flask("selftest", server.url)
    assert status == 1
    assert b"FAILED: what was put is got unchanged: the store is full\n" in out
    broken = out.count(b"FAILED: ")
    assert broken == len(out.splitlines()) >= 10
    assert f"The store breaks {broken} of {broken} promises." in said


def test_a_store_that_cannot_be_used_has_no_promise_to_break(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server:
        for url, fault in (
            (server.url, "The store cannot be used: the Redis server would drop"),
            ("sqlite:////none/x", "there is no directory /none.\n"),
            ("redis://127.0.0.1:1", "Run it again later.\n"),
        ):
            status, out, said = flask("selftest", url)
            assert (status, out, said.count("\n")) == (1, b"", 1)
            assert fault in said


def test_the_schema_is_made_and_messages_move_between_all_stores(
    tmp_path: Path, url: str, server: RedisServer
) -> None:
    with PostgreSQLServer() as database:
        assert flask("schema", store=database.url)[:2] == (0, b"The store is ready.\n")
        assert flask("import", store=url, sent=lines(3000))[0] == 0
        moved = b"3000 messages were new to the target.\n"
        assert flask("copy", url, database.url)[:2] == (0, moved)
        assert flask("copy", database.url, server.url)[:2] == (0, moved)
        assert flask("copy", server.url, f"{database.url}?table=other")[:2] == (0, moved)
        assert flask("copy", url, database.url)[1] == moved.replace(b"3000", b"0")
        assert flask("verify", store=database.url)[0] == 0
        assert flask("stats", store=database.url)[1].startswith(b"messages: 3000\n")

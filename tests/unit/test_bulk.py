"""Many messages in one request: a line for each, all or nothing."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from threading import Event
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver, Stored
from hasher.stores.memory import MemoryDriver
from hasher.stores.tombstone import MARK
from hasher.web.bulk import PIECE, from_lines, one_by_one

same_client = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def app(store: Driver) -> Flask:
    """The application with limits that small bodies reach."""
    return create_app(Settings(max_message_bytes=1000, max_bulk_bytes=2**20), store=store)


def post(client: FlaskClient, body: bytes, content_type: str = "application/x-ndjson") -> Any:
    return client.post("/messages", data=body, content_type=content_type)


def name(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def answered(texts: list[str]) -> bytes:
    """The answer to these messages."""
    return "".join(f'{{"digest":"{name(text)}"}}\n' for text in texts).encode()


@same_client
@given(st.lists(st.text(), min_size=1), st.sampled_from(["\n", "\r\n", "\n\n \n"]))
def test_each_message_is_answered_in_order_and_stored(
    roomy: FlaskClient, texts: list[str], end: str
) -> None:
    lines = [json.dumps({"message": text}) for text in texts]
    answer = post(roomy, end.join(lines).encode())
    assert (answer.status_code, answer.content_type) == (200, "application/x-ndjson")
    assert answer.data == answered(texts)
    for text in texts:
        assert roomy.get(f"/messages/{name(text)}").json == {"message": text}


@same_client
@given(st.binary(max_size=200))
def test_no_body_whatever_is_a_server_error(client: FlaskClient, body: bytes) -> None:
    assert post(client, body).status_code in {200, 400}


FRAGMENTS = [
    b'{"message":"a"}',
    b'{"message":"a","x":',
    b'{"y":1}',
    b"{",
    b"}",
    b'"',
    b"[",
    b"]",
    b",",
    b" ",
    b"\r",
    b"\xff",
]


def outcome(decode: Callable[[bytes, int, int], list[bytes]], lines: bytes) -> object:
    """The messages that `decode` finds, or the error that it answers."""
    try:
        return decode(lines, 1, 100)
    except HTTPException as error:
        return error.code, error.description


@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.just(b"\n")), min_size=1).map(b"".join))
def test_lines_decoded_together_are_as_those_decoded_one_by_one(lines: bytes) -> None:
    assert outcome(from_lines, lines) == outcome(one_by_one, lines)


GOOD = b'{"message":"good"}\n'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"message":1}', "message must be a string, got an integer."),
        (b"[]", "it must be a JSON object, got an array."),
        (b"{}", 'it must have a "message".'),
        (b'{"message":"cut', "it is not valid JSON: it is truncated."),
        (b'{"message":"\xff"}', "it is not valid UTF-8 (at byte 12)."),
        (b'{"message":"a","x":"\xff"}', "it is not valid UTF-8 (at byte 20)."),
        (
            rb'{"message":"\ud800"}',
            "it has a lone surrogate escape, which has no UTF-8 form.",
        ),
        (
            b'{"message":"a"}{"message":"b"}',
            "it is not valid JSON: trailing characters (byte 16).",
        ),
        (
            b'{"message":"a"}{"message":"b","x":\n{}}',
            "it is not valid JSON: trailing characters (byte 16).",
        ),
        (b'{"message":\n"over two lines"}', "it is not valid JSON: it is truncated."),
        (b'{"x":' + b"[" * 100_000, "it is not acceptable JSON: it is nested too deep."),
        (b"\0", "it is not valid JSON: invalid character (byte 0)."),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 16, 2 * PIECE // len(GOOD)])
def test_a_bad_line_is_named_and_nothing_is_stored(
    client: FlaskClient, store: Driver, line: bytes, sentence: str, before: int
) -> None:
    answer = post(client, GOOD * before + line + b"\n" + GOOD)
    assert answer.status_code == 400
    assert answer.json == {"error": f"line {before + 1}: {sentence}"}
    assert store.count() == 0


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\n"])
def test_a_body_without_a_message_is_400(client: FlaskClient, body: bytes) -> None:
    answer = post(client, body)
    assert (answer.status_code, answer.json) == (400, {"error": "The body is empty."})


def test_a_message_over_its_own_limit_is_named(client: FlaskClient, store: Driver) -> None:
    fits, over = ('{"message":"%s"}\n' % ("x" * size) for size in (1000, 1001))
    assert post(client, fits.encode()).status_code == 200
    answer = post(client, GOOD + over.encode())
    assert answer.status_code == 413
    assert answer.json == {"error": "line 2: the message is over the limit of 1000 bytes."}
    assert store.count() == 1


def test_a_body_over_the_limit_is_413(client: FlaskClient) -> None:
    filled = GOOD * (2**20 // len(GOOD))
    filled += b" " * (2**20 - len(filled))
    assert post(client, filled).status_code == 200
    answer = post(client, filled + b"\n")
    assert answer.status_code == 413
    assert answer.json == {"error": "The body is over the limit of 1048576 bytes."}


def test_a_body_of_too_many_lines_is_413(store: Driver) -> None:
    client = create_app(Settings(max_bulk_messages=1000), store=store).test_client()
    most = GOOD * 1000
    answer = post(client, most + GOOD)
    assert answer.status_code == 413
    assert answer.json == {"error": "The body is over the limit of 1000 lines."}
    assert post(client, most + b"\n").status_code == 413  # an empty line is one
    assert store.count() == 0
    assert post(client, most).data == answered(["good"] * 1000)
    assert post(client, most[:-1]).status_code == 200


def test_an_answer_made_in_parts_is_as_long_as_it_says(client: FlaskClient) -> None:
    texts = [str(number) for number in range(10_000)]
    answer = post(client, "".join(f'{{"message":"{text}"}}\n' for text in texts).encode())
    assert answer.headers["Content-Length"] == str(10_000 * 78)
    assert answer.data == answered(texts)


class Waiting(MemoryDriver):
    """A store that takes its time to store many."""

    def __init__(self) -> None:
        super().__init__(limit=2**24)
        self.asked, self.answers = Event(), Event()

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        self.asked.set()
        assert self.answers.wait(30)
        return super().put_many(messages)


def test_no_more_are_taken_at_once_than_leave_threads_for_others() -> None:
    store = Waiting()
    app = create_app(Settings(threads=7), store=store)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, app.test_client(), GOOD)
        try:
            assert store.asked.wait(30)
            second = post(app.test_client(), GOOD)
            single = app.test_client().post("/messages", json={"message": "single"})
        finally:
            store.answers.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.headers["Retry-After"]) == (503, "1")
    assert second.json == {
        "error": "Too many bulk requests are in hand; send this one again in a moment."
    }
    assert "Connection" not in second.headers  # its body was read
    assert single.status_code == 201
    assert post(app.test_client(), GOOD).status_code == 200


@pytest.mark.parametrize("body", [b"{}", b"", GOOD * 200])
def test_a_request_that_fails_makes_room_for_the_next(body: bytes) -> None:
    settings = Settings(threads=1, max_bulk_messages=100)
    client = create_app(settings, store=MemoryDriver(limit=2**24)).test_client()
    assert post(client, body).status_code in {400, 413}
    assert post(client, GOOD).status_code == 200


class Forgetful(MemoryDriver):
    """A store that keeps nothing, and so takes no memory."""

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        return Stored(new=len(messages))


def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    client = create_app(Settings(), store=Forgetful(limit=2**24)).test_client()
    body = b"".join(b'{"message":"%d"}\n' % number for number in range(100_000))
    tracemalloc.start()
    try:
        assert post(client, body).status_code == 200
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20  # an object for each line, and for its digest, are 32 MiB


def test_a_message_may_come_twice(client: FlaskClient, store: Driver) -> None:
    assert post(client, GOOD * 3).data == answered(["good"] * 3)
    assert store.count() == 1


def test_a_store_without_room_for_all_takes_none() -> None:
    store = MemoryDriver(limit=1000)
    client = create_app(Settings(), store=store).test_client()
    lines = b"".join(b'{"message":"%d"}\n' % number for number in range(100))
    assert post(client, lines).status_code == 507
    assert store.count() == 0


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson; charset=latin1", "application/ndjson"]
)
def test_another_charset_or_type_is_415(client: FlaskClient, content_type: str) -> None:
    answer = post(client, GOOD, content_type)
    assert answer.status_code == 415
    assert "application/x-ndjson" in answer.json["error"]


def test_a_charset_of_utf_8_may_be_named(client: FlaskClient) -> None:
    assert post(client, GOOD, "application/x-ndjson; charset=UTF-8").status_code == 200


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n"])
def test_a_line_that_was_taken_down_is_named_and_nothing_is_stored(
    client: FlaskClient, store: Driver, end: bytes, last: bytes
) -> None:
    store.remove(name("gone"), MARK)
    lines = [b"", b'{"message":"a"}', b" ", b'{"message":"g\\u006fne"}', b'{"message":"b"}']
    answer = post(client, end.join(lines) + last)
    assert answer.status_code == 410
    assert answer.json == {"error": "line 4: This message was taken down."}
    assert answer.headers["Cache-Control"] == "no-store"
    assert store.count() == 1
    store.restore(name("gone"))
    assert post(client, end.join(lines) + last).data == answered(["a", "gone", "b"])


def test_the_first_of_many_lines_that_were_taken_down_is_named(
    roomy: FlaskClient, store: Driver
) -> None:
    body = b"".join(b'{"message":"%d"}\n' % number for number in range(60_000))
    for number in (59_999, 40_000):
        store.remove(name(str(number)), MARK)
    assert post(roomy, body).json == {"error": "line 40001: This message was taken down."}
    assert store.count() == 2


def test_a_line_that_is_bad_is_named_before_the_store_is_asked(
    client: FlaskClient, store: Driver
) -> None:
    store.remove(name("a"), MARK)
    answer = post(client, b'{"message":"a"}\n{"message":1}\n')
    assert answer.json == {"error": "line 2: message must be a string, got an integer."}


class Removing(MemoryDriver):
    """Has a message taken down after it was asked whether any is."""

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        found = super().removed_of(digests)
        self.remove(name("b"), MARK)
        return found


def test_a_line_that_is_taken_down_at_that_very_moment_is_named_and_not_stored() -> None:
    driver = Removing(limit=2**20)
    client = create_app(Settings(), store=driver).test_client()
    answer = post(client, b'{"message":"a"}\n{"message":"b"}\n')
    assert answer.status_code == 410
    assert answer.json == {"error": "line 2: This message was taken down."}
    assert driver.get(name("b")) == MARK

"""Bodies: what is taken, what is refused, and the sentence that says why."""

from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hasher import create_app
from hasher.settings import Settings

DEEP = 100_000
same_client = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def post(client: FlaskClient, body: bytes, content_type: str | None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/messages", data=body, content_type=content_type, headers=named)


@same_client
@given(text=st.text())
def test_any_text_comes_back_as_it_was_sent(roomy: FlaskClient, text: str) -> None:
    as_json = roomy.post("/messages", json={"message": text})
    as_text = post(roomy, text.encode(), "text/plain")
    assert as_json.json == as_text.json
    assert as_text.status_code == 200
    assert roomy.get(as_json.headers["Location"]).json == {"message": text}
    assert roomy.get(as_json.headers["Location"] + ".txt").data == text.encode()


@same_client
@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/plain", "x/y", None]))
def test_no_body_whatever_is_a_server_error(
    client: FlaskClient, body: bytes, content_type: str | None
) -> None:
    assert post(client, body, content_type).status_code < 500


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is empty."),
        (b" \n", "The body is empty."),
        (b'{"message":', "The body is not valid JSON: it is truncated."),
        (
            b'{"message":"a"} x',
            "The body is not valid JSON: trailing characters (byte 17).",
        ),
        (b'{"message":NaN}', "The body is not valid JSON: invalid character (byte 11)."),
        (b'{"message":"\xff"}', "The body is not valid UTF-8 (at byte 12)."),
        (b'{"message":"a","x":"\xff"}', "The body is not valid UTF-8 (at byte 20)."),
        (b'{"message":"\xed\xa0\x80"}', "The body is not valid UTF-8 (at byte 12)."),
        (
            rb'{"message":"\ud800"}',
            "The body has a lone surrogate escape, which has no UTF-8 form.",
        ),
        (b"{}", 'The body must have a "message".'),
        (b'{"Message":"a"}', 'The body must have a "message".'),
        (b"[]", "The body must be a JSON object, got an array."),
        (b'"foo"', "The body must be a JSON object, got a string."),
        (b"17", "The body must be a JSON object, got an integer."),
        (b"null", "The body must be a JSON object, got null."),
        (b'{"message":17}', "message must be a string, got an integer."),
        (b'{"message":1.5}', "message must be a string, got a number."),
        (b'{"message":null}', "message must be a string, got null."),
        (b'{"message":true}', "message must be a string, got a boolean."),
        (b'{"message":[]}', "message must be a string, got an array."),
        (b'{"message":{}}', "message must be a string, got an object."),
    ],
)
def test_a_400_says_what_is_wrong(client: FlaskClient, body: bytes, sentence: str) -> None:
    answer = post(client, body, "application/json")
    assert (answer.status_code, answer.json) == (400, {"error": sentence})


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":"a","x":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP,
        b'{"message":' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
)
def test_deep_nesting_is_an_input_error(body: bytes) -> None:
    answer = post(create_app(Settings()).test_client(), body, "application/json")
    assert answer.status_code == 400


def test_extra_keys_are_ignored(client: FlaskClient) -> None:
    body = b'{"a":[1,{"b":null}],"message":"foo","z":1e999}'
    assert post(client, body, "application/json").status_code == 201


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        (None, {}),
        ("", {}),
        ("application/x-www-form-urlencoded", {}),
        ("application/jsonx", {}),
        ("text/html", {}),
        ("text/plain; charset=latin-1", {}),
        ("application/json; charset=utf-16", {}),
        ("text/plain", {"Content_Encoding": "gzip"}),
        ("application/json", {"Content_Encoding": "deflate, identity"}),
    ],
)
def test_what_is_not_offered_is_a_415_that_names_what_is(
    client: FlaskClient, content_type: str | None, headers: dict[str, str]
) -> None:
    answer = post(client, b'{"message":"a"}', content_type, **headers)
    assert answer.status_code == 415
    assert "application/json or text/plain" in answer.json["error"]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain; charset=UTF-8", 'TEXT/Plain;charset="utf-8"', "text/plain; format=flowed"],
)
def test_utf8_may_be_said_in_every_way(client: FlaskClient, content_type: str) -> None:
    assert post(client, b"a", content_type, Content_Encoding="identity").status_code == 201


def test_a_body_at_the_limit_is_taken_and_one_over_it_is_not(client: FlaskClient) -> None:
    at, over = (post(client, b"a" * size, "text/plain") for size in (1000, 1001))
    assert at.status_code == 201
    assert over.status_code == 413
    assert over.json == {"error": "The body is over the limit of 1000 bytes."}


@pytest.mark.parametrize(("size", "status"), [(1000, 201), (1001, 413)])
def test_the_limit_holds_for_a_body_of_unannounced_length(
    client: FlaskClient, size: int, status: int
) -> None:
    answer = client.post(
        "/messages",
        input_stream=BytesIO(b"a" * size),
        content_type="text/plain",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == status


def test_a_body_that_is_cut_is_not_a_message(client: FlaskClient) -> None:
    answer = client.post(
        "/messages",
        input_stream=BytesIO(b"abc"),
        content_type="text/plain",
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": "5"},
    )
    assert answer.status_code == 400
    assert answer.json == {"error": "The body ended before its Content-Length."}


class Stalled(BytesIO):
    """The input of a server whose client went silent."""

    def read(self, _size: int | None = -1) -> bytes:
        raise BlockingIOError


def test_a_body_that_stalls_is_a_408_that_closes_the_connection(
    client: FlaskClient, closes: list[bool]
) -> None:
    answer = client.post(
        "/messages",
        input_stream=Stalled(),
        content_type="text/plain",
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": "5"},
    )
    assert (answer.status_code, closes) == (408, [True])


def test_only_an_answer_before_the_body_was_read_closes_the_connection(
    client: FlaskClient, closes: list[bool]
) -> None:
    post(client, b"x" * 1001, "text/plain")
    post(client, b"x", "x/y")
    client.put("/messages", data=b"x")
    assert closes == [True] * 3
    post(client, b"x", "application/json")
    post(client, b"x", "text/plain")
    client.get("/messages/x")
    assert closes[3:] == [False] * 3

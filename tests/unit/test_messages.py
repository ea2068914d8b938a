"""The two routes, as a client in this process sees them."""

from base64 import b64decode
from hashlib import sha256

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.tombstone import MARK

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
FOR_EVER = "public, max-age=31536000, immutable"


def test_a_new_message_is_created_under_its_digest(client: FlaskClient) -> None:
    answer = client.post("/messages", json={"message": "foo"})
    assert answer.status_code == 201
    assert answer.data == b'{"digest":"%s"}\n' % FOO.encode()
    assert answer.headers["Location"] == f"/messages/{FOO}"
    assert answer.content_type == "application/json"


def test_a_repeated_message_gets_the_same_answer_with_200(client: FlaskClient) -> None:
    first = client.post("/messages", json={"message": "foo"})
    second = client.post("/messages", data=b"foo", content_type="text/plain")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.data == second.data
    assert first.headers["Location"] == second.headers["Location"]


def test_a_stored_message_is_json_that_any_cache_may_keep(client: FlaskClient) -> None:
    client.post("/messages", json={"message": "foo"})
    answer = client.get(f"/messages/{FOO}")
    assert (answer.status_code, answer.data) == (200, b'{"message":"foo"}\n')
    assert answer.content_type == "application/json"
    assert answer.headers["ETag"] == f'"{FOO}"'
    assert answer.headers["Cache-Control"] == FOR_EVER
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Vary" not in answer.headers


def test_the_txt_form_is_the_message_itself_and_proves_it(client: FlaskClient) -> None:
    client.post("/messages", json={"message": "foo\r\n\0é"})
    name = sha256("foo\r\n\0é".encode()).hexdigest()
    answer = client.get(f"/messages/{name}.txt")
    assert answer.data == "foo\r\n\0é".encode()
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["ETag"] == f'"{name}.txt"'
    assert answer.headers["Cache-Control"] == FOR_EVER
    digest = answer.headers["Repr-Digest"].removeprefix("sha-256=:").removesuffix(":")
    assert b64decode(digest).hex() == name


@pytest.mark.parametrize("form", ["", ".txt"])
@pytest.mark.parametrize("condition", ['"{tag}"', 'W/"{tag}"', '"other", "{tag}"', "*"])
def test_a_client_that_has_it_gets_304_with_the_validators(
    client: FlaskClient, form: str, condition: str
) -> None:
    client.post("/messages", json={"message": "foo"})
    tag = FOO + form
    headers = {"If-None-Match": condition.format(tag=tag)}
    answer = client.get(f"/messages/{FOO}{form}", headers=headers)
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == f'"{tag}"'
    assert answer.headers["Cache-Control"] == FOR_EVER
    assert "Content-Type" not in answer.headers


def test_the_two_forms_have_validators_of_their_own(client: FlaskClient) -> None:
    client.post("/messages", json={"message": "foo"})
    answer = client.get(f"/messages/{FOO}.txt", headers={"If-None-Match": f'"{FOO}"'})
    assert (answer.status_code, answer.data) == (200, b"foo")


def test_a_client_that_claims_to_have_what_is_not_stored_gets_404(client: FlaskClient) -> None:
    assert client.get(f"/messages/{FOO}", headers={"If-None-Match": "*"}).status_code == 404


@pytest.mark.parametrize("form", ["", ".txt"])
def test_head_is_get_without_its_body(client: FlaskClient, form: str) -> None:
    client.post("/messages", json={"message": "foo"})
    one = {"X-Request-ID": "1"}
    get, head = (
        client.open(f"/messages/{FOO}{form}", method=m, headers=one) for m in ("GET", "HEAD")
    )
    assert head.data == b""
    assert (head.status_code, head.headers) == (get.status_code, get.headers)


@pytest.mark.parametrize(
    "name",
    [
        FOO,
        FOO + ".txt",
        FOO[:-1],
        FOO + "0",
        FOO.upper(),
        FOO[:-1] + "g",
        FOO + "%0A",
        "%20" + FOO,
        FOO + ".json",
        FOO + "/",
        "..%2f..%2fetc%2fpasswd",
        "../" + FOO,
        "٠" * 64,
        "x" * 5000,
        "\0",
    ],
)
def test_what_is_not_stored_or_no_digest_is_not_found(
    client: FlaskClient, store: Driver, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(store, "get", asked.append)
    answer = client.get(f"/messages/{name}")
    assert answer.status_code == 404
    assert answer.data == b'{"error":"Message not found."}\n'
    assert len(answer.data) == 31
    assert answer.headers["Cache-Control"] == "no-store"
    assert asked == ([FOO] if name in {FOO, FOO + ".txt"} else [])


def test_a_message_altered_behind_the_service_is_never_served(
    app: Flask, client: FlaskClient, store: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(FOO, b"not foo")
    for address in (f"/messages/{FOO}", f"/messages/{FOO}.txt"):
        answer = client.get(address, headers={"If-None-Match": "*"})
        assert answer.status_code == 500
        assert answer.json == {"error": "The stored message is damaged, so it is not served."}
        assert FOO in caplog.text
        assert "not foo" not in caplog.text
        caplog.clear()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["", ".txt"])
@pytest.mark.parametrize("condition", [{}, {"If-None-Match": "*"}])
def test_a_message_that_was_taken_down_is_gone(
    client: FlaskClient, store: Driver, method: str, form: str, condition: dict[str, str]
) -> None:
    client.post("/messages", json={"message": "foo"})
    store.remove(FOO, MARK)
    answer = client.open(f"/messages/{FOO}{form}", method=method, headers=condition)
    assert answer.status_code == 410
    body = b'{"error":"This message was taken down."}\n'
    assert (answer.data, answer.content_length) == (b"" if method == "HEAD" else body, len(body))
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_a_message_that_was_taken_down_cannot_be_stored(
    client: FlaskClient, store: Driver, content_type: str
) -> None:
    store.remove(FOO, MARK)
    body = b"foo" if content_type == "text/plain" else b'{"message":"foo"}'
    answer = client.post("/messages", data=body, content_type=content_type)
    assert (answer.status_code, answer.json) == (410, {"error": "This message was taken down."})
    assert answer.headers["Cache-Control"] == "no-store"
    assert {"Location", "Connection"}.isdisjoint(answer.headers)
    assert store.restore(FOO)
    assert client.post("/messages", data=body, content_type=content_type).status_code == 201


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "public, max-age=0"), (1, "public, max-age=1, immutable"), (31536000, FOR_EVER)],
)
def test_caches_keep_a_message_for_as_long_as_is_set(
    store: Driver, seconds: int, expected: str
) -> None:
    client = create_app(Settings(max_age=seconds), store=store).test_client()
    client.post("/messages", json={"message": "foo"})
    for form in ("", ".txt"):
        for condition in ({}, {"If-None-Match": f'"{FOO}{form}"'}):
            answer = client.get(f"/messages/{FOO}{form}", headers=condition)
            assert answer.headers["Cache-Control"] == expected

"""Who may write, and that reading stays open."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.memory import MemoryDriver

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


@pytest.fixture
def app(store: Driver) -> Flask:
    """A service with two write tokens."""
    return create_app(Settings(write_tokens="first-token, second-token"), store=store)


def post(client: FlaskClient, authorization: str | None) -> tuple[int, str | None]:
    """The status of storing foo, and what the answer asks for."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.post("/messages", json={"message": "foo"}, headers=headers)
    return answer.status_code, answer.headers.get("WWW-Authenticate")


@pytest.mark.parametrize("token", ["first-token", "second-token"])
def test_each_token_lets_one_write(client: FlaskClient, token: str) -> None:
    assert post(client, f"Bearer {token}") == (201, None)
    assert post(client, f"bearer {token}") == (200, None)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic Zm9vOmJhcg==", "Basic \xff", "\xff", "first-token", "Bearer", "Bearer  "],
)
def test_without_a_token_one_is_asked_for(client: FlaskClient, authorization: str | None) -> None:
    assert post(client, authorization) == (401, 'Bearer realm="hasher"')


@pytest.mark.parametrize(
    "token", ["third-token", "first-toke", "first-token2", "FIRST-TOKEN", "\xff", "first-token, x"]
)
def test_a_wrong_token_is_refused(client: FlaskClient, token: str) -> None:
    challenge = 'Bearer realm="hasher", error="invalid_token"'
    assert post(client, f"Bearer {token}") == (401, challenge)


def test_a_refused_write_stores_nothing(client: FlaskClient) -> None:
    post(client, "Bearer wrong")
    assert client.get(f"/messages/{FOO}").status_code == 404


def test_the_answer_is_an_error_like_any_other(client: FlaskClient, closes: list[bool]) -> None:
    answer = client.post("/messages", data="x" * 100)
    assert answer.json == {
        "error": "Storing a message needs a token: send it as Authorization: Bearer <token>."
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert closes == [True]


def test_reading_needs_no_token(client: FlaskClient) -> None:
    post(client, "Bearer first-token")
    for path in (f"/messages/{FOO}", f"/messages/{FOO}.txt", "/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert client.options("/messages").status_code == 204


def test_without_write_tokens_everybody_may_write() -> None:
    client = create_app(Settings(), store=MemoryDriver(limit=10_000)).test_client()
    assert post(client, None) == (201, None)
    assert post(client, "Bearer any") == (200, None)


HOST = {"Host": "hasher.example:8000"}


def post_from(client: FlaskClient, **headers: str) -> int:
    """The status of a POST that a page can make a browser send without asking first."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post("/messages", data="foo", content_type="text/plain", headers=HOST | named)
    return answer.status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "\xff"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://hasher.example:8000"},
        {"Origin": "http://other.example:8000"},
        {"Origin": "http://hasher.example"},
        {"Origin": "http://hasher.example:8001"},
        {"Origin": "http://sub.hasher.example:8000"},
        {"Origin": "http://hasher.example:8000.other.example"},
        {"Origin": "null"},
        {"Origin": "hasher.example:8000"},
        {"Origin": "null", "Host": ""},
        {"Origin": "http://", "Host": "a"},
        {"Origin": "\xff"},
    ],
)
def test_a_page_of_another_origin_may_not_write(headers: dict[str, str]) -> None:
    store = MemoryDriver(limit=10_000)
    client = create_app(Settings(), store=store).test_client()
    assert post_from(client, **headers) == 403
    assert store.count() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "null"},
        {"Origin": "http://hasher.example:8000"},
        {"Origin": "https://hasher.example:8000"},
        {"Origin": "https://[2001:db8::1]", "Host": "[2001:db8::1]"},
    ],
)
def test_the_service_s_own_page_and_who_has_no_browser_may_write(headers: dict[str, str]) -> None:
    client = create_app(Settings(), store=MemoryDriver(limit=10_000)).test_client()
    assert post_from(client, **headers) == 201


def test_another_origin_may_not_write_even_with_a_token(client: FlaskClient) -> None:
    token = {"Authorization": "Bearer first-token"}
    assert post_from(client, Sec_Fetch_Site="cross-site", **token) == 403
    assert post_from(client, Origin="http://other.example", **token) == 403
    assert post_from(client, Origin="http://hasher.example:8000", **token) == 201

"""Who may write, and that reading stays open."""

import pytest
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores.memory import MemoryDriver

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


@pytest.fixture
def client() -> FlaskClient:
    """A client of a service with two write tokens."""
    settings = Settings(write_tokens="first-token, second-token")
    return create_app(settings, store=MemoryDriver(limit=10_000)).test_client()


def post(client: FlaskClient, authorization: str | None) -> tuple[int, str | None]:
    """The status of storing foo, and what the answer asks for."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.post("/messages", json={"message": "foo"}, headers=headers)
    return answer.status_code, answer.headers.get("WWW-Authenticate")


@pytest.mark.parametrize("token", ["first-token", "second-token"])
def test_each_token_lets_one_write(client: FlaskClient, token: str) -> None:
    assert post(client, f"Bearer {token}") == (201, None)
    assert post(client, f"bearer {token}") == (200, None)


@pytest.mark.parametrize("authorization", [None, "", "Basic Zm9vOmJhcg==", "first-token", "Bearer"])
def test_without_a_token_one_is_asked_for(client: FlaskClient, authorization: str | None) -> None:
    assert post(client, authorization) == (401, 'Bearer realm="hasher"')


@pytest.mark.parametrize(
    "token", ["third-token", "first-toke", "first-token2", "FIRST-TOKEN", "ü", "first-token, x"]
)
def test_a_wrong_token_is_refused(client: FlaskClient, token: str) -> None:
    challenge = 'Bearer realm="hasher", error="invalid_token"'
    assert post(client, f"Bearer {token}") == (401, challenge)


def test_a_refused_write_stores_nothing(client: FlaskClient) -> None:
    post(client, "Bearer wrong")
    assert client.get(f"/messages/{FOO}").status_code == 404


def test_the_answer_is_an_error_like_any_other(client: FlaskClient) -> None:
    answer = client.post("/messages", data="x" * 100)
    assert answer.json == {
        "error": "Storing a message needs a token: send it as Authorization: Bearer <token>."
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Connection"] == "close"


def test_reading_needs_no_token(client: FlaskClient) -> None:
    post(client, "Bearer first-token")
    for path in (f"/messages/{FOO}", f"/messages/{FOO}.txt", "/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert client.options("/messages").status_code == 204


def test_without_write_tokens_everybody_may_write() -> None:
    client = create_app(Settings(), store=MemoryDriver(limit=10_000)).test_client()
    assert post(client, None) == (201, None)
    assert post(client, "Bearer any") == (200, None)


def test_a_page_of_another_site_may_not_write_even_with_a_token(client: FlaskClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer first-token"}
    answer = client.post("/messages", data="foo", content_type="text/plain", headers=headers)
    assert answer.status_code == 403

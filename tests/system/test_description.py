"""The description against the service, by schemathesis; and tests of the check of every answer."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.description import Answers, item_of, take_request
from tests.support.front import THROUGH_NGINX
from tests.support.load import Load
from tests.support.servers import until
from tests.support.service import BIN, DESCRIBED, ROOT, Service

NAME = "0" * 64
SCHEMATHESIS = [
    *("--checks", "all"),
    *("--max-examples", "20"),  # for each operation, in each phase
    "--generation-deterministic",  # the same requests in every run
    *("--suppress-health-check", "all"),  # which are about the speed of the machine
    *("--request-timeout", "60"),
    "--no-color",
]


@pytest.mark.timeout(300)  # it takes about ten seconds of a core
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    description = service.request("GET", "/openapi.json")
    file = tmp_path / "openapi.json"  # read from its address, that address would not be tested
    file.write_bytes(description.body)
    url = f"http://127.0.0.1:{service.port}/"
    ended = subprocess.run(
        [str(BIN / "schemathesis"), "run", str(file), "--url", url, *SCHEMATHESIS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.support.ndjson"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    items = description.json["paths"].values()
    operations = sum("responses" in part for item in items for part in item.values())
    assert f"Tested: {operations}\n" in ended.stdout
    assert "No issues found" in ended.stdout
    assert "arning" not in ended.stdout
    service.assert_well()
    assert "Traceback" not in service.log


SEALED = {"X-Content-Type-Options": "nosniff", "X-Request-ID": "mine-1"}
ERROR = {**SEALED, "Content-Type": "application/json", "Cache-Control": "no-store"}
ANY_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Repr-Digest, X-Request-ID",
}
UNREAD = {**ERROR, **ANY_ORIGIN}
MISSING = b'{"error":"Message not found."}\n'
READ = ("GET", f"/messages/{NAME}")
STORE = ("POST", "/messages")
MANY = {**SEALED, "Content-Type": "application/x-ndjson"}
STORED = f'{{"digest":"{NAME}"}}\n'.encode()
CHALLENGED = {**ERROR, "WWW-Authenticate": 'Bearer realm="hasher"'}


def without(headers: dict[str, str], name: str) -> dict[str, str]:
    """The headers but one."""
    return {key: value for key, value in headers.items() if key != name}


def test_an_answer_as_described_is_accepted() -> None:
    for answers in (DESCRIBED, THROUGH_NGINX):
        answers.check(READ, 404, UNREAD, MISSING)
        answers.check(("HEAD", READ[1]), 404, UNREAD, None)
        answers.check(("DELETE", READ[1]), 405, {**ERROR, "Allow": "GET"}, b'{"error":"x"}')
        answers.check(("GET", "/nowhere"), 404, ERROR, b'{"error":"x"}')
        answers.check(STORE, 401, CHALLENGED, b'{"error":"x"}')
        answers.check(None, 400, ERROR, b'{"error":"x"}')
    DESCRIBED.check(STORE, 200, MANY, STORED * 2)


@pytest.mark.parametrize(
    ("request_line", "status", "headers", "body"),
    [
        (READ, 410, UNREAD, MISSING),
        (STORE, 410, UNREAD, b'{"error":"x"}'),
        (READ, 405, {**UNREAD, "Allow": "GET"}, MISSING),
        (READ, 404, UNREAD, b'{"error":"Nothing here."}'),
        (READ, 404, UNREAD, b"{}"),
        (READ, 404, {**UNREAD, "Content-Type": "text/html"}, MISSING),
        (READ, 404, {**UNREAD, "Cache-Control": "public"}, MISSING),
        (READ, 404, {**UNREAD, "Set-Cookie": "a=b"}, MISSING),
        (READ, 404, {**SEALED, **ANY_ORIGIN}, b""),
        (READ, 404, without(UNREAD, "X-Request-ID"), MISSING),
        (READ, 404, without(UNREAD, "Access-Control-Allow-Origin"), MISSING),
        (STORE, 400, UNREAD, b'{"error":"x"}'),
        (READ, 404, {**UNREAD, "X-Request-ID": ""}, MISSING),
        (STORE, 200, MANY, b""),
        (STORE, 200, MANY, STORED[:-1]),
        (STORE, 200, MANY, STORED + b"{}\n"),
        (STORE, 201, MANY, STORED),
        (STORE, 401, ERROR, b'{"error":"x"}'),
        (READ, 503, {**UNREAD, "Retry-After": "0"}, b'{"error":"x"}'),
        (READ, 503, UNREAD, b'{"error":""}'),
        (("HEAD", READ[1]), 404, {**SEALED, **ANY_ORIGIN}, None),
        (("DELETE", READ[1]), 404, ERROR, MISSING),
        (("DELETE", READ[1]), 405, ERROR, b'{"error":"x"}'),
        (("GET", "/nowhere"), 200, ERROR, b"{}"),
        (None, 404, ERROR, MISSING),
    ],
)
def test_an_answer_that_is_not_as_described_is_a_failure(
    request_line: tuple[str, str] | None, status: int, headers: dict[str, str], body: bytes
) -> None:
    for answers in (DESCRIBED, THROUGH_NGINX):
        with pytest.raises(AssertionError):
            answers.check(request_line, status, headers, body)


CONDITION = b'{"error":"The request\'s condition does not hold."}'
BUSY = b'{"error":"No instance can answer now; try again in a moment."}'


def test_what_nginx_adds_is_accepted_from_nginx_only() -> None:
    for request_line, status, headers, body in (
        (READ, 404, {**UNREAD, "X-Cache": "MISS"}, MISSING),
        (("GET", "/docs"), 412, ERROR, CONDITION),
        (("GET", "/docs"), 503, {**ERROR, "Retry-After": "1"}, BUSY),
        (None, 503, {**ERROR, "Retry-After": "1"}, BUSY),
    ):
        THROUGH_NGINX.check(request_line, status, headers, body)
        with pytest.raises(AssertionError):
            DESCRIBED.check(request_line, status, headers, body)
    for status, headers, body in (
        (404, {**ERROR, "X-Cache": "miss"}, MISSING),
        (405, ERROR, b'{"error":"x"}'),
        (502, ERROR, BUSY),
        (503, ERROR, BUSY),
    ):
        with pytest.raises(AssertionError):
            THROUGH_NGINX.check(("GET", "/docs"), status, headers, body)


class Refusing(Answers):
    """Takes no answer."""

    def check(self, *_: object) -> None:
        raise AssertionError("nothing is as described")


def test_what_clients_under_load_are_answered_is_checked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "answers", Refusing())
    with (
        pytest.raises(AssertionError, match="nothing is as described"),
        Load(service, clients=2) as load,
    ):
        until(lambda: load.has_sent(10))
    assert set(load.outcomes) == {"undescribed"}


def test_a_target_is_understood_as_the_service_does(service: Service) -> None:
    for target in ("/", "/?a", "http://other", "/docs", "/d%6fcs#a", "/page/page.js"):
        assert item_of(target), target
    for target in (
        "/docs/",
        "/page/x",
        f"/messages/{NAME}0",
        f"/messages/{NAME}/",
        "//",
        "//docs",
        "/%2f",
        "*",
        "http://[",
    ):
        assert not item_of(target), target


def test_requests_are_found_in_what_was_sent() -> None:
    sent = bytearray(b"POST /messages HTTP/1.1\r\n\r\nfooGET /x?y HTTP/1.0\r\n\r\nfoo")
    assert take_request(sent) == ("POST", "/messages")
    assert take_request(sent) == ("GET", "/x?y")
    assert take_request(sent) is None
    assert take_request(bytearray(b"GET / HTTP/3.0\r\n\r\n")) is None

"""What a bare application's answers look like, by the fast lane and by gunicorn's parser."""

import re
from pathlib import Path

import pytest

from tests.leader_worker.server import HELLO, Server
from tests.support.servers import until

# The same request as the lane takes it, and as only gunicorn's parser does.
LANES = {"lane": "", "gunicorn": "X-Twice: a\r\nX-Twice: b\r\n"}


def request(path: str, *fields: str, body: bytes = b"", method: str = "GET") -> bytes:
    """Return a request, with how long its body is if it has one."""
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *length, *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture(params=LANES)
def fields(request: pytest.FixtureRequest) -> list[str]:
    """The fields that send a request one way or the other."""
    return [line for line in LANES[request.param].split("\r\n") if line]


def test_the_application_is_alone_on_its_path(server: Server) -> None:
    said = server.ask(request("/environment")).json
    assert said["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert not (server.log_file.parent / "hasher").exists()


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/", 200, b"hello"),
        ("/stream", 200, b"one two"),
        ("/no-length", 200, b"one two"),
        ("/too-long", 200, b"hello"),
        ("/written", 200, b"one two"),
        ("/no-content", 204, b""),
        ("/anew", 404, b"hello"),
    ],
)
def test_an_answer_is_whole_and_another_follows(
    server: Server, fields: list[str], path: str, status: int, content: bytes
) -> None:
    with server.connect() as client:
        for _ in range(2):
            client.send(request(path, *fields))
            answer = client.receive()
            assert (answer.status, answer.content) == (status, content)
            assert answer.headers["Connection"] == "keep-alive"


def test_a_head_has_the_fields_of_its_get_and_no_body(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        client.send(request("/", *fields, method="HEAD") + request("/", *fields))
        head, whole = client.receive("HEAD"), client.receive()
    own = {"Date": ""}
    assert {**head.headers, **own} == {**whole.headers, **own}
    assert whole.content == b"hello"


def test_a_list_has_a_length_and_a_stream_has_chunks(server: Server, fields: list[str]) -> None:
    assert server.ask(request("/no-length", *fields)).headers["Content-Length"] == "7"
    assert server.ask(request("/stream", *fields)).headers["Transfer-Encoding"] == "chunked"


def test_a_stream_to_http_1_0_ends_with_its_connection(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        received = client.rest()
    assert received.startswith(b"HTTP/1.0 200 OK\r\n")
    assert received.endswith(b"\r\n\r\none two")


def test_an_answer_that_is_too_short_ends_its_connection(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        client.send(request("/too-short", *fields) + HELLO)
        received = client.rest()
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"short")


@pytest.mark.parametrize(
    "path", ["/crash", "/silent", "/split", "/unencodable", "/leave", "/time-out"]
)
def test_what_the_application_fails_to_answer_is_a_500(
    server: Server, fields: list[str], path: str
) -> None:
    with server.connect() as client:
        client.send(request(path, *fields) + HELLO)
        received = client.rest()
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"The service failed to answer; its log says why.\n")
    assert b"own" not in received
    name = re.search(rb"X-Request-ID: (\w+)", received)
    assert name
    until(lambda: f"Request {name[1].decode()} could not be handled." in server.log)


def test_no_failure_costs_a_thread(server: Server) -> None:
    for path in ["/leave", "/crash", "/crash-late"] * 4:
        with server.connect() as client:
            client.send(request(path))
            assert client.rest()
    assert server.is_well()


def test_a_failure_in_the_midst_breaks_the_answer_off(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        client.send(request("/crash-late", *fields) + HELLO)
        received = client.rest()
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"\r\n\r\nhello")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    bodies = [str(number).encode() * number for number in range(1, 30)]
    sent = b"".join(
        request("/echo", *LANES[("lane", "gunicorn")[len(body) % 2]].split("\r\n")[:-1], body=body)
        for body in bodies
    )
    with server.connect() as client:
        client.send(sent)
        assert [client.content() for _ in bodies] == bodies


@pytest.mark.parametrize("size", [1, 1000, 100_000, 1024 * 1024, 3_000_000])
def test_a_body_comes_back_however_it_is_cut(server: Server, fields: list[str], size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sent = request("/echo", *fields, body=body, method="POST") + HELLO
    for part in (len(sent), 70_000, 1 + size // 3):
        with server.connect() as client:
            for start in range(0, len(sent), part):
                client.send(sent[start : start + part])
            assert client.content() == body
            assert client.content() == b"hello"


def test_head_and_body_in_two_packets_are_one_request(server: Server) -> None:
    head, body = request("/echo", "Content-Length: 3", method="POST"), b"foo"
    with server.connect() as client:
        for _ in range(3):
            client.send(head)
            until(server.is_well)  # which has a turn in between
            client.send(body)
            assert client.content() == body


def test_a_request_byte_by_byte_is_answered(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        for byte in request("/echo", *fields, body=b"foo"):
            client.send(bytes([byte]))
        assert client.content() == b"foo"


def test_chunks_are_read_and_the_next_request_is_found(server: Server) -> None:
    chunked = request("/echo", "Transfer-Encoding: chunked", method="POST")
    with server.connect() as client:
        client.send(chunked + b"3\r\nfoo\r\n4;a=b\r\n bar\r\n0\r\nX: y\r\n\r\n" + HELLO)
        assert client.content() == b"foo bar"
        assert client.content() == b"hello"


def test_expect_is_answered_first(server: Server) -> None:
    head = request("/echo", "Content-Length: 3", "Expect: 100-continue", method="POST")
    with server.connect() as client:
        client.send(head)
        assert client.stream.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"foo")
        assert client.content() == b"foo"


def test_early_hints_come_before_the_answer(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        client.send(request("/hints", *fields, "Connection: close"))
        received = client.rest()
    assert received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
    assert received.endswith(b"hello")


def test_a_body_that_is_left_unread_is_passed_over(server: Server, fields: list[str]) -> None:
    with server.connect() as client:
        client.send(request("/unread", *fields, body=HELLO * 3) + HELLO)
        assert client.content() == b"unread"
        assert client.content() == b"hello"


def test_chunks_that_are_left_unread_are_passed_over(server: Server) -> None:
    with server.connect() as client:
        client.send(request("/unread", "Transfer-Encoding: chunked"))
        client.send(b"3\r\nfoo\r\n0\r\n\r\n" + HELLO)
        assert client.content() == b"unread"
        assert client.content() == b"hello"


@pytest.mark.parametrize("path", ["/unread", "/swallow"])
def test_no_request_is_looked_for_behind_a_body_that_cannot_be_read(
    server: Server, path: str
) -> None:
    with server.connect() as client:
        client.send(request(path, "Transfer-Encoding: chunked") + b"zz\r\n" + HELLO)
        received = client.rest()
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_large_body_that_is_left_unread_ends_its_connection(server: Server) -> None:
    with server.connect() as client:
        client.send(request("/unread", body=b"x" * 3_000_000))
        received = client.rest()
    assert received.endswith(b"unread")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("sent", ["client", "application"])
def test_close_ends_the_connection(server: Server, fields: list[str], sent: str) -> None:
    last = (
        request("/", *fields, "Connection: close")
        if sent == "client"
        else request("/closes", *fields)
    )
    with server.connect() as client:
        client.send(last + HELLO * 100)
        received = client.rest()
    assert received.count(b"HTTP/1.1 200") == 1
    assert b"\r\nConnection: close\r\n" in received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 5000, 414),
        (request("/", "X: " + "a" * 9000), 431),
        (request("/", *["X: a"] * 200), 431),
        (request("/", "Content-Length: 3", "Content-Length: 3") + b"foo", 400),
        (request("/", "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (request("/", "Transfer-Encoding: br"), 501),
        (request("/", "Expect: cake"), 417),
    ],
)
def test_what_is_not_http_is_refused_at_once(server: Server, sent: bytes, status: int) -> None:
    with server.connect() as client:
        client.send(sent)
        answer = client.receive()
        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert answer.content.endswith(b".\n")
        assert client.is_closed()
    assert server.is_well()


def test_smuggled_requests_get_no_answer(server: Server) -> None:
    both = request("/echo", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST")
    for sent in (both + b"0\r\n\r\n" + HELLO, request("/", "Content-Length: +0") + HELLO):
        with server.connect() as client:
            client.send(sent)
            assert client.rest().count(b"HTTP/1.1 ") == 1


def test_both_ways_log_alike(tmp_path: Path) -> None:
    form = "%(h)s %(m)s %(U)s %(q)s %(s)s %(b)s %({x-a}i)s %({content-length}o)s"
    options = ("--access-logfile", "-", "--access-logformat", f"logged {form}")
    with Server(tmp_path, *options) as server:
        for fields in LANES.values():
            names = fields.split("\r\n")[:-1]
            server.ask(request("/echo?a=b", "X-A: c", *names, body=b"foo", method="POST"))
        until(lambda: server.log.count("logged ") == 2)
        assert re.findall("logged (.*)", server.log) == ["127.0.0.1 POST /echo a=b 200 3 c 3"] * 2


def test_without_keep_alive_each_answer_ends_its_connection(tmp_path: Path) -> None:
    with Server(tmp_path, "--keep-alive", "0") as server, server.connect() as client:
        client.send(HELLO)
        assert client.receive().headers["Connection"] == "close"
        assert client.is_closed()


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    with Server(tmp_path / "server", bind=f"unix:{tmp_path}/socket") as server:
        for fields in LANES.values():
            names = fields.split("\r\n")[:-1]
            answer = server.ask(request("/environment", *names).replace(b": a\r", b": b:81\r", 1))
            said = answer.json
            assert (said["SERVER_NAME"], said["SERVER_PORT"]) == ("b", "81")
            assert said["REMOTE_ADDR"] == ""


@pytest.mark.parametrize(
    "option", [["--limit-request-line", "100"], ["--strip-header-spaces"]], ids=["limit", "lax"]
)
def test_with_other_settings_gunicorn_decides(tmp_path: Path, option: list[str]) -> None:
    with Server(tmp_path, *option) as server:
        long = server.ask(request("/?" + "a" * 200)).status
        spaced = server.ask(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").status
    assert (long, spaced) == ((414, 400) if "100" in option else (200, 200))


def test_what_the_worker_cannot_do_is_refused_at_start(tmp_path: Path) -> None:
    server = Server(tmp_path, "--protocol", "uwsgi")
    try:
        assert server.process.wait(30) == 1
    finally:
        server.kill()
    assert "leader_worker speaks HTTP/1.1 only" in server.log

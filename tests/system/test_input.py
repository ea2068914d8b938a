"""Every input gets its outcome, and the next good request is answered within 3 s."""

import json
import socket
import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.service import Answer, Service

LIMIT = 1024 * 1024  # the default of HASHER_MAX_MESSAGE_BYTES
DEEP = 100_000
NAME = sha256(b"foo").hexdigest()
WELL_FORMED = b'{"message":"foo"}'

over_sockets = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def post(
    body: bytes, content_type: str | None = "application/json", *headers: str, length: bool = True
) -> bytes:
    """A raw POST of `body`."""
    lines = ["POST /messages HTTP/1.1", "Host: hasher", *headers]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, content_type: str = "text/plain") -> bytes:
    """A raw POST of a body in chunks, without the last, empty one."""
    head = post(b"", content_type, "Transfer-Encoding: chunked", length=False)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def get(path: str | bytes, method: str = "GET", *headers: str) -> bytes:
    """A raw request without a body."""
    path = path.encode() if isinstance(path, str) else path
    lines = ["Host: hasher", *headers, "", ""]
    return method.encode() + b" " + path + b" HTTP/1.1\r\n" + "\r\n".join(lines).encode()


END = b"0\r\n\r\n"
NOT_FOUND = "Message not found."

# what it is, what is sent, the status, and a part of the sentence
REFUSED: list[tuple[str, bytes, int, str]] = [
    ("empty JSON", post(b""), 400, "empty"),
    ("cut JSON", post(b'{"message":"fo'), 400, "not valid JSON"),
    ("trailing garbage", post(WELL_FORMED + b"x"), 400, "trailing"),
    ("two documents", post(WELL_FORMED * 2), 400, "trailing"),
    ("invalid UTF-8", post(b'{"message":"\xff"}'), 400, "UTF-8"),
    ("invalid UTF-8 in another key", post(b'{"message":"","x":"\xff"}'), 400, "UTF-8"),
    ("invalid UTF-8 text", post(b"\xc0\x80", "text/plain"), 400, "UTF-8"),
    ("a surrogate in UTF-8", post(b"\xed\xa0\x80", "text/plain"), 400, "UTF-8"),
    ("an overlong form", post(b'{"message":"\xe0\x80\x80"}'), 400, "UTF-8"),
    ("a root array", post(b'["foo"]'), 400, "JSON object"),
    ("a root string", post(b'"foo"'), 400, "JSON object"),
    ("a root null", post(b"null"), 400, "JSON object"),
    ("a missing key", post(b"{}"), 400, '"message"'),
    ("a message that is an integer", post(b'{"message":1}'), 400, "integer"),
    ("a message that is too large a number", post(b'{"message":1e999}'), 400, "number"),
    ("a message that is null", post(b'{"message":null}'), 400, "null"),
    ("a message that is an array", post(b'{"message":["a"]}'), 400, "array"),
    ("NaN", post(b'{"message":NaN}'), 400, "not valid JSON"),
    ("Infinity elsewhere", post(b'{"message":"","x":-Infinity}'), 400, "not valid JSON"),
    ("a lone high surrogate", post(rb'{"message":"\ud800"}'), 400, "surrogate"),
    ("a lone low surrogate", post(rb'{"message":"\udc00"}'), 400, "surrogate"),
    ("surrogates reversed", post(rb'{"message":"\udc00\ud800"}'), 400, "surrogate"),
    ("a BOM before JSON", post(b"\xef\xbb\xbf" + WELL_FORMED), 400, "not valid JSON"),
    ("deep arrays", post(b"[" * DEEP + b"]" * DEEP), 400, "JSON object"),
    ("deep arrays inside", post(b'{"x":' + b"[" * DEEP), 400, "too deep"),
    ("deep objects", post(b'{"x":' * DEEP), 400, "too deep"),
    ("a deep message", post(b'{"message":' + b"[" * DEEP), 400, "array"),
    ("no Content-Type", post(WELL_FORMED, None), 415, "application/json or text/plain"),
    ("a form", post(b"a=b", "application/x-www-form-urlencoded"), 415, "text/plain"),
    ("another charset", post(b"foo", "text/plain; charset=latin1"), 415, "UTF-8"),
    ("a charset behind a space", post(b"a", "text/plain; charset= latin1"), 415, "UTF-8"),
    ("a charset with one quote", post(b"a", 'text/plain; charset="latin1'), 415, "UTF-8"),
    ("gzip", post(b"\x1f\x8b", "text/plain", "Content-Encoding: gzip"), 415, "Content-Encoding"),
    ("deflate", post(b"x", "text/plain", "Content-Encoding: deflate"), 415, "Content-Encoding"),
    ("a wrong method", get("/messages", "GET"), 405, "POST"),
    ("a made-up method", get("/messages", "BREW"), 405, "POST"),
    ("a method on a message", get(f"/messages/{NAME}", "DELETE"), 405, "GET"),
    ("an unknown path", get("/nowhere"), 404, "POST /messages"),
    ("a trailing slash", get("/messages/"), 404, ""),
    ("two slashes", get(f"/messages//{NAME}"), 404, NOT_FOUND),
    ("two slashes at the start", get("//healthz"), 404, "POST /messages"),
    ("two slashes before a message", get(f"//messages/{NAME}"), 404, NOT_FOUND),
    ("an encoded slash at the start", get("/%2fhealthz"), 404, "POST /messages"),
    ("two slashes before a POST", post(b"a", "text/plain").replace(b" /", b" //", 1), 404, ""),
    ("another host's address", get("http://example.org/x"), 404, ""),
    ("63 characters", get(f"/messages/{NAME[:-1]}"), 404, NOT_FOUND),
    ("65 characters", get(f"/messages/{NAME}0"), 404, NOT_FOUND),
    ("upper case", get(f"/messages/{NAME.upper()}"), 404, NOT_FOUND),
    ("not hex", get(f"/messages/{'g' * 64}"), 404, NOT_FOUND),
    ("traversal", get(f"/messages/../messages/{NAME}"), 404, NOT_FOUND),
    ("encoded traversal", get("/messages/..%2f..%2fetc%2fpasswd"), 404, NOT_FOUND),
    ("an encoded newline", get(f"/messages/{NAME}%0a"), 404, NOT_FOUND),
    ("an encoded space", get(f"/messages/%20{NAME}"), 404, NOT_FOUND),
    ("an encoded NUL", get(f"/messages/{NAME}%00"), 404, NOT_FOUND),
    ("other scripts' digits", get("/messages/" + "%D9%A0" * 64), 404, NOT_FOUND),
    ("invalid UTF-8 in a path", get("/messages/%ff%fe"), 404, NOT_FOUND),
    ("one byte over", post(b"a" * (LIMIT + 1), "text/plain"), 413, f"{LIMIT} bytes"),
    ("one byte over, in chunks", chunked(b"a" * (LIMIT + 1)) + END, 413, f"{LIMIT} bytes"),
    ("many chunks over", chunked(*[b"a" * 1000] * 2000) + END, 413, f"{LIMIT} bytes"),
    ("another site's page", post(b"", "text/plain", "Sec-Fetch-Site: cross-site"), 403, "site"),
    ("a page of the same site", post(b"", "text/plain", "Sec-Fetch-Site: same-site"), 403, "site"),
    ("another origin's page", post(b"", "text/plain", "Origin: http://other"), 403, "site"),
    ("a page of no origin", post(b"", "text/plain", "Origin: null"), 403, "site"),
    ("a bad chunk size", chunked() + b"zz\r\nfoo\r\n" + END, 400, "malformed"),
    ("a chunk without its end", chunked() + b"3\r\nfooo\r\n" + END, 400, "malformed"),
    ("a negative chunk", chunked() + b"-3\r\nfoo\r\n" + END, 400, "malformed"),
    ("both lengths", post(b"foo", "text/plain", "Transfer-Encoding: chunked"), 400, "HTTP"),
    ("a negative length", post(b"", None, "Content-Length: -1", length=False), 400, "HTTP"),
    ("a length of words", post(b"", None, "Content-Length: ten", length=False), 400, "HTTP"),
    ("two lengths", post(b"foo", "text/plain", "Content-Length: 3"), 400, "HTTP"),
    (
        "an absurd length",
        post(b"", "text/plain", f"Content-Length: {10**30}", length=False),
        413,
        "",
    ),
    ("an unknown coding", post(b"", None, "Transfer-Encoding: br", length=False), 501, "chunked"),
    (
        "gzip as a transfer coding",
        post(END, "text/plain", "Transfer-Encoding: gzip, chunked", length=False),
        501,
        "chunked",
    ),
    ("options of nothing", get("/nowhere", "OPTIONS"), 404, ""),
    ("options of no digest", get("/messages/x", "OPTIONS"), 404, NOT_FOUND),
    ("no HTTP", b"foo\r\n\r\n", 400, "HTTP"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "HTTP"),
    ("a bare newline", b"GET / HTTP/1.1\nHost: a\n\n", 400, "HTTP"),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\n\r\n", 400, "HTTP"),
    ("a long address", get("/" + "a" * 5000), 414, "too long"),
    ("another script name", get("/x", "GET", "SCRIPT_NAME: /zzz"), 404, ""),
    ("a long header", get("/", "GET", "X: " + "a" * 9000), 431, "headers"),
    ("many headers", get("/", "GET", *["X: a"] * 200), 431, "headers"),
    ("a header without a name", get("/", "GET", ": a"), 400, "HTTP"),
    ("two hosts", get("/", "GET", "Host: b"), 400, "HTTP"),
    ("another expectation", post(b"", "text/plain", "Expect: cake"), 417, "100-continue"),
]


@pytest.mark.parametrize(
    ("sent", "status", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_bad_input_is_refused_in_one_sentence(
    service: Service, sent: bytes, status: int, sentence: str
) -> None:
    answer = service.exchange(sent)
    assert answer is not None
    assert answer.status == status
    assert_is_an_error(answer)
    assert sentence in answer.json["error"]
    service.assert_well()


def assert_is_an_error(answer: Answer) -> None:
    """Fail unless the answer has the one shape of errors."""
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert list(answer.json) == ["error"]
    assert 0 < len(answer.json["error"]) <= 300
    assert answer.json["error"].endswith(".")
    assert "Error" not in answer.json["error"]
    assert ("Allow" in answer.headers) == (answer.status == 405)


TEXTS = [
    "",
    "foo",
    "\0",
    "".join(map(chr, range(0x20))) + "\x7f\x80\x9f",
    "line\r\nline\n\n",
    "  outer spaces \t",
    "e\u0301 is not \u00e9",
    "\ufeffin\ufeffside",
    "\u2028\u2029\ufffe\uffff\U0010ffff",
    "😀\U0001f468\u200d\U0001f469\u200d\U0001f467",
    '"\\/</script>',
    "\u202e\u0627\u0644",
    "a" * (LIMIT - 20),
]


@pytest.mark.parametrize("text", TEXTS, ids=[ascii(text)[:20] for text in TEXTS])
@pytest.mark.parametrize("escaped", [True, False])
def test_any_text_reads_back_unchanged(service: Service, text: str, *, escaped: bool) -> None:
    name = sha256(text.encode()).hexdigest()
    body = json.dumps({"message": text}, ensure_ascii=escaped).encode()
    for sent in (post(body), post(text.encode(), "text/plain")):
        answer = service.exchange(sent)
        assert answer is not None
        assert answer.status in {200, 201}
        assert answer.json == {"digest": name}
        assert service.get(name).json == {"message": text}
        assert service.get(f"{name}.txt").body == text.encode()


@over_sockets
@given(text=st.text())
def test_any_text_round_trips(service: Service, text: str) -> None:
    stored = service.post(text)
    assert stored.status in {200, 201}
    assert service.get(stored.json["digest"]).json == {"message": text}


@over_sockets
@given(
    body=st.binary(max_size=500),
    content_type=st.sampled_from(["application/json", "text/plain", "*/*", None]),
)
def test_no_body_is_a_server_error(service: Service, body: bytes, content_type: str | None) -> None:
    answer = service.exchange(post(body, content_type))
    assert answer is not None
    assert answer.status < 500


@over_sockets
@given(body=st.binary(max_size=200))
def test_no_chunked_stream_is_a_server_error(service: Service, body: bytes) -> None:
    answer = service.exchange(chunked() + body, end=True)
    assert answer is None or answer.status < 500


@over_sockets
@given(path=st.binary(max_size=100), method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]))
def test_no_path_is_a_server_error(service: Service, path: bytes, method: str) -> None:
    for prefix in (b"/", b"/messages/", b""):
        answer = service.exchange(get(prefix + path, method), method, end=True)
        assert answer is None or answer.status < 500


@over_sockets
@given(head=st.binary(max_size=200))
def test_no_bytes_at_all_are_a_server_error(service: Service, head: bytes) -> None:
    for sent in (head, get("/")[:-2] + head + b"\r\n\r\n"):
        answer = service.exchange(sent, end=True)
        assert answer is None or answer.status < 500


def test_the_service_is_well_after_all_that(service: Service) -> None:
    service.assert_well()
    assert "Traceback" not in service.log


HEADERS = [
    b"Authorization: ",
    b"Authorization: Basic ",
    b"Authorization: Bearer ",
    b"Cookie: ",
    b"If-None-Match: ",
    b"Origin: ",
    b"Sec-Fetch-Site: ",
    b"X-Request-ID: ",
    b"\xc3\xa9: ",
]


@pytest.mark.parametrize("header", HEADERS)
def test_no_byte_above_127_in_a_header_is_a_server_error(tmp_path: Path, header: bytes) -> None:
    with Service(tmp_path / "log", HASHER_WRITE_TOKENS="token") as service:
        for byte in range(128, 256):
            raw = header + bytes([byte]) + b"\r\nHost: "
            answers = [
                service.exchange(sent.replace(b"Host: ", raw, 1))
                for sent in (post(WELL_FORMED), get(f"/messages/{NAME}"))
            ]
            statuses = [answer.status if answer else None for answer in answers]
            assert statuses[0] in {400, 401, 403}
            assert statuses[1] in {400, 404}


@pytest.mark.parametrize("path", ["/messages", f"/messages/{NAME}"])
def test_options_says_what_is_allowed(service: Service, path: str) -> None:
    answer = service.exchange(get(path, "OPTIONS"))
    assert answer is not None
    assert (answer.status, answer.body) == (204, b"")
    assert "OPTIONS" in answer.headers["Allow"]


def test_head_is_get_without_its_body(service: Service) -> None:
    service.post("foo")
    with service.connect() as client:
        client.send(get(f"/messages/{NAME}", "HEAD") + get(f"/messages/{NAME}"))
        head, whole = client.receive("HEAD"), client.receive()
    assert head is not None
    assert whole is not None
    assert (head.status, head.body) == (200, b"")
    own = {"Date": "", "X-Request-ID": ""}
    assert {**head.headers, **own} == {**whole.headers, **own}


def test_extra_keys_are_ignored(service: Service) -> None:
    answer = service.exchange(post(b'{"x":[{}],"message":"foo","message2":1}'))
    assert answer is not None
    assert answer.json == {"digest": NAME}


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_a_body_up_to_the_limit_is_taken(service: Service, size: int) -> None:
    body = b"b" * size
    chunks = [body[start : start + 100_000] for start in range(0, size, 100_000)]
    for sent in (post(body, "text/plain"), chunked(*chunks) + END):
        answer = service.exchange(sent)
        assert answer is not None
        assert answer.json == {"digest": sha256(body).hexdigest()}


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
def test_100_mb_announced_are_refused_at_once(service: Service, expect: tuple[str, ...]) -> None:
    announced = f"Content-Length: {10**8}"
    with service.connect() as client:
        started = time.monotonic()
        client.send(post(b"", "text/plain", announced, *expect, length=False))
        answer = client.receive()
        assert time.monotonic() - started < 1
        assert answer is not None
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
        assert client.is_closed()
    service.assert_well()


@pytest.mark.parametrize(
    "sent",
    [
        post(b"foo", "text/plain", "Content-Length: 5", length=False),
        post(b"", "application/json", "Content-Length: 5", length=False),
        chunked(b"foo"),
        chunked(b"foo") + b"0\r\n",
        chunked() + b"5\r\nfoo",
    ],
)
def test_a_cut_body_is_not_a_message(service: Service, sent: bytes) -> None:
    answer = service.exchange(sent, end=True)
    assert answer is not None
    assert answer.status == 400
    assert_is_an_error(answer)
    service.assert_well()


def test_smuggling_never_gets_two_answers(service: Service) -> None:
    hidden = get(f"/messages/{NAME}")
    both = "Transfer-Encoding: chunked"
    with service.connect() as client:
        client.send(post(END + hidden, "text/plain", both))
        first, second = client.receive(), client.receive()
    assert first is not None
    assert (first.status, second) == (400, None)


@pytest.mark.parametrize(
    "sent",
    [
        post(b"x" * 1000, "application/zip"),
        post(b"x" * 1000, "text/plain", "Sec-Fetch-Site: cross-site"),
        post(b"x" * 1000, "text/plain").replace(b"/messages", b"/nowhere"),
        post(b"x" * (LIMIT + 1), "text/plain"),
    ],
)
def test_an_answer_before_the_body_was_read_closes_the_connection(
    service: Service, sent: bytes
) -> None:
    with service.connect() as client:
        client.send(sent)
        answer = client.receive()
        assert answer is not None
        assert answer.headers["Connection"] == "close"
        assert client.is_closed()


def test_http_1_0_is_answered(service: Service) -> None:
    service.post("foo")
    answer = service.exchange(get(f"/messages/{NAME}").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer is not None
    assert (answer.status, answer.json) == (200, {"message": "foo"})


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    bodies = [b"pipelined %d" % number for number in range(20)]
    names = [sha256(body).hexdigest() for body in bodies]
    requests = [
        post(body, "text/plain") + post(b"{", "application/json") + get(f"/messages/{name}.txt")
        for body, name in zip(bodies, names, strict=True)
    ]
    with service.connect() as client:
        client.send(b"".join(requests))
        for body, name in zip(bodies, names, strict=True):
            stored, refused, read = (client.receive() for _ in range(3))
            assert stored is not None
            assert stored.json == {"digest": name}
            assert refused is not None
            assert refused.status == 400
            assert read is not None
            assert read.body == body


def test_a_request_byte_by_byte_is_answered(service: Service) -> None:
    with service.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(b'{"message":"drip"}'):
            client.send(bytes([byte]))
        answer = client.receive()
    assert answer is not None
    assert answer.json == {"digest": sha256(b"drip").hexdigest()}

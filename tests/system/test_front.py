"""Loads and faults through the shipped nginx: a row of counts for each."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.front import Fleet, Front, await_hit, cached, refusals
from tests.support.late import SIZE, Undescribed, late_instance
from tests.support.load import KeptAlive, Load, Reads
from tests.support.servers import RedisServer, certificate, free_ports, program, until
from tests.support.service import BIN, ROOT, Client, Service

Record = Callable[[str, object], None]
NAME = "0" * 64
HEAD = (
    b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for this module's tests."""
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(folder, RedisServer(folder / "redis")) as running:
        yield running


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Fleet:
    """The fleet, whole again after what another test did to it."""
    shared_fleet.heal()
    return shared_fleet


def test_every_instance_is_given_requests(fleet: Fleet) -> None:
    def answered(instance: Service) -> int:
        lines = instance.request("GET", "/metrics").body.decode().splitlines()
        rows = [line for line in lines if line.startswith("hasher_requests_total")]
        return sum(int(float(row.split()[-1])) for row in rows if 'route="/messages"' in row)

    before = [answered(instance) for instance in fleet.instances]

    def are_all_given_more() -> bool:
        for number in range(30):
            fleet.front.post(f"spread {number} {time.time_ns()}")
        return all(answered(i) > b for i, b in zip(fleet.instances, before, strict=True))

    until(are_all_given_more)  # one that has failed in another test is left alone for a second


def test_a_stop_under_load_answers_what_is_in_flight(fleet: Fleet, record_property: Record) -> None:
    with Load(fleet.front, clients=4) as load:
        until(lambda: load.has_sent(50))
        started = time.monotonic()
        fleet.instances[0].signal(signal.SIGTERM)
        status = fleet.instances[0].process.wait(10)
        took = time.monotonic() - started
    record_property("front, SIGTERM", f"status {status} after {took:.1f} s; {load.said()}")
    assert (status, load.failures, load.lost()) == (0, {}, [])


def test_with_every_instance_down_cached_messages_are_served(
    fleet: Fleet, record_property: Record
) -> None:
    texts = cached(fleet)
    for instance in fleet.instances:
        instance.kill()
    with Reads(fleet.front, texts) as reads:
        until(lambda: reads.has_sent(200))
    record_property("front, every instance down, cached", reads.said())
    assert reads.failures == {}
    stored, read = fleet.front.post("new"), fleet.front.get(NAME)
    assert "Access-Control-Allow-Origin" not in stored.headers
    assert read.headers["Access-Control-Allow-Origin"] == "*"
    for answer in (stored, read):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json == {"error": "No instance can answer now; try again in a moment."}


def test_a_crowd_that_no_instance_answers_is_refused_in_time(
    fleet: Fleet, record_property: Record
) -> None:
    for instance in fleet.instances:
        os.killpg(instance.process.pid, signal.SIGSTOP)
    waits = refusals(fleet.front)
    record_property("front, crowd, instances stopped", f"slowest {max(waits):.2f} s")
    assert max(waits) < 2


def test_a_full_store_is_507_and_reads_go_on(fleet: Fleet) -> None:
    known = fleet.front.post("known").json["digest"]
    assert isinstance(fleet.store, RedisServer)
    with closing(fleet.store.client()) as redis:
        redis.config_set("maxmemory", "1")
        assert fleet.front.post(f"new {time.time_ns()}").status == 507
        assert fleet.front.post("known").status == 200
        assert fleet.front.get(known).json == {"message": "known"}
        redis.config_set("maxmemory", "0")
    fleet.front.assert_well()


def idle(client: Client) -> None:
    """Send nothing."""


def begin(client: Client) -> None:
    """Stall in the head."""
    client.send(b"GET / HTTP/1.1\r\nX: ")


def stall(client: Client) -> None:
    """Stall in the body."""
    client.send(HEAD + b"x")


SLOW = {"idle": idle, "head": begin, "body": stall, "drip": begin}


@pytest.mark.parametrize("kind", SLOW)
def test_200_slow_clients_delay_nobody(fleet: Fleet, kind: str, record_property: Record) -> None:
    clients = [fleet.front.connect() for _ in range(200)]
    for client in clients:
        SLOW[kind](client)
    texts = cached(fleet)
    with (
        dripping(clients if kind == "drip" else []),
        Load(fleet.front, clients=2) as load,
        Reads(fleet.front, texts, clients=1) as reads,
    ):
        until(lambda: load.has_sent(600))
    for client in clients:
        client.close()
    record_property(f"front, 200 slow clients, {kind}", load.said())
    assert (load.failures, reads.failures) == ({}, {})
    assert load.p99 < 0.5  # said to be at most 0.1 s, on a machine that does nothing else


class dripping:  # noqa: N801 - reads as what happens in its block
    """Sends a byte from each client, round after round, for as long as its block lasts."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.drip)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def drip(self) -> None:
        """Send until the block ends."""
        while not self.ended.wait(0.1):
            for client in self.clients:
                client.send(b"x")


def test_40_slow_readers_delay_nobody(fleet: Fleet, record_property: Record) -> None:
    name = fleet.front.post("x" * 1_000_000).json["digest"]
    with ExitStack() as stack, Load(fleet.front, clients=2) as load:
        for _ in range(40):
            client = stack.enter_context(fleet.front.connect())
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send(f"GET /messages/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 5)
        sent = load.sent
        until(lambda: load.has_sent(sent + 600))
    record_property("front, 40 slow readers", load.said())
    assert load.failures == {}
    assert load.p99 < 1  # said to be at most 0.5 s, on a machine that does nothing else


def test_a_client_that_pipelines_leaves_others_their_turn(fleet: Fleet, tmp_path: Path) -> None:
    one = {"worker_processes auto": "worker_processes 1"}
    with Front(tmp_path, fleet.ports, **one) as front, front.connect() as pipelining:
        name = front.post("foo").json["digest"]
        await_hit(front, f"/messages/{name}")
        read = f"GET /messages/{name} HTTP/1.1\r\nHost: a\r\nX-Request-ID: "
        os.killpg(front.process.pid, signal.SIGSTOP)  # so that all has arrived when it goes on
        pipelining.send(f"{read}one\r\n\r\n".encode() * 900)
        with front.connect() as other:
            other.send(f"{read}other\r\n\r\n".encode())
            os.killpg(front.process.pid, signal.SIGCONT)
            answers = [other.receive(), *(pipelining.receive() for _ in range(900))]
        assert [answer for answer in answers if answer is None or answer.status != 200] == []
        log = tmp_path / "access.log"
        until(lambda: log.read_text().count('"id":"one"') == 900)
        before, found, _ = log.read_text().partition('"id":"other"')
    assert found
    assert before.count('"id":"one"') < 100


def test_a_thousand_idle_connections_fail_nothing(fleet: Fleet, record_property: Record) -> None:
    with ExitStack() as stack, Load(fleet.front, clients=2) as load:
        for _ in range(1000):
            stack.enter_context(fleet.front.connect())
        sent = load.sent
        until(lambda: load.has_sent(sent + 100))
    record_property("front, 1,000 idle connections", load.said())
    assert (load.failures, load.lost()) == ({}, [])


def test_the_instances_metrics_are_not_for_outside(fleet: Fleet) -> None:
    for path in ("/metrics", "/%6detrics", "/x/../metrics", "//metrics", "/metrics?x", "/metrics/"):
        sent = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        answer = fleet.front.exchange(sent)
        assert answer is not None
        assert answer.status == 404
        assert answer.json["error"].startswith("There is nothing here")
    assert fleet.instances[0].request("GET", "/metrics").status == 200


def test_the_fronts_own_errors_are_json(fleet: Fleet) -> None:
    for sent, status in (
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (HEAD.replace(b"1000", b"2000000"), 413),
        (HEAD.replace(b"Content-Length: 1000", b"Transfer-Encoding: gzip"), 501),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
    ):
        answer = fleet.front.exchange(sent)
        assert answer is not None
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Request-ID"]
        assert set(answer.json) == {"error"}


LARGEST = 8190 - len(b"Cookie: \r\n")  # bytes of the largest cookie that gunicorn reads


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Cookie: " + b"x" * 9000, 431),
        (b"Cookie: " + b"x" * (LARGEST + 1), 431),
        (b"Cookie: " + b"x" * LARGEST, 200),
        (b"x" * 9000 + b": a", 431),
        (b"X: a\r\n" * 101 + b"Y: a", 431),
        (b"X: a\r\n" * 50 + b"Y: a", 200),
    ],
    ids=["9 kB", "just too large", "large", "a large name", "too many", "many"],
)
def test_headers_are_refused_as_an_instance_refuses_them(
    fleet: Fleet, fields: bytes, status: int
) -> None:
    for service in (fleet.instances[0], fleet.front):
        answer = service.exchange(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n")
        assert answer is not None
        assert answer.status == status
        assert status == 200 or answer.json == {"error": "The headers are too large."}


def test_the_front_says_which_methods_an_address_takes(fleet: Fleet) -> None:
    for path, methods in (("/messages", "OPTIONS, POST"), ("/", "GET, HEAD, OPTIONS")):
        answer = fleet.front.exchange(f"TRACE {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert answer is not None
        assert (answer.status, answer.headers["Allow"]) == (405, methods)


def test_a_condition_that_does_not_hold_is_json(fleet: Fleet) -> None:
    (text,) = cached(fleet, 1)
    path = f"/messages/{sha256(text.encode()).hexdigest()}"
    answer = fleet.front.request("GET", path, headers={"If-Match": '"other"'})
    assert (answer.status, answer.headers["Cache-Control"]) == (412, "no-store")
    assert set(answer.json) == {"error"}


def test_http_1_0_without_a_host_is_answered(fleet: Fleet) -> None:
    answer = fleet.front.exchange(b"GET /readyz HTTP/1.0\r\n\r\n")
    assert answer is not None
    assert answer.status == 200


def test_the_instances_see_the_host_that_the_client_asked(fleet: Fleet) -> None:
    """A page's origin is compared with it."""
    for origin, status in ((f"http://127.0.0.1:{fleet.front.port}", 201), ("http://a", 403)):
        headers = {"Content-Type": "text/plain", "Origin": origin}
        text = f"from {origin} at {time.time_ns()}".encode()
        assert fleet.front.request("POST", "/messages", text, headers).status == status


def test_a_body_at_the_limit_passes_the_front(fleet: Fleet) -> None:
    plain = {"Content-Type": "text/plain"}
    assert fleet.front.request("POST", "/messages", b"x" * 2**20, plain).status in {200, 201}
    assert fleet.front.request("POST", "/messages", b"x" * (2**20 + 1), plain).status == 413


def test_many_messages_pass_the_front(fleet: Fleet) -> None:
    count = 100_000
    body = b"".join(b'{"message":"many %0100d"}\n' % number for number in range(count))
    ndjson = {"Content-Type": "application/x-ndjson"}
    answer = fleet.front.request("POST", "/messages", body, ndjson)
    assert (answer.status, answer.body.count(b"\n")) == (200, count)
    assert fleet.front.request("POST", "/messages", body + b" " * 2**23, ndjson).status == 413
    assert fleet.front.request("POST", "/messages", body, {"Content-Type": "x/y"}).status == 413
    assert fleet.front.request("GET", "/bulk").json["error"].startswith("There is nothing here")


def test_an_error_is_not_cached(fleet: Fleet) -> None:
    text = f"stored later {time.time_ns()}"
    name = sha256(text.encode()).hexdigest()
    assert fleet.front.get(name).body == b'{"error":"Message not found."}\n'
    fleet.front.post(text)
    assert fleet.front.get(name).json == {"message": text}


def test_a_cached_answer_is_the_instances_but_for_its_id(fleet: Fleet) -> None:
    name = fleet.front.post("foo").json["digest"]
    path = f"/messages/{name}.txt"
    direct = fleet.instances[0].request("GET", path)
    first = fleet.front.request("GET", path)
    await_hit(fleet.front, path)
    again = fleet.front.request("GET", path)
    assert again.headers["X-Cache"] == "HIT"
    own = {"Server", "Date", "Connection", "X-Cache", "X-Request-ID"}
    for answer in (first, again):
        assert answer.body == direct.body
        assert kept(answer.headers, own) == kept(direct.headers, own)
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    for method in ("HEAD", "GET"):
        known = {"If-None-Match": direct.headers["ETag"], "Range": "bytes=0-0"}
        answer = fleet.front.request(method, path, headers=known)
        assert (answer.status, answer.headers["ETag"]) == (304, direct.headers["ETag"])
    assert fleet.front.request("GET", path, headers={"Range": "bytes=0-0"}).status == 200


def kept(headers: Mapping[str, str], without: set[str]) -> dict[str, str]:
    """Headers without some."""
    return {name: value for name, value in headers.items() if name not in without}


def purge(front: Front, *digests: str) -> subprocess.Popen[bytes]:
    """Start the documented command."""
    page = (ROOT / "docs" / "takedown.md").read_text()
    (command,) = re.findall(
        r"^# runuser -u www-data (deploy/purge.sh) [0-9a-f]{64}$", page, re.MULTILINE
    )
    here = {**os.environ, "CACHE": f"{front.folder}/cache"}
    return subprocess.Popen([command, *digests], cwd=ROOT, env=here)


def take_down(fleet: Fleet, *digests: str) -> None:
    """Take messages down in the store, and remove them from the front's cache."""
    store = {**os.environ, "HASHER_STORE": fleet.store.url}
    subprocess.run([BIN / "flask", "store", "remove", *digests], cwd=ROOT, env=store, check=True)
    assert purge(fleet.front, *digests).wait(60) == 0


def test_what_was_taken_down_leaves_the_cache_by_the_documented_command(fleet: Fleet) -> None:
    texts = cached(fleet, 2)
    gone, other = (sha256(text.encode()).hexdigest() for text in texts)
    paths = f"/messages/{gone}", f"/messages/{gone}.txt"
    await_hit(fleet.front, paths[1])
    await_hit(fleet.front, f"/messages/{other}")
    take_down(fleet, gone)
    for path in paths:
        answer = fleet.front.request("GET", path)
        assert answer.body == b'{"error":"This message was taken down."}\n'
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["X-Cache"] == "MISS"
    assert fleet.front.request("GET", f"/messages/{other}").headers["X-Cache"] == "HIT"
    assert fleet.front.post(texts[0]).status == 410
    for instance in fleet.instances:
        instance.kill()
    for path in paths:  # nothing is left that could be served instead
        assert fleet.front.request("GET", path).status == 503
    assert fleet.front.request("GET", f"/messages/{other}").status == 200


def test_kept_alive_clients_see_no_failure_of_a_purge_and_its_effect_when_it_returns(
    fleet: Fleet, record_property: Record
) -> None:
    digests = [sha256(text.encode()).hexdigest() for text in cached(fleet, 4)]
    with KeptAlive(fleet.front, digests) as readers:
        for count, digest in enumerate(digests[:3], 1):
            take_down(fleet, digest)
            assert {status for _, status in readers.seen} <= {200, 410}
            readers.reset()
            gone = {(name, 410) for name in digests[:count]}
            assert readers.seen == gone | {(name, 200) for name in digests[count:]}
    requests = sum(readers.rounds) * len(digests)
    record_property("front, 3 purges, kept-alive clients", f"{requests} sent, 0 failed")
    assert "[crit]" not in fleet.front.log


class AnyAnswer(Front):
    """A front before an instance whose answers nothing describes."""

    answers = Undescribed()


@pytest.mark.parametrize("late", ["head", "body"])
def test_an_answer_that_was_on_its_way_brings_nothing_back(tmp_path: Path, late: str) -> None:
    path = f"/messages/{NAME}"
    with late_instance() as instance, AnyAnswer(tmp_path, [instance.server_port] * 3) as front:
        with ThreadPoolExecutor() as pool:
            before = pool.submit(front.request, "GET", path)
            assert instance.asked.wait(10)
            if late == "body":
                instance.head.set()
                until(lambda: list(tmp_path.glob("cache/*/*/*.*")))
            purging = purge(front, NAME)
            time.sleep(0.3)  # it has removed what there was, and nginx waits for 0.8 s
            instance.head.set()
            if late == "head":
                instance.body.set()
            assert purging.wait(60) == 0
            instance.body.set()
            assert before.result().body == b"x" * SIZE
        assert front.request("GET", path).headers["X-Cache"] == "MISS"


def test_a_query_does_not_make_another_message(fleet: Fleet) -> None:
    (text,) = cached(fleet, 1)
    name = sha256(text.encode()).hexdigest()
    answer = fleet.front.request("GET", f"/messages/{name}?x=1")
    assert (answer.status, answer.headers["X-Cache"]) == (200, "HIT")


def test_an_address_that_nginx_would_resolve_is_no_message(fleet: Fleet) -> None:
    (text,) = cached(fleet, 1)
    name = sha256(text.encode()).hexdigest()
    for path in (f"/messages/x/../{name}", f"/messages//{name}", f"/messages/./{name}"):
        sent = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        answer = fleet.front.exchange(sent)
        assert answer is not None
        assert answer.status == 404


def test_a_request_id_is_followed_from_the_client_to_the_log(tmp_path: Path) -> None:
    with Fleet(tmp_path, RedisServer(tmp_path / "redis"), HASHER_ACCESS_LOG="json") as fleet:
        name = fleet.front.post("foo").json["digest"]
        given = fleet.front.request("GET", f"/messages/{name}", headers={"X-Request-ID": "mine-1"})
        odd = fleet.front.request("GET", f"/messages/{name}", headers={"X-Request-ID": "no good"})
        assert given.headers["X-Request-ID"] == "mine-1"
        assert re.fullmatch(r"\d+\.\d{3}-\d+-\d+", odd.headers["X-Request-ID"])
        written = fleet.folder / "access.log"
        until(lambda: '"id":"mine-1"' in written.read_text())
        assert any('"id":"mine-1"' in instance.log for instance in fleet.instances)


def test_a_client_over_its_rate_is_told_so(fleet: Fleet, tmp_path: Path) -> None:
    slower = {"rate=100r/s": "rate=10r/s"}  # which eight clients exceed on a busy machine too
    front = Front(tmp_path, fleet.ports, "limit", **slower)
    with front, Reads(front, ["none"], clients=8) as reads:
        until(lambda: reads.outcomes[429])
        until(lambda: reads.outcomes[404] > 100)
    assert set(reads.outcomes) == {404, 429}


def test_tls_and_http_2_can_be_switched_on(fleet: Fleet, tmp_path: Path) -> None:
    curl = program("curl", "curl")
    authority, key = certificate(tmp_path)
    (port,) = free_ports(1)
    changes = {
        "listen 8443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/certs/hasher.pem": str(authority),
        "/etc/ssl/private/hasher.key": str(key),
    }
    site = f"https://localhost:{port}"
    asked = [curl, "-s", "--cacert", str(authority), "-w", "%{http_version} %{http_code}"]
    reading = [*asked, f"{site}/messages/{NAME}"]
    posting = [*asked, "-H", f"Origin: {site}", "-H", "Content-Type: text/plain", "-d", "foo"]
    with Front(tmp_path, fleet.ports, "tls", **changes):
        read = subprocess.run(reading, check=True, capture_output=True, text=True)
        posted = subprocess.run([*posting, f"{site}/messages"], check=True, capture_output=True)
    assert read.stdout == '{"error":"Message not found."}\n2 404'
    assert posted.stdout.endswith((b"2 200", b"2 201"))

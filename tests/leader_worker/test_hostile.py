"""A few clients that are as bad as they can be, and others that are answered beside them."""

import re
import resource
import signal
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.leader_worker.server import HELLO, Client, Server
from tests.leader_worker.test_answers import request
from tests.leader_worker.test_faults import CHUNKS, HEAD, clients, processor_time
from tests.support.servers import until

SMALL = b"1\r\nx\r\n"  # the smallest chunk


@pytest.mark.parametrize("size", ["7fffffffffffffff", "ffffffffffffffff", "f" * 40])
def test_no_size_of_a_chunk_is_a_server_error(server: Server, size: str) -> None:
    with server.connect() as client:
        client.send(CHUNKS + size.encode() + b"\r\nx")
        client.socket.shutdown(socket.SHUT_WR)
        assert b" 500 " not in client.rest()
    assert server.is_well()


def test_a_list_with_close_in_it_ends_the_connection(server: Server) -> None:
    with server.connect() as client:
        client.send(request("/", "Connection: TE, close", "TE: trailers") + HELLO)
        assert client.rest().count(b"HTTP/1.1 200") == 1


def test_a_body_is_asked_for_when_it_is_read_and_not_before(server: Server) -> None:
    for path, asked in (("/echo", 1), ("/unread", 0)):
        with server.connect() as client:
            client.send(request(path, "Content-Length: 3", "Expect: 100-continue", method="POST"))
            if asked:
                assert client.stream.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.send(b"foo")
                assert client.content() == b"foo"
            else:
                assert client.rest().startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_repeats_costly_chunks_leaves_others_their_turn(server: Server) -> None:
    body = request("/echo", "Transfer-Encoding: chunked", method="POST") + SMALL * 10_000
    with clients(server, 20, (body + b"0\r\n\r\n") * 3):
        for _ in range(20):
            assert server.is_well()


def test_chunks_that_are_not_whole_cost_nothing_while_they_wait(tmp_path: Path) -> None:
    with Server(tmp_path, "--threads", "8") as server:
        with clients(server, 40, CHUNKS + SMALL * 10_000):
            assert server.is_well()
            (worker,) = server.workers()
            until(lambda: is_idle(worker))
        assert server.is_well()


def test_a_body_of_which_a_part_is_read_is_not_kept(tmp_path: Path) -> None:
    sent = request("/part", "Transfer-Encoding: chunked") + b"16e360\r\n" + b"x" * 1_200_000
    with Server(tmp_path, "--threads", "2") as server:
        assert server.is_well()
        (worker,) = server.workers()
        before = memory(worker)
        for _ in range(100):
            assert len(server.ask(sent).content) == 1_000_000
        assert memory(worker) - before < 40_000_000


def memory(worker: int) -> int:
    """Return how many bytes of memory a process has."""
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def is_idle(worker: int) -> bool:
    """Return whether a worker has next to nothing to do for a while."""
    before = processor_time(worker)
    time.sleep(1.5)  # in which all connections are looked at again
    return processor_time(worker) - before < 0.1


def test_clients_that_take_no_answer_hold_no_thread(tmp_path: Path) -> None:
    with (
        Server(tmp_path, "--threads", "2") as server,
        clients(server, 60, request("/large?6000000") * 5),
    ):
        for _ in range(20):
            assert server.is_well()
        until(lambda: "others needed the room that it held." in server.log)


def test_an_answer_that_is_taken_slowly_arrives_whole(server: Server) -> None:
    with server.connect() as client:
        client.send(request("/large?6000000") * 2 + HELLO)
        assert server.is_well()
        assert [len(client.content()) for _ in range(3)] == [6_000_000, 6_000_000, 5]


def test_who_leaves_the_queue_gives_its_place_up(tmp_path: Path) -> None:
    """As it would not if each that has left had to be read first."""
    with Server(tmp_path, "--threads", "2") as server, clients(server, 1, CHUNKS) as slow:
        with clients(server, 50, CHUNKS):
            assert server.is_well()
        with server.connect() as client:
            client.send(CHUNKS + b"0\r\n\r\n")
            assert server.is_well()
            slow[0].send(b"0\r\n\r\n")
            assert (slow[0].content(), client.content()) == (b"", b"")


def test_many_that_are_cut_at_once_are_one_line(tmp_path: Path) -> None:
    with Server(tmp_path, "--threads", "2") as server:
        with clients(server, 50, HEAD) as stalled:
            assert all(client.is_closed() for client in stalled)
        until(lambda: sum(map(int, re.findall(r"Cut (\d+) clients", server.log))) >= 48)
        assert server.log.count("Cut") <= 4


def test_a_stop_at_the_most_connections_resets_none_that_is_queued(tmp_path: Path) -> None:
    options = ("--threads", "2", "--worker-connections", "2")
    with Server(tmp_path, *options) as server, ExitStack() as stack:
        busy = stack.enter_context(clients(server, 2, request("/wait?2")))
        queued = stack.enter_context(clients(server, 20, HELLO))
        server.signal(signal.SIGTERM)
        assert [client.content() for client in busy] == [b"waited"] * 2
        assert [client.content() for client in queued] == [b"hello"] * 20


def test_a_peer_whose_address_is_not_utf_8_is_served(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(tmp_path / "server", bind=f"unix:{folder}/socket"),
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.bind(b"\0" + folder.encode() + b"\xff")
        peer.connect(f"{folder}/socket")
        for fields in ("", "X: a\r\nX: b\r\n"):
            peer.sendall(HELLO.replace(b"\r\n\r\n", b"\r\n" + fields.encode() + b"\r\n"))
            assert peer.recv(1000).startswith(b"HTTP/1.1 200 OK")
        with Client(f"{folder}/socket") as other:
            other.send(HELLO)
            assert other.content() == b"hello"

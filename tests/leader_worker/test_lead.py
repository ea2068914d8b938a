"""Who leads, and when the lead passes on."""

import socket
import threading
from collections.abc import Iterator

import pytest

from leader_worker.lead import Lead
from leader_worker.sockets import LeadersSocket
from tests.support.servers import until


@pytest.fixture
def handed_over() -> list[str]:
    """The names of the threads that have handed the lead over."""
    return []


@pytest.fixture
def lead(handed_over: list[str]) -> Lead:
    """A lead that nobody has."""
    return Lead(lambda: handed_over.append(threading.current_thread().name))


@pytest.fixture
def pair(lead: Lead) -> Iterator[tuple[LeadersSocket, socket.socket]]:
    """A connection: its end here, and its client's."""
    ours, theirs = socket.socketpair()
    wrapped = LeadersSocket(fileno=ours.detach())
    wrapped.settimeout(0)
    wrapped.hand_over = lead.hand_over
    with wrapped, theirs:
        yield wrapped, theirs


def follower(lead: Lead) -> threading.Thread:
    """A thread that waits for the lead, and ends with it."""
    thread = threading.Thread(target=lead.take, name="follower")
    thread.start()
    return thread


def test_one_thread_leads_until_it_hands_over(lead: Lead, handed_over: list[str]) -> None:
    lead.take()
    lead.take()  # which it does already
    other = follower(lead)
    other.join(0.05)
    assert other.is_alive()
    lead.hand_over()
    other.join()
    assert handed_over == ["MainThread"]


def test_who_does_not_lead_hands_nothing_over(lead: Lead, handed_over: list[str]) -> None:
    lead.hand_over()
    follower(lead).join()
    lead.hand_over()
    assert handed_over == []


def test_a_leader_takes_what_is_there_and_keeps_the_lead(
    lead: Lead, pair: tuple[LeadersSocket, socket.socket], handed_over: list[str]
) -> None:
    lead.take()
    ours, theirs = pair
    theirs.sendall(b"foo")
    assert ours.recv(10) == b"foo"
    ours.sendall(b"bar")
    assert theirs.recv(10) == b"bar"
    theirs.close()
    assert ours.recv(10) == b""
    assert handed_over == []


def test_a_leader_that_waits_for_its_client_hands_over(
    lead: Lead, pair: tuple[LeadersSocket, socket.socket], handed_over: list[str]
) -> None:
    ours, theirs = pair
    received: list[bytes] = []

    def read() -> None:
        lead.take()
        received.append(ours.recv(10))

    reader = threading.Thread(target=read, name="reader")
    reader.start()
    until(lambda: handed_over == ["reader"])
    follower(lead).join()
    theirs.sendall(b"late")
    reader.join()
    assert received == [b"late"]


def test_a_leader_whose_client_takes_nothing_hands_over_and_all_arrives(
    lead: Lead, pair: tuple[LeadersSocket, socket.socket], handed_over: list[str]
) -> None:
    ours, theirs = pair
    sent = bytes(range(256)) * 40_000

    def write() -> None:
        lead.take()
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    until(lambda: handed_over == ["writer"])
    follower(lead).join()
    with theirs.makefile("rb") as stream:
        assert stream.read() == sent
    writer.join()

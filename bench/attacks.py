"""The kinds of attack, each from a fault that was found, or that another server had."""

import random
from collections.abc import Callable

from bench.attackers import (
    SILENCE,
    Answer,
    Attack,
    HalfClose,
    Leave,
    Part,
    Pause,
    Send,
    Steps,
    Target,
)

HEAD = b"POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"
LAST = b"0\r\n\r\n"
MILLION = CHUNKED + CHUNK * 1_000_000 + LAST
SOME = 64 * 1024 // len(CHUNK)  # chunks in 64 KiB
SIZES = (b"7fffffffffffffff", b"ffffffffffffffff", b"f" * 40)


def sized(length: int | str) -> bytes:
    """Return the head of a text of so many bytes."""
    return HEAD + f"Content-Length: {length}\r\n\r\n".encode()


COSTLY = sized(1024 * 1024) + b"x" * 1024 * 1024


def million(_target: Target) -> Steps:
    """Post a body of a million chunks, again and again."""
    while True:
        yield Send(MILLION)
        yield Answer()


def zeros(_target: Target) -> Steps:
    """Announce a length with zeros before it, and drip the body."""
    while True:
        yield Send(sized("0" * 22 + "100"))
        for _ in range(100):
            yield Pause(0.2)
            yield Send(b"x")
        yield Answer()


def slow_chunks(_target: Target) -> Steps:
    """Send a small chunk now and then."""
    yield Send(CHUNKED)
    while True:
        yield Pause(0.3)
        yield Send(CHUNK)


def stale_chunks(_target: Target) -> Steps:
    """Send some small chunks, and then nothing."""
    yield Send(CHUNKED + CHUNK * SOME)
    yield SILENCE


def repeated(_target: Target) -> Steps:
    """Send a whole body of small chunks, again and again."""
    while True:
        yield Send(CHUNKED + CHUNK * SOME + LAST)
        yield Answer()


def taker(target: Target) -> Steps:
    """Ask for a large message many times, and take nothing; now and then see whether it is cut."""
    ask = f"GET {target.large} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    yield Send(ask * 100)
    while True:
        yield Pause(0.5)
        yield Send(ask)


def filler(_target: Target) -> Steps:
    """Send most of a body within two seconds, leave it so, and begin another.

    Each gets on all the time, and they are of all sizes: when the room is full, large ones suffer.
    """
    yield Pause(random.random())
    yield Send(sized(1_000_000))
    for _ in range(20):
        yield Send(b"x" * 46_500)
        yield Pause(0.1)
    yield Leave()


def huge_chunk(size: bytes, data: bytes) -> Callable[[Target], Steps]:
    """Return a client that announces a chunk of an absurd size, and sends this much of it."""

    def steps(_target: Target) -> Steps:
        yield Send(CHUNKED + size + b"\r\n" + data)
        yield HalfClose()
        yield Answer()
        yield Pause(0.1)

    return steps


def half_head(_target: Target) -> Steps:
    """Drip a head."""
    yield Send(HEAD + b"X-Long: ")
    yield from drip(1.0)


def half_body(_target: Target) -> Steps:
    """Drip a body."""
    yield Send(sized(1000) + b"some of it")
    yield from drip(1.0)


def drip(seconds: float) -> Steps:
    """Send a byte from time to time."""
    while True:
        yield Pause(seconds)
        yield Send(b"x")


def costly(_target: Target) -> Steps:
    """Post the largest message, again and again."""
    while True:
        yield Send(COSTLY)
        yield Answer()


def expecting(_target: Target) -> Steps:
    """Ask whether a body is wanted, and never send it."""
    fields = b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    yield Send(HEAD + fields)
    yield SILENCE


def silent(_target: Target) -> Steps:
    """Send nothing."""
    yield SILENCE


def answered(target: Target) -> Steps:
    """Send nothing after an answer."""
    yield Send(f"GET {target.small} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    yield Answer()
    yield SILENCE


def stuck(data: bytes) -> Callable[[Target], Steps]:
    """Return a client that sends this, and then nothing."""

    def steps(_target: Target) -> Steps:
        yield Send(data)
        yield SILENCE

    return steps


def old(target: Target) -> Steps:
    """Ask once, as clients of before HTTP/1.1 do."""
    yield Send(f"GET {target.small} HTTP/1.0\r\n\r\n".encode())
    yield Answer()


def long_head(_target: Target) -> Steps:
    """Send a head of 60 KB in small pieces, and leave."""
    yield Send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    for number in range(1200):
        if number % 150 == 0:
            yield Send(b"\r\nX-%d: " % number if number else b"X: ")
        yield Send(b"x" * 50)


HUGE = tuple(
    Part(2, huge_chunk(size, data)) for size in SIZES for data in (b"abc", b"x" * 1_100_000)
)
CUT = (HEAD[:40], sized(1000) + b"some", CHUNKED + CHUNK * 10)
IDLE = (silent, answered, *map(stuck, CUT))

ATTACKS = (
    Attack("nobody", ()),
    Attack("chunks", (Part(2, million),)),
    Attack("zeros-30", (Part(30, zeros),)),
    Attack("zeros-100", (Part(100, zeros),)),
    Attack("slow-chunks", (Part(7, slow_chunks),), quiet="before", most_cpu=0.05),
    Attack("stale-chunks", (Part(128, stale_chunks, returns=False),), "before", 0.05),
    Attack(
        "slow-and-stale",
        (Part(7, slow_chunks), Part(128, stale_chunks, returns=False)),
        quiet="before",
        most_cpu=0.05,
    ),
    Attack("repeat", (Part(60, repeated),)),
    Attack("takers", (Part(100, taker, reads=False),)),
    Attack("fillers-18", (Part(18, filler, patience=2.0), Part(7, slow_chunks))),
    Attack("fillers-48", (Part(48, filler, patience=2.0), Part(7, slow_chunks))),
    Attack("huge-chunk", HUGE, statuses=(400, 413)),
    Attack("half-sent", (Part(64, half_head), Part(64, half_body)), "before", 0.05),
    Attack("costly", (Part(30, costly),)),
    Attack("expect", (Part(60, expecting),), quiet="before", most_cpu=0.05),
    Attack(
        "idle",
        tuple(Part(200, steps, returns=False) for steps in IDLE),
        quiet="after",
        most_cpu=0.02,
    ),
    Attack("http-1.0", (Part(300, old),)),
    Attack("heads", (Part(30, long_head),)),
)

"""A `memory://` service that is filled keeps within its limit, and keeps what it took."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.service import Client, Service

MiB = 1024 * 1024


def resident(pid: int) -> int:
    """The memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def message(number: int, size: int) -> bytes:
    """One of many distinct messages."""
    return str(number).encode().ljust(size, b".")


def fill(client: Client, size: int) -> int:
    """Store distinct messages until one is refused with 507; how many were taken."""
    for number in range(10**6):
        head = f"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n"
        client.send(head.encode() + b"Content-Type: text/plain\r\n\r\n" + message(number, size))
        answer = client.receive()
        assert answer is not None
        if answer.status == 507:
            return number
        assert answer.status == 201
    raise AssertionError("The store never was full.")


@pytest.mark.parametrize(("size", "limit"), [(1000, 8 * MiB), (100_000, 64 * MiB)])
def test_a_full_store_stays_within_its_limit_and_drops_nothing(
    tmp_path: Path, size: int, limit: int, record_property: Callable[[str, object], None]
) -> None:
    with Service(tmp_path / "log", HASHER_MEMORY_LIMIT=str(limit)) as service:
        (worker,) = service.workers()
        before = resident(worker)
        with service.connect() as client:
            taken = fill(client, size)
            assert fill(client, size + 1) == 0
        grown = resident(worker) - before
        record_property(
            f"growth of a full worker, limit {limit / MiB:.0f} MiB", f"{grown / MiB:.1f} MiB"
        )
        assert 0.8 * limit < taken * size < limit
        assert grown < limit * 1.1 + 8 * MiB  # what answering requests needs
        for number in range(0, taken, 7):
            text = message(number, size)
            assert service.get(sha256(text).hexdigest()).json == {"message": text.decode()}
        assert service.post(message(0, size).decode()).status == 200
        assert service.workers() == [worker]

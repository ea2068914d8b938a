"""What stands in place of a message that an operator has taken down.

A tombstone is stored under the message's digest, as a message is: so a store that does one thing
after the other for each digest takes down and stores atomically, and needs no second place to look.
"""

from typing import Annotated, NamedTuple, TypeGuard

import msgspec

MARK = b"\xfftaken down"
"""How a tombstone begins. No message does: this is not UTF-8."""
LONGEST_REASON = 300  # characters, so that PostgreSQL keeps every tombstone within its row
LONGEST = 2000  # bytes of a tombstone


class Tombstone(NamedTuple):
    """Which message was taken down, when, in seconds since 1970 began, and why."""

    digest: str
    time: int
    reason: str


Time = Annotated[int, msgspec.Meta(ge=0, lt=2**37)]


class Details(msgspec.Struct):
    """What a tombstone says beside its mark."""

    time: Time = 0
    reason: str = ""


DETAILS = msgspec.json.Decoder(Details)


def is_tombstone(value: bytes | None) -> TypeGuard[bytes]:
    """Return whether what stands under a digest is a tombstone; None stands for nothing."""
    return value is not None and value.startswith(MARK)


def to_bytes(tombstone: Tombstone) -> bytes:
    """Return the tombstone as it is stored."""
    _, time, reason = tombstone
    return MARK + msgspec.json.encode(Details(time, one_line(reason)))


def from_bytes(digest: str, value: bytes) -> Tombstone:
    """Return the tombstone that is stored under `digest`, without what of it is damaged."""
    try:
        details = DETAILS.decode(value.removeprefix(MARK))
    except ValueError:
        details = Details()
    return Tombstone(digest, details.time, one_line(details.reason))


def one_line(reason: str) -> str:
    """Return `reason` as one line that is safe to print, cut at LONGEST_REASON characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in reason)
    return printable[:LONGEST_REASON].strip()

"""What stands in place of a message that was taken down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasher.stores.tombstone import (
    LONGEST,
    LONGEST_REASON,
    MARK,
    Tombstone,
    from_bytes,
    is_tombstone,
    to_bytes,
)

NAME = "0" * 64
TOMBSTONE = Tombstone(NAME, 1764047000, "a request by its author")


def test_what_is_written_is_read() -> None:
    assert is_tombstone(to_bytes(TOMBSTONE))
    assert from_bytes(NAME, to_bytes(TOMBSTONE)) == TOMBSTONE


@given(st.text(), st.integers(0, 2**37 - 1))
def test_any_reason_is_read_as_one_line(reason: str, time: int) -> None:
    value = to_bytes(Tombstone(NAME, time, reason))
    found = from_bytes(NAME, value)
    assert len(value) <= LONGEST
    assert found.time == time
    assert found.reason.isprintable()
    assert from_bytes(NAME, to_bytes(found)) == found


def test_a_reason_of_any_letters_fits() -> None:
    for letter in ("\N{PILE OF POO}", '"', "\\", "\0", "\udcff"):
        assert len(to_bytes(Tombstone(NAME, 2**37 - 1, letter * LONGEST_REASON))) <= LONGEST


@given(st.text())
def test_no_text_is_a_tombstone(text: str) -> None:
    assert not is_tombstone(text.encode(errors="replace"))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff",
        b'{"time":-1}',
        b'{"time":1e99}',
        b'{"reason":"\xff"}',
        b'{"reason":7}',
        b"7",
    ],
)
def test_of_a_damaged_tombstone_its_mark_is_enough(value: bytes) -> None:
    assert from_bytes(NAME, MARK + value) == Tombstone(NAME, 0, "")


def test_what_a_stored_reason_could_do_to_a_terminal_is_left_out() -> None:
    stored = MARK + b'{"reason":"\\u001b[2J\\na\\r\\u202eb"}'
    assert from_bytes(NAME, stored).reason == "[2J a  b"

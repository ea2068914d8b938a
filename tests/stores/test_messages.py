"""Messages over a driver: named by SHA-256, verified, mended, timed."""

import logging
from collections.abc import Iterator

import pytest

from hasher.stores import DamagedMessage, Driver, Outcome, Stored, StoreFull, TakenDown
from hasher.stores.memory import MemoryDriver
from hasher.stores.messages import (
    BATCH_MESSAGES,
    LARGE,
    Messages,
    batches,
    digest_of,
    verified,
)
from hasher.stores.tombstone import MARK, Tombstone

VECTORS = [  # FIPS 180-4 examples, NIST CSRC
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]
FOO = digest_of(b"foo")
TOMBSTONE = Tombstone(FOO, 1, "a test")


class Notes:
    """A caller that writes down what it is told."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str | None]] = []
        self.counts: list[Stored] = []
        self.waits = 0

    def before_wait(self) -> None:
        self.waits += 1

    def operated(self, name: str, seconds: float, error: Exception | None) -> None:
        assert seconds >= 0
        self.operations.append((name, type(error).__name__ if error else None))

    def stored(self, counts: Stored) -> None:
        self.counts.append(counts)


@pytest.fixture
def notes() -> Notes:
    """An observer."""
    return Notes()


@pytest.fixture
def driver() -> Driver:
    """An empty driver."""
    return MemoryDriver(limit=10 * LARGE)


@pytest.fixture
def messages(driver: Driver, notes: Notes) -> Messages:
    """The messages of that driver."""
    return Messages(driver, lambda: notes)


@pytest.mark.parametrize(("message", "digest"), VECTORS)
def test_the_published_vectors_hold(messages: Messages, message: bytes, digest: str) -> None:
    assert digest_of(message) == digest
    assert verified(message, digest) is message
    assert messages.put(message) == (digest, True)
    assert messages.put(message) == (digest, False)
    assert messages.get(digest) == message


def test_what_is_altered_is_never_returned(messages: Messages, driver: Driver) -> None:
    driver.put(FOO, b"bar")
    with pytest.raises(DamagedMessage) as raised:
        messages.get(FOO)
    assert raised.value.digest == FOO


def test_who_sends_a_damaged_message_again_mends_it(
    messages: Messages, driver: Driver, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    driver.put(FOO, b"bar")
    with caplog.at_level(logging.WARNING):
        assert messages.put(b"foo") == (FOO, False)
    assert messages.get(FOO) == b"foo"
    assert notes.counts == [Stored(mended=1)]
    assert FOO in caplog.text


def test_what_was_taken_down_is_neither_returned_nor_stored(
    messages: Messages, driver: Driver, notes: Notes
) -> None:
    messages.put(b"foo")
    assert messages.remove(TOMBSTONE) is Outcome.MENDED
    for call in (
        lambda: messages.get(FOO),
        lambda: messages.put(b"foo"),
        lambda: messages.put_many([b"bar", b"foo"]),
    ):
        with pytest.raises(TakenDown) as raised:
            call()
        assert raised.value.digest == FOO
    assert messages.removed_of([FOO, digest_of(b"bar")]) == [FOO]
    assert list(messages.removed()) == [TOMBSTONE]
    assert notes.counts == [Stored(new=1)]
    assert messages.restore(FOO)
    assert messages.get(FOO) is None


def test_the_first_that_was_taken_down_is_named_once_all_are_hashed(
    messages: Messages, driver: Driver, notes: Notes
) -> None:
    texts = [b"%d" % number for number in range(BATCH_MESSAGES + 10)]
    assert messages.allowed([]) == b""
    digests = messages.allowed(iter(texts))
    assert digests.hex() == "".join(digest_of(text) for text in texts)
    for text in (texts[-1], texts[-5]):
        driver.remove(digest_of(text), MARK)
    with pytest.raises(TakenDown, match=digest_of(texts[-5])):
        messages.allowed(iter(texts))

    def broken() -> Iterator[bytes]:
        yield from texts
        raise ValueError("cut")

    notes.operations.clear()
    with pytest.raises(ValueError, match="cut"):
        messages.allowed(broken())
    assert notes.operations == []


def test_a_tombstone_that_names_itself_is_a_message(messages: Messages) -> None:
    digest, _ = messages.put(MARK)
    assert messages.get(digest) == MARK


def test_many_are_named_in_their_order_and_stored_once(messages: Messages, notes: Notes) -> None:
    digests, new = messages.put_many([b"a", b"b", b"a", b"c"])
    assert digests == [digest_of(message) for message in (b"a", b"b", b"a", b"c")]
    assert new == 3
    assert notes.counts == [Stored(new=3, repeated=1)]


def test_many_mend_too(messages: Messages, driver: Driver, notes: Notes) -> None:
    driver.put(FOO, b"bar")
    assert messages.put_many([b"foo", b"new"])[1] == 1
    assert notes.counts == [Stored(new=1, mended=1)]
    assert messages.get(FOO) == b"foo"


def test_each_operation_is_told_once(messages: Messages, notes: Notes) -> None:
    messages.put(b"foo")
    messages.put_many([b"foo", b"bar"])
    messages.get(FOO)
    messages.check()
    assert [name for name, _ in notes.operations] == ["put", "put_many", "get", "check"]


def test_a_failed_operation_is_told_and_raised(notes: Notes) -> None:
    with pytest.raises(StoreFull):
        Messages(MemoryDriver(limit=0), lambda: notes).put(b"foo")
    assert notes.operations == [("put", "StoreFull")]
    assert notes.counts == []


class Blocking(MemoryDriver):
    """A driver that waits for a disk when it writes."""

    blocking = frozenset({"put"})


def test_others_go_on_before_what_takes_long(notes: Notes) -> None:
    messages = Messages(Blocking(limit=10 * LARGE), lambda: notes)
    messages.check()
    messages.get(FOO)
    assert notes.waits == 0
    messages.put(b"foo")
    messages.get(FOO)
    assert notes.waits == 1
    digest, _ = messages.put(bytes(LARGE + 1))
    assert notes.waits == 3
    messages.get(digest)
    assert notes.waits == 4


def test_without_a_caller_nobody_is_told() -> None:
    messages = Messages(Blocking(limit=10 * LARGE))
    assert messages.put(b"foo") == (FOO, True)
    assert messages.get(FOO) == b"foo"


def test_what_ends_the_messages_comes_after_those_before_it() -> None:
    def broken() -> Iterator[bytes]:
        yield from (b"a", b"b")
        raise ValueError("cut")

    found = batches(broken())
    assert next(found) == [b"a", b"b"]
    with pytest.raises(ValueError, match="cut"):
        next(found)

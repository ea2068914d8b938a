"""The contract of drivers, as checks that run on any store."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from threading import Barrier

from hasher.stores.driver import (
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    TakenDown,
    Unusable,
)
from hasher.stores.messages import digest_of
from hasher.stores.tombstone import Tombstone, to_bytes

NEW, REPEATED, MENDED = Outcome.NEW, Outcome.REPEATED, Outcome.MENDED
THREADS = 16
TRIES = 5  # of a check whose driver does not answer in time
MESSAGES = [b"", b"\0", b"a", "é😀\U0010ffff".encode(), b"\r\n " * 3, bytes(10**6)]

TOMBSTONE = to_bytes(Tombstone("", 1, "a test"))

Pair = tuple[str, bytes]


class Broken(Exception):
    """A driver does not do what the contract says. The text says what it did."""


def examine(location: Location) -> Iterator[tuple[str, str | None]]:
    """Run every check on a store, in an empty place beside its messages.

    Yield what must hold, with None if it holds, or with what happened instead.
    """
    for check in CHECKS:
        yield sentence_of(check), fault_of(check, location)


def sentence_of(check: "Check") -> str:
    """Return what must hold, as the name of the check says."""
    return check.__name__.replace("_", " ")


def fault_of(check: "Check", location: Location) -> str | None:
    """Return what is wrong, or None if the check holds."""
    errors: tuple[type[Exception], ...] = (Broken, StoreFull, TakenDown, Unusable)
    for patience in range(TRIES):
        try:
            with scratch(location) as (driver, place):
                errors += driver.errors
                driver.check()
                check(driver, place)
        except errors as error:
            # A driver may say that it cannot answer in time: on a busy machine it is asked again.
            if not isinstance(error, TimeoutError) or patience == TRIES - 1:
                return str(error) or "the store is full"
        else:
            return None
    return None


@contextmanager
def scratch(location: Location) -> Iterator[tuple[Driver, Location]]:
    """Open an empty place beside the messages of a store, and yield its driver and location."""
    with location.scratch() as place, closing(place.open(Resources(threads=THREADS))) as driver:
        yield driver, place


def expect(found: object, expected: object, of: str) -> None:
    """Raise Broken if `found` is not as expected."""
    if found != expected:
        raise Broken(f"{of} gave {found!r:.60}, not {expected!r:.60}")


def pair_of(message: bytes) -> Pair:
    """Return a message with its digest."""
    return digest_of(message), message


def numbered(count: int) -> list[Pair]:
    """Return `count` small messages with their digests."""
    return [pair_of(b"%d" % number) for number in range(count)]


def in_threads(work: Callable[[int], int]) -> int:
    """Call `work` with its number in each of THREADS threads; return the sum of the results."""
    barrier = Barrier(THREADS)

    def started(thread: int) -> int:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(started, range(THREADS)))


def what_was_put_is_got_unchanged(driver: Driver, _place: Location) -> None:
    """Messages from an empty one to a megabyte."""
    for digest, message in map(pair_of, MESSAGES):
        expect(driver.get(digest), None, "a get before the put")
        expect(driver.put(digest, message), NEW, "the first put")
        expect(driver.get(digest), message, "a get after the put")
    expect(driver.count(), len(MESSAGES), "count")


def a_repeated_put_says_so_and_changes_nothing(driver: Driver, _place: Location) -> None:
    """The same message three times."""
    digest, message = pair_of(b"foo")
    outcomes = [driver.put(digest, message) for _ in range(3)]
    expect(outcomes, [NEW, REPEATED, REPEATED], "three puts")
    expect(driver.get(digest), message, "get")
    expect(driver.count(), 1, "count")


def what_differs_is_mended(driver: Driver, _place: Location) -> None:
    """What stands under the digest is of the same length, empty, or longer."""
    digest, message = pair_of(b"foo")
    for other in (b"bar", b"", b"foo, too"):
        driver.put(digest, other)
        expect(driver.put(digest, message), MENDED, "a put over something else")
        expect(driver.put(digest, message), REPEATED, "a put after that")
        expect(driver.get(digest), message, "get")
    driver.put(digest, b"bar")
    expect(driver.put_many([(digest, message), pair_of(b"a")]), Stored(1, 0, 1), "put_many")


def one_of_many_puts_at_once_is_new(driver: Driver, _place: Location) -> None:
    """Each thread puts the same messages in the same order."""
    pairs = numbered(100)
    news = in_threads(lambda _: sum(driver.put(*pair) is NEW for pair in pairs))
    expect(news, len(pairs), "new puts")
    expect(driver.count(), len(pairs), "count")


def many_that_mend_at_once_leave_nothing_damaged(driver: Driver, _place: Location) -> None:
    """Each thread puts over the same damage."""
    pairs = numbered(20)
    driver.put_many([(digest, b"?") for digest, _ in pairs])
    news = in_threads(lambda _: sum(driver.put(*pair) is NEW for pair in pairs))
    expect(news, 0, "new puts")
    expect(dict(driver.items()), dict(pairs), "items")


def what_was_put_is_got_at_once_by_every_thread(driver: Driver, _place: Location) -> None:
    """Puts and gets that overlap."""
    pairs = numbered(500)

    def work(thread: int) -> int:
        news = 0
        for call in range(600):
            digest, message = pairs[(call * 7 + thread * 3) % len(pairs)]
            news += driver.put(digest, message) is NEW
            expect(driver.get(digest), message, "get")
        return news

    expect(in_threads(work), driver.count(), "new puts")


def many_at_once_say_what_they_came_to(driver: Driver, _place: Location) -> None:
    """One of the messages is stored already."""
    pairs = [pair_of(message) for message in MESSAGES]
    driver.put(*pairs[2])
    expect(driver.put_many(pairs), Stored(len(pairs) - 1, 1, 0), "put_many")
    expect(driver.put_many(pairs), Stored(0, len(pairs), 0), "put_many, again")
    expect(driver.put_many([]), Stored(), "put_many of nothing")
    expect([driver.get(digest) for digest, _ in pairs], MESSAGES, "get")


def many_that_overlap_are_each_new_once(driver: Driver, _place: Location) -> None:
    """Threads put parts of the same messages."""
    pairs = numbered(3000)
    parts = [pairs[start : start + 1500] for start in range(0, 1600, 100)]
    news = in_threads(lambda thread: driver.put_many(parts[thread]).new)
    expect(news, 3000, "new messages")
    expect(driver.count(), 3000, "count")


def everything_that_is_stored_can_be_gone_through(driver: Driver, _place: Location) -> None:
    """Small messages and a large one."""
    expect(list(driver.items()), [], "items of nothing")
    pairs = [*numbered(5000), pair_of(bytes(10**6))]
    driver.put_many(pairs)
    found = dict(driver.items())
    expect(sorted(found), sorted(dict(pairs)), "the digests of items")
    expect(found, dict(pairs), "items")
    expect(driver.count(), len(pairs), "count")


def another_opener_sees_what_is_stored(driver: Driver, place: Location) -> None:
    """It does so only if the store is shared."""
    digest, message = pair_of(b"foo")
    driver.put(digest, message)
    with closing(place.open()) as other:
        expect(other.get(digest), message if driver.shared else None, "the other's get")
        outcome = REPEATED if driver.shared else NEW
        expect(other.put(digest, message), outcome, "the other's put")


def what_is_removed_stays_away(driver: Driver, _place: Location) -> None:
    """A message that is stored, one that is damaged, a large one, and one that never came."""
    pairs = [*numbered(3), pair_of(bytes(10**6))]
    driver.put_many([pairs[0], (pairs[1][0], b"?"), pairs[3]])
    removed = [driver.remove(digest, TOMBSTONE) for digest, _ in pairs]
    expect(removed, [MENDED, MENDED, NEW, MENDED], "remove")
    for digest, message in pairs:
        expect(refused(driver.put, digest, message), digest, "put")
        expect(driver.remove(digest, TOMBSTONE + b"!"), REPEATED, "remove, again")
        expect(driver.get(digest), TOMBSTONE, "get")
    expect(refused(driver.put_many, pairs[1:2]), pairs[1][0], "put_many")
    expect(dict(driver.items()), dict.fromkeys(dict(pairs), TOMBSTONE), "items")


def what_is_removed_can_be_told_from_the_rest(driver: Driver, _place: Location) -> None:
    """Of 3,000 messages every hundredth is removed."""
    pairs = numbered(3000)
    driver.put_many(pairs)
    expect(driver.removed_of([]), [], "removed_of nothing")
    expect(driver.removed_of([digest for digest, _ in pairs]), [], "removed_of")
    expect(list(driver.removed()), [], "removed")
    digests = {digest for digest, _ in pairs[::100]}
    for digest in digests:
        driver.remove(digest, TOMBSTONE)
    missing = digest_of(b"missing")
    found = driver.removed_of([missing, *(digest for digest, _ in pairs)])
    expect(sorted(found), sorted(digests), "removed_of, after the removal")
    expect(dict(driver.removed()), dict.fromkeys(digests, TOMBSTONE), "removed, after the removal")
    expect(driver.count(), len(pairs), "count")


def what_is_restored_can_be_stored_again(driver: Driver, _place: Location) -> None:
    """Only a tombstone is taken away."""
    digest, message = pair_of(b"foo")
    expect([driver.restore(digest)], [False], "restore of nothing")
    driver.put(digest, message)
    expect([driver.restore(digest)], [False], "restore of a message")
    expect(driver.get(digest), message, "get")
    driver.remove(digest, TOMBSTONE)
    expect([driver.restore(digest) for _ in range(2)], [True, False], "restore")
    expect(driver.get(digest), None, "get after the restoration")
    expect(driver.count(), 0, "count")
    expect(driver.put(digest, message), NEW, "put")


def no_put_outlives_a_removal_at_the_same_moment(driver: Driver, _place: Location) -> None:
    """Every thread puts the same messages, half of them over damage, and removes some."""
    pairs = numbered(40 * THREADS)
    driver.put_many([(digest, b"?") for digest, _ in pairs[::2]])

    def work(thread: int) -> int:
        return sum(put_or_remove(driver, thread, *numbered) for numbered in enumerate(pairs))

    expect(in_threads(work), len(pairs), "removals")
    expect(dict(driver.items()), dict.fromkeys(dict(pairs), TOMBSTONE), "items")


def put_or_remove(driver: Driver, thread: int, number: int, pair: Pair) -> bool:
    """Remove the message if it is this thread's to remove, or put it; return which it was."""
    if number % THREADS == thread:
        driver.remove(pair[0], TOMBSTONE)
        return True
    put = driver.put if thread % 4 else lambda *pair: driver.put_many([pair])
    with suppress(TakenDown):
        put(*pair)
    return False


def refused(put: Callable[..., object], *arguments: object) -> str | None:
    """Return the digest of the message that `put` says was taken down, or None."""
    try:
        put(*arguments)
    except TakenDown as error:
        return error.digest
    return None


Check = Callable[[Driver, Location], None]
CHECKS: Sequence[Check] = (
    what_was_put_is_got_unchanged,
    a_repeated_put_says_so_and_changes_nothing,
    what_differs_is_mended,
    one_of_many_puts_at_once_is_new,
    many_that_mend_at_once_leave_nothing_damaged,
    what_was_put_is_got_at_once_by_every_thread,
    many_at_once_say_what_they_came_to,
    many_that_overlap_are_each_new_once,
    everything_that_is_stored_can_be_gone_through,
    what_is_removed_stays_away,
    what_is_removed_can_be_told_from_the_rest,
    what_is_restored_can_be_stored_again,
    no_put_outlives_a_removal_at_the_same_moment,
    another_opener_sees_what_is_stored,
)

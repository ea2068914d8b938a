"""The contract's checks find a driver that breaks it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import pytest

from hasher.stores import Driver, Location, Outcome, Resources, Stored, StoreFull, TakenDown
from hasher.stores.contract import CHECKS, examine
from hasher.stores.driver import DEFAULT
from hasher.stores.memory import MemoryDriver
from hasher.stores.tombstone import MARK

LIMIT = 2**24


class Forgetful(MemoryDriver):
    """Keeps nothing that is longer than a byte."""

    def get(self, digest: str) -> bytes | None:
        found = super().get(digest)
        return found[:1] if found else found


class Optimist(MemoryDriver):
    """Takes every message for a new one."""

    def put(self, digest: str, message: bytes) -> Outcome:
        super().put(digest, message)
        return Outcome.NEW


class Careless(MemoryDriver):
    """Leaves what differs as it is."""

    def put(self, digest: str, message: bytes) -> Outcome:
        return super().put(digest, self.get(digest) or message)


class Innumerate(MemoryDriver):
    """Counts one more than there are."""

    def count(self) -> int:
        return super().count() + 1


class Hasty(MemoryDriver):
    """Leaves out the last message."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(list(super().items())[:-1])


class Silent(MemoryDriver):
    """Does not say what many messages came to."""

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        super().put_many(messages)
        return Stored()


class Full(MemoryDriver):
    """Has no room."""

    def put(self, digest: str, message: bytes) -> Outcome:
        raise StoreFull


class Forgiving(MemoryDriver):
    """Stores again what was removed."""

    def put(self, digest: str, message: bytes) -> Outcome:
        self.restore(digest)
        return super().put(digest, message)


class Rash(MemoryDriver):
    """Looks for a tombstone in a step of its own, before it stores."""

    def put(self, digest: str, message: bytes) -> Outcome:
        if self.removed_of([digest]):
            raise TakenDown(digest)
        time.sleep(0)  # in which another thread has its turn
        self.restore(digest)
        return super().put(digest, message)


class Obstinate(MemoryDriver):
    """Restores nothing."""

    def restore(self, digest: str) -> bool:
        return bool(self.removed_of([digest]))


class Destructive(MemoryDriver):
    """Restores by removing whatever there is."""

    def restore(self, digest: str) -> bool:
        self.remove(digest, MARK)
        return super().restore(digest)


class Unaware(MemoryDriver):
    """Does not know what was removed."""

    def removed(self) -> Iterator[tuple[str, bytes]]:
        return iter([])


class Place(Location):
    """A place that opens a driver of some kind."""

    def __init__(self, kind: Callable[[int], Driver]) -> None:
        object.__setattr__(self, "kind", kind)

    @classmethod
    def parse(cls, url: str) -> Self:
        return cls(MemoryDriver)

    def scratch(self) -> AbstractContextManager[Location]:
        return nullcontext(self)

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> Driver:
        driver: Driver = vars(self)["kind"](LIMIT)
        return driver


def faults(kind: Callable[[int], Driver]) -> dict[str, str]:
    """What the checks find, by what must hold."""
    return {promise: fault for promise, fault in examine(Place(kind)) if fault}


def test_a_driver_that_keeps_the_contract_passes() -> None:
    assert faults(MemoryDriver) == {}
    assert len(list(examine(Place(MemoryDriver)))) == len(CHECKS)


@pytest.mark.parametrize(
    ("kind", "promise", "fault"),
    [
        (Forgetful, "what was put is got unchanged", "a get after the put gave"),
        (Optimist, "a repeated put says so and changes nothing", "three puts gave"),
        (Optimist, "one of many puts at once is new", "new puts gave 1600, not 100"),
        (Careless, "what differs is mended", "a put over something else gave"),
        (Innumerate, "a repeated put says so and changes nothing", "count gave 2, not 1"),
        (Hasty, "everything that is stored can be gone through", "the digests of items gave"),
        (Silent, "many at once say what they came to", "put_many gave Stored(new=0"),
        (Silent, "many that overlap are each new once", "new messages gave 0, not 3000"),
        (Full, "what was put is got unchanged", "the store is full"),
        (Forgiving, "what is removed stays away", "put gave None"),
        (Rash, "no put outlives a removal at the same moment", "items gave"),
        (Obstinate, "what is restored can be stored again", "restore gave [True, True]"),
        (Destructive, "what is restored can be stored again", "restore of nothing gave [True]"),
        (Unaware, "what is removed can be told from the rest", "removed, after the removal gave"),
    ],
)
@pytest.mark.usefixtures("impatient_threads")
def test_a_driver_that_breaks_it_is_found(
    kind: Callable[[int], Driver], promise: str, fault: str
) -> None:
    assert faults(kind)[promise].startswith(fault)

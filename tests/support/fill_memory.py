"""Fill a memory store in a process of its own and print what that took: `SIZE COUNT LIMIT`."""

import gc
import itertools
import os
import sys
from hashlib import sha256
from pathlib import Path

from hasher.stores import StoreFull
from hasher.stores.memory import MemoryDriver


def resident() -> int:
    """The memory of this process that is in use, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fill(store: MemoryDriver, size: int, count: int) -> None:
    """Store up to `count` messages of `size` bytes, or as many as there is room for."""
    for number in itertools.islice(itertools.count(), count):
        message = number.to_bytes(8, "little").ljust(size, b"x")[:size]
        name = sha256(number.to_bytes(8, "little")).hexdigest()
        try:
            store.put(name, message)
        except StoreFull:
            return


size, count, limit = map(int, sys.argv[1:])
store = MemoryDriver(limit)
gc.collect()
before = resident()
fill(store, size, count)
print(store.count(), resident() - before)  # noqa: T201

"""A disk that remembers every write and sync of SQLite, and what a power cut would leave of it.

What was synced is there. Of the rest each write, or each sector of it, is there or not, by chance,
in any order; so is each name that was made or removed since its directory was synced.
"""

import ctypes
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from random import Random
from threading import local
from typing import Any, NamedTuple, TypeVar

import apsw

T = TypeVar("T")

SECTORS = 512, 4096  # bytes that a disk writes whole


class Write(NamedTuple):
    """Bytes given to the disk. If `data` is None, the file is cut at `offset`."""

    file: int
    offset: int
    data: bytes | None


class Name(NamedTuple):
    """A name in the directory that leads to a file from now on, or to none."""

    name: str
    file: int | None


class Sync(NamedTuple):
    """The end of a sync of `file`, or of the directory if that is None.

    What was recorded before the event number `begun` is on the disk.
    """

    file: int | None
    begun: int


class Acknowledged(NamedTuple):
    """What a caller may rely on from now on."""

    digest: str


Event = Write | Name | Sync | Acknowledged
OpenDirectory = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))


class Disk(apsw.VFS):
    """SQLite's own way to files, which records in `events` what passes through.

    The log's index is not recorded: it does not outlive a power cut.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.files: dict[str, int] = {}
        self._numbers = count()
        self._thread = local()
        super().__init__("recorded", "unix")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        path = Path(name if isinstance(name, str) else name.filename())
        if path.name not in self.files:
            self.link(path.name, next(self._numbers))
        return RecordedFile(self, self.files[path.name], name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802 - SQLite's name
        with self.syncing(None):
            self.link(Path(filename).name, None)
            super().xDelete(filename, syncdir)

    def link(self, name: str, file: int | None) -> None:
        """Let `name` lead to `file`."""
        self.events.append(Name(name, file))
        self.files.pop(name, None)
        if file is not None:
            self.files[name] = file

    def acknowledge(self, digest: str) -> None:
        """Note that `digest` must be there from now on."""
        self.events.append(Acknowledged(digest))

    @contextmanager
    def syncing(self, file: int | None) -> Iterator[None]:
        """Record at the end that `file` was synced, and the directory if SQLite has opened it."""
        begun = len(self.events)
        self._thread.directory = False
        yield
        if file is not None:
            self.events.append(Sync(file, begun))
        if self._thread.directory:
            self.events.append(Sync(None, begun))

    @contextmanager
    def noticing_directories(self) -> Iterator[None]:
        """Notice when SQLite opens a directory, which it does to sync it and for nothing else."""
        original: Any = self.xGetSystemCall("openDirectory")
        call = OpenDirectory(original)

        def open_directory(path: bytes, found: Any) -> int:
            self._thread.directory = True
            return int(call(path, found))

        callback = OpenDirectory(open_directory)  # which must live for as long as it is called
        pointer: Any = ctypes.cast(callback, ctypes.c_void_p).value
        self.xSetSystemCall("openDirectory", pointer)
        try:
            yield
        finally:
            self.xSetSystemCall("openDirectory", original)


class RecordedFile(apsw.VFSFile):
    """An open file of a Disk."""

    def __init__(self, disk: Disk, number: int, name: Any, flags: list[int]) -> None:
        self.disk, self.number = disk, number
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self.disk.events.append(Write(self.number, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self.disk.events.append(Write(self.number, newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        with self.disk.syncing(self.number):
            super().xSync(flags)


@contextmanager
def recorded() -> Iterator[Disk]:
    """Yield the disk of every connection that is opened meanwhile."""
    disk = Disk()
    default = apsw.vfs_names()[0]
    apsw.set_default_vfs("recorded")
    try:
        with disk.noticing_directories():
            yield disk
    finally:
        apsw.set_default_vfs(default)
        disk.unregister()


Pending = deque[tuple[int, T]]  # with the number of the event, in their order


class Remains:
    """What is on a disk for certain after so many events, and what may be there besides."""

    def __init__(self) -> None:
        self.number = 0
        self.acknowledged: set[str] = set()
        self._names: dict[str, int] = {}
        self._renamed: Pending[Name] = deque()
        self._files: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._written: defaultdict[int, Pending[Write]] = defaultdict(deque)

    def take(self, event: Event) -> None:
        """Go on by one event."""
        match event:
            case Write():
                self._written[event.file].append((self.number, event))
            case Name():
                self._renamed.append((self.number, event))
            case Sync(None, begun):
                for name in before(begun, self._renamed):
                    rename(self._names, name)
            case Sync(int(file), begun):
                for write in before(begun, self._written[file]):
                    apply(self._files[file], write)
            case Acknowledged():
                self.acknowledged.add(event.digest)
        self.number += 1

    def after_power_cut(self, chance: Random) -> dict[str, bytes]:
        """Return the content of each file that is there when the power is back."""
        names = dict(self._names)
        kept = chance.choice((0, 0.5, 0.9, 1))
        for _, name in self._renamed:
            if chance.random() < kept:
                rename(names, name)
        return {name: self._content(file, chance, kept) for name, file in names.items()}

    def _content(self, file: int, chance: Random, kept: float) -> bytes:
        content = self._files[file].copy()
        unit = chance.choice((None, *SECTORS))
        for _, write in self._written[file]:
            for piece in pieces(write, unit):
                if chance.random() < kept:
                    apply(content, piece)
        return bytes(content)


def before(number: int, pending: Pending[T]) -> Iterator[T]:
    """Take out what came before the event of this number."""
    while pending and pending[0][0] < number:
        yield pending.popleft()[1]


def rename(names: dict[str, int], event: Name) -> None:
    """Do to a directory what `event` says."""
    names.pop(event.name, None)
    if event.file is not None:
        names[event.name] = event.file


def apply(content: bytearray, write: Write) -> None:
    """Do to a file what `write` says. What is skipped beyond its end is zeros."""
    if write.data is None:
        del content[write.offset :]
        return
    content.extend(bytes(max(0, write.offset - len(content))))
    content[write.offset : write.offset + len(write.data)] = write.data


def pieces(write: Write, unit: int | None) -> Iterator[Write]:
    """Yield the parts of `write` that lie in sectors of `unit` bytes; all of it without one."""
    if write.data is None or unit is None:
        yield write
        return
    start, end = write.offset, write.offset + len(write.data)
    bounds = [start, *range((start // unit + 1) * unit, end, unit), end]
    for first, last in pairwise(bounds):
        yield Write(write.file, first, write.data[first - start : last - start])

"""How messages are stored in Redis, for one server and for a cluster."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from hiredis import HiredisError, ReplyError

from hasher.stores.driver import DamagedMessage, Driver, Outcome, Stored, StoreFull, TakenDown
from hasher.stores.redis.connection import Command, Reply, kind, require
from hasher.stores.redis.examination import examine
from hasher.stores.redis.server import Server
from hasher.stores.tombstone import MARK, is_tombstone

PREFIX = b"hasher:"
OK = b"OK"
SMALL = 16 * 1024  # bytes of a message up to which reading it back costs less than another trip
TRIP = 1000  # messages written in one trip
TRIP_BYTES = 1024 * 1024  # bytes after which no more messages are added to a trip
LAST = b"%d" % (len(MARK) - 1)  # where the mark of a tombstone ends
BATCH = 100  # messages read in one trip: at the default limit on bodies that is 100 MiB at most

# A value of another type is no tombstone. What a server says that is full is returned as it is.
SCRIPT = b"""
local held = redis.pcall('GET', KEYS[1])
local stands = type(held) == 'string' and string.sub(held, 1, #ARGV[1]) == ARGV[1]
"""
MEND = SCRIPT + b"return stands and 'removed' or redis.pcall('SET', KEYS[1], ARGV[2])"
# A server that is full lets a script go on that has begun to make room.
REMOVE = (
    SCRIPT
    + b"""
if stands then return 'repeated' end
local outcome = redis.call('DEL', KEYS[1]) == 1 and 'mended' or 'new'
redis.call('SET', KEYS[1], ARGV[2])
return outcome
"""
)
RESTORE = SCRIPT + b"return stands and redis.call('DEL', KEYS[1]) or 0"

Row = tuple[bytes, bytes]  # a key and a message


class RedisDriver(Driver):
    """Messages under `hasher:<digest>`.

    If the key of a message is taken, its value is compared with the message. For a small message
    it is read in the same trip; for a large one only if the key is taken.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (HiredisError, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset(
        {"get", "put", "put_many", "remove", "restore", "removed_of", "check"}
    )

    def __init__(self, replicas: int = 0, prefix: bytes = PREFIX) -> None:
        self._replicas, self._prefix = replicas, prefix

    @abstractmethod
    def _call(self, commands: Sequence[Command], replicas: int = 0) -> list[Reply]:
        """Call the server that holds the keys of `commands`, which are all on one server."""

    @abstractmethod
    def _by_server(self, rows: Iterable[Row]) -> Iterable[list[Row]]:
        """Yield `rows` in groups; one server holds each group."""

    @abstractmethod
    def _servers(self) -> list[Server]:
        """Return every server that holds messages."""

    def put(self, digest: str, message: bytes) -> Outcome:
        key = self._prefix + digest.encode()
        commands: list[Command] = [(b"SET", key, message, b"NX")]
        if len(message) <= SMALL:
            commands.append((b"GET", key))
        refusal, *found = self._call(commands, self._replicas)
        if refusal == OK:
            return Outcome.NEW
        settled = self._settle([(key, message)], [refusal], found)
        if settled.mended:
            return Outcome.MENDED
        return Outcome.NEW if settled.new else Outcome.REPEATED

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        rows = [(self._prefix + digest.encode(), message) for digest, message in messages]
        stored = [self._put(trip) for group in self._by_server(rows) for trip in trips(group)]
        return Stored(*map(sum, zip(*stored, strict=True))) if stored else Stored()

    def _put(self, rows: Sequence[Row]) -> Stored:
        """Store `rows`, which one server holds."""
        replies = self._call([(b"SET", *row, b"NX") for row in rows], self._replicas)
        refused = [(row, reply) for row, reply in zip(rows, replies, strict=True) if reply != OK]
        if not refused:
            return Stored(new=len(rows))
        settled = self._settle(*zip(*refused, strict=True))
        return settled._replace(new=settled.new + len(rows) - len(refused))

    def _settle(
        self, rows: Sequence[Row], refusals: Sequence[Reply], found: Sequence[Reply] = ()
    ) -> Stored:
        """Compare refused `rows` with the values under their keys, and mend what differs."""
        full = next((refusal for refusal in refusals if kind(refusal) == "OOM"), None)
        for refusal in refusals:
            require(refusal, but="OOM")
        # A row that was refused for lack of room has not waited for the replicas yet.
        replicas = self._replicas if full else 0
        found = found or self._call([(b"GET", key) for key, _ in rows], replicas)
        missing, damaged = self._compare(rows, found)
        if full and missing:
            raise StoreFull from full
        self._overwrite(damaged)
        again = self._put(missing) if missing else Stored()  # another has removed them meanwhile
        repeated = len(rows) - len(missing) - len(damaged)
        return Stored(again.new, again.repeated + repeated, again.mended + len(damaged))

    def _overwrite(self, rows: Sequence[Row]) -> None:
        """Store `rows` in place of the values under their keys, which are no tombstones."""
        if not rows:
            return
        commands = [evaluated(MEND, key, message) for key, message in rows]
        for row, reply in zip(rows, self._call(commands, self._replicas), strict=True):
            if kind(reply) == "OOM":
                raise StoreFull from reply
            if require(reply) == b"removed":
                raise TakenDown(self._digest(row[0]))

    def _compare(self, rows: Sequence[Row], found: Sequence[Reply]) -> tuple[list[Row], list[Row]]:
        """Return the rows that were not found, and the rows whose value is another.

        TakenDown if a value is a tombstone.
        """
        missing, damaged = [], []
        for row, held in zip(rows, found, strict=True):
            require(held, but="WRONGTYPE")
            if held is None:
                missing.append(row)
            elif held != row[1]:
                if not kind(held) and is_tombstone(held):
                    raise TakenDown(self._digest(row[0]))
                damaged.append(row)
        return missing, damaged

    def _digest(self, key: bytes) -> str:
        return key.removeprefix(self._prefix).decode(errors="replace")

    def get(self, digest: str) -> bytes | None:
        message: Reply = self._call([(b"GET", self._prefix + digest.encode())])[0]
        if type(message) is ReplyError:
            require(message, but="WRONGTYPE")
            raise DamagedMessage(digest)
        found: bytes | None = message
        return found

    def remove(self, digest: str, tombstone: bytes) -> Outcome:
        command = evaluated(REMOVE, self._prefix + digest.encode(), tombstone)
        return Outcome(require(self._call([command], self._replicas)[0]).decode())

    def restore(self, digest: str) -> bool:
        command = evaluated(RESTORE, self._prefix + digest.encode())
        return bool(require(self._call([command], self._replicas)[0]))

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        rows = [(self._prefix + digest.encode(), b"") for digest in digests]
        parts = (trip for group in self._by_server(rows) for trip in trips(group))
        found = (self._tombstones([key for key, _ in part]) for part in parts)
        return [self._digest(key) for keys in found for key in keys]

    def removed(self) -> Iterator[tuple[str, bytes]]:
        for server in self._servers():
            for keys in scan(server, self._prefix, TRIP):
                for digest, value in self._read(self._tombstones(keys)):
                    if is_tombstone(value):
                        yield digest, value

    def _tombstones(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys`, which one server holds, that have a tombstone."""
        starts = self._call([(b"GETRANGE", key, b"0", LAST) for key in keys]) if keys else []
        for start in starts:
            require(start, but="WRONGTYPE")
        return [key for key, start in zip(keys, starts, strict=True) if start == MARK]

    def items(self) -> Iterator[tuple[str, bytes | None]]:
        for server in self._servers():
            for keys in scan(server, self._prefix, 10 * BATCH):
                for start in range(0, len(keys), BATCH):
                    yield from self._read(keys[start : start + BATCH])

    def _read(self, keys: Sequence[bytes]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the digests and values of `keys`, with None for a value that is not a string."""
        replies = self._call([(b"GET", key) for key in keys]) if keys else []
        for key, found in zip(keys, replies, strict=True):
            require(found, but="WRONGTYPE")
            if found is not None:
                yield self._digest(key), None if kind(found) else found

    def count(self) -> int:
        return sum(
            len(keys) for server in self._servers() for keys in scan(server, self._prefix, 10_000)
        )

    def remove_all(self) -> None:
        """Remove everything, for a scratch place."""
        for server in self._servers():
            for keys in scan(server, self._prefix, BATCH):
                for key in keys:
                    require(self._call([(b"DEL", key)])[0])

    def check(self) -> str | None:
        remarks = [examine(server, self._replicas) for server in self._servers()]
        return next(filter(None, remarks), None)


def trips(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield `rows` in parts, so that a trip takes little time and memory."""
    trip: list[Row] = []
    size = 0
    for row in rows:
        trip.append(row)
        size += len(row[1])
        if len(trip) >= TRIP or size >= TRIP_BYTES:
            yield trip
            trip, size = [], 0
    if trip:
        yield trip


def evaluated(script: bytes, key: bytes, value: bytes = b"") -> Command:
    """Return the command that runs `script` on a key, with the mark of tombstones and `value`."""
    return b"EVAL", script, b"1", key, MARK, value


def scan(server: Server, prefix: bytes, count: int) -> Iterator[list[bytes]]:
    """Yield the keys under `prefix` that `server` holds, about `count` at once."""
    cursor = b"0"
    while True:
        command = (b"SCAN", cursor, b"MATCH", prefix + b"*", b"COUNT", b"%d" % count)
        cursor, keys = require(server.call([command])[0])
        yield keys
        if cursor == b"0":
            return

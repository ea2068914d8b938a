"""What only SQLite's driver promises: its file, and what happens to it behind its back."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from hasher.stores import Outcome, Stored, TakenDown, Unusable
from hasher.stores.messages import digest_of as digest
from hasher.stores.sqlite import SQLiteDriver, SQLiteLocation, table
from hasher.stores.tombstone import MARK
from tests.support.power_cut import RecordedFile, recorded

NEW, REPEATED, MENDED = Outcome.NEW, Outcome.REPEATED, Outcome.MENDED
WRITTEN_BY_0_1_0 = Path(__file__).parent / "data" / "0.1.0.db"  # by `flask store put`


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of this test's own, which does not exist yet."""
    return tmp_path / "messages.db"


@pytest.fixture
def location(path: Path) -> SQLiteLocation:
    """Where it is."""
    return SQLiteLocation.parse(f"sqlite:///{path}")


@pytest.fixture
def store(location: SQLiteLocation) -> Iterator[SQLiteDriver]:
    """A store on it."""
    with closing(location.open()) as opened:
        yield opened


def test_a_file_that_0_1_0_wrote_is_used_as_it_is(path: Path, location: SQLiteLocation) -> None:
    shutil.copyfile(WRITTEN_BY_0_1_0, path)
    texts = [b"foo", b"", "ünïcode".encode()]
    with closing(location.open(create=False)) as store:
        assert dict(store.items()) == {digest(text): text for text in texts}
        assert [store.put(digest(text), text) for text in texts] == [REPEATED] * 3
        assert store.put(digest(b"bar"), b"bar") is NEW
        assert store.remove(digest(b"foo"), MARK) is MENDED
        assert store.get(digest(b"foo")) == MARK
    with closing(location.open(create=False)) as store, pytest.raises(TakenDown):
        store.put(digest(b"foo"), b"foo")


def test_who_opens_the_file_while_another_closes_it_is_not_held_up(
    path: Path, location: SQLiteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last to close locks the file: all that takes long must come before."""
    found: list[bytes | None] = []
    sync = RecordedFile.xSync

    def read_meanwhile(file: RecordedFile, flags: int) -> None:
        with closing(SQLiteDriver(str(path))) as other:
            found.append(other.get(digest(b"foo")))
        sync(file, flags)

    with recorded(), closing(location.open()) as store:
        store.put(digest(b"foo"), b"foo")
        monkeypatch.setattr(RecordedFile, "xSync", read_meanwhile)
    assert set(found) == {b"foo"}


def other_program(path: Path, script: str) -> None:
    """Run SQL in another process, with the SQLite of Python's own.

    Within one process, two copies of SQLite drop each other's locks.
    """
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, path, script], check=True)


def test_a_file_that_plain_sqlite_made_is_read_and_written(
    location: SQLiteLocation, path: Path
) -> None:
    rows = [(bytes.fromhex(digest(b"%d" % number)), b"%d" % number) for number in range(3000)]
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(
            "CREATE TABLE messages (digest BLOB PRIMARY KEY NOT NULL, message BLOB NOT NULL);"
            "PRAGMA application_id = 0x68617368; PRAGMA user_version = 1"
        )
        old.executemany("INSERT INTO messages VALUES (?, ?)", rows)
    with closing(location.open()) as store:
        assert {(bytes.fromhex(name), message) for name, message in store.items()} == set(rows)
        assert store.put(digest(b"7"), b"7") is REPEATED
        assert store.put(digest(b"new"), b"new") is NEW
    with closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert old.execute("SELECT count(*) FROM messages").fetchone() == (3001,)


@pytest.mark.parametrize("altered", ["X'00'", "'foo'", "''", "7"])
def test_a_put_mends_a_row_that_was_altered(store: SQLiteDriver, path: Path, altered: str) -> None:
    texts = [b"foo", b"bar", b"baz"]
    pairs = [(digest(text), text) for text in texts]
    store.put_many(pairs)
    alter = f"UPDATE messages SET message = {altered} WHERE message != X'62617a'"  # noqa: S608
    other_program(path, alter)
    assert [store.put(*pair) for pair in pairs] == [MENDED, MENDED, REPEATED]
    assert [store.get(name) for name, _ in pairs] == texts
    other_program(path, alter)
    assert store.put_many([*pairs, (digest(b"new"), b"new")]) == Stored(1, 1, 2)
    assert [store.get(name) for name, _ in pairs] == texts
    assert store.put_many(pairs) == Stored(0, 3, 0)


def test_a_message_that_cannot_be_stored_fails_alone(
    store: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(table, "ADD", "INSERT INTO missing VALUES (?1, ?2)")
        with pytest.raises(store.errors):
            store.put(digest(b"a"), b"a")
    assert store.put(digest(b"a"), b"a") is NEW


def test_the_bytes_of_what_is_removed_are_gone_from_the_files(
    store: SQLiteDriver, path: Path
) -> None:
    small, large = b"a secret", b"another secret " * 10_000
    pairs = [(digest(text), text) for text in (small, large)]
    store.put_many([*pairs, *((digest(b"%d" % number), b"%d" % number) for number in range(100))])
    with closing(apsw.Connection(str(path))) as other:
        other.wal_checkpoint()
    store.put(digest(b"kept"), b"kept secret")
    for name, _ in pairs:
        assert store.remove(name, MARK) is MENDED
    found = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert found.count(b"secret") == found.count(b"kept secret") == 1
    assert store.check() is None
    assert store.put(digest(b"kept"), b"kept") is MENDED


def test_a_removal_does_not_wait_for_a_reader(store: SQLiteDriver, path: Path) -> None:
    store.put(digest(b"foo"), b"foo")
    with closing(apsw.Connection(str(path))) as other:
        reading = other.execute("SELECT * FROM messages")
        assert next(reading)
        assert store.remove(digest(b"foo"), MARK) is MENDED
        assert store.get(digest(b"foo")) == MARK


def beside(path: Path, suffix: str) -> Path:
    """The file whose name is longer by `suffix`."""
    return path.with_name(path.name + suffix)


def replaced(path: Path) -> None:
    """Put a copy in the place of a file."""
    copy = shutil.copy(path, beside(path, ".copy"))
    Path(copy).replace(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "database removed": Path.unlink,
    "database moved": lambda path: path.rename(beside(path, ".old")),
    "database replaced": replaced,
    "database emptied": lambda path: os.truncate(path, 0),
    "database cut": lambda path: os.truncate(path, 8192),
    "log removed": lambda path: beside(path, "-wal").unlink(),
    "log moved": lambda path: beside(path, "-wal").rename(beside(path, ".old")),
    "log replaced": lambda path: replaced(beside(path, "-wal")),
    "log emptied": lambda path: os.truncate(beside(path, "-wal"), 0),
    "log cut": lambda path: os.truncate(beside(path, "-wal"), 5000),
    "log's index removed": lambda path: beside(path, "-shm").unlink(),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
    "folder removed": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_nothing_is_stored_in_a_file_that_nobody_can_open_any_more(
    store: SQLiteDriver, path: Path, lose: Callable[[Path], object]
) -> None:
    message = bytes(100_000)
    store.put(digest(message), message)
    with closing(apsw.Connection(str(path))) as other:
        other.wal_checkpoint()
    store.put(digest(b"stored"), b"stored")
    lose(path)
    present = sorted(path.parent.rglob("*"))
    for call in (
        lambda: store.put(digest(b"new"), b"new"),
        lambda: store.put(digest(b"stored"), b"stored"),
        lambda: store.put_many([(digest(b"new"), b"new")]),
        store.check,
    ):
        for _ in range(3):
            with pytest.raises(Unusable, match=r"^messages\.db(-\w+)? was"):
                call()
    assert sorted(path.parent.rglob("*")) == present


def test_a_message_that_is_not_there_is_no_answer_of_a_file_that_was_removed(
    store: SQLiteDriver, path: Path
) -> None:
    store.put(digest(b"stored"), b"stored")
    assert store.get(digest(b"stored")) == b"stored"
    path.unlink()
    assert store.get(digest(b"stored")) == b"stored"
    with pytest.raises(Unusable, match=r"messages\.db was removed"):
        store.get(digest(b"missing"))


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_file_that_is_put_back_is_used_again(
    store: SQLiteDriver, path: Path, suffix: str
) -> None:
    store.put(digest(b"stored"), b"stored")
    away = beside(path, suffix).rename(beside(path, ".away"))
    with pytest.raises(Unusable):
        store.put(digest(b"new"), b"new")
    away.rename(beside(path, suffix))
    assert store.put(digest(b"new"), b"new") is NEW
    assert store.put(digest(b"stored"), b"stored") is REPEATED
    assert store.check() is None


def test_what_another_program_may_do_to_a_file_is_no_loss(
    store: SQLiteDriver, location: SQLiteLocation, path: Path
) -> None:
    store.put_many([(digest(b"%d" % number), b"%d" % number * 100) for number in range(3000)])
    store.put(digest(b"before"), b"before")
    steps = [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "DELETE FROM messages WHERE rowid < 2900; VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ]
    for number, step in enumerate(steps):
        other_program(path, step)
        assert store.check() is None
        assert store.put(digest(b"after %d" % number), b"after %d" % number) is NEW
    with closing(location.open()) as second:
        assert second.put(digest(b"second"), b"second") is NEW
    assert store.put(digest(b"before"), b"before") is REPEATED


def test_a_check_that_is_the_first_to_read_takes_no_growing_file_for_a_truncated_one(
    store: SQLiteDriver, location: SQLiteLocation, path: Path
) -> None:
    # The header of a database that is being written speaks of pages which are still to come.
    store.put_many([(digest(b"%d" % number), b"%d" % number * 100) for number in range(3000)])
    with closing(location.open()) as second, path.open("r+b", buffering=0) as file:
        file.seek(28)
        file.write((2**20).to_bytes(4))
        assert second.check() is None
        assert second.put(digest(b"new"), b"new") is NEW


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("lose", ["removed", "replaced", "emptied"])
def test_a_process_that_was_forked_makes_no_other_file(
    store: SQLiteDriver, location: SQLiteLocation, path: Path, lose: str
) -> None:
    store.put(digest(b"stored"), b"stored")
    store.close()
    kept = Path(shutil.copy(path, beside(path, ".kept")))
    LOSSES[f"database {lose}"](path)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            with closing(location.open()) as forked:
                for call in (forked.check, lambda: forked.put(digest(b"new"), b"new")):
                    with pytest.raises(Unusable):
                        call()
            os._exit(0 if path.exists() is (lose != "removed") else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    kept.replace(path)
    with closing(location.open()) as again:
        assert list(again.items()) == [(digest(b"stored"), b"stored")]


def test_a_store_that_does_not_exist_is_made_only_where_it_may_be(
    location: SQLiteLocation, path: Path
) -> None:
    with pytest.raises(Unusable, match="does not exist"):
        location.open(create=False)
    path.touch()
    with pytest.raises(Unusable, match="is empty"):
        location.open(create=False)
    location.open().close()
    location.open(create=False).close()


def test_a_link_leads_to_the_same_store(tmp_path: Path, store: SQLiteDriver, path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with closing(SQLiteLocation.parse(f"sqlite:///{link}").open()) as linked:
        assert linked.put(digest(b"a"), b"a") is NEW
        assert store.put(digest(b"a"), b"a") is REPEATED
    assert {found.name for found in tmp_path.iterdir()} == {
        "link.db",
        *(f"messages.db{suffix}" for suffix in ("", "-wal", "-shm", "-turn")),
    }


def damaged_page(path: Path, index: bool) -> None:  # noqa: FBT001 - of this test
    """Overwrite a page in the middle of the table, or of its index."""
    kind = "sqlite_autoindex_messages_1" if index else "messages"
    with closing(apsw.Connection(str(path))) as connection:
        leaves = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path"
        pages = [page for (page,) in connection.execute(leaves, (kind,))]
    with path.open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"damaged " * 512)


def test_what_stands_behind_a_page_that_cannot_be_read_is_found(
    location: SQLiteLocation, path: Path
) -> None:
    pairs = {digest(b"%d" % number): b"%d" % number * 20 for number in range(5000)}
    with closing(location.open()) as store:
        store.put_many(list(pairs.items()))
    damaged_page(path, index=False)
    with closing(location.open()) as store:
        found = dict(store.items())
        assert found.keys() == pairs.keys()
        unreadable = [name for name, message in found.items() if message is None]
        assert 0 < len(unreadable) < 100
        assert all(found[name] == pairs[name] for name in pairs.keys() - unreadable)
        for name in unreadable:
            with pytest.raises(store.errors):
                store.get(name)


def test_what_stands_behind_an_unreadable_page_of_the_index_is_found_too(
    location: SQLiteLocation, path: Path
) -> None:
    pairs = {digest(b"%d" % number): b"%d" % number * 20 for number in range(20_000)}
    with closing(location.open()) as store:
        store.put_many(list(pairs.items()))
    damaged_page(path, index=True)
    with closing(location.open()) as store:
        assert dict(store.items()) == pairs
    damaged_page(path, index=False)
    with closing(location.open()) as store:
        found: dict[str, bytes | None] = {}
        with pytest.raises(Unusable, match="digests of some messages cannot be read"):
            collect(store.items(), found)
        assert len(found) > 19_000
        assert all(found[name] in {None, pairs[name]} for name in found)


def collect(items: Iterable[tuple[str, bytes | None]], found: dict[str, bytes | None]) -> None:
    """Add each of `items` to `found`, up to the exception at their end."""
    for name, message in items:
        found[name] = message  # noqa: PERF403 - which would add none


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = exclusive")
connection.execute("DELETE FROM messages")
print("locked", flush=True)
time.sleep(0.3)
"""


def test_a_file_that_another_process_has_locked_for_a_moment_is_opened(tmp_path: Path) -> None:
    """As at the moment when it makes the table, or closes it as the last."""
    location = SQLiteLocation("sqlite:///x.db", str(tmp_path / "x.db"))
    location.open().close()
    command = [sys.executable, "-c", LOCK, location.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        with closing(location.open()) as store:
            assert store.check() is None

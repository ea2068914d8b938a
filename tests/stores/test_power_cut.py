"""What is acknowledged by a SQLite store is there after a power cut at any moment."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import apsw
import pytest

from hasher.stores.messages import digest_of as digest
from hasher.stores.sqlite import SQLiteDriver, SQLiteLocation
from tests.support.power_cut import Disk, Event, Remains, Sync, recorded

WRITERS, CALLS = 4, 40  # threads of each of two stores, and what each of them puts
MOMENTS = 1200


@pytest.fixture
def small_log() -> Iterator[None]:
    """A log that is copied to the database after 25 pages, so that it happens often."""

    def hook(connection: apsw.Connection) -> None:
        connection.wal_autocheckpoint(25)

    apsw.connection_hooks.append(hook)
    yield
    apsw.connection_hooks.remove(hook)


def run(folder: Path, synchronous: str) -> Disk:
    """Let two stores put at once, and close them in the middle; return what the disk was told."""
    location = SQLiteLocation.parse(f"sqlite:///{folder}/messages.db?synchronous={synchronous}")
    with recorded() as disk:
        for part in range(2):
            with closing(location.open()) as one, closing(location.open()) as other:
                threads = [
                    threading.Thread(target=put, args=(disk, store, f"{part} {number} {writer}"))
                    for number, store in enumerate((one, other))
                    for writer in range(WRITERS)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    return disk


def put(disk: Disk, store: SQLiteDriver, name: str) -> None:
    """Put messages of all sizes, one by one and many at once, and note each that is stored."""
    chance = Random(name)
    for call in range(CALLS):
        count = 30 if call % 20 == 10 else 1
        texts = [f"{name} {call} {text} ".encode() for text in range(count)]
        found = [text * chance.choice((1, 1, 5, 400)) for text in texts]
        pairs = [(digest(message), message) for message in found]
        if count == 1:
            store.put(*pairs[0])
        else:
            store.put_many(pairs)
        for named, _ in pairs:
            disk.acknowledge(named)


def losses(events: Sequence[Event], folder: Path, moments: int) -> Iterator[str]:
    """Yield what is wrong after power cuts at so many moments of the recorded ones."""
    chance = Random(4)
    chosen = set(chance.sample(range(len(events)), moments))
    remains = Remains()
    for event in events:
        remains.take(event)
        if remains.number - 1 in chosen:
            for name, content in remains.after_power_cut(chance).items():
                (folder / name).write_bytes(content)
            yield from faults(folder / "messages.db", remains.acknowledged)
            for path in folder.iterdir():
                path.unlink()


def faults(path: Path, acknowledged: set[str]) -> Iterator[str]:
    """Yield what is wrong with the store in a folder that the power cut has left."""
    try:
        with closing(SQLiteLocation.parse(f"sqlite:///{path}").open()) as store:
            stored = {name for name, message in store.items() if digest(message or b"") == name}
            with closing(apsw.Connection(str(path))) as connection:
                said = connection.execute("PRAGMA integrity_check").get
    except Exception as error:  # noqa: BLE001 - it is what is wrong
        yield f"{type(error).__name__}: {error}"
    else:
        yield from (said,) if said != "ok" else ()
        yield from acknowledged - stored


@pytest.mark.usefixtures("small_log")
@pytest.mark.timeout(300)
def test_every_acknowledged_message_survives_a_power_cut(tmp_path: Path) -> None:
    (run_in := tmp_path / "run").mkdir()
    (cut_in := tmp_path / "cut").mkdir()
    events = run(run_in, "full").events
    assert list(losses(events, cut_in, MOMENTS)) == []


@pytest.mark.usefixtures("small_log")
def test_the_power_cut_finds_commits_that_are_not_synced(tmp_path: Path) -> None:
    (run_in := tmp_path / "run").mkdir()
    (cut_in := tmp_path / "cut").mkdir()
    events = run(run_in, "normal").events
    assert any(losses(events, cut_in, 50))


@pytest.mark.usefixtures("small_log")
@pytest.mark.parametrize("unsynced", [0, None])
def test_the_power_cut_finds_a_database_or_a_directory_that_is_not_synced(
    tmp_path: Path, unsynced: int | None
) -> None:
    (run_in := tmp_path / "run").mkdir()
    (cut_in := tmp_path / "cut").mkdir()
    events = [
        event
        for event in run(run_in, "full").events
        if not (isinstance(event, Sync) and event.file == unsynced)
    ]
    assert any(losses(events, cut_in, 50))

"""The turn to write: one thread of one process at a time."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hasher.stores.sqlite.turn import Turn


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[Turn]:
    """A turn of this test's own."""
    with closing(Turn(str(tmp_path / "turn"))) as made:
        yield made


def soon() -> float:
    """A deadline that is near."""
    return time.monotonic() + 0.02


@pytest.mark.parametrize("same", [True, False])
def test_nobody_else_has_the_turn_until_it_ends(turn: Turn, tmp_path: Path, same: bool) -> None:  # noqa: FBT001 - of this test
    with closing(Turn(str(tmp_path / "turn"))) as opened_again:
        other = turn if same else opened_again
        for _ in range(3):
            with (
                turn.held(soon()),
                pytest.raises(TimeoutError, match="does not end its turn"),
                other.held(soon()),
            ):
                pass
        with other.held(soon()):
            pass


def test_a_turn_ends_with_an_exception(turn: Turn) -> None:
    with suppress(ValueError), turn.held(soon()):
        raise ValueError
    with turn.held(soon()):
        pass


def test_turns_do_not_overlap(tmp_path: Path) -> None:
    turns = [Turn(str(tmp_path / "turn")) for _ in range(3)]
    holding: list[int] = []
    seen: list[int] = []

    def work(turn: Turn) -> None:
        for _ in range(20):
            with turn.held(time.monotonic() + 30):
                holding.append(1)
                time.sleep(0.0001)  # let another thread in, if it can
                seen.append(len(holding))
                holding.pop()

    threads = [threading.Thread(target=work, args=(turns[number % 3],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [1] * 120
    for turn in turns:
        turn.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_turn_ends_with_its_process(turn: Turn) -> None:
    with turn.held(soon()):
        pass
    turn.close()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with turn.held(soon()):
            os.write(writing, b"held")
            time.sleep(30)
        os._exit(0)
    assert os.read(reading, 4) == b"held"
    with pytest.raises(TimeoutError, match="another process"), turn.held(soon()):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    with turn.held(soon()):
        pass
    os.close(reading)
    os.close(writing)

"""What `memory://` takes from the system is what its account says."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hasher.stores.memory import ENTRY

FILL = Path(__file__).parents[1] / "support" / "fill_memory.py"
MiB = 1024 * 1024


def filled(size: int, count: int, limit: int) -> tuple[int, int]:
    """How many messages a store in an empty process took, and the bytes by which it grew."""
    command = [sys.executable, str(FILL), str(size), str(count), str(limit)]
    env = {**os.environ, "PYTHONPATH": str(FILL.parents[2])}
    stored, grown = subprocess.check_output(command, env=env, text=True).split()
    return int(stored), int(grown)


def test_a_million_messages_of_100_bytes_take_at_most_330_bytes_each(
    record_property: Callable[[str, object], None],
) -> None:
    stored, grown = filled(100, 10**6, 2**30)
    record_property("resident bytes per message of 100 bytes", f"{grown / stored:.1f}")
    assert stored == 10**6
    assert grown / stored <= 330


@pytest.mark.parametrize("size", [100, 450, 1000, 10_000, 100_000, 1_000_000])
def test_the_limit_is_kept_within_a_tenth(
    size: int, record_property: Callable[[str, object], None]
) -> None:
    limit = 128 * MiB
    stored, grown = filled(size, limit, limit)
    record_property(f"memory over limit, messages of {size} bytes", f"{grown / limit:.3f}")
    assert 0.9 <= grown / limit <= 1.1
    assert 0.9 <= stored * (ENTRY + size) / limit <= 1.0

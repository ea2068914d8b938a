"""The worker answers what gthread answers, whatever is sent to it."""

import os
import time
from pathlib import Path

from tests.leader_worker import sockets

SECONDS = float(os.environ.get("SOCKETS_SECONDS", "15"))


def test_whatever_is_sent_gthread_answers_alike(tmp_path: Path) -> None:
    seed = time.time_ns()
    counts = sockets.run(tmp_path, 10_000_000, seed, within=SECONDS)
    assert counts.sent > 10, seed
    assert counts.answers[200] > counts.sent / 10, (seed, counts)

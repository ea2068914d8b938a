"""The fast lane reads what it takes as gunicorn's parser does."""

import os
import time

from tests.leader_worker import differential

COUNT = int(os.environ.get("DIFFERENTIAL_COUNT", "200000"))


def test_whatever_the_lane_takes_gunicorn_reads_alike() -> None:
    seed = time.time_ns()
    counts = differential.run(COUNT, seed)
    assert counts.taken > counts.sent / 20, seed


def test_a_plain_request_is_for_the_lane() -> None:
    sent = b"GET /messages?a=%20 HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\nX: \r\n\r\n"
    assert all(differential.compare(sent, using) for using in differential.setups())

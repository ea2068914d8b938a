"""Reload a service again and again under load, beside busy loops: nothing may fail.

`python -m tests.system.reloads 300 sqlite:////tmp/reloads.db` says what the requests came to.
"""

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.leader_worker.load import Load
from tests.support.servers import until
from tests.support.service import Service

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
BUSY = [sys.executable, "-c", "while True: pass"]


def reload(service: Service) -> None:
    """Send a signal, and wait until a new worker is there and the service is ready."""
    booted = service.log.count("Booting worker")
    service.signal(signal.SIGHUP)
    until(lambda: service.log.count("Booting worker") > booted)
    until(lambda: service.request("GET", "/readyz").status == 200)


def run(count: int, store: str) -> Counter[str]:
    """Return the outcomes of all requests."""
    with tempfile.TemporaryDirectory() as folder:
        loops = [subprocess.Popen(BUSY) for _ in range(2)]
        try:
            with Service(Path(folder) / "log", HASHER_STORE=store) as service:
                address = ("127.0.0.1", service.port)
                with (
                    Load(address, ALIVE, new=True, clients=4) as new,
                    Load(address, ALIVE, new=False, clients=4) as kept,
                ):
                    for _ in range(count):
                        reload(service)
                return new.outcomes + kept.outcomes
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()


if __name__ == "__main__":
    print(dict(run(int(sys.argv[1]), sys.argv[2])))  # noqa: T201 - it is a program

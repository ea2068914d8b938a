"""Every command in the documents is typed, in a copy of the project, and does what they show.

The ports and the Redis that they name are replaced by the test's own; nothing else is changed. The
commands of deploy/README.md are run by test_operations.py, but for those that are for root.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

import pytest

from tests.support.documents import DOCUMENTS, ROOT, Block, blocks, replaced
from tests.support.servers import RedisServer, free_ports, program, until
from tests.support.service import BIN, plain_environ

OPERATIONS = ROOT / "deploy" / "README.md"
BENCH = "takes minutes; test_bench.py runs its command, and each server, for a second"
ELSEWHERE = {
    "make test": "is what runs this test",
    "make lint": "runs in .ci/run, before the tests",
    "make bench": BENCH,
    "make tune": BENCH,
    "make lock": "asks a package registry for the newest versions, and so is another every day",
}
SERVED = re.compile(r"\bmake (run|fleet)\b")
MARK = "--- the next command ---"
MASKS = {
    r"^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$": "Date: …",
    r"^X-Request-ID: [0-9a-f]{32}$": "X-Request-ID: …",
}
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.db*")


def masked(text: str) -> str:
    """`text` without what differs from run to run, or from terminal to terminal."""
    text = text.replace("\r\n", "\n")
    for pattern, mask in MASKS.items():
        text = re.sub(pattern, mask, text, flags=re.MULTILINE)
    return text.rstrip("\n")


def typed(block: Block) -> str:
    """The lines of a script that are to be run here."""
    commands = [re.sub(r"\s+#.*", "", line) for line in block.text.splitlines()]
    return "\n".join(line for line in commands if line not in ELSEWHERE)


TYPED = [
    document
    for document in DOCUMENTS
    if document != OPERATIONS
    and any(block.language != "text" and typed(block) for block in blocks(document))
]


class Desk:
    """A copy of the project, and terminals in it: in one runs a service, in another commands."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.project = folder / "hasher"
        shutil.copytree(ROOT, self.project, ignore=LEFT_OUT)
        (self.project / ".venv").symlink_to(ROOT / ".venv")
        self.port, self.redis = free_ports(1)[0], redis
        self.env = plain_environ()
        self.log = folder / "log"
        self.service: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def bash(self, text: str) -> list[str]:
        """How a shell is started that ends with the first command that fails."""
        places = {
            "localhost:8000": f"localhost:{self.port}",
            "redis://127.0.0.1:6379": self.redis,
        }
        return [program("bash", "bash"), "-euo", "pipefail", "-c", replaced(text, places)]

    def do(self, block: Block) -> None:
        """What the reader of a block does."""
        if block.language == "console":
            self.follow(block)
        elif SERVED.search(block.text):
            self.serve(typed(block))
        elif block.language == "sh":
            self.run(typed(block))

    def run(self, script: str) -> str:
        """What a script prints on its standard output; it must succeed."""
        ended = subprocess.run(
            self.bash(script),
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def follow(self, block: Block) -> None:
        """Type the commands of a console in one shell; each prints what is shown."""
        script = "".join(f"{command}\nprintf '\\n{MARK}\\n'\n" for command, _ in block.steps)
        printed = self.run(script).split(f"\n{MARK}\n")
        for (command, shown), output in zip(block.steps, printed, strict=False):
            assert masked(output) == masked(shown), f"{block}: {command}"

    def serve(self, script: str) -> None:
        """Start a service, in place of the one that runs."""
        self.stop()
        with self.log.open("wb") as log:
            self.service = subprocess.Popen(
                self.bash(script),
                cwd=self.project,
                env={**self.env, "PORT": str(self.port)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self.is_served)

    def is_served(self) -> bool:
        """Whether it answers."""
        assert self.service
        assert self.service.poll() is None, self.log.read_text()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the service as Ctrl-C does, in every process of its terminal."""
        if self.service:
            os.killpg(self.service.pid, signal.SIGINT)
            self.service.wait(60)
            self.service = None


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Where a reader sits."""
    assert (ROOT / ".venv" / "bin").samefile(BIN), "The documents' commands use .venv."
    needed = {"curl": "curl", "openssl": "openssl", "nginx": "nginx", "make": "make"}
    for name, package in {**needed, "chromium": "chromium"}.items():
        program(name, package)
    with RedisServer(tmp_path / "redis") as server, Desk(tmp_path, server.url) as desk:
        yield desk


@pytest.mark.parametrize("document", TYPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_s_commands_do_what_it_shows(document: Path, desk: Desk) -> None:
    for block in blocks(document):
        desk.do(block)


def test_a_command_that_prints_something_else_is_found(desk: Desk) -> None:
    desk.follow(Block("x.md", "One", 1, "console", "$ echo a\na\n$ x=1\n$ echo $x\n1\n"))
    with pytest.raises(AssertionError, match=r"x.md, One, 1: echo b"):
        desk.follow(Block("x.md", "One", 1, "console", "$ echo a\na\n$ echo b\nc\n"))
    with pytest.raises(AssertionError, match="false"):
        desk.run("false\ntrue")


def test_what_is_not_typed_here_is_run_elsewhere() -> None:
    """Of deploy/README.md, test_operations.py runs the scripts.

    What is for root is run by nobody: it installs into /etc, and asks systemd, which a machine
    that tests need not have.
    """
    left = [block for block in blocks(OPERATIONS) if block.language != "text"]
    assert [str(block) for block in left if block.language != "sh" and not block.is_for_root] == []
    assert not [block for path in TYPED for block in blocks(path) if block.is_for_root]
    continuous = (ROOT / ".ci" / "run").read_text()
    left_out = [name for name in ELSEWHERE if f"\n{name}" not in continuous]
    assert left_out == ["make bench", "make tune", "make lock"]


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    lines = [line for path in TYPED for block in blocks(path) for line in block.text.splitlines()]
    commands = {re.sub(r"\s+#.*", "", line) for line in lines}
    assert set(ELSEWHERE) - commands == set()

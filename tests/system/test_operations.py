"""The commands of deploy/README.md, as they stand there, on a real service.

Its folders and its Redis are replaced by the test's own; nothing else is changed.
"""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.documents import blocks, replaced
from tests.support.load import Load
from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import RedisServer, free_ports, program, until
from tests.support.service import BIN, ROOT, Service

README = ROOT / "deploy" / "README.md"
SCRIPTS = [block for block in blocks(README) if block.language == "sh"]
BLOCKS = {block.heading: block.text for block in SCRIPTS}
TESTED = {
    "Back up",
    "Check the rules",
    "Copy",
    "Export",
    "HasherDamagedMessages",
    "PostgreSQL's own dump",
    "Redis' own snapshot",
    "Restore",
    "Restore a PostgreSQL dump",
    "Restore a Redis server",
    "Restore a SQLite file that cannot be read",
    "SQLite's own snapshot",
    "Verify the new store",
}


class Machine:
    """The README's folders and Redis, in places of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lib, self.backups = folder / "lib", folder / "backups"
        self.database = self.lib / "messages.db"
        self.redis = "redis://127.0.0.1:6379"
        self.postgresql = "postgresql://hasher@127.0.0.1:5432/hasher"
        for directory in (self.lib, self.backups):
            directory.mkdir()

    @property
    def store(self) -> str:
        """The URL of the SQLite store."""
        return f"sqlite:///{self.database}"

    def service(self, name: str = "log", **env: str) -> Service:
        """Two workers on it."""
        env = {"HASHER_STORE": self.store, "WEB_CONCURRENCY": "2", **env}
        return Service(self.folder / name, limits=None, **env)

    def run(self, heading: str, without: str | None = None) -> None:
        """Run the commands below this heading, but for lines with `without`; none may fail."""
        places = {
            "/opt/hasher": ROOT,
            "/var/lib/hasher": self.lib,
            "/var/backups/hasher": self.backups,
            "redis://127.0.0.1:6379": self.redis,
            "postgresql://hasher@127.0.0.1:5432/hasher": self.postgresql,
        }
        lines = BLOCKS[heading].splitlines()
        commands = "\n".join(line for line in lines if without is None or without not in line)
        ended = subprocess.run(
            [program("bash", "bash"), "-euc", replaced(commands, places)],
            env={**os.environ, "HASHER_STORE": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which nothing runs yet."""
    assert (ROOT / ".venv" / "bin").samefile(BIN), "The README's commands use .venv."
    return Machine(tmp_path)


@pytest.fixture
def redis(machine: Machine) -> Iterator[RedisServer]:
    """A Redis server that takes the place of the README's."""
    at_once = ("--repl-diskless-sync-delay", "0")  # rather than wait for more replicas
    with RedisServer(machine.folder / "redis", *at_once) as server:
        machine.redis = server.url
        yield server


def texts(service: Service, count: int = 100) -> list[str]:
    """Messages that were acknowledged."""
    sent = [f"kept {number}" for number in range(count)]
    assert {service.post(text).status for text in sent} == {201}
    return sent


def unread(service: Service, sent: list[str]) -> list[str]:
    """Those of the messages that the service does not give back."""
    names = {text: sha256(text.encode()).hexdigest() for text in sent}
    return [text for text, name in names.items() if service.get(name).status != 200]


def test_every_command_of_the_readme_is_run() -> None:
    assert set(BLOCKS) == TESTED
    assert len(SCRIPTS) == len(TESTED)


def test_the_rules_are_checked_as_the_readme_says(machine: Machine) -> None:
    program("promtool", "prometheus")
    machine.run("Check the rules")


def test_a_backup_under_load_restores_a_file_that_cannot_be_read(machine: Machine) -> None:
    with machine.service("first") as service:
        kept = texts(service)
        with Load(service) as load:
            until(lambda: load.has_sent(200))
            machine.run("Back up")
            machine.run("Export")
            machine.run("Back up")
        assert not load.lost()
        end(service)
    machine.database.write_bytes(b"This is not a database. " * 1000)
    machine.run("Restore a SQLite file that cannot be read")
    with machine.service("second") as service:
        assert unread(service, kept) == []
        service.assert_well()


def test_what_was_lost_comes_back_while_the_service_runs(machine: Machine) -> None:
    with machine.service() as service:
        kept = texts(service)
        machine.run("Back up")
        machine.run("Export")
        with closing(sqlite3.connect(machine.database)) as file:
            file.execute("DELETE FROM messages")
            file.commit()
        assert unread(service, kept) == kept
        machine.run("Restore")
        assert unread(service, kept) == []


def test_an_export_alone_is_a_backup(machine: Machine) -> None:
    with machine.service() as service:
        kept = texts(service)
        machine.run("Export")
    machine.database.unlink()
    machine.run("Restore", without="store copy")
    with machine.service("again") as service:
        assert unread(service, kept) == []


def test_sqlites_snapshot_is_whole_under_load(machine: Machine) -> None:
    program("sqlite3", "sqlite3")
    with machine.service() as service:
        kept = texts(service)
        with Load(service) as load:
            until(lambda: load.has_sent(200))
            machine.run("SQLite's own snapshot")
        assert not load.lost()
    url = f"sqlite:///{machine.backups}/snapshot.db"
    with machine.service("snapshot", HASHER_STORE=url) as service:
        assert unread(service, kept) == []


def test_damaged_messages_are_put_right_while_the_service_runs(machine: Machine) -> None:
    with machine.service() as service:
        kept = texts(service)
        machine.run("Back up")
        with closing(sqlite3.connect(machine.database)) as file:
            file.execute("UPDATE messages SET message = 'altered' WHERE rowid % 10 = 0")
            file.commit()
        assert len(unread(service, kept)) == 10
        with Load(service) as load:
            machine.run("HasherDamagedMessages")
        assert not load.lost()
        assert unread(service, kept) == []


def test_rediss_snapshot_restores_a_server(machine: Machine, redis: RedisServer) -> None:
    program("redis-cli", "redis-tools")
    with machine.service(HASHER_STORE=redis.url) as service:
        kept = texts(service)
        machine.run("Redis' own snapshot")
    folder = machine.folder / "restored"
    folder.mkdir()
    (machine.backups / "dump.rdb").rename(folder / "dump.rdb")
    with RedisServer(folder, "--appendonly", "no") as restored:
        machine.redis = restored.url
        machine.run("Restore a Redis server")
        until(lambda: is_rewritten(restored))
        restored.kill()
        restored.options = ("--appendonly", "yes")
        restored.start()
        with machine.service("again", HASHER_STORE=restored.url) as service:
            assert unread(service, kept) == []


def is_rewritten(server: RedisServer) -> bool:
    """Whether the append-only file has everything."""
    with closing(server.client()) as client:
        info = client.info("persistence")
        assert isinstance(info, dict)
        return bool(info["aof_enabled"] and not info["aof_rewrite_in_progress"])


def test_the_store_is_changed_under_load(
    machine: Machine, redis: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    """Two instances are restarted one by one, while clients of both write and read."""
    with ExitStack() as stack:
        ports = [str(port) for port in free_ports(2)]
        services = [stack.enter_context(machine.service(port, PORT=port)) for port in ports]
        with Load(services[0], clients=2) as one, Load(services[1], clients=2) as other:
            loads = (one, other)
            until_all_have_read(50, loads)
            machine.run("Copy")
            for port, service in zip(ports, services, strict=True):
                end(service)
                switched = machine.service(f"new {port}", PORT=port, HASHER_STORE=redis.url)
                stack.enter_context(switched)
            machine.run("Copy")
            until_all_have_read(50, loads)
        machine.run("Verify the new store")
        lost = [text for load in loads for text in load.lost()]
        for load in loads:
            record_property("SQLite to Redis", f"{load.said()}, {len(lost)} lost")
            assert set(load.outcomes) <= {200, 201, 404, 503, "failed"}
    assert lost == []


def until_all_have_read(count: int, loads: Sequence[Load]) -> None:
    """Wait until each has read back so many messages more."""
    goals = [(load, load.outcomes[200] + count) for load in loads]
    until(lambda: all(load.outcomes[200] > goal for load, goal in goals))


def end(service: Service) -> None:
    """Stop it as systemd would."""
    service.signal(signal.SIGTERM)
    assert service.process.wait(10) == 0


def test_a_postgresql_dump_is_restored_into_a_new_database(machine: Machine) -> None:
    with PostgreSQLServer() as server:
        machine.postgresql = server.url
        with machine.service(HASHER_STORE=server.url) as service:
            names = [service.post(f"message {number}").json["digest"] for number in range(20)]
            machine.run("PostgreSQL's own dump")
        server.execute("DROP TABLE hasher_messages")
        machine.run("Restore a PostgreSQL dump")
        with machine.service("restored", HASHER_STORE=server.url) as service:
            assert {service.get(name).status for name in names} == {200}
            assert service.post("message 0").status == 200

"""`make fleet`: Redis, three instances of hasher, and nginx in front of them, on this machine.

A program that ends is started again: kill one, and clients do not notice. Messages and logs stay in
the folder that is the one argument, `.fleet` in the checkout by default.
"""

import os
import pwd
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hasher_tune.processes import NotInTimeError, Process, listens, until

ROOT = Path(__file__).parents[1]
GRACE = 15  # seconds that a program has to stop
START = 15  # seconds that a program has to listen
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last if the terminal is closed
RESTART = 1  # seconds between two looks at what has ended


def configured(folder: Path, port: int, instances: Sequence[int]) -> str:
    """Return deploy/nginx.conf for this user, listening on `port`, in front of `instances`.

    nginx writes only to `folder`.
    """
    text = (ROOT / "deploy/nginx.conf").read_text()
    for number, instance in zip((8001, 8002, 8003), instances, strict=True):
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{instance}")
    changes = {
        "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};" if not os.getuid() else "",
        "listen 8000": f"listen 127.0.0.1:{port}",
        "/var/lib/nginx/messages": f"{folder}/cache",
        "/var/log/nginx": str(folder),
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "http {": f"http {{\n{temporary_paths(folder)}",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def temporary_paths(folder: Path) -> str:
    """Return directives for the folders that nginx makes at start: the usual ones are root's."""
    kinds = {"client_body": "body", "proxy": "proxy", "fastcgi": "fastcgi"}
    kinds |= {"uwsgi": "uwsgi", "scgi": "scgi"}
    return "".join(f"    {kind}_temp_path {folder}/{name};\n" for kind, name in kinds.items())


class Program(Process):
    """A program that is to run until the fleet stops."""

    def __init__(self, log: Path, port: int, *command: str, **env: str) -> None:
        super().__init__(command, log, cwd=ROOT, env={**os.environ, **env})
        self.name, self.port = log.stem, port

    def await_start(self) -> None:
        """Wait until it listens, or end in one line if it does not."""
        with suppress(NotInTimeError):
            until(lambda: listens(self.port) or not self.runs(), START)
        if not (self.runs() and listens(self.port)):
            sys.exit(f"{self.name} did not start: see {self.log_file}.")


class Nginx(Program):
    """nginx, which finishes its requests before it stops on this signal."""

    stop_signal = signal.SIGQUIT


def found(name: str, package: str) -> str:
    """Return the path of a program."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return path or sys.exit(f"{name} is not installed: install Debian's package {package}, say.")


def programs(folder: Path, port: int) -> list[Program]:
    """Return the programs of the fleet, in the order in which they start."""
    redis, nginx = found("redis-server", "redis-server"), found("nginx", "nginx")
    gunicorn = str(Path(sys.executable).parent / "gunicorn")
    instances, store = [port + 1, port + 2, port + 3], port + 4
    (folder / "nginx.conf").write_text(configured(folder, port, instances))
    settings = {
        "HASHER_STORE": f"redis://127.0.0.1:{store}",
        "HASHER_HOST": "127.0.0.1",
        "WEB_CONCURRENCY": os.environ.get("WEB_CONCURRENCY") or "1",
    }
    kept = ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
    here = ["--bind", "127.0.0.1", "--port", str(store)]
    files = ["-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    return [
        Program(folder / "redis.log", store, redis, *here, *kept),
        *(
            Program(folder / f"hasher-{n}.log", n, gunicorn, "wsgi:app", **settings, PORT=str(n))
            for n in instances
        ),
        Nginx(folder / "nginx.log", port, nginx, *files, "-g", "daemon off;"),
    ]


def require_free(ports: Sequence[int]) -> None:
    """End with one line if another program has one of the ports."""
    for port in ports:
        if listens(port):
            sys.exit(f"Port {port} is in use: stop what listens there, or set PORT.")


def watch(fleet: Sequence[Program]) -> None:
    """Start every program that ends again, for ever."""
    while True:
        for program in fleet:
            if not program.runs():
                program.kill()
                program.start()
                print(f"{program.name} has ended: it is started again.", flush=True)
        time.sleep(RESTART)


def on_end(act: Any) -> None:
    """Have the signals that end the fleet handled so."""
    for number in ENDS:
        signal.signal(number, act)


def main() -> None:
    """Run the fleet until Ctrl-C, SIGTERM, or the end of its terminal."""
    port = int(os.environ.get("PORT") or 8000)
    require_free(range(port, port + 5))
    folder = Path(sys.argv[1] if sys.argv[1:] else ROOT / ".fleet").absolute()
    folder.mkdir(exist_ok=True)
    fleet = programs(folder, port)
    on_end(signal.default_int_handler)
    started: list[Program] = []
    try:
        for program in fleet:
            program.start()
            started.append(program)
            program.await_start()
            print(f"{program.name:12} 127.0.0.1:{program.port}  {program.process.pid}", flush=True)
        print(f"hasher is at http://127.0.0.1:{port}; Ctrl-C stops everything.", flush=True)
        watch(fleet)
    except KeyboardInterrupt:
        on_end(signal.SIG_IGN)
        print("Stopping.", flush=True)
    finally:
        on_end(signal.SIG_IGN)
        for program in reversed(started):
            program.terminate(GRACE)


if __name__ == "__main__":
    main()

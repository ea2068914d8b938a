"""What users install: wheels, and an image that is built and run without a daemon or a registry."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import free_ports, program, skip, until
from tests.support.service import ROOT, Service, plain_environ

PACKAGES = ("hasher", "hasher_tune", "leader_worker")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "requirements.txt")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
# What the Containerfile needs of its base, from Debian 12. Nothing is configured, which is quick.
SUITE, PYTHON = "bookworm", "3.11"
BASE = ["--quiet", "--variant=extract", "--include=coreutils,dash,python3-venv"]
COMPLETE = """--customize-hook=cd "$1"
    rm -r usr/share/doc usr/share/locale usr/share/man
    mkdir tmp
    ln -s dash bin/sh"""
FROM_BASE = "FROM scratch\nADD base.tar /\n"


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Return what the program prints; fail with what it says if it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


class Wheels:
    """A folder with hasher's wheel, the wheels of all that it needs, and what builds one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "wheels"
        self.folder.mkdir()
        self.options = f"--no-index --find-links {self.folder}"
        self.fetched: set[str] = set()

    def fetch(self, python: str) -> None:
        """Add what requirements.txt names, for this version of Python, unless it is there."""
        if python in self.fetched:
            return
        self.fetched.add(python)
        chosen = ["--only-binary=:all:", "--no-deps", "--python-version", python]
        to = ["--dest", str(self.folder)]
        pinned = ["--require-hashes", "-r", str(ROOT / "requirements.txt")]
        run(*PIP, "download", *chosen, *to, *pinned)
        run(*PIP, "download", "--no-deps", *to, "setuptools>=77")

    def build(self, folder: Path) -> Path:
        """Build hasher's own from a copy of the sources, and return it."""
        copied(folder)
        find = self.options.split()
        run(*PIP, "wheel", "--no-deps", *find, "--wheel-dir", self.folder, folder)
        (wheel,) = self.folder.glob("hasher-*.whl")
        return wheel


def copied(folder: Path) -> None:
    """Copy to `folder` what the wheel and the image are made of: a build writes beside it."""
    folder.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder)


@dataclass(frozen=True)
class Image:
    """A built image: its root file system, and how it is to be run."""

    root: Path
    config: Mapping[str, Any]
    added: int
    """How many bytes it has on top of its base."""


class Buildah:
    """buildah with its storage in a folder."""

    def __init__(self, folder: Path) -> None:
        executable = program("buildah", "buildah")
        if os.geteuid():
            skip("An image is built and run without a daemon, which takes root.")
        storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self.command = [executable, "--storage-driver", "vfs", *storage]

    def build(self, name: str, folder: Path, *options: str) -> None:
        """Build an image, in the format that can have a health check."""
        usual = ["--isolation", "chroot", "--format", "docker", "--tag", name]
        run(*self.command, "build", *usual, *options, folder)

    def root(self, name: str) -> Path:
        """Return a root file system of an image."""
        container = run(*self.command, "from", name).strip()
        return Path(run(*self.command, "mount", container).strip())

    def config(self, name: str) -> Any:
        """Return how an image is to be run, as its maker has said."""
        inspected = json.loads(run(*self.command, "inspect", "--type", "image", name))
        return inspected["Docker"]["config"]


def built_image(folder: Path, wheels: Wheels) -> Image:
    """Build the Containerfile, from `wheels`, on a base of Debian's packages."""
    buildah = Buildah(folder)
    base = folder / "base"
    base.mkdir()
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(wheels.fetch, PYTHON)
        make_base(base / "base.tar")
        fetched.result()
    (base / "Containerfile").write_text(FROM_BASE)
    buildah.build("base", base)
    copied(folder / "context")
    options = "--no-index --find-links /wheels"
    buildah.build(
        "hasher",
        folder / "context",
        f"--file={ROOT / 'Containerfile'}",
        "--build-arg=BASE=localhost/base",
        f"--build-arg=PIP_OPTIONS={options}",
        f"--volume={wheels.folder}:/wheels:ro",
    )
    with tarfile.open(base / "base.tar") as tar:
        without = sum(member.size for member in tar)
    root = buildah.root("hasher")
    return Image(root, buildah.config("hasher"), size(root) - without)


def make_base(tar: Path) -> None:
    """Make a root file system with Python."""
    command = [program("mmdebstrap", "mmdebstrap"), *BASE, COMPLETE, SUITE, str(tar)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        skip(f"mmdebstrap cannot make a base here: {ended.stderr.strip()[-200:]}")


def size(root: Path) -> int:
    """Return how many bytes the files below `root` have."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


# A container by hand: namespaces of its own, a read-only root, /dev as runtimes make it, a user.
START = """
set -e
root=$1 data=$2 secrets=$3 user=$4; shift 4
mount --bind "$root" "$root"
mkdir -p "$root/run/secrets"
mount --bind "$secrets" "$root/run/secrets"
mount --bind "$data" "$root/data"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START, "sh"]


@dataclass(frozen=True)
class Volumes:
    """The folders of a container's: what it keeps, and the secrets it is given."""

    data: Path
    secrets: Path

    @classmethod
    def made(cls, folder: Path, user: str) -> "Volumes":
        """Make them, the first one the user's own as a new volume would be."""
        volumes = cls(folder / "data", folder / "secrets")
        volumes.data.mkdir()
        volumes.secrets.mkdir()
        os.chown(volumes.data, *map(int, user.split(":")))
        return volumes


def command_of(image: Image, volumes: Volumes, words: Sequence[str], **env: str) -> list[str]:
    """Return the command that runs `words` in a container of the image."""
    config = image.config
    set_up = [*config["Env"], *(f"{name}={value}" for name, value in env.items())]
    mounts = [str(image.root), str(volumes.data), str(volumes.secrets), config["User"]]
    inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', config["WorkingDir"], *words]
    return [*ALONE, *mounts, "/usr/bin/env", "-i", *set_up, *inside]


class Container(Service):
    """A service in a container of the image, on a free port."""

    def __init__(self, image: Image, volumes: Volumes, log: Path, **env: str) -> None:
        self.log_file = log
        (self.port,) = free_ports(1)
        words = [*image.config["Entrypoint"], *image.config["Cmd"]]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command_of(image, volumes, words, **{"PORT": str(self.port), **env}),
                env=plain_environ(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_listening(self) -> bool:
        """Whether it lives; that it answers is waited for by all services."""
        assert self.process.poll() is None, self.log
        return True

    @property
    def first(self) -> int:
        """The id, outside, of the container's process 1."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return int(until(children.read_text))

    def stop(self) -> int:
        """Send SIGTERM to process 1, and return the exit status."""
        os.kill(self.first, 15)
        return self.process.wait(10)


def run_in(image: Image, volumes: Volumes, *words: str, **env: str) -> tuple[int, str]:
    """Return the exit status of a command in a container, and what it has said."""
    ended = subprocess.run(
        command_of(image, volumes, words, **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout

"""What users install: the wheel in an empty environment, and the image in a container."""

import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.package import (
    PACKAGES,
    PIP,
    Container,
    Image,
    Volumes,
    Wheels,
    built_image,
    run,
    run_in,
)
from tests.support.servers import PATIENCE, until
from tests.support.service import ROOT, Service

pytestmark = pytest.mark.timeout(600)  # they are built once, by the first test that needs them
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MB = 1_000_000
FOO = sha256(b"foo").hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what is built, which is large and so is not kept."""
    made = tmp_path_factory.mktemp("package")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def wheels(folder: Path) -> Wheels:
    """Wheels, of which none is there yet."""
    return Wheels(folder)


@pytest.fixture(scope="module")
def installed(folder: Path, wheels: Wheels) -> Path:
    """The programs of an environment in which nothing but the wheel was asked for."""
    wheels.fetch(f"{sys.version_info.major}.{sys.version_info.minor}")
    wheel = wheels.build(folder / "sources")
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = str(environment / "bin" / "python")
    run(*PIP, "--python", python, "install", *wheels.options.split(), f"{wheel}[metrics]")
    return environment / "bin"


class Installed(Service):
    """`hasher serve` of an environment, away from the repository."""

    def __init__(self, programs: Path, folder: Path, *options: str, **env: str) -> None:
        self.cwd = folder
        command = [str(programs / "hasher"), "serve"]
        super().__init__(folder / "log", *options, command=command, **env)  # type: ignore[arg-type] # none is "limits"


@pytest.fixture
def serving(installed: Path, tmp_path: Path) -> Iterator[Installed]:
    """A service of the installed wheel, with two workers."""
    store = f"sqlite:///{tmp_path}/messages.db"
    with Installed(installed, tmp_path, "--workers", "2", HASHER_STORE=store) as running:
        yield running


def test_the_wheel_serves_messages_and_the_page(serving: Installed) -> None:
    assert serving.post("foo").json == {"digest": FOO}
    until(lambda: len(serving.workers()) == 2)
    for path in ("/", "/docs", "/openapi.json", "/page/page.js", "/metrics"):
        assert serving.request("GET", path).status == 200
    assert "Traceback" not in serving.log


def test_the_installed_command_keeps_its_options_at_a_reload(serving: Installed) -> None:
    until(lambda: len(serving.workers()) == 2)
    first = serving.workers()
    serving.signal(signal.SIGHUP)
    until(lambda: len(serving.workers()) == 2 and not {*serving.workers()}.intersection(first))
    serving.assert_well()


def test_a_second_master_of_the_installed_command_takes_over(serving: Installed) -> None:
    until(lambda: len(serving.workers()) == 2)
    serving.signal(signal.SIGUSR2)
    until(lambda: len(serving.workers()) == 4)
    serving.signal(signal.SIGTERM)
    assert serving.process.wait(PATIENCE) == 0
    serving.assert_well()


def test_the_installed_command_looks_after_the_store(serving: Installed, installed: Path) -> None:
    serving.post("foo")
    env = {"HASHER_STORE": f"sqlite:///{serving.log_file.parent}/messages.db"}
    assert run(installed / "hasher", "store", "get", FOO, env=env) == "foo"
    assert run(installed / "hasher", "--version") == f"hasher, version {VERSION}\n"


def test_the_installed_command_can_tune(installed: Path) -> None:
    """The search itself is tested in the checkout; it starts this command."""
    assert run(installed / "hasher", "tune", "--help").startswith("usage: hasher tune ")
    assert run(installed / "python", "-m", "hasher", "--version") == (
        f"hasher, version {VERSION}\n"
    )


def test_the_wheel_has_its_three_packages_and_no_other(installed: Path) -> None:
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    (about,) = packages.glob("hasher-*.dist-info")
    assert (about / "top_level.txt").read_text().split() == [*PACKAGES]


@pytest.fixture(scope="module")
def image(folder: Path, wheels: Wheels) -> Image:
    """The image that the Containerfile describes."""
    return built_image(folder, wheels)


@pytest.fixture
def volumes(image: Image, tmp_path: Path) -> Volumes:
    """Empty volumes."""
    return Volumes.made(tmp_path, image.config["User"])


@pytest.fixture
def container(image: Image, volumes: Volumes, tmp_path: Path) -> Iterator[Container]:
    """A container with the image's own settings."""
    with Container(image, volumes, tmp_path / "log") as running:
        yield running


def test_the_image_is_small_and_says_what_it_is(image: Image) -> None:
    assert image.added < 150 * MB
    assert image.config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert image.config["Volumes"] == {"/data": {}}
    assert image.config["ExposedPorts"] == {"8000/tcp": {}}


def test_a_container_serves_the_transcript(container: Container) -> None:
    missing = container.get(FOO)
    assert (missing.status, missing.body) == (404, b'{"error":"Message not found."}\n')
    assert (container.post("foo").status, container.get(FOO).json) == (201, {"message": "foo"})
    assert container.request("GET", "/").status == 200


def test_a_container_has_no_rights(container: Container) -> None:
    status = Path(f"/proc/{container.first}/status").read_text()
    uids = re.findall(r"^[UG]id:\t(\d+)\t", status, re.MULTILINE)
    assert uids == ["10001", "10001"]
    assert len(re.findall(r"^Cap(?:Prm|Eff):\t0+$", status, re.MULTILINE)) == 2
    mounts = Path(f"/proc/{container.first}/mountinfo").read_text()
    assert re.search(r"^\d+ \d+ \S+ \S+ / ro,", mounts, re.MULTILINE)


def test_a_container_that_is_stopped_keeps_its_messages(
    image: Image, volumes: Volumes, container: Container, tmp_path: Path
) -> None:
    assert container.post("foo").status == 201
    assert container.stop() == 0
    with Container(image, volumes, tmp_path / "second") as second:
        assert second.post("foo").status == 200


def test_the_health_check_tells_whether_it_lives(
    image: Image, volumes: Volumes, container: Container
) -> None:
    kind, *check = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    port = str(container.port)
    assert run_in(image, volumes, *check, PORT=port) == (0, "")
    assert container.stop() == 0
    assert run_in(image, volumes, *check, PORT=port)[0] == 1


def test_secrets_are_read_from_files(image: Image, volumes: Volumes, tmp_path: Path) -> None:
    (volumes.secrets / "tokens").write_text("secret\n")
    tokens = {"HASHER_WRITE_TOKENS_FILE": "/run/secrets/tokens"}
    with Container(image, volumes, tmp_path / "log", **tokens) as running:
        assert running.post("foo").status == 401
        allowed = {"Authorization": "Bearer secret", "Content-Type": "text/plain"}
        assert running.request("POST", "/messages", b"foo", allowed).status == 201


def test_the_image_has_the_other_commands(image: Image, volumes: Volumes) -> None:
    store = (*image.config["Entrypoint"], "store")
    status, said = run_in(image, volumes, *store, "stats")
    assert (status, said.count("does not exist")) == (1, 1)
    assert run_in(image, volumes, *store, "put")[0] == 0
    status, said = run_in(image, volumes, *store, "stats")
    assert (status, "messages: 1" in said.splitlines()) == (0, True)

"""Settings: their values, their errors, and that docs/settings.md tells them as they are."""

import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from hasher.cpus import available_cpus
from hasher.settings import InvalidSetting, Settings, allowed

TOLD = Path(__file__).parents[2] / "docs" / "settings.md"


def test_nothing_set_is_the_default() -> None:
    settings = Settings.from_environ({})
    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (str(settings.store), settings.workers, settings.threads) == ("memory://", 1, 8)
    assert settings.memory_limit == 256 * 1024 * 1024
    assert settings.max_message_bytes == 1024 * 1024


def test_an_empty_variable_is_not_set() -> None:
    names = [field.encode_name for field in msgspec.structs.fields(Settings)]
    assert Settings.from_environ(dict.fromkeys(names, "")) == Settings()


def test_variables_are_read_and_converted() -> None:
    settings = Settings.from_environ(
        {"HASHER_THREADS": "3", "HASHER_MEMORY_LIMIT": "1000", "HASHER_MAX_MESSAGE_BYTES": "7"}
    )
    assert (settings.threads, settings.memory_limit, settings.max_message_bytes) == (3, 1000, 7)


def test_a_platform_that_sets_the_port_is_listened_to_from_outside() -> None:
    everywhere = "0.0.0.0"  # noqa: S104
    assert Settings.from_environ({"PORT": "5000"}).host == everywhere
    assert Settings.from_environ({"PORT": "5000", "HASHER_HOST": "::1"}).host == "::1"


@pytest.mark.parametrize("asked", ["", "0", "1", "2", "64"])
def test_a_store_in_one_process_has_one_worker(asked: str) -> None:
    assert Settings.from_environ({"WEB_CONCURRENCY": asked}).workers == 1


def test_cpus_are_those_that_this_process_may_use() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        ({"": "max 100000"}, 8),
        ({"": "200000 100000"}, 2),
        ({"": "150000 100000"}, 2),
        ({"": "10000 100000"}, 1),
        ({"a/b": "300000 100000", "a": "max 100000"}, 3),
        ({"a/b": "max 100000", "a": "100000 100000"}, 1),
        ({"": "1600000 100000"}, 8),
        ({"": "nothing of that kind"}, 8),
        ({}, 8),
    ],
)
def test_cpus_are_those_that_the_control_group_allows(
    limits: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(f"{limit}\n")
    assert available_cpus(tmp_path, own="/a/b\n") == cpus


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "HASHER_THREADS",
            "many",
            "HASHER_THREADS must be a whole number from 1 to 1024, got 'many'.",
        ),
        ("HASHER_THREADS", "0", "HASHER_THREADS must be a whole number from 1 to 1024, got '0'."),
        ("PORT", "99999", "PORT must be a whole number from 0 to 65535, got '99999'."),
        ("PORT", "80 ", "PORT must be a whole number from 0 to 65535, got '80 '."),
        (
            "WEB_CONCURRENCY",
            "-1",
            "WEB_CONCURRENCY must be a whole number from 0 to 1024, got '-1'.",
        ),
        (
            "HASHER_THREADS",
            "1e3",
            "HASHER_THREADS must be a whole number from 1 to 1024, got '1e3'.",
        ),
        ("HASHER_ACCESS_LOG", "xml", "HASHER_ACCESS_LOG must be json, text or off, got 'xml'."),
        ("HASHER_METRICS", "1", "HASHER_METRICS must be on or off, got '1'."),
        (
            "HASHER_WRITE_TOKENS",
            "secret!",
            (
                "HASHER_WRITE_TOKENS must be tokens of letters, digits and -._~+/ "
                "(= at their ends), separated by commas."
            ),
        ),
        ("HASHER_HOST", "\udcff", "HASHER_HOST must be UTF-8."),
        ("PORT", "\udcff", "PORT must be UTF-8."),
        ("HASHER_STORE", "sqlite:///\udcff", "HASHER_STORE must be UTF-8."),
        (
            "HASHER_STORE",
            "foo://user:secret@x",
            (
                "HASHER_STORE must start with one of memory://, sqlite://, redis://, rediss://, "
                "redis+cluster://, postgresql://."
            ),
        ),
    ],
)
def test_a_bad_value_ends_the_start_with_one_line(name: str, value: str, line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        Settings.from_environ({name: value})
    assert isinstance(ended.value, InvalidSetting)
    assert ended.value.code == line


@pytest.mark.parametrize(
    ("host", "bind"),
    [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("name", "name:1")],
)
def test_addresses_of_both_kinds_can_be_listened_on(host: str, bind: str) -> None:
    assert Settings(host=host, port=1).bind == bind


@pytest.mark.parametrize("asked", ["", "1", "3"])
def test_a_shared_store_has_the_workers_that_were_asked_for(asked: str) -> None:
    settings = Settings.from_environ({"WEB_CONCURRENCY": asked, "HASHER_STORE": "sqlite:///x"})
    assert settings.workers == int(asked or available_cpus())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ()),
        ("a", (b"a",)),
        ("a,b", (b"a", b"b")),
        ("dG9rZW4= , x-._~+/", (b"dG9rZW4=", b"x-._~+/")),
    ],
)
def test_write_tokens_are_separated_by_commas(text: str, tokens: tuple[bytes, ...]) -> None:
    assert Settings.from_environ({"HASHER_WRITE_TOKENS": text}).tokens == tokens


@pytest.mark.parametrize("text", [",", "a,", ",a", "a b", "=", "ü", "a\nb"])
def test_what_no_client_could_send_is_no_token(text: str) -> None:
    with pytest.raises(InvalidSetting, match="HASHER_WRITE_TOKENS must be tokens"):
        Settings.from_environ({"HASHER_WRITE_TOKENS": text})


def test_a_secret_can_be_in_a_file(tmp_path: Path) -> None:
    store, tokens = tmp_path / "store", tmp_path / "tokens"
    store.write_text("sqlite:////data/messages.db\n")
    tokens.write_text("a,b\n")
    files = {"HASHER_STORE_FILE": str(store), "HASHER_WRITE_TOKENS_FILE": str(tokens)}
    settings = Settings.from_environ({**files, "HASHER_STORE": "", "HASHER_WRITE_TOKENS": ""})
    assert (str(settings.store), settings.tokens) == ("sqlite:////data/messages.db", (b"a", b"b"))


@pytest.mark.parametrize("name", ["HASHER_STORE", "HASHER_WRITE_TOKENS"])
def test_a_secret_is_in_one_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting) as ended:
        Settings.from_environ({name: "memory://", f"{name}_FILE": str(tmp_path / "none")})
    assert ended.value.code == f"{name} and {name}_FILE are both set: set one of them."


@pytest.mark.parametrize("name", ["HASHER_STORE", "HASHER_WRITE_TOKENS"])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "must name a file that can be read (No such file or directory)"),
        (b"\xff", "must name a file that can be read (it is not UTF-8)"),
        (b"", "must not name an empty file"),
        (b" \n", "must not name an empty file"),
    ],
)
def test_a_file_without_a_secret_ends_the_start(
    name: str, content: bytes | None, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidSetting) as ended:
        Settings.from_environ({f"{name}_FILE": str(file)})
    assert ended.value.code == f"{name}_FILE {fault}."


@pytest.mark.parametrize(
    ("name", "secret"),
    [("HASHER_STORE", "foo://user:secret@x"), ("HASHER_WRITE_TOKENS", "secret!")],
)
def test_what_is_wrong_with_a_secret_of_a_file_is_said_without_it(
    name: str, secret: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(secret)
    with pytest.raises(InvalidSetting, match=f"^{name} must ") as ended:
        Settings.from_environ({f"{name}_FILE": str(file)})
    assert "secret" not in str(ended.value.code)


def test_only_secrets_are_in_files() -> None:
    assert Settings.from_environ({"HASHER_THREADS_FILE": "/none"}) == Settings()


def test_metrics_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidSetting, match="HASHER_METRICS=on needs the package"):
        Settings.from_environ({})
    assert Settings.from_environ({"HASHER_METRICS": "off"}).metrics == "off"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().threads = 3  # type: ignore[misc]


def test_the_documents_list_every_setting_as_it_is() -> None:
    told = re.findall(
        r"^\| `([A-Z_]+)` \| `?([^`|]*?)`? \| ([^|]*) \| ([^|]*) \|$",
        TOLD.read_text(),
        re.MULTILINE,
    )
    assert told == [
        (
            field.encode_name,
            str(field.default),
            allowed(field).removeprefix("a whole number from "),
            field.type.__metadata__[0].description,
        )
        for field in msgspec.structs.fields(Settings)
    ]

"""Every setting: an environment variable, typed and validated, documented once."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from hasher.cpus import available_cpus
from hasher.stores import Location, Resources, locate
from hasher.stores.memory import MemoryLocation

MiB = 1024 * 1024
YEAR = 365 * 24 * 60 * 60  # seconds
# What a bearer token can consist of (RFC 6750, section 2.1), one or several.
TOKENS = r"^[A-Za-z0-9._~+/-]+=*( *, *[A-Za-z0-9._~+/-]+=*)*\Z"

# Each can also be in a file, whose path is in the variable of this name and _FILE.
SECRETS = "HASHER_STORE", "HASHER_WRITE_TOKENS"


class InvalidSetting(SystemExit):
    """A bad setting, which ends the start: Python prints the line and exits with status 1."""


class Settings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "store": "HASHER_STORE",
        "memory_limit": "HASHER_MEMORY_LIMIT",
        "max_message_bytes": "HASHER_MAX_MESSAGE_BYTES",
        "max_bulk_bytes": "HASHER_MAX_BULK_BYTES",
        "max_bulk_messages": "HASHER_MAX_BULK_MESSAGES",
        "write_tokens": "HASHER_WRITE_TOKENS",
        "max_age": "HASHER_MAX_AGE",
        "access_log": "HASHER_ACCESS_LOG",
        "metrics": "HASHER_METRICS",
        "web_concurrency": "WEB_CONCURRENCY",
        "threads": "HASHER_THREADS",
        "cpu_affinity": "HASHER_CPU_AFFINITY",
        "port": "PORT",
        "host": "HASHER_HOST",
        "drain_seconds": "HASHER_DRAIN_SECONDS",
    },
):
    """The settings of one process. An empty variable counts as unset.

    The table in docs/settings.md has one row for each, and a test compares the two.
    """

    store: Annotated[Location, Meta(description="where messages are kept")] = MemoryLocation()
    memory_limit: Annotated[
        int,
        Meta(ge=1, le=2**50, description="the memory that `memory://` may fill, in bytes"),
    ] = 256 * MiB
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=2**28,
            description="the largest body of one message, and the largest of many, in bytes",
        ),
    ] = 1 * MiB
    max_bulk_bytes: Annotated[
        int,
        Meta(ge=1, le=2**30, description="the largest body of many messages, in bytes"),
    ] = 16 * MiB
    max_bulk_messages: Annotated[
        int,
        Meta(ge=1, le=10**7, description="the most lines of a body of many messages"),
    ] = 100_000
    write_tokens: Annotated[
        str,
        Meta(
            pattern=TOKENS,
            description="tokens, separated by commas, of which `POST` needs one; "
            "empty: everybody may store",
        ),
    ] = ""
    max_age: Annotated[
        int,
        Meta(
            ge=0,
            le=YEAR,
            description="for how many seconds caches and browsers may keep a message",
        ),
    ] = YEAR
    access_log: Annotated[
        Literal["json", "text", "off"],
        Meta(description="a line on standard output for each request"),
    ] = "off"
    metrics: Annotated[
        Literal["on", "off"], Meta(description="whether to count, and to serve `/metrics`")
    ] = "on"
    web_concurrency: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="worker processes; `0`: one for each CPU, or 1 with `memory://`",
        ),
    ] = 0
    threads: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="threads of each worker: requests it answers at once; two run at least",
        ),
    ] = 8
    cpu_affinity: Annotated[
        int,
        Meta(
            ge=0,
            le=1,
            description="`1`: each worker stays on one core, which must not be shared with others",
        ),
    ] = 0
    port: Annotated[
        int, Meta(ge=0, le=65535, description="the port to listen on; `0`: any free one")
    ] = 8000
    host: Annotated[
        str,
        Meta(
            description="the address to listen on; `0.0.0.0` by default if `PORT` is set, "
            "as a platform does"
        ),
    ] = "127.0.0.1"
    drain_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="how long from `SIGTERM` on `/readyz` fails while all else is served",
        ),
    ] = 1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return the settings in `environ`. InvalidSetting names the first bad variable."""
        environ = {**environ, **secrets_in(environ)}
        values: dict[str, Any] = {}
        if environ.get("PORT"):
            values["host"] = "0.0.0.0"  # noqa: S104 - a platform that sets PORT routes to it
        for field in msgspec.structs.fields(cls):
            if text := environ.get(field.encode_name):
                values[field.name] = converted(text, field)
        settings = cls(**values)
        if settings.metrics == "on" and not find_spec("prometheus_client"):
            raise InvalidSetting(
                "HASHER_METRICS=on needs the package prometheus-client: "
                "pip install prometheus-client, or set HASHER_METRICS=off."
            )
        return settings

    @property
    def bind(self) -> str:
        """The address and port, as gunicorn takes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shared(self) -> bool:
        """Whether several workers see the same messages."""
        return self.store.shared

    @property
    def tokens(self) -> tuple[bytes, ...]:
        """Each of the write tokens."""
        return tuple(token.strip().encode() for token in self.write_tokens.split(",") if token)

    @property
    def resources(self) -> Resources:
        """What the store of one process may use."""
        # A worker runs two threads at least (leader_worker/threads.py).
        return Resources(memory_limit=self.memory_limit, threads=max(2, self.threads))

    @property
    def workers(self) -> int:
        """How many worker processes to start: one if each would have a store of its own."""
        if not self.shared:
            return 1
        return self.web_concurrency or available_cpus()


def secrets_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of all secrets, and read those that are in files."""
    secrets = {}
    for name in SECRETS:
        text, path = environ.get(name, ""), environ.get(f"{name}_FILE")
        if text and path:
            raise InvalidSetting(f"{name} and {name}_FILE are both set: set one of them.")
        secrets[name] = read_secret(name, path) if path else text
        secrets[f"{name}_FILE"] = ""
    return secrets


def read_secret(name: str, path: str) -> str:
    """Return the text of the file at `path`. InvalidSetting if it has none.

    No error repeats the path: it could be the secret itself, by mistake.
    """
    try:
        text = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidSetting(f"{name}_FILE must name a file that can be read ({reason}).") from None
    if not text:
        raise InvalidSetting(f"{name}_FILE must not name an empty file.")
    return text


def converted(text: str, field: FieldInfo) -> Any:
    """Return the value of one variable. InvalidSetting says what is allowed."""
    try:
        text.encode()  # bytes that are not UTF-8 are surrogates here, which no value can have
        if field.name == "store":
            return locate(text)
        is_number = text.removeprefix("-").isdecimal()
        return msgspec.convert(text, field.type, strict=not is_number)
    except UnicodeEncodeError:
        raise InvalidSetting(f"{field.encode_name} must be UTF-8.") from None
    except msgspec.ValidationError:
        raise InvalidSetting(f"{field.encode_name} must be {wanted(text, field)}.") from None
    except ValueError as error:
        raise InvalidSetting(f"{field.encode_name} {error}.") from None


def wanted(text: str, field: FieldInfo) -> str:
    """Return, in words, what the value of one variable must be and what it was.

    It does not repeat the text of a store's URL or of tokens, which are or hold secrets.
    """
    if field.name == "write_tokens":
        return "tokens of letters, digits and -._~+/ (= at their ends), separated by commas"
    return f"{allowed(field)}, got {text[:40]!r}"


def allowed(field: FieldInfo) -> str:
    """Return, in words, what the value of one variable can be."""
    meta: Meta = field.type.__metadata__[0]
    kind = field.type.__origin__
    if kind is int:
        return f"a whole number from {meta.ge} to {meta.le}"
    choices = get_args(kind)
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if choices else "text"

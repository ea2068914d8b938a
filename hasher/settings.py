"""Every setting: an environment variable, typed and validated, documented once."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from hasher.stores import Means, store_class

MiB = 1024 * 1024


class InvalidSetting(SystemExit):
    """Ends the start: Python prints the one line and exits with status 1."""


class Settings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "store": "HASHER_STORE",
        "memory_limit": "HASHER_MEMORY_LIMIT",
        "max_message_bytes": "HASHER_MAX_MESSAGE_BYTES",
        "web_concurrency": "WEB_CONCURRENCY",
        "threads": "HASHER_THREADS",
        "port": "PORT",
        "host": "HASHER_HOST",
    },
):
    """The settings of one process. An empty variable counts as one that is not set.

    The README's table has one row for each, and a test compares the two.
    """

    store: Annotated[str, Meta(description="where messages are kept")] = "memory://"
    memory_limit: Annotated[
        int,
        Meta(ge=1, le=2**50, description="the memory that `memory://` may fill, in bytes"),
    ] = 256 * MiB
    max_message_bytes: Annotated[
        int,
        Meta(ge=1, le=2**28, description="the largest body that `POST` takes, in bytes"),
    ] = 1 * MiB
    web_concurrency: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="worker processes; `0`: one for each CPU, or 1 with `memory://`",
        ),
    ] = 0
    threads: Annotated[
        int, Meta(ge=1, le=1024, description="threads of each worker: requests it answers at once")
    ] = 8
    port: Annotated[
        int, Meta(ge=0, le=65535, description="the port to listen on; `0`: any free one")
    ] = 8000
    host: Annotated[
        str,
        Meta(
            description="the address to listen on; `0.0.0.0` by default where `PORT` is set, "
            "as a platform does"
        ),
    ] = "127.0.0.1"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The settings in `environ`; InvalidSetting names the first variable that is wrong."""
        values: dict[str, Any] = {}
        if environ.get("PORT"):
            values["host"] = "0.0.0.0"  # noqa: S104 - a platform that sets PORT routes to it
        for field in msgspec.structs.fields(cls):
            if text := environ.get(field.encode_name):
                values[field.name] = converted(text, field)
        return cls(**values)

    @property
    def bind(self) -> str:
        """The address and port, as gunicorn takes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shared(self) -> bool:
        """Whether several workers see the same messages."""
        return store_class(self.store).shared

    @property
    def means(self) -> Means:
        """What the store of one process may use."""
        return Means(memory_limit=self.memory_limit, threads=self.threads)

    @property
    def workers(self) -> int:
        """How many worker processes to start: never more than one where each has its own store."""
        if not self.shared:
            return 1
        return self.web_concurrency or available_cpus()


def converted(text: str, field: FieldInfo) -> Any:
    """The value of one variable, or InvalidSetting with what is allowed.

    The text of a store's URL is not repeated: it may hold a password.
    """
    try:
        if field.name == "store":
            store_class(text)
        is_number = text.removeprefix("-").isdecimal()
        return msgspec.convert(text, field.type, strict=not is_number)
    except msgspec.ValidationError:
        meta: Meta = field.type.__metadata__[0]
        fault = f"must be a whole number from {meta.ge} to {meta.le}, got {text[:40]!r}"
        raise InvalidSetting(f"{field.encode_name} {fault}.") from None
    except ValueError as error:
        raise InvalidSetting(f"{field.encode_name} {error}.") from None


def available_cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

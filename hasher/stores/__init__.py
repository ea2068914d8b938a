"""Where messages are kept. One URL chooses the store; each driver is one module."""

from importlib import import_module

from hasher.stores.driver import (
    DamagedMessage,
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    TakenDown,
    Unusable,
)

__all__ = [
    "DamagedMessage",
    "Driver",
    "Location",
    "Outcome",
    "Resources",
    "StoreFull",
    "Stored",
    "TakenDown",
    "Unusable",
    "locate",
]

# A module is imported when its scheme is named: a client is an extra, and takes 0.1 s to import.
LOCATIONS = {
    "memory": ("hasher.stores.memory", "MemoryLocation"),
    "sqlite": ("hasher.stores.sqlite", "SQLiteLocation"),
    "redis": ("hasher.stores.redis", "RedisLocation"),
    "rediss": ("hasher.stores.redis", "RedisLocation"),
    "redis+cluster": ("hasher.stores.redis", "ClusterLocation"),
    "postgresql": ("hasher.stores.postgresql.location", "PostgreSQLLocation"),
}
EXTRAS = {  # a module that may be missing, and the package to install
    "hiredis": "hiredis",
    "psycopg": "psycopg[binary,pool]",
    "psycopg_pool": "psycopg[binary,pool]",
}


def locate(url: str) -> Location:
    """Return the location that `url` names. ValueError says what is allowed instead."""
    scheme = url.partition("://")[0]
    if scheme not in LOCATIONS or "://" not in url:
        known = ", ".join(f"{known}://" for known in LOCATIONS)
        raise ValueError(f"must start with one of {known}")
    module, name = LOCATIONS[scheme]
    try:
        kind: type[Location] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        needed = EXTRAS[error.name]
        raise ValueError(f"needs the package {error.name}: pip install '{needed}'") from None
    return kind.parse(url)

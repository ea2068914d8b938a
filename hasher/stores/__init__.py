"""Where messages are kept. One URL chooses the store; each store is one module."""

from importlib import import_module

from hasher.stores.base import DEFAULT, Means, Store, StoreFull, Unusable

__all__ = ["Means", "Store", "StoreFull", "Unusable", "open_store", "store_class"]

# Imported when they are named: Redis's client is an extra, and takes 0.1 s to import.
STORES = {
    "memory": ("hasher.stores.memory", "MemoryStore"),
    "sqlite": ("hasher.stores.sqlite", "SQLiteStore"),
    "redis": ("hasher.stores.redis", "RedisStore"),
    "rediss": ("hasher.stores.redis", "RedisStore"),
    "redis+cluster": ("hasher.stores.redis", "RedisStore"),
}


def store_class(url: str) -> type[Store]:
    """The kind of store that `url` names, or ValueError with what is allowed instead."""
    scheme = url.partition("://")[0]
    if scheme not in STORES or "://" not in url:
        known = ", ".join(f"{known}://" for known in STORES)
        raise ValueError(f"must start with one of {known}")
    module, name = STORES[scheme]
    try:
        kind: type[Store] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ValueError("needs the package redis: pip install 'redis[hiredis]'") from None
    kind.parse(url)
    return kind


def open_store(url: str, means: Means = DEFAULT) -> Store:
    """The store that `url` names.

    ValueError where it names none, Unusable where that can be seen not to work. A server that is
    down is no reason: its store opens, and raises one of its `errors` when it is used.
    """
    kind = store_class(url)
    return kind.open(means, **kind.parse(url))

"""Where messages are kept. One URL chooses the store; each store is one module."""

from hasher.stores.base import Store, StoreFull
from hasher.stores.memory import MemoryStore

__all__ = ["Store", "StoreFull", "open_store", "store_class"]

STORES: dict[str, type[Store]] = {"memory://": MemoryStore}


def store_class(url: str) -> type[Store]:
    """The kind of store that `url` names, or ValueError with what is allowed instead."""
    try:
        return STORES[url]
    except KeyError:
        raise ValueError(f"must be {' or '.join(STORES)}") from None


def open_store(url: str, *, memory_limit: int) -> Store:
    """The store that `url` names; ValueError where it names none.

    `memory_limit` is what a store in this process may take, in bytes.
    """
    store_class(url)
    return MemoryStore(memory_limit)

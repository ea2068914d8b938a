"""Whether a Redis server may be used, and what an operator should know of it."""

from hiredis import ReplyError

from hasher.stores.driver import Unusable
from hasher.stores.redis.connection import require
from hasher.stores.redis.server import Server, require_replicas

QUESTIONS = [
    (b"INFO", b"memory"),
    (b"INFO", b"replication"),
    (b"CONFIG", b"GET", b"save"),  # Redis 6 takes one name at a time
    (b"CONFIG", b"GET", b"appendonly"),
]


def examine(server: Server, replicas: int) -> str | None:
    """Return a remark on `server`, or None. Unusable if it could lose messages."""
    pong, *answers = server.call([(b"PING",), *QUESTIONS])
    require(pong)
    if any(isinstance(answer, ReplyError) for answer in answers):
        return "the Redis server does not let hasher see whether it keeps what it is given"
    info = fields(answers[0] + answers[1])
    require_usable(info)
    require_replicas(int(info.get("connected_slaves", 0)), replicas)
    save, append_only = (answer[1:] for answer in answers[2:])
    if append_only == [b"no"] and save == [b""]:
        return "the Redis server keeps nothing on disk: messages end with it"
    return None


def fields(info: bytes) -> dict[str, str]:
    """Return the fields of INFO's reply, by name."""
    lines = [line.partition(":") for line in info.decode(errors="replace").splitlines()]
    return {name: value for name, _, value in lines}


def require_usable(info: dict[str, str]) -> None:
    """Raise Unusable if the server drops messages, or takes none."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise Unusable(
            f"the Redis server would drop messages to make room (maxmemory-policy {policy}): "
            "set its maxmemory-policy to noeviction"
        )
    if info.get("role") == "slave":
        raise Unusable("the Redis server is a replica, which takes no messages: name its master")

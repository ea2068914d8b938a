"""`redis://`, `rediss://` and `redis+cluster://`: a server that many machines share.

Speaks to Redis from version 6 on, and to Valkey. Whether an acknowledged message survives the
server's end is the server's own setting (https://redis.io/docs/management/persistence/);
`?replicas=N` also waits for N of its replicas (https://redis.io/commands/wait/).
"""

from hasher.stores.redis.locations import ClusterLocation, RedisLocation

__all__ = ["ClusterLocation", "RedisLocation"]

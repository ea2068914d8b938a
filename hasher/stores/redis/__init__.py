"""`redis://`, `rediss://` and `redis+cluster://`: a server that many machines share.

Works with Redis from version 6, and with Valkey. The server's settings decide whether an
acknowledged message survives its end (https://redis.io/docs/management/persistence/);
`?replicas=N` also waits for N of its replicas (https://redis.io/commands/wait/).
"""

from hasher.stores.redis.locations import ClusterLocation, RedisLocation

__all__ = ["ClusterLocation", "RedisLocation"]

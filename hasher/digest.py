"""The name of a message: its SHA-256 (FIPS 180-4), as 64 lowercase hexadecimal characters."""

import hashlib

from werkzeug.routing import BaseConverter


class DamagedMessage(Exception):
    """What the store holds under a digest is not the message that has this digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class DigestConverter(BaseConverter):
    """`<digest:name>` in a route: nothing but a well-formed digest, so no other reaches a store."""

    regex = "[0-9a-f]{64}"


def digest(message: bytes) -> str:
    """The digest of `message`: 64 lowercase hexadecimal characters."""
    return hashlib.sha256(message).hexdigest()


def verified(message: bytes, name: str) -> bytes:
    """`message` as it is, or DamagedMessage where its digest is not `name`."""
    if digest(message) != name:
        raise DamagedMessage(name)
    return message

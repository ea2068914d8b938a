"""A connection to a Redis server: RESP2 over TCP or TLS.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import socket
import struct
from collections.abc import Sequence
from math import modf
from ssl import SSLSocket
from time import monotonic
from typing import Any

from hiredis import Reader, ReplyError, pack_command

PIECE = 64 * 1024  # bytes that are received at once
SPEED = 20_000_000  # bytes of replies that give the server a second more

LATE = "the Redis server did not answer in time"

Command = tuple[bytes, ...]
Reply = Any  # bytes, int, None, a list of replies, or the ReplyError that the server answered with


class Connection:
    """A connection, for one thread at a time. After an exception it is out of step: close it.

    `patience` is the seconds that each send or receive may take, and all replies to a call if they
    are small: a server that sends a byte at a time is given up, too.
    """

    def __init__(self, connected: socket.socket, patience: float) -> None:
        self._socket, self._patience = connected, patience
        self._reader = Reader()
        if isinstance(connected, SSLSocket):
            connected.settimeout(patience)
        else:
            let_kernel_time(connected, patience)

    def call(self, commands: Sequence[Command]) -> list[Reply]:
        """Send `commands` in one trip and return the reply to each.

        TimeoutError or another OSError if not all replies come.
        """
        try:
            self._socket.sendall(b"".join([packed(command) for command in commands]))
            self._deadline = monotonic() + self._patience
            if commands:
                self._receive()  # which nearly always brings all replies
            return [self._reply() for _ in commands]
        except BlockingIOError:
            raise TimeoutError(LATE) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _reply(self) -> Reply:
        while (reply := self._reader.gets()) is False:  # not all of it has come
            if monotonic() > self._deadline:
                raise TimeoutError(LATE)
            self._receive()
        return reply

    def _receive(self) -> None:
        received = self._socket.recv(PIECE)
        if not received:
            raise ConnectionResetError("the Redis server has closed the connection")
        self._reader.feed(received)
        self._deadline += len(received) / SPEED


def packed(command: Command) -> bytes:
    """Return `command` as it is sent."""
    sent: bytes = pack_command(command)  # type: ignore[arg-type]  # its stub takes one word only
    return sent


def require(reply: Reply, but: str = "") -> Reply:
    """Return `reply`, or raise it if it is an error of another kind than `but`."""
    if isinstance(reply, ReplyError) and kind(reply) != but:
        raise reply
    return reply


def kind(reply: Reply) -> str:
    """Return the first word of an error, such as `OOM`; "" for any other reply.

    Redis 6 gives a script's errors two dashes.
    """
    return str(reply).lstrip("-").partition(" ")[0] if isinstance(reply, ReplyError) else ""


def let_kernel_time(connected: socket.socket, seconds: float) -> None:
    """Let the kernel bound each send and receive (socket(7)): Python would poll before each."""
    fraction, whole = modf(seconds)
    timeval = struct.pack("ll", int(whole), int(fraction * 1e6))
    connected.settimeout(None)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

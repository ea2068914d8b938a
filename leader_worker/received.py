"""What gunicorn's parser reads: what was received already, then the connection."""

from typing import Any

from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.unreader import SocketUnreader

LARGEST = 1024 * 1024  # bytes of a piece
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request(GunicornRequest):
    """A request that gunicorn's parser has read."""

    body: Any

    def should_close(self) -> bool:
        """Return whether the connection ends: also after a list with `close` in it.

        RFC 9110, section 7.6.1; gunicorn compares the whole value.
        """
        lists = [value for name, value in self.headers if name == "CONNECTION"]
        options = {option.strip(" \t").lower() for option in ",".join(lists).split(",")}
        return "close" in options or super().should_close()

    def release(self) -> None:
        """Let go of the body, of which a part may not be read.

        Its reader refers to itself and to the request. Until the garbage collector came, they would
        keep what was received.
        """
        if parser := getattr(self.body.reader, "parser", None):
            parser.close()
        self.body = None


class Received(SocketUnreader):
    """`data`, then what `sock` receives.

    The parser gets 8 KiB at a time, as in gunicorn's own workers, since it copies what it has for
    each chunk. A client that expects 100 (Continue) is sent it when more of its body is wanted, so
    never before a refusal that the head decides (RFC 9110, section 10.1.1).
    """

    expects = False
    """Whether the client waits for 100 (Continue)."""

    def __init__(self, sock: Any, data: bytes) -> None:
        super().__init__(sock)
        self._data = memoryview(data)

    def expect(self, request: Any) -> None:
        """Take over, from gunicorn, what a client expects."""
        self.expects = request._expected_100_continue  # noqa: SLF001
        request._expected_100_continue = False  # noqa: SLF001

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece, of at most 8 KiB, or `size_hint` if that is more."""
        if self._data:
            size = max(self.mxchunk, min(size_hint or 0, LARGEST))
            piece, self._data = bytes(self._data[:size]), self._data[size:]
            return piece
        if self.expects:
            self.expects = False
            self.sock.sendall(CONTINUE)
        return super().chunk(size_hint)  # type: ignore[call-arg] # the stubs are of gunicorn 26

    def rest(self) -> bytes:
        """Return what was received and not read."""
        return self.take_buffered() + bytes(self._data)

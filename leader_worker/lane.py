"""The fast lane: a strict reader of whole requests that have only one reading.

It takes what nearly every client sends, in the plainest spelling of HTTP/1.1 (RFC 9112), and makes
the same environ of it as gunicorn's parser. It refuses nothing: malformed or rare requests go, byte
for byte, to gunicorn's parser, which decides what is refused and how.
"""

import io
import os
import re
from typing import Any

from gunicorn import SERVER_SOFTWARE
from gunicorn.config import Config
from gunicorn.http.wsgi import FileWrapper, WSGIErrorsWrapper

Environ = dict[str, Any]  # of WSGI (PEP 3333)

METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"})
HEAD = 4094  # bytes of a head that the lane reads: gunicorn's limit for its first line
LINES = 100  # of a head that the lane reads: within gunicorn's limit for its fields
LONGEST_HEAD = 64 * 1024  # bytes of a head that is waited for without a thread
LARGEST_BODY = 1024 * 1024  # bytes of a body that is waited for without a thread
NAMES = 1000  # field names that are remembered

NAME = re.compile(r"[A-Za-z0-9-]+")
# Without controls, and without bytes above 127 that could be taken for controls or spaces.
PRINTABLE = bytes(byte for byte in range(256) if chr(byte).isprintable())
# Fields that change how a message is framed, or what answers it.
RARE = frozenset({"TRANSFER-ENCODING", "EXPECT", "UPGRADE", "TRAILER", "HTTP2-SETTINGS"})
FIRST_LINE = re.compile(rb"(?:\r\n)?[A-Z]{3,20} [\x21-\x7e]+ HTTP/1\.[01]\r\n")
# If any of these is changed, gunicorn's parser takes or refuses other requests than the lane.
DEFAULTS = (
    "casefold_http_method",
    "http2_cleartext",
    "limit_request_field_size",
    "limit_request_fields",
    "limit_request_line",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "protocol",
    "proxy_protocol",
    "strip_header_spaces",
)


class Request:
    """A request that the lane has read. Its body is between `start` and `end`."""

    __slots__ = ("closes", "end", "environ", "headers", "method", "start")
    headers: list[tuple[str, str]]  # if an access log asks for them
    version = (1, 1)

    def __init__(
        self, environ: Environ, method: str, start: int, end: int, *, closes: bool
    ) -> None:
        self.environ, self.method = environ, method
        self.start, self.end, self.closes = start, end, closes

    def take_environ(self) -> Environ:
        """Return its environ and let go of it, since the environ refers to the request's answer."""
        environ, self.environ = self.environ, {}
        return environ

    def should_close(self) -> bool:
        """Return whether the client wants no other answer on its connection."""
        return self.closes


class Lane:
    """The reader for a worker with settings `cfg`. It is `closed` if they are not the defaults."""

    def __init__(self, cfg: Config) -> None:
        settings = cfg.settings
        self.closed = "SCRIPT_NAME" in os.environ or any(
            settings[name].get() != settings[name].default for name in DEFAULTS
        )
        self._rare = RARE.union(cfg.secure_scheme_headers)
        self._keys: dict[str, str] = {}

    def read(self, data: bytes, end: int, base: Environ) -> Request | None:
        """Return the request that starts `data`, or None if it is not for the lane.

        Its head ends at `end`, and `base` is what every environ of its connection has.
        """
        if end > HEAD:
            return None
        head = data[:end]
        lines = head.decode("latin-1").split("\r\n")
        line_ends = b"\r\n" * (len(lines) - 1)
        if len(lines) > LINES or head.translate(None, PRINTABLE) != line_ends:
            return None
        try:
            method, target, version = lines[0].split(" ")
            path, _, query = target.partition("?")
            if (
                method not in METHODS
                or version != "HTTP/1.1"
                or path[:1] != "/"
                or path[:2] == "//"
                or "%" in path
                or "#" in target
                or not target.isascii()
            ):
                return None
            environ = base.copy()
            environ["REQUEST_METHOD"] = method
            environ["RAW_URI"] = target
            environ["PATH_INFO"] = path
            environ["QUERY_STRING"] = query
            del lines[0]
            keys = self._keys
            for line in lines:
                name, value = line.split(":", 1)
                key = keys.get(name) or self._key(name)
                if key in environ:
                    return None
                environ[key] = value.strip(" \t")
        except ValueError:
            return None
        return self._framed(environ, method, end + 4)

    def _framed(self, environ: Environ, method: str, start: int) -> Request | None:
        """Return the request if it is certain how long it is, and whether it is the last."""
        get = environ.get
        host, connection, length = get("HTTP_HOST"), get("HTTP_CONNECTION"), get("CONTENT_LENGTH")
        if host is None:
            return None
        if "SERVER_NAME" not in environ:  # a Unix socket has none
            if not host:
                return None
            environ["SERVER_NAME"], environ["SERVER_PORT"] = server_in(host, environ)
        closes = False
        if connection is not None:
            option = connection.lower()
            closes = option == "close"
            if not closes and option != "keep-alive":
                return None
        if length is None:
            return Request(environ, method, start, start, closes=closes)
        if not length.isdecimal() or len(length) > 7 or int(length) > LARGEST_BODY:
            return None
        return Request(environ, method, start, start + int(length), closes=closes)

    def _key(self, name: str) -> str:
        """Return the key of a field in the environ. ValueError if it is not for the lane."""
        upper = name.upper()
        if not NAME.fullmatch(name) or upper in self._rare:
            raise ValueError(name)
        key = upper.replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = "HTTP_" + key
        if len(self._keys) < NAMES:
            self._keys[name] = key
        return key


def can_wait(data: bytes) -> bool:
    """Return whether `data`, which has no whole head, may become a request for the lane.

    If it may not, gunicorn's parser can read it at once.
    """
    if len(data) > LONGEST_HEAD or data.count(b"\n") != data.count(b"\r\n"):
        return False
    if b"\r\n" in data[2:]:
        return FIRST_LINE.match(data) is not None and data.find(b"\r\n", 2) <= HEAD
    return len(data) <= HEAD


def base_environ(cfg: Config, listener: Any) -> Environ:
    """Return the part of the environ that all requests from `listener` have in common.

    It has the keys of single requests too, so that a copy of it need not grow.
    """
    environ: Environ = {
        "wsgi.errors": Errors(cfg),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": cfg.workers > 1,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "wsgi.input": None,
        "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
        "wsgi.early_hints": None,
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "REQUEST_METHOD": "",
        "RAW_URI": "",
        "PATH_INFO": "",
        "QUERY_STRING": "",
    }
    server = listener.getsockname()
    if not isinstance(server, str) or ":" in server:
        name, port, *_ = server.split(":") if isinstance(server, str) else server
        environ["SERVER_NAME"], environ["SERVER_PORT"] = name, str(port)
    return environ


def client_environ(environ: Environ, sock: Any, client: Any) -> Environ:
    """Return `environ` with what all requests of one client have in common."""
    environ = {**environ, "gunicorn.socket": sock}
    if isinstance(client, tuple):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])
    else:
        environ["REMOTE_ADDR"] = client
    return environ


def fields_of(environ: Environ) -> list[tuple[str, str]]:
    """Return a request's fields, as gunicorn's access log asks for them."""
    return [
        (key.removeprefix("HTTP_").replace("_", "-"), value)
        for key, value in environ.items()
        if key.startswith(("HTTP_", "CONTENT_"))
    ]


def server_in(host: str, environ: Environ) -> tuple[str, str]:
    """Return the server's name and port as the client knows them."""
    name, *ports = host.split(":")
    port = ports[0] if ports else "443" if environ["wsgi.url_scheme"] == "https" else "80"
    return name, port


class Errors(io.RawIOBase):
    """`wsgi.errors`: writes to the streams that gunicorn's log has at the time."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self._cfg = cfg

    def write(self, data: Any) -> Any:
        """Write `data`."""
        return WSGIErrorsWrapper(self._cfg).write(data)

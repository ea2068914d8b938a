"""One line a request on standard output, for `HASHER_ACCESS_LOG`: JSON, or text for people.

It has no message, no query and no header of the request, and so no token.
"""

import logging
import sys
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from hasher.observe import Exchange, Observer

log = logging.getLogger("hasher.access")

LONGEST = 200  # characters of a path that are logged; a message's own has 78 at most


class AccessLog(Observer):
    """Writes each request in `form`, which is "json" or "text"."""

    def __init__(self, form: str) -> None:
        self._line = {"json": as_json, "text": as_text}[form]
        log.handlers = [logging.StreamHandler(sys.stdout)]
        log.setLevel(logging.INFO)
        log.propagate = False

    def ended(self, exchange: Exchange) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        log.info("%s", self._line(now, exchange))


def as_json(time: str, exchange: Exchange) -> str:
    """One JSON object; times are in seconds, sizes in bytes of body."""
    fields = {"time": time, **msgspec.structs.asdict(exchange)}
    fields["path"] = harmless(exchange.path)
    fields["duration"] = round(exchange.duration, 6)
    fields["store_time"] = round(exchange.store_time, 6)
    return msgspec.json.encode(fields).decode()


def as_text(time: str, exchange: Exchange) -> str:
    """The same in words."""
    line = (
        f"{time} {exchange.client} {quote(exchange.method)} {harmless(exchange.path)} "
        f"{exchange.status}, {exchange.received} B in, {exchange.sent} B out, "
        f"{exchange.duration * 1000:.2f} ms (store {exchange.store_time * 1000:.2f} ms), "
        f"request {exchange.id}"
    )
    return f"{line}, {exchange.fault}" if exchange.fault else line


def harmless(path: str) -> str:
    """`path` of a WSGI environment as it stands in an address, where no line can end."""
    return quote(path[:LONGEST], safe="/:@!$&'()*+,;=~", encoding="latin-1")

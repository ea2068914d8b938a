"""One line a request on standard output, for `HASHER_ACCESS_LOG`: JSON, or text for people.

It contains no message, query or header of the request, and so no token.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import quote

import msgspec

from hasher.telemetry.record import Observer, RequestRecord

log = logging.getLogger("hasher.access")

FIELDS = RequestRecord.__struct_fields__[: RequestRecord.__struct_fields__.index("body_read")]
LONGEST = 200  # characters of a path that are logged; a message's own has 78 at most


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines to standard output, and drops those that cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Do nothing: a reader that has gone is no error of any request."""


class AccessLog(Observer):
    """Writes each request in `form`, which is "json" or "text"."""

    def __init__(self, form: str) -> None:
        self._line = {"json": as_json, "text": as_text}[form]
        log.handlers = [Lines(sys.stdout)]
        log.setLevel(logging.INFO)
        log.propagate = False

    def ended(self, record: RequestRecord) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        log.info("%s", self._line(now, record))


def as_json(time: str, record: RequestRecord) -> str:
    """Return one JSON object; times are in seconds, sizes in bytes of body."""
    fields: dict[str, object] = {"time": time}
    fields.update((name, getattr(record, name)) for name in FIELDS)
    fields["path"] = harmless(record.path)
    fields["duration"] = round(record.duration, 6)
    fields["store_time"] = round(record.store_time, 6)
    return msgspec.json.encode(fields).decode()


def as_text(time: str, record: RequestRecord) -> str:
    """Return a line in words."""
    line = (
        f"{time} {record.client} {quote(record.method)} {harmless(record.path)} "
        f"{record.status}, {record.received} B in, {record.sent} B out, "
        f"{record.duration * 1000:.2f} ms (store {record.store_time * 1000:.2f} ms), "
        f"request {record.id}"
    )
    return f"{line}, {record.fault}" if record.fault else line


def harmless(path: str) -> str:
    """Return `path`, from a WSGI environ, percent-encoded: it cannot end the line."""
    return quote(path[:LONGEST], safe="/:@!$&'()*+,;=~", encoding="latin-1")

"""Teaches schemathesis application/x-ndjson, whose lines a schema has as an array."""

import json
from typing import Any

import schemathesis
from schemathesis.core.transport import Response

NDJSON = "application/x-ndjson"


@schemathesis.serializer(NDJSON)
def as_lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A line for each item; what is no array, in place of one, is a line that is no message."""
    items = value if isinstance(value, list) else [[value]]
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


@schemathesis.deserializer(NDJSON)
def from_lines(_: schemathesis.DeserializationContext, response: Response) -> Any:
    """What stands in the lines of an answer."""
    return [json.loads(line) for line in response.content.splitlines()]

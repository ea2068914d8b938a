"""Whether an answer is what the API's description says, for every answer of the system tests."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jsonschema_rs import Draft202012Validator, ValidationError

FILE = Path(__file__).parents[2] / "hasher" / "page" / "openapi.json"
DESCRIPTION: dict[str, Any] = json.loads(FILE.read_text())
BEYOND: dict[str, dict[str, Any]] = DESCRIPTION["x-beyond-operations"]
# What HTTP and the server add; the media type stands in the description beside its body.
HTTP_S_OWN = {"connection", "content-length", "content-type", "date", "server"}
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([^ ]{0,9000}) HTTP/1\.[01]\r\n")


Request = tuple[str, str]  # its method and target


@dataclass(frozen=True)
class Answers:
    """What may be answered: what is described, and what a front before the service adds to that."""

    headers: dict[str, Any] = field(default_factory=dict)
    """Headers of any answer that has no other description of them, as the description has them."""
    own: dict[str, Any] = field(default_factory=dict)
    """Answers that any request may get, by status; the same."""

    def check(
        self, request: Request | None, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        """Fail unless this may be answered to a request, or to what is not a request.

        `body` is None in the answer to a HEAD, after which no body is read.
        """
        if own := self.own.get(str(status)):
            with suppress(AssertionError):
                self.check_answer(own, headers, body)
                return
        described = followed(possible(request).get(str(status)) or {})
        assert described, f"{request}: {status} is not described"
        self.check_answer(described, headers, body)

    def check_answer(
        self, described: dict[str, Any], headers: Mapping[str, str], body: bytes | None
    ) -> None:
        """Fail unless the answer is the one described."""
        given = {name.lower(): headers[name] for name in headers}
        check_headers({**self.headers, **described.get("headers", {})}, given)
        check_body(described.get("content", {}), headers.get("Content-Type"), body)


def take_request(sent: bytearray) -> Request | None:
    """The next request in what was sent on a connection, up to whose first line it is removed."""
    line = REQUEST_LINE.search(sent)
    if line is None:
        return None
    request = line[1].decode(), line[2].decode("latin-1")
    del sent[: line.end()]
    return request


def possible(request: Request | None) -> dict[str, Any]:
    """What may be answered to a request, by status."""
    if request is None:
        return BEYOND["any request"]
    method, target = request
    item = item_of(target)
    if item is None:
        return BEYOND["any request"] | BEYOND["an address that is not listed"]
    operation = item.get(method.lower(), {})
    if "responses" not in operation:
        return BEYOND["any request"] | BEYOND["a method that is not listed"]
    responses: dict[str, Any] = operation["responses"]
    return BEYOND["any request"] | responses


def item_of(target: str) -> dict[str, Any] | None:
    """The description of a request's address; None for one that is not listed."""
    if target.startswith("//"):
        return None
    try:
        path = unquote(urlsplit(target).path) or "/"
    except ValueError:
        return None
    items = (item for pattern, item in ADDRESSES if re.fullmatch(pattern, path))
    return next(items, None)


def pattern_of(address: str, item: dict[str, Any]) -> str:
    """A regular expression for the addresses that a template such as /messages/{digest} stands for.

    A value that is not as its parameter's schema says makes an address that is not listed.
    """
    pattern = re.sub(r"\\([{}])", r"\1", re.escape(address))
    parameters = map(followed, item["parameters"])
    for parameter in (one for one in parameters if one["in"] == "path"):
        schema = followed(parameter["schema"])
        values = schema.get("pattern", "").strip("^$") or "|".join(map(re.escape, schema["enum"]))
        pattern = pattern.replace("{" + parameter["name"] + "}", f"(?:{values})")
    return pattern


def check_headers(described: dict[str, Any], given: dict[str, str]) -> None:
    """Fail unless the headers are those described, and no others."""
    names = set()
    for name, header in ((name.lower(), followed(header)) for name, header in described.items()):
        names.add(name)
        if name in given:
            number = header["schema"].get("type") == "integer"
            validate(header["schema"], int(given[name]) if number else given[name])
        else:
            assert not header.get("required"), f"{name} is missing"
    others = given.keys() - names - HTTP_S_OWN
    assert not others, f"{others} are not described"


def check_body(described: dict[str, Any], content_type: str | None, body: bytes | None) -> None:
    """Fail unless the body and its media type are as described."""
    if not described:
        assert content_type is None
        assert not body
        return
    assert content_type in described
    if body is not None:
        validate(described[content_type]["schema"], READERS.get(content_type, bytes.decode)(body))


def lines(body: bytes) -> list[Any]:
    """What stands in the lines of a body, each of which ends."""
    *lines, rest = body.split(b"\n")
    assert not rest
    return [json.loads(line) for line in lines]


READERS: dict[str, Callable[[bytes], Any]] = {
    "application/json": json.loads,
    "application/x-ndjson": lines,
}


def followed(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference names; anything else as it is."""
    if "$ref" not in node:
        return node
    kind, name = node["$ref"].removeprefix("#/components/").split("/")
    named: dict[str, Any] = DESCRIPTION["components"][kind][name]
    return named


def validate(schema: dict[str, Any], value: object) -> None:
    """Fail unless a value is as a schema says."""
    try:
        validator(json.dumps(schema)).validate(value)
    except ValidationError as error:
        raise AssertionError(error.message) from None


@cache
def validator(schema: str) -> Draft202012Validator:
    """The validator of a schema whose references lead into the description's components."""
    return Draft202012Validator(
        json.loads(schema) | {"components": {"schemas": DESCRIPTION["components"]["schemas"]}}
    )


ADDRESSES = [(pattern_of(address, item), item) for address, item in DESCRIPTION["paths"].items()]

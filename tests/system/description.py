"""Whether an answer is what the API's description says, for every answer of the system tests."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jsonschema import Draft202012Validator

FILE = Path(__file__).parents[2] / "hasher" / "page" / "openapi.json"
DESCRIPTION: dict[str, Any] = json.loads(FILE.read_text())
BEYOND: dict[str, dict[str, Any]] = DESCRIPTION["x-beyond-operations"]
# What HTTP and the server add; the media type stands in the description beside its body.
HTTP_S_OWN = {"connection", "content-length", "content-type", "date", "server"}
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([^ ]{0,9000}) HTTP/1\.[01]\r\n")


def check(
    request: tuple[str, str] | None, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Fail unless this may be answered to a request: its method and target, None if it has none."""
    described = followed(possible(request).get(str(status)) or {})
    assert described, f"{request}: {status} is not described"
    check_headers(described.get("headers", {}), {name.lower(): headers[name] for name in headers})
    check_body(described.get("content", {}), headers.get("Content-Type"), body, request)


def requests(sent: bytes) -> list[tuple[str, str]]:
    """The method and target of each request in the bytes that were sent on one connection."""
    lines = REQUEST_LINE.finditer(sent)
    return [(line[1].decode(), line[2].decode("latin-1")) for line in lines]


def possible(request: tuple[str, str] | None) -> dict[str, Any]:
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
    try:
        path = urlsplit(re.sub("^//+", "/", target)).path
    except ValueError:
        return None
    path = "/" + unquote(path).lstrip("/")
    items = (item for pattern, item in ADDRESSES if re.fullmatch(pattern, path))
    return next(items, None)


def pattern_of(address: str, item: dict[str, Any]) -> str:
    """A regular expression for the addresses that a template such as /messages/{digest} stands for.

    A value that is not as its parameter's schema says makes an address that is not listed.
    """
    pattern = re.sub(r"\\([{}])", r"\1", re.escape(address))
    for parameter in map(followed, item.get("parameters", [])):
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
    assert not given.keys() - names - HTTP_S_OWN, "There are headers that are not described."


def check_body(
    described: dict[str, Any],
    content_type: str | None,
    body: bytes,
    request: tuple[str, str] | None,
) -> None:
    """Fail unless the body and its media type are as described."""
    if not described:
        assert (content_type, body) == (None, b"")
        return
    assert content_type in described
    if request and request[0] == "HEAD":
        assert body == b""
        return
    is_json = content_type == "application/json"
    validate(described[content_type]["schema"], json.loads(body) if is_json else body.decode())


def followed(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference names; anything else as it is."""
    if "$ref" not in node:
        return node
    kind, name = node["$ref"].removeprefix("#/components/").split("/")
    named: dict[str, Any] = DESCRIPTION["components"][kind][name]
    return named


def validate(schema: dict[str, Any], value: object) -> None:
    """Fail unless a value is as a schema says."""
    validator(json.dumps(schema)).validate(value)


@cache
def validator(schema: str) -> Draft202012Validator:
    """The validator of a schema whose references lead into the description's components."""
    return Draft202012Validator(
        json.loads(schema) | {"components": {"schemas": DESCRIPTION["components"]["schemas"]}}
    )


ADDRESSES = [(pattern_of(address, item), item) for address, item in DESCRIPTION["paths"].items()]

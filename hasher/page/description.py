"""The API's description (OpenAPI 3.1): openapi.json beside this file, written by hand."""

from importlib.resources import files
from typing import Any

import msgspec

TEXT = (files(__package__) / "openapi.json").read_text(encoding="utf-8")


def described(max_message_bytes: int, max_bulk_bytes: int) -> dict[str, Any]:
    """The description of a service that takes so many bytes in a message, and in many together."""
    text = TEXT.replace("{max_message_bytes}", str(max_message_bytes))
    text = text.replace("{max_bulk_bytes}", str(max_bulk_bytes))
    return msgspec.json.decode(text, type=dict[str, Any])


def resolved(node: Any, description: dict[str, Any]) -> Any:
    """`node` of `description` with what its references name in their place; none is circular."""
    if isinstance(node, list):
        return [resolved(item, description) for item in node]
    if not isinstance(node, dict):
        return node
    named: Any = {}
    if reference := node.get("$ref"):
        named = description
        for key in reference.removeprefix("#/").split("/"):
            named = named[key]
    own = {key: value for key, value in node.items() if key != "$ref"}
    return {key: resolved(value, description) for key, value in {**named, **own}.items()}

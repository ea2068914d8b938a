"""The API's description (OpenAPI 3.1): openapi.json beside this file, written by hand."""

from importlib.resources import files
from typing import Any

import msgspec

TEXT = (files(__package__) / "openapi.json").read_text(encoding="utf-8")


def described(**limits: int) -> dict[str, Any]:
    """Return the description of a service with these limits, named as in openapi.json."""
    text = TEXT
    for name, limit in limits.items():
        text = text.replace(f"{{{name}}}", str(limit))
    return msgspec.json.decode(text, type=dict[str, Any])


def resolved(node: Any, description: dict[str, Any]) -> Any:
    """Return `node` of `description` with every reference replaced; none may be circular."""
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

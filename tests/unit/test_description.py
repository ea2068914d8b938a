"""The description is valid OpenAPI, and describes the routes that there are, and no others."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient

ROOT = Path(__file__).parents[2]
METHODS = {"get", "head", "options", "post", "put", "patch", "delete", "trace"}


@pytest.fixture
def description(client: FlaskClient) -> Any:
    """The description, as the service gives it."""
    return client.get("/openapi.json").get_json()


def test_it_is_valid_openapi(description: Any) -> None:
    assert description["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(description).validate()


def test_its_version_is_the_project_s(description: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert description["info"]["version"] == project["version"]


def test_it_has_every_route_and_no_other(app: Flask, description: Any) -> None:
    routed = {
        (re.sub(r"<(?:[^:<>]*:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    described = {
        (path.replace("{asset}", "{name}"), method)
        for path, item in description["paths"].items()
        for method in METHODS.intersection(item)
    }
    assert described == routed


def test_it_knows_the_limit(description: Any) -> None:
    too_large = description["components"]["responses"]["TooLarge"]
    assert "over 1000 bytes" in too_large["description"]
    assert "over 16777216 together" in too_large["description"]
    assert "{max" not in str(description)


def test_every_reference_leads_somewhere_and_nothing_lies_idle(description: Any) -> None:
    references = set(re.findall(r"'\$ref': '#/components/([^']+)'", str(description)))
    parts = {
        f"{kind}/{name}"
        for kind, named in description["components"].items()
        for name in named
        if kind != "securitySchemes"  # which are named without a reference
    }
    assert references == parts

"""The service's own pages: what they consist of, and what they must not let in."""

import re
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

PAGES = ["/", "/docs"]
ASSETS = {
    "/page/icon.svg": "image/svg+xml",
    "/page/page.css": "text/css; charset=utf-8",
    "/page/page.js": "text/javascript; charset=utf-8",
}


class Elements(HTMLParser):
    """The elements of a page, each with its attributes, and the text inside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in {"script", "style"}:
            self.inline += data.strip()

    def addresses(self) -> set[str]:
        """Every address that the page names."""
        pairs = [pair for _, attributes in self.found for pair in attributes.items()]
        return {str(value) for name, value in pairs if name in {"href", "src", "action"}}


@pytest.mark.parametrize("path", [*PAGES, *ASSETS, "/openapi.json"])
def test_nothing_of_another_origin_has_a_part_in_a_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy.pop("default-src") == policy.pop("frame-ancestors") == "'none'"
    assert policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert set(policy) == {"script-src", "style-src", "img-src", "connect-src"}
    assert set(policy.values()) == {"'self'"}
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_script_or_style_inline(client: FlaskClient, path: str) -> None:
    elements = Elements(client.get(path).text)
    assert elements.inline == ""
    names = {name for _, attributes in elements.found for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_only_addresses_that_there_are(client: FlaskClient, path: str) -> None:
    addresses = Elements(client.get(path).text).addresses()
    assert "page/page.css" in addresses
    for address in addresses:
        assert re.fullmatch(r"[a-z./]+", address), "an address of this origin, relative to the page"
        assert client.get("/" + address.removeprefix("./")).status_code == 200


@pytest.mark.parametrize(("path", "content_type"), ASSETS.items())
def test_an_asset_has_its_media_type(client: FlaskClient, path: str, content_type: str) -> None:
    answer = client.get(path)
    assert answer.content_type == content_type
    assert len(answer.data) > 100


def test_an_empty_path_is_the_page_too(client: FlaskClient) -> None:
    empty = client.get("/x", environ_overrides={"PATH_INFO": ""})
    assert (empty.status_code, empty.data) == (200, client.get("/").data)


def test_the_page_knows_the_limit(client: FlaskClient) -> None:
    assert 'data-limit="1000"' in client.get("/").text


def test_the_reference_has_every_operation_of_the_description(client: FlaskClient) -> None:
    html = client.get("/docs").text
    for path, item in client.get("/openapi.json").get_json()["paths"].items():
        method = "POST" if "post" in item else "GET"
        assert f"<strong>{method}</strong> {path}</code>" in html
    assert "is over 1000 bytes" in html
    assert "over 16777216 together" in html


@pytest.mark.parametrize("path", [*PAGES, *ASSETS, "/openapi.json"])
def test_head_is_get_without_its_body(client: FlaskClient, path: str) -> None:
    same = {"X-Request-ID": "the-same"}
    get, head = (client.open(path, method=method, headers=same) for method in ("GET", "HEAD"))
    assert head.data == b""
    assert (head.status_code, head.headers) == (get.status_code, get.headers)

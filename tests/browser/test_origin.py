"""What a page of another origin makes a browser send, on plain http and a name of no meaning.

Chromium sends no Sec-Fetch-Site there: it takes such an origin for one that is not secure.
"""

from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.support.service import Service

POST = """async ([address, text]) => {
    const headers = { "Content-Type": "text/plain" };
    const request = { method: "POST", mode: "no-cors", headers, body: text };
    return (await fetch(address, request)).type;
}"""


class Attacker(BaseHTTPRequestHandler):
    """A server of pages that may ask any other for anything."""

    posted: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        """Note what a browser sends with a page's POST."""
        self.posted.append({name.lower(): value for name, value in self.headers.items()})
        self.do_GET()

    def do_GET(self) -> None:
        """Answer an empty page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def attacker() -> Iterator[int]:
    """The port of such a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Attacker) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A profile of its own."""
    with chromium.new_context() as opened:
        yield opened


@pytest.mark.parametrize("host", ["other.test", "sub.hasher.test", "hasher.test"])
def test_a_page_of_another_origin_stores_nothing(
    service: Service, context: BrowserContext, attacker: int, host: str
) -> None:
    address = f"http://hasher.test:{service.port}/messages"
    text = f"stored by a page of {host}"
    page = context.new_page()
    page.goto(f"http://{host}:{attacker}/")
    with page.expect_response(address) as answered:
        assert page.evaluate(POST, [address, text]) == "opaque"
    assert answered.value.status == 403
    assert service.get(sha256(text.encode()).hexdigest()).status == 404


def test_a_page_without_an_origin_stores_nothing(
    service: Service, context: BrowserContext, attacker: int
) -> None:
    address = f"http://hasher.test:{service.port}/messages"
    page = context.new_page()
    page.goto(f"http://other.test:{attacker}/")
    with page.expect_response(address) as answered:
        page.set_content(
            f"""<iframe sandbox="allow-scripts" srcdoc='<script>
            fetch("{address}", {{method: "POST", mode: "no-cors", body: "null origin"}});
            </script>'></iframe>"""
        )
    assert answered.value.status == 403
    assert service.get(sha256(b"null origin").hexdigest()).status == 404


def test_the_service_s_own_page_stores(service: Service, context: BrowserContext) -> None:
    address = f"http://hasher.test:{service.port}/messages"
    page = context.new_page()
    page.goto(f"http://hasher.test:{service.port}/")
    with page.expect_response(address) as answered:
        assert page.evaluate(POST, [address, "stored by its own page"]) == "basic"
    assert answered.value.status == 201


def test_what_this_is_about_is_so(context: BrowserContext, attacker: int) -> None:
    page = context.new_page()
    page.goto(f"http://other.test:{attacker}/")
    assert page.evaluate(POST, [f"http://hasher.test:{attacker}/", "foo"]) == "opaque"
    headers = Attacker.posted.pop()
    assert headers["origin"] == f"http://other.test:{attacker}"
    assert "sec-fetch-site" not in headers

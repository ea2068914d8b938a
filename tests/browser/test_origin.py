"""What a page of another origin can do: read and verify a message, and store none.

Most of it on plain http and a name of no meaning, where Chromium sends no Sec-Fetch-Site: it takes
such an origin for one that is not secure.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from tests.support.documents import blocks
from tests.support.servers import until
from tests.support.service import ROOT, Service

POST = """async ([address, text]) => {
    const headers = { "Content-Type": "text/plain" };
    const request = { method: "POST", mode: "no-cors", headers, body: text };
    return (await fetch(address, request)).type;
}"""

READ = """async (address) => {
    const answer = await fetch(address);
    const bytes = await answer.clone().arrayBuffer();
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return {
        status: answer.status,
        text: await answer.text(),
        digest: Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join(""),
        proof: answer.headers.get("Repr-Digest"),
        tag: answer.headers.get("ETag"),
        id: answer.headers.get("X-Request-ID"),
    };
}"""
STORE = """async ([address, type, body]) => {
    const request = { method: "POST", headers: { "Content-Type": type }, body };
    return await fetch(address, request).then(() => "stored", (error) => error.name);
}"""

Answered = Callable[[], list[int]]


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


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that logs its requests: some of a page's are out of Playwright's sight."""
    log = tmp_path_factory.mktemp("service") / "log"
    with Service(log, HASHER_ACCESS_LOG="json") as running:
        yield running


@pytest.fixture
def answered(service: Service) -> Answered:
    """Says with which statuses the service has answered what was sent to /messages meanwhile."""
    before = len(service.log)

    def statuses() -> list[int]:
        lines = re.findall(r"^{.*}$", service.log[before:], re.MULTILINE)
        return [line["status"] for line in map(json.loads, lines) if line["path"] == "/messages"]

    return statuses


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
    service: Service, context: BrowserContext, attacker: int, answered: Answered
) -> None:
    address = f"http://hasher.test:{service.port}/messages"
    page = context.new_page()
    page.goto(f"http://other.test:{attacker}/")
    page.set_content(
        f"""<iframe sandbox="allow-scripts" srcdoc='<script>
        fetch("{address}", {{method: "POST", mode: "no-cors", body: "null origin"}});
        </script>'></iframe>"""
    )
    assert until(answered) == [403]
    assert service.get(sha256(b"null origin").hexdigest()).status == 404


def test_the_service_s_own_page_stores(service: Service, context: BrowserContext) -> None:
    address = f"http://hasher.test:{service.port}/messages"
    page = context.new_page()
    page.goto(f"http://hasher.test:{service.port}/")
    with page.expect_response(address) as answered:
        assert page.evaluate(POST, [address, "stored by its own page"]) == "basic"
    assert answered.value.status == 201


@pytest.fixture
def other_page(context: BrowserContext, attacker: int) -> Page:
    """A page of another origin, which is secure and so has WebCrypto."""
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{attacker}/")
    return page


def test_a_page_of_another_origin_reads_and_verifies(
    service: Service, url: str, other_page: Page
) -> None:
    digest = service.post("read from elsewhere").json["digest"]
    for _ in range(2):  # the second time from the browser's cache
        text = other_page.evaluate(READ, f"{url}messages/{digest}.txt")
        assert (text["status"], text["text"]) == (200, "read from elsewhere")
        assert text["digest"] == digest
        assert text["tag"] == f'"{digest}.txt"'
        assert text["proof"] == f"sha-256=:{b64encode(bytes.fromhex(digest)).decode()}:"
        assert text["id"]
    message = other_page.evaluate(READ, f"{url}messages/{digest}")
    assert message["text"] == '{"message":"read from elsewhere"}\n'
    assert message["tag"] == f'"{digest}"'


def test_the_script_in_the_documents_reads_and_verifies(
    service: Service, url: str, other_page: Page
) -> None:
    text = "\ufeffread by a document's script"
    digest = service.post(text).json["digest"]
    (script,) = [block.text for block in blocks(ROOT / "docs" / "api.md") if block.language == "js"]
    other_page.add_script_tag(content=script.replace("https://hasher.example/", url))
    assert other_page.evaluate("(digest) => read(digest)", digest) == text
    with pytest.raises(Error, match=r"Error: Message not found\."):
        other_page.evaluate("(digest) => read(digest)", "0" * 64)


@pytest.mark.parametrize("name", ["0" * 64, "0" * 64 + ".txt", "malformed"])
def test_a_page_of_another_origin_is_told_that_there_is_no_message(
    url: str, other_page: Page, name: str
) -> None:
    missing = other_page.evaluate(READ, f"{url}messages/{name}")
    assert (missing["status"], missing["text"]) == (404, '{"error":"Message not found."}\n')
    assert missing["id"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (("text/plain", "elsewhere"), 403),  # sent without asking first
        (("application/json", '{"message":"elsewhere"}'), 204),  # the answer to the preflight
        (("application/x-ndjson", '{"message":"elsewhere"}\n'), 204),
    ],
)
def test_a_page_of_another_origin_cannot_store_nor_read_the_answer(
    service: Service, other_page: Page, answered: Answered, kind: tuple[str, str], status: int
) -> None:
    address = f"http://127.0.0.1:{service.port}/messages"
    assert other_page.evaluate(STORE, [address, *kind]) == "TypeError"
    assert until(answered) == [status]
    assert service.get(sha256(b"elsewhere").hexdigest()).status == 404


def test_what_this_is_about_is_so(context: BrowserContext, attacker: int) -> None:
    page = context.new_page()
    page.goto(f"http://other.test:{attacker}/")
    assert page.evaluate(POST, [f"http://hasher.test:{attacker}/", "foo"]) == "opaque"
    headers = Attacker.posted.pop()
    assert headers["origin"] == f"http://other.test:{attacker}"
    assert "sec-fetch-site" not in headers

"""Debian's Chromium, and visits to the page that fail if the page does what it must not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.support.servers import PATIENCE, program
from tests.support.service import Service

# Chromium by itself asks its makers for updates and the like; the last makes hasher.test and others
# names of this machine that are not localhost: origins that Chromium does not take for secure.
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
]
Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this process."""
    executable = program("chromium", "chromium")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default settings, shared by the tests of a module."""
    with Service(tmp_path_factory.mktemp("service") / "log") as running:
        yield running


@pytest.fixture
def url(service: Service) -> str:
    """The page's address."""
    return f"http://127.0.0.1:{service.port}/"


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens an address in a fresh profile; options are those of Playwright's `new_context`.

    The test fails if a page asked another origin for anything, or wrote to the console.
    """
    faults: list[str] = []
    with ExitStack() as stack:

        def opened(address: str, **options: object) -> Page:
            context = chromium.new_context(**options)  # type: ignore[arg-type]
            stack.callback(context.close)
            watch(context, address, faults)
            page = context.new_page()
            page.goto(address)
            return page

        yield opened
    assert faults == []


def watch(context: BrowserContext, address: str, faults: list[str]) -> None:
    """Add to `faults` what a page does that it must not."""
    origin = urlsplit(address)[:2]

    def requested(request: Request) -> None:
        if urlsplit(request.url)[:2] != origin:
            faults.append(f"asked {request.url}")

    def logged(message: ConsoleMessage) -> None:
        # Chromium itself reports an answer that is an error, which the page puts in words, and
        # asks for the icon of the tab again whenever the address changes, the service gone or not.
        path = urlsplit(message.location["url"]).path
        expected = message.text.startswith("Failed to load resource")
        if not (expected and path.startswith(("/messages", "/page/icon.svg"))):
            faults.append(f"wrote to the console: {message.text} ({path})")

    context.on("request", requested)
    context.on("console", logged)
    context.on("weberror", lambda error: faults.append(f"raised {error.error}"))

"""Takes the screenshots in docs/: `make screenshots`.

They have the fonts of this machine; with Debian's fonts-inter and fonts-urw-base35 they look as on
a machine that people sit at.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.servers import program
from tests.support.service import ROOT, Service

ORIGIN = "http://hasher.example"
TEXTS = [
    "Milk, bread, and the good olives.",
    "Grüße aus Köln! Wir sind gut angekommen.",
    (
        "Call me Ishmael. Some years ago—never mind how long precisely—having little or no money "
        "in my purse, and nothing particular to interest me on shore, I thought I would sail about "
        "a little and see the watery part of the world."
    ),
]


def main() -> None:
    """Take all three, of a service of their own."""
    with (
        TemporaryDirectory() as folder,
        Service(Path(folder) / "log") as service,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"),
            args=[f"--host-resolver-rules=MAP hasher.example:80 127.0.0.1:{service.port}"],
        )
        link = take_wide(browser, "light")
        take_wide(browser, "dark")
        take_phone(browser, link)
        browser.close()


def take_wide(browser: Browser, scheme: Literal["light", "dark"]) -> str:
    """The page after something was stored and read; the link to that."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": 800, "height": 1335})
    page.goto(ORIGIN)
    links = [store(page, text) for text in TEXTS]
    page.get_by_label("Paste its digest").fill(links[-1])
    page.get_by_role("button", name="Read", exact=True).click()
    page.locator("#content").wait_for()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")
    save(page, scheme)
    return links[-1]


def store(page: Page, text: str) -> str:
    """Store a text; the link to it."""
    page.get_by_label("Write or paste a text").fill(text)
    page.get_by_role("button", name="Store the message").click()
    page.locator("#stored").wait_for()
    return page.get_by_label("Link to the message").input_value()


def take_phone(browser: Browser, link: str) -> None:
    """What a link shows on a phone."""
    page = browser.new_page(
        viewport={"width": 360, "height": 740}, device_scale_factor=1.5, is_mobile=True
    )
    page.goto(link)
    page.locator("#content").wait_for()
    save(page, "phone")


def save(page: Page, name: str) -> None:
    """Write docs/page-<name>.png."""
    file = ROOT / "docs" / f"page-{name}.png"
    page.screenshot(path=file)


if __name__ == "__main__":
    main()

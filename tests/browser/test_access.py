"""The page for everybody: by keyboard alone, on a phone, to a screen reader, in light and dark."""

from collections.abc import Callable
from hashlib import sha256
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Visit
from tests.support.service import Service

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LONG = "A message that is longer than a line. " * 20 + "x" * 500


def empty(page: Page) -> None:
    """The page as it is when it is opened."""
    expect(page.locator("#digest")).not_to_be_empty()


def stored_and_read(page: Page) -> None:
    """Something was stored, and is read."""
    page.get_by_label("Write or paste a text").fill(LONG)
    page.get_by_role("button", name="Store the message").click()
    page.get_by_label("Link to the message").wait_for()
    page.get_by_role("link", name="A message that").click()
    page.locator("#content").wait_for()


def refused(page: Page) -> None:
    """A token is asked for, and what was wanted is not there."""
    page.route("**/messages", lambda route: route.fulfill(status=401, json={"error": "Token."}))
    page.get_by_role("button", name="Store the message").click()
    page.get_by_label("Token", exact=True).wait_for()
    page.get_by_label("Paste its digest").fill("not a digest")
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.locator("#read-said")).not_to_be_empty()


def with_a_file(page: Page) -> None:
    """A file stands in the place of the text."""
    name = "a-rather-long-name-" * 5
    page.locator("#chosen").set_input_files(
        FilePayload(name=name, mimeType="", buffer=LONG.encode())
    )
    page.locator("#file").wait_for()


def reference(page: Page) -> None:
    """The API's reference."""
    page.get_by_role("link", name="API reference").click()
    page.get_by_role("heading", name="To any request").wait_for()


State = Callable[[Page], None]
every_state = pytest.mark.parametrize(
    "state", [empty, stored_and_read, refused, with_a_file, reference]
)


@every_state
def test_axe_finds_nothing_in_light_or_dark(visit: Visit, url: str, state: State) -> None:
    page = visit(url)
    state(page)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


@every_state
def test_nothing_is_wider_than_a_phone(visit: Visit, url: str, state: State) -> None:
    page = visit(url, viewport={"width": 360, "height": 740})
    state(page)
    for width in (360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_link_on_a_phone_leads_to_the_message(service: Service, visit: Visit, url: str) -> None:
    link = f"{url}#{service.post(LONG).json['digest']}"
    page = visit(link, viewport={"width": 360, "height": 740})
    for part in ("#read-title", "#read-said", "#read-digest", "#content"):
        expect(page.locator(part)).to_be_in_viewport()


def test_dark_is_dark_and_light_is_light(visit: Visit, url: str) -> None:
    page = visit(url)
    brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert (page.evaluate(brightness) > 128) is (scheme == "light")


def focused(page: Page) -> str:
    """The focused element's name or id, which must show that it is focused."""
    name, outline = page.evaluate(
        """() => {
            const { activeElement } = document;
            const name = activeElement.id || activeElement.textContent.trim();
            return [name, getComputedStyle(activeElement).outlineStyle];
        }"""
    )
    assert outline == "solid", f"{name} does not show that it has the focus"
    return str(name)


def tab(page: Page, *, back: bool = False) -> str:
    """Where the Tab key leads."""
    page.keyboard.press("Shift+Tab" if back else "Tab")
    return focused(page)


def test_a_keyboard_is_enough(service: Service, visit: Visit, url: str) -> None:
    text = "by keyboard"
    digest = sha256(text.encode()).hexdigest()
    page = visit(url)
    assert tab(page) == "text"
    page.keyboard.type(text)
    expect(page.locator("#digest")).to_have_text(digest)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#write-said")).to_contain_text("Stored.")
    assert focused(page) == "text"
    assert [tab(page) for _ in range(4)] == ["Store the message", "choose", "link", "link-copy"]
    page.keyboard.press("Enter")
    expect(page.locator("#link-copy")).to_have_text("Copied")
    assert tab(page) == "wanted"
    page.keyboard.type(digest)
    page.keyboard.press("Enter")
    expect(page.locator("#read-said")).to_contain_text("Verified")
    assert [tab(page) for _ in range(4)] == ["Read", "content", "content-copy", "download"]
    assert [tab(page) for _ in range(3)] == ["forget", text, "API reference"]
    assert tab(page, back=True) == text
    assert tab(page, back=True) == "forget"
    page.keyboard.press("Space")
    expect(page.get_by_role("listitem")).to_have_count(0)
    assert service.get(digest).json == {"message": text}


def test_a_screen_reader_hears_what_happens(visit: Visit, url: str) -> None:
    page = visit(url)
    for said in ("#write-said", "#read-said"):
        assert page.locator(said).get_attribute("role") == "status"
        expect(page.locator(said)).to_be_attached()
    page.get_by_role("button", name="Store the message").click()
    expect(page.get_by_role("status").filter(has_text="Stored.")).to_be_visible()
    page.get_by_label("Paste its digest").fill("x")
    page.get_by_label("Paste its digest").press("Enter")
    expect(page.get_by_role("status").filter(has_text="This is not a digest")).to_be_visible()
    assert page.locator("[aria-live] #digest, [role=status] #digest").count() == 0

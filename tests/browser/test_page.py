"""What a person does on the page, and what the page says."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.support.servers import free_ports
from tests.support.service import Service

LIMIT = 1024 * 1024  # the default of HASHER_MAX_MESSAGE_BYTES
FOO = sha256(b"foo").hexdigest()
# SHA-256 takes blocks of 64 bytes, and the last has room for 55: each side of every border.
LENGTHS = [0, 1, 54, 55, 56, 57, 62, 63, 64, 65, 118, 119, 120, 121, 127, 128, 129, 1000]


def type_text(page: Page, text: str) -> str:
    """Write `text` as the message; its digest, once the page shows it."""
    page.get_by_label("Write or paste a text").fill(text)
    digest = sha256(text.encode()).hexdigest()
    expect(page.locator("#digest")).to_have_text(digest)
    return digest


def store(page: Page) -> str:
    """Store what stands on the page; the link to it."""
    page.get_by_role("button", name="Store the message").click()
    expect(page.locator("#write-said")).to_contain_text("Stored.")
    return page.get_by_label("Link to the message").input_value()


def read(page: Page, wanted: str) -> None:
    """Ask for the message under a digest or a link."""
    page.get_by_label("Paste its digest").fill(wanted)
    page.get_by_role("button", name="Read", exact=True).click()


def expect_message(page: Page, text: str) -> None:
    """Fail unless the page shows this message, verified."""
    expect(page.locator("#read-said")).to_contain_text("Verified")
    expect(page.locator("#read-said")).to_contain_text(f"{len(text.encode()):,} byte")
    expect(page.locator("#read-digest")).to_have_text(sha256(text.encode()).hexdigest())
    assert page.locator("#content").text_content() == text


def expect_refusal(page: Page, sentence: str) -> None:
    """Fail unless the page says why it shows no message."""
    expect(page.locator("#read-said")).to_contain_text(sentence)
    expect(page.locator("#message")).to_be_hidden()


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    transfer = page.evaluate_handle(
        """([name, text]) => {
            const transfer = new DataTransfer();
            const content = Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
            transfer.items.add(new File([content], name));
            return transfer;
        }""",
        [name, b64encode(content).decode()],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("body", event, {"dataTransfer": transfer})


def test_a_message_is_typed_stored_copied_and_read_in_another_browser(
    service: Service, visit: Visit, url: str
) -> None:
    text = "Grüße, 世界 😀\n\n  and a tail  "
    page = visit(url, permissions=["clipboard-read", "clipboard-write"])
    digest = type_text(page, text)
    assert store(page) == f"{url}#{digest}"
    page.get_by_role("button", name="Copy the link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{url}#{digest}"
    assert service.get(digest).json == {"message": text}

    other = visit(link)
    expect_message(other, text)
    expect(other).to_have_title(f"{digest[:8]} · hasher")


@pytest.mark.parametrize("host", ["127.0.0.1", "hasher.test"])
def test_the_digest_is_shown_as_one_types(service: Service, visit: Visit, host: str) -> None:
    page = visit(f"http://{host}:{service.port}/")
    native = host == "127.0.0.1"
    assert page.evaluate("crypto.subtle !== undefined") is native
    for length in LENGTHS:
        type_text(page, "é" * (length // 2) + "x" * (length % 2))
        expect(page.locator("#size")).to_have_text(f"{length:,} byte{'s' * (length != 1)}")
    page.get_by_label("Write or paste a text").press("End")
    page.keyboard.type("!")
    expect(page.locator("#digest")).to_have_text(sha256(("é" * 500 + "!").encode()).hexdigest())


def test_a_large_text_is_hashed_without_the_browser_s_help(service: Service, visit: Visit) -> None:
    page = visit(f"http://hasher.test:{service.port}/")
    type_text(page, "0123456789abcdef" * (LIMIT // 16))
    assert store(page).startswith(f"http://hasher.test:{service.port}/#")


def test_everything_works_on_plain_http(service: Service, visit: Visit) -> None:
    page = visit(f"http://hasher.test:{service.port}/")
    assert page.evaluate("navigator.clipboard === undefined")
    digest = type_text(page, "on plain http")
    link = store(page)
    page.get_by_role("button", name="Copy the link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_focused()
    page.get_by_label("Write or paste a text").fill("")
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Write or paste a text")).to_have_value(link)
    read(page, digest)
    expect_message(page, "on plain http")


def test_a_digest_is_copied_from_the_screen_as_one_word(visit: Visit, url: str) -> None:
    page = visit(url)
    digest = type_text(page, "one word")
    for width in (900, 360):
        page.set_viewport_size({"width": width, "height": 700})
        page.evaluate("getSelection().selectAllChildren(document.getElementById('digest'))")
        assert page.evaluate("getSelection().toString()") == digest


def test_storing_again_gives_the_same_link(visit: Visit, url: str) -> None:
    page = visit(url)
    type_text(page, "again")
    link = store(page)
    type_text(page, "something else")
    expect(page.get_by_label("Link to the message")).to_be_hidden()
    type_text(page, "again")
    assert store(page) == link


def test_a_message_is_read_by_its_digest_or_any_link(
    service: Service, visit: Visit, url: str
) -> None:
    service.post("foo")
    page = visit(url)
    groups = " ".join(re.findall(".{8}", FOO))
    link = f"https://elsewhere.test/x/#{FOO}"
    for wanted in (FOO, FOO.upper(), groups, f"  {FOO}\n", link, f"{FOO}.txt"):
        read(page, wanted)
        expect_message(page, "foo")
        expect(page).to_have_url(f"{url}#{FOO}")
        read(page, "")
        expect_refusal(page, "not a digest")


def test_what_is_no_digest_is_refused_in_words(service: Service, visit: Visit, url: str) -> None:
    service.post("foo")
    page = visit(url)
    for wanted in ("", "foo", FOO[:-1], FOO + "0", "g" * 64, "<b>"):
        read(page, FOO)
        expect_message(page, "foo")
        read(page, wanted)
        expect_refusal(page, "This is not a digest. A digest has 64 characters")


def test_a_digest_that_is_not_stored_is_said_so(visit: Visit, url: str) -> None:
    page = visit(url + "#" + "0" * 64)
    expect_refusal(page, "No message with this digest is stored here.")
    expect(page.get_by_label("Paste its digest")).to_have_value("0" * 64)


def test_going_back_shows_the_message_before(service: Service, visit: Visit, url: str) -> None:
    service.post("foo")
    bar = service.post("bar").json["digest"]
    page = visit(url + "#" + FOO)
    expect_message(page, "foo")
    read(page, bar)
    expect_message(page, "bar")
    page.go_back()
    expect_message(page, "foo")


def test_a_corrupted_message_is_called_out_and_not_shown(
    service: Service, visit: Visit, url: str
) -> None:
    service.post("foo")
    page = visit(url)
    page.route("**/messages/**", lambda route: route.fulfill(body="fob"))
    read(page, FOO)
    expect_refusal(page, "Not verified, and not shown: the service returned another message")
    expect(page.locator("#read-said")).to_contain_text(sha256(b"fob").hexdigest())
    assert "fob" not in page.inner_text("main")
    page.unroute("**/messages/**")
    page.get_by_role("button", name="Read", exact=True).click()
    expect_message(page, "foo")


def test_a_message_that_looks_like_html_is_text(visit: Visit, url: str) -> None:
    text = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;</pre>"
    page = visit(url)
    type_text(page, text)
    link = store(page)
    page.reload()  # the list of the last few is made anew
    expect(page.get_by_role("link", name=text)).to_have_attribute("href", "#" + link[-64:])
    page.goto(link)
    expect_message(page, text)
    assert page.locator("img, pre script").count() == 0


def test_a_very_long_message_is_shown_by_its_start(
    service: Service, visit: Visit, url: str
) -> None:
    text = "long " * 100_000
    page = visit(url + "#" + service.post(text).json["digest"])
    expect(page.locator("#cut")).to_contain_text("500,000 bytes")
    assert page.locator("#content").text_content() == text[:100_000]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == text.encode()


def test_a_text_over_the_limit_is_said_so_and_not_sent(visit: Visit, url: str) -> None:
    page = visit(url)
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.method))
    page.get_by_label("Write or paste a text").fill("é" * (LIMIT // 2) + "x")
    said = page.locator("#write-said")
    expect(said).to_contain_text("The text is 1,048,577 bytes long")
    expect(said).to_contain_text("up to 1,048,576 bytes")
    expect(page.locator("#digest")).to_be_empty()
    page.get_by_role("button", name="Store the message").click()
    expect(said).to_contain_text("1,048,577 bytes long")
    assert "POST" not in posted
    type_text(page, "x" * LIMIT)
    expect(said).to_be_empty()
    store(page)


def test_a_service_whose_limit_was_lowered_meanwhile_says_so(visit: Visit, url: str) -> None:
    page = visit(url)

    def raised(route: Route) -> None:
        html = route.fetch()
        route.fulfill(response=html, body=html.text().replace(f'"{LIMIT}"', f'"{LIMIT * 2}"'))

    page.route(url, raised)
    page.reload()
    text = "x" * (LIMIT + 1)
    type_text(page, text)
    page.get_by_role("button", name="Store the message").click()
    expect(page.locator("#write-said")).to_have_text(
        f"The body is over the limit of {LIMIT} bytes."
    )
    expect(page.get_by_label("Write or paste a text")).to_have_value(text)


WRONG_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"status": 507, "json": {"error": "The store is full."}}, "The store is full."),
    ({"status": 502, "body": "<h1>Bad Gateway</h1>"}, "with status 502"),
    ({"status": 413, "body": "<h1>Too Large</h1>"}, "with status 413"),
    ({"status": 200, "body": "<h1>Welcome to this hotel</h1>"}, "did not confirm"),
    ({"status": 200, "json": {"digest": FOO}}, "did not confirm"),
    ({"status": 500, "body": "null"}, "with status 500"),
    ({"status": 200, "body": "null"}, "did not confirm"),
]


def fulfilled(answer: dict[str, Any]) -> Callable[[Route], None]:
    """Gives this answer in the service's place."""
    return lambda route: route.fulfill(**answer)


def test_whatever_goes_wrong_is_put_in_words(visit: Visit, url: str) -> None:
    page = visit(url)
    type_text(page, "kept")
    for answer, sentence in WRONG_ANSWERS:
        page.route("**/messages", fulfilled(answer))
        page.get_by_role("button", name="Store the message").click()
        expect(page.locator("#write-said")).to_contain_text(sentence)
        expect(page.get_by_label("Link to the message")).to_be_hidden()
        expect(page.get_by_label("Write or paste a text")).to_have_value("kept")
        page.unroute("**/messages")
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    store(page)


def test_a_service_that_is_gone_loses_nothing(tmp_path: Path, visit: Visit) -> None:
    port = str(free_ports(1)[0])
    url = f"http://127.0.0.1:{port}/"
    with Service(tmp_path / "log", PORT=port):
        page = visit(url)
        type_text(page, "still here")
    page.get_by_role("button", name="Store the message").click()
    said = page.locator("#write-said")
    expect(said).to_contain_text("cannot be reached. Nothing is lost")
    expect(page.get_by_label("Write or paste a text")).to_have_value("still here")
    read(page, FOO)
    expect_refusal(page, "cannot be reached")
    with Service(tmp_path / "log", PORT=port):
        store(page)


@pytest.fixture
def guarded(tmp_path: Path, visit: Visit) -> Iterator[Page]:
    """The page of a service that needs a token to store."""
    with Service(tmp_path / "log", HASHER_WRITE_TOKENS="right,later") as service:
        yield visit(f"http://127.0.0.1:{service.port}/")


def test_a_token_is_asked_for_and_kept_for_this_tab_only(guarded: Page) -> None:
    said, field = guarded.locator("#write-said"), guarded.get_by_label("Token", exact=True)
    expect(field).to_be_hidden()
    type_text(guarded, "guarded")
    guarded.get_by_role("button", name="Store the message").click()
    expect(said).to_have_text("To store here, you need a token.")
    expect(field).to_be_focused()
    for wrong, sentence in (("wrong", "did not accept"), ("ö", "neither spaces nor accents")):
        field.fill(wrong)
        field.press("Enter")
        expect(said).to_contain_text(sentence)
        expect(field).to_be_focused()
    field.fill(" right ")
    guarded.get_by_role("button", name="Use the token").click()
    expect(said).to_contain_text("Stored.")
    expect(field).to_be_hidden()
    assert "right" not in str(guarded.context.storage_state())
    guarded.reload()
    type_text(guarded, "the token is still known")
    store(guarded)
    other = guarded.context.new_page()
    other.goto(guarded.url)
    assert other.evaluate("sessionStorage.length") == 0


def test_a_token_that_is_no_longer_good_is_asked_for_again(guarded: Page) -> None:
    guarded.evaluate("sessionStorage.setItem('hasher.token', '\"old\"')")
    guarded.reload()
    type_text(guarded, "rotated")
    guarded.get_by_role("button", name="Store the message").click()
    expect(guarded.locator("#write-said")).to_have_text("The service did not accept this token.")
    guarded.get_by_label("Token", exact=True).fill("later")
    guarded.get_by_label("Token", exact=True).press("Enter")
    expect(guarded.locator("#write-said")).to_contain_text("Stored.")


AS_IT_IS = "\ufeffZürich\r\n\r\nlast line\rwithout an end \0".encode()


def test_a_dropped_file_goes_byte_for_byte(service: Service, visit: Visit, url: str) -> None:
    page = visit(url)
    type_text(page, "typed before")
    drop(page, "notes.txt", AS_IT_IS)
    digest = sha256(AS_IT_IS).hexdigest()
    expect(page.locator("#digest")).to_have_text(digest)
    expect(page.locator("#file-name")).to_have_text("notes.txt")
    expect(page.locator("#file-name")).to_be_focused()
    assert store(page) == f"{url}#{digest}"
    assert service.get(f"{digest}.txt").body == AS_IT_IS
    page.get_by_role("button", name="Remove the file").click()
    expect(page.get_by_label("Write or paste a text")).to_have_value("typed before")
    expect(page.get_by_label("Write or paste a text")).to_be_focused()
    expect(page.locator("#digest")).to_have_text(sha256(b"typed before").hexdigest())


def test_a_file_can_be_chosen_and_comes_back_as_it_was(
    service: Service, visit: Visit, url: str
) -> None:
    page = visit(url)
    for _ in range(2):  # the same file again, after it was taken away
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files({"name": "a.txt", "mimeType": "", "buffer": AS_IT_IS})
        expect(page.locator("#digest")).to_have_text(sha256(AS_IT_IS).hexdigest())
        link = store(page)
        page.get_by_role("button", name="Remove the file").click()
    other = visit(link)
    expect(other.locator("#read-said")).to_contain_text("Verified")
    with other.expect_download() as download:
        other.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == AS_IT_IS


def test_a_file_that_cannot_be_a_message_is_refused_in_words(visit: Visit, url: str) -> None:
    page = visit(url)
    digest = type_text(page, "stays")
    for name, content, sentence in (
        ("photo.jpg", b"\xff\xd8\xff\xe0", "photo.jpg is not text in UTF-8"),
        ("latin.txt", "Zürich".encode("latin-1"), "latin.txt is not text in UTF-8"),
        ("long.txt", b"x" * (LIMIT + 1), "long.txt is 1,048,577 bytes long"),
    ):
        drop(page, name, content)
        expect(page.locator("#write-said")).to_contain_text(sentence)
        expect(page.locator("#digest")).to_have_text(digest)
        expect(page.get_by_label("Write or paste a text")).to_have_value("stays")


def test_half_a_character_is_refused_in_words(visit: Visit, url: str) -> None:
    page = visit(url)
    page.evaluate(r"document.getElementById('text').value = 'a\ud83d'")
    page.get_by_label("Write or paste a text").press("End")
    page.keyboard.type("b")
    expect(page.locator("#write-said")).to_contain_text("half a character")
    expect(page.locator("#digest")).to_be_empty()
    page.get_by_role("button", name="Store the message").click()
    expect(page.locator("#write-said")).to_contain_text("half a character")


def test_the_last_few_are_listed_until_they_are_cleared(visit: Visit, url: str) -> None:
    page = visit(url)
    items = page.get_by_role("listitem")
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    for number in (*range(10), 4):
        type_text(page, f"message {number}\nwith a second line")
        store(page)
    starts = [f"message {number} with a second line" for number in (4, 9, 8, 7, 6, 5, 3, 2)]
    for _ in range(2):
        expect(items.get_by_role("link")).to_have_text(starts)
        page.reload()
    page.get_by_role("link", name="message 7").click()
    expect_message(page, "message 7\nwith a second line")
    page.get_by_role("button", name="Clear the list").click()
    expect(items).to_have_count(0)
    expect(page.get_by_role("heading", name="Stored from this browser")).to_be_focused()
    page.reload()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    assert "message" not in str(page.context.storage_state()["origins"])


def test_a_list_that_was_tampered_with_is_no_list(visit: Visit, url: str) -> None:
    page = visit(url)
    for planted in ("[", "{}", "null", "[null, 1, {}]", '[{"digest": "javascript:alert(1)"}]'):
        page.evaluate("text => localStorage.setItem('hasher.recent', text)", planted)
        page.reload()
        expect(page.get_by_text("Nothing yet.")).to_be_visible()
        type_text(page, "the first")
        store(page)
        expect(page.get_by_role("listitem")).to_have_count(1)


def test_a_browser_that_keeps_nothing_stores_and_reads(visit: Visit, url: str) -> None:
    page = visit(url)
    page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"])
            Object.defineProperty(window, name, { get() { throw new DOMException("denied"); } });"""
    )
    page.reload()
    digest = type_text(page, "kept nowhere")
    store(page)
    read(page, digest)
    expect_message(page, "kept nowhere")

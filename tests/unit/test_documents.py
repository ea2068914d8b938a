"""What the documents say of the project is there: links, commands of make, versions."""

import re
import tomllib
from pathlib import Path

import pytest

import hasher
from tests.support.documents import DOCUMENTS, ROOT, blocks, found_in

LANGUAGES = {"sh", "console", "js", "text"}  # what is no command or script is text
BY_NAME = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(document: Path, link: str) -> bool:
    """Whether the file is there, and has the heading."""
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    return target.exists() and (not anchor or anchor in anchors(target))


@BY_NAME
def test_every_link_leads_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in links if not leads_somewhere(document, link)] == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    readme = ROOT / "README.md"
    assert leads_somewhere(readme, "deploy/README.md#sizing")
    assert not leads_somewhere(readme, "deploy/README.md#none")
    assert not leads_somewhere(readme, "none.md")


@BY_NAME
def test_every_block_says_what_it_is(document: Path) -> None:
    assert {block.language for block in blocks(document)} <= LANGUAGES


@BY_NAME
def test_every_command_of_make_is_one(document: Path) -> None:
    named = set(re.findall(r"`make ([a-z]+)", document.read_text()))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - known == set()


def test_every_decision_is_in_the_index_in_its_order() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert LINK.findall((folder / "README.md").read_text()) == records
    assert [int(name[:2]) for name in records] == list(range(1, len(records) + 1))
    for name in records:
        assert re.findall(r"^## (.+)$", (folder / name).read_text(), re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ]


def test_the_versions_agree() -> None:
    """The description of the API is compared with the project's in test_description.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == hasher.__version__


def test_the_changelog_has_every_version() -> None:
    """It begins with what is not released yet, or with the version that the project has."""
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] in {"Unreleased", hasher.__version__}
    assert len(versions) == len(set(versions))


def test_blocks_are_found_with_their_headings_and_steps() -> None:
    text = "# One\n```sh\n# no heading\n```\n## Two\n```console\n$ a \\\n> b\nout\n$ c\n```\n"
    first, second = found_in("x.md", text.splitlines())
    assert (str(first), first.text) == ("x.md, One, 1", "# no heading\n")
    assert str(second) == "x.md, Two, 1"
    assert second.steps == [("a \\\nb", "out\n"), ("c", "")]
    assert not second.is_for_root

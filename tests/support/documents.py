"""The project's documents, and the commands in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "deploy" / "README.md",
    ]
)
# A line that opens or closes a block, or a heading outside of one.
MARKED = re.compile(r"^ *```(?P<language>\w*)$|^#+ (?P<heading>.+)$")


@dataclass(frozen=True)
class Block:
    """A block of code: a whole script in `sh`, or in `console` commands and what they print."""

    document: str
    heading: str
    number: int
    """Which of those below the heading it is, from 1 on."""
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}, {self.heading}, {self.number}"

    @property
    def is_for_root(self) -> bool:
        """Whether it is what an administrator types on a machine of theirs."""
        return self.language == "console" and self.text.startswith("# ")

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Each command of a console, and the output that is shown below it."""
        commands: list[list[str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append([line[2:], ""])
            elif line.startswith("> "):
                commands[-1][0] += f"\n{line[2:]}"
            else:
                commands[-1][1] += f"{line}\n"
        return [(command, output) for command, output in commands]


def blocks(document: Path) -> list[Block]:
    """Every block of code in a document, in its order."""
    name, text = str(document.relative_to(ROOT)), document.read_text()
    return list(found_in(name, text.splitlines()))


def found_in(document: str, lines: Sequence[str]) -> Iterator[Block]:
    """The blocks in these lines of a document."""
    heading, numbers, language = "", count(1), None
    inside: list[str] = []
    for line in lines:
        mark = MARKED.match(line)
        if language is not None and line.strip() == "```":
            yield Block(document, heading, next(numbers), language, "\n".join(inside) + "\n")
            language, inside = None, []
        elif language is not None:
            inside.append(line)
        elif mark and mark["heading"]:
            heading, numbers = mark["heading"], count(1)
        elif mark:
            language = mark["language"]


def replaced(text: str, places: Mapping[str, object]) -> str:
    """`text` with places that a document names replaced by the test's own."""
    for place, ours in places.items():
        text = text.replace(place, str(ours))
    return text

"""What the README and the pages of docs hold: sections, blocks, and the commands in them, one list of words each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HOWTOS = sorted((ROOT / "docs" / "howto").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
SHELL = ("", "bash")
PROGRAMS = (
    "python",
    "make",
    "gebm-train",
    "gebm-sample",
    "gebm-evaluate",
    "gebm-particles",
    "gebm-export",
    "gebm-report",
    "pip",
)
LOOP = re.compile(r"for (\w+) in ([^;]+); do (.*); done(.*)")


class Block(NamedTuple):
    line: int
    language: str
    title: str
    """The file that a block is, if it is one."""
    body: str


class Command(NamedTuple):
    page: Path
    line: int
    words: tuple[str, ...]
    fenced: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line} {shlex.join(self.words)}"


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(text.count("\n", 0, m.start()) + 1, m[1], m[2] or "", m[3]) for m in FENCE.finditer(text)]


def lines_of(shell: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The commands of some lines of shell, each with the number of its line; `for` loops on one line are unrolled."""
    number = 0
    for line in shell.replace("\\\n", "\0").splitlines():
        text = line.replace("\0", " ")
        loop = LOOP.fullmatch(text.strip())
        turns = [text] if loop is None else [loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()]
        for turn in turns:
            words = shlex.split(turn.replace("SEED_OF_RUN", "0"), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                del words[0]
            if words:
                yield number, tuple(words)
        number += 1 + line.count("\0")


def commands(page: Path, text: str | None = None) -> list[Command]:
    """The commands of a page: those in fenced blocks of shell, and code spans that begin with one of `PROGRAMS`."""
    text = page.read_text() if text is None else text
    found = []
    for block in blocks(text):
        if block.language in SHELL:
            found += [Command(page, block.line + 1 + at, words, True) for at, words in lines_of(block.body)]
    for number, line in enumerate(without_blocks(text).splitlines(), 1):
        for span in re.findall(r"`([^`]+)`", line):
            # A span with an ellipsis is the form of a command, not one.
            if span.split(" ")[0] in PROGRAMS and " " in span and "…" not in span:
                found += [Command(page, number, words, False) for _, words in lines_of(span)]
    return found


def without_blocks(text: str) -> str:
    """The page with its fenced blocks blanked, character for character."""
    return FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def sections(text: str) -> list[str]:
    """The page cut at its headings, each part with its own."""
    starts = [m.start() for m in re.finditer(r"^#+ ", without_blocks(text), re.M)]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True) if a < b]

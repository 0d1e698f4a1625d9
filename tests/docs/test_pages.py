# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages as they are read in the repository: their links, what they have to name, and what they quote."""

from __future__ import annotations

import ast
import re
import subprocess
import typing as t
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.checkout import ROOT

#: Of the site alone: they hold what others have, or lead to it.
OF_THE_SITE = ("index", "quick-start", "contents", "develop")


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    return [ROOT / name for name in subprocess.check_output(command, cwd=ROOT, encoding="utf-8").split()]


def tokens(path: Path) -> t.Iterator[Token]:
    """Yield what a page consists of, what is inside a line too."""
    for block in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        yield block
        yield from block.children or ()


def anchors(path: Path) -> set[str]:
    """Return the names of a page's headings as GitHub makes them."""
    found, inside = set(), False
    for token in tokens(path):
        if token.type == "inline" and inside:
            text = "".join(child.content for child in token.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
        inside = token.type == "heading_open" or (inside and token.type != "heading_close")
    return found


def dead(page: Path, link: str) -> str:
    """Return why a link of a page leads nowhere, nothing when it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "" if parts.scheme == "https" and "." in parts.netloc and "@" not in parts.netloc else "not https://"
    target = page.parent / parts.path if parts.path else page
    if not target.exists():
        return "no such file"
    return "" if not parts.fragment or parts.fragment in anchors(target) else "no such heading"


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    links = [str(value) for token in tokens(page) for value in (token.attrGet("href"), token.attrGet("src")) if value]
    assert [f"{link}: {dead(page, link)}" for link in links if dead(page, link)] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [path for path in tracked("docs/*.md") if path.stem not in OF_THE_SITE]
    assert len(pages) > 5
    assert [path.name for path in pages if f"](docs/{path.name})" not in readme] == []


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_target_of_make_is_named() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"site", "test", "docs"} <= set(targets)
    assert [name for name in targets if not re.search(rf"\bmake {name}\b(?!-)", CONTRIBUTING)] == []


def test_every_directory_is_named() -> None:
    files = [path.relative_to(ROOT).parts for path in tracked()]
    top = {parts[0] for parts in files if len(parts) > 1} - {".config"}
    inside = {"/".join(parts[:2]) for parts in files if parts[0] in ("plugins", "tests", "roles") and len(parts) > 2}
    named = set(re.findall(r"`([\w./-]+)`", CONTRIBUTING))
    assert sorted(name for name in top - {"plugins", "roles"} | inside if name not in named) == []


def test_every_path_is_there() -> None:
    paths = [path for path in re.findall(r"`([\w.-]+/[\w./-]+)`", CONTRIBUTING) if path != "build/docs/html"]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


#: What others than this collection say: the dynamic linker up to its verdict, jemalloc, and the C library.
OF_OTHERS = re.compile(r"ERROR: ld\.so: .*?: ignored\.|<jemalloc>: [^;)]*|No space left on device")

#: Shorter texts of the code than that are in many sentences by chance.
FEWEST = 8

#: What varies in a sentence is a name, a path or a number: so many words are none.
WORDS = re.compile(r"(?:[a-z]+[ ,:;]+){3,}[a-z]+")

#: What varies in the texts of the wrappers.
_VARIES = re.compile(r"@[A-Z]+@|\$\w+|\$\{[^}]*\}|['\"\n]")


def fragments() -> set[str]:
    """Return the texts of the code, each up to where something varies."""
    found: set[str] = set()
    for path in tracked("plugins/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(_VARIES.split(node.value) if "#!/bin/sh" in node.value else [node.value])
    return {text for text in found if len(text) >= FEWEST and "\n" not in text}


def strange(line: str, known: t.Collection[str]) -> list[str]:
    """Return the words of a line that are not the code's own."""
    rest = list(line)
    for text in known:
        start = line.find(text)
        if start != -1:
            rest[start : start + len(text)] = ["|"] * len(text)
    return WORDS.findall("".join(rest))


def test_what_is_quoted_is_what_the_code_says() -> None:
    known = fragments()
    texts = [token.content for path in tracked("docs/*.md") for token in tokens(path) if token.info == "text"]
    lines = [OF_OTHERS.sub("", line) for text in texts for line in text.splitlines()]
    assert len(lines) > 30
    assert {line: strange(line, known) for line in lines if strange(line, known)} == {}
    assert strange("services: a.service cannot start on any Monday; take it off the list, or wait", known) != []

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages as they are read in the repository: their links, what they have to name, and what they quote of the code."""

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

from tests.conftest import ROOT

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


def test_every_variable_of_a_playbook_is_described() -> None:
    pages = [*tracked("*.md"), ROOT / "roles/jemalloc/meta/argument_specs.yml"]
    words = {word for page in pages for word in re.findall(r"\w+", page.read_text(encoding="utf-8"))}
    used = {
        name
        for path in tracked("playbooks/*.yml")
        for name in re.findall(r"(?<![\w.])jemalloc_[a-z_]+", path.read_text(encoding="utf-8"))
    }
    assert len(used) > 20
    assert used - words == set()


#: What others than this collection say.
_OF_OTHERS = ("ERROR: ld.so: ", "<jemalloc>: ")

#: So many characters of a sentence have to be the code's own, for it to be that sentence.
_FEWEST = 12


def messages() -> list[re.Pattern[str]]:
    """Return the texts of the code, with anything in the place of what varies; the longest first."""
    found = {}
    for path in tracked("plugins/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if any(not isinstance(text, (str, type(None))) for text in texts):
                continue
            own = sum(len(text) for text in texts if isinstance(text, str))
            if own >= _FEWEST and len(texts) < 20:
                found[".+".join(re.escape(str(text)) if text is not None else "" for text in texts)] = own
    return [re.compile(pattern) for pattern in sorted(found, key=lambda pattern: -found[pattern])]


def quoted(page: Path) -> list[str]:
    """Return the sentences that a page quotes of the code."""
    lines = [line for token in tokens(page) if token.info == "text" for line in token.content.splitlines()]
    return [line for line in lines if not line.startswith(_OF_OTHERS)]


def test_what_is_quoted_is_what_the_code_says() -> None:
    known = messages()
    lines = [line for path in tracked("docs/*.md") for line in quoted(path)]
    assert len(lines) > 30
    assert [line for line in lines if not any(pattern.search(line) for pattern in known)] == []
    assert not any(pattern.search("services: puma.service cannot be started, as it is Monday.") for pattern in known)

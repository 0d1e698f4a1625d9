"""What systemd and PAM take from the files that give processes their environment, read as these programs read them."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import re
import typing as t

# What separates for systemd, basic/string-util.h: a form feed, say, does not.
_BLANKS = " \t\n\r"

# Each of them ends a line for systemd, two that differ end one together: basic/fileio.c, read_line_full().
_LINE_END = re.compile(r"\r\n|\n\r|[\n\r\0]")

# basic/escape.c, cunescape_one()
_ESCAPE = re.compile(
    r"""\\(?:([abfnrtv\\"'s])|(?:x([\dA-Fa-f]{2})|([0-3][0-7]{2}))|u([\dA-Fa-f]{4})|U([\dA-Fa-f]{8}))"""
)
_ESCAPED = dict(zip("abfnrtv\\\"'s", "\a\b\f\n\r\t\v\\\"' "))

# basic/env-util.c, env_assignment_is_valid()
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\x00-\x08\x0b-\x1f\x7f]*")

# basic/env-file.c, parse_env_file_internal(): quoted pieces first, what follows them takes a quote for a letter.
_ENTRY = re.compile(
    r"""
    [ \t\n\r]*
    (?: [#;][^\n\r]*
      | (?P<name>[^=\n\r]*)
        (?: =(?P<quoted>(?:[ \t]*(?:'[^']*(?:'|\Z)|"(?:\\.|[^"\\])*(?:"|\\?\Z)))*)
             [ \t]*(?P<plain>(?:\\(?:.|\Z)|[^\n\r\\])*) )? )
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)"?""", re.DOTALL)


def entries(value: str) -> t.List[str]:
    """Return the libraries of an LD_PRELOAD; colons and spaces separate, no other blank, ld.so(8)."""
    return [entry for entry in re.split("[: ]", value) if entry]


def assigned(texts: t.Iterable[str], section: str, key: str) -> t.List[str]:
    """Return the values of all KEY= in a section of unit files that are read in this order; an empty one forgets all.

    Specifiers (%) are returned as they stand.
    """
    found: t.List[str] = []
    for text in texts:
        inside = False
        for line in _lines(text):
            if line.startswith("["):
                if not line.endswith("]"):
                    break  # systemd reads no further either
                inside = line == f"[{section}]"
            name, equals, value = line.partition("=")
            if inside and equals and name.strip(_BLANKS) == key:
                value = value.strip(_BLANKS)
                found = [*found, value] if value else []
    return found


def _lines(text: str) -> t.Iterator[str]:
    """Yield the lines of a unit file, continued ones as one, without comments, which may stand amid a continued one."""
    whole = ""
    for raw in _LINE_END.split(text[1:] if text.startswith("\ufeff") else text):
        line = raw.lstrip(_BLANKS)
        if line.startswith(("#", ";")):
            continue
        whole += line
        if (len(whole) - len(whole.rstrip("\\"))) % 2:
            whole = f"{whole[:-1]} "
            continue
        yield whole.strip(_BLANKS)
        whole = ""
    yield whole.strip(_BLANKS)


def words(text: str) -> t.List[str]:
    """Split as systemd does: blanks separate, quotes hold together, escapes are those of C; a fault ends it."""
    found: t.List[str] = []
    word: t.Optional[str] = None
    quote, position = "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            escape = _ESCAPE.match(text, position - 1)
            if not escape:
                return found
            word, position = (word or "") + _unescaped(escape), escape.end()
        elif character == quote:
            quote = ""
        elif quote or character not in _BLANKS + "'\"":
            word = (word or "") + character
        elif character in _BLANKS:
            found += [] if word is None else [word]
            word = None
        else:
            quote, word = character, word or ""
    return found if quote or word is None else [*found, word]


def _unescaped(escape: t.Match[str]) -> str:
    """Return the character that an escape of C stands for."""
    letter, hexadecimal, octal, short, long = escape.groups()
    if letter:
        return _ESCAPED[letter]
    if hexadecimal or octal:
        return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8)]).decode("utf-8", "surrogateescape")
    number = int(short or long, 16)
    return chr(number) if number < 0x110000 else "\0"  # which makes the assignment one that systemd ignores


def setting(texts: t.Iterable[str], section: str, key: str, variable: str) -> str:
    """Return what a variable is set to by KEY=VARIABLE=... in a section of unit files; empty when it is not."""
    found = [word for value in assigned(texts, section, key) for word in words(value) if _ASSIGNMENT.fullmatch(word)]
    mine = [word for word in found if word.startswith(f"{variable}=")]
    return mine[-1][len(variable) + 1 :] if mine else ""


def file_value(text: str, variable: str) -> t.Optional[str]:
    """Return what systemd's EnvironmentFile= sets a variable to, None when it does not; the last assignment counts."""
    value = None
    for entry in _ENTRY.finditer(text):
        if entry["plain"] is not None and entry["name"].rstrip(_BLANKS) == variable:
            pieces = [
                re.sub(r'\\(?:(["\\`$])|\n)', r"\1", double) if single is None else single
                for single, double in (piece.groups() for piece in _QUOTED.finditer(entry["quoted"]))
            ]
            plain = re.sub(r"(?<!\\)[ \t]+\Z", "", entry["plain"])
            value = "".join(pieces) + re.sub(r"\\(?:[\n\r]|\Z|(.))", r"\1", plain)
    return value


def login_value(text: str, variable: str) -> str:
    """Return what PAM takes from /etc/environment for a variable, pam_env(8): the last assignment counts.

    A "#" ends a line wherever it stands, quotes around a value are taken off, and there are no escapes.
    """
    value = ""
    for line in text.split("\n"):
        name, equals, rest = line.lstrip(" \t").partition("#")[0].partition("=")
        if equals and name in (variable, f"export {variable}"):
            value = rest[1:].rstrip("\"'") if rest.startswith(("'", '"')) else rest
    return value

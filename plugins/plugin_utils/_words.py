# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, times and shares as people say them, and the sentence for what the controller cannot read or write."""

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


class Sentence(t.NamedTuple):
    """A sentence with its figures apart, as thousands of units have the same words and other figures."""

    text: str
    figures: t.Tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the whole sentence."""
        return self.text.format(*self.figures)


def of_controller(error: OSError, option: str, place: str) -> str:
    """Return the sentence for an error of the controller's own files: which option named them, where, what to do."""
    return f"{option}: {error.filename or place}: {error.strerror}; name a path that the controller can write to."


@contextlib.contextmanager
def about(option: str, place: str) -> t.Iterator[None]:
    """Turn the errors of the controller's own files into that sentence while the block runs."""
    try:
        yield
    except OSError as error:
        raise JemallocError(of_controller(error, option, place)) from error


def size(number: float) -> str:
    """Return a number of bytes with three digits that mean something: 812 MiB, 1.50 GiB."""
    value, unit = abs(number) / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 999.5:
            break
        value, unit = value / 1024, larger
    digits = 0 if unit == "KiB" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{'-' if number < 0 else ''}{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Return a time in its largest unit: 45 s, 12 min, 6 h, 9 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(share: float) -> str:
    """Return a share without a sign, in whole percents: 27 %."""
    return f"{abs(share) * 100:.0f} %"


def count(number: int, thing: str) -> str:
    """Return a number and what it counts: 1 unit, 1,204 units, 3 processes."""
    return f"{number:,} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"

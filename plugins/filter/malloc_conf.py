# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter malloc_conf: options of jemalloc as the string that it reads, for what is no service of the role."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError


def encode(
    options: t.Any,
    version: t.Any = catalogue.DEFAULT_VERSION,
    prof: t.Optional[bool] = None,
    cxx: t.Optional[bool] = None,
    cpus: t.Optional[int] = None,
) -> str:
    """Return the string that a release reads from MALLOC_CONF; prof and cxx say how the library was built, if known."""
    if cpus is not None and (isinstance(cpus, bool) or not isinstance(cpus, int) or cpus < 1):
        raise AnsibleFilterError(f"malloc_conf: cpus is {cpus!r}; it is a whole number from 1 on.")
    built = None if prof is None and cxx is None else {"prof": prof, "cxx": cxx}
    try:
        given = malloc_conf.options_of(dict(options) if isinstance(options, Mapping) else options)
        return malloc_conf.encode(given, catalogue.check_number(str(version)), built, cpus)
    except JemallocError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> t.Dict[str, t.Callable[..., str]]:
        """Return them by name."""
        return {"malloc_conf": encode}

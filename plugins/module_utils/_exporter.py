"""Makes the program that gathers metrics without Ansible: one file with all sources that it needs, for any Python."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import ast
import importlib.util
import io
import os
import typing as t
import zipfile

from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError

#: The name of the distribution's own Python: it stays the same where an upgrade brings another version of it.
PYTHON = "/usr/bin/python3"

_PACKAGE = __name__.rpartition(".")[0]

_MAIN = f"""import sys

from {collector.__name__} import main

sys.exit(main())
"""

# The earliest that a zip archive can hold, so that the same sources make the same file.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3  # of the systems that a zip archive can come from, the one that has modes


def interpreter(executable: str) -> str:
    """Return the Python that runs the program: the one that runs this, by its lasting name where it has that.

    Raises JemallocError for a path that needs quotes.
    """
    chosen = PYTHON if os.path.realpath(PYTHON) == os.path.realpath(executable) else executable
    if not systemd.is_plain_path(chosen):  # it stands behind #! too
        raise JemallocError(
            f"{chosen!r} is the Python of this host, and systemd could not start it without quotes; name another one "
            "by ansible_python_interpreter."
        )
    return chosen


def program(python: str) -> bytes:
    """Return the program as the bytes of one file, the same for the same sources."""
    members = {"__main__.py": _MAIN}
    for name, source in sources().items():
        path = name.replace(".", "/")
        members[f"{path}.py"] = source
        # not every Python takes a directory in an archive for a package
        parents = path.split("/")[:-1]
        members.update({"/".join([*parents[:depth], "__init__.py"]): "" for depth in range(1, len(parents) + 1)})
    whole = io.BytesIO(f"#!{python} -I\n".encode("ascii"))
    whole.seek(0, os.SEEK_END)
    with zipfile.ZipFile(whole, "w") as archive:  # not compressed: how small that gets differs between versions of zlib
        for member in sorted(members):
            entry = zipfile.ZipInfo(member, _TIME)
            entry.create_system, entry.external_attr = _UNIX, 0o644 << 16
            archive.writestr(entry, members[member])
    return whole.getvalue()


def sources() -> t.Dict[str, str]:
    """Return the sources of the collector and of what it imports of ours, by the names of the modules."""
    found: t.Dict[str, str] = {}
    wanted = [collector.__name__]
    for name in wanted:
        if name not in found:
            found[name] = _source(name)
            wanted += imports(found[name])
    return found


def imports(source: str) -> t.List[str]:
    """Return which modules beside this one a source imports whenever it is loaded; what is only for types is not."""
    found: t.List[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            found += [f"{_PACKAGE}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE}."):
            found.append(str(node.module))
    return found


def _source(name: str) -> str:
    """Return the source of a module, by its loader: Ansible runs modules out of an archive.

    Raises JemallocError where there is only compiled code.
    """
    spec = importlib.util.find_spec(name)
    loader: t.Any = spec.loader if spec else None
    source = loader.get_source(name) if loader else None
    if source is None:
        raise JemallocError(f"The source of {name} is not there, of which the program is made; install it again.")
    return str(source)

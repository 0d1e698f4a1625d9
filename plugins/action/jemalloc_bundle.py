# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the bundle that the module of the same name packs to the controller, and lists its digest beside it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _files as files
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _action as base
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _answers as answers
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _cache as caching
from ansible_collections.preload.jemalloc.plugins.plugin_utils import _words as words

#: The cache, unless the task says otherwise; the defaults are those of the module.
DEFAULTS: t.Dict[str, t.Any] = {"cache": "~/.cache/preload.jemalloc", "cache_size": 1024}


def keep(directory: str, name: str, data: bytes, check: bool) -> bool:
    """Put a bundle and its digest into a directory; return whether that changes anything. Forks may do so at once."""
    digest = hashlib.sha256(data).hexdigest()
    path, sums = os.path.join(directory, name), os.path.join(directory, bundle.SUMS)
    if check:
        return not _is_kept(path, sums, digest)
    os.makedirs(directory, exist_ok=True)
    with _locked(directory):
        if _is_kept(path, sums, digest):
            return False
        files.write_file(path, data)
        lines = [line for line in (files.read_text(sums) or "").splitlines() if line.split()[-1:] != [name]]
        text = "".join(f"{line}\n" for line in sorted([*lines, f"{digest}  {name}"], key=lambda line: line.split()[-1]))
        files.write_file(sums, text.encode("utf-8"))
    return True


@contextlib.contextmanager
def _locked(directory: str) -> t.Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_kept(path: str, sums: str, digest: str) -> bool:
    listed = bundle.listed_digest(files.read_text(sums) or "", os.path.basename(path))
    return listed == digest and os.path.isfile(path) and files.sha256(path) == digest


class ActionModule(base.Action):
    """Runs the module and keeps what it packed."""

    NAME = "jemalloc_bundle"

    def answer(self) -> base.Result:
        """Return the result of the module, with the bundle kept where its own manifest says."""
        result = self.ask(self.NAME)
        if result.get("failed"):
            return result
        data, manifest = answers.bundle_of(self.asked_host(), self.NAME, result)
        if self._task.args.get("version") not in (None, "", manifest["release"]):
            raise answers.AnswerError(self.asked_host(), self.NAME, "version is not what this task asks for")
        del result["content"]
        directory = os.path.join(os.path.expanduser(str(self._task.args["dist"])), platform.name(manifest))
        name = bundle.file_name(manifest["release"])
        try:
            if not self._task.check_mode:
                given = {key: self._task.args.get(key) or default for key, default in DEFAULTS.items()}
                caching.Cache(str(given["cache"]), int(given["cache_size"])).add(data, self.asked_host())
            result["changed"] = keep(directory, name, data, self._task.check_mode)
        except OSError as error:
            raise JemallocError(words.of_controller(error, "dist", directory)) from error
        return {**result, "path": os.path.join(directory, name)}

"""Host access for the decisions: run commands, fetch files, warn."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, shown

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source

_APT_HELPER = "/usr/lib/apt/apt-helper"

# In front of a command: its standard error becomes part of its output, for checks that count every complaint.
_WITH_ERRORS = ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh")


def with_errors(command: t.Sequence[str]) -> t.List[str]:
    """Return a command that writes to its output what the given one writes to standard error as well."""
    return [*_WITH_ERRORS, *command]


def _loadable(value: str) -> str:
    """Return an LD_PRELOAD without the files that do not exist: every program would complain of them."""
    entries = [entry for entry in re.split("[: ]", value) if entry]
    return ":".join(entry for entry in entries if "/" not in entry or os.path.exists(entry))


def without_diff(module: AnsibleModule, result: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return a result, with its diff in diff mode only."""
    return result if module._diff else {key: value for key, value in result.items() if key != "diff"}


class Host:
    """The host that a module runs on. What only downloads need is loaded only for them."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._ca_path = module.params.get("ca_path")

    def warn(self, message: str) -> None:
        """Show a warning of one line, without the passwords of its URLs."""
        self._module.warn(shown(message))

    def run(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str]:
        """Run a command without a shell; return its exit status and its output, on failure with its errors.

        Standard error of a command that succeeds is dropped, as every program may complain there of what is not its
        own: the dynamic linker does so of a library that is gone. 127: there is no such command.
        """
        status, output, errors = self.outputs(arguments, directory, data)
        return status, output + errors if status else output

    def outputs(
        self, arguments: t.Sequence[str], directory: t.Optional[str] = None, data: t.Optional[str] = None
    ) -> t.Tuple[int, str, str]:
        """Run a command without a shell; return its exit status, its output, and what it complained of."""
        preload = os.environ.get("LD_PRELOAD")
        variables = {"LC_ALL": "C", **({"LD_PRELOAD": _loadable(preload)} if preload else {})}
        try:
            return self._module.run_command(
                list(arguments),
                cwd=directory,
                data=data,
                environ_update=variables,
                handle_exceptions=False,
                expand_user_and_vars=False,  # an argument is what it is, also where it looks like a variable
            )
        except FileNotFoundError as error:
            return 127, "", str(error)

    def archive_roots(self) -> t.List[str]:
        """Return the pools of the host's distribution, from apt's own configuration; none where there is no apt."""
        if not os.path.exists(_APT_HELPER):
            return []
        from ansible_collections.preload.jemalloc.plugins.module_utils import _source as source

        status, output = self.run(source.ARCHIVES)
        return source.parse_archive_roots(output) if status == 0 else []

    def fetch(self, candidate: source.Candidate, path: str) -> None:
        """Bring a candidate's bytes to path."""
        {"file": self._copy, "url": self._download, "apt": self._apt}[candidate.kind](candidate, path)

    def _copy(self, candidate: source.Candidate, path: str) -> None:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive

        try:
            status = os.stat(candidate.location)
            if not stat.S_ISREG(status.st_mode):
                raise JemallocError("it is not a regular file")
            if status.st_size > archive.MAX_PACKED:
                raise JemallocError(f"it is larger than {archive.MAX_PACKED >> 20} MiB, too much for a release")
            with open(candidate.location, "rb") as original, open(path, "wb") as copy:
                shutil.copyfileobj(original, copy)
        except OSError as error:
            if error.filename != candidate.location:  # the disk here, which no other origin mends
                raise
            raise JemallocError(str(error.strerror)) from error

    def _download(self, candidate: source.Candidate, path: str) -> None:
        from ansible.module_utils.urls import open_url

        from ansible_collections.preload.jemalloc.plugins.module_utils import _archive as archive
        from ansible_collections.preload.jemalloc.plugins.module_utils._download import download

        def opener(url: str, headers: t.Dict[str, str], timeout: int) -> t.Any:
            return open_url(url, headers=headers, timeout=timeout, ca_path=self._ca_path, decompress=False)

        download(candidate.location, path, archive.MAX_PACKED, opener)

    def _apt(self, candidate: source.Candidate, path: str) -> None:
        # apt's own helper, for its proxy, authentication and certificates; unsandboxed: _apt may not write to staging
        command = [_APT_HELPER, "-o", "APT::Sandbox::User=root", "download-file", candidate.location, path]
        status, output = self.run([*command, f"SHA256:{candidate.sha256}"])
        if status:
            errors = [line[3:] for line in output.splitlines() if line.startswith("E: ")]
            for number in (errno.ENOSPC, errno.EDQUOT):
                if os.strerror(number) in " ".join(errors):  # apt's words for it, as it wrote the file itself
                    raise OSError(number, os.strerror(number), path)
            raise JemallocError("; ".join(errors) or f"apt-helper ended with {status}")

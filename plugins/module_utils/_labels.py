"""Labels of SELinux: what is new on a host gets the one that the host's policy has for its path."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import os
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils._build import Run

# Is there where the kernel enforces a policy, or would, selinux(8).
_ENFORCE = "sys/fs/selinux/enforce"


def restore(run: Run, paths: t.Sequence[str], root: str = "/") -> None:
    """Label these paths and what is below them, as confined services may map only what is labelled as a library.

    A host without SELinux has no labels, and one without restorecon(8) no policy that knows paths.
    """
    if paths and os.path.exists(os.path.join(root, _ENFORCE)):
        run(["restorecon", "-R", *paths], None, None)

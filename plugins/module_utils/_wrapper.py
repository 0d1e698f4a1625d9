"""The texts of jemalloc.sh and no-jemalloc.sh, which run one command with jemalloc, and without it."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import typing as t

# Both are of shell built-ins only, so that they cost one exec and nothing else. Names with two underscores are in no
# environment that the command inherits, which an assignment would change. Exit statuses 64 (usage) and 69 (unavailable)
# are those of sysexits.h; 126 and 127 are the shell's, as in plain exec.

# What LD_PRELOAD holds without us. Entries of ours that are already in it are dropped, so that another release can be
# asked for below a preloaded parent; everybody else's stay, behind ours.
_OTHERS = """__others=
__rest=${LD_PRELOAD-}:
while [ -n "$__rest" ]; do
  __entry=${__rest%%[: ]*}
  __rest=${__rest#*[: ]}
  case $__entry in
    '' | @PREFIX@/*) ;;
    *) __others=$__others:$__entry ;;
  esac
done
"""

_WITH = """#!/bin/sh
# jemalloc.sh COMMAND [ARGUMENT...]: runs COMMAND with jemalloc preloaded, in front of what LD_PRELOAD holds.
# JEMALLOC_VERSION=X.Y.Z takes that installed release, unset the current one.
# Managed by the Ansible collection preload.jemalloc; changes made here are lost.
if [ "$#" -eq 0 ]; then
  echo 'jemalloc.sh: no command was given; usage: jemalloc.sh COMMAND [ARGUMENT...]' >&2
  exit 64
fi
__library=@PREFIX@/${JEMALLOC_VERSION:-current}/lib/libjemalloc.so
if [ ! -r "$__library" ]; then
  echo "jemalloc.sh: there is no $__library; install that release or unset JEMALLOC_VERSION" >&2
  exit 69
fi
@OTHERS@LD_PRELOAD=$__library$__others
export LD_PRELOAD
exec "$@"
"""


# The way back. What the dynamic linker's own list names cannot be taken out of an environment: there root gets a mount
# namespace in which that list is what it would be without us.
_WITHOUT = """#!/bin/sh
# no-jemalloc.sh COMMAND [ARGUMENT...]: runs COMMAND without jemalloc; what else LD_PRELOAD holds stays.
# Managed by the Ansible collection preload.jemalloc; changes made here are lost.
if [ "$#" -eq 0 ]; then
  echo 'no-jemalloc.sh: no command was given; usage: no-jemalloc.sh COMMAND [ARGUMENT...]' >&2
  exit 64
fi
@OTHERS@if [ -n "$__others" ]; then
  LD_PRELOAD=${__others#:}
  export LD_PRELOAD
else
  unset LD_PRELOAD
fi
__preloaded=
[ ! -r /etc/ld.so.preload ] || while read -r __line; do
  case $__line in
    @PREFIX@/*) __preloaded=yes ;;
  esac
done < /etc/ld.so.preload
[ -n "$__preloaded" ] || exec "$@"
if [ ! -O /etc ]; then
  echo 'no-jemalloc.sh: /etc/ld.so.preload names jemalloc for every process; only root can run one without it' >&2
  exit 69
fi
# shellcheck disable=SC2016 # the inner shell expands them
exec unshare --mount -- /bin/sh -c \
  'mount --bind /etc/ld.so.preload.without-jemalloc /etc/ld.so.preload && exec "$@"' no-jemalloc.sh "$@"
"""


def texts(prefix: str) -> t.Dict[str, str]:
    """Return the wrappers of a store, by their names below an installation."""
    templates = {"bin/jemalloc.sh": _WITH, "bin/no-jemalloc.sh": _WITHOUT}
    return {
        name: template.replace("@OTHERS@", _OTHERS).replace("@PREFIX@", prefix) for name, template in templates.items()
    }

"""The text of jemalloc.sh, which runs one command with jemalloc: the buildpack's per-command way."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

# Shell built-ins only, so that it costs one exec and nothing else. Entries of ours that are already in LD_PRELOAD are
# dropped, so that another release can be asked for below a preloaded parent; everybody else's stay, behind ours.
# Exit statuses 64 (usage) and 69 (unavailable) are those of sysexits.h; 126 and 127 are the shell's, as in plain exec.
_TEXT = """#!/bin/sh
# jemalloc.sh COMMAND [ARGUMENT...]: runs COMMAND with jemalloc preloaded, in front of what LD_PRELOAD holds.
# JEMALLOC_VERSION=X.Y.Z takes that installed release, unset the current one.
# Managed by the Ansible collection preload.jemalloc; changes made here are lost.
if [ "$#" -eq 0 ]; then
  echo 'jemalloc.sh: no command was given; usage: jemalloc.sh COMMAND [ARGUMENT...]' >&2
  exit 64
fi
library=@PREFIX@/${JEMALLOC_VERSION:-current}/lib/libjemalloc.so
if [ ! -r "$library" ]; then
  echo "jemalloc.sh: there is no $library; install that release or unset JEMALLOC_VERSION" >&2
  exit 69
fi
others=
set -f
IFS=': '
for entry in ${LD_PRELOAD-}; do
  case $entry in
    '' | @PREFIX@/*) ;;
    *) others=$others:$entry ;;
  esac
done
unset IFS
LD_PRELOAD=$library$others
export LD_PRELOAD
exec "$@"
"""


def text(prefix: str) -> str:
    """Return the wrapper for a store."""
    return _TEXT.replace("@PREFIX@", prefix)

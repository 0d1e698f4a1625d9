# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that need a library: where it comes from, how it is built, and where it is kept."""

# Note that this doc fragment is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations


class ModuleDocFragment:
    """The options; module_utils/_arguments.py has the same as arguments."""

    DOCUMENTATION = r"""
options:
  bundle:
    description:
      - A bundle that M(preload.jemalloc.jemalloc_bundle) made, as a file or a directory on the host (an absolute path
        or a C(file://) URL), or an C(http://) or C(https://) URL. C({version}) stands for the release.
      - It has to fit by release, architecture, C library, page size and O(options).
    type: str
  bundle_checksum:
    description:
      - SHA-256 of the bundle, as V(sha256:) and 64 hexadecimal digits.
      - For a bundle on the host it may be left out if a file C(SHA256SUMS) beside it lists it.
    type: str
  origins:
    description:
      - Own places of the source, tried in this order before upstream's release asset and the archive of the host's
        own distribution (its address is taken from the host's own apt configuration).
      - Each is a tarball or a directory on the host (an absolute path or a C(file://) URL), or an C(http://) or
        C(https://) URL of a tarball or of a directory that holds C(jemalloc-VERSION.tar.bz2). C({version}) stands for
        the release.
      - Wherever the bytes come from, they count only if their SHA-256 is the pinned one. A URL with a password is
        refused. Proxies are taken from the environment.
    type: list
    elements: str
    default: []
  checksum:
    description:
      - SHA-256 of the source, as V(sha256:) and 64 hexadecimal digits. It replaces the pinned one.
      - Needed for a release that this collection does not know.
    type: str
  ca_path:
    description: A PEM file on the host with certificates of authorities to trust in downloads, such as a private one.
    type: path
  options:
    description: How the library is built. One that was built with other options is built anew.
    type: dict
    default: {}
    suboptions:
      cxx:
        description:
          - Whether C++'s operators new and delete are part of it, from jemalloc 5.0.0 on.
          - The library then needs libstdc++ in every program that preloads it, and starts more slowly.
        type: bool
        default: false
      prof:
        description: Whether heap profiling is built in. With musl it does not work.
        type: bool
        default: false
      lg_page:
        description:
          - Base-2 logarithm of the largest page size in bytes that the library is to work with.
          - Without it V(16) on machines that use pages of 64 KiB (aarch64, ppc64le and others), else V(12).
        type: int
        choices: [12, 13, 14, 16]
  cache_mirror:
    description:
      - Address of a copy of such a directory on a web server, which is asked for what O(cache) lacks.
      - It has to be C(https://), or O(cache_mirror_checksum) has to be given.
    type: str
  cache_mirror_checksum:
    description: SHA-256 of the file C(index.json) of O(cache_mirror), as V(sha256:) and 64 hexadecimal digits.
    type: str
  build_host:
    description:
      - A host of the inventory, or a group, that builds for all hosts of a play. Each host then takes only builds of
        these, its own, and those of O(cache_mirror). The task that builds has to be delegated to such a host.
      - If not set, trust flows down the inventory. A host takes its own builds and those of the hosts that stand before
        it in the inventory, from this run and from earlier ones.
    type: str
  build_shared:
    description:
      - Whether hosts take builds of other hosts. If V(false), each host builds for itself and takes nothing else but
        bundles of O(cache_mirror). Mutually exclusive with O(build_host).
    type: bool
    default: true
  pushed:
    description: What the controller brought to the host for this call. Its action fills it; it is not to be set.
    type: dict
    suboptions:
      path:
        description: The file on the host.
        type: path
      kind:
        description: What it is.
        type: str
        choices: [source, bundle]
      sha256:
        description: Its digest in hexadecimal.
        type: str
      commit:
        description: Upstream's commit, for a source that is a snapshot of the release's tag.
        type: str
      origin:
        description: Where the controller has it from.
        type: str
      builder:
        description: The host that built the bundle, or the mirror that it is from.
        type: str
"""

    CACHE = r"""
options:
  cache:
    description:
      - Directory on the controller that keeps sources and bundles by their digests, for all runs and hosts. It may be
        shared by several controllers.
      - It is made for its owner alone. A directory that another user owns, except for root, or that its group or others
        can write to is refused.
    type: path
    default: ~/.cache/preload.jemalloc
  cache_size:
    description: MiB that the cache may take; what was not used for the longest time goes first.
    type: int
    default: 1024
"""

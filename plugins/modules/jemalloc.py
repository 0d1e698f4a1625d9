#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc
short_description: Build and install releases of jemalloc beside each other
version_added: 0.1.0
description:
  - Installs a release of the jemalloc memory allocator from its verified source below a prefix, beside other releases,
    and lets the link C(current) lead to it. Nothing is preloaded by that; see M(preload.jemalloc.jemalloc_preload).
  - An installation is complete or not there. It is built in a private directory of the prefix' own file system,
    run on the host (threads, fork, exec, dlopen), made durable, and then renamed to its final name.
  - The shared library, C(jemalloc.sh), C(jemalloc-config) and C(jeprof) are installed, as far as the release has them.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
    support: full
  idempotent:
    description: When run twice in a row without a change outside, the second run changes nothing.
    support: full
options:
  version:
    description:
      - The release, for example V(5.1.0).
      - Without it the newest release that this collection was tested with is installed, and with O(state=absent)
        everything is removed.
      - A release that this collection does not know needs its O(checksum).
    type: str
  state:
    description:
      - V(present) installs the release if it is not there, is damaged, or was built with other O(options).
      - V(absent) removes the release, or all of them when O(version) is not given, then with the prefix.
        It is refused while a file that M(preload.jemalloc.jemalloc_preload) wrote still refers to the installation.
    type: str
    choices: [present, absent]
    default: present
  current:
    description: Whether the link C(current) is to lead to the release. What it led to before is kept as C(previous).
    type: bool
    default: true
  prefix:
    description: Absolute path of the directory that holds the installations. Its parent must exist.
    type: path
    default: /opt/jemalloc
  origins:
    description:
      - Own places of the source, tried in this order before upstream's release asset and the archive of the host's
        own distribution (its address is taken from the host's own apt configuration).
      - Each is a tarball or a directory on the host (an absolute path or a C(file://) URL), or an C(http://) or
        C(https://) URL of a tarball or of a directory that holds C(jemalloc-VERSION.tar.bz2). C({version}) stands for
        the release.
      - Wherever the bytes come from, they count only if their SHA-256 is the pinned one. URLs must not carry passwords.
    type: list
    elements: str
    default: []
  checksum:
    description:
      - SHA-256 of the source, as V(sha256:) and 64 hexadecimal digits. It replaces the pinned one.
      - Needed for a release that this collection does not know.
    type: str
  options:
    description: How the library is built. An installation with other options is built anew.
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
        description: Whether heap profiling is built in.
        type: bool
        default: false
      lg_page:
        description:
          - Base-2 logarithm of the largest page size in bytes that the library is to work with.
          - Without it V(16) on machines that use pages of 64 KiB (aarch64, ppc64le and others), else V(12).
        type: int
        choices: [12, 13, 14, 16]
  build_packages:
    description:
      - Whether packages that a build needs (compiler, make, headers of the C library, autoconf) are installed by the
        host's package manager when they are missing and a build is needed.
    type: bool
    default: true
  for_services:
    description:
      - Services that are going to preload the installation. They are only looked up, before anything is changed, so
        that a wrong name is not found after a build.
    type: list
    elements: str
    default: []
  released:
    description:
      - Files that M(preload.jemalloc.jemalloc_preload) took away in this play, as its return value C(files) says.
        In check mode they are still there, and this says that they are not to count as references.
    type: list
    elements: path
    default: []
seealso:
  - module: preload.jemalloc.jemalloc_preload
"""

EXAMPLES = r"""
- name: Install the newest tested release below /opt/jemalloc
  preload.jemalloc.jemalloc:

- name: Install another release beside it, without making it current
  preload.jemalloc.jemalloc:
    version: 5.1.0
    current: false

- name: Take the source from an own mirror first
  preload.jemalloc.jemalloc:
    version: 5.3.0
    origins:
      - https://mirror.example.com/jemalloc/jemalloc-{version}.tar.bz2

- name: Install a release that the collection does not know yet
  preload.jemalloc.jemalloc:
    version: 5.9.0
    checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

- name: Remove everything
  preload.jemalloc.jemalloc:
    state: absent
"""

RETURN = r"""
version:
  description: The release that was asked for; none when all were removed.
  returned: always
  type: str
  sample: 5.3.1
library:
  description: The stable path of the current library, the same for every release.
  returned: always
  type: str
  sample: /opt/jemalloc/current/lib/libjemalloc.so
installations:
  description: The releases that are installed afterwards.
  returned: success
  type: list
  elements: str
  sample: [5.3.0, 5.3.1]
current:
  description: The release that the link current leads to afterwards.
  returned: success
  type: str
  sample: 5.3.1
previous:
  description: The release that was current before it.
  returned: success
  type: str
  sample: 5.3.0
built:
  description: The release that was built, none when nothing had to be; in check mode the one that would be.
  returned: success
  type: str
  sample: 5.3.1
origin:
  description: Where the source came from, when something was built.
  returned: success
  type: str
  sample: https://mirror.example.com/jemalloc-5.3.1.tar.bz2
packages:
  description: The packages that were installed for the build.
  returned: success
  type: list
  elements: str
  sample: [gcc, make]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _build as build
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

ARGUMENTS = {
    "version": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "current": {"type": "bool", "default": True},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "origins": {"type": "list", "elements": "str", "default": []},
    "checksum": {"type": "str"},
    "options": {
        "type": "dict",
        "default": {},
        "options": {
            "cxx": {"type": "bool", "default": False},
            "prof": {"type": "bool", "default": False},
            "lg_page": {"type": "int", "choices": [12, 13, 14, 16]},
        },
    },
    "build_packages": {"type": "bool", "default": True},
    "for_services": {"type": "list", "elements": "str", "default": []},
    "released": {"type": "list", "elements": "path", "default": []},
}


def make_present(module: AnsibleModule, host: Host, prefix: str) -> t.Dict[str, t.Any]:
    """Plan and carry out state present."""
    params = module.params
    release = catalogue.find_release(params["version"] or None, params["checksum"] or None)
    options = build.Options(**params["options"])
    request = install.Request(prefix, release, options, params["origins"], params["build_packages"])
    systemd.units(host.run, params["for_services"])

    def plan() -> store.Plan:
        return store.plan_present(
            store.read(prefix), release, options.as_dict(), bool(params["checksum"]), params["current"]
        )

    before, planned = store.read(prefix), plan()
    result = report(before, planned, release.version)
    if planned.install:
        install.check_tools(host, request)
    if planned.changes and not module.check_mode:
        with store.locked(prefix):
            # Read again: whoever had the lock before may have done what was missing.
            result.update(install.carry_out(host, request, plan()))
    return result


def make_absent(module: AnsibleModule, prefix: str) -> t.Dict[str, t.Any]:
    """Plan and carry out state absent."""
    version = module.params["version"] or None
    before = store.read(prefix)
    planned = store.plan_absent(before, version)
    going = [prefix] if planned.unlink else [f"{prefix}/{name}" for name in planned.remove]
    released = module.params["released"] if module.check_mode else []
    referring = [path for directory in going for path in preload.references(directory) if path not in released]
    if referring:
        raise JemallocError(
            f"{going[0]} cannot be removed while it is named in {', '.join(referring)}; "
            "take that scope away first with preload.jemalloc.jemalloc_preload."
        )
    if planned.changes and not module.check_mode:
        with store.locked(prefix):
            store.remove(prefix, store.plan_absent(store.read(prefix), version))
    return report(before, planned, version)


def report(before: store.Store, planned: store.Plan, version: t.Optional[str]) -> t.Dict[str, t.Any]:
    """Return what every run returns; check mode returns the same."""
    return {
        "changed": planned.changes,
        "diff": {"before": before.describe(), "after": planned.after},
        "version": version,
        "library": preload.library(before.prefix),
        "built": planned.install,
        "origin": None,
        "packages": [],
        **planned.after,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    host = Host(module)
    try:
        prefix = store.check_prefix(module.params["prefix"])
        if module.params["state"] == "present":
            result = make_present(module, host, prefix)
        else:
            result = make_absent(module, prefix)
    except JemallocError as error:
        module.fail_json(msg=str(error), **failure(module))
    except PermissionError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; run this as root (become: true).", **failure(module))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['prefix']}: {error.strerror}.", **failure(module))
    module.exit_json(**result)


def failure(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Return the keys that are there even when it failed."""
    return {"version": module.params["version"], "library": preload.library(module.params["prefix"].rstrip("/"))}


if __name__ == "__main__":
    main()

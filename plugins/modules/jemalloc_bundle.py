#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_bundle
short_description: Pack an installation of jemalloc for other hosts
version_added: 0.1.0
description:
  - Packs one installation below a prefix into an archive, which M(preload.jemalloc.jemalloc) installs on other hosts of
    the same platform without a compiler and without a build.
  - The archive comes to the controller, as C(PLATFORM/jemalloc-VERSION.tar.gz) below O(dist), and its digest into the
    file C(SHA256SUMS) beside it.
  - The same build packed twice has the same bytes.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
  - preload.jemalloc._library.cache
attributes:
  diff_mode:
    support: none
options:
  version:
    description: The release to pack, which has to be installed. Without it the one that the link C(current) leads to.
    type: str
  prefix:
    description: Absolute path of the directory that holds the installations.
    type: path
    default: /opt/jemalloc
  dist:
    description: The directory on the controller that gets the archive; it is made where it is missing.
    type: path
    required: true
seealso:
  - module: preload.jemalloc.jemalloc
"""

EXAMPLES = r"""
- name: Pack the current release
  preload.jemalloc.jemalloc_bundle:
    dist: "{{ playbook_dir }}/dist"

- name: Pack another release below another prefix, and keep it in the cache that controllers share
  preload.jemalloc.jemalloc_bundle:
    version: 5.1.0
    prefix: /srv/jemalloc
    dist: /srv/www/jemalloc
    cache: /srv/jemalloc-cache
    cache_size: 4096
"""

RETURN = r"""
version:
  description: The release that was packed.
  returned: success
  type: str
  sample: 5.3.1
platform:
  description: What the bundle is for, architecture and lowest C library, as one word.
  returned: success
  type: str
  sample: x86_64-glibc2.34
path:
  description: Where the bundle is on the controller.
  returned: success
  type: str
  sample: /srv/dist/x86_64-glibc2.34/jemalloc-5.3.1.tar.gz
receipt:
  description: What the receipt says of the build.
  returned: success
  type: dict
sha256:
  description: The digest of the bundle in hexadecimal.
  returned: success
  type: str
"""

import base64
import hashlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _platform as platform
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system

ARGUMENTS = {
    **arguments.CACHE,
    "version": {"type": "str"},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "dist": {"type": "path", "required": True},
}


def packed(prefix: str, version: t.Optional[str]) -> t.Dict[str, t.Any]:
    """Return the bundle of an installation, its content for the action plugin that took the call."""
    found = store.read(prefix)
    wanted = catalogue.check_number(version) if version else found.current or ""
    installation = found.installations.get(wanted)
    if installation is None:
        raise JemallocError(
            f"version: jemalloc {wanted or '(current)'} is not installed in {prefix}; install it first, or name one of "
            f"{', '.join(found.installations) or 'those that are'}."
        )
    if installation.damage:
        raise JemallocError(f"version: {prefix}/{wanted} is damaged ({installation.damage}); install it again first.")
    if installation.receipt.get("method") == "package":
        raise JemallocError(
            f"version: {prefix}/{wanted} is a copy from the distribution's package and no build; install that package "
            "on the other hosts instead."
        )
    data = bundle.pack(f"{prefix}/{wanted}", installation.receipt)
    return {
        "changed": False,
        "version": wanted,
        "platform": platform.name(installation.receipt),
        "receipt": bundle.portable(installation.receipt),
        "sha256": hashlib.sha256(data).hexdigest(),
        "content": base64.b64encode(data).decode("ascii"),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = packed(store.check_prefix(module.params["prefix"]), module.params["version"] or None)
    except JemallocError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=of_system(error, module.params["prefix"]))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

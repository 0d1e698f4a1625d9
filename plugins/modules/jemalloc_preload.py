#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_preload
short_description: Say who preloads jemalloc on a host
version_added: 0.1.0
description:
  - Makes all scopes of a host what is listed, in one transaction, which are its services and the host as a whole.
    What was listed before and is not any more is taken away.
  - A service gets a systemd drop-in. The host gets a drop-in for systemd's default environment (every service that
    starts afterwards) and a marked part of C(/etc/environment) (every login, ssh and cron command).
  - In any case C(/etc/profile.d/jemalloc.sh) puts C(jemalloc-config) and its like behind what is on the C(PATH) and
    lets E(JEMALLOC_ENABLED) decide at login, and C(/usr/local/bin/jemalloc.sh) leads to the wrapper.
  - The library is run on the host before anything refers to it, and nothing is restarted here. RV(restarts) says which
    running services need it, for M(preload.jemalloc.jemalloc_service).
  - The texts are rendered on the controller from the templates of the role.
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
  host:
    description: Whether everything on the host that starts from now on preloads the library.
    type: bool
    default: false
  services:
    description:
      - The systemd services that preload the library, for example V(puma). V(.service) may be left out.
      - Each must exist. An C(LD_PRELOAD) from its own unit files stays, and the library comes in front of it. One from
        an C(EnvironmentFile=) would win, and is refused.
    type: list
    elements: str
    default: []
  state:
    description: With V(absent) every file of this module goes, whatever O(host) and O(services) say.
    type: str
    choices: [present, absent]
    default: present
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  version:
    description:
      - The release that C(current) leads to when this runs for real, as M(preload.jemalloc.jemalloc) returned it.
        In check mode it is not there yet, and this says what RV(restarts) is to be measured against.
      - Without it, what C(current) leads to.
    type: str
  rebuilt:
    description:
      - The release that M(preload.jemalloc.jemalloc) built in this play, as its return value C(built) says.
        In check mode its library is not replaced yet, so this says that processes which map it need a restart.
    type: str
  texts:
    description: The rendered templates. The action plugin of this name fills it; it is not to be set.
    type: dict
    suboptions:
      service:
        description: The drop-in of a service.
        type: str
      manager:
        description: The drop-in of systemd itself.
        type: str
      environment:
        description: The part of C(/etc/environment).
        type: str
      profile:
        description: The script for login shells.
        type: str
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_service
"""

EXAMPLES = r"""
- name: Let two services preload jemalloc, and nobody else
  preload.jemalloc.jemalloc_preload:
    services: [puma, sidekiq]
  register: preload
  notify: Restart and prove

- name: Let everything that starts from now on preload it
  preload.jemalloc.jemalloc_preload:
    host: true

- name: Take every scope away
  preload.jemalloc.jemalloc_preload:
    state: absent
"""

RETURN = r"""
files:
  description: The files that changed, in check mode those that would.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf]
restarts:
  description:
    - The running services whose processes do not map what they should, each as M(preload.jemalloc.jemalloc_service)
      takes it.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The service.
      type: str
      sample: puma.service
    version:
      description: The release its processes have to map, none when they have to map no library of the store.
      type: str
      sample: 5.3.1
    reason:
      description: Why it has to be restarted.
      type: str
      sample: 3 of its 3 processes do not map jemalloc 5.3.1
foreign:
  description: Files with the name of one of ours that somebody else made, and that were left alone.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/jemalloc.sh]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _preload as preload
from ansible_collections.preload.jemalloc.plugins.module_utils import _restarts as restarts
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host
from ansible_collections.preload.jemalloc.plugins.module_utils._preflight import preflight

ARGUMENTS = {
    "host": {"type": "bool", "default": False},
    "services": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "version": {"type": "str"},
    "rebuilt": {"type": "str"},
    "texts": {
        "type": "dict",
        "options": {
            "service": {"type": "str"},
            "manager": {"type": "str"},
            "environment": {"type": "str"},
            "profile": {"type": "str"},
        },
    },
}


def run(module: AnsibleModule, host: Host) -> t.Dict[str, t.Any]:
    """Plan the scopes and apply them."""
    params = module.params
    prefix = store.check_prefix(params["prefix"])
    present = params["state"] == "present"
    units = systemd.units(host.run, params["services"] if present else [])
    version = current(module, prefix) if present else None
    texts = rendered(params["texts"]) if present else None
    changes, foreign = preload.plan(units, params["host"] and present, texts, prefix)
    wanted = restarts.wanted(units, version, changes, host_wide=params["host"] and present)
    result = {
        "changed": bool(changes),
        "diff": [
            {"before_header": c.path, "after_header": c.path, "before": c.before or "", "after": c.after or ""}
            for c in changes
        ],
        "files": [change.path for change in changes],
        "foreign": foreign,
        # Read before anything changes: what cannot be read here is found out while the host is as it was.
        "restarts": restarts.needed(wanted, prefix, params["rebuilt"] if module.check_mode else None),
    }
    if foreign:
        host.warn(f"{', '.join(foreign)} was not made by this collection and is left as it is.")
    if changes and not module.check_mode:
        if present:
            preflight(host.run, preload.library(prefix))
        preload.apply(changes)
        reload_systemd(host, changes)
    return result


def current(module: AnsibleModule, prefix: str) -> t.Optional[str]:
    """Return the release that a scope would refer to; it must be there, but for check mode before the first run."""
    found = store.read(prefix)
    installation = found.installations.get(found.current or "")
    if module.check_mode and module.params["version"]:
        return module.params["version"]
    if installation is None or installation.damage:
        reason = installation.damage if installation else "no release is installed there"
        raise JemallocError(
            f"{prefix}/current cannot be preloaded: {reason}; run preload.jemalloc.jemalloc with this prefix first."
        )
    return found.current


def rendered(texts: t.Optional[t.Mapping[str, t.Any]]) -> preload.Texts:
    """Return the rendered templates."""
    if not texts:
        raise JemallocError("texts: nothing was rendered; call this module by its full name, so that its action runs.")
    return preload.Texts(**texts)


def reload_systemd(host: Host, changes: t.Sequence[preload.Change]) -> None:
    """Let systemd read its files again when one of them changed; when it cannot, the changes are taken back."""
    if not systemd.is_running() or not any("/systemd/" in change.path for change in changes):
        return
    status, output = host.run(["systemctl", "daemon-reload"])
    if status:
        preload.apply(preload.reverse(changes))
        raise JemallocError(f"systemctl daemon-reload ended with {status}: {output.strip()}; all files are as before.")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module, Host(module))
    except JemallocError as error:
        module.fail_json(msg=str(error), files=[])
    except PermissionError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; run this as root (become: true).", files=[])
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; all files are as before.", files=[])
    module.exit_json(**result)


if __name__ == "__main__":
    main()

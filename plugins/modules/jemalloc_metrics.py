#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_metrics
short_description: Give what runs with which allocator to Prometheus
version_added: 0.1.0
description:
  - Lets a systemd timer write what M(preload.jemalloc.jemalloc_info) sees as C(jemalloc.prom), for the textfile
    collector of Prometheus' node exporter. C(docs/metrics.md) of the collection lists the metrics.
  - The timer runs C(/usr/local/lib/preload-jemalloc/metrics.pyz), which needs the host's own Python and nothing of
    Ansible. Its service sees all processes, changes nothing but that file, and has no network.
  - The service is run once and has to write complete metrics. Otherwise everything is taken back, and the module fails
    with the reason and the last lines of the journal.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  diff_mode:
    support: full
options:
  state:
    description:
      - V(present) needs systemd.
      - V(absent) stops the timer and removes it, the program and the metrics.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description:
      - The directory that the textfile collector reads, which is what the exporter has as
        C(--collector.textfile.directory). The default is that of the packages of Debian and Ubuntu.
      - It has to be there, and is never made or removed. Metrics in a directory that no exporter reads would be lost
        without a word, so have the exporter installed before.
      - It may belong to the exporter's user. A link in its path that a user other than root may have made is refused.
      - With O(state=absent) it only counts where no service is there to say it.
    type: path
    default: /var/lib/prometheus/node-exporter
  interval:
    description:
      - The time from one look at the host to the next, as systemd writes it, from V(10s) to V(1d).
      - A look takes about half a second of a CPU that has nothing else to do.
    type: str
    default: 1min
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
seealso:
  - module: preload.jemalloc.jemalloc_info
  - module: preload.jemalloc.jemalloc_report
"""

EXAMPLES = r"""
- name: Have the exporter
  ansible.builtin.apt:
    name: prometheus-node-exporter

- name: Give metrics of jemalloc to Prometheus
  preload.jemalloc.jemalloc_metrics:

- name: Give them every five minutes, to an exporter that was not installed by a package of Debian
  preload.jemalloc.jemalloc_metrics:
    directory: /var/lib/node_exporter
    interval: 5min
    prefix: /srv/jemalloc

- name: Give no metrics any more
  preload.jemalloc.jemalloc_metrics:
    state: absent
"""

RETURN = r"""
files:
  description: The files that changed, in check mode those that would.
  returned: always
  type: list
  elements: str
  sample:
    - /usr/local/lib/preload-jemalloc/metrics.pyz
    - /etc/systemd/system/preload-jemalloc-metrics.service
    - /etc/systemd/system/preload-jemalloc-metrics.timer
    - /etc/systemd/system/timers.target.wants/preload-jemalloc-metrics.timer
metrics:
  description: The file that Prometheus gets, empty with O(state=absent).
  returned: success
  type: str
  sample: /var/lib/prometheus/node-exporter/jemalloc.prom
reason:
  description: Why the timer was started, or would be in check mode, although no file changed; empty when it was not.
  returned: success
  type: str
  sample: preload-jemalloc-metrics.timer is not active
"""

import os
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
from ansible_collections.preload.jemalloc.plugins.module_utils import _collector as collector
from ansible_collections.preload.jemalloc.plugins.module_utils import _exporter as exporter
from ansible_collections.preload.jemalloc.plugins.module_utils import _expose as expose
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
from ansible_collections.preload.jemalloc.plugins.module_utils import _timer as timer
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host, without_diff

ARGUMENTS: t.Dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "directory": {"type": "path", "default": "/var/lib/prometheus/node-exporter"},
    "interval": {"type": "str", "default": "1min"},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
}


def run(module: AnsibleModule, host: Host) -> t.Dict[str, t.Any]:
    """Plan, and carry it out as the only run that changes this host."""
    steps = present if module.params["state"] == "present" else absent
    result, carry_out = steps(module, host)
    if module.check_mode or not result["changed"]:
        return result
    with changes_util.locked():
        expose.clear_leftovers(module.params["directory"])
        result, carry_out = steps(module, host)  # it may be another host since the lock is ours
        carry_out()
    return result


def present(module: AnsibleModule, host: Host) -> t.Tuple[t.Dict[str, t.Any], t.Callable[[], None]]:
    """Return the result, which check mode and the real run share, and what carries it out."""
    params = module.params
    if not systemd.is_running():
        raise JemallocError("state: systemd is not the init of this host, and metrics need its timers; set it absent.")
    interval, prefix = timer.check_interval(params["interval"]), store.check_prefix(params["prefix"])
    directory = timer.check_directory(params["directory"])
    python = exporter.interpreter(sys.executable)
    units = timer.texts(python, prefix, directory, interval)
    changes = timer.plan_present(exporter.program(python), units, directory)
    state = timer.state(host.run, directory)
    reason = "" if changes else state.reason
    metrics = os.path.join(directory, collector.FILE)

    def carry_out() -> None:
        if changes or reason:
            expose.expose(host, changes, directory, state.active)

    return {**planned(changes, bool(reason)), "metrics": metrics, "reason": reason}, carry_out


def absent(module: AnsibleModule, host: Host) -> t.Tuple[t.Dict[str, t.Any], t.Callable[[], None]]:
    """Return the result, which check mode and the real run share, and what carries it out."""
    changes = timer.plan_absent(module.params["directory"])
    refusal = timer.refusal(timer.installed_directory() or module.params["directory"])
    if refusal:
        host.warn(refusal)

    def carry_out() -> None:
        expose.withdraw(host, changes)

    return {**planned(changes), "metrics": "", "reason": ""}, carry_out


def planned(changes: t.Sequence[changes_util.Change], more: bool = False) -> t.Dict[str, t.Any]:
    """Return what changes."""
    return {
        "changed": bool(changes) or more,
        "diff": [timer.shown(change) for change in changes],
        "files": [change.path for change in changes],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module, Host(module))
    except JemallocError as error:
        module.fail_json(msg=str(error), files=[])
    except OSError as error:
        module.fail_json(msg=of_system(error, "this host", "all files are as before"), files=[])
    module.exit_json(**without_diff(module, result))


if __name__ == "__main__":
    main()

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
  - Changes the scopes of a host in one transaction. Its scopes are the host as a whole, its services, and what is
    excluded.
  - A scope whose option is set is made exactly that; one whose option is not set stays as the host has it. V([]) and
    V(false) are set too, and disable the scope.
  - A service gets a systemd drop-in. The host gets a drop-in for systemd's default environment (every service that
    starts afterwards) and a marked part of C(/etc/environment) (every login, ssh and cron command), or with O(via) a
    line in C(/etc/ld.so.preload) (every process that starts afterwards).
  - In any case C(/etc/profile.d/jemalloc.sh) puts C(jemalloc-config) and its like behind what is on the C(PATH) and
    lets E(JEMALLOC_ENABLED) decide at login, and C(/usr/local/bin/jemalloc.sh) and C(no-jemalloc.sh) lead to the
    wrappers, which run one command with the library and without it.
  - The library is looked at and run on the host before anything refers to it, and nothing is restarted here.
    RV(restarts) says which running services need it, for M(preload.jemalloc.jemalloc_service).
  - The texts are rendered on the controller from the templates of the role.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
attributes:
  diff_mode:
    support: full
options:
  host:
    description:
      - Whether everything on the host that starts from now on preloads the library.
      - If not set, the scope stays as the host has it, and O(via) is ignored.
    type: bool
  via:
    description:
      - How O(host) is done.
      - With V(environment) by what systemd and PAM give to the processes that they start. A command can be kept out of
        it at any time, by C(no-jemalloc.sh) or an empty C(LD_PRELOAD).
      - With V(ld_so_preload) by the list of the dynamic linker, for literally every process, set-user-ID programs
        too. Before the line is left there, new processes of several kinds are started with it by a process that
        outlives the module, and when one of them fails the file is as before within five seconds.
    type: str
    choices: [environment, ld_so_preload]
    default: environment
  malloc_conf:
    description:
      - Options of jemalloc for everything that O(host) covers, which become E(MALLOC_CONF). By name, as in O(services),
        or as the string that jemalloc reads, V(narenas:2,background_thread:true).
      - It needs O(via=environment). Like that it is ignored where O(host) is not V(true).
    type: raw
  services:
    description:
      - The systemd services that preload the library, for example V(puma). V(.service) may be left out. Timers, sockets
        and paths stand for the services that they start, a template (V(sidekiq@)) for all its instances.
      - An entry is a name, or a mapping with C(name) and what the service wants of its own.
      - C(version) is another installed release than the current one. C(scope) is V(system), or V(user) for a unit of
        every user's own systemd.
      - C(malloc_conf) has options of jemalloc by name, which become the service's E(MALLOC_CONF), and C(preset), a set
        of them, see P(preload.jemalloc.malloc_conf#filter). They are checked against the release and its build, and
        before a service gets others the installed library is run with them, and has to take them without a word. The
        string that jemalloc reads, V(narenas:2,background_thread:true), is checked in the same way.
      - C(environment) has more variables for the service, such as E(MALLOC_ARENA_MAX). They are no place for a
        password, as anybody on the host can read them.
      - In it C(narenas=auto) is four arenas for each CPU that the service can use by C(CPUQuota=), C(AllowedCPUs=) and
        C(CPUAffinity=), which jemalloc itself does not all heed, and one for a single CPU.
      - C(must_exist) (default V(true)) says whether the unit has to be there already, and C(force) (default V(false))
        whether reasons why it could not preload are passed over.
      - An C(LD_PRELOAD) from its own unit files stays, and the library comes in front of it. One from an
        C(EnvironmentFile=) would win, and is refused.
      - If set, any other service is disabled. If not set, services stay as the host has them. In both cases
        RV(restarts) has those that do not run with their release.
    type: list
    elements: raw
  exclude:
    description:
      - What is kept out of O(host), services and commands.
      - A service gets a drop-in by which it does not preload the library. For a command on the C(PATH) of root a script
        of its name in C(/usr/local/bin) starts it by C(no-jemalloc.sh).
      - What a host does not have is passed over, so that one list does for several kinds of hosts.
      - If set, nothing else is excluded. If not set, the host excludes what it excluded before. A service that both
        O(services) and an earlier O(exclude) name is enabled.
    type: list
    elements: str
  purge:
    description:
      - Whether a scope whose option is set loses what the option does not name.
      - If V(false), O(services) and O(exclude) add to what the host has, V(false) for O(host) changes nothing, and
        O(via) never goes back from V(ld_so_preload).
      - If V(true), a warning names the services that an earlier task of the same run named and this one takes away.
      - Ignored unless O(state=present).
    type: bool
    default: true
  state:
    description:
      - With V(absent) every file of this module goes, whatever O(host) and O(services) say.
      - With V(restored) the files of O(restore) hold again what they did, whatever O(host) and O(services) say.
    type: str
    choices: [present, absent, restored]
    default: present
  restore:
    description: What another call of the same play returned as RV(before).
    type: dict
    default: {}
  written:
    description:
      - What that call returned as RV(written).
      - With V(restored) a file that another run or somebody by hand changed since is left as it is, and RV(left) names
        it. If not set, all files are restored whatever they hold.
    type: dict
    default: {}
  prefix:
    description: The directory that holds the installations, as given to M(preload.jemalloc.jemalloc).
    type: path
    default: /opt/jemalloc
  version:
    description:
      - The release that C(current) leads to when this runs for real, as M(preload.jemalloc.jemalloc) returned it.
        Where another run switched C(current) since, this module fails and changes nothing.
        In check mode it is not there yet, and this says what RV(restarts) is to be measured against.
      - Without it, what C(current) leads to.
    type: str
  releases:
    description:
      - Other releases that are installed when this runs for real. In check mode they may not be there yet.
    type: list
    elements: str
    default: []
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
  - plugin: preload.jemalloc.malloc_conf
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Enable jemalloc for two services, disable it for every other service
  preload.jemalloc.jemalloc_preload:
    services: [puma, sidekiq]
  register: preload
  notify: Restart and prove

- name: Let everything that starts from now on preload it, but for two
  preload.jemalloc.jemalloc_preload:
    host: true
    exclude: [php8.2-fpm, chromium]
    malloc_conf: narenas:2,background_thread:true

- name: Give one service another release and settings of its own
  preload.jemalloc.jemalloc_preload:
    services:
      - puma
      - name: sidekiq@.service
        version: 5.2.1
        malloc_conf: {narenas: 2, dirty_decay_ms: 1000, background_thread: true}
      - name: worker
        malloc_conf: {preset: low_memory, narenas: auto}
        environment: {PYTHONMALLOC: malloc}

- name: Let literally every process preload it
  preload.jemalloc.jemalloc_preload:
    host: true
    via: ld_so_preload

- name: Let services preload what earlier tasks installed, with a check mode that predicts it
  preload.jemalloc.jemalloc_preload:
    services:
      - puma
      - {name: sidekiq, version: 5.2.1}
    prefix: /srv/jemalloc
    version: "{{ installed.version }}"
    releases: [5.2.1]
    rebuilt: "{{ installed.built or omit }}"
  register: preload

- name: Give back what that changed
  preload.jemalloc.jemalloc_preload:
    state: restored
    restore: "{{ preload.before }}"
    written: "{{ preload.written }}"

- name: Disable jemalloc for every service, leave the rest as the host has it
  preload.jemalloc.jemalloc_preload:
    services: []

- name: Enable jemalloc for another service, leave the others as they are
  preload.jemalloc.jemalloc_preload:
    services: [puma]
    purge: false

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
before:
  description:
    - The text of each file that changed as it was, none for one that was not there. It is for O(restore).
    - Of C(/etc/environment) and C(/etc/ld.so.preload) only the lines of this module, never those of others.
  returned: success
  type: dict
  sample: {/etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf: null}
written:
  description:
    - Fingerprints of the files that changed, and of the drop-ins of all listed services, as this run left them.
    - Empty when nothing changed and no service has to be restarted. It is for O(written), and for
      O(preload.jemalloc.jemalloc_service#module:written).
  returned: success
  type: dict
  sample: {/etc/systemd/system/puma.service.d/zz-preload-jemalloc.conf: absent}
left:
  description: The files of O(restore) that another run or somebody by hand changed since, and that were left alone.
  returned: success
  type: list
  elements: str
  sample: []
restarts:
  description:
    - The running services whose processes do not map what they should, each as M(preload.jemalloc.jemalloc_service)
      takes it. Those that map the library although no scope wants that any more are among them.
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
    uid:
      description: The user, by number, whose own systemd runs it, none for the host's.
      type: int
    unit:
      description: The unit that is listed, the template of an instance or the service itself.
      type: str
      sample: puma.service
    before:
      description: The text of the drop-in that this run changed.
      type: str
    written:
      description: The fingerprint of the drop-in as this run left it.
      type: str
    reason:
      description: Why it has to be restarted.
      type: str
      sample: 3 of its 3 processes do not map jemalloc 5.3.1
    along:
      description:
        - The active units that systemd restarts along with it, because they have C(Requires=), C(Requisite=),
          C(BindsTo=) or C(PartOf=) it, or a unit that does.
      type: list
      elements: str
      sample: [web.service]
services:
  description:
    - The services that run and preload the library, or are kept out.
    - Each is as M(preload.jemalloc.jemalloc_service) takes it.
  returned: success
  type: list
  elements: dict
  sample: [{name: puma.service, version: 5.3.1, uid: null, unit: puma.service}]
named:
  description: The services that are enabled or excluded by name.
  returned: success
  type: list
  elements: str
  sample: [puma.service]
removed:
  description: The services that O(services) and O(exclude) do not name any more, and that lose their drop-in.
  returned: success
  type: list
  elements: str
  sample: [sidekiq.service]
remaining:
  description:
    - With O(state=absent), what still runs with the library or has it in its E(LD_PRELOAD), and is not restarted by
      this collection. A warning names each. In other states it is empty.
  returned: success
  type: list
  elements: dict
  contains:
    unit:
      description: The unit, empty for processes of none.
      type: str
      sample: session-3.scope
    uid:
      description: The user, by number, whose own systemd runs it, none for the host's.
      type: int
    processes:
      description: How many of its processes do.
      type: int
      sample: 2
    why:
      description: Why it is not restarted.
      type: str
      sample: it is no service
foreign:
  description: Files with the name of one of ours that somebody else made, and that were left alone.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/jemalloc.sh]
"""


from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _scoping as scoping
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host, without_diff

ARGUMENTS = arguments.SCOPES


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = scoping.run(module.params, Host(module), module.check_mode)
    except JemallocError as error:
        module.fail_json(msg=str(error), files=[])
    except OSError as error:
        module.fail_json(msg=of_system(error, "this host", "all files are as before"), files=[])
    module.exit_json(**without_diff(module, result))


if __name__ == "__main__":
    main()

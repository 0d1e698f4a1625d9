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
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
  - preload.jemalloc._library
  - preload.jemalloc._library.cache
attributes:
  diff_mode:
    support: full
options:
  version:
    description:
      - The release, for example V(5.1.0), or V(previous) for the installation that was current before. Going back
        needs no source, and going back twice is where it began.
      - Without it the newest release that this collection was tested with is installed, and with O(state=absent)
        everything is removed.
      - A release that this collection does not know needs its O(checksum), unless it is installed.
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
  latest:
    description:
      - Whether the newest release that upstream has published is wanted, which the controller looks up. Its digest is
        then the one that upstream reports, unless this collection knows the release.
      - Nothing has tested such a release with this collection.
    type: bool
    default: false
  latest_url:
    description: Where upstream's newest release is looked up, an address that answers as GitHub's releases API does.
    type: str
    default: https://api.github.com/repos/jemalloc/jemalloc/releases/latest
  method:
    description:
      - V(source) builds it on the host.
      - V(bundle) takes O(bundle), a build that was made elsewhere.
      - V(package) takes the library of the distribution's own package, which is installed for it, and puts a copy below
        the same stable path. Which release that is, is the distribution's choice; a newer package is taken over by
        the next run.
      - V(auto) keeps an installation that fits, else takes O(bundle) if that fits, else builds it.
    type: str
    choices: [auto, source, bundle, package]
    default: auto
  keep:
    description:
      - How many other installations stay, the newest first. Without it all stay.
      - What C(current) and C(previous) lead to and what a file of M(preload.jemalloc.jemalloc_preload) refers to
        always stays.
    type: int
  verify:
    description:
      - Whether every installation is held against its receipt byte for byte, and the wanted library is run again as
        before its first use. Without it the wanted and the current installation are held against theirs.
      - The wanted installation is repaired when it is damaged; another one that is damaged is warned about.
    type: bool
    default: false
  build:
    description:
      - What happens where a release is missing for which no bundle fits.
      - V(now) builds it on this host, unless a host before it in the inventory is building one that fits; then this
        host waits for that build. The bundle goes to O(cache), for the hosts that trust this one, see O(build_host).
      - V(never) does not, and RV(missing) says what lacks. The host is then known as one that could build.
      - V(chosen) builds it if no host before this one in the inventory, of all for which RV(missing) said so, has as
        old a C library. A build runs with the C library that it was made with, and with later ones. All other hosts do
        nothing. In a task that is delegated to O(build_host), that host builds.
      - With O(method=source) each host builds for itself, with O(method=bundle) none does.
    type: str
    choices: [now, never, chosen]
    default: now
  missing:
    description:
      - The value that another task of the same play returned as RV(missing). The host is then not asked again.
      - Give both tasks the same O(version), O(checksum), O(latest), and O(options). A value that asks for another build
        is refused.
    type: dict
    default: {}
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
      - Each is a name or a mapping, as in O(preload.jemalloc.jemalloc_preload#module:services).
      - On a host whose init is not systemd they are refused. In check mode one may lack, as an earlier task of the
        play may be what makes it.
    type: list
    elements: raw
    default: []
  for_metrics:
    description:
      - Whether M(preload.jemalloc.jemalloc_metrics) is going to follow, which a host whose init is not systemd refuses
        here already, before anything is changed.
    type: bool
    default: false
  scopes:
    description:
      - Arguments of M(preload.jemalloc.jemalloc_preload). Where all is installed as wanted, this call looks at who
        preloads it too, and RV(scopes) says whether that module has anything left to do. So a second run is one call.
    type: dict
  only_from:
    description:
      - The release that C(current) must lead to for O(version) to take its place, as an earlier call of the play left
        it.
      - Where another run switched C(current) since, nothing is changed, and a warning says so.
    type: str
  from_variables:
    description:
      - If V(true), options that are not given come from the variables of the role, such as C(jemalloc_version), checked
        and converted as M(preload.jemalloc.jemalloc_variables) does. A given O(version) is another release than that of
        the role.
      - Without other options, O(scopes) come from them too, and C(jemalloc_state=absent) leaves all to later tasks.
      - It is for the role, whose messages then name variables.
    type: bool
    default: false
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

- name: Take the source from an own mirror first, whose certificate is from a private authority
  preload.jemalloc.jemalloc:
    version: 5.3.0
    origins:
      - https://mirror.example.com/jemalloc/jemalloc-{version}.tar.bz2
    ca_path: /etc/ssl/certs/example-ca.pem

- name: Install a release that the collection does not know yet
  preload.jemalloc.jemalloc:
    version: 5.9.0
    checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

- name: Install the newest that upstream has published, as an own copy of its releases API tells
  preload.jemalloc.jemalloc:
    latest: true
    latest_url: https://mirror.example.com/jemalloc/latest.json

- name: Build it for heap profiles below another prefix, on a host whose packages are not to change
  preload.jemalloc.jemalloc:
    prefix: /srv/jemalloc
    options: {prof: true}
    build_packages: false

- name: Share what is built with other controllers, and look on a web server for what none of them has built
  preload.jemalloc.jemalloc:
    cache: /srv/jemalloc-cache
    cache_size: 4096
    cache_mirror: https://mirror.example.com/jemalloc-cache
    cache_mirror_checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

- name: Install a build that was made on another host
  preload.jemalloc.jemalloc:
    version: 5.3.1
    method: bundle
    bundle: https://mirror.example.com/jemalloc/x86_64-glibc2.34/jemalloc-{version}.tar.gz
    bundle_checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

- name: Use the library of the distribution's package by the same path
  preload.jemalloc.jemalloc:
    method: package

- name: Go back to what was current before
  preload.jemalloc.jemalloc:
    version: previous

- name: Go back to a version, unless another run has switched current in the meantime
  preload.jemalloc.jemalloc:
    version: 5.3.0
    only_from: "{{ installed.version }}"

- name: Keep the current release and one more
  preload.jemalloc.jemalloc:
    keep: 1

- name: Read and run everything again, and repair it
  preload.jemalloc.jemalloc:
    verify: true

- name: See what the hosts of a play lack, and whether the services that are to preload it are there
  preload.jemalloc.jemalloc:
    build: never
    for_services: [puma, sidekiq]
    for_metrics: true
    scopes: {services: [puma, sidekiq]}
  register: installed

- name: Install what the variables of the role say
  preload.jemalloc.jemalloc:
    from_variables: true

- name: Build it on the first one, and on each with an older C library than all before it
  preload.jemalloc.jemalloc:
    build: chosen
    missing: "{{ installed.missing }}"
  when: installed.missing is not none

- name: Build it on another host, and take builds of no other one
  preload.jemalloc.jemalloc:
    build: chosen
    build_host: build1
    method: source
    prefix: /opt/jemalloc-build
    missing: "{{ installed.missing }}"
  delegate_to: build1
  when: installed.missing is not none

- name: Let each host build for itself
  preload.jemalloc.jemalloc:
    build_shared: false

- name: Remove everything
  preload.jemalloc.jemalloc:
    state: absent

- name: Remove everything after a task that took the scopes away, with a check mode that predicts it
  preload.jemalloc.jemalloc:
    state: absent
    released: "{{ preload.files }}"

- name: Roll back to the release from before, unless another run has switched since
  preload.jemalloc.jemalloc:
    version: "{{ installed.diff.before.current }}"
    only_from: "{{ installed.version }}"
"""

RETURN = r"""
version:
  description: The release that was asked for or found, as by V(previous); none when all were removed.
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
  description: The release that was installed anew, none when it was there; in check mode the one that would be.
  returned: success
  type: str
  sample: 5.3.1
origin:
  description: Where the source, the bundle or the library came from, when something was installed.
  returned: success
  type: str
  sample: https://mirror.example.com/jemalloc-5.3.1.tar.bz2
builder:
  description: The host that built it, or the mirror that the bundle is from. The manifest of a bundle has it as well.
  returned: when it was built, or came from the controller's cache
  type: str
  sample: web1
missing:
  description:
    - What O(build=never) leaves undone, none when nothing lacks. It says which build would do, and is for O(missing).
  returned: success
  type: dict
  sample: {version: 5.3.1, architecture: x86_64, libc: glibc, libc_version: "2.31", lg_page: 12}
scopes:
  description:
    - What M(preload.jemalloc.jemalloc_preload) returns for O(scopes) where it would change nothing and no service has
      to be restarted; none where it has to be called.
  returned: success
  type: dict
variables:
  description: With O(from_variables), the variables of the role that other tasks read, converted.
  returned: with O(from_variables), unless a variable is wrong
  type: dict
  sample: {prefix: /opt/jemalloc, restart: true, services: [puma], timeout: 60}
releases:
  description: With O(from_variables), the releases that services and containers ask for.
  returned: with O(from_variables), unless a variable is wrong
  type: list
  elements: str
builders:
  description: With O(from_variables), the hosts to which a build is delegated, one after the other.
  returned: with O(from_variables), unless a variable is wrong
  type: list
  elements: str
next:
  description: With O(from_variables), the tasks of the role that come next; nothing when nothing is left to do.
  returned: with O(from_variables), on success
  type: str
  sample: preload
packages:
  description: The packages that were installed for it.
  returned: success
  type: list
  elements: str
  sample: [gcc, make]
stays:
  description:
    - When O(state=absent) removes the last installation, what came with it and stays. That is the packages which builds
      installed, the directory in which the role builds for other hosts, and the cache of the controller.
  returned: success, and O(state=absent)
  type: list
  elements: str
  sample: [packages gcc and make, /opt/jemalloc-build, ~/.cache/preload.jemalloc on the controller]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, hide_credentials, of_system

ARGUMENTS = {
    **arguments.LIBRARY,
    "version": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "current": {"type": "bool", "default": True},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "latest": {"type": "bool", "default": False},
    "latest_url": {"type": "str", "default": catalogue.LATEST_URL},
    "method": {"type": "str", "choices": ["auto", "source", "bundle", "package"], "default": "auto"},
    "keep": {"type": "int"},
    "verify": {"type": "bool", "default": False},
    "build": {"type": "str", "choices": ["now", "never", "chosen"], "default": "now"},
    "missing": {"type": "dict", "default": {}},
    "build_packages": {"type": "bool", "default": True},
    "for_services": {"type": "list", "elements": "raw", "default": []},
    "for_metrics": {"type": "bool", "default": False},
    "scopes": {"type": "dict"},
    "only_from": {"type": "str"},
    "from_variables": {"type": "bool", "default": False},
    "released": {"type": "list", "elements": "path", "default": []},
}


def make_present(module: AnsibleModule, prefix: str) -> t.Dict[str, t.Any]:
    """Plan state present, and carry it out where that changes anything.

    What only a change needs is loaded only for one: most runs find that all is as it should be.
    """
    params = module.params
    check_scopes(params, prefix)
    release, wish = wanted(module, prefix)
    before = store.read(prefix, params["verify"], wish.version)
    planned = plan(before, wish, params)
    if not planned.changes and not params["verify"] and not params["only_from"] and not store.leftovers(prefix):
        return {**report(before, planned, wish.version), "scopes": settled_scopes(module, planned.after["current"])}
    from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
    from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish
    from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

    host = Host(module)
    request = install.request(params, release, wish, prefix)
    # What lacks in check mode, where an earlier task would make it, jemalloc_preload tells.
    missing_service = (lambda _message: None) if module.check_mode else systemd.refuse
    systemd.units(host.run, systemd.wanted_services(params["for_services"]), missing=missing_service)
    if params["verify"]:
        install.verify(host, before, planned, wish.version)
    if params["only_from"] and before.current not in (params["only_from"], wish.version):
        host.warn(f"{prefix}/current leads to {before.current} since another run switched it; left as it is.")
    missing = install.check(host, request, module.check_mode) if planned.install else None
    if module.check_mode or missing or not planned.changes:
        if not module.check_mode:
            publish.clear_leftovers(prefix)
        return report(before, planned, wish.version, missing)
    try:
        with publish.locked(prefix) as undo:
            # Read again: whoever had the lock before may have done what was missing.
            before = store.read(prefix, params["verify"], wish.version)
            planned = plan(before, wish, params)
            done = install.carry_out(host, request, planned, undo)
            return {**report(before, planned, wish.version), **done}
    except install.NothingFitsError as lack:
        return report(before, planned, wish.version, lack.missing)


def settled_scopes(module: AnsibleModule, current: t.Optional[str]) -> t.Optional[t.Dict[str, t.Any]]:
    """Return what jemalloc_preload would, if it is spoken of and would change and restart nothing.

    current is what this run found: another one may switch it in the meantime.
    """
    if module.params["scopes"] is None:
        return None
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

    from ansible_collections.preload.jemalloc.plugins.module_utils import _scoping as scoping
    from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

    checked = ArgumentSpecValidator(arguments.SCOPES).validate(module.params["scopes"])
    if checked.error_messages:
        raise JemallocError(f"scopes: {'; '.join(checked.error_messages)}.")
    return scoping.settled({**checked.validated_parameters, "version": current}, Host(module))


def check_scopes(params: t.Mapping[str, t.Any], prefix: str) -> None:
    """Refuse a second store where somebody is to preload it, and metrics where nothing could write them."""
    if params["scopes"] is not None:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places

        places.check_one_store(prefix)
    if not params["for_metrics"]:
        return
    from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

    if not systemd.is_running():
        raise JemallocError(
            "metrics: systemd is not the init of this host, and metrics need its timers; leave them out for it "
            "(jemalloc_metrics: false)."
        )


def wanted(module: AnsibleModule, prefix: str) -> t.Tuple[catalogue.Release, store.Wish]:
    """Return the release that the parameters ask for, and what its installation has to be."""
    params = module.params
    if params["latest"]:
        raise JemallocError("latest: the controller's half of this module looks that up; call it by its whole name.")
    if params["keep"] is not None and params["keep"] < 0:
        raise JemallocError(f"keep: {params['keep']} is negative; it is the number of other installations that stay.")
    version = params["version"]
    unknown = version not in (None, "", *catalogue.RELEASES) and not params["checksum"]
    if version == "previous" or (unknown and store.is_installed(prefix, version)):
        wish = store.wish_for_installed(store.read(prefix), version)
        return catalogue.Release(wish.version, ""), wish
    if params["method"] == "package":
        from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
        from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host

        wish = install.packaged(Host(module), params["version"] or None, module.check_mode)
        return catalogue.Release(wish.version, ""), wish
    release = catalogue.find_release(params["version"] or None, params["checksum"] or None)
    digest = None
    if params["bundle"]:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _bundle as bundle

        digest = bundle.find(params["bundle"], release.version, params["bundle_checksum"] or None).sha256
    source = release.sha256 if params["checksum"] else None
    options = {**arguments.OPTIONS, **params["options"]}
    return release, store.Wish(release.version, options, params["method"], source=source, bundle=digest)


def plan(found: store.Store, wish: store.Wish, params: t.Mapping[str, t.Any]) -> store.Plan:
    """Return what is going to happen to a store."""
    referred: t.List[str] = []
    if params["keep"] is not None:
        from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places

        referred = [name for name in found.installations if places.references(f"{found.prefix}/{name}")]
    make_current = params["current"] and params["only_from"] in (None, found.current)
    return store.plan_present(found, wish, make_current, params["keep"], referred)


def make_absent(module: AnsibleModule, prefix: str) -> t.Dict[str, t.Any]:
    """Plan and carry out state absent."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _changes as changes_util
    from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
    from ansible_collections.preload.jemalloc.plugins.module_utils import _publish as publish

    version = catalogue.check_number(module.params["version"]) if module.params["version"] else None
    before = store.read(prefix)
    planned = store.plan_absent(before, version)
    check_unused(planned, prefix, module.params["released"] if module.check_mode else [])
    if planned.changes and not module.check_mode:
        # With both locks: no run can preload in the meantime what is going to be removed.
        with publish.locked(prefix) as undo, changes_util.scopes_kept():
            before = store.read(prefix)
            planned = store.plan_absent(before, version)
            check_unused(planned, prefix, [])
            publish.remove(prefix, planned, undo)
        if not planned.after["installations"]:
            install.forget_logs()
    elif not module.check_mode:
        publish.clear_leftovers(prefix)
    stays = store.stays(before) if planned.changes and not planned.after["installations"] else []
    return {**report(before, planned, version), "stays": stays}


def check_unused(planned: store.Plan, prefix: str, released: t.Collection[str]) -> None:
    """Refuse to remove what a scope refers to, but for files that are released."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _places as places

    going = [prefix] if planned.unlink else [f"{prefix}/{name}" for name in planned.remove]
    referring = [path for directory in going for path in places.references(directory) if path not in released]
    if referring:
        raise JemallocError(
            f"{going[0]} cannot be removed while it is named in {', '.join(referring)}; "
            "take that scope away first with preload.jemalloc.jemalloc_preload."
        )


def report(
    before: store.Store,
    planned: store.Plan,
    version: t.Optional[str],
    missing: t.Optional[t.Mapping[str, t.Any]] = None,
) -> t.Dict[str, t.Any]:
    """Return what every run returns; check mode returns the same. What is missing is a change that is still to come."""
    after = dict(planned.after)
    if planned.install in before.installations:
        after["installed anew"] = f"{planned.install}, as {planned.reason}"
    return {
        "changed": planned.changes and not missing,
        "diff": {"before": before.describe(), "after": after},
        "version": version,
        "library": store.library(before.prefix),
        "built": planned.install,
        "origin": None,
        "builder": None,
        "packages": [],
        "missing": missing,
        "scopes": None,
        **planned.after,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hide_credentials(module)
    try:
        prefix = store.check_prefix(module.params["prefix"])
        make = make_present if module.params["state"] == "present" else make_absent
        result = make(module, prefix)
    except JemallocError as error:
        module.fail_json(msg=str(error), **failure(module))
    except OSError as error:
        module.fail_json(msg=of_system(error, module.params["prefix"]), **failure(module))
    module.exit_json(**result)


def failure(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Return the keys that are there even when it failed."""
    return {"version": module.params["version"], "library": store.library(module.params["prefix"].rstrip("/"))}


if __name__ == "__main__":
    main()

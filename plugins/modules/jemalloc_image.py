#!/usr/bin/python
# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jemalloc_image
short_description: Make a container image with jemalloc from any other image
version_added: 0.1.0
description:
  - Makes an image that has all of another one and jemalloc, in one layer. The other image may be without Python,
    compiler, package manager and shell; of what it is built on the C library counts, which may be glibc or musl.
  - The library comes from a bundle for the image's own architecture and C library, out of the controller's cache or as
    O(bundle) says. Where there is none it is built in a container of O(builder), and kept in the cache.
  - Before the image gets its name the library is run in it, by what the image has. When that fails the name stays with
    the image that had it.
author:
  - The preload.jemalloc contributors (@preload)
extends_documentation_fragment:
  - preload.jemalloc._attributes
  - ansible.builtin.action_common_attributes
  - preload.jemalloc._library
  - preload.jemalloc._library.cache
attributes:
  check_mode:
    details: For a base that is not here, and so would be pulled, it only says that there is going to be a change.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row without a change outside, the second run changes nothing, and builds nothing.
options:
  base:
    description: The image to start from, by its name or id. It must not be one that this module made.
    type: str
    required: true
  tag:
    description: The name that the new image gets, such as V(team/app:1.0); V(latest) is its tag where it has none.
    type: str
    required: true
  engine:
    description: The command that has the images. V(auto) is podman, or docker where there is no podman.
    type: str
    choices: [auto, podman, docker]
    default: auto
  pull:
    description:
      - Whether O(base) and O(builder) are brought from their registries. V(missing) does that for one that is not here,
        V(always) does it each time for O(base).
    type: str
    choices: [missing, always, never]
    default: missing
  platform:
    description:
      - What O(base) is to be for, such as V(linux/arm64), where its name stands for images of several architectures.
        One that is here for another is brought anew, unless O(pull=never).
      - Without it the image is for what O(base) is for that is here, or that the registry gives. O(builder) is always
        brought for the same.
      - Another architecture than that of the host takes an emulator there, such as the package qemu-user-static.
    type: str
  version:
    description:
      - The release, for example V(5.1.0). Without it the newest one that this collection was tested with.
      - A release that this collection does not know needs its O(checksum).
    type: str
  enabled:
    description:
      - Whether every command in a container of the image has jemalloc preloaded, by E(LD_PRELOAD). What the base has in
        that variable stays, behind it.
      - Without it a command has it that is started by C(jemalloc.sh), which is in C(/usr/local/bin). The image then
        has to have a shell, C(/bin/sh).
    type: bool
    default: false
  entrypoint:
    description:
      - Whether C(jemalloc.sh) is put in front of the image's entry point, so that what a container starts with has
        jemalloc, and commands that are run in it later have not. The command of the base stays.
    type: bool
    default: false
  malloc_conf:
    description:
      - How jemalloc works in the image, options by name as in C(MALLOC_CONF), checked against the release. The option
        V(preset) names a set of them. The string that jemalloc reads, V(narenas:2,background_thread:true), does too.
    type: raw
    default: {}
  labels:
    description: More labels for the image. Those of the base stay.
    type: dict
    default: {}
  prefix:
    description: Absolute path of the directory in the image that holds jemalloc.
    type: path
    default: /opt/jemalloc
  method:
    description:
      - V(bundle) takes O(bundle) or one from the cache, and fails where none fits.
      - V(source) builds it in any case.
      - V(auto) keeps an image that is right, else takes a bundle that fits, else builds it.
    type: str
    choices: [auto, source, bundle]
    default: auto
  builder:
    description:
      - The image in a container of which the library is built. It has a compiler, or C(apt-get), C(dnf), C(zypper) or
        C(apk) and a network to get one. One that is here for another architecture than that of the base is brought for
        that, where there is such a one.
      - For a base with glibc it must have glibc, which should not be newer than the base's. For a base with musl it has
        musl, or C(musl-gcc), as Debian's package musl-tools brings it.
      - Without it C(docker.io/library/debian:11) for glibc, and C(docker.io/library/alpine:3) for musl.
    type: str
  build_packages:
    description:
      - Whether a compiler is installed in the container of the builder when it lacks one. If not, that container has no
        network.
    type: bool
    default: true
  build:
    description:
      - V(never) only says what lacks, as RV(missing), which the action of this module asks first; it is not to be set.
    type: str
    choices: [now, never]
    default: now
seealso:
  - module: preload.jemalloc.jemalloc
  - module: preload.jemalloc.jemalloc_bundle
"""

EXAMPLES = r"""
- name: An image in which everything runs with jemalloc
  preload.jemalloc.jemalloc_image:
    base: docker.io/library/ruby:3.4-slim
    tag: registry.example.com/ruby-jemalloc:3.4
    enabled: true

- name: One whose own program runs with it, and takes little memory
  preload.jemalloc.jemalloc_image:
    base: docker.io/library/redis:8-alpine
    tag: redis-jemalloc:8
    entrypoint: true
    malloc_conf: {preset: low_memory}

- name: One in which jemalloc.sh is there, to be put before a command
  preload.jemalloc.jemalloc_image:
    base: team/app:1.0
    tag: team/app:1.0-jemalloc
    version: 5.3.0

- name: One for another architecture, by an emulator
  preload.jemalloc.jemalloc_image:
    base: docker.io/library/debian:13
    tag: debian-jemalloc:13-arm64
    platform: linux/arm64
    enabled: true

- name: One from a bundle, without a build
  preload.jemalloc.jemalloc_image:
    base: docker.io/library/debian:13
    tag: debian-jemalloc:13
    enabled: true
    method: bundle
    bundle: https://mirror.example.com/jemalloc/x86_64-glibc2.17/jemalloc-{version}.tar.gz
    bundle_checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

- name: One for heap profiles, built in a container without a network from an own mirror
  preload.jemalloc.jemalloc_image:
    base: docker.io/library/debian:13
    tag: debian-jemalloc:13-prof
    options: {prof: true}
    method: source
    origins: [https://mirror.example.com/jemalloc]
    ca_path: /etc/ssl/certs/example-ca.pem
    builder: registry.example.com/debian-with-gcc:11
    build_packages: false

- name: One with a library that was built on a certain host
  preload.jemalloc.jemalloc_image:
    base: team/app:1.0
    tag: team/app:1.0-jemalloc
    method: bundle
    build_host: build1

- name: One with a library that was built for this host alone
  preload.jemalloc.jemalloc_image:
    base: team/app:1.0
    tag: team/app:1.0-jemalloc
    build_shared: false

- name: One with a release that the collection does not know yet, by docker and from what controllers share
  preload.jemalloc.jemalloc_image:
    engine: docker
    base: registry.example.com/team/app:1.0
    pull: always
    tag: registry.example.com/team/app:1.0-jemalloc
    labels: {org.opencontainers.image.vendor: Example}
    prefix: /usr/local/jemalloc
    version: 5.9.0
    checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    cache: /srv/jemalloc-cache
    cache_size: 4096
    cache_mirror: https://mirror.example.com/jemalloc-cache
    cache_mirror_checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""

RETURN = r"""
image:
  description: The id of the image that has the name afterwards; none in check mode where it is still to be made.
  returned: success
  type: str
tag:
  description: The name in full.
  returned: success
  type: str
  sample: team/app:1.0-jemalloc
base:
  description: The id of the image that it is made of; none in check mode where that is still to be pulled.
  returned: success
  type: str
version:
  description: The release in it.
  returned: success
  type: str
  sample: 5.3.1
library:
  description: The stable path of the library in the image, the same for every release.
  returned: success
  type: str
  sample: /opt/jemalloc/current/lib/libjemalloc.so
platform:
  description: What the library in it is for, as one word; none in check mode where it is still to be built.
  returned: success
  type: str
  sample: x86_64-glibc2.17
mapped:
  description:
    - Whether the library was seen in C(/proc/self/maps) of a program in the image. None when no image was made. Not
      true where the image has no program that shows its maps, for which there is a warning.
  returned: success
  type: bool
built:
  description: The release that was built for it, none when a bundle did; in check mode the one that would be.
  returned: success
  type: str
origin:
  description: Where the bundle or the source came from, when an image was made.
  returned: success
  type: str
builder:
  description: The host that built the library, or the mirror that its bundle is from.
  returned: when it was built, or came from the controller's cache
  type: str
  sample: web1
missing:
  description: What O(build=never) leaves undone, none when nothing lacks. It says which build would do.
  returned: success
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.preload.jemalloc.plugins.module_utils import _arguments as arguments
from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils import _image as image
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_engine as engines
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_files as image_files
from ansible_collections.preload.jemalloc.plugins.module_utils import _image_make as making
from ansible_collections.preload.jemalloc.plugins.module_utils import _install as install
from ansible_collections.preload.jemalloc.plugins.module_utils import _malloc_conf as malloc_conf
from ansible_collections.preload.jemalloc.plugins.module_utils import _store as store
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, hide_credentials, of_system
from ansible_collections.preload.jemalloc.plugins.module_utils._host import Host, without_diff

ARGUMENTS = {
    **arguments.LIBRARY,
    "base": {"type": "str", "required": True},
    "tag": {"type": "str", "required": True},
    "engine": {"type": "str", "choices": ["auto", "podman", "docker"], "default": "auto"},
    "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
    "platform": {"type": "str"},
    "version": {"type": "str"},
    "enabled": {"type": "bool", "default": False},
    "entrypoint": {"type": "bool", "default": False},
    "malloc_conf": {"type": "raw", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "prefix": {"type": "path", "default": "/opt/jemalloc"},
    "method": {"type": "str", "choices": ["auto", "source", "bundle"], "default": "auto"},
    "builder": {"type": "str"},
    "build_packages": {"type": "bool", "default": True},
    "build": {"type": "str", "choices": ["now", "never"], "default": "now"},
}


def base_of(engine: engines.Engine, params: t.Mapping[str, t.Any], check_mode: bool) -> t.Optional[engines.Image]:
    """Return the image to start from, None in check mode when it is not here: that pulls nothing."""
    name, pull, platform = params["base"], params["pull"], image_files.check_platform(params["platform"] or "")
    if pull != "never" and not check_mode:
        return engine.pulled(name, "base", pull == "always", platform)
    found = engine.image(name, "base")
    if found is None and pull == "never":
        raise JemallocError(f"base: {name} is not here, and may not be pulled (pull: never); load it first.")
    if found is None or found.is_for(platform):
        return found
    if pull == "never":
        raise JemallocError(f"{engine.misfit('base', name, found, platform)}.")
    return None


def run(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """See what there is, and make the image where it is not what it is to be."""
    params: t.Dict[str, t.Any] = {**module.params, "options": {**arguments.OPTIONS, **module.params["options"]}}
    params["prefix"] = store.check_name(params["prefix"])
    host, tag = Host(module), image.check_tag(params["tag"], params["base"])
    release = catalogue.find_release(params["version"] or None, params["checksum"] or None)
    conf = malloc_conf.encode(malloc_conf.options_of(params["malloc_conf"]), release.version, params["options"])
    digest = release.sha256 if params["checksum"] else None
    wish = store.Wish(release.version, params["options"], params["method"], source=digest)
    request = install.request(params, release, wish, params["prefix"])
    engine = engines.Engine(host.run, engines.find(params["engine"]))
    base, old = base_of(engine, params, module.check_mode), engine.image(tag, "tag")
    present = image.recipe_of(old)
    result = report(tag, release.version, params["prefix"], present, old)
    if base is None:
        what = f" for {params['platform']}" if params["platform"] else ""
        host.warn(f"{params['base']} is not here{what}, so it cannot be looked at before it is pulled.")
        return {**result, "changed": True, "image": None}
    wanted = image.recipe(base, engine.name_for_builder(base, params["base"]), params, release.version, conf)
    job = making.Job(
        engine, base, tag, wanted, present, request, params["builder"] or "", pull=params["pull"] != "never"
    )
    result["base"] = base.id
    named = request.bundle.sha256 if request.bundle and params["method"] == "bundle" and not params["pushed"] else None
    if image.suits(present, wanted, digest, named):
        return result
    done = making.make(host, job, module.check_mode)
    result.update(done)
    if result["changed"]:
        result["diff"]["after"] = image.containerfile(wanted)
        result["image"] = done.get("image")
    return result


def report(
    tag: str, version: str, prefix: str, present: image.Recipe, old: t.Optional[engines.Image]
) -> t.Dict[str, t.Any]:
    """Return what every run returns, as it is where nothing changes."""
    text = image.containerfile(present)
    return {
        "changed": False,
        "diff": {"before": text, "after": text},
        "image": old.id if old else None,
        "tag": tag,
        "base": None,
        "version": version,
        "library": store.library(prefix),
        "platform": (present.get("library") or {}).get("platform"),
        "mapped": None,
        "built": None,
        "origin": None,
        "missing": None,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hide_credentials(module)
    try:
        result = run(module)
    except JemallocError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=of_system(error, module.params["base"]))
    module.exit_json(**without_diff(module, result))


if __name__ == "__main__":
    main()

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the documentation site of these pages; `make docs` calls it."""

from __future__ import annotations

import typing as t
from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if t.TYPE_CHECKING:
    from sphinx.application import Sphinx

_ROOT = Path(__file__).resolve().parent.parent
_GALAXY = yaml.safe_load((_ROOT / "galaxy.yml").read_text(encoding="utf-8"))
_SPECS = yaml.safe_load((_ROOT / "roles/jemalloc/meta/argument_specs.yml").read_text(encoding="utf-8"))

project = f"{_GALAXY['namespace']}.{_GALAXY['name']}"
author = _GALAXY["authors"][0]
version = release = str(_GALAXY["version"])
project_copyright = f"2026, {author}"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
exclude_patterns = ["reference/index.rst", "reference/environment_variables.rst"]
myst_heading_anchors = 3
antsibull_ext_color_scheme = "none"  # site.css has the colours

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
html_use_index = False
# The summaries would be fetched, which no browser does for pages that are opened from the disk.
html_show_search_summary = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# An example in the docstrings may be a part of a playbook; the pages' own languages are right.
highlight_language = "yaml+jinja"

# What the reference of ours points to in Ansible's own documentation.
_ANSIBLE = "https://docs.ansible.com/projects/ansible/devel"
_LABELS_OF_ANSIBLE = {
    "action_plugins": f"{_ANSIBLE}/plugins/action.html#action-plugins",
    "common_return_values": f"{_ANSIBLE}/reference_appendices/common_return_values.html#common-return-values",
}

_PLUGINS = {path.stem: "module" for path in (_ROOT / "plugins/modules").glob("*.py")}
_PLUGINS.update({path.stem: "filter" for path in (_ROOT / "plugins/filter").glob("*.yml")})
_OPTIONS = {name: entry for entry, spec in _SPECS["argument_specs"].items() for name in spec["options"]}


class LinkNames(SphinxTransform):
    """Turns the names of modules, the filter and the role's variables, written as code, into links to the reference.

    The pages are read in the repository too, where the reference is not, so that a link in their text would be dead.
    """

    default_priority = 200

    def apply(self, **_more: t.Any) -> None:
        """Put links around the names of a page, but for those in headings and in other links."""
        for literal in list(self.document.findall(nodes.literal)):
            if not isinstance(literal.parent, (nodes.paragraph, nodes.strong)):
                continue
            before = literal.previous_sibling()
            label = _label(literal.astext(), before.astext() if before else "")
            if label:
                options = {"refdomain": "std", "reftype": "ref", "refexplicit": True, "refwarn": True}
                link = addnodes.pending_xref("", reftarget=label, refdoc=self.env.docname, **options)
                literal.replace_self(link)
                link += literal


def _label(text: str, before: str) -> str:
    """Return the label in the reference that a name stands for, by the words before it, or nothing."""
    ours = f"ansible_collections.{project}."
    if text == f"{project}.jemalloc" and before.endswith("role "):
        return f"{ours}jemalloc_role"
    plugin = text[len(project) + 1 :]
    if text == f"{project}.{plugin}" and plugin in _PLUGINS:
        return f"{ours}{plugin}_{_PLUGINS[plugin]}"
    return f"{ours}jemalloc_role__parameter-{_OPTIONS[text]}__{text}" if text in _OPTIONS else ""


def _ansible(_app: Sphinx, _env: t.Any, node: t.Any, content: t.Any) -> nodes.reference | None:
    """Return the link for a label of Ansible's own documentation; without a network its index is not to be had."""
    address = _LABELS_OF_ANSIBLE.get(node["reftarget"])
    return nodes.reference("", "", content, internal=False, refuri=address) if address else None


def _drop_contents(_app: Sphinx, document: nodes.document) -> None:
    """Take out the lists of contents that antsibull-docs writes: the theme has one beside the page."""
    for topic in list(document.findall(nodes.topic)):
        if "contents" in topic["classes"]:
            topic.parent.remove(topic)
            for title in document.findall(nodes.title):
                title.attributes.pop("refid", None)  # it leads back to that list


def setup(app: Sphinx) -> None:
    """Tell Sphinx of what is ours."""
    app.add_transform(LinkNames)
    app.connect("doctree-read", _drop_contents)
    app.connect("missing-reference", _ansible)

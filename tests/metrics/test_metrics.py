# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics, alerts and the dashboard, by the judgement of Prometheus' own tool, and held against each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.preload.jemalloc.plugins.module_utils import _exporter as exporter
from ansible_collections.preload.jemalloc.plugins.module_utils import _metrics as metrics
from tests.checkout import ROOT

Promtool = t.Callable[..., str]

RULES = ROOT / "docs/prometheus-rules.yml"
DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text(encoding="utf-8"))
GUIDE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")

#: What Prometheus and the exporter itself add.
TARGET = {"instance", "job"}
LABELS = {family.name: {*family.labels, *TARGET} for family in metrics.FAMILIES}
LABELS["node_textfile_mtime_seconds"] = {"file", *TARGET}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the program writes on this machine."""
    directory = tmp_path_factory.mktemp("textfile")
    (directory / "metrics.pyz").write_bytes(exporter.program(sys.executable))
    command = [sys.executable, "-I", "-S", str(directory / "metrics.pyz")]
    subprocess.run([*command, "--prefix", "/opt/jemalloc", "--directory", str(directory)], cwd="/", check=True)
    return (directory / "jemalloc.prom").read_text(encoding="utf-8")


def targets() -> t.Iterator[t.Tuple[str, t.Dict[str, t.Any], str]]:
    """Yield each query of the dashboard with the panel that it is in, and its legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"], panel, target["legendFormat"]


def queries() -> t.List[str]:
    """Return all queries: of the dashboard, and those that the guide asks questions with."""
    asked = re.findall(r"^\| .*\? \| `(.*)` \|$", GUIDE, re.MULTILINE)
    assert len(asked) == 5
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if "definition" in each]
    selected = [re.sub(r"^label_values\((.*), \w+\)$", r"\1", definition) for definition in variables]
    assert len(selected) == 2
    return [query.replace("$instance", ".*").replace("$unit", ".*") for query, *_rest in targets()] + asked + selected


def expressions() -> t.List[str]:
    """Return all queries and the expressions of the alerts."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return queries() + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def labels_in(query: str) -> t.Iterator[t.Tuple[str, t.Set[str]]]:
    """Yield each metric of a query, with the labels that it is chosen by."""
    bare = re.sub(r'"[^"]*"', '""', query)
    for name, matchers in re.findall(r"\b((?:jemalloc|node)_\w+)(?:\{([^}]*)\})?", bare):
        yield name, set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*""', matchers))


def test_promtool_has_nothing_to_say_of_the_metrics(promtool: Promtool, written: str) -> None:
    assert promtool("check", "metrics", data=written) == ""


def test_promtool_has_nothing_to_say_of_any_family(promtool: Promtool) -> None:
    unit: dict[str, t.Any] = {
        "name": "a",
        "scope": "system",
        "container": "",
        "uid": None,
        "allocators": {"jemalloc 5.3.1": 1},
        "pss": 1,
    }
    unit.update(
        {"threads": 1, "rss": 1, "swap": 0, "started": 1, "configured": "5.3.1", "drift": [], "candidate": None}
    )
    release = {"version": "5.3.1", "current": True, "previous": False, "damage": ""}
    unreadable = {"processes": 0, "files": []}
    text = metrics.render({"units": [unit], "installations": [release], "unreadable": unreadable}, 0.1)
    assert promtool("check", "metrics", data=text) == ""
    assert [family.name for family in text_string_to_metric_families(text)] == [each.name for each in metrics.FAMILIES]


def test_this_machine_has_metrics(written: str) -> None:
    found = {family.name: family.samples for family in text_string_to_metric_families(written)}
    assert len(found["jemalloc_unit_processes"]) >= 1
    assert found["jemalloc_collect_duration_seconds"][0].value > 0


def test_the_guide_lists_all_metrics() -> None:
    table = GUIDE.partition("\n## What there is\n")[2]
    listed = re.findall(r"^\| `(jemalloc_\w+)` \| ([^|]*)\|", table, re.MULTILINE)
    expected = []
    for family in metrics.FAMILIES:
        own = [f"`{label}`" for label in family.labels if label not in metrics.UNIT]
        expected.append((family.name, ", ".join((["unit"] if family.labels[:1] == ("unit",) else []) + own)))
    assert [(name, labels.strip()) for name, labels in listed] == expected


def test_alerts_are_rules(promtool: Promtool) -> None:
    assert "3 rules found" in promtool("check", "rules", "--lint-fatal", str(RULES))


ALERTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'jemalloc_unit_drift{{instance="web1", unit="puma.service"}}', values: '0x9 1x60'}}
      - {{series: 'jemalloc_unit_drift{{instance="web1", unit="cron.service"}}', values: '0x70'}}
      - {{series: 'jemalloc_installation_damaged{{instance="web1", release="5.3.1"}}', values: '0 1x69'}}
      - {{series: 'jemalloc_installation_damaged{{instance="web1", release="5.3.0"}}', values: '0x70'}}
      - {{series: 'node_textfile_mtime_seconds{{instance="web1", file="/var/x/jemalloc.prom"}}', values: '0x70'}}
      - {{series: 'node_textfile_mtime_seconds{{instance="web1", file="/var/x/other.prom"}}', values: '0x70'}}
      - {{series: 'node_textfile_mtime_seconds{{instance="web2", file="/var/x/jemalloc.prom"}}', values: '0+60x70'}}
    alert_rule_test:
      - {{eval_time: 39m, alertname: JemallocDrift, exp_alerts: []}}
      - eval_time: 41m
        alertname: JemallocDrift
        exp_alerts:
          - exp_labels: {{severity: warning, instance: web1, unit: puma.service}}
            exp_annotations:
              summary: puma.service on web1 does not run with the jemalloc that is configured
              description: {drift}
      - {{eval_time: 5m, alertname: JemallocInstallationDamaged, exp_alerts: []}}
      - eval_time: 7m
        alertname: JemallocInstallationDamaged
        exp_alerts:
          - exp_labels: {{severity: critical, instance: web1, release: 5.3.1}}
            exp_annotations:
              summary: jemalloc 5.3.1 on web1 is not what was installed
              description: {damaged}
      - {{eval_time: 20m, alertname: JemallocMetricsStale, exp_alerts: []}}
      - eval_time: 22m
        alertname: JemallocMetricsStale
        exp_alerts:
          - exp_labels: {{severity: warning, instance: web1, file: /var/x/jemalloc.prom}}
            exp_annotations:
              summary: The metrics of jemalloc on web1 are 22m 0s old
              description: {stale}
"""


def test_alerts_fire_when_they_should(promtool: Promtool, tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    told = [json.dumps(rule["annotations"]["description"]) for rule in rules]
    text = ALERTS.format(rules=RULES, **dict(zip(("drift", "damaged", "stale"), told)))
    (tmp_path / "test.yml").write_text(text)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


def test_promtool_takes_every_query(promtool: Promtool, tmp_path: Path) -> None:
    found = expressions()
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", str(path))


@pytest.mark.parametrize("query", expressions())
def test_a_query_uses_what_there_is(query: str) -> None:
    used = dict(labels_in(query))
    assert used
    for name, labels in labels_in(query):
        assert labels <= LABELS[name]
    grouped = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", query)
    names = {name.strip() for part in grouped for name in part.split(",") if name.strip()}
    assert names <= set.union(*(LABELS[name] for name in used))


def test_legends_and_columns_use_what_there_is() -> None:
    for query, panel, legend in targets():
        known = set.union(*(LABELS[name] for name, _labels in labels_in(query))) | {"Value"}
        named = set(re.findall(r"\{\{(\w+)\}\}", legend))
        for each in panel.get("transformations", []):
            named |= set(each["options"].get("include", {}).get("names", []))
        assert named <= known, panel["title"]


def test_every_metric_of_a_unit_or_an_installation_that_can_alarm_is_on_the_dashboard() -> None:
    shown = {name for query, *_rest in targets() for name, _labels in labels_in(query)}
    assert {
        "jemalloc_unit_processes",
        "jemalloc_unit_proportional_memory_bytes",
        "jemalloc_unit_drift",
        "jemalloc_unit_candidate",
        "jemalloc_installation_info",
        "jemalloc_installation_damaged",
        "node_textfile_mtime_seconds",
    } <= shown


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query", "unit": "query"}
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 39
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {json.dumps(each["datasource"]) for panel in panels for each in [panel, *panel["targets"]]}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    places = [panel["gridPos"] for panel in panels]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _y in cells) < 24

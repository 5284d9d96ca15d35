"""Asks a running Prometheus what alerts and the dashboard ask: everything must return data.

usage: live.py expressions PROMETHEUS_URL     each query of the dashboard and of the recording rules,
                                              and each series that an alert looks at
       live.py alerts PROMETHEUS_URL          prints the names of the alerts that fire
"""

import json
import pathlib
import re
import sys
import urllib.parse
import urllib.request

import yaml

DEPLOY = pathlib.Path(__file__).parent.parent
# A metric or recorded series, with its selector if there is one.
SERIES = re.compile(r"\b((?:rookery[_:][\w:]*|process_\w+|up))\b(\{[^}]*\})?")
# Their values come from what happens, so a healthy cluster lacks some: that the metric has the label
# is what can be checked.
OPEN_LABELS = re.compile(r'(status|code|route)=~?"[^"]*"')


def ask(url: str, expression: str) -> list:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]


def of_dashboard():
    dashboard = json.loads((DEPLOY / "grafana/rookery.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)), "panels share an id"
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            yield f"dashboard, {panel['title']}", expression


def of_rules():
    for path in sorted((DEPLOY / "prometheus").glob("*.rules.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    yield rule["record"], rule["expr"]
                    continue
                # Nothing fires in a healthy cluster: what the alert compares is asked instead.
                for name, selector in SERIES.findall(rule["expr"]):
                    yield rule["alert"], name + OPEN_LABELS.sub(r'\1!=""', selector)


def expressions(url: str) -> int:
    asked, silent = 0, 0
    for whose, expression in [*of_dashboard(), *of_rules()]:
        asked += 1
        if not ask(url, expression):
            silent += 1
            print(f"{whose}: nothing for {expression}")
    print(f"{asked} expressions asked, {silent} without data")
    return 1 if silent or not asked else 0


def alerts(url: str) -> int:
    print(*sorted({a["metric"]["alertname"] for a in ask(url, 'ALERTS{alertstate="firing"}')}))
    return 0


if __name__ == "__main__":
    sys.exit({"expressions": expressions, "alerts": alerts}[sys.argv[1]](sys.argv[2]))

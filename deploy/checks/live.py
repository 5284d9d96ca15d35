"""Asks a running Prometheus what alerts and the dashboard ask: everything must return data.

usage: live.py expressions PROMETHEUS_URL     each query of the dashboard and of the recording rules,
                                              and each series that an alert looks at
       live.py alerts PROMETHEUS_URL SECONDS  prints the names of the alerts that fired within so long
       live.py spread PROMETHEUS_URL INSTANCE SINCE WINDOW
                                              the sockets of this node, told to go at the moment SINCE,
                                              must have come back spread over WINDOW seconds
"""

import json
import pathlib
import re
import sys
import time
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


def alerts(url: str, seconds: str) -> int:
    fired = ask(url, f'count_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])')
    print(*sorted({a["metric"]["alertname"] for a in fired}))
    return 0


def spread(url: str, instance: str, since: str, window: str) -> int:
    begun, seconds = int(since), float(window)
    [sockets] = ask(url, f'rookery_sockets{{instance="{instance}"}} @ {begun}')
    expected = int(sockets["value"][1])
    back: list[float] = []
    # With the looks before, for what there was to begin with.
    long = int(time.time()) - begun + 5
    for series in ask(url, f'rookery_upgrades_total{{result="accepted"}}[{long}s]'):
        values = [(at, int(value)) for at, value in series["values"]]
        for (_, before), (at, after) in zip(values, values[1:]):
            # Less than before: another process, which counts from 0.
            came = after - before if after >= before else after
            back += [at] * (came if at > begun else 0)
    back.sort()
    # Without the first and the last tenth, who may be anybody.
    taken = back[len(back) * 9 // 10] - back[len(back) // 10] if back else 0
    print(f"{instance}: {expected} sockets told to go, {len(back)} came back, most of them within {taken:.1f} s")
    if expected == 0 or len(back) < expected:
        print("some did not come back")
        return 1
    if taken < seconds / 2:
        print(f"they came back at once, and not over {seconds:g} s")
        return 1
    return 0


if __name__ == "__main__":
    commands = {"expressions": expressions, "alerts": alerts, "spread": spread}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))

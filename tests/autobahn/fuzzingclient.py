# Python 2.7, for which alone Autobahn's suite exists.
"""Runs cases 1 to 7 of Autobahn's suite against a server and judges the report.

    python2.7 fuzzingclient.py <packages> <ws url> <report folder>

Not run: 9 (messages beyond the 64 KiB that the server takes), 12 and 13 (compression, which it
does not offer).
"""
import collections
import json
import os
import site
import subprocess
import sys

GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")


def run(packages, spec):
    # Some of the packages are spread over folders that only a .pth file knows.
    site.addsitedir(packages)
    sys.path.insert(0, packages)
    sys.argv = ["wstest", "-m", "fuzzingclient", "-s", spec]
    from autobahntestsuite.wstest import run as wstest
    wstest()


def judge(report):
    with open(os.path.join(report, "index.json")) as index:
        cases = json.load(index)["rookery"]
    counts = collections.Counter()
    bad = []
    for name, case in cases.items():
        verdicts = (case["behavior"], case["behaviorClose"])
        counts[verdicts[0]] += 1
        if not all(verdict in GOOD for verdict in verdicts):
            bad.append((name, verdicts))
    for name, verdicts in sorted(bad):
        print("case %s: %s, closing %s" % ((name,) + verdicts))
    print("%d cases: %s" % (len(cases), ", ".join("%s %d" % pair for pair in sorted(counts.items()))))
    return 1 if bad or len(cases) < 100 else 0


def main(packages, url, report):
    spec = os.path.join(report, "spec.json")
    with open(spec, "w") as out:
        json.dump({
            "outdir": report,
            "servers": [{"agent": "rookery", "url": url}],
            "cases": ["%d.*" % number for number in range(1, 8)],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }, out)
    # In a process of its own, because wstest ends its process.
    with open(os.path.join(report, "wstest.log"), "w") as log:
        subprocess.check_call([sys.executable, __file__, packages, spec], stdout=log, stderr=log)
    return judge(report)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run(sys.argv[1], sys.argv[2])
    else:
        sys.exit(main(*sys.argv[1:]))

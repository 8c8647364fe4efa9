"""Prints "PASSED FAILED SKIPPED" for a meson testlog.json or a JUnit XML file.

A Criterion program counts as the tests it ran, any other program as one.
"""

import json
import re
import sys
import xml.etree.ElementTree

SYNTHESIS = re.compile(r"Synthesis: .*?Tested: .*?(\d+).*?Passing: .*?(\d+).*?Failing: .*?(\d+).*?Crashing: .*?(\d+)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count_meson(path):
    passed = failed = skipped = 0
    with open(path, encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            output = COLOUR.sub("", test.get("stdout", "") + test.get("stderr", ""))
            synthesis = SYNTHESIS.search(output)
            if test["result"] == "SKIP":
                skipped += 1
            elif synthesis:
                _, good, bad, crashed = map(int, synthesis.groups())
                passed += good
                failed += bad + crashed
                failed += test["result"] != "OK" and bad + crashed == 0
            else:
                passed += test["result"] == "OK"
                failed += test["result"] != "OK"
    return passed, failed, skipped


def count_junit(path):
    suite = next(xml.etree.ElementTree.parse(path).getroot().iter("testsuite"))
    tests, errors, failures, skipped = (int(suite.get(key, 0)) for key in ("tests", "errors", "failures", "skipped"))
    return tests - errors - failures - skipped, errors + failures, skipped


print(*(count_meson if sys.argv[1].endswith(".json") else count_junit)(sys.argv[1]))

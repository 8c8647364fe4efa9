"""count_tests.py LOG [FAILURES]: prints "PASSED FAILED SKIPPED" for a meson testlog.json or a JUnit XML file, and appends
the names of the tests that failed to the file FAILURES, one a line.

A Criterion program counts as the tests it ran, any other program as one.
"""

import json
import re
import sys
import xml.etree.ElementTree

SYNTHESIS = re.compile(r"Synthesis: .*?Tested: .*?(\d+).*?Passing: .*?(\d+).*?Failing: .*?(\d+).*?Crashing: .*?(\d+)")
CRITERION_FAILURE = re.compile(r"\[FAIL\] (\S+?):? ")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count_meson(path):
    passed = failed = skipped = 0
    names = []
    with open(path, encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            output = COLOUR.sub("", test.get("stdout", "") + test.get("stderr", ""))
            if test["result"] not in ("OK", "SKIP"):
                names += [f"{test['name']}: {name}" for name in CRITERION_FAILURE.findall(output)] or [test["name"]]
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
    return (passed, failed, skipped), names


def count_junit(path):
    suite = next(xml.etree.ElementTree.parse(path).getroot().iter("testsuite"))
    tests, errors, failures, skipped = (int(suite.get(key, 0)) for key in ("tests", "errors", "failures", "skipped"))
    faults = [case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
    names = [f"{case.get('classname')}::{case.get('name')}" for case in faults]
    return (tests - errors - failures - skipped, errors + failures, skipped), names


counts, failed_names = (count_meson if sys.argv[1].endswith(".json") else count_junit)(sys.argv[1])
print(*counts)
if len(sys.argv) > 2:
    with open(sys.argv[2], "a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in failed_names)

"""What a run found: for a terminal, as JSON and as JUnit XML."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from shared.conformance.verdicts import FAILURES, VERDICTS, Result, counts, is_conformant
from shared.files.errors import printable

FORMAT_VERSION = 1
SHOWN = 20
# Anything else cannot be in an XML 1.0 document, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_JUNIT_TAGS = {
    "fail": "failure",
    "unexpected pass": "failure",
    "errored": "error",
    "skipped": "skipped",
    # JUnit has no word for these; they are not passes, so a reader counts them as skipped.
    "divergent as declared": "skipped",
    "loosened": "skipped",
}


def headline(name: str, results: Sequence[Result]) -> str:
    """Return all counts of a run in one line."""
    return f"{name}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts(results).items())


def print_summary(name: str, results: Sequence[Result], console: Console) -> None:
    """Print a table by kind of case, why cases were skipped, the first failures, the headline."""

    def show(text: str) -> None:
        # What a process wrote may hold escape sequences and lone surrogates.
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    console.print(_table(results))
    for verdict in ("skipped", "divergent as declared", "loosened"):
        reasons = Counter(r.message for r in results if r.verdict == verdict)
        for reason, number in reasons.most_common(SHOWN):
            show(f"{verdict}, {number}: {reason}")
        if len(reasons) > SHOWN:
            show(f"{verdict}: {len(reasons) - SHOWN} more reasons")
    failures = [result for result in results if result.verdict in FAILURES]
    for result in failures[:SHOWN]:
        show(f"{result.verdict}: {result.case.id}: {result.message}")
        show(f"    bound {result.limit:g} {result.case.bound.unit}")
    if len(failures) > SHOWN:
        show(f"… and {len(failures) - SHOWN} more; --json FILE holds them all")
    show(headline(name, results))
    if all(result.verdict == "skipped" for result in results):
        show("no case was run")


def _table(results: Sequence[Result]) -> Table:
    table = Table("cases", *VERDICTS)
    for kind in dict.fromkeys(map(_kind, results)):
        found = counts(result for result in results if _kind(result) == kind)
        table.add_row(kind, *(str(number or "") for number in found.values()))
    return table


def _kind(result: Result) -> str:
    return result.case.id.split("/", 1)[0]


def write_json(path: Path, name: str, results: Sequence[Result]) -> None:
    """Write the counts and every case with its error, bound, derivation and message."""
    document = {
        "format": "gan-conformance-report",
        "format_version": FORMAT_VERSION,
        "implementation": name,
        "conformant": is_conformant(results),
        "counts": counts(results),
        "cases": [
            {
                "id": r.case.id,
                "verdict": r.verdict,
                "error": r.error if r.error is not None and math.isfinite(r.error) else None,
                "bound": r.limit,
                "own_bound": r.case.bound.limit,
                "unit": r.case.bound.unit,
                "derivation": r.case.bound.derivation,
                "message": r.message,
            }
            for r in results
        ],
    }
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")


def write_junit(path: Path, name: str, results: Sequence[Result]) -> None:
    """Write JUnit XML: one suite, a test case for each case, named by its id."""
    tags = Counter(_JUNIT_TAGS.get(result.verdict) for result in results)
    numbers = {
        "tests": str(len(results)),
        "failures": str(tags["failure"]),
        "errors": str(tags["error"]),
        "skipped": str(tags["skipped"]),
    }
    root = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(name)} | numbers)
    for result in results:
        attributes = {"classname": f"conformance.{_kind(result)}", "name": _xml(result.case.id)}
        element = ElementTree.SubElement(suite, "testcase", attributes)
        if tag := _JUNIT_TAGS.get(result.verdict):
            message = _xml(f"{result.verdict}: {result.message}")
            ElementTree.SubElement(element, tag, {"message": message})
    ElementTree.indent(root, " ")
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

"""A run as one self-contained page: verdict, tables, plots, raw settings. Nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.document import roofline
from benchmarks.show import plots, verdict
from benchmarks.show import tables as report
from benchmarks.show.verdict import short

CAPTIONS = {
    "throughput.png": "Grey lines: the roofline, which is what the fastest matrix products seen "
    "here would make of the step's operations, or the memory bandwidth of its bytes where that is "
    "less. Hollow and dashed: baselines.",
    "latency.png": "Every dot is one step that was waited for; the mark is the median.",
    "time_to_image.png": "Of each framework and baseline the fastest. Compilation pays off where a "
    "line crosses one that started lower.",
    "ratios.png": "Diamond: median of the rounds; dots: each round; line: bootstrap over rounds, "
    "then windows. A grey band, of --aa, is what two equal configurations may differ by.",
}
STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --ground: #ffffff; --quiet: #555555;
  --line: #dddddd; --strong-line: #888888; --accent: #14708f; --band: #eef4f6; --failed: #a3271d; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e8; --ground: #16181b; --quiet: #a4abb2; --line: #34393f;
    --strong-line: #7d858d; --accent: #4db3d3; --band: #1d2b31; --failed: #ff8f84; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .6rem 0 1.6rem; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
th { border-bottom: 2px solid var(--strong-line); font-weight: 600; white-space: normal;
  vertical-align: bottom; }
.verdict { font-size: 1.15rem; font-weight: 600; padding: .7rem 1rem; background: var(--band);
  border-left: 4px solid var(--accent); }
.failed { color: var(--failed); }
figure { margin: 1.4rem 0; } figcaption { color: var(--quiet); }
/* The plots are drawn for white paper, so they lie on a white card in both schemes. */
img { max-width: 100%; height: auto; box-sizing: border-box; background: #ffffff; padding: .5rem;
  border-radius: .4rem; }
"""
COLUMNS = (
    "configuration", "img/s", "95 % interval", "ms p5", "p50", "p95", "% of GEMM peak",
    "% of roofline", "compile s", "peak GB", "settings", "status",
)  # fmt: skip
TEXT_COLUMNS = ("configuration", "settings", "status")


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write index.html, which holds its images, and the images as PNG beside it.

    Returns the page's path; raises OSError where the folder cannot be written to.
    """
    images = plots.draw(document)
    for name, content in images.items():
        (folder / name).write_bytes(content)
    path = folder / "index.html"
    path.write_text(_page(document, images), encoding="utf-8")
    return path


def _page(document: dict[str, Any], images: dict[str, bytes]) -> str:
    work = document["workload"]
    title = f"{work['system']}, loss {work['loss']}: one training step"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="verdict">{escape(line)}</p>' for line in verdict.verdicts(document)),
        *(f"<p>{escape(line)}</p>" for line in verdict.ratio_lines(document)),
        *_tables(document),
        *(_figure(name, content) for name, content in images.items()),
        *_about(document),
    ]
    if document["interrupted"]:
        parts.insert(1, '<p class="failed">Interrupted: only what was measured until then.</p>')
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _tables(document: dict[str, Any]) -> Iterable[str]:
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    for group in document["groups"]:
        yield f"<h2>Matched: {escape(verdict.group_title(group))}</h2>"
        yield _table(verdict.group_lines(document, group))
    if len(document["groups"]) > 1:
        yield "<h2>Best of each framework</h2><p>Of different settings, so this is no ranking.</p>"
        yield _table([summaries[entry["configuration"]] for entry in document["best"]])
    failed = [summary for summary in summaries.values() if summary["status"] != "ok"]
    if failed:
        yield "<h2>No numbers</h2><ul>"
        for summary in failed:
            line = f"{summary['label']}: {summary['status']}: {summary['error']}"
            yield f'<li class="failed">{escape(line)}</li>'
        yield "</ul>"


def _table(summaries: Sequence[dict[str, Any]]) -> str:
    heads = "".join(_cell("th", name, name in TEXT_COLUMNS) for name in COLUMNS)
    rows = [
        "".join(
            _cell("td", text, name in TEXT_COLUMNS)
            for name, text in zip(COLUMNS, _texts(summary), strict=True)
        )
        for summary in summaries
    ]
    lines = "\n".join(f"<tr>{row}</tr>" for row in (heads, *rows))
    return f"<table>\n{lines}\n</table>"


def _cell(tag: str, text: str, is_text: bool) -> str:
    return f"<{tag}{' class=text' if is_text else ''}>{escape(text)}</{tag}>"


def _texts(summary: dict[str, Any]) -> list[str]:
    results, settings = summary["results"], summary["settings"]
    if results is None:
        return [summary["label"], *[""] * (len(COLUMNS) - 2), summary["status"]]
    rate, step = results["images_per_second"], results["step_ms"]
    percents = (results["percent_of_gemm_peak"], results.get("percent_of_roofline"))
    low, high = rate["interval_95"]
    shown = (settings["precision"], settings["mode"] or "stock", settings["layout"])
    return [
        summary["label"],
        short(rate["median"]),
        f"{short(low)} to {short(high)}",
        *(short(step[name]) for name in ("p5", "p50", "p95")),
        *("" if percent is None else f"{percent:.0f}" for percent in percents),
        f"{results['compile_ms'] / 1e3:.1f}",
        f"{results['peak_memory_bytes'] / 1e9:.2f}",
        ", ".join(shown),
        verdict.remark(summary),
    ]


def _figure(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode("ascii")
    caption = escape(CAPTIONS[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _about(document: dict[str, Any]) -> list[str]:
    machine, work, git = document["host"], document["workload"], document["git"]
    versions = {k: v for row in document["rows"] for k, v in row["versions"].items()}
    devices = {row["settings"]["device"] for row in document["rows"] if row["settings"]}
    facts = {
        "command": document["command"],
        "when": document["created"],
        "commit": "none" if git is None else git["commit"] + (", changed" if git["dirty"] else ""),
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        "load before the run": f"{machine['load_average']:.1f}",
        "devices": ", ".join(sorted(devices)),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "one image costs": f"{work['flops_per_image'] / 1e9:.6f} GFLOP a step, by analytic count",
        "peaks": "; ".join(
            f"{p['gflops_per_second']:,.0f} GFLOP/s ({p['precision']}, {p['method']})"
            for p in document["peaks"]
        ),
        "memory": "; ".join(report.bandwidth_lines(document)),
        "limits": "; ".join([*roofline.lines(document), *report.caution_lines(document)]),
    }  # fmt: skip
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class=text>{escape(text)}</td></tr>"
        for name, text in facts.items()
    )
    return ["<h2>How it was measured</h2>", f"<table>{rows}</table>"]

"""`docs/performance.md`, from what was found the last time that each part was measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.results import ROOT, Case, Result, Target

PAGE = ROOT / "docs" / "performance.md"
UNITS = {
    "wall": "s",
    "cpu": "CPU s",
    "peak": "MB",
    "seconds": "s to there",
    "own": "agent's CPU s",
    "server": "server's CPU s",
    "stall": "longest stall of the event loop, s",
    "busy": "CPU s of it",
}
HEAD = """# Performance

How long the machine is up for the same work, and what it costs on the way. `make bench` measures everything and writes
this page again; `python -m benchmarks PART...` measures parts, and leaves the others as they were.

Each part says when it was measured, and of which version. What was measured before 2026-11-26 is of 0.1, which
committed a run as a whole; 0.2 commits each job as it ends.

All that is compared was measured in one go, in turn, on one machine; the order is drawn anew for each round, since a
program pays for what the one before it left behind. A ratio is the median of the rounds' ratios, with the lowest and
the highest in brackets: where these lie far apart, something else used the machine, and the ratio means little. The
load is the number of processes that wanted a core, before and after.

Where Python lies in `/usr` it is Debian's, which is built with the compiler's optimisations, as are Amazon Linux's and
that of the image for home. A Python that was built without them takes a sixth longer to start `mayfly pull`.

The disk was the measuring machine's own, and what is read twice was in its memory; a virtual machine's was a file
there. A new EBS volume is slow where it is read first, and none of that is in these figures, but for the last ones: a
night from such a disk. `python -m benchmarks.first_reads` measures a browser's start alone; what to do about it is in
[AWS](aws.md).
"""


def write(results: Mapping[str, Result | None], titles: Mapping[str, str], to: Path = PAGE) -> Path:
    """Write the page; a part that was never measured says so."""
    lines = [HEAD, "## Figures to reach", "", *_targets(list(filter(None, results.values()))), ""]
    for part, title in titles.items():
        result = results.get(part)
        lines += [f"## {title}", ""]
        lines += _part(result) if result else [f"Not measured yet: `{_command(part)}`."]
        lines.append("")
    to.write_text("\n".join(lines).rstrip() + "\n")
    return to


def _command(part: str) -> str:
    return f"python -m benchmarks{'.' if part in {'machine', 'lent', 'slow_boot'} else ' '}{part}"


def _targets(results: Sequence[Result]) -> Iterator[str]:
    yield "| what | reach | seen | |"
    yield "| --- | --- | --- | --- |"
    for result in results:
        for target in result.findings.targets:
            yield f"| {target.what} | <= {_figure(target.limit, target)} | {_seen(target)} | {_verdict(target)} |"


def _seen(target: Target) -> str:
    low, high = min(target.values), max(target.values)
    against = f" of {target.against}" if target.against else ""
    if low == high:
        return f"{_figure(target.median, target)}{against}"
    return f"{_figure(target.median, target)} ({low:.2f} to {high:.2f}){against}"


def _figure(value: float, target: Target) -> str:
    # Four digits: what misses its limit by a little does not look as if it reached it.
    return f"{value:.4g} {target.unit}"


def _verdict(target: Target) -> str:
    if target.reached:
        return "reached"
    return f"**not reached**. {target.floor}" if target.floor else "**not reached**"


def _part(result: Result) -> Iterator[str]:
    machine = result.machine
    before, after = machine["load"]
    yield (
        f"Measured {result.measured[:16].replace('T', ' ')} UTC on {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gb']} GB, {machine['system']}; load {before} before, {after} after."
    )
    yield f"Versions: {', '.join(f'{name} {text}' for name, text in result.findings.versions.items())}."
    yield ""
    for note in result.findings.notes:
        yield f"- {note}"
    if result.findings.notes:
        yield ""
    for case in result.findings.cases:
        yield from _table(case)


def _table(case: Case) -> Iterator[str]:
    figures = list(dict.fromkeys(name for sample in case.samples for name in sample.figures))
    yield f"### {case.name} ({case.group})"
    yield ""
    yield f"| | runs | {' | '.join(UNITS.get(figure, figure) for figure in figures)} |"
    yield f"| --- | --- |{' --- |' * len(figures)}"
    for who in sorted(
        case.everybody, key=lambda who: min(case.values(who, figures[0]), default=0.0)
    ):
        count = sum(1 for sample in case.samples if sample.who == who)
        cells = (_cell(case.values(who, figure)) for figure in figures)
        yield f"| {who} | {count} | {' | '.join(cells)} |"
    yield ""


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = sorted(values)[len(values) // 2]
    if min(values) == max(values):
        return f"{middle:.4g}"
    return f"{middle:.3g} ({min(values):.3g} to {max(values):.3g})"

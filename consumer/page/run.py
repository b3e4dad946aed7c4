"""The page of a run, and that of a job in it. Decisions only."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.contract.descriptor import Resource, Role
from agent.contract.entries import Invalid
from agent.contract.package import Package
from agent.contract.results import JobCause, RunStatus
from consumer.groups import State
from consumer.judge import Judged
from consumer.model import Batch, Job, Run
from consumer.page.file import may_be_looked_at
from consumer.page.front import (
    REFRESH_SECONDS,
    attempts,
    number_of,
    pictures,
    shard_of,
    took,
)
from consumer.page.given import Text, Visit
from consumer.page.logtext import LEVELS, end_of
from consumer.page.render import Page, object_path, said, shown_text, view_path
from consumer.page.words import Language
from consumer.spending import MonthCosts

MOST_LINES = 1000
MOST_NOTES = 30
MOST_FILES = 200


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job of a run; `ended` is None where it has no result."""

    name: str
    state: State
    ended: Job | None = None
    cause: JobCause | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class FileLine:
    """A file of a job: its name where it was made, where it is, and the page that shows it."""

    name: str
    url: str
    look: str
    kind: str
    bytes: int


def run_page(visit: Visit, judged: Judged, costs: MonthCosts, run: str, log: Text) -> str | None:
    """Return the page of a run, with the costs of the month in which it began; None when it is not known.

    `?level=warning` and `?job=<name>` filter the log.
    """
    found = find(judged, run)
    if found is None:
        return None
    batch, one = found
    page, status = Page(visit, judged.zone), batch.status(one)
    ids = [other.id for _, other in attempts(judged)]
    level, only = visit.query.get("level", ""), visit.query.get("job", "")
    lines, hidden = end_of(log.content, MOST_LINES, cut=log.cut, level=level, job=only)
    running = status is RunStatus.RUNNING
    return page.render(
        "run.html",
        refresh=REFRESH_SECONDS if running else 0,
        run=one,
        status=status,
        zone=judged.zone,
        earlier=max((other for other in ids if other < run), default=""),
        later=min((other for other in ids if other > run), default=""),
        progress=progress(visit.language, one) if running else "",
        planned=one.planned.count if one.planned else 0,
        notes=[*notes(visit.language, batch, one)][:MOST_NOTES],
        facts=said(run_facts(page, judged, costs, batch, one)),
        jobs=job_lines(batch, one),
        levels=LEVELS,
        level=level if level in LEVELS else LEVELS[0],
        only=only,
        log=log,
        log_lines=lines,
        hidden=hidden,
    )


def run_job_page(
    visit: Visit,
    judged: Judged,
    run: str,
    job: str,
    *,
    package: Package | Invalid | None,
    log: Text,
) -> str | None:
    """Return the page of a job in a run, with what its last attempt printed; None when it has no result.

    `?page=2` shows more files.
    """
    found = find(judged, run)
    mine = next((one for one in found[1].jobs if one.name == job), None) if found else None
    if found is None or mine is None:
        return None
    page, _, number = Page(visit, judged.zone), visit.language, number_of(visit)
    sound = package if isinstance(package, Package) else None
    roles: dict[Role, list[Resource]] = {}
    for one in sound.resources if sound else ():
        roles.setdefault(one.role, []).append(one)
    results = roles.get(Role.RESULT, [])
    shown = results[(number - 1) * MOST_FILES : number * MOST_FILES]
    rest = [*roles.get(Role.EVIDENCE, []), *roles.get(Role.LOG, [])]
    tables = ((_("Files"), shown), (_("Logs and evidence"), rest))
    return page.render(
        "run_job.html",
        run=found[1],
        schedule=found[0].id.schedule,
        name=job,
        job=mine,
        facts=said(job_facts(page, mine, sound)),
        problem=package.reason if isinstance(package, Invalid) else "",
        shots=pictures(run, job, sound) if sound else [],
        tables=[
            (title, [_file(page, run, job, one) for one in files[:MOST_FILES]])
            for title, files in tables
            if files
        ],
        number=number,
        more=max(0, len(results) - number * MOST_FILES),
        refused=sound.job.refused[:MOST_FILES] if sound else (),
        package=sound,
        log=log,
        text=shown_text(log.content),
    )


def find(judged: Judged, run: str) -> tuple[Batch, Run] | None:
    """Return a run by its id."""
    batches = (one for facts in judged.schedules for group in facts.groups for one in group.batches)
    return next(((batch, one) for batch in batches for one in batch.runs if one.id == run), None)


def progress(_: Language, run: Run) -> str:
    """Return how far a run is that is under way."""
    done, planned = run.progress
    if planned is None:
        return _("It has not said yet what it will do.")
    return _.count("{done} of {n} job done", "{done} of {n} jobs done", planned, done=done)


def notes(_: Language, batch: Batch, run: Run) -> Iterator[str]:
    """Yield what is special about a run: why it ended early, what is lacking, where to look."""
    status = batch.status(run)
    if run.began is None:
        yield _("Its beginning never arrived; only its id says when it was.")
    if run.stood_back:
        yield _("It did nothing: {reason}", reason=run.stood_back.reason)
    if status is RunStatus.LOST:
        yield _("It never closed, and its deadline is past. Where to look:")
        instance = run.began.host.instance_id if run.began else None
        if instance:
            yield f"aws ec2 get-console-output --latest --output text --instance-id {instance}"
            yield _(
                "With LogRetentionDays also CloudWatch: group /mayfly/STACK, {name}", name=instance
            )
        else:
            yield _("the machine's own log: journalctl -u mayfly")
    yield from _release_notes(_, run)
    yield from _end_notes(_, run)
    if status is RunStatus.EXPIRED:
        yield _("Its files are no longer in the bucket.")


def _release_notes(_: Language, run: Run) -> Iterator[str]:
    release = run.planned.release if run.planned else None
    if run.planned and release is None and not run.planned.jobs:
        yield _("No release could run.")
    for one in release.refused if release else ():
        yield _("Release {ref} was rejected: {reason}", ref=one.ref, reason=one.reason)
    if release and (back := release.rolled_back_from):
        yield _("Rolled back from {ref}: {reason}", ref=back.ref, reason=back.reason)


def _end_notes(_: Language, run: Run) -> Iterator[str]:
    if (closed := run.closed) is None:
        return
    if closed.interruption:
        yield _("It was interrupted: {reason}", reason=closed.interruption)
    if closed.recovered_by:
        yield _("A later run closed it: {run}", run=closed.recovered_by)
    if closed.not_sent:
        yield _.count(
            "{n} job ended and is lost, with its disk",
            "{n} jobs ended and are lost, with their disk",
            closed.not_sent,
        )
    if run.pending:
        yield _("Still to be sent: {jobs}", jobs=", ".join(run.pending[:MOST_NOTES]))
    yield from closed.warnings


def job_lines(batch: Batch, run: Run) -> list[JobLine]:
    """Return the jobs of a run: what failed first, then what did not end, then the rest."""
    running = batch.status(run) is RunStatus.RUNNING
    ended = {job.name for job in run.jobs}
    lines = [JobLine(job.name, State.NONE, job, job.cause, job.message) for job in run.jobs]
    planned = run.planned.jobs if run.planned else ()
    state = State.RUNNING if running else State.LOST
    lines += [JobLine(name, state) for name in planned if name not in ended]
    left = run.planned.left_out if run.planned else ()
    lines += [
        JobLine(one.name, State.SKIPPED, message=one.reason)
        for one in left
        if one.name not in ended
    ]
    return sorted(lines, key=lambda one: (_weight(one), one.name))


def _weight(line: JobLine) -> int:
    if line.ended is None:
        return 3 if line.state is State.SKIPPED else 1
    return 0 if line.ended.failed or line.ended.incomplete else 2


def run_facts(
    page: Page, judged: Judged, costs: MonthCosts, batch: Batch, run: Run
) -> Iterator[tuple[str, str]]:
    """Yield what is known of a run, each with its name; some may be empty."""
    _, status = page.visit.language, batch.status(run)
    host = run.began.host if run.began else None
    yield _("Run"), run.id
    yield _("Began"), page.stamp(run.started)
    if run.closed:
        yield _("Ended"), page.stamp(run.closed.finished)
    elif status is RunStatus.RUNNING:
        yield _("Deadline"), page.stamp(run.deadline)
    else:
        yield _("Last sign of life"), page.stamp(run.heard)
        yield _("Deadline"), page.stamp(run.deadline)
    yield _("Took"), page.duration(took(batch, run, judged.now))
    if batch.slot:
        yield _("Due"), page.stamp(batch.slot)
    yield _("Shard"), shard_of(batch)
    others = [one.id for one in batch.attempts]
    if len(others) > 1 and run.id in others:
        yield _("Attempt"), f"{others.index(run.id) + 1}/{len(others)}"
    if host:
        yield _("Host"), host.name
        machine = (host.instance_type, host.life_cycle, host.zone, host.instance_id)
        yield _("Machine"), " · ".join(filter(None, machine)) or host.system
    if run.planned and (release := run.planned.release):
        signer = f" · {release.verified_by.principal}" if release.verified_by else ""
        yield _("Release"), f"{release.ref} · {release.commit[:12]}{signer}"
        if release.stale:
            yield _("Older than wanted"), f"{release.stale.wanted}: {release.stale.reason}"
    known = next((one for one in costs.runs if one.run == run.id), None)
    yield _("Cost"), page.cost(known or run.usd)
    if run.closed:
        yield (
            _("Phases"),
            " · ".join(f"{one.name} {page.duration(one.seconds)}" for one in run.closed.phases),
        )


def job_facts(page: Page, job: Job, package: Package | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of a job in a run, each with its name; some may be empty."""
    _ = page.visit.language
    yield _("Files"), f"{job.files:,} · {page.size(job.bytes)}"
    yield _("Items"), "" if job.items is None else f"{job.items:,}"
    yield _("Took"), page.duration(job.seconds)
    if package is None:
        yield _("Attempts"), str(job.attempts)
        return
    record = package.job
    yield _("Began"), page.stamp(record.started) if record.started else ""
    yield _("Ended"), page.stamp(record.finished)
    yield _("Release"), " · ".join(filter(None, (record.release, (record.commit or "")[:12])))
    for one in record.attempts:
        text = f"{page.status(one.status)} · {page.duration((one.finished - one.started).total_seconds())}"
        code = f" · {_('exit code')} {one.exit_code}" if one.exit_code is not None else ""
        code += f" · {_('signal')} {one.signal}" if one.signal is not None else ""
        yield _("Attempt {n}", n=one.number), text + code
    for name, value in record.metrics.items():
        yield name, f"{value:g}"
    for note in record.notes:
        yield _("Note"), note


def _file(page: Page, run: str, job: str, one: Resource) -> FileLine:
    name = one.original or one.path.partition("/")[2]
    look = page.link(view_path(run, job, one.path)) if may_be_looked_at(one) else ""
    return FileLine(name, object_path(run, job, one.path), look, one.mediatype, one.bytes)

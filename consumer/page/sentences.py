"""What is told of runs, in sentences, for the page and the terminal alike. Decisions only."""

from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.groups import State
from consumer.page.given import Pull
from consumer.page.verdict import Kind, Latest, Trouble, Verdict
from consumer.page.words import Language

NIGHT = (18, 6)
"""Hours in which a night begins, and before which it ends."""
SAME_NIGHT = timedelta(hours=20)
WEEK = 6
SHOWN_JOBS = 8
"""Names in a sentence."""
PARTS = {
    "disk": "The disk at home",
    "hook": "A hook failed",
    "store": "The pull cannot read",
}
FAILING = frozenset({Kind.JOB, Kind.LOST, Kind.RUN})
TITLES = {
    Kind.BUCKET: "The bucket cannot be read",
    Kind.LOST: "The run was lost",
    Kind.RUN: "The run failed",
    Kind.JOB: "{jobs}",
    Kind.HOME: "{subject}",
    Kind.REJECTED: "{subject}",
    Kind.STALE: "An older release runs: {subject}",
    Kind.SCHEDULE: "The schedule cannot be read: {subject}",
}

STATUSES = {
    "succeeded": "succeeded",
    "partial": "partly succeeded",
    "failed": "failed",
    "timed_out": "timed out",
    "interrupted": "interrupted",
    "empty": "too little",
    "skipped": "skipped",
    "running": "running",
    "stood_back": "stood back",
    "lost": "lost",
    "missed": "missed",
    "expired": "expired",
    "unknown": "unknown",
    "none": "nothing expected",
}
"""Of jobs, runs and days."""
CAUSES = {
    JobCause.PAGE_CHANGED: "the page changed",
    JobCause.BLOCKED: "the site blocks us",
    JobCause.SITE_UNREACHABLE: "the site cannot be reached",
    JobCause.BROWSER: "the browser failed",
    JobCause.TIMEOUT: "it took too long",
    JobCause.OUT_OF_MEMORY: "out of memory",
    JobCause.OUT_OF_DISK: "out of disk space",
    JobCause.INTERRUPTED: "interrupted",
    JobCause.EXPECTATION: "less than expected",
    JobCause.RELEASE: "no usable release",
    JobCause.ERROR: "an error of the job",
}
NEAR = {0: "today {time}", -1: "yesterday {time}", 1: "tomorrow {time}"}
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def when(_: Language, moment: datetime, now: datetime, zone: tzinfo) -> str:
    """Return a time as a person says it, such as `today 03:00`, `Tuesday 03:00` or `2026-11-02 03:00`."""
    local, today = moment.astimezone(zone), now.astimezone(zone).date()
    time = f"{local:%H:%M}"
    days = (local.date() - today).days
    if days in NEAR:
        return _(NEAR[days], time=time)
    if abs(days) <= WEEK:
        return _("{weekday} {time}", weekday=_(WEEKDAYS[local.weekday()]), time=time)
    return f"{local:%Y-%m-%d} {time}"


def verdict_text(_: Language, verdict: Verdict) -> list[str]:
    """Return the answer to the morning's question: a line for each schedule."""
    if not verdict.latest:
        return [_("No run yet.")]
    named = len(verdict.latest) > 1
    return [
        (f"{one.schedule}: " if named else "") + " ".join(_latest(_, one, verdict))
        for one in verdict.latest
    ]


def _latest(_: Language, one: Latest, verdict: Verdict) -> Iterator[str]:
    def at(moment: datetime) -> str:
        return when(_, moment, verdict.now, one.zone)

    if one.state is State.MISSED and one.expected:
        expected = at(one.expected)
        if one.at:
            yield _("No run since {when}; expected {expected}.", when=at(one.at), expected=expected)
        else:
            yield _("No run yet; expected {expected}.", expected=expected)
    elif one.at is None:
        yield _("No run yet.")
    elif one.state is State.RUNNING:
        yield _running(_, one, at(one.at))
    else:
        head = _("Last night") if _at_night(one.at, verdict.now, one.zone) else _begun(at(one.at))
        yield _("{when}: {what}.", when=head, what=_(", ").join(_came_to(_, one, verdict.pull)))
    if one.next_due:
        yield _("Next: {when}.", when=at(one.next_due))


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _at_night(moment: datetime, now: datetime, zone: tzinfo) -> bool:
    local, here = moment.astimezone(zone), now.astimezone(zone)
    dark = local.hour >= NIGHT[0] or local.hour < NIGHT[1]
    return dark and now - moment < SAME_NIGHT and here.hour >= NIGHT[1] - 1


def _running(_: Language, one: Latest, at: str) -> str:
    if one.jobs is None:
        return _("Running since {when}.", when=at)
    text = _.count("{done} of {n} job done", "{done} of {n} jobs done", one.jobs, done=one.done)
    return _("Running since {when}: {what}.", when=at, what=text)


def _came_to(_: Language, one: Latest, pull: Pull | None) -> Iterator[str]:
    if one.state is State.LOST:
        yield _("the run was lost")
    if one.shards:
        yield _.count(
            "{done} of {n} shard", "{done} of {n} shards", one.shards[1], done=one.shards[0]
        )
    if one.jobs:
        yield _.count("{done} of {n} job", "{done} of {n} jobs", one.jobs, done=one.done)
    elif one.state not in {State.NONE, State.LOST}:
        yield status_text(_, one.state)
    if one.failed and one.state is not State.LOST:
        yield _("{jobs} failed", jobs=names(_, one.failed))
    if one.files:
        yield _.count("{n} file", "{n} files", one.files)
    if pull and pull.pending:
        yield _.count("{n} package not at home", "{n} packages not at home", pull.pending)
    elif pull and pull.ended and pull.pending == 0 and one.files:
        yield _("all at home")


def names(_: Language, jobs: tuple[str, ...]) -> str:
    """Return names in a sentence: of many, some and how many more."""
    more = len(jobs) - SHOWN_JOBS
    if more <= 1:
        return _(", ").join(jobs)
    return _(", ").join((*jobs[:SHOWN_JOBS], _.count("{n} more", "{n} more", more)))


def trouble_title(_: Language, one: Trouble) -> str:
    """Return what is wrong, in a few words."""
    jobs = names(_, one.jobs)
    if one.kind is Kind.MISSED:
        return _.count("No machine came", "No machine came, {n} times in a row", one.times)
    if one.kind is Kind.INCOMPLETE:
        return _.count(
            "{jobs}: {n} file could not be handed over",
            "{jobs}: {n} files could not be handed over",
            one.times,
            jobs=jobs,
        )
    if one.part in PARTS or (one.kind in {Kind.LOST, Kind.RUN} and not one.subject):
        cause = CAUSES[one.cause.known] if one.cause and one.kind is Kind.RUN else ""
        title = _begun(_(cause or PARTS.get(one.part) or TITLES[one.kind]))
        return _("{title}: {jobs}", title=title, jobs=jobs) if jobs else title
    if one.kind is Kind.JOB and one.cause:
        return _("{jobs}: {cause}", jobs=jobs, cause=_(CAUSES[one.cause.known]))
    if one.kind is Kind.LOST:
        return _("Missing shards: {subject}", subject=one.subject)
    return _(TITLES[one.kind], jobs=jobs, subject=one.subject)


def trouble_details(_: Language, one: Trouble, now: datetime, zone: tzinfo) -> list[str]:
    """Return since when it is so, and what was good last."""

    def at(moment: datetime) -> str:
        return when(_, moment, now, zone)

    found: list[str] = []
    if one.times > 1 and one.kind in FAILING:
        if one.days == one.times:
            found.append(_.count("{n} day in a row", "{n} days in a row", one.days))
        else:
            found.append(_.count("{n} time in a row", "{n} times in a row", one.times))
    if one.since and one.kind is Kind.MISSED:
        found.append(_("due {when}", when=at(one.since)))
    elif one.since:
        found.append(_("since {when}", when=at(one.since)))
    if one.last_success and one.kind is Kind.MISSED:
        found.append(_("the last run: {when}", when=at(one.last_success)))
    elif one.last_success:
        found.append(_("last success: {when}", when=at(one.last_success)))
    elif one.kind in FAILING and one.jobs:
        found.append(_("no success is known"))
    return found


def trouble_remedy(_: Language, one: Trouble) -> str:
    """Return what a person can do; empty where that depends."""
    if one.kind is Kind.MISSED:
        return _("Where to look: the schedule and the launch, with `mayfly doctor --aws`.")
    return one.remedy


def status_text(_: Language, status: RunStatus | JobStatus | State) -> str:
    """Return a status as people say it."""
    return _(STATUSES[status.value if isinstance(status, State) else status.known.value])

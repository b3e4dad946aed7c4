"""What reads text that others wrote, each as the program does it, and what must hold of what it makes of it."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.store import LocalStore, MemoryStore
from pydantic import ValidationError

from agent.base.console import printable
from agent.base.redact import Redactor
from agent.bucket.address import S3Bucket, bucket_at, s3_parameters
from agent.config.faults import Fault
from agent.config.jobsfile import Expect, matrix_environment, parse_jobs, program_of
from agent.config.locate import Surroundings, load_settings, locate
from agent.config.settings import Cost
from agent.contract.names import path_problem
from agent.core.datapackage import Sealed, index_entry, render
from agent.core.journal import Journal, after_death
from agent.core.layout import (
    MANIFEST,
    IndexKey,
    is_result,
    manifest_key,
    parse_index_key,
    started_key,
)
from agent.core.manifest import HostRecord, IndexEntry, Manifest, ManifestRef
from agent.core.results import read_result
from agent.jobs.plan import SchedulerState, next_step
from agent.jobs.verdict import Ended, Produced, judge
from agent.machine.instance import (
    host_facts,
    rebalance_notice,
    spot_notice,
    tag_names,
    with_facts,
)
from agent.secrets.envfile import parse_env
from agent.secrets.sources import MAX_ENV_BYTES
from consumer.archive.intake import IncredibleError, take_entry, take_manifest
from consumer.bucket import ReadOnlyBucket
from consumer.costs import cost_json, cost_lines, month_costs, month_of
from consumer.history import Row, Unreadable, read_entry, read_marker
from consumer.pull import plan
from consumer.pull.plan import Wishes
from consumer.pull.state import Item, Owed, Refusal, Selection, read_state
from consumer.serve.ship import pushes
from consumer.status import facts_now, group_lines, job_lines, past_of, status_json, status_lines
from consumer.verify import verify_folder
from tests.faults import documents
from tests.faults.mutations import env_text, json_text, toml_text

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: What it reads.
        documents: Good ones, before they are text.
        dump: Makes text of a document.
        read: Reads text; raises only when that is a defect.
    """

    name: str
    documents: Sequence[Any]
    dump: Callable[[Any], bytes]
    read: Callable[[bytes], None]


def _sound(fault: Fault) -> None:
    """A fault can be told to a person: on a terminal, and in a log."""
    printable(str(fault)).encode()


def _usable(*texts: str) -> None:
    """What was accepted can be handed to the kernel: as an argument, a variable, a path."""
    for text in texts:
        assert "\0" not in text, "a NUL was accepted"
        text.encode()


# The agent's own files.


def _settings(data: bytes) -> None:
    around = Surroundings(
        {"HOME": "/root"}, machine=True, cwd=Path("/"), read=lambda _: data.decode()
    )
    loaded = load_settings(None, around)
    for fault in loaded.faults:
        _sound(fault)
    settings = loaded.settings
    places = locate(settings.paths, around)
    _usable(str(places.state), str(places.cache), *settings.sensitive().values())
    address = bucket_at(settings.store, places.bucket)
    if isinstance(address, S3Bucket):
        s3_parameters(address, None, object)
    _usable(settings.release.repository or "", settings.release.jobs, settings.browser.image or "")
    assert 0 < settings.handoff_seconds < settings.limits.run
    Redactor(settings.sensitive())
    settings.model_dump_json()


def _overrides(data: bytes) -> None:
    lines = data.decode(errors="replace").split("\n")
    pairs = [line.replace("\0", "") for line in lines]
    environ = {
        f"MAYFLY_{name.upper().replace('.', '_')}": value
        for name, _, value in (pair.partition("=") for pair in pairs)
    }
    for by_environment in ({}, environ):
        around = Surroundings(by_environment, machine=False, cwd=Path("/"), read=lambda _: "")
        for fault in load_settings(Path("agent.toml"), around, pairs).faults:
            _sound(fault)


def _jobs(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # which its callers refuse
    jobs, faults = parse_jobs(text, "jobs.toml", "1.2.0")
    assert (jobs is None) == bool(faults), "neither jobs nor a fault"
    for fault in faults:
        _sound(fault)
    if jobs is None:
        return
    assert len({job.name for job in jobs.job}) == len(jobs.job) > 0
    for job in jobs.job:
        _usable(program_of(job), job.image or "", job.compose or "", *(job.command or ()))
        _usable(*job.env.values(), *matrix_environment(job).values(), *job.secrets)
        assert job.timeout > 0
        assert job.days <= frozenset(range(7))
    assert next_step(SchedulerState(jobs.job, {}, frozenset(), 2, 2)).start, "no job can ever start"


def _env(data: bytes) -> None:
    if len(data) > MAX_ENV_BYTES:
        return  # which its reader refuses
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    values, faults = parse_env(text, "secrets.env")
    for fault in faults:
        _sound(fault)
    _usable(*values, *values.values())
    assert Redactor(values).text("nothing") is not None


def _result(data: bytes) -> None:
    reported, problem = read_result(data, Redactor({"TOKEN": "quotes-secret"}))
    json.dumps(problem).encode()
    for code in (0, 1, 75):
        verdict = judge(Ended(exit_code=code), reported, Produced(1, 1), Expect(min_items=3))
        json.dumps([verdict.message, reported.items, reported.metrics], allow_nan=False).encode()


def _metadata(data: bytes) -> None:
    text = data.decode(errors="replace")
    answers: dict[str, str | None] = dict.fromkeys(documents.METADATA["answers"], text)
    tags = dict.fromkeys(tag_names(text), text)
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, LookupError):
        document = json.loads(data)
        answers |= {str(key): _text(value) for key, value in document["answers"].items()}
        tags |= {str(key): _text(value) for key, value in document["tags"].items()}
    for answer in (text, answers.get("notice")):
        spot_notice(answer)
        rebalance_notice(answer)
    facts = host_facts(answers, tags)
    record = with_facts(HostRecord(name="host", system="Linux"), facts)
    HostRecord.model_validate_json(record.model_dump_json())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _journal(data: bytes) -> None:
    try:
        journal = Journal.model_validate_json(data)
    except ValidationError:
        return
    done = after_death(journal, frozenset(journal.planned), "20261123T000000Z-aaaaaa", NOW)
    log = Sealed("_run/log.jsonl", 2, "0" * 64)
    manifest = b"".join(render(done.run, [log]))
    reference = ManifestRef(key="x", bytes=len(manifest), sha256=sha256(manifest).hexdigest())
    entry = index_entry(done.run, [log], reference).model_dump_json()
    IndexEntry.model_validate_json(entry)
    Manifest.model_validate_json(manifest)
    Journal.model_validate_json(done.model_dump_json())


# What home reads.

_LOOP = asyncio.new_event_loop()
"""One for all inputs: a new one for each would cost more than the reading."""


def _wait(work: Coroutine[Any, Any, Any]) -> Any:
    return _LOOP.run_until_complete(work)


def _holding(**objects: bytes) -> ReadOnlyBucket:
    """Return a bucket in memory, with `/` in keys written as `__`."""
    store = MemoryStore()
    for key, content in objects.items():
        obstore.put(store, key, content)
    return ReadOnlyBucket(cast("LocalStore", store), "memory")


def _shown(row: Row) -> None:
    """Show a row in every way there is."""
    past = past_of([row], NOW)
    facts = facts_now(past, UTC, NOW)
    for line in status_lines([row], paint=lambda text, _: text, zone=UTC, width=100):
        line.encode()
    for line in job_lines(facts, paint=lambda text, _: text, zone=UTC):
        line.encode()
    for cut_off in (False, True):
        json.dumps(status_json([row], facts, "memory", cut_off=cut_off)).encode()
        for line in group_lines(facts, cut_off=cut_off, paint=lambda text, _: text, zone=UTC):
            assert printable(line) == line


def _entry(data: bytes) -> None:
    key = parse_index_key(documents.INDEX_KEY)
    assert key is not None
    row = _wait(read_entry(_holding(**{key.key: data}), key))
    _shown(row)
    if isinstance(row, Unreadable):
        return
    costs = month_costs([row.entry], month_of(2026, 11, UTC), NOW, Cost())
    "\n".join(cost_lines(costs, Cost(), UTC)).encode()
    json.dumps(cost_json(costs, Cost(), "memory")).encode()
    if not plan.entry_problems(row.entry):
        plan.wanted_jobs(row.entry, Wishes(partial=True))
    _held(key, row.entry)
    with contextlib.suppress(IncredibleError):
        take_entry(key, row.entry)


def _held(key: IndexKey, entry: IndexEntry) -> None:
    """Let a run wait for its group, and remember the group when it is complete."""
    shard, problems = plan.held_as(key, entry, Selection())
    if shard is None or problems:
        return
    parts = {key: (shard, entry.status)}
    selection = plan.with_complete(Selection(), parts.values())
    assert Selection.model_validate_json(selection.model_dump_json()) == selection
    for line in plan.waiting_lines(plan.held(parts, selection), frozenset()):
        assert printable(line) == line


def _marker(data: bytes) -> None:
    run = documents.RUN
    _shown(_wait(read_marker(_holding(**{started_key(run): data}), run, NOW)))


def _manifest(data: bytes) -> None:
    """Read a manifest that an index entry commits, whatever is in it: the forger of both is the same."""
    entry = _entry_for(data)
    manifest, problems = plan.read_manifest(data, entry)
    assert (manifest is None) == bool(problems), "neither a manifest nor a problem"
    json.dumps(problems).encode(errors="replace")
    key = parse_index_key(documents.INDEX_KEY)
    assert key is not None
    with contextlib.suppress(IncredibleError):
        details = take_manifest(take_entry(key, entry), data)
        assert all(path_problem(row.path) is None for row in details.evidence)
    if manifest is None:
        return
    for job in plan.jobs_of(manifest, Wishes(partial=True)):
        assert all(
            {one, other} <= {job.inner(file) for file in job.files}
            for one, other in plan.alike(job)
        )
        assert job.bytes >= 0
        for file in job.files:
            inner = job.inner(file)
            assert path_problem(file.path) is None
            assert path_problem(inner) is None, f"it would lead elsewhere: {inner!r}"
            _usable(inner)
            is_result(inner)


def _entry_for(data: bytes) -> IndexEntry:
    """Return an index entry that tells the same story as a manifest, as far as that tells one."""
    entry = IndexEntry.model_validate(documents.ENTRY)
    changes: dict[str, Any] = {
        "manifest": ManifestRef(
            key=manifest_key(documents.RUN), bytes=len(data), sha256=sha256(data).hexdigest()
        )
    }
    with contextlib.suppress(ValidationError):
        manifest = Manifest.model_validate_json(data)
        files = [resource.bytes for resource in manifest.resources if resource.job]
        told = {job.name: job.status for job in manifest.run.jobs}
        jobs = [{"name": name, "status": status} for name, status in told.items()]
        changes |= {"status": manifest.run.status, "files": len(files), "bytes": sum(files)}
        changes["jobs"] = IndexEntry.model_validate({**documents.ENTRY, "jobs": jobs}).jobs
    return entry.model_copy(update=changes)


def _folder(data: bytes) -> None:
    """Verify a folder at home whose descriptor is this."""
    objects = {MANIFEST: data, **documents.FILES}
    report = _wait(verify_folder(_holding(**objects)))
    assert report.problems or report.files == len(documents.FILES)
    for problem in report.problems:
        printable(f"{problem.path}: {problem.detail}").encode(errors="replace")


def _state(data: bytes) -> None:
    state = read_state(data)
    if state is None:
        return
    for since in (None, NOW - timedelta(days=1)):
        wishes = Wishes(since=since)
        name = plan.selection_name(wishes)
        for known in (None, *state.selections.values()):
            selection = plan.continued(known, since)
            plan.list_after(selection)
            key = parse_index_key(documents.INDEX_KEY)
            assert key is not None
            keys = plan.to_look_at([key], selection)
            selection = plan.settled(selection, keys, NOW)
            selection = plan.deferred(plan.passed_over(selection, since), key, NOW)
            state = state.with_selection(name, selection)
    refusal = Refusal(key=documents.INDEX_KEY, run=documents.RUN, problems=("x",))
    owed = Owed(run=documents.RUN, job="quotes", status="failed", files=1, bytes=1, partial=True)
    state = state.with_refusals([refusal]).owing(owed).paid(documents.RUN, "quotes")
    state = state.with_partial(documents.RUN, "quotes").without("quotes", [documents.RUN])
    assert Item(run=documents.RUN, job="quotes") not in state.partial
    assert read_state(state.model_dump_json().encode()) is not None


def _log(data: bytes) -> None:
    for body in pushes(documents.RUN, data, NOW):
        json.dumps(body).encode()


TARGETS = {
    target.name: target
    for target in (
        Target("configuration", (documents.SETTINGS, {}), toml_text, _settings),
        Target("overrides", (documents.OVERRIDES,), env_text, _overrides),
        Target("jobs files", (documents.JOBS, documents.STACK), toml_text, _jobs),
        Target("env files", (documents.ENV,), env_text, _env),
        Target("result files", (documents.RESULT,), json_text, _result),
        Target("metadata answers", (documents.METADATA,), json_text, _metadata),
        Target("journals", (documents.JOURNAL,), json_text, _journal),
        Target("manifests", (documents.DESCRIPTOR,), json_text, _manifest),
        Target("index entries", (documents.ENTRY,), json_text, _entry),
        Target("started markers", (documents.MARKER,), json_text, _marker),
        Target("state of a pull", (documents.STATE,), json_text, _state),
        Target("datapackages at home", (documents.DESCRIPTOR,), json_text, _folder),
        Target("run logs", documents.LOGS, json_text, _log),
    )
}

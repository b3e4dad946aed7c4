"""What reads text that others wrote, each as the program does it, and what must hold of what it makes of it."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.base.console import printable
from agent.base.redact import Redactor
from agent.batch.claim import Claimant, decide, unheard
from agent.batch.fold import Arrived, State, fold
from agent.bucket.address import S3Bucket, bucket_at, s3_parameters
from agent.config.faults import Fault
from agent.config.jobsfile import Expect, matrix_environment, parse_jobs, program_of
from agent.config.locate import Surroundings, load_settings, locate
from agent.contract.described import carry_over
from agent.contract.entries import Began, Entry, Invalid, Object, Planned
from agent.contract.entries import Ended as EndedJob
from agent.contract.facts import Host
from agent.contract.layout import (
    DESCRIPTOR,
    EVIDENCE,
    FILES,
    LOGS,
    EntryKey,
    JobKey,
    ManifestKey,
    parse_key,
)
from agent.contract.manifest import Manifest, RunRecord, seal_manifest
from agent.contract.manifest import read_manifest as read_again
from agent.contract.names import parse_written, path_problem
from agent.contract.package import Package, seal_package
from agent.contract.package import read_package as read_package_again
from agent.contract.releases import ReleaseEntry, facts_of, read_release_entry
from agent.delivery.sealing import after_death, closed_of, entry_of, status_of
from agent.delivery.spool import Closing, Finished
from agent.jobs.plan import SchedulerState, next_step
from agent.jobs.resultfile import read_result
from agent.jobs.verdict import Ended, Produced, judge
from agent.machine.instance import (
    host_facts,
    rebalance_notice,
    spot_notice,
    with_facts,
)
from agent.release.known import Known
from agent.secrets.envfile import parse_env
from agent.secrets.sources import MAX_ENV_BYTES
from consumer import entries as home
from consumer.judge import Rules
from consumer.judge import judge as judge_history
from consumer.model import batch_of, history_of, load_batch, write_batch
from consumer.spending import month_costs, month_of
from tests.contract.examples import KEY, NONCE, RUN
from tests.faults import documents
from tests.faults.mutations import env_text, json_text, toml_text

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OTHER = "20261122T180005Z-aaaaaa"
"""A run that looks at the batch of the one that is forged."""


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
        verdict = judge(Ended(code=code), reported, Produced(1, 1), Expect(min_items=3))
        json.dumps([verdict.message, reported.items, reported.metrics], allow_nan=False).encode()


def _metadata(data: bytes) -> None:
    text = data.decode(errors="replace")
    answers: dict[str, str | None] = dict.fromkeys(documents.METADATA, text)
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, LookupError):
        document = json.loads(data)
        answers |= {str(key): _text(value) for key, value in document.items()}
    for answer in (text, answers.get("notice")):
        spot_notice(answer)
        rebalance_notice(answer)
    facts = host_facts(answers)
    record = with_facts(Host(name="host", system="Linux"), facts)
    Host.model_validate_json(record.model_dump_json())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _notes(data: bytes) -> None:
    """Finish a dead run from what is noted of it: whatever can be read becomes a manifest, packages and an end."""
    try:
        notes = json.loads(data)
        pieces = {
            name: model.model_validate_json(json.dumps(notes[name]))
            for name, model in _NOTES.items()
        }
    except _DAMAGE:
        return  # such a run is put aside
    record, finished, planned = pieces["record"], pieces["finished"], pieces["planned"]
    job = finished.job.model_copy(update={"run": RUN, "name": "quotes"})
    package = b"".join(seal_package(job, documents.SEALED))
    key = JobKey(RUN, "quotes")
    assert isinstance(read_package_again(key, package), Package)
    ended = entry_of(
        job,
        _object(key.text, package),
        finished.outputs,
        files=1,
        size=1,
        refused=0,
        commit=planned.release.commit if planned.release else None,
    )
    after_death(RUN, "quotes", pieces["began"].started)
    changes = {"run": RUN, "status": status_of([ended], interrupted=True)}
    record = record.model_copy(update=changes)
    manifest = b"".join(seal_manifest(record, [_object(key.text, package)], []))
    assert isinstance(read_again(ManifestKey(RUN), manifest), Manifest)
    closing = Closing(closed=closed_of(record, None, (), None))
    assert Closing.model_validate_json(closing.model_dump_json()) == closing


_NOTES: dict[str, Any] = {
    "began": Began,
    "planned": Planned,
    "record": RunRecord,
    "finished": Finished,
    "entry": EndedJob,
    "closing": Closing,
}
_DAMAGE = (OSError, ValueError, LookupError, RecursionError, TypeError)


def _described(data: bytes) -> None:
    """Carry over what a job says of its data: whatever it says, its package can be read."""
    files = {one.path: one for one in documents.SEALED if one.path.startswith(FILES)}
    said = carry_over(data, files)
    json.dumps(said.notes).encode()
    assert said.resources.keys() <= files.keys()
    text = b"".join(seal_package(documents.JOB, documents.SEALED, said))
    package = read_package_again(JobKey(RUN, "quotes"), text)
    assert isinstance(package, Package), package
    marks = {one.path: (one.bytes, one.hash) for one in package.resources}
    assert marks == {one.path: (one.bytes, f"sha256:{one.sha256}") for one in documents.SEALED}


def _object(key: str, data: bytes) -> Object:
    return Object(key=key, bytes=len(data), sha256=sha256(data).hexdigest())


# What the bucket holds, as the agent and home read it.


def _told(invalid: Invalid) -> None:
    """A reason can be shown to a person, on one line."""
    assert invalid.reason
    assert printable(invalid.reason) == invalid.reason
    invalid.reason.encode()


def _entry(data: bytes) -> None:
    entry = home.read_entry(KEY, NOW, data)
    held = home.read_entry(KEY, NOW, data, "ignore")
    _judged(fold(KEY.batch, [Arrived(KEY, NOW, held)]))
    if isinstance(entry, Invalid):
        _told(entry)
        return
    assert home.read_entry(KEY, NOW, home.written(entry)) == entry
    assert home.read_again(KEY, home.written(entry)) == held
    _claimed(KEY, entry)
    for text, _ in entry._objects():
        assert parse_key(text) is not None


def _shard_entry(data: bytes) -> None:
    key = EntryKey(documents.SHARD, RUN, NONCE, 0)
    entry = home.read_entry(key, NOW, data, "ignore")
    _judged(fold(key.batch, [Arrived(key, NOW, entry)]))


def _claimed(key: EntryKey, entry: Entry) -> None:
    """Let a machine of another run look at it, which has begun itself."""
    own = EntryKey(key.batch, OTHER, key.nonce, 0)
    mine = {"run": OTHER, "jobs": (), "log": (), "closed": None}
    beginning = Entry.model_validate({**documents.ENTRIES[0], **mine})
    both = fold(key.batch, [Arrived(key, NOW, entry), Arrived(own, NOW, beginning)])
    claimant = Claimant(OTHER)
    unheard(both, claimant)
    decide(both, claimant)


def _judged(state: State) -> None:
    """Do with a batch what home does: keep it, judge it, add up its costs."""
    batch = batch_of(state, NOW)
    assert load_batch(write_batch(batch)) == batch
    history = history_of([batch], NOW - timedelta(days=2))
    found = judge_history(history, Rules(NOW))
    assert found.groups
    for job in found.jobs:
        job.name.encode()
    costs = month_costs(history, month_of(NOW, UTC), NOW)
    json.dumps([costs.so_far_usd, costs.forecast_usd], allow_nan=False)


def _package(data: bytes) -> None:
    """Read a package that an entry commits, whatever is in it: the forger of both is the same."""
    key = JobKey(RUN, "quotes")
    package = home.read_package(key, _object(key.text, data), data)
    if isinstance(package, Invalid):
        _told(package)
        return
    assert len({resource.path for resource in package.resources}) == len(package.resources) > 0
    for resource in package.resources:
        assert path_problem(resource.path) is None
        assert resource.path.startswith((FILES, LOGS, EVIDENCE))
        assert parse_key(JobKey(key.run, key.job, resource.path).text) is not None
        _usable(resource.path)
        if resource.original is not None:
            parse_written(resource.original)


def _manifest(data: bytes) -> None:
    key = ManifestKey(RUN)
    manifest = home.read_manifest(key, _object(key.text, data), data)
    if isinstance(manifest, Invalid):
        _told(manifest)
        return
    for resource in manifest.resources:
        assert path_problem(resource.path) is None
        assert resource.path.endswith((f"/{DESCRIPTOR}", ".jsonl"))


def _releases(data: bytes) -> None:
    """Read what somebody learnt of the releases, and follow it."""
    entry = read_release_entry(documents.RELEASES, data)
    if not isinstance(entry, ReleaseEntry):
        return
    known = Known.of(facts_of(entry, NOW))
    assert known.pin is None or known.pin.ref
    known.good(documents.RECORD.agent)


TARGETS = {
    target.name: target
    for target in (
        Target("configuration", (documents.SETTINGS, {}), toml_text, _settings),
        Target("overrides", (documents.OVERRIDES,), env_text, _overrides),
        Target("jobs files", (documents.JOBS, documents.STACK), toml_text, _jobs),
        Target("env files", (documents.ENV,), env_text, _env),
        Target("result files", (documents.RESULT,), json_text, _result),
        Target("metadata answers", (documents.METADATA,), json_text, _metadata),
        Target("notes of a run", (documents.SPOOLED,), json_text, _notes),
        Target("jobs' own descriptors", (documents.OWN,), json_text, _described),
        Target("entries", documents.ENTRIES, json_text, _entry),
        Target("entries of a shard", (documents.SHARD_ENTRY,), json_text, _shard_entry),
        Target("packages", (documents.PACKAGE,), json_text, _package),
        Target("manifests", (documents.MANIFEST,), json_text, _manifest),
        Target("entries of releases", (documents.RELEASE_ENTRY,), json_text, _releases),
    )
}

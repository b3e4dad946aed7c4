"""One good document of each kind that is fuzzed, as rich as such a document gets."""

import hashlib
import json
from datetime import timedelta
from typing import Any

from agent.contract.described import Said
from agent.contract.descriptor import Role, Sealed
from agent.contract.entries import LeftOut, Planned, StoodBack, write_entry
from agent.contract.facts import (
    Browser,
    Host,
    Isolation,
    PreviousBoot,
    RefusedRelease,
    RolledBack,
    Signer,
    Stale,
)  # fmt: skip
from agent.contract.ids import Batch
from agent.contract.layout import JobKey, LogKey, ReleaseKey, StateKey
from agent.contract.manifest import RunRecord, seal_manifest
from agent.contract.package import Attempt, JobRecord, RefusedFile, seal_package
from agent.contract.releases import (
    Bad,
    Contact,
    Fact,
    Good,
    Learnt,
    Passed,
    Pin,
    ReleaseEntry,
    Seen,
    Snapshot,
    Trial,
    TrialStage,
    Version,
)  # fmt: skip
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.delivery.spool import Closing, Finished
from tests.contract import examples
from tests.contract.examples import BATCH, NONCE, RELEASE, RUN, STARTED

SETTINGS: dict[str, Any] = {
    "release": {
        "repository": "https://me:pass%2Fword@example.org/scrapers.git", "track": "v*", "trust": "signed",
        "allowed_signers": "/etc/mayfly/allowed_signers", "jobs": "jobs.toml", "timeout": "2m",
    },
    "store": {
        "url": "s3://scraped/prod", "endpoint": "https://s3.example.org", "region": "ap-northeast-2",
        "credentials": "ssm:/mayfly/store", "concurrency": 24,
    },
    "browser": {"image": "selenium/standalone-chromium:4.48.0", "sessions": 2, "shared_memory": "1GiB", "port": 0},
    "paths": {"state": "/var/lib/mayfly", "cache": "~/cache"},
    "limits": {"run": "2h", "handoff": 600, "jobs": 2, "grace": "10s", "output": "4MiB", "isolation": "auto"},
    "power": {"after": "nothing"},
    "secrets": {"source": "ssm:/mayfly/jobs"},
    "notify": {"healthchecks": "https://hc-ping.com/x", "apprise": ["ntfys://x"]},
    "cost": {"hourly": 0.02, "credits": "unlimited", "currency": "JPY", "exchange": 150.5},
}  # fmt: skip

OVERRIDES = {
    "store.concurrency": "3", "limits.run": "1h", "notify.apprise": "a, b", "cost.keeps_volume": "true",
    "browser.port": "0", "release.repository": "https://x@example.org/y", "power.after": "poweroff",
}  # fmt: skip

JOBS: dict[str, Any] = {
    "requires": "mayfly >= 1.2",
    "browser": {"image": "selenium/standalone-chromium:4.48.0"},
    "retired": ["old"],
    "job": [
        {
            "name": "quotes", "command": ["python", "-m", "scrapers.quotes"], "browser": True, "timeout": "10m",
            "retries": 1, "on": "mon..fri", "memory": "1GiB", "matrix": {"context": ["a", "B c"], "kind": ["1", "2"]},
            "env": {"TZ": "Asia/Tokyo"}, "secrets": ["TOKEN"], "needs": ["login"],
            "expect": {"min_files": 1, "min_bytes": "1KiB", "min_items": 2, "drop": 0.5},
        },
        {"name": "login", "command": ["sh", "login.sh"]},
    ],
}  # fmt: skip

STACK: dict[str, Any] = {
    "job": [
        {"name": "legacy", "compose": "compose.yml", "service": "scripts", "output": "/data"},
        {
            "name": "contained",
            "image": "hoge:1.4",
            "command": ["x"],
            "needs": ["legacy"],
            "secrets": ["A"],
        },
    ]
}

ENV = {
    "TOKEN": "plain", "QUOTED": '"two \\n lines \\$HOME"', "SINGLE": "'as it # stands'", "export A_1": " spaces ",
    "#comment": "", "EMPTY": "", "LONG": "x" * 3000,
}  # fmt: skip

RESULT: dict[str, Any] = {
    "cause": "blocked", "items": 3, "message": "quotes-secret and more", "metrics": {"pages": 1.5, "tries": 2},
    "else": {"deep": [1, {"x": None}]},
}  # fmt: skip

METADATA: dict[str, Any] = {
    "identity": {
        "instanceId": "i-0123456789abcdef0", "instanceType": "t3.medium", "availabilityZone": "ap-northeast-3a",
        "region": "ap-northeast-3", "imageId": "ami-0123456789abcdef0", "pendingTime": "2026-11-22T06:41:00Z",
    },
    "life_cycle": "spot", "launch_index": "0", "public_address": "203.0.113.7",
    "slot": "2026-11-22T06:40:00Z", "shards": "8",
    "notice": '{"action": "terminate", "time": "2026-11-22T06:44:00Z"}',
}  # fmt: skip

# What the bucket holds.

ENDED = STARTED + timedelta(minutes=3)
SHARD = Batch.of_shard("nightly", "g", 0, 2)
FILES = {"page 1.json": b"[]", "\U0001f98b.md": b"# mayfly", "logs": b"x"}
"""A job's results, by the name that it gave them."""
_ATTEMPT = Attempt(
    number=1, started=STARTED, finished=ENDED, status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="no",
    exit_code=1, image="hoge:1.4@sha256:0",
)  # fmt: skip
JOB = JobRecord(
    run=RUN, name="quotes", family="quotes", status=JobStatus.SUCCEEDED, message="1 file could not be delivered",
    started=STARTED, finished=ENDED, seconds=3.5, attempts=(_ATTEMPT, _ATTEMPT.model_copy(update={"number": 2})),
    items=3, metrics={"pages": 1.0}, refused=(RefusedFile(path="x", reason="a link"),),
    state=examples.an_object(StateKey("quotes", RUN).text), release="v1.2", commit="c" * 40, notes=("odd",),
)  # fmt: skip
SEALED = [
    *(
        Sealed(f"files/{path}", len(content), hashlib.sha256(content).hexdigest(), Role.RESULT)
        for path, content in FILES.items()
    ),
    Sealed("files/a~" + "0" * 32 + ".txt", 1, "0" * 64, Role.RESULT, "a%FF.txt"),
    Sealed("logs/attempt-1.log", 2, "1" * 64, Role.LOG),
    Sealed("evidence/attempt-1/page.html", 2, "2" * 64, Role.EVIDENCE),
]
OWN: dict[str, Any] = {
    "title": "Quotes", "keywords": ["a"], "licenses": [{"name": "CC0-1.0", "path": "https://x"}], "mine": 1,
    "contributors": [{"title": "me"}],
    "resources": [
        {
            "name": "page", "path": "page 1.json", "bytes": 3, "hash": "sha256:" + "a" * 64, "encoding": "utf-8",
            "schema": {"fields": [{"name": "a", "type": "string", "format": "default"}]},
            "dialect": {"delimiter": ";", "header": True},
        },
        {"path": "none"},
    ],
}  # fmt: skip
"""What a job says of its own data."""
PACKAGE: dict[str, Any] = json.loads(
    b"".join(seal_package(JOB, SEALED, Said({"title": "Quotes"}, {"files/logs": {"title": "y"}})))
)
_REFUSED = RefusedRelease(ref="v2", commit="d" * 40, kind="trust", reason="unsigned")
_WHOLE_RELEASE = RELEASE.model_copy(
    update={
        "verified_by": Signer(principal="me", key="SHA256:x"),
        "stale": Stale(wanted="v*", reason="git is away", age_seconds=60, since=STARTED),
        "refused": (_REFUSED,),
        "rolled_back_from": RolledBack(ref="v2", commit="d" * 40, reason="no", jobs=("quotes",)),
        "pin": "v1.2",
        "trial": "passed",
    }
)
_HOST = Host(
    name="ip-10-0-0-7", system="Linux", boot_id="b2", booted=STARTED, instance_id="i-0", instance_type="t3.medium",
    zone="z", image="ami-0", life_cycle="spot", previous=PreviousBoot(boot_id="b1", off=STARTED),
)  # fmt: skip
RECORD = RunRecord(
    run=RUN, schedule=BATCH.schedule, batch=BATCH.name, status=RunStatus.PARTIAL, started=STARTED, finished=ENDED,
    agent="0.2.0", host=_HOST, slot=BATCH.slot, scheduled=examples.began().schedule, channel="v*",
    release=_WHOLE_RELEASE, browser=Browser(kind="container", name="chrome 1", restarts=1),
    isolation=Isolation(backend="unit", metadata="absent", containers="closed"), phases=examples.closed().phases,
    cost=examples.closed().cost, interruption="SIGTERM", not_sent=1, warnings=("w",),
)  # fmt: skip
_PACKAGES = [examples.an_object(JobKey(RUN, name).text) for name in ("quotes", "notes")]
MANIFEST: dict[str, Any] = json.loads(
    b"".join(seal_manifest(RECORD, _PACKAGES, [examples.an_object(LogKey(RUN, 0).text)]))
)
_PLANNED = Planned(
    release=_WHOLE_RELEASE,
    count=2,
    jobs=("quotes", "notes"),
    left_out=(LeftOut(name="weekly", reason="not today"),),
)
_ENTRIES = (
    examples.full_entry().model_copy(
        update={"planned": _PLANNED, "began": examples.began(host=_HOST)}
    ),
    examples.entry(began=examples.began(), stood_back=StoodBack(reason="done", run=RUN)),
    examples.entry(jobs=(examples.ended("weekly", JobStatus.SKIPPED, package=None, state=None),)),
)
ENTRIES: tuple[dict[str, Any], ...] = tuple(json.loads(write_entry(one)) for one in _ENTRIES)
_OF_A_SHARD = examples.entry(
    schedule=SHARD.schedule,
    batch=SHARD.name,
    began=examples.began(slot=None, group="g", shard=0, shards=2),
)
SHARD_ENTRY: dict[str, Any] = json.loads(write_entry(_OF_A_SHARD))

RELEASES = ReleaseKey("v*", RUN, NONCE, 0, snapshot=True)
_VERSION: dict[str, Any] = {
    "line": "x|tag|v*", "tag": True, "ref": "v1.2", "commit": "c" * 40, "time": 1,
}  # fmt: skip
_GOOD = Good(**_VERSION, fetched=STARTED, signed="eA==", jobs=("quotes",))
_LEARNT = (
    Learnt(seen=Seen(repository="x", tag="v1.2", commit="c" * 40)),
    Learnt(trial=Trial(commit="d" * 40, ref="v2", stage=TrialStage.STARTED, deadline=ENDED)),
    Learnt(good=_GOOD, passed=Passed(commit="c" * 40, jobs=("quotes",))),
    Learnt(bad=Bad(commit="d" * 40, ref="v2", reason="no", agent="0.2.0", operator=True)),
    Learnt(lowest=Version(**_VERSION), pin=Pin(ref="v1.2", commit="c" * 40, reason="calm")),
    Learnt(contact=Contact(reached=STARTED, stale_since=STARTED)),
)
RELEASE_ENTRY: dict[str, Any] = json.loads(
    write_entry(
        ReleaseEntry(
            channel="v*",
            run=RUN,
            nonce=NONCE,
            written=STARTED,
            by="ip-10-0-0-7",
            learnt=_LEARNT,
            snapshot=Snapshot(
                facts=(Fact(good=_GOOD, at=STARTED, written=STARTED, run=RUN, by="x"),),
                covers=(f"{RUN}-{NONCE}.0",),
                since=STARTED,
            ),
        )
    )
)

# What a disk holds.

SPOOLED: dict[str, Any] = {
    "began": examples.began().model_dump(mode="json"),
    "planned": _PLANNED.model_dump(mode="json"),
    "record": RECORD.model_dump(mode="json"),
    "finished": Finished(job=JOB, outputs=examples.ended().outputs).model_dump(mode="json"),
    "entry": examples.ended().model_dump(mode="json"),
    "closing": Closing(closed=examples.closed(RunStatus.PARTIAL)).model_dump(mode="json"),
}
"""The notes of a run in the spool."""

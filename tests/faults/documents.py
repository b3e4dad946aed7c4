"""One good document of each kind that is fuzzed, as rich as such a document gets."""

import json
from datetime import timedelta
from typing import Any

from agent.core.ids import run_started
from agent.core.journal import Journal
from agent.core.manifest import StartedMarker
from agent.core.results import Attempt, CostRecord, JobCause, JobResult, JobStatus, RefusedFile
from consumer.pull.state import Item, Owed, Refusal, Selection, State
from tests.bucket.bucket import reference
from tests.bucket.layout import LOG, entry_key
from tests.bucket.leaving import entry_of, manifest_of, record

RUN = "20261122T064205Z-3f9a1c"
_BEGAN = run_started(RUN)
INDEX_KEY = entry_key(RUN, _BEGAN + timedelta(minutes=4))

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
    "answers": {
        "instance_id": "i-0123456789abcdef0", "instance_type": "t3.medium", "zone": "ap-northeast-3a",
        "region": "ap-northeast-3", "image": "ami-0123456789abcdef0", "life_cycle": "spot", "launch_index": "0",
        "public_address": "203.0.113.7", "identity": '{"pendingTime": "2026-11-22T06:41:00Z"}',
        "notice": '{"action": "terminate", "time": "2026-11-22T06:44:00Z"}',
    },
    "tags": {"Name": "mayfly", "mayfly-slot": "2026-11-22T06:40:00Z"},
}  # fmt: skip

COST = CostRecord(
    total_usd=0.01,
    billed_seconds=600,
    market="spot",
    rate_usd_hour=0.02,
    rate_source="spot-history",
    rate_as_of=_BEGAN,
    instance_usd=0.01,
)

FILES = {
    "quotes/page 1.json": b"[]",
    "notes/\U0001f98b.md": b"# mayfly",
    "_run/evidence/notes/attempt-1.log": b"x",
    LOG: b'{"event":"run.started"}\n',
}


def _results() -> list[JobResult]:
    times = {"started": _BEGAN, "finished": _BEGAN + timedelta(seconds=9)}
    attempt = Attempt(
        number=1,
        **times,
        status=JobStatus.FAILED,
        cause=JobCause.BLOCKED,
        message="no",
        exit_code=1,
    )
    return [
        JobResult(name="quotes", status=JobStatus.SUCCEEDED, **times, items=3, metrics={"a": 1.0}, state="state/x"),
        JobResult(
            name="notes", status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="no", **times,
            attempts=(attempt,), refused=(RefusedFile(path="x", reason="a link"),), notes=("odd",),
        ),
    ]  # fmt: skip


_RECORD = record(RUN, _results(), stale=True).model_copy(
    update={"cost": COST, "slot": _BEGAN, "group": "g", "shard": 0, "shards": 2, "warnings": ("w",)}
)
DESCRIPTOR: dict[str, Any] = manifest_of(_RECORD, FILES)
ENTRY: dict[str, Any] = entry_of(_RECORD, FILES) | reference(RUN, json.dumps(DESCRIPTOR).encode())
MARKER: dict[str, Any] = json.loads(
    StartedMarker(
        run_id=RUN,
        started=_BEGAN,
        deadline=_BEGAN + timedelta(hours=2),
        host="ip-10-0-0-7",
        release_wanted="v*",
        slot=_BEGAN,
        group="g",
        shard=0,
        shards=2,
    ).model_dump_json()
)
JOURNAL: dict[str, Any] = json.loads(
    Journal(
        run=_RECORD, planned=("quotes", "notes", "later"), index_keys=(INDEX_KEY,)
    ).model_dump_json()
)
STATE: dict[str, Any] = json.loads(
    State(
        selections={
            '{"jobs": [], "partial": false}': Selection(
                since="2026-11-01T00:00:00+00:00",
                cursor="20261122T064605.000Z",
                seen=(INDEX_KEY,),
                complete=("20261122T0642Z/8",),
                waiting=(INDEX_KEY,),
            )
        },
        refused=(Refusal(key=INDEX_KEY, run=RUN, job="quotes", problems=("x",), needed=3),),
        owed=(Owed(run=RUN, job="quotes", status="failed", files=1, bytes=2, partial=True),),
        partial=(Item(run=RUN, job="notes"),),
    ).model_dump_json()
)
LOGS: tuple[Any, ...] = (
    {
        "event": "job.output",
        "timestamp": "2026-11-22T06:42:05.123Z",
        "level": "info",
        "job": "quotes",
        "line": "x",
    },
    {"event": "run.ended", "timestamp": "2026-11-22T06:42:05+00:00", "level": "warning", "job": 3},
)

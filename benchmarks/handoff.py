"""The delivery of one job's files, alone: `handoff.py FOLDER BUCKET PREFIX REPORT`, the endpoint in the environment.

`FOLDER/many` becomes the output of a job that succeeded, of a run that the agent's own code begins, delivers and
closes, and is put back where it was. The report has what the agent, which runs already when it comes to this, takes for
it, as JSON: `wall` and `cpu`, seconds without Python's start and the imports, and what `benchmarks.watched` saw of its
event loop.
"""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.base.logs import RunLogger
from agent.base.redact import Redactor
from agent.batch.log import LogWriter
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.cli import leave
from agent.config.credentials import static_credentials
from agent.config.settings import Store
from agent.contract.entries import Began, Planned
from agent.contract.facts import Host
from agent.contract.ids import Batch, process_nonce, run_id
from agent.contract.manifest import RunRecord
from agent.contract.package import Attempt, JobRecord
from agent.contract.results import JobStatus, RunStatus
from agent.delivery.delivery import Delivery
from agent.delivery.spool import Finished, Spool, SpooledRun
from benchmarks.watched import seen, watch

JOB = "many"
SECONDS = 1200.0


async def main(folder: Path, bucket: str, prefix: str) -> tuple[float, float]:
    """Deliver it, and return the seconds that took."""
    run = Spool(folder / "spool").begin(run_id(_now(), os.urandom(3)))
    run.log.touch()
    space = run.workspace(JOB, 1)
    space.root.mkdir(parents=True)
    (folder / JOB).rename(space.output)
    began, used = time.monotonic(), time.process_time()
    try:
        store = Store(url=f"s3://{bucket}/{prefix}", endpoint=os.environ["MAYFLY_STORE_ENDPOINT"])
        opened: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
        keys = static_credentials(os.environ)
        opened.set_result(Bucket.open(bucket_at(store, folder), keys))
        await deliver(run, opened, store.concurrency)
        return time.monotonic() - began, time.process_time() - used
    finally:
        space.output.rename(folder / JOB)
        run.discard(RunLogger().log)


async def deliver(run: SpooledRun, bucket: "asyncio.Future[Bucket]", concurrency: int) -> None:
    """Begin a run of one job that has ended already, commit the job and close the run."""
    now, host, batch = _now(), Host(name="host"), Batch.of_run("main", run.run)
    writer = LogWriter(bucket.result(), batch, run.run, process_nonce(os.urandom(4)), now=_now)
    attempt = Attempt(number=1, started=now, finished=now, status=JobStatus.SUCCEEDED)
    job = JobRecord(
        run=run.run, name=JOB, status=JobStatus.SUCCEEDED, finished=now, attempts=(attempt,)
    )
    record = RunRecord(
        run=run.run,
        schedule=batch.schedule,
        batch=batch.name,
        status=RunStatus.SUCCEEDED,
        started=now,
        finished=now,
        agent="0",
        host=host,
    )
    began = Began(
        started=now, deadline=now + timedelta(hours=1), host=host, agent="0", channel="v*"
    )
    delivery = Delivery(
        run, bucket, concurrency=concurrency, redactor=lambda: Redactor({}), log=RunLogger().log
    )
    async with delivery:
        await delivery.begin(writer, batch, began)
        await delivery.plan(Planned(count=1, jobs=(JOB,)))
        await delivery.ended(Finished(job=job))
        if await delivery.flush(SECONDS):
            raise SystemExit("it could not be sent")
        await delivery.close(record, [], keeps_disk=True)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    watch()
    wall, cpu = asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps({"wall": wall, "cpu": cpu, **seen()}))
    leave(0)

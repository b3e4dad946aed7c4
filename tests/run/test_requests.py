"""What a whole run asks of the bucket, request by request, as docs/shards.md has it.

`tests/batch/test_requests.py` counts what the batch's log alone asks; here everything is counted that the real program
sends: files, packages, parts of the log, what is known of releases.
"""

from collections import Counter

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.faultproxy import FaultProxy
from tests.run.bench import Bench, job

MOST, LOG_PARTS = 50, 2
"""Requests of a night of less than a minute, whose log has so many parts."""


@pytest.mark.long
@pytest.mark.parametrize(("apart", "expected"), [(0, {1, 2}), (6, {4, 5})])
def test_five_jobs_each_night(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, apart: int, expected: set[int]
) -> None:
    """Jobs that end together share a commit; of those that end six seconds apart each has its own, time permitting."""
    pace = bench.folder / "pace"
    writes = "echo done | tee $MAYFLY_OUTPUT_DIR/page"
    jobs = [job(f"job-{n}", f"sleep $((1 + {n} * $(cat {pace}))); {writes}") for n in range(5)]
    bench.release("v1", "".join(jobs))
    asked: Counter[str] = Counter()
    # The first two nights are there for the third to look back upon.
    for night, seconds in enumerate((0, 0, apart)):
        pace.write_text(str(seconds))
        s3_proxy.seen.clear()
        bench.run("--slot", f"2026-11-2{night}T03:00:00Z", code=0, limits__jobs="5")
        asked = Counter(
            "LIST" if "list-type=2" in seen.path else seen.method for seen in s3_proxy.seen
        )
        print(
            f"night {night + 1}, {seconds} s apart: {asked.total()}, {dict(sorted(asked.items()))}"
        )
    entries = bucket_on_s3.newest.entries
    commits = sum(bool(entry.get("jobs")) for entry in entries if "closed" not in entry)
    parts = sum(len(entry.get("log", ())) for entry in entries)
    assert commits in expected
    # One each minute, and the last: on a busy machine a run takes longer.
    assert asked.total() - parts + LOG_PARTS < MOST
    assert asked["PUT"] == 20 + 2 * commits + parts
    assert asked["LIST"] == 10
    assert asked["GET"] + asked["HEAD"] == 6

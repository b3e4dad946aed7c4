"""A real S3 server that is slow, gone, lying or closed to us: nothing is lost, and nothing wrong is committed."""

import shutil

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.layout import DESCRIPTOR, ENTRIES, POINTERS, STATES
from tests.bucket.sound import Broken, Looker, all_sound, examine, sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, BlackHole, Corrupt, Fault, Lie, LoseAnswer, ResetUpload
from tests.parts.stalled import refused
from tests.run.bench import Bench, Ran, job

PROGRAM = """
import hashlib, os
from pathlib import Path
out = Path(os.environ["MAYFLY_OUTPUT_DIR"])
for n in range(FILES):
    folder = out / f"day {n % 7}" / "日本 ü"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"page {n} (1) #x%41+?&=;'.json").write_bytes(b"{}" * n)
for size in LARGE:
    block = hashlib.sha256(b"%d" % size).digest()
    (out / f"{size} MB").write_bytes(block * (size * 10**6 // 32))
"""
FEW = job("few", "cd $MAYFLY_OUTPUT_DIR && echo x | tee 1 2 3 $MAYFLY_STATE_DIR/file")
PATHS = {"few/1", "few/2", "few/3"}


def _many(bench: Bench, files: int, large: list[int]) -> None:
    """Publish a job that writes so many files, and large ones of so many megabytes."""
    program = f"FILES, LARGE = {files}, {large}\n{PROGRAM}"
    bench.release("v1", job("many", ["python3", "many.py"]), {"many.py": program})


def _kept(bench: Bench, ran: Ran) -> None:
    """Assert that a run's job succeeded, and that the spool keeps what could not be handed over."""
    assert ran.job("few")["status"] == "succeeded"
    assert [path.name for path in bench.spool][-1:] == [ran.run_id]


def test_a_run_arrives_in_s3(bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy) -> None:
    """Hundreds of files, any decent name, large ones in parts."""
    _many(bench, 300, [8, 30])
    ran = bench.run(code=0)
    run = sound(bucket_on_s3, ran.run_id)
    assert (run.job("many")["files"], len(run.results)) == (302, 302)
    assert s3_proxy.count("PUT", "partNumber=") == 2 + 6
    assert bench.spool == []
    assert bench.environ["AWS_SECRET_ACCESS_KEY"] not in ran.stderr


def test_a_bucket_that_goes_away_during_the_upload(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Exit code 6 and everything in the spool; the next run hands it over before its own."""
    _many(bench, 50, [8])
    s3_proxy.inject(Answer(404, "NoSuchBucket"), method="PUT", path="page%2015")
    ran = bench.run(code=6, limits__handoff="10s")
    assert not ran.outcome["delivered"]
    assert "page 15" in ran.outcome["undelivered"]
    assert [path.name for path in bench.spool] == [ran.run_id]
    assert bucket_on_s3.run(ran.run_id).told == {}
    s3_proxy.heal()
    bench.release("v2", FEW)
    again = bench.run(code=0)
    assert all_sound(bucket_on_s3) == [ran.run_id, again.run_id]
    run = bucket_on_s3.run(ran.run_id)
    assert (run.status, run.release["ref"]) == ("succeeded", "v1")
    assert run.job("many")["files"] == 51
    assert bench.spool == []


@pytest.mark.long
def test_an_earlier_run_that_does_not_arrive_leaves_time_for_the_next_one(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """A third of the hand-off is for what waits; the rest is the run's own, which is closed in time."""
    bench.release("v1", FEW)
    s3_proxy.inject(Answer(404, "NoSuchBucket"), method="PUT", path="/few/files/1")
    late = bench.run(code=6, limits__handoff="6s")
    s3_proxy.heal()
    s3_proxy.inject(BlackHole(), method="PUT", path=f"{late.run_id}/jobs/few/files/1")
    ran = bench.run(code=0, limits__run="60s", limits__handoff="12s")
    assert sound(bucket_on_s3, ran.run_id).status == "succeeded"
    assert ran.events("recovery.cut")
    assert [path.name for path in bench.spool] == [late.run_id]


@pytest.mark.long
def test_a_bucket_that_is_not_there_at_all(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """The jobs run all the same; run after run waits in the spool, and all arrive once it is there, in order."""
    bench.release("v1", FEW)
    s3_proxy.refuse()
    left = []
    for _ in range(2):
        ran = bench.run(code=6, limits__run="16s", limits__handoff="3s")
        _kept(bench, ran)
        left.append(ran.run_id)
    assert [path.name for path in bench.spool] == left
    s3_proxy.accept()
    ran = bench.run(code=0)
    assert all_sound(bucket_on_s3) == [*left, ran.run_id]


def test_refused_credentials_are_told_at_once(bench: Bench, bucket_on_s3: Bucket) -> None:
    """403 is not retried until the hand-off's time is over; what a machine without a disk could not send is lost."""
    bench.release("v1", FEW)
    right = bench.environ["AWS_SECRET_ACCESS_KEY"]
    bench.environ["AWS_SECRET_ACCESS_KEY"] = "wrong-secret"
    lost = bench.run(code=6, power__keeps_disk="false")
    assert not lost.outcome["kept"]
    assert "refused" in lost.events("handoff.lost")[0]["reason"]
    assert bucket_on_s3.runs == {}
    shutil.rmtree(bench.state)
    ran = bench.run(code=6)
    _kept(bench, ran)
    assert "refused" in ran.outcome["undelivered"]
    assert "wrong-secret" not in ran.stderr
    bench.environ["AWS_SECRET_ACCESS_KEY"] = right
    again = bench.run()
    assert all_sound(bucket_on_s3) == [ran.run_id, again.run_id]


@pytest.mark.long
def test_credentials_that_cannot_be_read_stop_no_job(bench: Bench, bucket: Bucket) -> None:
    """Without the parameters of SSM the jobs run, and the run waits for a day on which there are some."""
    bench.release("v1", FEW)
    folder = bench.store
    with refused() as address:
        bench.environ |= {
            "AWS_ENDPOINT_URL_SSM": f"http://{address}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secretsecret",
        }
        bench.store = "s3://scraped/prod"
        # The run asks again for as long as it may take.
        ran = bench.run(code=6, store__credentials="ssm:/mayfly/store", limits__run="60")
    _kept(bench, ran)
    assert "SSM" in ran.outcome["undelivered"]
    bench.store = folder
    again = bench.run()
    assert all_sound(bucket) == [ran.run_id, again.run_id]


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        (Lie(), "/few/files/2"),
        (Corrupt(), "/few/files/2"),
        (Lie(), f"/{STATES}"),
        (Corrupt(), f"/{STATES}"),
        (ResetUpload(1), "/few/files/2"),
        (Answer(503, "SlowDown"), "/few/files/"),
        (Answer(500), f"/few/{DESCRIPTOR}"),
        (LoseAnswer(), f"/few/{DESCRIPTOR}"),
        (Answer(500), "/log/0.jsonl"),
        (LoseAnswer(), f"/{ENTRIES}"),
        (ResetUpload(1), f"/{ENTRIES}"),
        (Answer(503, "SlowDown"), f"/{ENTRIES}"),
        (Answer(503, "SlowDown"), f"/{POINTERS}"),
        (LoseAnswer(), ".closed."),
    ],
    ids=lambda value: str(value).partition("(")[0].strip("/"),
)
def test_one_fault_of_a_store_is_got_over(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, fault: Fault, path: str
) -> None:
    """A put that was lost, cut, refused once, or claimed and not done is repeated: one sound run."""
    bench.release("v1", FEW)
    s3_proxy.inject(fault, times=1, method="PUT", path=path)
    ran = bench.run(code=0)
    assert all_sound(bucket_on_s3) == [ran.run_id]
    run = bucket_on_s3.run(ran.run_id)
    assert run.results == PATHS
    assert bench.spool == []
    state = run.told["few"]["state"]["key"]
    assert bucket_on_s3.objects.get(state)[:2] == b"\x1f\x8b"
    if path == f"/{STATES}":
        again = bench.run()
        assert bucket_on_s3.run(again.run_id).job("few")["notes"] == []


COUNTING = "cd $MAYFLY_STATE_DIR && echo x >> runs && cp runs $MAYFLY_OUTPUT_DIR"


def test_a_state_that_the_bucket_does_not_give_is_not_replaced(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """A job that ran without it does its work, and the next one has it; one that was damaged is replaced."""
    bench.release("v1", job("counting", COUNTING))

    def night() -> tuple[bytes, str, bool]:
        """Return what the job counted, what is noted, and whether it left a state."""
        ran = bench.run(code=0)
        run = bucket_on_s3.run(ran.run_id)
        told = run.job("counting")
        return run.file("counting", "runs"), " ".join(told["notes"]), "state" in told

    assert night() == (b"x\n", "", True)
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=f"/{STATES}counting/")
    counted, noted, kept = night()
    assert (counted, kept) == (b"x\n", False)
    assert "it ran without its state, which stays for the next run" in noted
    s3_proxy.heal()
    assert night() == (b"x\nx\n", "", True)
    bucket_on_s3.objects.put(max(bucket_on_s3.states("counting")), b"something else")
    counted, noted, kept = night()
    assert (counted, kept) == (b"x\n", True)
    assert "is not what was committed" in noted
    assert night() == (b"x\nx\n", "", True)


@pytest.mark.long
def test_an_entry_that_the_store_has_changed_is_none(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """That is noticed before the spool lets go; an honest day later all is delivered, and it stays where it is."""
    bench.release("v1", FEW)
    s3_proxy.inject(Corrupt(bytes.swapcase), method="PUT", path=f"/{ENTRIES}")
    ran = bench.run(code=6, limits__handoff="20s")
    _kept(bench, ran)
    assert "does not hold it" in ran.outcome["undelivered"]
    s3_proxy.heal()
    again = bench.run(code=0)
    seen = Looker(bucket_on_s3.objects).look()
    assert examine(seen, ()) == Broken()
    assert list(seen.runs) == [ran.run_id, again.run_id]


def test_a_burst_of_refusals_is_waited_out(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Forty answers of 503 in a row, as a throttled account gives them, cost seconds and nothing else."""
    _many(bench, 50, [])
    s3_proxy.inject(Answer(503, "SlowDown"), times=40)
    ran = bench.run(code=0)
    assert len(sound(bucket_on_s3, ran.run_id).results) == 50


@pytest.mark.parametrize("fault", [BlackHole(), Answer(503, "SlowDown")], ids=str)
def test_the_hand_off_keeps_to_the_run_s_limit(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, fault: Fault
) -> None:
    """A store that never answers, or never with anything else than 'later', does not keep the machine up."""
    bench.release("v1", FEW)
    s3_proxy.inject(fault)
    # Without that it would go on for ten minutes, longer than `run` waits.
    _kept(bench, bench.run(code=6, limits__run="12s"))


REMEMBERS = """
cat $MAYFLY_STATE_DIR/runs 2>/dev/null
echo TAG >> $MAYFLY_STATE_DIR/runs
echo '{"cause": "site_unreachable"}' > $MAYFLY_RESULT_FILE
exit CODE
"""


def _remembering(bench: Bench, tag: str, code: int = 0) -> None:
    script = REMEMBERS.replace("TAG", tag).replace("CODE", str(code))
    bench.release(f"v{tag}", job("few", script))


def _remembered(ran: Ran) -> list[str]:
    return [event["line"] for event in ran.events("job.output")]


def test_a_job_remembers_its_last_committed_success(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Not what a failed attempt wrote, nor a run that never arrived: a lost machine takes its memories with it."""
    _remembering(bench, "1")
    assert _remembered(bench.run()) == []
    _remembering(bench, "2", code=1)
    assert _remembered(bench.run()) == ["1"]
    _remembering(bench, "3")
    s3_proxy.inject(Answer(403, "AccessDenied"), method="PUT", path=f"/{ENTRIES}")
    lost = bench.run()
    assert (lost.code, _remembered(lost)) == (6, ["1"])
    assert any(lost.run_id in key for key in bucket_on_s3.states("few"))
    s3_proxy.heal()
    other = Bench(bench.folder / "other", bench.repo, bench.store, bench.environ, bench.settings)
    other.folder.mkdir()
    _remembering(bench, "4", code=1)
    assert _remembered(other.run()) == ["1"]
    assert _remembered(bench.run()) == ["1", "3"], "delivered by now"


def test_far_fewer_files_than_usual_are_a_failure(bench: Bench, bucket: Bucket) -> None:
    """Less than half of the recent median is `empty`, whichever machine made that history; half is still fine."""
    seen = []
    for number, count in enumerate((10, 12, 8, 4, 5)):
        script = f"for n in $(seq {count}); do echo > $MAYFLY_OUTPUT_DIR/$n; done"
        bench.release(f"v{number}", job("a", script, expect={"drop": 0.5}))
        # A channel of its own: in one, the last good release would be asked whose fault it is.
        settings = {**bench.settings, "release.track": f"v{number}"}
        other = Bench(bench.folder / str(number), bench.repo, bench.store, {}, settings)
        other.folder.mkdir()
        seen.append(other.run().job("a"))
    assert [job["status"] for job in seen] == [*["succeeded"] * 3, "empty", "succeeded"]
    assert seen[3]["cause"] == "expectation"
    assert seen[3]["message"] == "4 files, fewer than 50% of the usual 10"
    assert len(all_sound(bucket)) == 5

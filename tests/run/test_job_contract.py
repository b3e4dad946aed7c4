"""What a job is given, what is kept from it and about it, and which jobs run."""

import json
import re
from datetime import UTC, datetime, timedelta

from tests.bucket.bucket import Bucket
from tests.bucket.layout import RUNS
from tests.bucket.sound import sound
from tests.parts.command import completed
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, job

CONTRACT = {
    *("MAYFLY_OUTPUT_DIR", "MAYFLY_STATE_DIR", "MAYFLY_RESULT_FILE", "MAYFLY_RUN_ID"),
    *("MAYFLY_BATCH", "MAYFLY_JOB", "MAYFLY_ATTEMPT", "MAYFLY_DEADLINE"),
    *("PATH", "HOME", "LANG", "TZ"),
}


def test_a_job_s_environment_is_the_contract_and_nothing_else(bench: Bench) -> None:
    """Neither credentials nor anything of the agent's own environment reaches a job that did not ask for it."""
    own_env = {"GREETING": "good day", "TZ": "Asia/Tokyo"}
    asks = job("own", ["env"], env=own_env, secrets=["TOKEN"], matrix={"shop": ["north"]})
    bench.release("v1", job("plain", ["env"]) + asks)
    bench.secrets("TOKEN=for this job only\nOTHER=for nobody here\n")
    bench.environ |= {
        "TZ": "Europe/Berlin",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secretsecret",
        "MAYFLY_NOTIFY_APPRISE": "[]",
        "LD_PRELOAD": "",
        "PYTHONPATH": "",
    }
    # The same for every attempt at a scheduled time.
    ran = bench.run("--slot", "2026-11-22T03:00:00+09:00", code=0)
    seen: dict[str, dict[str, str]] = {}
    for event in ran.events("job.output"):
        name, _, value = event["line"].partition("=")
        seen.setdefault(event["job"], {})[name] = value
    assert set(seen["plain"]) == CONTRACT
    own = seen["own-north"]
    assert set(own) == CONTRACT | {"GREETING", "TOKEN", "MAYFLY_MATRIX_SHOP"}
    assert (seen["plain"]["TZ"], own["TZ"]) == ("Europe/Berlin", "Asia/Tokyo")
    assert (own["GREETING"], own["MAYFLY_MATRIX_SHOP"]) == ("good day", "north")
    assert own["TOKEN"] == "[redacted:TOKEN]"
    assert (own["MAYFLY_JOB"], own["MAYFLY_ATTEMPT"]) == ("own-north", "1")
    assert (own["MAYFLY_RUN_ID"], own["MAYFLY_BATCH"]) == (ran.run_id, "20261121T180000Z")
    folders = [own[name] for name in ("MAYFLY_OUTPUT_DIR", "MAYFLY_STATE_DIR", "HOME")]
    assert len(set(folders)) == 3


def test_a_job_without_its_secret_is_not_started(bench: Bench) -> None:
    """It fails with the name of what is missing; the others run."""
    bench.release("v1", job("a", "true", secrets=["TOKEN", "PIN"]) + job("b", "true"))
    missing = "its secrets could not be read: "
    for text, says in (
        (None, f"{missing}.*secrets.env cannot be read: No such file"),
        ("PIN=12345\n", "secret TOKEN is not in the secrets source"),
        (
            "PIN=12345\nTOKEN abcdefgh\n",
            rf"{missing}.*line 2: is not NAME=value \(write NAME=value",
        ),
    ):
        path = bench.secrets(text or "")
        if text is None:
            path.unlink()
        ran = bench.run(code=3)
        assert re.match(says, ran.job("a")["message"])
        assert "abcdefgh" not in json.dumps(ran.outcome)
        assert (ran.job("a")["status"], ran.job("b")["status"]) == ("failed", "succeeded")
        assert text is not None or "secrets.env" in "\n".join(ran.outcome["warnings"])


NOW = "date +%s%N > $MAYFLY_OUTPUT_DIR/at"


def test_order_days_and_matrix(bench: Bench, bucket: Bucket) -> None:
    """Needs come first and their failure skips; another day's job is skipped without blame; a matrix is many jobs."""
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    each = "echo $MAYFLY_MATRIX_SHOP > $MAYFLY_OUTPUT_DIR/shop"
    jobs = [
        job("after", NOW, needs=["first"]),
        job("first", f"sleep 0.3; {NOW}"),
        job("fails", "false"),
        job("hopeless", "true", needs=["fails", "first"]),
        job("more-hopeless", "true", needs=["hopeless"]),
        job("another-day", "true", on=day),
        job("each", each, needs=["first"], matrix={"shop": ["a", "b c"]}),
        job("all", "true", needs=["each"]),
    ]
    bench.release("v1", "".join(jobs))
    run = sound(bucket, bench.run(code=3, limits__jobs="2").run_id)
    seen = {job["name"]: (job["status"], job["cause"]) for job in run.jobs}
    odd = next(name for name in seen if name.startswith("each-b"))
    assert seen == {
        **dict.fromkeys(("after", "first", "each-a", odd, "all"), ("succeeded", None)),
        "fails": ("failed", "error"),
        "hopeless": ("skipped", "error"),
        "more-hopeless": ("skipped", "error"),
        "another-day": ("skipped", None),
    }
    assert day in run.job("another-day")["message"]
    assert '"fails"' in run.job("hopeless")["message"]
    files = run.files
    assert int(files["first/at"]) < int(files["after/at"])
    assert {files["each-a/shop"], files[f"{odd}/shop"]} == {b"a\n", b"b c\n"}


def test_a_run_of_which_nothing_is_due_succeeds(bench: Bench, bucket: Bucket) -> None:
    """It is committed, so that the day is not missed."""
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    bench.release("v1", job("a", "true", on=day))
    bench.run(code=0)
    assert bucket.newest.status == "succeeded"


PAIR = job("first", "echo 1 > $MAYFLY_OUTPUT_DIR/x") + job(
    "second", "echo 2 > $MAYFLY_OUTPUT_DIR/x", needs=["first"]
)


def test_a_job_that_was_asked_for_by_name_runs_alone(bench: Bench, bucket: Bucket) -> None:
    """`--job` runs that job and none that it needs; an unknown one is a usage error and looks like no failed run."""
    bench.release("v1", PAIR)
    unknown = bench.run("--job", "secnod", "--job", "first", code=2)
    assert unknown.outcome == {}
    assert 'v1 has no job "secnod"' in unknown.stderr
    assert 'did you mean "second"?' in unknown.stderr
    assert bench.spool == []
    (run,) = bucket.runs.values()
    assert run.stood_back is not None
    assert 'no job "secnod"' in run.stood_back["reason"]
    assert bucket.objects.keys(RUNS) == []
    ran = bench.run("--job", "second", code=0)
    assert sound(bucket, ran.run_id).results == {"second/x"}


def test_a_second_run_beside_a_first_is_refused(bench: Bench) -> None:
    """One state directory has one run at a time; the second says which process has it."""
    bench.release("v1", job("a", ["sleep", "30"]))
    with bench.running() as first:
        lock = bench.state / "lock"
        wait_until(lambda: lock.exists() and lock.read_text(), what="the first run")
        second = completed(bench.command(), environ=bench.environment())
        assert (second.returncode, second.stdout) == (2, "")
        assert f"process {first.pid}" in second.stderr

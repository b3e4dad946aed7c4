"""What a job is given, what is kept from it and about it, and which jobs run."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from tests.bucket.bucket import Bucket
from tests.bucket.layout import RUNS
from tests.bucket.sound import sound
from tests.parts.command import completed
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

CONTRACT = {
    "MAYFLY_OUTPUT_DIR",
    "MAYFLY_STATE_DIR",
    "MAYFLY_RESULT_FILE",
    "MAYFLY_RUN_ID",
    "MAYFLY_BATCH",
    "MAYFLY_JOB",
    "MAYFLY_ATTEMPT",
    "MAYFLY_DEADLINE",
    "PATH",
    "HOME",
    "LANG",
    "TZ",
}


def test_a_job_s_environment_is_the_contract_and_nothing_else(bench: Bench) -> None:
    """Neither credentials nor anything of the agent's own environment reaches a job that did not ask for it."""
    jobs = """
        [[job]]
        name = "plain"
        command = ["env"]

        [[job]]
        name = "own"
        command = ["env"]
        env = { GREETING = "good day", TZ = "Asia/Tokyo" }
        secrets = ["TOKEN"]
        matrix = { shop = ["north"] }
    """
    bench.release("v1", jobs)
    secrets = bench.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN=for this job only\nOTHER=for nobody here\n")
    bench.environ |= {
        "TZ": "Europe/Berlin",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secretsecret",
        "MAYFLY_NOTIFY_APPRISE": "[]",
        "LD_PRELOAD": "",
        "PYTHONPATH": "",
    }
    ran = bench.run(secrets__source=str(secrets))
    assert ran.code == 0, ran.stderr
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
    assert own["MAYFLY_RUN_ID"] == ran.run_id
    folders = [own[name] for name in ("MAYFLY_OUTPUT_DIR", "MAYFLY_STATE_DIR", "HOME")]
    assert len(set(folders)) == 3


SECRET = "s3cr3t/with+odd chars=&ü"
TELLS = """
import base64, json, os, sys, time
from pathlib import Path
from urllib.parse import quote, quote_plus
secret = os.environ["TOKEN"]
forms = [secret, base64.b64encode(secret.encode()).decode(), quote(secret), quote_plus(secret)]
forms += [base64.b64encode(("user:" + secret).encode()).decode(), json.dumps(secret)]
for form in forms:
    print("the token is", form, flush=True)
sys.stdout.write("x" * 40_000 + secret + "y" * 40_000 + "\\n")
sys.stdout.write("z" * 65_530)
sys.stdout.flush()
time.sleep(0.2)
print(secret, flush=True)
evidence = Path(os.environ["MAYFLY_OUTPUT_DIR"], ".evidence")
evidence.mkdir()
(evidence / "page.html").write_text(f"<a href='/?token={quote(secret)}'>{secret}</a>")
(evidence / "screenshot.png").write_bytes(b"\\x89PNG\\xff\\xfe")
message = " ".join(["failed with", *forms])
Path(os.environ["MAYFLY_RESULT_FILE"]).write_text(json.dumps({"message": message, "cause": "blocked"}))
sys.exit(1)
"""


def test_secrets_appear_nowhere(bench: Bench, bucket: Bucket) -> None:
    """In plain, in base64 and in URLs: not in the log, the evidence, the package, the entries, nor on the terminal."""
    job = '[[job]]\nname = "a"\ncommand = ["python3", "a.py"]\nsecrets = ["TOKEN"]\n'
    bench.release("v1", job, {"a.py": TELLS})
    secrets = bench.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text(f"TOKEN='{SECRET}'\n")
    ran = bench.run(secrets__source=str(secrets))
    assert ran.code == 8, ran.stderr
    manifest = sound(bucket, ran.run_id)
    message = manifest.job("a")["message"]
    assert message.startswith("failed with [redacted:TOKEN] ")
    evidence = manifest.evidence("a")
    assert evidence.keys() == {"page.html", "screenshot.png"}
    assert evidence["screenshot.png"] == b"\x89PNG\xff\xfe"
    assert b"[redacted:TOKEN]</a>" in evidence["page.html"]
    assert manifest.printed("a").count(b"[redacted:TOKEN]") == 8
    told = [ran.stderr.encode(), json.dumps(ran.outcome).encode()]
    told += [path.read_bytes() for path in bucket.root.rglob("*") if path.is_file()]
    data = SECRET.encode()
    forms = [data, base64.b64encode(data), base64.b64encode(b"user:" + data)[8:-4]]
    forms += [quote(SECRET).encode(), b"s3cr3t"]
    assert [form for form in forms for text in told if form in text] == []


def test_a_job_without_its_secret_is_not_started(bench: Bench) -> None:
    """It fails with the name of what is missing; the others run."""
    jobs = """
        [[job]]
        name = "a"
        command = ["true"]
        secrets = ["TOKEN", "PIN"]

        [[job]]
        name = "b"
        command = ["true"]
    """
    bench.release("v1", jobs)
    unreadable = bench.run(secrets__source=str(bench.folder / "nowhere.env"))
    assert unreadable.code == 3, unreadable.stderr
    secrets = bench.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("PIN=12345\n")
    missing = bench.run(secrets__source=str(secrets))
    secrets.write_text("PIN=12345\nTOKEN abcdefgh\n")
    spoilt = bench.run(secrets__source=str(secrets))
    for ran, says in (
        (unreadable, "its secrets could not be read: .*nowhere.env cannot be read: No such file"),
        (missing, "secret TOKEN is not in the secrets source"),
        (spoilt, r"its secrets could not be read: .*line 2: is not NAME=value \(write NAME=value"),
    ):
        assert re.match(says, ran.job("a")["message"])
        assert "abcdefgh" not in json.dumps(ran.outcome)
        assert (ran.job("a")["status"], ran.job("b")["status"]) == ("failed", "succeeded")
    assert "nowhere.env" in "\n".join(unreadable.outcome["warnings"])


ORDER = """
    [[job]]
    name = "after"
    needs = ["first"]
    command = ["sh", "-c", "date +%s%N > $MAYFLY_OUTPUT_DIR/at"]

    [[job]]
    name = "first"
    command = ["sh", "-c", "sleep 0.3; date +%s%N > $MAYFLY_OUTPUT_DIR/at"]

    [[job]]
    name = "fails"
    command = ["false"]

    [[job]]
    name = "hopeless"
    needs = ["fails", "first"]
    command = ["true"]

    [[job]]
    name = "more-hopeless"
    needs = ["hopeless"]
    command = ["true"]

    [[job]]
    name = "another-day"
    on = "DAY"
    command = ["true"]

    [[job]]
    name = "each"
    matrix = { shop = ["a", "b c"] }
    command = ["sh", "-c", "echo $MAYFLY_MATRIX_SHOP > $MAYFLY_OUTPUT_DIR/shop"]
    needs = ["first"]

    [[job]]
    name = "all"
    needs = ["each"]
    command = ["true"]
"""


def test_order_days_and_matrix(bench: Bench, bucket: Bucket) -> None:
    """Needs come first and their failure skips; another day's job is skipped without blame; a matrix is many jobs."""
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    bench.release("v1", ORDER.replace("DAY", day))
    ran = bench.run(limits__jobs="2")
    assert ran.code == 3, ran.stderr
    manifest = sound(bucket, ran.run_id)
    seen = {job["name"]: (job["status"], job["cause"]) for job in manifest.jobs}
    odd = next(name for name in seen if name.startswith("each-b"))
    assert seen == {
        "after": ("succeeded", None),
        "first": ("succeeded", None),
        "fails": ("failed", "error"),
        "hopeless": ("skipped", "error"),
        "more-hopeless": ("skipped", "error"),
        "another-day": ("skipped", None),
        "each-a": ("succeeded", None),
        odd: ("succeeded", None),
        "all": ("succeeded", None),
    }
    assert day in manifest.job("another-day")["message"]
    assert '"fails"' in manifest.job("hopeless")["message"]
    files = manifest.files
    assert int(files["first/at"]) < int(files["after/at"])
    assert {files["each-a/shop"], files[f"{odd}/shop"]} == {b"a\n", b"b c\n"}


def test_a_run_of_which_nothing_is_due_succeeds(bench: Bench, bucket: Bucket) -> None:
    """It is committed, so that the day is not missed."""
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    bench.release("v1", f'[[job]]\nname = "a"\ncommand = ["true"]\non = "{day}"\n')
    ran = bench.run()
    assert (ran.code, bucket.newest.status) == (0, "succeeded")


PAIR = """
    [[job]]
    name = "first"
    command = ["sh", "-c", "echo 1 > $MAYFLY_OUTPUT_DIR/x"]

    [[job]]
    name = "second"
    needs = ["first"]
    command = ["sh", "-c", "echo 2 > $MAYFLY_OUTPUT_DIR/x"]
"""


def test_a_job_that_was_asked_for_by_name_runs_alone(bench: Bench, bucket: Bucket) -> None:
    """`--job` runs that job and no other, not even one that it needs."""
    bench.release("v1", PAIR)
    ran = bench.run("--job", "second")
    assert ran.code == 0, ran.stderr
    assert sound(bucket, ran.run_id).results == {"second/x"}


def test_an_unknown_job_is_a_usage_error(bench: Bench, bucket: Bucket) -> None:
    """The command says what it meant to find and exits with 2; nothing of it looks like a run that failed or died."""
    bench.release("v1", PAIR)
    ran = bench.run("--job", "secnod", "--job", "first")
    assert (ran.code, ran.outcome) == (2, {})
    assert 'v1 has no job "secnod"' in ran.stderr
    assert 'did you mean "second"?' in ran.stderr
    assert bench.spool == []
    (run,) = bucket.runs.values()
    assert run.stood_back is not None
    assert 'no job "secnod"' in run.stood_back["reason"]
    assert bucket.objects.keys(RUNS) == []


def test_a_second_run_beside_a_first_is_refused(bench: Bench) -> None:
    """One state directory has one run at a time; the second says which process has it."""
    bench.release("v1", '[[job]]\nname = "a"\ncommand = ["sleep", "30"]\n')
    with bench.running() as first:
        lock = bench.state / "lock"
        wait_until(lambda: lock.exists() and lock.read_text(), what="the first run")
        second = completed(bench.command(), environ=bench.environment())
        assert (second.returncode, second.stdout) == (2, "")
        assert f"process {first.pid}" in second.stderr

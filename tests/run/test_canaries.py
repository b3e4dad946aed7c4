"""Secrets go to the jobs that name them and nowhere else, in whatever spelling a job lets them out."""

import base64
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import all_sound
from tests.consumer.serving import serving
from tests.parts.aws import KEYS, REGION
from tests.parts.command import mayfly, surroundings
from tests.parts.gitserver import GitServer
from tests.parts.metadata import Metadata
from tests.parts.private_index import USER as READER
from tests.parts.private_index import PrivateIndex, lock
from tests.parts.recorder import Recorder
from tests.parts.seaweed import S3Server
from tests.parts.sshd import SshServer, make_key
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE, Bench, job

CANARY = 'cAnary-7f3 "q/u+o&t=e%d" \u5bc6\\x\'y'
"""With everything that some spelling changes: both quotes, a backslash, reserved characters, another script."""

SPELLINGS = """
import base64, json, os, pathlib, sys, time
from urllib.parse import quote, quote_plus
token = os.environ["TOKEN"]
data = token.encode()
said = [
    token, repr(token), ascii(token), repr(data), json.dumps(token), json.dumps(token, ensure_ascii=False),
    json.dumps({"nested": json.dumps({"token": token})}), quote(token, safe=""), quote(token), quote_plus(token),
    f"https://user:{quote(token, safe='')}@example.org/?t={quote_plus(token)}",
    *(base64.b64encode(b"user:"[:n] + data).decode() for n in range(5)),
    *(base64.urlsafe_b64encode(b"user:"[:n] + data).decode() for n in range(5)),
]
"""
CARELESS = f"""{SPELLINGS}
for text in said:
    print(text)
    print(text, file=sys.stderr)
    print(f"before{{text}}after " * 3)
# Longer than what is read at once, and cut in the middle of it.
sys.stdout.write("x" * 40_000 + token + "y" * 40_000 + "\\n" + "z" * 65_530)
sys.stdout.flush()
time.sleep(0.2)
print(token, flush=True)
out = pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"])
(out / ".evidence").mkdir()
(out / ".evidence" / "page.html").write_text("<p>" + "</p><p>".join(said))
(out / ".evidence" / "screenshot.png").write_bytes(b"\\x89PNG\\xff\\xfe")
(out / "result.txt").write_text("a result\\n")
pathlib.Path(os.environ["MAYFLY_RESULT_FILE"]).write_text(json.dumps({{"message": " ".join(said)}}))
def inner(secret):
    raise KeyError(secret)
try:
    inner(token)
except KeyError as error:
    raise RuntimeError(f"could not log in with {{token!r}}") from error
"""
LASTING = f"""{SPELLINGS}
print("\\n".join(said), flush=True)
time.sleep(float(os.environ.get("LASTS", "1.5")))
print("end")
"""


def spellings(secret: str) -> dict[str, bytes]:
    """Return how a secret is spelled, by the name of the spelling; of base64 the part that is always the same."""
    data = secret.encode()
    found = {
        "plain": secret,
        "json": json.dumps(secret)[1:-1],
        "json-utf8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "url": quote(secret, safe=""),
        "url-path": quote(secret),
        "url-form": quote_plus(secret),
        "repr": repr(secret)[1:-1],
        "ascii": ascii(secret)[1:-1],
        "bytes": repr(data)[2:-1],
    }
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + data).decode()
        middle = whole[4 if shift else 0 : (shift + len(data)) // 3 * 4]
        found[f"base64-{shift}"] = middle
        found[f"base64url-{shift}"] = middle.replace("+", "-").replace("/", "_")
    return {name: text.encode() for name, text in found.items()}


def hits(content: bytes, secrets: list[str]) -> list[str]:
    """Return the spellings of secrets that are in a content, also inside a JSON text of it."""
    inside = content.replace(b"\\\\", b"\\").replace(b'\\"', b'"')
    return [
        f"{name} of {secret[:4]}..."
        for secret in secrets
        for name, text in spellings(secret).items()
        if text in content or text in inside
    ]


Places = dict[str, bytes]
"""Contents in which a secret might be, by where they are."""


def in_bucket(bucket: Bucket) -> Places:
    """Return every object of a bucket."""
    return {key: bucket.objects.get(key) for key in bucket.objects.stamps()}


def below(*folders: Path) -> Places:
    """Return every file in folders."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in files}


def served(folder: Path, environ: Mapping[str, str], *paths: str) -> Places:
    """Return what `mayfly serve` answers, and what it leaves in its folder."""
    folder.mkdir(exist_ok=True)
    with serving(folder, environ) as service:
        service.looked()
        answers = {f"serve {path}": service.get(path).body for path in paths}
    return answers | below(folder)


def assert_nowhere(secrets: Iterable[str], places: Places) -> None:
    """No secret is in any of the places, in any spelling."""
    known = list(secrets)
    found = {name: hits(content, known) for name, content in places.items()}
    assert {name: what for name, what in found.items() if what} == {}


@contextmanager
def process_list() -> Iterator[Places]:
    """Collect every command line of the machine while the block runs."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    found: Places = {}
    try:
        yield found
    finally:
        over.set()
        thread.join()
        found |= {f"command {command[:40]!r}": command for command in sorted(seen)}


@pytest.fixture
def canaries(
    bench: Bench,
    s3_server: S3Server,
    s3_bucket: str,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> list[str]:
    """The secrets of a bench whose store keys and job secrets are in the parameter store."""
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    parameters("/canaries/store", **keys)
    parameters("/canaries/jobs", TOKEN=CANARY)
    bench.environ |= aws | {"MAYFLY_STORE_ENDPOINT": s3_server.url, "MAYFLY_BROWSER_URL": NOWHERE}
    bench.settings |= {
        "store.credentials": "ssm:/canaries/store",
        "secrets.source": "ssm:/canaries/jobs",
    }
    bench.store = Bucket.on_s3(s3_server, s3_bucket).environ["MAYFLY_STORE_URL"]
    files = {"careless.py": CARELESS, "lasting.py": LASTING}
    jobs = [job(name[:-3], [sys.executable, name], secrets=["TOKEN"]) for name in files]
    bench.release("v1.0", "".join(jobs), files)
    return [CANARY, s3_server.secret_key]


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_canary_leaves_a_run(
    bench: Bench, s3_server: S3Server, s3_bucket: str, canaries: list[str], style: str
) -> None:
    """Neither bucket nor log, outcome, process list, metrics, page, status nor doctor has one, in any spelling."""
    with process_list() as commands:
        ran = bench.run("--log", style)
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    assert ran.outcome["status"] in {"partial", "failed"}, ran.stderr[-3000:]
    (run,) = all_sound(bucket)
    # It was there, and was told: otherwise nothing is shown by its absence.
    assert "[redacted:TOKEN]" in ran.stderr
    evidence = bucket.run(run).evidence("careless")
    assert evidence["page.html"].count(b"[redacted:TOKEN]") >= 20
    assert evidence["screenshot.png"] == b"\x89PNG\xff\xfe"
    printed = bucket.run(run).printed("careless")
    assert b"x[redacted:TOKEN]y" in printed
    assert b"z[redacted:TOKEN]\n" in printed
    around = surroundings({"HOME": str(bench.folder), **bucket.environ})
    machine = bench.environment() | {
        "MAYFLY_RELEASE_REPOSITORY": str(bench.repo.bare),
        "MAYFLY_STORE_URL": bench.store,
        "MAYFLY_STORE_CREDENTIALS": "ssm:/canaries/store",
        "MAYFLY_SECRETS_SOURCE": "ssm:/canaries/jobs",
        "MAYFLY_BROWSER_TIMEOUT": "2s",
    }
    places = {
        **in_bucket(bucket),
        **commands,
        **served(bench.folder / "home", around, "/", "/metrics", "/healthz"),
        "stderr": ran.stderr.encode(),
        "outcome": json.dumps(ran.outcome).encode(),
        "status": said(["status"], around),
        "doctor": said(["doctor"], machine),
    }
    assert b"careless" in places["serve /metrics"]
    assert_nowhere(canaries, places)


def said(words: list[str], environ: dict[str, str]) -> bytes:
    """Return everything that a command says."""
    done = mayfly(*words, environ=environ)
    return (done.stdout + done.stderr).encode()


def test_no_canary_stays_in_the_spool(bench: Bench, canaries: list[str]) -> None:
    """What a killed run leaves on the disk, other than what its jobs wrote themselves, has none."""
    bench.environ["LASTS"] = "60"
    with bench.running() as process:
        log = bench.folder / "stderr.log"
        wait_until(lambda: log.read_text().count("[redacted:TOKEN]") > 20, what="the job's output")
        process.send_signal(signal.SIGKILL)
    (spooled,) = bench.spool
    own = {"output", "state", "home", "tmp", "said"}
    ours = {
        path: content
        for path, content in below(bench.state).items()
        if own.isdisjoint(Path(path).relative_to(bench.state).parts)
    }
    assert str(spooled / "run.sqlite") in ours
    assert_nowhere(canaries, ours)


ADDRESSED = {
    "user": "ghp_cAnary0123456789abc",
    "browser": "cAnary-browser-password",
    "query": "cAnary-query-token",
    "ping": "2f1c7b54-9a1e-4d0e-8d53-0c6a1f5b7e21",
    "chat": "cAnary-chat-password",
    "proxy": "cAnary-proxy-password",
    "index": "cAnary-index-password",
}
"""Secrets that are part of an address, by where it is."""

TALKS = """
import json, os, pathlib
known = os.environ["KNOWN"]
print(known)
out = pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"])
(out / ".evidence").mkdir()
(out / ".evidence" / "page.html").write_text(known)
pathlib.Path(os.environ["MAYFLY_RESULT_FILE"]).write_text(json.dumps({"message": known}))
raise RuntimeError(known)
"""


def test_no_part_of_an_address_leaves_a_run(bench: Bench, bucket: Bucket) -> None:
    """Tokens and passwords in the addresses of repository, browser, watchdog, chat, proxy and package index."""
    known = " ".join(ADDRESSED.values())
    jobs = job("talks", [sys.executable, "talks.py"], env={"KNOWN": known})
    jobs += job("browses", ["true"], browser=True)
    bench.release("v1.0", jobs, {"talks.py": TALKS})
    del bench.settings["browser.url"]
    with (
        Recorder() as watchdog,
        GitServer(bench.repo.bare.parent, user=ADDRESSED["user"], password="x-oauth-basic") as git,
    ):
        login = f"//{ADDRESSED['user']}:x-oauth-basic@"
        bench.settings["release.repository"] = git.url(bench.repo.bare.stem).replace("//", login)
        config = bench.folder / "agent.toml"
        config.write_text(
            '[browser]\ntimeout = "2s"\n'
            f'url = "http://me:{ADDRESSED["browser"]}@127.0.0.1:9/wd/hub?token={ADDRESSED["query"]}"\n'
            f'[notify]\nhealthchecks = "{watchdog.url}/{ADDRESSED["ping"]}"\n'
            f'apprise = ["json://me:{ADDRESSED["chat"]}@127.0.0.1:9/"]\n'
        )
        bench.environ |= {
            "MAYFLY_CONFIG": str(config),
            "HTTPS_PROXY": f"http://me:{ADDRESSED['proxy']}@127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
            "UV_INDEX": f"shop=https://me:{ADDRESSED['index']}@example.org/simple",
        }
        with process_list() as commands:
            ran = bench.run()
        pings = list(watchdog.requests)
        doctor = said(["doctor"], bench.environment() | {"MAYFLY_RELEASE_REPOSITORY": "/nowhere"})
    assert [ran.job(name)["status"] for name in ("talks", "browses")] == ["failed", "failed"], (
        ran.stderr
    )
    # It was there, and was told: otherwise nothing is shown by its absence.
    (run,) = all_sound(bucket)
    page = bucket.run(run).evidence("talks")["page.html"]
    assert page.count(b"[redacted:") == len(ADDRESSED)
    assert "opened no browser session" in ran.job("browses")["message"]
    assert len(pings) >= 2
    others = {  # not the test's own
        name: command for name, command in commands.items() if b"release.repository=" not in command
    }
    places = {
        **in_bucket(bucket),
        **others,
        **{f"ping {number}": ping.body for number, ping in enumerate(pings)},
        "stderr": ran.stderr.encode(),
        "outcome": json.dumps(ran.outcome).encode(),
        "doctor": doctor,
    }
    assert_nowhere(ADDRESSED.values(), places)


GIT_TOKEN = "cAnary-git-token-b81"
INDEX_PASSWORD = "cAnary-index-password-d4"

USER = "x-access-token"

PROWLS = """
import json, os, pathlib, sys
sought = [text[::-1].encode() for text in os.environ["SOUGHT"].split()]
places = ["HOME", "TMPDIR", "STATE"]
roots = [pathlib.Path(os.environ[name]) for name in places if os.environ.get(name)]
files = [file for root in roots for file in root.rglob("*")]
files += [file for name in ("environ", "cmdline") for file in pathlib.Path("/proc").glob(f"[0-9]*/{name}")]
looked, found = 0, []
for file in files:
    try:
        content = file.read_bytes()
    except OSError:
        continue
    looked += 1
    found += [str(file) for text in sought if text in content]
print("looked into", looked, "files")
pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"], "found.json").write_text(json.dumps([looked, found]))
"""
"""A job that looks for secrets wherever it can read; it knows them backwards, so that it does not give them away."""


def test_what_opens_a_private_repository_or_index_is_for_no_job_and_no_reader(
    bench: Bench, bucket: Bucket, aws: dict[str, str], parameters: Callable[..., None]
) -> None:
    """A token and a password out of SSM: in no file or process that a job can read, and in nothing that leaves."""
    parameters("/canaries/git", token=GIT_TOKEN)
    parameters("/canaries/index", username=READER, password=INDEX_PASSWORD)
    private = [GIT_TOKEN, INDEX_PASSWORD]
    sought = " ".join(secret[::-1] for secret in private)
    jobs = job("prowls", ["python", "prowls.py"], env={"SOUGHT": sought, "STATE": str(bench.state)})
    (project := bench.folder / "project").mkdir()
    config = bench.folder / "agent.toml"
    config.write_text('[index."team-index"]\ncredentials = "ssm:/canaries/index"\n')
    bench.environ |= aws | {"MAYFLY_CONFIG": str(config)}
    root = bench.repo.bare.parent
    with PrivateIndex("1.0") as index, GitServer(root, user=USER, password=GIT_TOKEN) as git:
        index.admit(INDEX_PASSWORD)
        locked = lock("1.0", index, project, INDEX_PASSWORD)
        bench.release("v1.0", jobs, {"prowls.py": PROWLS, **locked})
        bench.settings |= {
            "release.repository": git.url(bench.repo.bare.stem),
            "release.credentials": "ssm:/canaries/git",
        }
        machine = bench.environment() | {
            "MAYFLY_RELEASE_REPOSITORY": git.url(bench.repo.bare.stem),
            "MAYFLY_RELEASE_CREDENTIALS": "ssm:/canaries/git",
        }
        with process_list() as commands:
            ran = bench.run()
            doctor = said(["doctor"], machine)
            git.admit(USER, "another")
            git.refusal = f"what is {GIT_TOKEN}?"
            refused = bench.run()
            alarmed = said(["doctor"], machine)
    assert (ran.outcome["status"], refused.outcome["status"]) == ("succeeded", "succeeded")
    assert any(path.endswith(".whl") for path in index.requests)
    assert b"v1.0" in doctor
    assert b"logins of team-index" in doctor
    assert b"mayfly secrets set --git token" in alarmed
    assert "[redacted:git token]" in refused.stderr
    assert_prowled_in_vain(bucket, 50)
    places = {
        **in_bucket(bucket),
        **commands,
        **below(bench.state),
        "stderr": (ran.stderr + refused.stderr).encode(),
        "doctor": doctor + alarmed,
    }
    assert_nowhere(private, places)


def assert_prowled_in_vain(bucket: Bucket, files: int) -> None:
    """The job of each run has looked into more than so many files, and found nothing."""
    for run in all_sound(bucket):
        looked, found = json.loads(bucket.run(run).file("prowls", "found.json"))
        assert (looked > files, found) == (True, [])


def test_a_deploy_key_and_what_a_launch_says_are_for_no_job_and_nobody_at_home(
    bench: Bench,
    s3_server: S3Server,
    s3_bucket: str,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> None:
    """A key out of SSM, a ping's secret out of user data: in no file, process, object, page, metric or pulled file."""
    key = make_key(bench.folder / "deploy")
    ping = "7d0f3c1e-ca7a-4b1e-9d53-0c6a1f5b7e99"
    middle = key.read_text().splitlines()[2]
    # The S3 server of the tests has its own keys in its environment: no job is to look for those.
    private = [middle, ping, s3_server.secret_key]
    env = {"SOUGHT": f"{middle[::-1]} {ping[::-1]}", "STATE": str(bench.state)}
    bench.release("v1.0", job("prowls", ["python3", "prowls.py"], env=env), {"prowls.py": PROWLS})
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    parameters("/canaries/key-store", **keys)
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    around = surroundings({"HOME": str(bench.folder), **bucket.environ})
    with (
        SshServer(bench.folder / "sshd") as git,
        Recorder() as watchdog,
        Metadata(credentials=KEYS, zone=f"{REGION}a") as machine,
    ):
        git.admit(key, bench.repo.bare)
        stored = key.read_text().removesuffix("\n")
        parameters("/canaries/key", key=stored, known_hosts=git.known_hosts)
        machine.said["user-data"] = (
            f'store.url = "{around["MAYFLY_STORE_URL"]}"\n'
            f'notify.healthchecks = "{watchdog.url}/{ping}"\n'
        )
        bench.store = around["MAYFLY_STORE_URL"]
        bench.environ |= aws | {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.url,
            "MAYFLY_STORE_ENDPOINT": s3_server.url,
        }
        bench.settings |= {
            "store.credentials": "ssm:/canaries/key-store",
            "release.repository": git.url(bench.repo.bare),
            "release.credentials": "ssm:/canaries/key",
        }
        with process_list() as commands:
            ran = bench.run()
            explained = said(["check", "--explain"], bench.environment())
            git.revoke()
            refused = bench.run()
    assert (ran.outcome["status"], refused.outcome["status"]) == ("succeeded", "succeeded"), (
        ran.stderr
    )
    assert "the server rejected the key" in refused.stderr
    assert watchdog.requests
    assert b"notify.healthchecks" in explained
    assert_prowled_in_vain(bucket, 20)
    folder = bench.folder / "home"
    places = {
        **in_bucket(bucket),
        **commands,
        "stderr": (ran.stderr + refused.stderr).encode(),
        "explained": explained,
        "pull": said(["pull", str(folder / "pulled")], around),
        **served(folder, around, "/", "/metrics"),
        **below(bench.state),
    }
    assert b"prowls" in places["serve /metrics"]
    assert any("found.json" in name for name in places if name.startswith(str(folder / "pulled")))
    assert_nowhere(private, places)

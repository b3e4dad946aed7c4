"""Jobs as hostile guests of a real machine: each in a unit of its own, and its neighbour does not notice."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.bucket.layout import ENTRIES
from tests.machine.inside import BUCKET, EC2, MAYFLY, REPOSITORY, Inside, Row, ran
from tests.parts.missing import program
from tests.parts.waiting import wait_until
from tests.run.bench import Ran, job

pytestmark = pytest.mark.timeout(1800)

HERE = Path(__file__).parent
NEIGHBOUR = job(
    "neighbour",
    "echo mine > $MAYFLY_OUTPUT_DIR/secret; for i in 1 2 3 4 5 6 7 8; do date; sleep 1; done",
    expect={"min_files": 1},
)


def no_units_left(inside: Inside) -> bool:
    """Tell whether no unit of a job is loaded, and no process of a job's user runs."""
    units = inside.sh("systemctl list-units --all --plain --no-legend 'mayfly-job-*'")
    users = inside.sh("ps -e -o uid= | awk '$1 >= 61184 && $1 <= 65519'")
    return not units.strip() and not users.strip()


def ends(ran: Ran, row: Row, what: str) -> dict[str, tuple[str, str | None]]:
    """Return how the jobs of a run ended: status and cause, by name; and print it."""
    for one in ran.outcome["jobs"]:
        row(f"{what}: {one['name']}", f"{one['status']}, {one['cause']}: {one['message'][:80]}")
    return {job["name"]: (job["status"], job["cause"]) for job in ran.outcome["jobs"]}


def check_tries(report: dict[str, dict[str, str]], row: Row, who: str) -> None:
    """Print what a hostile job tried: nothing of what is to be refused has worked, and all of the rest has."""
    for name, why in report["refused"].items():
        row(f"{who} tries: {name}", why or "IT WORKED")
    for name, why in report["worked"].items():
        row(f"{who} needs: {name}", why or "works")
    assert [name for name, why in report["refused"].items() if not why] == []
    assert {name: why for name, why in report["worked"].items() if why} == {}


FOREVER = "while :; do sleep 0.1; done"
CONTRACT = [
    job(
        "environment",
        ["env"],
        env={"GREETING": "good day", "ODD": 'a\n"b" $HOME %n \\'},
        matrix={"shop": ["north"]},
        secrets=["TOKEN"],
    ),
    job("files", ["sh", "files.sh"]),
    job(
        "after",
        "yes | head -1; echo > $MAYFLY_OUTPUT_DIR/n; test $MAYFLY_ATTEMPT = 2 || exit 75",
        needs=["files"],
    ),
    job("code-203", "exit 203"),
    job("segfault", "kill -SEGV $$"),
    job("terminated", "kill -TERM $$"),
    job("cannot-start", ["./broken"]),
    job(
        "polite",
        f"trap 'echo whole > $MAYFLY_OUTPUT_DIR/whole; exit 0' TERM; {FOREVER}",
        timeout="3s",
    ),
    job("deaf", f"trap '' TERM; {FOREVER}", timeout="3s"),
    job("flood", "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1"),
]
FILES = """
    set -e
    cd "$MAYFLY_OUTPUT_DIR"
    mkdir deep; echo 1 > deep/a.csv; echo 2 > .hidden; echo 3 > b.part
    ln -s /etc/passwd link
    cat "$MAYFLY_STATE_DIR/count" > before 2>/dev/null || echo none > before
    echo once >> "$MAYFLY_STATE_DIR/count"
    echo '{"items": 7, "message": "as agreed"}' > "$MAYFLY_RESULT_FILE.new"
    mv "$MAYFLY_RESULT_FILE.new" "$MAYFLY_RESULT_FILE"
"""


def test_the_contract_of_a_job_holds_in_a_unit(inside: Inside, row: Row) -> None:
    """Environment, files, memory, exit codes, signals, retries, grace and floods are those of a process."""
    files = {"files.sh": FILES, "broken": "#!/no/such/interpreter\n"}
    inside.release("".join(CONTRACT), files)
    first = inside.run("--job", "files", limits__isolation="systemd")
    assert first.code == 3, first.stderr  # a link is no result
    ran = inside.run(
        secrets__source="/etc/mayfly/secrets.env", limits__grace="5s", limits__jobs="3"
    )
    told = inside.told(ran.run_id)
    assert told.record["isolation"]["backend"] == "systemd"
    seen = {
        job["name"]: (
            *(job["status"], job.get("cause"), len(job["attempts"])),
            *(job["attempts"][-1].get("exit_code"), job["attempts"][-1].get("signal")),
        )
        for job in told.jobs
    }
    for name, facts in seen.items():
        row(f"contract: {name}", facts)
    assert seen == {
        "environment-north": ("succeeded", None, 1, 0, None),
        "files": ("succeeded", None, 1, 0, None),
        "after": ("succeeded", None, 2, 0, None),
        "code-203": ("failed", "error", 1, 203, None),
        "segfault": ("failed", "error", 1, None, 11),
        "terminated": ("failed", "error", 1, None, 15),
        "cannot-start": ("failed", "release", 1, None, None),
        "polite": ("timed_out", "timeout", 1, 0, None),
        "deaf": ("timed_out", "timeout", 1, None, 9),
        "flood": ("failed", "error", 1, 1, None),
    }
    assert told.file("polite", "whole") == b"whole\n"
    assert told.file("files", "before") == b"once\n"
    assert told.job("files")["items"] == 7
    assert told.files_of("files").keys() == {"deep/a.csv", "before"}
    flood = told.job("flood")
    assert (flood["message"], flood["attempts"][0]["output_bytes"]) == (
        "exit code 1: the end",
        20_000_009,
    )
    assert "Broken pipe" not in ran.stderr
    assert_environment(ran)


def assert_environment(ran: Ran) -> None:
    """A job sees the contract, its own variables as they are, and nothing of systemd's or the agent's."""
    lines = [e["line"] for e in ran.events("job.output") if e["job"] == "environment-north"]
    names = {line.partition("=")[0] for line in lines if re.match(r"[A-Z_]+=", line)}
    ours = {f"MAYFLY_{name}" for name in ("OUTPUT_DIR", "STATE_DIR", "RESULT_FILE", "RUN_ID")}
    ours |= {f"MAYFLY_{name}" for name in ("JOB", "BATCH", "ATTEMPT", "DEADLINE", "MATRIX_SHOP")}
    assert names == ours | {"PATH", "HOME", "LANG", "GREETING", "ODD", "TOKEN"}
    assert "ODD=a" in lines
    assert '"b" $HOME %n \\' in lines
    assert "TOKEN=[redacted:TOKEN]" in lines


def test_what_no_job_may_do_is_refused(inside: Inside, row: Row) -> None:
    """From inside a job: credentials, sockets, other jobs, the system, more than its limits; the useful works."""
    spy = job("spy", "exec python3 spy.py", timeout="10m")
    inside.release(spy + NEIGHBOUR, {"spy.py": (HERE / "spy.py").read_text()})
    inside.environ = {"AWS_SECRET_ACCESS_KEY": "CANARY-of-the-agent"}
    try:
        ran = inside.run()
        # As on EC2, whose metadata service is looked for then; it tells nothing here, and so no job would run.
        inside.environ = dict(EC2)
        looked = inside.run()
    finally:
        inside.environ = {}
    assert ran.code == 0, ran.stderr
    report = json.loads(inside.told(ran.run_id).file("spy", "report.json"))
    check_tries(report, row, "a job")
    (chosen,) = looked.events("isolation.chosen")
    seen = {name: chosen[name] for name in ("backend", "metadata", "containers")}
    assert seen == {"backend": "systemd", "metadata": "unreachable", "containers": "unreachable"}
    assert ran.outcome["warnings"] == []


HOSTILE = [
    job("fork-bomb", ["bash", "-c", "b() { b | b & }; b; sleep 300"], timeout="15s"),
    job("large-file", "head -c 10G /dev/zero > $MAYFLY_OUTPUT_DIR/large"),
    job("survivors", ["sh", "survivors.sh"]),
    job(
        "hog",
        ["python3", "-c", "x = []\nwhile True: x.append(bytearray(10_000_000))"],
        memory="200MiB",
    ),
    job(
        "forked-hog",
        ["bash", "-c", "for i in 1 2 3 4; do python3 hog.py & done; wait"],
        memory="300MiB",
    ),
]

SURVIVORS = """
    exec 2>/dev/null
    sleep 1001 &
    setsid sleep 1002 &
    (setsid sh -c 'sleep 1003 & exit' &)
    (env -i PATH="$PATH" setsid sh -c 'exec sleep 1004' &)
    (env -i PATH="$PATH" nohup setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1005; done' &)
    sleep 1
"""


def test_hostile_jobs_are_contained_and_the_neighbour_succeeds(inside: Inside, row: Row) -> None:
    """A fork bomb, 10 GB, memory without end, and processes that leave every session: all of it ends with its unit."""
    hog = "import time\nx = bytearray(200_000_000)\ntime.sleep(300)\n"
    inside.release("".join(HOSTILE) + NEIGHBOUR, {"survivors.sh": SURVIVORS, "hog.py": hog})
    ran = inside.run(limits__jobs="6", limits__grace="3s", limits__file="300MiB")
    assert ends(ran, row, "hostile") == {
        "fork-bomb": ("timed_out", "timeout"),
        "large-file": ("failed", "out_of_disk"),
        "survivors": ("succeeded", None),
        "hog": ("failed", "out_of_memory"),
        "forked-hog": ("failed", "out_of_memory"),
        "neighbour": ("succeeded", None),
    }, ran.stderr
    assert no_units_left(inside)
    assert inside.sh("pgrep -f 'sleep 100[1-5]' || true") == ""


@pytest.mark.parametrize(("place", "keys"), [("$HOME", {}), (".", {"output": "."})])
def test_a_job_that_fills_the_disk_is_ended(
    inside: Inside, row: Row, place: str, keys: dict[str, str]
) -> None:
    """Many files, each within its limit: before the disk is full the job that occupies most is ended."""
    free = int(inside.sh("df -k --output=avail /var/lib/mayfly | tail -1")) // 1024
    fills = f"for i in $(seq 1000); do head -c 50M /dev/zero > {place}/$i; sleep 0.2; done"
    inside.release(job("fills", fills, **keys) + NEIGHBOUR)
    ran = inside.run(limits__free=f"{free - 400}MiB")
    assert ends(ran, row, f"fills the disk in {place}") == {
        "fills": ("failed", "out_of_disk"),
        "neighbour": ("succeeded", None),
    }, ran.stderr


BESIDE = [
    job("dot", ["python3", "scrape.py"], output="."),
    job(
        "folder",
        "test $MAYFLY_OUTPUT_DIR = $PWD/out && echo 2 > out/new.csv && echo > stray.csv",
        output="out",
    ),
    job(
        "again",
        "test ! -e half.csv && echo $MAYFLY_ATTEMPT > half.csv && test $MAYFLY_ATTEMPT = 2",
        output=".",
        retries=1,
    ),
    job("fails", ["python3", "scrape.py"]),
    job("goes-on", "echo 1 > books.csv; exit 0"),
]
SCRAPE = """
    import os
    open("books.csv", "a").write("title\\n")
    open("known.csv", "a").write("new\\n")
    os.makedirs("deep/er")
    os.chmod("deep", 0o700)
    open("deep/er/a.csv", "w").write(str(os.getuid() >= 61184))
    open("x.part", "w").close()
"""
READ_ONLY = 'the release\'s files are read-only; write to $MAYFLY_OUTPUT_DIR, or set output = "."'


def release_is_untouched(inside: Inside) -> bool:
    """Tell whether the release in the state is what was committed, and nobody of the jobs' users owns a file of it."""
    tree = f"{inside.state}/releases/*/tree"
    changed = inside.sh(f"diff -r --exclude=.git {REPOSITORY} {tree} || true")
    owned = inside.sh(f"find {tree} ! -user root -o -perm /222 ! -type l")
    return not changed and not owned


def test_results_beside_the_code_come_from_a_copy_of_the_jobs_own(inside: Inside, row: Row) -> None:
    """With `output`, each attempt works in a copy; without, it cannot write there, and is told where it can."""
    files = {"scrape.py": SCRAPE, "known.csv": "old\n", "out/old.csv": "old\n"}
    inside.release("".join(BESIDE), files)
    ran = inside.run()
    assert ends(ran, row, "beside its code") == {
        "dot": ("succeeded", None),
        "folder": ("succeeded", None),
        "again": ("succeeded", None),
        "fails": ("failed", "error"),
        "goes-on": ("empty", "expectation"),
    }, ran.stderr
    told = inside.told(ran.run_id)
    assert told.record["isolation"]["backend"] == "systemd"
    assert told.files == {
        "dot/books.csv": b"title\n",
        "dot/known.csv": b"old\nnew\n",
        "dot/deep/er/a.csv": b"True",
        "folder/new.csv": b"2\n",
        "again/half.csv": b"2\n",
    }
    stray = 'it wrote 1 file beside its code: stray.csv; set output = "."'
    assert told.job("folder")["notes"] == [stray]
    assert ran.job("goes-on")["message"] == READ_ONLY
    assert ran.job("fails")["message"].endswith(f"'books.csv'; {READ_ONLY}")
    assert release_is_untouched(inside)
    assert no_units_left(inside)


INTRUDER = job("intruder", ["python3", "intruder.py"], output=".") + job(
    "private", "echo mine > out/private.csv; sleep 40", output="out"
)


def test_a_job_in_a_copy_reaches_neither_the_release_nor_another_copy(
    inside: Inside, row: Row
) -> None:
    """It knows their paths and tries while they are there; in its own copy it may do anything."""
    text = (HERE / "intruder.py").read_text()
    inside.release(INTRUDER, {"intruder.py": text, "known.csv": "old\n"})
    ran = inside.run(limits__jobs="2")
    assert ran.code == 0, ran.stderr
    told = inside.told(ran.run_id)
    report = json.loads(told.file("intruder", "report.json"))
    check_tries(report, row, "a job in a copy")
    tries = [told.job(name)["attempts"][0] for name in ("intruder", "private")]
    assert max(each["started"] for each in tries) < min(each["finished"] for each in tries)
    assert told.files_of("private") == {"private.csv": b"mine\n"}
    assert release_is_untouched(inside)


RESUMES = job("resumes", ["sh", "resumes.sh"], state="checkpoint", output=".", timeout="20s")
PAGES = """
    cat "$MAYFLY_STATE_DIR/page" > before.csv 2>/dev/null || echo none > before.csv
    echo 7 > "$MAYFLY_STATE_DIR/page"
    test "$(cat before.csv)" = 7 || sleep 1008
"""


def test_a_job_that_is_cut_goes_on_from_its_checkpoint(inside: Inside, row: Row) -> None:
    """The next unit, which has another user, gets the state of the one that was ended, and not its files."""
    inside.release(RESUMES, {"resumes.sh": PAGES})
    first, second = (inside.run(limits__grace="1s") for _ in range(2))
    seen = [
        (ran.job("resumes")["status"], inside.told(ran.run_id).files_of("resumes"))
        for ran in (first, second)
    ]
    row("checkpoint under units", seen)
    assert seen == [
        ("timed_out", {"before.csv": b"none\n"}),
        ("succeeded", {"before.csv": b"7\n"}),
    ], second.stderr


USERS = {"root": b"0\n", "user": b"1234\n"}
BOXES = """
    set -e
    cd /root; rm -rf tiny; mkdir -p tiny/bin tiny/tmp tiny/etc; chmod 1777 tiny/tmp
    install -m 755 busybox tiny/bin/
    for name in sh id mkdir chmod; do ln -s busybox tiny/bin/$name; done
    tar -C tiny -cf - . | docker import - mayfly.test/tiny:root >/dev/null
    tar -C tiny -cf - . | docker import --change 'USER 1234:1234' - mayfly.test/tiny:user >/dev/null
"""
CONTAINERS = """
    [[job]]
    name = "image-{user}"
    image = "mayfly.test/tiny:{user}"
    command = ["sh", "-c", "cd /data && id -u > who.txt && mkdir -m 700 deep && id -g > deep/group.txt"]
    output = "/data"

    [[job]]
    name = "stack-{user}"
    compose = "{user}.yml"
    service = "{user}"
    output = "/app"

    [[job]]
    name = "stack-{user}-lost"
    compose = "{user}.yml"
    service = "{user}"
"""
SERVICE = """
services:
  {user}:
    image: mayfly.test/tiny:{user}
    working_dir: /app
    volumes: ["./app:/app"]
    command: ["sh", "scrape.sh"]
"""


def test_containers_beside_units_deliver_whatever_user_they_have(inside: Inside, row: Row) -> None:
    """Images and stacks with `output`, as root and as somebody else, on the machine whose programs get units."""
    inside.machine.put(Path(program("busybox")), "/root")
    inside.sh(BOXES, seconds=600)
    files = {
        # Two files: all services of a stack start, and both would work in one copy.
        **{f"{user}.yml": SERVICE.format(user=user) for user in USERS},
        "app/scrape.sh": "id -u >> books.csv; id -u >> known.csv; mkdir -m 700 deep && id -g > deep/group.txt\n",
        "app/known.csv": "old\n",
    }
    inside.release("".join(CONTAINERS.format(user=user) for user in USERS), files)
    ran = inside.run()
    ends(ran, row, "containers")
    told = inside.told(ran.run_id)
    for user, number in USERS.items():
        assert told.files_of(f"image-{user}") == {"who.txt": number, "deep/group.txt": number}
        assert told.files_of(f"stack-{user}") == {
            "books.csv": number,
            "known.csv": b"old\n" + number,
            "deep/group.txt": number,
        }
        lost = ran.job(f"stack-{user}-lost")
        assert lost["status"] == "empty", ran.stderr
        assert lost["message"] == (
            'it wrote 3 files beside its code, such as app/books.csv; set output = "/app"'
        )
    assert release_is_untouched(inside)
    assert (
        inside.sh("docker ps --all --quiet --filter label=mayfly.run; docker volume ls --quiet")
        == ""
    )


AS_MACHINE = f"""
[release]
repository = "{REPOSITORY}"
trust = "none"
[store]
url = "s3://scraped/prod"
[browser]
url = "http://127.0.0.1:9"
port = 0
"""
TRIED = job("who", "cat /proc/self/cgroup; id -u; ls /root/agent.toml /etc/mayfly; true") + job(
    "dot", ["python3", "scrape.py"], output="."
)
TRIAL = "/root/trial"


def test_a_trial_on_a_computer_with_systemd_has_the_machines_isolation(
    inside: Inside, row: Row
) -> None:
    """`mayfly run --as-machine` gives jobs units, says the rest that differs, and leaves the power on."""
    inside.release(TRIED, {"scrape.py": SCRAPE, "known.csv": "old\n"})
    inside.sh(f"rm -rf {TRIAL}; cat > /root/agent.toml <<'END'\n{AS_MACHINE}\nEND")
    firmware = " ".join(f"{name}={value}" for name, value in EC2.items())
    options = f"--json --log json --config /root/agent.toml --as-machine {TRIAL}"
    command = f"env {firmware} {MAYFLY} run {options}"
    done = inside.machine.ssh(command, seconds=900, check=False)
    said = ran(done)
    assert said.code == 0, said.stderr
    differs = [
        line.removeprefix("differs from the machine: ")
        for line in said.stderr.splitlines()
        if line.startswith("differs from the machine: ")
    ]
    for line in differs:
        row("--as-machine differs", line)
    told = inside.told(said.run_id, f"{TRIAL}/bucket")
    assert told.record["isolation"]["backend"] == "systemd"
    group, user, *listed = told.printed("who").decode().splitlines()
    assert re.search(r"/mayfly-jobs\.slice/mayfly-job-[a-z0-9-]+-who-1\.service$", group)
    assert 61184 <= int(user) <= 65519
    assert all("cannot" in line for line in listed), listed
    assert told.file("dot", "books.csv") == b"title\n"
    assert no_units_left(inside)
    assert len(differs) == 3
    assert [
        word
        for word in ("not to s3://scraped/prod", "state directory stays", "power stays on")
        if not any(word in line for line in differs)
    ] == []
    assert inside.sh(f"ls -A {TRIAL}").split() == [".mayfly-as-machine", "bucket", "state"]


LONG = job("long", ["sh", "long.sh"]) + job("ok", ["true"])


def test_a_killed_agent_leaves_nothing_that_the_next_run_does_not_end(
    inside: Inside, row: Row
) -> None:
    """After a kill -9 of the agent its units go on, and the next run ends them before anything else."""
    inside.release(
        LONG, {"long.sh": SURVIVORS + "echo half > $MAYFLY_OUTPUT_DIR/half; sleep 1006\n"}
    )
    inside.sh(
        f"nohup setsid {inside.command('--job', 'long')} > /root/killed.log 2>&1 & echo $! > /root/agent.pid"
    )
    wait_until(
        lambda: inside.sh("pgrep -f 'sleep 100[6]' || true").strip(),
        seconds=180,
        what="the job to be under way",
    )
    inside.sh("pkill -KILL -f '[m]ayfly run --json'")
    time.sleep(2)  # what systemd would end with the agent has ended
    alive = inside.sh("pgrep -fc 'sleep 100[1-6]' || true").strip()
    ran = inside.run("--job", "ok")
    assert ran.code == 0, ran.stderr
    left = inside.sh("pgrep -f 'sleep 100[1-6]' || true")
    row("killed agent", f"{alive} survivors, {len(left.split())} after the next run")
    assert int(alive) >= 5
    assert left == ""
    assert no_units_left(inside)
    entries = inside.sh(f"cat {BUCKET}/{ENTRIES}*/*/*.json")
    assert '"status":"interrupted"' in entries.replace(" ", "")


def test_a_unit_is_hardened_and_shows_no_secret(inside: Inside, row: Row) -> None:
    """`systemd-analyze security` gives at most 1.5; a unit's properties, which all may read, have no secret."""
    inside.release(job("waits", ["sleep", "1007"], secrets=["TOKEN"], timeout="90s"))
    command = inside.command(secrets__source="/etc/mayfly/secrets.env", limits__grace="1s")
    inside.sh(f"nohup setsid {command} > /root/waits.log 2>&1 &")
    wait_until(
        lambda: inside.sh("pgrep -f 'sleep 100[7]' || true").strip(), seconds=180, what="the job"
    )
    unit = inside.sh("systemctl list-units --plain --no-legend 'mayfly-job-*'").split()[0]
    shown = inside.sh(f"systemctl show {unit}; systemctl cat {unit}; ps -ef")
    analysis = inside.sh(f"systemd-analyze security --no-pager {unit}")
    wait_until(lambda: no_units_left(inside), seconds=240, what="the run to end")
    found = re.search(r"exposure level.*?: (\d+\.\d)", analysis)
    assert found
    row("systemd-analyze security of a job's unit", found[1])
    assert float(found[1]) <= 1.5, analysis
    assert "CANARY" not in shown
    assert re.search(r"-([a-z0-9-]+)-waits-1\.service", unit), "its name tells whose it is"

"""Jobs that are one container, run by the real `mayfly run`: the contract holds for them as for any program."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.containers.conftest import path_without, remains
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, finish, job

ABSENT = "mayfly.test/nobody/has-this:1"


def test_a_container_is_given_the_contract_and_its_files_are_handed_over(
    yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """Environment, output at the path it names, state from the last success, result file; and the image's own HOME."""
    script = """
        set -e
        env
        echo "ran before: $(cat $MAYFLY_STATE_DIR/count 2>/dev/null)"
        echo 1 >> $MAYFLY_STATE_DIR/count
        mkdir /data/deep
        echo found > /data/deep/a.csv
        echo half > /data/b.csv.part
        echo no > /data/.hidden
        ln -s /etc/passwd /data/link
        echo '{"items": 3, "metrics": {"pages": 2}}' > $MAYFLY_RESULT_FILE
    """
    text = job(
        "a", script, image=busybox, output="/data", env={"GREETING": "good day", "TZ": "Asia/Tokyo"}
    )
    yard.release("v1", text)
    first = yard.run()
    assert first.code == 3, first.stderr  # a link is not handed over
    second = yard.run()
    manifest = sound(bucket, second.run_id)
    said = [event["line"] for event in second.events("job.output")]
    seen = dict(line.split("=", 1) for line in said if "=" in line)
    assert seen["MAYFLY_OUTPUT_DIR"] == "/data"
    assert seen["MAYFLY_RUN_ID"] == second.run_id
    assert (seen["MAYFLY_JOB"], seen["MAYFLY_ATTEMPT"]) == ("a", "1")
    assert (seen["GREETING"], seen["TZ"]) == ("good day", "Asia/Tokyo")
    assert not seen["HOME"].startswith(str(yard.folder))
    assert {"MAYFLY_STATE_DIR", "MAYFLY_RESULT_FILE", "MAYFLY_DEADLINE"} <= set(seen)
    assert "ran before: 1" in said
    assert manifest.results == {"a/deep/a.csv"}
    result = manifest.job("a")
    assert (result["items"], result["metrics"]) == (3, {"pages": 2})
    assert result["refused"] == [{"path": "link", "reason": "a link"}]
    assert result["attempts"][0]["image"].startswith(f"{busybox} (sha256:")


def test_what_a_program_does_in_a_container_counts_as_anywhere(yard: Bench, busybox: str) -> None:
    """Exit codes, limits of output and memory; and it has no way out."""
    # Any code but 0 is a failure, quoted with the last line; 75 gets one more attempt.
    exits = "echo try $MAYFLY_ATTEMPT; [ $MAYFLY_ATTEMPT = 2 ] || exit 75; echo gone wrong; exit 3"
    floods = "yes 'a line that says nothing' | head -c 200000000; echo the end >&2"
    tries = """
        grep -E '^(NoNewPrivs|CapEff)' /proc/self/status
        mount -t tmpfs none /tmp && echo mounted
        ls /var/run/docker.sock && echo socket
        touch $MAYFLY_OUTPUT_DIR/mine && chmod 600 $MAYFLY_OUTPUT_DIR/mine && echo wrote
    """
    greedy = job("greedy", "head -c 200000000 /dev/zero | tail", image=busybox, memory="24MiB")
    others = {"exits": exits, "floods": floods, "tries": tries}
    jobs = greedy + "".join(job(name, script, image=busybox) for name, script in others.items())
    yard.release("v1", jobs)
    ran = yard.run(code=3, limits__output="1MiB")
    record = yard.bucket.newest.job("exits")
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [75, 3]
    assert (record["cause"], record["message"]) == ("error", "exit code 3: gone wrong")
    assert ran.job("greedy")["cause"] == "out_of_memory", "of all its processes together"
    flood = yard.bucket.newest.job("floods")
    assert flood["status"] == "succeeded"
    assert flood["attempts"][0]["output_bytes"] == 200_000_000 + len("the end\n")
    output = [event for event in ran.events("job.output") if event["job"] == "tries"]
    said = {event["line"].replace("\t", " ") for event in output}
    assert {"NoNewPrivs: 1", "wrote"} <= said
    assert said.isdisjoint({"mounted", "socket"})
    (effective,) = (line for line in said if line.startswith("CapEff"))
    # CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID: bits 0, 1, 3, 5, 6, 7.
    assert int(effective.split()[1], 16) == 0b11101011


def test_a_container_past_its_limit_gets_its_grace_and_then_goes(
    yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """SIGTERM reaches the program, what it still writes counts; one that ignores it is killed."""
    polite = (
        "trap 'echo late > /mayfly/output/late.csv; exit 0' TERM; while true; do sleep 0.1; done"
    )
    deaf = "trap '' TERM; echo early > /mayfly/output/early.csv; while true; do sleep 0.1; done"
    text = job("a", polite, image=busybox, timeout="10s")
    yard.release("v1", text + job("b", deaf, image=busybox, timeout="10s"))
    ran = yard.run(limits__grace="6s")
    assert ran.code == 8, ran.stderr
    assert [ran.job(name)["cause"] for name in "ab"] == ["timeout", "timeout"]
    assert {"a/late.csv", "b/early.csv"} <= bucket.run(ran.run_id).results


SLOW_ENGINE = """#!/bin/sh
case "$*" in
"{slow} "*)
    setsid sh -c 'sleep 3; {docker} "$@"; code=$?; touch {made}; exit $code' sh "$@" &
    wait $!
    exit $? ;;
esac
exec {docker} "$@"
"""
"""A client whose engine takes three seconds to make something, and makes it whether or not the client is there."""


@pytest.mark.parametrize("slow", ["network create", "create"])
def test_what_the_engine_still_makes_at_the_limit_is_removed_as_well(
    yard: Bench, busybox: str, docker_engine: DockerEngine, slow: str
) -> None:
    """A network that is left takes one of the engine's thirty ranges of addresses, until somebody sees it."""
    tools, made = yard.folder / "tools", yard.folder / "made"
    tools.mkdir()
    (tools / "docker").write_text(
        SLOW_ENGINE.format(slow=slow, docker=program("docker"), made=made)
    )
    (tools / "docker").chmod(0o755)
    yard.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    yard.release("v1", job("a", "true", image=busybox, timeout="2s"))
    ran = yard.run(code=8, limits__grace="1s")
    wait_until(made.exists, what="the engine to have made it")
    assert ran.job("a")["cause"] == "timeout"
    assert remains(docker_engine, yard) == []


def test_a_container_of_a_run_that_is_told_to_stop_stops_and_its_secrets_stay_inside(
    yard: Bench, docker_engine: DockerEngine, busybox: str
) -> None:
    """SIGTERM inside, as a spot notice would. A secret is on no command line, the client's neither, nor in the log."""
    script = "trap 'echo bye; exit 0' TERM; echo $TOKEN; echo ready; while true; do sleep 0.1; done"
    yard.release("v1", job("a", script, image=busybox, secrets=["TOKEN"]))
    secrets = yard.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN='hush-hush-hush second'\n")
    with yard.running(secrets__source=str(secrets)) as process:
        yard.log.wait_for("job.output", line="ready", seconds=120)
        lines = [_command_line(path) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        (name,) = {name for name in remains(docker_engine, yard) if name.endswith("-a-1")}
        inspected = docker_engine.docker(
            "inspect", "--format", "{{json .Args}} {{json .Config.Env}}", name
        ).stdout
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.code == 7, ran.stderr
    assert ran.job("a")["status"] == "interrupted"
    assert [event["line"] for event in ran.events("job.output")][1:] == ["ready", "bye"]
    assert [line for line in lines if b"hush" in line] == []
    arguments, _, environment = inspected.partition("] [")
    assert "hush" not in arguments
    assert "TOKEN=hush-hush-hush second" in environment
    assert "hush" not in ran.stderr + json.dumps(ran.outcome)


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_an_unprivileged_image_can_write_its_output_and_go_on_with_its_state(
    yard: Bench, bucket: Bucket, docker_engine: DockerEngine, busybox: str, own_image: str
) -> None:
    """Whoever the image runs as, output, state and result are its own to write."""
    made = docker_engine.do("create", busybox, "true").strip()
    docker_engine.do("commit", "--change", "USER 1000:1000", made, own_image)
    docker_engine.do("rm", made)
    script = """
        set -e
        id -u
        mkdir -p $MAYFLY_STATE_DIR/deep
        echo again >> $MAYFLY_STATE_DIR/deep/n
        cat $MAYFLY_STATE_DIR/deep/n > $MAYFLY_OUTPUT_DIR/n.txt
        echo '{"items": 1}' > $MAYFLY_RESULT_FILE
    """
    yard.release("v1", job("a", script, image=own_image))
    assert yard.run().code == 0
    ran = yard.run()
    assert ran.code == 0, ran.stderr
    assert ran.job("a")["items"] == 1
    assert bucket.run(ran.run_id).files["a/n.txt"] == b"again\nagain\n"


def test_what_cannot_be_started_is_named_with_a_remedy(
    yard: Bench, busybox: str, tmp_path: Path
) -> None:
    """An image nobody has, a program that is not in the image, an engine that is down, no engine at all."""
    lacking = job("b", ["no-such-program"], image=busybox)
    yard.release("v1", job("a", "true", image=ABSENT) + lacking)
    ran = yard.run()
    message = ran.job("a")["message"]
    assert f"the image {ABSENT} is not here and could not be fetched" in message
    assert "check its name" in message
    assert "no-such-program" in ran.job("b")["message"], ran.outcome
    usual = dict(yard.environ)
    yard.environ["DOCKER_HOST"] = f"unix://{tmp_path}/nobody.sock"
    ran = yard.run()
    assert "start the engine" in ran.job("a")["message"]
    yard.environ |= usual | {"PATH": path_without(tmp_path / "bin", "docker")}
    ran = yard.run()
    assert ran.job("a")["message"] == (
        "docker could not be started: No such file or directory; install Docker"
    )

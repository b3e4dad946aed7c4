"""The doctor asks servers: the store, the clock, the metadata service, the watchdog."""

import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from agent.doctor.checks import CHECKS
from agent.doctor.examine import Check, State, examine
from tests.doctor.installations import Ask, ask
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import BlackHole, Corrupt, Fault, Lie
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.metadata import Metadata
from tests.parts.recorder import Recorder
from tests.parts.seaweed import S3Server


def s3(server: S3Server, bucket: str, endpoint: str | None = None) -> tuple[str, str]:
    """The `--set` pairs for a bucket of the S3 server."""
    return f"store.url=s3://{bucket}/prod", f"store.endpoint={endpoint or server.url}"


async def test_a_store_is_written_read_listed_and_cleaned(
    installation: Ask, s3_server: S3Server, s3_bucket: str
) -> None:
    """A working store is fine, and keeps nothing of the examination."""
    who = installation(*s3(s3_server, s3_bucket), **s3_server.environ)
    finding = await ask("store", who)
    assert (finding.state, "write, read, list, delete" in finding.detail) == (State.OK, True)
    assert s3_server.keys(s3_bucket) == []
    assert (await ask("store credentials", who)).detail == "keys from the environment"


@pytest.mark.parametrize("fault", [Lie(), Corrupt()])
async def test_a_store_that_lies_is_found_out(
    installation: Ask, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy, fault: Fault
) -> None:
    """An answer of 200 is no proof: what was written is read back."""
    s3_proxy.inject(fault, times=None)
    who = installation(*s3(s3_server, s3_bucket, s3_proxy.url), **s3_server.environ)
    finding = await ask("store", who)
    assert (finding.state, "something else" in finding.detail) == (State.FAILED, True)


async def test_wrong_keys_are_refused_with_a_remedy(
    installation: Ask, s3_server: S3Server, s3_bucket: str
) -> None:
    """The store's refusal is the failure, and no secret is in it."""
    wrong = {**s3_server.environ, "AWS_SECRET_ACCESS_KEY": "not-the-secret-key"}
    finding = await ask("store", installation(*s3(s3_server, s3_bucket), **wrong))
    assert (finding.state, "refused" in finding.detail) == (State.FAILED, True)
    assert "not-the-secret-key" not in finding.detail


_CONNECTIONS: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _CONNECTIONS.append(str(arguments[1][0]))


# Such a hook cannot be taken away again.
sys.addaudithook(_note)


@pytest.fixture
def connections() -> list[str]:
    """The addresses that this process has connected to since the test began."""
    _CONNECTIONS.clear()
    return _CONNECTIONS


async def test_a_store_in_a_folder_needs_neither_keys_nor_clock(installation: Ask) -> None:
    """The default bucket of a laptop is tried like any other."""
    assert (await ask("store", installation())).state is State.OK
    for name in ("store credentials", "clock"):
        assert (await ask(name, installation())).state is State.SKIPPED


async def test_secrets_are_counted_and_named_never_shown(installation: Ask, tmp_path: Path) -> None:
    """The names help, the values would harm."""
    path = tmp_path / "secrets.env"
    path.write_text("TOKEN=hunter2hunter2\n")
    path.chmod(0o600)
    finding = await ask("job secrets", installation(f"secrets.source={path}"))
    assert (finding.state, "TOKEN" in finding.detail) == (State.OK, True)
    assert "hunter2" not in finding.detail
    path.chmod(0o644)
    finding = await ask("job secrets", installation(f"secrets.source={path}"))
    assert finding.remedy == f"chmod 600 {path}"
    assert (await ask("job secrets", installation())).state is State.SKIPPED


def _server_at(moment: datetime | None) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_HEAD(self) -> None:  # noqa: N802 -- the name is the library's
            """Answer with a time of its own."""
            self.send_response_only(200)
            if moment is not None:
                self.send_header("Date", format_datetime(moment, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (timedelta(0), State.OK),
        (timedelta(minutes=4), State.OK),
        (timedelta(minutes=6), State.FAILED),
        (-timedelta(hours=9), State.FAILED),
        (None, State.FAILED),
    ],
)
async def test_the_clock_is_compared_with_the_stores(
    installation: Ask, ahead: timedelta | None, state: State
) -> None:
    """More than five minutes break signatures; a server without a time, or without an answer, is no comparison."""
    moment = None if ahead is None else datetime.now(UTC) + ahead
    with LoopbackHttp(_server_at(moment)) as server:
        who = installation("store.url=s3://bucket", f"store.endpoint={server.url}")
        finding = await ask("clock", who)
    assert finding.state is state
    assert (await ask("clock", who)).state is State.FAILED, "nobody is there any more"
    if state is State.FAILED and ahead is not None:
        assert ("behind" if ahead > timedelta(0) else "ahead of") in finding.detail


async def test_the_metadata_service_says_which_machine_this_is(installation: Ask) -> None:
    """With one the machine is named; one that does not answer has a remedy: no role would work there."""
    with Metadata() as service:
        here = installation(AWS_EC2_METADATA_SERVICE_ENDPOINT=service.url)
        found = await ask("metadata service", here)
        assert found.detail == "i-0123456789abcdef0, t3.medium, ap-northeast-3"
        del service.document["region"]
        assert (await ask("metadata service", here)).state is State.FAILED
        service.status = 403
        assert "metadata options" in (await ask("metadata service", here)).remedy


async def test_a_computer_that_is_not_ec2s_asks_nobody_who_it_is(
    installation: Ask, connections: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's address is somebody else's there: neither the check nor boto3's search for keys goes to it.

    Where neither environment nor profile has keys, the remedy names the role as well.
    """
    # boto3 itself looks into the process's environment.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    who = installation("store.url=s3://bucket", "store.endpoint=http://127.0.0.1:9")
    assert (await ask("metadata service", who)).state is State.SKIPPED
    finding = await ask("store credentials", who)
    assert (finding.state, "attach a role" in finding.remedy) == (State.FAILED, True)
    assert (await ask("store", who)).state is State.FAILED
    assert "169.254.169.254" not in connections


async def test_healthchecks_is_asked_without_changing_its_state(
    installation: Ask, recorder: Recorder
) -> None:
    """A line in the log is left; a check that does not exist is a failure that keeps the address secret."""
    url = f"{recorder.url}/5eca0fc0ffee"
    who = installation(f"notify.healthchecks={url}")
    assert (await ask("healthchecks", who)).state is State.OK
    assert "/log?" in recorder.requests[0].path
    recorder.status = 404
    finding = await ask("healthchecks", who)
    assert finding.state is State.FAILED
    assert "5eca0fc0ffee" not in str(finding)
    assert (await ask("healthchecks", installation())).state is State.SKIPPED


async def test_a_black_hole_of_a_store_ends_at_its_limit(
    installation: Ask, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """A store that swallows requests is a failure at the check's limit."""
    s3_proxy.inject(BlackHole(), times=None)
    who = installation(*s3(s3_server, s3_bucket, s3_proxy.url), **s3_server.environ)
    check = next(check for check in CHECKS if check.name == "store")
    (finding,) = await examine(who, [Check("store", 1, check.ask)])
    assert finding.state is State.FAILED

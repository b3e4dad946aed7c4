"""The file that names who may sign: what is wrong with it is told by `mayfly check` and `mayfly doctor`."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.logs import RunLogger
from agent.config.locate import Locations
from agent.config.settings import Settings
from agent.doctor.checks import CHECKS
from agent.doctor.examine import Finding, Installation, State, examine
from agent.release.trust import keyless_lines, signers_problem
from agent.release.verify import Trust
from tests.parts.command import mayfly, surroundings
from tests.parts.missing import program
from tests.parts.repo import make_signer

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1QE1ZWNUWvGEfMc3DByH2QcuOatEi7nmjTktP66pTk"
LINES = {
    f"ada@example.com {KEY}": True,
    f'ada@example.com namespaces="git" {KEY} a comment': True,
    f'"ada,bob" valid-after="20260101",namespaces="git file" {KEY}\r': True,
    f"*@example.com cert-authority {KEY}": True,
    KEY: False,
    f"ada {KEY[:-8]}!": False,
    f"ada ecdsa-sha2-nistp256 {KEY.split()[1]}": False,
    "ada ssh-ed25519 AAAA": False,
    "ada ssh-ed25519": False,
    "-----BEGIN OPENSSH PRIVATE KEY-----": False,
}


@pytest.mark.parametrize(("line", "has_key"), LINES.items())
def test_a_line_has_a_key_when_ssh_keygen_finds_one(
    line: str, *, has_key: bool, tmp_path: Path
) -> None:
    """Of the same lines the real ssh-keygen says "missing key" or "invalid key"."""
    assert keyless_lines(f"# people\n\n{line}\n".encode()) == (() if has_key else (3,))
    key = make_signer(tmp_path).key
    (tmp_path / "text").write_text("x")
    sign = [program("ssh-keygen"), "-q", "-Y", "sign", "-f", str(key), "-n", "git"]
    subprocess.run([*sign, str(tmp_path / "text")], check=True, capture_output=True, timeout=20)
    (tmp_path / "signers").write_text(f"{line}\n", newline="")
    find = [program("ssh-keygen"), "-Y", "find-principals", "-f", str(tmp_path / "signers")]
    done = subprocess.run(
        [*find, "-s", str(tmp_path / "text.sig")],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (not any(words in done.stderr for words in ("missing key", "invalid key"))) == has_key


@given(st.binary())
def test_any_bytes_may_be_in_the_file(text: bytes) -> None:
    """It is of no use when all of its lines lack a key, and only then."""
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line and line[:1] != b"#"]
    assert (signers_problem(text) is not None) == (len(keyless_lines(text)) == len(lines))


def check(signers: Path) -> "subprocess.CompletedProcess[str]":
    """Call `mayfly check --json`, with a configuration that is fine but for the signers."""
    config = signers.with_name("agent.toml")
    config.write_text(f'[release]\nrepository = "/srv/x.git"\nallowed_signers = "{signers}"\n')
    jobs = signers.with_name("jobs.toml")
    jobs.write_text('[[job]]\nname = "fine"\ncommand = ["true"]\n')
    return mayfly("check", "--json", "--config", str(config), str(jobs), environ=surroundings({}))


async def doctor(signers: Path | None) -> Finding:
    """Ask the doctor about the signers alone."""
    state = Path("/nonexistent/state")
    installation = Installation(
        settings=Settings.model_validate({"release": {"allowed_signers": signers}}),
        source="defaults",
        faults=(),
        places=Locations(state, state, state),
        environ=dict(os.environ),
        machine=False,
        log=RunLogger().log,
    )
    checks = [one for one in CHECKS if one.name == "release signers"]
    (finding,) = await examine(installation, checks)
    return finding


def _text(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda _: None, "cannot be read: No such file or directory"),
        (_text(""), "names no signer"),
        (_text("# nobody yet\n\n"), "names no signer"),
        (_text(f"{KEY}\n"), "has no line with a key"),
        (_text(f"ada@example.com {KEY}\nbob@example.com {KEY[:40]}...\n"), "line 2 has no key"),
        # Also to root: whoever opened a pipe as a file would wait for ever, deaf to a stop.
        (Path.mkdir, "cannot be read: Is a directory"),
        (os.mkfifo, "cannot be read: it is not a regular file"),
    ],
    ids=["missing", "empty", "comments", "a key without a name", "a line of two", "folder", "pipe"],
)
async def test_a_file_that_names_nobody_is_a_fault(
    make: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    """Both commands name the file, the key of the configuration, what is wrong, and what to do."""
    signers = tmp_path / "allowed_signers"
    make(signers)
    result = check(signers)
    assert result.returncode == 4
    (fault,) = json.loads(result.stdout)["faults"]
    assert (fault["source"], fault["key"]) == (str(signers), "release.allowed_signers")
    assert (fault["problem"], bool(fault["remedy"])) == (problem, True)
    finding = await doctor(signers)
    assert (finding.state, bool(finding.remedy)) == (State.FAILED, True)
    assert finding.detail == f"{signers}: release.allowed_signers: {problem}"
    assert (Trust(signers).problem() is None) == problem.startswith("line 2")  # one of two will do


async def test_a_file_with_signers_is_fine(tmp_path: Path) -> None:
    """It is named among what was checked; without one there is nothing to look at."""
    signers = tmp_path / "allowed_signers"
    signers.write_text(make_signer(tmp_path).allowed_signers_line)
    result = check(signers)
    assert (result.returncode, str(signers) in json.loads(result.stdout)["checked"]) == (0, True)
    assert (await doctor(signers)).state is State.OK
    assert (await doctor(None)).state is State.SKIPPED


@pytest.mark.parametrize("beside", [True, False])
def test_the_machines_signers_are_looked_for_beside_a_configuration_elsewhere(
    tmp_path: Path, *, beside: bool
) -> None:
    """`make ami` checks agent.toml on a laptop, and takes allowed_signers from its folder into the image."""
    config = tmp_path / "agent.toml"
    config.write_text('[release]\nallowed_signers = "/etc/mayfly/allowed_signers"\n')
    if beside:
        (tmp_path / "allowed_signers").write_text(f"ada@example.com {KEY}\n")
    named = mayfly(
        "check", "--json", "--config", str(config), environ=surroundings({}), at=tmp_path
    )
    found = json.loads(named.stdout)
    assert str(tmp_path / "allowed_signers") in found["checked"]
    assert (named.returncode, found["faults"] == []) == ((0, True) if beside else (4, False))
    assert beside or "lay it beside agent.toml" in found["faults"][0]["remedy"]

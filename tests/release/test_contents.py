"""What of a repository arrives on disk, and what does not: nothing in it is executed, nothing leads out."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from agent.base import processes
from agent.base.errors import ReleaseError
from tests.parts.gitserver import GitServer
from tests.parts.repo import GIT_ENVIRON, Repo
from tests.release.conftest import JOBS, Computer, kinds, reason_of

HOOKS = (
    *("pre-receive", "update", "post-receive", "post-update", "pre-push", "reference-transaction"),
    *("post-checkout", "post-merge", "pre-auto-gc", "fsmonitor-watchman", "post-index-change"),
)


Planted = tuple[str, str, str]
"""Mode, name and content of an entry; for a folder its one file's content, for a submodule a commit."""


def _plant(repo: Repo, entries: list[Planted]) -> None:
    """Push a tag v2.0 of a tree that git's own front door would refuse."""
    entries = [*entries, ("100644", "jobs.toml", JOBS)]
    texts = {content for _, _, content in entries}
    blobs = {text: _git(repo, text, "hash-object", "-w", "--stdin") for text in texts}
    lines = []
    for mode, name, content in entries:
        what = f"{mode} blob {blobs[content]}"
        if mode == "160000":
            what = f"{mode} commit {content}"
        if mode == "040000":
            tree = _git(repo, f"100644 blob {blobs[content]}\tconfig\0", "mktree", "-z")
            what = f"{mode} tree {tree}"
        lines.append(f"{what}\t{name}\0")
    tree = _git(repo, "".join(lines), "mktree", "-z", "--missing")
    repo.git("tag", "v2.0", _git(repo, "", "commit-tree", "-m", "Planted", tree))
    repo.push()


def _git(repo: Repo, text: str, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=repo.work,
        input=text,
        env={"PATH": "/usr/bin:/bin", **GIT_ENVIRON},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def _program(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


async def test_files_arrive_as_committed(computer: Computer) -> None:
    """Bytes, names, executable bits and links inside the tree are kept; everything is read-only."""
    content = bytes(range(256)) * 1000
    repo = computer.repo
    repo.write("data/見積 2026 😀.bin", content)
    repo.write("bin/run me", "#!/bin/sh\necho ran\n", executable=True)
    repo.write("crlf.txt", b"a\r\nb\r\n")
    (repo.work / "deep/er").mkdir(parents=True)
    (repo.work / "deep/er/link").symlink_to("../../data")
    (repo.work / "dangling").symlink_to("later")
    computer.publish("v1.0", {"batch/night.toml": JOBS, "empty": ""})
    release = (await computer.obtain(jobs="batch/night.toml")).release
    assert release.jobs.job[0].name == "greet"
    tree = release.tree
    assert (tree / "data/見積 2026 😀.bin").read_bytes() == content
    assert (tree / "deep/er/link/見積 2026 😀.bin").read_bytes() == content
    assert (tree / "dangling").readlink() == Path("later")
    assert (tree / "empty").read_bytes() == b""
    assert (tree / "crlf.txt").read_bytes() == b"a\r\nb\r\n"
    done = await processes.run([str(tree / "bin/run me")], environ=computer.environ, seconds=10)
    assert done.stdout == b"ran\n"
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o555 if path.is_dir() or path.name == "run me" else 0o444)
    assert not (tree / ".git").exists()


@pytest.mark.parametrize("way", ["path", "http"])
async def test_nothing_of_a_hostile_repository_or_mirror_is_executed(
    computer: Computer, git_server: GitServer, way: str, tmp_path: Path
) -> None:
    """Hooks, monitors, filters, helpers, attributes and addresses: no canary appears, and no byte is changed."""
    canary = tmp_path / "canary"
    program = tmp_path / "evil.sh"
    script = f"#!/bin/sh\ntouch {canary}\ncat\n"
    _program(program, script)
    text = "$Id$ $Format:%H$ text\n"
    computer.publish(
        "v1.0",
        {
            "jobs.toml": JOBS,
            ".gitattributes": "* filter=evil diff=evil ident export-subst text eol=crlf\n",
            ".lfsconfig": f"[lfs]\n\turl = file://{program}\n",
            "file.txt": text,
        },
    )
    bare = computer.repo.bare
    for name in HOOKS:
        for folder in (bare / "evil-hooks", bare / "hooks"):
            _program(folder / name, script)
    programs = (
        *("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.alternateRefsCommand"),
        *("core.pager", "core.editor", "gpg.program", "gpg.ssh.program", "credential.helper"),
        *("filter.evil.smudge", "filter.evil.clean", "filter.evil.process", "diff.evil.textconv"),
        *("uploadpack.packObjectsHook", "remote.origin.uploadpack"),
    )
    settings = {
        **dict.fromkeys(programs, program),
        "core.hooksPath": bare / "evil-hooks",
        "remote.origin.promisor": "true",
        "remote.origin.url": tmp_path / "nowhere",
        "filter.evil.required": "true",
        "alias.ls-remote": f"!{program}",
    }
    for key, value in settings.items():
        computer.repo.git("config", key, str(value), at=bare)
    computer.repository = git_server.url() if way == "http" else str(bare)
    release = (await computer.run_well()).release
    assert (release.tree / "file.txt").read_bytes() == text.encode()
    mirror = computer.release_store.mirror
    for name in HOOKS:
        _program(mirror / "hooks" / name, script)
    for name in ("config", ".gitconfig"):
        (mirror / name).write_text(
            f"[core]\n\tbare = true\n\tfsmonitor = {program}\n\talternateRefsCommand = {program}\n"
            f"[credential]\n\thelper = {program}\n"
            f'[url "{tmp_path}/other"]\n\tinsteadOf = {git_server.base_url}\n'
        )
    (mirror / "objects/info").mkdir(exist_ok=True)
    (mirror / "objects/info/alternates").write_text(str(bare / "objects"))
    assert not canary.exists()
    computer.publish("v2.0", {"new": "x"})
    canary.unlink(missing_ok=True)  # the repository's own hooks, which this push has run
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v2.0", None)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("160000", "lib", "a" * 40)], "'lib' is a submodule"),
        ([("120000", "door", "/etc/passwd")], "'door' is a link out of the release"),
        ([("120000", "door", "sub/../../x")], "'door' is a link out of the release"),
        ([("040000", ".git", "[core]\n")], ""),
        ([("040000", ".GIT", "[core]\n")], ""),
        ([("040000", "..", "x")], ""),
        # A link and a folder at once, as in git's old bugs.
        ([("120000", "a", ".."), ("040000", "a", "x")], ""),
        (
            [("100644", f"f{number:05d}", "") for number in range(20_001)],
            "it has 20002 files, more than 20000",
        ),
    ],
    ids=["submodule", "link", "link up", "git", "git's alias", "way up", "through a link", "many"],
)
async def test_what_may_not_be_installed_leaves_the_last_good_release(
    computer: Computer, entries: list[Planted], words: str
) -> None:
    """A tree that leads out, or is too large, is refused with its reason, and nothing of it arrives."""
    good = await computer.ran("v1.0")
    before = sorted(computer.state.iterdir())
    _plant(computer.repo, entries)
    obtained = await computer.obtain()
    assert obtained.release.commit == good
    assert obtained.stale is not None
    assert (obtained.stale.wanted, words in obtained.stale.reason) == ("v2.0", True)
    store = computer.release_store
    assert [place.parent.name for place in store.releases.glob("*/release.json")] == [good]
    assert not [*store.releases.glob("**/config"), *store.releases.glob("*/tree/f*")]
    assert sorted(computer.state.iterdir()) == before


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["pipes", "a file", "a link to nothing"])
async def test_what_stands_in_the_way_of_our_own_files_is_replaced(
    computer: Computer, way: str
) -> None:
    """A job that is the agent's own user may leave anything; a pipe would be read for ever, by each later run."""
    commit = await computer.ran("v1.0")
    store = computer.release_store
    if way == "pipes":
        mirror = [store.mirror / name for name in ("HEAD", "config", ".gitconfig")]
        for file in (*mirror, store.copy, store.root(commit) / "release.json"):
            file.unlink()
            os.mkfifo(file)
    else:
        store.mirror.rename(computer.state / "away")
        if way == "a file":
            store.mirror.write_text("")
        else:
            store.mirror.symlink_to("nowhere")
    computer.publish("v2.0", {"more": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v2.0", None)


@pytest.mark.parametrize(
    ("folders", "wide", "words"),
    [(9, 10, "it has too many files"), (400, 1, "it has more than 20000 folders")],
    ids=["files", "folders"],
)
async def test_a_few_objects_that_are_millions_of_files_cost_nothing(
    computer: Computer, folders: int, wide: int, words: str
) -> None:
    """Each folder may be the same one; a first boot takes the older release all the same."""
    good = computer.publish("v1.0")
    blob = _git(computer.repo, "", "hash-object", "-w", "--stdin")
    tree = _git(computer.repo, f"100644 blob {blob}\tfile\0", "mktree", "-z")
    for width in (*[wide] * folders, 100):
        lines = [f"040000 tree {tree}\t{number}\0" for number in range(width)]
        tree = _git(computer.repo, "".join(lines), "mktree", "-z")
    computer.repo.git("tag", "v2.0", _git(computer.repo, "", "commit-tree", "-m", "Many", tree))
    computer.repo.push()
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (good, ["content"])
    assert words in reason_of(obtained)
    assert obtained.record.unreachable_since is None


@pytest.mark.parametrize(
    ("jobs", "reasons"),
    [
        (
            '[[job]]\nname = "a b"\ncommand = ["sh"]\ntimout = "1m"\nretries = 99\n',
            ["job[a b].name", 'unknown key (did you mean "timeout"?)', "job[a b].retries"],
        ),
        ("[[job]\n", ["not valid TOML"]),
        (None, ["it has no jobs.toml"]),
        ("", ["job: is missing"]),
        (
            (
                '[[job]]\nname = "a"\ncommand = ["no-such-program"]\n'
                '[[job]]\nname = "b"\ncommand = ["./not-there.sh"]\n'
                '[[job]]\nname = "c"\ncommand = ["./plain.sh"]\n'
                '[[job]]\nname = "d"\ncommand = ["./program.sh"]\n'
            ),
            ['no program "no-such-program"', '"./not-there.sh" is not', '"./plain.sh" is not'],
        ),
    ],
    ids=["three faults", "syntax", "missing", "empty", "programs"],
)
async def test_all_faults_of_a_jobs_file_are_in_the_reason(
    computer: Computer, jobs: str | None, reasons: list[str]
) -> None:
    """A release that cannot run leaves the last good one, and says everything that is wrong at once."""
    await computer.ran("v1.0")
    computer.repo.write("program.sh", "#!/bin/sh\nexit 0\n", executable=True)
    (computer.repo.work / "jobs.toml").unlink()
    files = {} if jobs is None else {"jobs.toml": jobs}
    computer.publish("v2.0", {"plain.sh": "exit 0\n", **files})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    for reason in reasons:
        assert reason in reason_of(obtained)
    assert "program.sh" not in reason_of(obtained)


async def test_a_jobs_file_that_is_no_text_is_refused(computer: Computer) -> None:
    """Bytes that are not UTF-8, a file without an end, a folder: a reason each, no traceback."""
    computer.repo.write("jobs.toml", b"\xff\xfe")
    computer.publish("v1.0", {"endless.toml": "#" * (1024**2 + 1), "folder/x": ""})
    for name, reason in (
        ("jobs.toml", "cannot be read"),
        ("endless.toml", "is larger than"),
        ("folder", "cannot be read"),
        ("../jobs.toml", "dot segment"),
    ):
        with pytest.raises(ReleaseError, match=reason):
            await computer.obtain(jobs=name)

"""What of a repository arrives on disk, and what does not: nothing in it is executed, nothing leads out."""

import stat
import subprocess
from pathlib import Path

import pytest

from agent.base import processes
from agent.base.errors import ReleaseError
from tests.parts.gitserver import GitServer
from tests.parts.repo import GIT_ENVIRON, Repo
from tests.release.conftest import JOBS, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")

HOOKS = (
    *("pre-receive", "update", "post-receive", "post-update", "pre-push", "reference-transaction"),
    *("post-checkout", "post-merge", "pre-auto-gc", "fsmonitor-watchman", "post-index-change"),
)


def _plant(repo: Repo, tag: str, entries: list[tuple[str, str, str]]) -> None:
    """Tag and push a tree that git's own front door would refuse; `(mode, name, content)` each.

    For a mode of a folder or a submodule the content is an object's id.
    """
    lines = []
    for mode, name, content in entries:
        kind = {"040000": "tree", "160000": "commit"}.get(mode, "blob")
        oid = content if kind != "blob" else _git(repo, content, "hash-object", "-w", "--stdin")
        lines.append(f"{mode} {kind} {oid}\t{name}\0")
    tree = _git(repo, "".join(lines), "mktree", "-z", "--missing")
    commit = _git(repo, "", "commit-tree", "-m", "Planted", tree)
    repo.git("tag", tag, commit)
    repo.push()


def _tree(repo: Repo, *entries: tuple[str, str, str]) -> str:
    lines = []
    for mode, name, content in entries:
        oid = _git(repo, content, "hash-object", "-w", "--stdin")
        lines.append(f"{mode} blob {oid}\t{name}\0")
    return _git(repo, "".join(lines), "mktree", "-z")


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


async def test_files_arrive_as_committed(computer: Computer, repo_builder: Repo) -> None:
    """Bytes, names, executable bits and links inside the tree are kept; everything is read-only."""
    content = bytes(range(256)) * 1000
    repo_builder.write("jobs.toml", JOBS)
    repo_builder.write("data/見積 2026 😀.bin", content)
    repo_builder.write("bin/run me", "#!/bin/sh\necho ran\n", executable=True)
    repo_builder.write("empty", "")
    repo_builder.write("crlf.txt", b"a\r\nb\r\n")
    (repo_builder.work / "deep/er").mkdir(parents=True)
    (repo_builder.work / "deep/er/link").symlink_to("../../data")
    (repo_builder.work / "dangling").symlink_to("later")
    repo_builder.commit()
    repo_builder.tag("v1.0")
    repo_builder.push()
    tree = (await computer.obtain()).release.tree
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
async def test_nothing_of_a_hostile_repository_is_executed(
    computer: Computer, repo_builder: Repo, git_server: GitServer, way: str, tmp_path: Path
) -> None:
    """Hooks, monitors, filters, helpers and attributes: no canary file appears, and no byte is changed."""
    canary = tmp_path / "canary"
    program = tmp_path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    program.chmod(0o755)
    text = "$Id$ $Format:%H$ text\n"
    repo_builder.release(
        "v1.0",
        {
            "jobs.toml": JOBS,
            ".gitattributes": "* filter=evil diff=evil ident export-subst text eol=crlf\n",
            ".lfsconfig": f"[lfs]\n\turl = file://{program}\n",
            "file.txt": text,
        },
    )
    hooks = repo_builder.bare / "evil-hooks"
    hooks.mkdir()
    for name in HOOKS:
        for folder in (hooks, repo_builder.bare / "hooks"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(program.read_text())
            (folder / name).chmod(0o755)
    settings = {
        **dict.fromkeys(("core.fsmonitor", "core.sshCommand", "core.gitProxy"), program),
        **dict.fromkeys(("core.alternateRefsCommand", "core.pager", "core.editor"), program),
        **dict.fromkeys(("gpg.program", "gpg.ssh.program", "credential.helper"), program),
        **dict.fromkeys(("filter.evil.smudge", "filter.evil.clean"), program),
        **dict.fromkeys(("filter.evil.process", "diff.evil.textconv"), program),
        **dict.fromkeys(("uploadpack.packObjectsHook", "remote.origin.uploadpack"), program),
        "core.hooksPath": hooks,
        "remote.origin.promisor": "true",
        "remote.origin.url": tmp_path / "nowhere",
        "filter.evil.required": "true",
        "alias.ls-remote": f"!{program}",
    }
    for key, value in settings.items():
        repo_builder.git("config", key, str(value), at=repo_builder.bare)
    computer.repository = git_server.url() if way == "http" else str(repo_builder.bare)
    release = (await computer.obtain()).release
    assert (release.tree / "file.txt").read_bytes() == text.encode()
    assert not canary.exists()


async def test_a_mirror_that_a_job_tampered_with_executes_nothing(
    computer: Computer, repo_builder: Repo, git_server: GitServer, tmp_path: Path
) -> None:
    """The mirror's configuration and hooks are the agent's, whatever was written there meanwhile."""
    canary = tmp_path / "canary"
    program = tmp_path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.repository = git_server.url()
    await computer.run_well()
    mirror = computer.release_store.mirror
    (mirror / "hooks").mkdir()
    for name in HOOKS:
        (mirror / "hooks" / name).write_text(program.read_text())
        (mirror / "hooks" / name).chmod(0o755)
    for file in ("config", ".gitconfig"):
        (mirror / file).write_text(
            f"[core]\n\tbare = true\n\tfsmonitor = {program}\n\talternateRefsCommand = {program}\n"
            f"[credential]\n\thelper = {program}\n"
            f'[url "{tmp_path}/other"]\n\tinsteadOf = {git_server.base_url}\n'
        )
    (mirror / "objects/info").mkdir(exist_ok=True)
    (mirror / "objects/info/alternates").write_text(str(repo_builder.bare / "objects"))
    repo_builder.release("v2.0", {"new": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v2.0", None)
    assert not canary.exists()


async def test_what_may_not_be_installed_leaves_the_last_good_release(
    computer: Computer, repo_builder: Repo
) -> None:
    """A submodule is refused with its reason, and yesterday's release runs."""
    commit = await computer.ran(repo_builder, "v1.0")
    _plant(repo_builder, "v2.0", [("100644", "jobs.toml", JOBS), ("160000", "lib", commit)])
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert obtained.stale is not None
    assert obtained.stale.wanted == "v2.0"
    assert "'lib' is a submodule" in obtained.stale.reason
    assert [
        place.name for place in computer.release_store.releases.iterdir() if place.is_dir()
    ] == [commit]


HOSTILE = {
    "a link to the root": ("120000", "door", "/etc/passwd", "'door' is a link out of the release"),
    "a link upwards": ("120000", "door", "sub/../../x", "'door' is a link out of the release"),
    "git's own folder": ("040000", ".git", "", "no usable release"),
    "git's own folder, elsewhere": ("040000", ".GIT", "", "no usable release"),
    "a way up": ("040000", "..", "", "no usable release"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_tree_that_leads_out_is_refused(
    computer: Computer, repo_builder: Repo, name: str
) -> None:
    """A link out of the release, a folder that would be a repository's own, or a way up: nothing arrives."""
    mode, path, content, words = HOSTILE[name]
    content = content or _tree(repo_builder, ("100644", "config", "[core]\n"))
    _plant(repo_builder, "v1.0", [(mode, path, content), ("100644", "jobs.toml", JOBS)])
    with pytest.raises(ReleaseError, match=words):
        await computer.obtain()
    assert not list(computer.release_store.releases.glob("*/release.json"))


async def test_a_tree_that_writes_through_its_own_link_is_refused(
    computer: Computer, repo_builder: Repo, tmp_path: Path
) -> None:
    """A name that is a link and a folder at once, as in git's old bugs, writes nothing outside."""
    folder = _tree(repo_builder, ("100644", "owned", "x"))
    outside = tmp_path / "outside"
    outside.mkdir()
    _plant(
        repo_builder,
        "v1.0",
        [("120000", "a", str(outside)), ("040000", "a", folder), ("100644", "jobs.toml", JOBS)],
    )
    with pytest.raises(ReleaseError, match=r"no usable release"):
        await computer.obtain()
    assert list(outside.iterdir()) == []


async def test_too_many_files_are_refused_before_any_is_written(
    computer: Computer, repo_builder: Repo
) -> None:
    """Twenty thousand and more files are counted in the listing, and none reaches the disk."""
    blob = _git(repo_builder, "x", "hash-object", "-w", "--stdin")
    lines = "".join(f"100644 blob {blob}\tf{number:05d}\0" for number in range(20_001))
    tree = _git(repo_builder, lines, "mktree", "-z")
    repo_builder.git("tag", "v1.0", _git(repo_builder, "", "commit-tree", "-m", "Many", tree))
    repo_builder.push()
    with pytest.raises(ReleaseError, match="it has 20001 files, more than 20000"):
        await computer.obtain()
    assert not list(computer.release_store.releases.glob("*/tree"))


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
    computer: Computer, repo_builder: Repo, jobs: str | None, reasons: list[str]
) -> None:
    """A release that cannot run leaves the last good one, and says everything that is wrong at once."""
    await computer.ran(repo_builder, "v1.0")
    repo_builder.write("plain.sh", "exit 0\n")
    repo_builder.write("program.sh", "#!/bin/sh\nexit 0\n", executable=True)
    if jobs is None:
        (repo_builder.work / "jobs.toml").unlink()
        repo_builder.release("v2.0", {"other": "x"})
    else:
        repo_builder.release("v2.0", {"jobs.toml": jobs})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    for reason in reasons:
        assert reason in reason_of(obtained)
    assert "program.sh" not in reason_of(obtained)


async def test_a_jobs_file_that_is_no_text_is_refused(
    computer: Computer, repo_builder: Repo
) -> None:
    """Bytes that are not UTF-8, a file without an end, a folder: a reason each, no traceback."""
    repo_builder.write("jobs.toml", b"\xff\xfe")
    repo_builder.write("endless.toml", "#" * (1024**2 + 1))
    repo_builder.write("folder/x", "")
    repo_builder.commit()
    repo_builder.tag("v1.0")
    repo_builder.push()
    for name, reason in (
        ("jobs.toml", "cannot be read"),
        ("endless.toml", "is larger than"),
        ("folder", "cannot be read"),
        ("../jobs.toml", "dot segment"),
    ):
        with pytest.raises(ReleaseError, match=reason):
            await computer.obtain(jobs=name)


async def test_the_jobs_file_may_be_elsewhere_in_the_release(
    computer: Computer, repo_builder: Repo
) -> None:
    """`release.jobs` names another file than `jobs.toml`."""
    repo_builder.release("v1.0", {"batch/night.toml": JOBS})
    assert (await computer.obtain(jobs="batch/night.toml")).release.jobs.job[0].name == "greet"

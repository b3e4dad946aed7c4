"""The bare repository that the agent owns: refs are fetched into it, and trees exported from it."""

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.base import durable, processes
from agent.base.errors import ReleaseError, ReleaseRefused
from agent.base.regular import read_regular
from agent.base.units import show_size
from agent.release.git import Git, GitError
from agent.release.repository import (
    ObjectFormat,
    Trouble,
    Wanted,
    format_of,
    parse_refs,
)
from agent.release.tree import MAX_BYTES, Entry, Kind, link_problems, parse_listing, tree_problems
from agent.release.trust import Signed

FETCHED = "refs/mayfly/wanted"
"""The fetched ref's name in the mirror: under its upstream name, a moved tag would clash."""

MAX_SIGNED_BYTES = 64 * 1024
"""Largest tag or commit object: a signature has 300 bytes, and no message is that long."""
MAX_CONFIG_BYTES = 4096
LOOK_SECONDS = 0.1
"""Pause between two checks of a fetch's size: at 1 GB/s, 100 MB too much arrive meanwhile."""

_CHUNK_BYTES = 64 * 1024

_CONFIGS: Mapping[ObjectFormat, str] = {
    "sha1": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
    "sha256": (
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n"
        "[extensions]\n\tobjectFormat = sha256\n"
    ),
}
"""The mirror's whole configuration."""


class Mirror:
    """A bare mirror of one repository, at a place of the agent's own.

    Args:
        git: git, in the mirror's directory, whose content may be removed and made anew at any time.
        most: Bytes that one fetch may bring.
    """

    def __init__(self, git: Git, most: int = MAX_BYTES) -> None:
        self._git = git
        self._place = git.mirror
        self._most = most

    async def prepare(self, object_format: ObjectFormat | None = None) -> None:
        """Make the mirror, or repair one that a killed agent left; by default in the object format that it has.

        Raises:
            ReleaseError: It cannot be made.
        """
        made = object_format or self._object_format()
        try:
            try:
                self._make(made)
            except OSError:
                await self.discard()
                self._make(made)
        except OSError as error:
            raise ReleaseError(f"the mirror {self._place} cannot be used: {error}") from error

    async def discard(self) -> None:
        """Remove the mirror: it only saves transfers."""
        self._git.log.warning("release.mirror_discarded")
        with suppress(OSError):  # whoever makes it anew says what is in the way
            await asyncio.to_thread(durable.remove_tree, self._place)

    async def _adopt(self, object_format: ObjectFormat) -> None:
        """Use the repository's object format; a mirror of the other format is made anew."""
        if object_format != self._object_format():
            await self.discard()
            await self.prepare(object_format)

    def _object_format(self) -> ObjectFormat:
        """Return the mirror's object format; sha1 if its configuration is not ours."""
        with suppress(OSError):
            config = read_regular(self._place / "config", MAX_CONFIG_BYTES)
            return "sha256" if config == _CONFIGS["sha256"].encode() else "sha1"
        return "sha1"

    def _make(self, object_format: ObjectFormat) -> None:
        """Write what makes a directory a repository, each time: a job may have tampered with it."""
        for folder in ("objects", "refs"):
            (self._place / folder).mkdir(parents=True, exist_ok=True)
        # The global configuration is the one kind that the `git upload-pack` of a local repository sees, which may be
        # another user's. Git touches no other repository than that and the mirror, so any may be named safe.
        trust = "[safe]\n\tdirectory = *\n" if self._git.repository.local else ""
        texts = {
            "HEAD": "ref: refs/heads/none\n",
            "config": _CONFIGS[object_format],
            ".gitconfig": trust,
        }
        for name, text in texts.items():
            file, old = self._place / name, None
            with suppress(OSError):
                old = read_regular(file, MAX_CONFIG_BYTES)
            if old != text.encode():
                durable.write_atomic(file, text.encode())
        for leftover in (*self._place.rglob("*.lock"), *self._place.rglob("tmp_*")):
            leftover.unlink()  # of a killed git: nobody else works here

    async def refs(self, branch: str | None, *, until: float) -> dict[str, str]:
        """Return the refs of the repository: its tags, or one branch. One request to the server.

        Raises:
            GitError: It could not be asked.
        """
        what = "refs/tags/*" if branch is None else f"refs/heads/{branch}"
        return parse_refs(
            await self._git.network(
                "ls-remote", "--quiet", "--", self._git.repository.url, what, until=until
            )
        )

    async def fetch(self, wanted: Wanted, *, until: float) -> str:
        """Fetch one ref without its history, and return its commit on arrival.

        Raises:
            ReleaseRefused: It is too large.
            GitError: It could not be fetched.
        """
        await self._adopt(format_of(wanted.commit))
        await self._bounded(
            self._git.network(
                *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"),
                *("--no-auto-maintenance", "--no-write-fetch-head", "--update-shallow", "--"),
                *(self._git.repository.url, f"+{wanted.ref}:{FETCHED}"),
                until=until,
            )
        )
        commit = await self._git.local("rev-parse", "--verify", "--quiet", f"{FETCHED}^{{commit}}")
        return commit.decode().strip()

    async def _bounded(self, fetching: Coroutine[Any, Any, bytes]) -> None:
        """Fetch, and stop as soon as more has come than a release may be: git has no such limit."""
        task = asyncio.create_task(fetching)
        packs = self._place / "objects" / "pack"
        before = _size(packs)
        try:
            while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
                if _size(packs) - before > self._most:
                    raise ReleaseRefused(
                        "content",
                        f"fetching it brought more than {show_size(self._most)}",
                        remedy="take large files out of the release",
                    )
            await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                for leftover in packs.glob("tmp_*"):
                    leftover.unlink(missing_ok=True)

    async def signed(self, wanted: Wanted) -> Signed:
        """Return the object that must be signed: the tag itself, or a branch's commit.

        Raises:
            ReleaseRefused: The tag is no object, so that nobody can have signed it.
            GitError: git lost it.
        """
        if not wanted.is_tag:
            return Signed("commit", await self._object("commit", wanted.commit))
        kind = await self._git.local("cat-file", "-t", FETCHED)
        if kind.strip() != b"tag":
            raise ReleaseRefused(
                "unverified",
                f"the tag {wanted.name} is not signed: it is a lightweight one",
                remedy="make it with mayfly release new, or git tag --sign",
            )
        return Signed("tag", await self._object("tag", FETCHED))

    async def _object(self, kind: str, name: str) -> bytes:
        size = int(await self._git.local("cat-file", "-s", name))
        if size > MAX_SIGNED_BYTES:
            raise ReleaseRefused("content", f"its {kind} has {show_size(size)} of text")
        return await self._git.local("cat-file", kind, name)

    async def verify(self, signed: Signed, signers: Path) -> tuple[bool, str]:
        """Return whether git and ssh-keygen accept a signature, and their output.

        The object is put into the mirror first, so that a release can be verified whose mirror is gone.

        Raises:
            GitError: git rejects the object itself, or could not be asked.
        """
        await self._adopt(signed.object_format)
        made = await self._git.local(
            *("hash-object", "-w", "-t", signed.kind, "--stdin"),
            stdin=signed.data,
        )
        oid = made.decode().strip()
        return await self._git.verify(signed.kind, oid, signers)

    async def entries(self, commit: str) -> tuple[Entry, ...]:
        """Return the files of a commit, if all of them may be exported.

        Raises:
            ReleaseError: Some may not.
        """
        try:
            listing = await self._git.local("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
            entries, problems = await asyncio.to_thread(_judged, listing)
        except GitError as error:
            if error.trouble is not Trouble.ENDLESS:
                raise
            # A few small objects are enough: each folder of a tree may be the same one.
            raise ReleaseRefused("content", f"it has too many files: {error}") from error
        except ValueError as error:
            raise ReleaseError(f"its tree is not understood: {error}") from error
        _refuse(problems)
        return entries

    async def export(self, entries: Sequence[Entry], target: Path) -> None:
        """Write files into `target`, which is created: contents as committed, and the executable bit.

        Raises:
            ReleaseError: A link leads out, or the disk does not take it.
            GitError: git lost a file.
        """
        try:
            async with asyncio.timeout(self._git.seconds):
                await self._export(entries, target)
        except TimeoutError as error:
            raise ReleaseError(f"writing it took longer than {self._git.seconds:g} s") from error
        except asyncio.IncompleteReadError as error:
            raise GitError("git cat-file: ended early", Trouble.OTHER) from error
        except OSError as error:
            raise ReleaseError(f"it could not be written: {error}") from error

    async def _export(self, entries: Sequence[Entry], target: Path) -> None:
        await asyncio.to_thread(_make_folders, entries, target)
        targets: dict[str, str] = {}
        async with processes.started(
            (*self._git.command, "cat-file", "--batch"), environ=self._git.environ, stdin=True
        ) as git:
            if git.stdin is None or git.stdout is None:
                raise AssertionError("it was started with pipes")
            git.stdin.write("".join(f"{entry.oid}\n" for entry in entries).encode())
            git.stdin.close()  # what is buffered is still written, while the answers are read
            for entry in entries:
                await _expect_header(git.stdout, entry)
                if entry.kind is Kind.LINK:
                    content = await git.stdout.readexactly(entry.bytes)
                    targets[entry.path] = content.decode(errors="surrogateescape")
                else:
                    await _copy(git.stdout, entry, target / entry.path)
                await git.stdout.readexactly(1)
        _refuse(await asyncio.to_thread(link_problems, targets))
        # Last: until now there was no link through which a file could have been written elsewhere.
        await asyncio.to_thread(_make_links, targets, target)


def _judged(listing: bytes) -> tuple[tuple[Entry, ...], list[str]]:
    entries = parse_listing(listing)
    return entries, tree_problems(entries)


def _make_folders(entries: Sequence[Entry], target: Path) -> None:
    for folder in {(target / entry.path).parent for entry in entries} | {target}:
        folder.mkdir(parents=True, exist_ok=True)


def _make_links(targets: Mapping[str, str], folder: Path) -> None:
    for path, points_to in targets.items():
        (folder / path).symlink_to(points_to)


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files, without those that disappear meanwhile."""
    total = 0
    for file in folder.glob("*"):
        with suppress(OSError):
            total += file.stat().st_size
    return total


async def _expect_header(stream: asyncio.StreamReader, entry: Entry) -> None:
    header = (await stream.readline()).decode().split()
    if header != [entry.oid, "blob", str(entry.bytes)]:
        raise GitError(f"git cat-file: {' '.join(header)} for {entry.path!a}", Trouble.OTHER)


async def _copy(stream: asyncio.StreamReader, entry: Entry, file: Path) -> None:
    mode = 0o755 if entry.kind is Kind.PROGRAM else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(file, flags, mode), "wb") as output:
        left = entry.bytes
        while left:
            chunk = await stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise asyncio.IncompleteReadError(b"", left)
            output.write(chunk)
            left -= len(chunk)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ReleaseRefused(
            "content",
            f"it may not be installed: {'; '.join(problems)}",
            remedy="take it out of the release",
        )

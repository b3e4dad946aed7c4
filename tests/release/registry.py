"""A registry with one tiny image, which can stop answering: the part of the protocol that a pull needs."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
import threading
import time

from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.ports import LOOPBACK

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
STALL_SECONDS = 60.0
"""Longer than any test waits."""
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def make_image() -> dict[str, tuple[str, bytes]]:
    """Make an image of one file that no other image has: an engine cannot have its layer already.

    Returns:
        Its parts by their digests, each with its media type; the first is the manifest.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        content = str(time.time_ns()).encode()
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    layer = gzip.compress(buffer.getvalue())
    config = json.dumps(
        {
            "architecture": MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(buffer.getvalue())]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest_of(layer)}],
        }
    ).encode()
    parts = {MANIFEST: manifest, CONFIG: config, LAYER: layer}
    return {digest_of(data): (kind, data) for kind, data in parts.items()}


def digest_of(data: bytes) -> str:
    """Return a digest as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(LoopbackHttp):
    """A registry at a loopback address, which an engine takes for one without TLS.

    Attributes:
        digest: The digest of its image.
        asked: The paths of all requests.
        stalls: A request whose path has this in it is not answered until it `wakes`; nothing by default.
        forges: Whether it gives other bytes than the digest says.
    """

    def __init__(self) -> None:
        self._parts = make_image()
        self.digest = next(iter(self._parts))
        self.asked: list[str] = []
        self.stalls: str | None = None
        self.forges = False
        self._awake = threading.Event()
        registry = self

        class Handler(QuietHandler):
            def _answer(self) -> None:
                registry.answer(self)

            do_GET = do_HEAD = _answer  # noqa: N815 -- the library's names

        super().__init__(Handler)

    @property
    def name(self) -> str:
        """The image's name, pinned by digest."""
        return f"{LOOPBACK}:{self.port}/browser@{self.digest}"

    def wakes(self) -> None:
        """Stall no more, and cut the connections that do: an engine goes on waiting for them when nobody else does."""
        self.stalls = None
        self._awake.set()

    def __exit__(self, *raised: object) -> None:
        self.wakes()
        super().__exit__(*raised)

    def answer(self, request: QuietHandler) -> None:
        """Answer one request, or do not."""
        self.asked.append(request.path)
        if self.stalls is not None and self.stalls in request.path:
            self._awake.wait(STALL_SECONDS)
            request.close_connection = True
            return
        kind, body = "application/json", b"{}"
        if request.path != "/v2/":
            kind, body = self._parts.get(request.path.rpartition("/")[2], ("", b""))
        if self.forges and kind == MANIFEST:
            body = body.replace(b"schemaVersion", b"schemaversion")
        headers = {
            "Content-Type": kind or "application/json",
            "Docker-Content-Digest": request.path.rpartition("/")[2],
        }
        request.answer(200 if kind else 404, body, headers)

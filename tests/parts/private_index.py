"""A package index that wants a login (PEP 503), with one small package."""

import hashlib
import io
import os
import subprocess
import zipfile
from pathlib import Path

import uv

from tests.parts.loopback_http import LoopbackHttp, QuietHandler, basic

PACKAGE = "teamtools"
USER = "reader"


def make_wheel(version: str) -> bytes:
    """Make a wheel whose module knows its version."""
    buffer, info = io.BytesIO(), f"{PACKAGE}-{version}.dist-info"
    texts = {
        f"{PACKAGE}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*texts, f"{info}/RECORD"))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**texts, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def lock(version: str, index: "PrivateIndex", folder: Path, password: str) -> dict[str, str]:
    """Have uv lock a project that wants the package from the index `team-index`; return its files."""
    project = f"""[project]
name = "locked"
version = "1"
requires-python = ">=3.11"
dependencies = ["{PACKAGE}=={version}"]

[tool.uv]
package = false

[[tool.uv.index]]
name = "team-index"
url = "{index.url}"
explicit = true

[tool.uv.sources]
{PACKAGE} = {{ index = "team-index" }}
"""
    (folder / "pyproject.toml").write_text(project)
    login = {"UV_INDEX_TEAM_INDEX_USERNAME": USER, "UV_INDEX_TEAM_INDEX_PASSWORD": password}
    command = [uv.find_uv_bin(), "lock", "--quiet", "--no-cache"]
    subprocess.run(command, cwd=folder, env=os.environ | login, check=True, timeout=120)
    return {"pyproject.toml": project, "uv.lock": (folder / "uv.lock").read_text()}


class PrivateIndex(LoopbackHttp):
    """An index, as a context manager.

    Attributes:
        requests: The target of each request that was let in.
        refusal: The status for whom it does not let in.
    """

    def __init__(self, *versions: str) -> None:
        super().__init__(_Handler)
        self.wheels = {
            f"{PACKAGE}-{version}-py3-none-any.whl": make_wheel(version) for version in versions
        }
        self.requests: list[str] = []
        self.authorization = ""
        self.refusal = 401

    def admit(self, password: str) -> None:
        """Let in who has this password, and nobody else any longer."""
        self.authorization = basic(USER, password)

    @property
    def url(self) -> str:
        """The address of its list of packages."""
        return f"{super().url}/simple"


class _Handler(QuietHandler):
    owner: PrivateIndex

    def _serve(self) -> None:
        index = self.owner
        if self.headers.get("Authorization") != index.authorization:
            self.answer(index.refusal, b"no", {"WWW-Authenticate": 'Basic realm="index"'})
            return
        index.requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if name in index.wheels:
            self.answer(200, index.wheels[name])
        elif self.path.rstrip("/") == f"/simple/{PACKAGE}":
            links = (
                f'<a href="/files/{name}#sha256={hashlib.sha256(wheel).hexdigest()}">{name}</a>'
                for name, wheel in index.wheels.items()
            )
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
            self.answer(200, page.encode(), {"Content-Type": "text/html"})
        else:
            self.answer(404)

    do_GET = do_HEAD = _serve  # noqa: N815 -- the library's names

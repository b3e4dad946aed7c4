"""A package index on the loopback (PEP 503) with packages that are made here: each run of a benchmark has the same."""

import hashlib
import io
import random
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.parts.loopback_http import LoopbackHttp, QuietHandler

MODULES, FUNCTIONS, BINARY_BYTES = 25, 40, 200_000
"""Of a package: its modules, the functions of each (150 lines), and incompressible bytes such as a compiled part."""
LOCK_SECONDS = 120.0


def make_wheel(name: str) -> bytes:
    """Return a wheel of about the size and the number of files of an ordinary package."""
    info, buffer = f"{name}-1.0.dist-info", io.BytesIO()
    dice = random.Random(name)  # noqa: S311 -- the same bytes each time
    files = {f"{name}/part_{number}.py": _module(dice).encode() for number in range(MODULES)}
    files |= {
        f"{name}/__init__.py": b"from . import part_0 as part_0\n",
        f"{name}/data.bin": dice.randbytes(BINARY_BYTES),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


def _module(dice: random.Random) -> str:
    return "\n".join(
        f"def function_{number}(value):\n"
        f"    table = {[dice.randrange(10**6) for _ in range(8)]}\n"
        f"    return [item + value for item in table if item % {dice.randrange(2, 9)}]\n"
        for number in range(FUNCTIONS)
    )


class Index:
    """An index of packages, as a context manager."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._wheels = {f"{name}-1.0-py3-none-any.whl": make_wheel(name) for name in names}
        self._http = LoopbackHttp(_handler(self._wheels))

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.__exit__(*raised)

    @property
    def port(self) -> int:
        """Where it listens, on the loopback."""
        return self._http.port

    def locked(
        self, folder: Path, names: tuple[str, ...], *, seen_at: str | None = None
    ) -> dict[str, str]:
        """Have uv lock a project with these packages; return its files.

        Args:
            folder: For the project; made anew.
            names: The packages.
            seen_at: The index's host for those who install, where it is not this machine.

        Raises:
            CalledProcessError: uv did not lock it.
        """
        wanted = ", ".join(f'"{name}==1.0"' for name in names)
        project = (
            '[project]\nname = "batch"\nversion = "1"\nrequires-python = ">=3.11"\n'
            f"dependencies = [{wanted}]\n\n[tool.uv]\npackage = false\n\n"
            f'[[tool.uv.index]]\nurl = "{self._http.url}/simple"\ndefault = true\n'
        )
        folder.mkdir()
        (folder / "pyproject.toml").write_text(project)
        uv = str(Path(sys.executable).with_name("uv"))
        command = [uv, "lock", "--quiet", "--no-cache"]
        subprocess.run(command, cwd=folder, check=True, timeout=LOCK_SECONDS)
        files = {"pyproject.toml": project, "uv.lock": (folder / "uv.lock").read_text()}
        if seen_at is not None:
            here = self._http.url.removeprefix("http://")
            files = {name: text.replace(here, seen_at) for name, text in files.items()}
        return {**files, "packages.txt": "\n".join(names)}


def _handler(wheels: Mapping[str, bytes]) -> type[QuietHandler]:
    digests = {name: hashlib.sha256(wheel).hexdigest() for name, wheel in wheels.items()}

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
            name = self.path.rstrip("/").rpartition("/")[2]
            file = name if name in wheels else f"{name}-1.0-py3-none-any.whl"
            if name in wheels:
                self.answer(200, wheels[name])
            elif file in wheels:
                link = f'<a href="/files/{file}#sha256={digests[file]}">{file}</a>'
                page = f"<!DOCTYPE html><html><body>{link}</body></html>"
                self.answer(200, page.encode(), {"Content-Type": "text/html"})
            else:
                self.answer(404)

        do_HEAD = do_GET  # noqa: N815 -- the library's name

    return Handler

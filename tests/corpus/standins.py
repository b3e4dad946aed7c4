"""Stand-ins for public base images, under the same tags in a registry that does not exist. No registry is needed.

What they have: a shell, this machine's Python in `python`, and in `selenium/...` something that speaks as much
WebDriver as a look whether it serves takes. A node makes its hub ready, as those of a Grid do.
"""

import hashlib
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from tests.parts.busybox_image import ensure_busybox
from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.docker_engine import DockerEngine

REGISTRY = "mayfly.test"
NAMED = re.compile(rf"{REGISTRY}/[a-z0-9._/-]+:[A-Za-z0-9._-]*[A-Za-z0-9]")
"""Of an image that a text names; the point at the end of a sentence is no part of it."""

WEBDRIVER = r"""#!/bin/sh
read -r verb path _
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
case "$verb ${path#/wd/hub}" in
  "POST /register") touch /tmp/node; body='{"value":null}' ;;
  "GET /status")
    ready=false; [ -e /tmp/node ] && ready=true
    body="{\"value\":{\"ready\":$ready,\"message\":\"stand-in\"}}" ;;
  "POST /session") body='{"value":{"sessionId":"1","capabilities":{"browserName":"chrome","browserVersion":"1"}}}' ;;
  *) body='{"value":null}' ;;
esac
printf 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
printf 'Content-Length: %s\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
"""
SERVE = """#!/bin/sh
case "$ROLE" in
  hub) rm -f /tmp/node ;;
  *) touch /tmp/node ;;
esac
sleep 1
exec nc -ll -p 4444 -e /opt/webdriver.sh
"""
NODE = """#!/bin/sh
until wget -q -O /dev/null --post-data x "http://$SE_EVENT_BUS_HOST:4444/register"; do sleep 0.3; done
echo "registered at $SE_EVENT_BUS_HOST"
exec sleep 600
"""
INIT = """#!/bin/sh
[ $$ = 1 ] || { echo "s6-overlay-suexec: fatal: can only run as pid 1"; exit 100; }
"$@"
"""
BASE = """FROM {busybox}
RUN for each in awk basename cp cut dirname find mktemp mv rm sed sort tar tr uname wc whoami crond; do \
  ln -s busybox /bin/$each; done; mkdir -p /usr/bin /usr/local/bin && ln -s /bin/env /usr/bin/env
"""
FILES = {
    "selenium": (
        "COPY webdriver.sh serve.sh node.sh /opt/\nRUN chmod +x /opt/*.sh\nEXPOSE 4444\n",
        {"webdriver.sh": WEBDRIVER, "serve.sh": SERVE, "node.sh": NODE},
    ),
    "s6": (
        'COPY init /init\nRUN chmod +x /init\nENTRYPOINT ["/init"]\n',
        {"init": INIT},
    ),
}


VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def ensure_all(engine: DockerEngine, text: str, folder: Path) -> None:
    """Have every stand-in that a text names in the engine."""
    label = ("image", "inspect", "--format", '{{index .Config.Labels "standin"}}')
    # Two at once would write one archive of Python.
    with one_at_a_time("standins"):
        for name in sorted(set(NAMED.findall(text))):
            if engine.docker(*label, name).stdout.strip() != VERSION:
                _build(engine, name, folder)


def _build(engine: DockerEngine, name: str, folder: Path) -> None:
    dockerfile, files = BASE.format(busybox=ensure_busybox(engine)), dict[str, str]()
    image = name.removeprefix(f"{REGISTRY}/").partition(":")[0]
    if "python" in image:
        dockerfile = f"{dockerfile}COPY --from={_python(engine)} / /\n{_PYTHON_ENV}"
    if image.startswith("selenium/"):
        more, files = FILES["selenium"]
        role = image.partition("/")[2]
        program = "/opt/node.sh" if role.startswith("node-") else "/opt/serve.sh"
        dockerfile += f'{more}ENV ROLE={role}\nCMD ["{program}"]\n'
    elif image.startswith("linuxserver/"):
        more, files = FILES["s6"]
        dockerfile += more
    dockerfile += f"LABEL standin={VERSION}\n"
    context = folder / hashlib.sha256(name.encode()).hexdigest()[:12]
    context.mkdir()
    for path, content in {**files, "Dockerfile": dockerfile}.items():
        (context / path).write_text(content)
    engine.build(name, context)


_PYTHON_ENV = """ENV PYTHONHOME=/usr/local LD_LIBRARY_PATH=/usr/local/lib PYTHONDONTWRITEBYTECODE=1
RUN printf '#!/bin/sh\\necho "stand-in for pip $*"\\n' > /usr/local/bin/pip && chmod +x /usr/local/bin/pip
"""


def _python(engine: DockerEngine) -> str:
    """Return the name of an image with this machine's Python and nothing else."""
    program = Path(sys.executable).resolve()
    name = f"{REGISTRY}/interpreter:{hashlib.sha256(f'{program} {sys.version}'.encode()).hexdigest()[:12]}"
    if engine.has(name):
        return name
    archive = cache_folder() / "python-root.tar"
    with tarfile.open(archive, "w") as tar:
        library = Path(sysconfig.get_path("stdlib"))
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        tar.add(program, f"usr/local/bin/{version}")
        for link in ("python", "python3"):
            entry = tarfile.TarInfo(f"usr/local/bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, version
            tar.addfile(entry)
        tar.add(library, f"usr/local/lib/{version}", filter=_without_extras)
        for source in _libraries([program, *library.glob("lib-dynload/*.so")]):
            is_loader = source.name.startswith("ld-linux")
            tar.add(
                source.resolve(), str(source)[1:] if is_loader else f"usr/local/lib/{source.name}"
            )
    engine.do("import", str(archive), name, seconds=120)
    archive.unlink()
    return name


_EXTRAS = re.compile(
    r"/(test|site-packages|dist-packages|idlelib|tkinter|ensurepip|lib2to3|__pycache__|config-[^/]*)(/|$)"
)


def _without_extras(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if _EXTRAS.search(entry.name) else entry


def _libraries(programs: list[Path]) -> list[Path]:
    """Return the libraries that programs are linked with, and their loader."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    named = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)
    return [Path(name) for name in dict.fromkeys(named)]

"""What the machines of these tests run, and how they are configured."""

from tests.parts.ec2.hardware import GIT, STORE
from tests.parts.machine_release import BROWSER_IMAGE, BUCKET
from tests.parts.repo import Repo

PREFIX = "/mayfly"
TOKEN = "a-secret-of-the-site"

CONFIG = f"""\
[release]
repository = "http://{GIT.removesuffix(":80")}/scrapers.git"
timeout = "60s"
trust = "none"

[browser]
image = "{BROWSER_IMAGE}"
sessions = 1
timeout = "4m"
shared_memory = "256MiB"

[limits]
run = "15m"
"""
"""Of the image: what a test stack and a production stack have in common."""

FORM = {
    "StoreUrl": f"s3://{BUCKET}/prod",
    "StoreEndpoint": f"http://{STORE.removesuffix(':80')}",
    "StoreRegion": "us-east-1",
    "ParameterPrefix": PREFIX,
    "Config": f"""\
store.credentials = "ssm:{PREFIX}/store"
[secrets]
source = "ssm:{PREFIX}/jobs"
""",
}
"""Of the stack: a bucket elsewhere, whose keys are in SSM, and a role to read them with."""

WHICH = """
[[job]]
name = "which"
command = ["sh", "which.sh"]
timeout = "3m"
secrets = ["TOKEN"]
"""

CONTAINED = """
[[job]]
name = "contained"
compose = "stack/compose.yml"
service = "python-scripts"
output = "/data"
timeout = "8m"
"""

BEGUN = "/slow-has-begun"
SLOW = f"""
[[job]]
name = "slow"
command = ["sh", "slow.sh"]
needs = ["which"]
timeout = "12m"
env = {{ BEGUN = "http://{GIT.removesuffix(":80")}{BEGUN}" }}
"""
"""Takes long, and says to the git server that it does."""

BROKEN = """
[[job]]
name = "which"
command = ["sh", "which.sh"]
timeout = "for ever"
"""

COMPOSE = f"""\
services:
  python-scripts:
    image: {BROWSER_IMAGE}
    user: root
    entrypoint: ["python3", "/app/main.py"]
    volumes:
      - ./:/app:ro
      - ./data:/data
"""

MAIN = '''\
"""What a job in a container sees of AWS."""

import json
import os
import socket

try:
    socket.create_connection(("169.254.169.254", 80), 10).close()
    metadata = "reached"
except OSError as error:
    metadata = type(error).__name__
names = sorted(name for name in os.environ if name.startswith("AWS"))
with open("/data/seen.json", "w") as file:
    json.dump({"metadata": metadata, "variables": names}, file)
'''

FILES = {
    "which.sh": """\
set -eu
cp release.txt "$MAYFLY_OUTPUT_DIR/which.txt"
printf %s "$TOKEN" | sha256sum | cut -d ' ' -f 1 > "$MAYFLY_OUTPUT_DIR/token.txt"
env | sed -n 's/^\\(AWS[^=]*\\)=.*/\\1/p' > "$MAYFLY_OUTPUT_DIR/aws.txt"
""",
    "slow.sh": 'curl --silent --max-time 20 "$BEGUN" > /dev/null\nsleep 600\n',
    "stack/compose.yml": COMPOSE,
    "stack/main.py": MAIN,
    "stack/data/.keep": "",
}

NAMES = ["which", "contained", "slow"]


def publish(repo: Repo, tag: str, *jobs: str, **more: str) -> str:
    """Publish a release of these jobs; return its commit."""
    retired = [name for name in NAMES if not any(f'name = "{name}"' in job for job in jobs)]
    head = f'requires = "mayfly >= 0.1"\nretired = {retired}\n'.replace("'", '"')
    files = {"jobs.toml": head + "".join(jobs), "release.txt": f"{tag}\n", **FILES, **more}
    if repo.git("ls-files"):
        repo.git("rm", "-r", "--quiet", ".")
    return repo.release(tag, files)

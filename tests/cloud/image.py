"""`make ami` against the stand-in EC2: the project's template and provisioning, by the real Packer."""

import json
import os
import shutil
from pathlib import Path

from tests.parts.aws import KEYS, REGION
from tests.parts.command import logged
from tests.parts.ec2.room import MachineRoom
from tests.parts.machine_disk import ROOT
from tests.parts.missing import program

PACKER = ROOT / "packer"
BUILD_SECONDS = 1500
VERSION, COMMIT, BUILT = "0.0.0", "abcdef0", "20261122T000000Z"


def build_image(room: MachineRoom, config: str, folder: Path) -> str:
    """Build the machine's image and return its id.

    `packer/ami.sh` refuses Debian's Packer, which cannot require IMDSv2; what it does is done here.
    """
    folder.mkdir()
    payload = _payload(config, room.trusted.file, folder)
    template = folder / "template"
    _run([str(PACKER / "template.sh"), str(template), "old"], folder)
    manifest = folder / "manifest.json"
    values = {
        "payload": payload,
        "version": VERSION,
        "commit": COMMIT,
        "built": BUILT,
        "region": REGION,
        "manifest": manifest,
        "endpoint": room.url,
        "ssh_host": "127.0.0.1",
        "ssh_port": room.login,
        "ssh_timeout": "12m",
    }
    words = [word for name, value in values.items() for word in ("-var", f"{name}={value}")]
    only = "-only=amazon-ebs.mayfly"
    _run([program("packer"), "build", "-color=false", only, *words, str(template)], folder)
    built = json.loads(manifest.read_text())["builds"][-1]
    return str(built["artifact_id"]).rpartition(":")[2]


def _payload(config: str, trusted: Path, folder: Path) -> Path:
    """Pack as `ami.sh` does, but for the packages, and with the certificate of an AWS that is not Amazon's."""
    (folder / "agent.toml").write_text(config)
    made = folder / "made.tar"
    words = [str(made), str(folder / "agent.toml"), VERSION, COMMIT, "amazon", "--seed"]
    _run([str(PACKER / "payload.sh"), *words], folder)
    _run(["tar", "-xf", str(made), "-C", str(folder)], folder)
    inside = folder / "mayfly"
    shutil.copyfile(inside / "packages-debian.sh", inside / "packages-amazon.sh")
    bundles = list(inside.glob("seed/cache/archive-v0/*/certifi/cacert.pem"))
    if not bundles:
        raise RuntimeError("the seed has no bundle of certificates to add one to")
    for bundle in bundles:
        bundle.write_bytes(bundle.read_bytes() + b"\n" + trusted.read_bytes())
    payload = folder / "payload.tar"
    owner = ["--owner", "0", "--group", "0", "--numeric-owner"]
    _run(["tar", "-C", str(folder), *owner, "-cf", str(payload), "mayfly"], folder)
    shutil.rmtree(inside)
    made.unlink()
    return payload


def _run(words: list[str], folder: Path) -> None:
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CACHE_DIR": str(folder / "packer"),
    }
    logged(words, folder / "build.log", environ=environ, seconds=BUILD_SECONDS)

"""The template and the scripts that make the image: what can be known of them without building one."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.parts.aws import Aws
from tests.parts.command import completed, script
from tests.parts.machine_disk import ROOT
from tests.parts.missing import program
from tests.parts.repo import make_signer

PACKER = ROOT / "packer"
SCRIPTS = sorted(path for path in PACKER.rglob("*.sh"))
QUIET = {**os.environ, "CHECKPOINT_DISABLE": "1"}


def ami(environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Try to build Amazon's image."""
    command = [str(PACKER / "ami.sh"), str(PACKER / "agent.example.toml")]
    return completed(command, environ=environ)


def blocks(kind: str) -> list[dict[str, Any]]:
    """Return the blocks of a kind in the full text, plugins included."""
    found: list[dict[str, Any]] = []
    for path in sorted(PACKER.glob("*.pkr.hcl")):
        found += hcl2.loads(path.read_text("utf-8")).get(kind, [])
    return found


def amazon() -> dict[str, Any]:
    """Return the source that makes Amazon's image."""
    text = json.dumps(blocks("source"))
    sources = json.loads(text.replace('\\"', ""))
    return next(one["amazon-ebs"]["mayfly"] for one in sources if "amazon-ebs" in one)


def test_packer_accepts_the_part_that_every_version_knows(tmp_path: Path) -> None:
    """Debian's Packer 1.6.6 validates both builders, once the modern lines are left out."""
    made = completed(
        [str(PACKER / "template.sh"), str(tmp_path / "template"), "old"], environ=QUIET
    )
    assert (made.returncode, made.stdout) == (0, "old\n"), made.stderr
    (tmp_path / "payload.tar").touch()
    make_signer(tmp_path).key.rename(tmp_path / "key")
    variables = {
        "payload": tmp_path / "payload.tar",
        "version": "1.0.0",
        "commit": "abc",
        "built": "20261122T000000Z",
        "disk": tmp_path,
        "output": tmp_path / "output",
    }
    for arch in ("x86_64", "arm64"):
        words = [f"-var={name}={value}" for name, value in {**variables, "arch": arch}.items()]
        done = completed(
            [program("packer"), "validate", *words, str(tmp_path / "template")], environ=QUIET
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_full_text_parses_and_requires_imdsv2() -> None:
    """A modern reader understands the whole; metadata needs a token while building and on every machine made of it."""
    source = amazon()
    assert source["imds_support"] == "v2.0"
    (options,) = source["metadata_options"]
    assert options["http_tokens"] == "required"
    assert options["http_put_response_hop_limit"] == 1
    (volume,) = source["launch_block_device_mappings"]
    assert volume["volume_type"] == "gp3"
    (base,) = source["source_ami_filter"]
    assert base["owners"] == ["amazon"]
    assert base["most_recent"] is True
    # The newest image of a pattern that several kernels match would be any of them.
    name = base["filters"]["name"]
    assert name == "al2023-ami-2023.*-kernel-${var.kernel}-${var.arch}"
    assert blocks("packer")[0]["required_plugins"]


def test_a_builder_ends_itself_whatever_becomes_of_packer() -> None:
    """Its user data switches it off, off is gone, and nothing is installed before that is certain."""
    source = amazon()
    assert re.search(r"^#!/bin/sh\\*n.*shutdown -h \+\$\{var.minutes\}", source["user_data"])
    assert source["shutdown_behavior"] == "terminate"
    steps = json.dumps(blocks("build"))
    assert 0 < steps.index("/run/systemd/shutdown/scheduled") < steps.index("provision.sh amazon")


def test_what_is_fenced_is_only_what_old_packers_refuse() -> None:
    """The fences come in pairs, once, so that both versions build from nearly the same text."""
    text = (PACKER / "mayfly.pkr.hcl").read_text("utf-8")
    marks = re.findall(r"^ *# (modern|end modern)$", text, re.MULTILINE)
    assert marks == ["modern", "end modern"]


def test_shell_scripts_stop_at_their_first_error() -> None:
    """What shellcheck says of them is a matter of `make check`."""
    lax = [path for path in SCRIPTS if "set -euo pipefail" not in path.read_text("utf-8")]
    assert (lax, len(SCRIPTS) > 5) == ([], True)


def test_cloud_init_starts_no_login(tmp_path: Path) -> None:
    """It wants sshd by its name: a service that is only disabled would run, one that is masked does not."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    service = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    (units / "sshd.service").write_text(service)
    (units / "sshd.socket").write_text("[Socket]\nListenStream=22\n")
    (units / "cloud-init.service").write_text(f"[Unit]\nWants=sshd.service\n{service}")
    root = f"--root={tmp_path}"
    systemctl(root, "enable", "sshd.service", "cloud-init.service")
    for name, state in (("debian", "enabled"), ("amazon", "masked")):
        login = [str(PACKER / "provision" / "login.sh"), name]
        assert completed(login, environ={**os.environ, "ROOT": str(tmp_path)}).returncode == 0
        assert systemctl(root, "is-enabled", "sshd.service") == f"{state}\n"


def systemctl(*words: str) -> str:
    """What systemctl says of a system that does not run."""
    return completed([program("systemctl"), *words]).stdout


@pytest.mark.parametrize("broken", ["", "--check"])
def test_a_kernel_that_cannot_keep_the_fence_ends_the_build(tmp_path: Path, broken: str) -> None:
    """Whether the rules cannot be put up, or are not there afterwards; with a kernel that can, the build goes on."""
    fence = script(tmp_path / "fence.sh", f'#!/bin/sh\n[ "$1" != "{broken}" ]\n')
    command, environ = [str(PACKER / "provision" / "fence.sh")], {**os.environ, "FENCE": str(fence)}
    done = completed(command, environ=environ)
    assert (done.returncode, "choose another base" in done.stderr) == (1, True)
    script(fence, f'#!/bin/sh\necho "$1" >>{tmp_path}/said\n')
    assert completed(command, environ=environ).returncode == 0
    assert (tmp_path / "said").read_text() == "\n--check\n"
    assert "step ./fence.sh\n" in (PACKER / "provision/provision.sh").read_text("utf-8")


STUBS = {
    "dnf": "",
    "systemctl": "",
    "uname": 'echo "$MACHINE"',
    # Its last words are where the file goes and where it comes from.
    "curl": 'echo "${@: -1}" >>"$SAID"; echo plugin >"${@: -2:1}"',
    "sha256sum": 'cat >>"$SAID"; exit "$CHECK"',
    "docker": 'echo "$1 v$(test "$1" = compose && echo 2.40.3 || echo "$SHOWN")"',
}


def packages(folder: Path, **given: str) -> "subprocess.CompletedProcess[str]":
    """Run Amazon's package step with programs that note what they are asked."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in STUBS.items():
        script(tools / name, f"#!/bin/bash\n{text}\n")
    environ = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "ROOT": str(folder),
        "SAID": str(folder / "said"),
        "MACHINE": "x86_64",
        "CHECK": "0",
        "SHOWN": "0.36.1",
        **given,
    }
    return completed([str(PACKER / "provision" / "packages-amazon.sh")], environ=environ)


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_compose_and_a_buildx_that_it_takes_are_installed(
    tmp_path: Path, machine: str, name: str
) -> None:
    """Each for its processor, with a checksum of its own, where docker looks before its package's folder."""
    done = packages(tmp_path, MACHINE=machine)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "usr/local/libexec/docker/cli-plugins"
    assert sorted(path.name for path in folder.iterdir()) == ["docker-buildx", "docker-compose"]
    said = (tmp_path / "said").read_text().splitlines()
    urls, sums = said[::2], [line.split()[0] for line in said[1::2]]
    assert [url.rpartition("/")[2] for url in urls] == [
        f"docker-compose-linux-{machine}",
        f"buildx-v0.36.1.linux-{name}",
    ]
    assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in sums)
    other = packages(tmp_path, MACHINE="aarch64" if machine == "x86_64" else "x86_64")
    assert other.returncode == 0
    more = (tmp_path / "said").read_text().splitlines()[len(said) :]
    assert set(sums).isdisjoint(line.split()[0] for line in more[1::2])


@pytest.mark.parametrize(
    "given", [{"CHECK": "1"}, {"SHOWN": "0.12.1"}, {"MACHINE": "riscv64"}], ids=str
)
def test_another_plugin_ends_the_build(tmp_path: Path, given: dict[str, str]) -> None:
    """One with another checksum, one that docker does not take, and a processor without any."""
    assert packages(tmp_path, **given).returncode == 1


GRUBBY = """\
#!/bin/bash
case $1 in
  --update-kernel=ALL) printf '%s\\n' "${2#--args=}" >>"$KEPT" ;;
  --info=DEFAULT) printf 'kernel="/boot/vmlinuz"\\nargs="ro %s"\\n' "$(cut -d ' ' -f "$TAKES" "$KEPT")" ;;
esac
"""


@pytest.mark.parametrize(("takes", "code"), [("1-", 0), ("1,2", 1)], ids=["all", "not all"])
def test_the_kernel_is_told_to_end_a_panic(tmp_path: Path, takes: str, code: int) -> None:
    """Every kernel of Amazon's image gets the words; grubby, here a stand-in, that does not take all ends the build."""
    script(tmp_path / "grubby", GRUBBY)
    kept = tmp_path / "kept"
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "KEPT": str(kept), "TAKES": takes}
    done = completed([str(PACKER / "provision" / "kernel.sh")], environ=environ)
    assert done.returncode == code, done.stderr
    assert kept.read_text() == "panic=10 rd.emergency=poweroff rd.shell=0\n"
    assert ("did not take rd.shell=0" in done.stderr) == bool(code)


def test_no_image_is_put_among_the_files_of_others(tmp_path: Path) -> None:
    """A folder with somebody's key in it is refused, before the build begins."""
    (tmp_path / "key").write_text("somebody's")
    # A build that is not refused fails with this cache.
    environ = {**QUIET, "MAYFLY_IMAGE_CACHE": "/dev/null/none"}
    built = completed([str(PACKER / "image.sh"), str(tmp_path)], environ=environ)
    assert (built.returncode, built.stdout) == (2, "")
    assert f"{tmp_path} holds files that no build made" in built.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_no_amazon_image_without_credentials(tmp_path: Path) -> None:
    """The first thing said is what is missing, and what to do about it; nothing is built."""
    environ = {key: value for key, value in QUIET.items() if not key.startswith("AWS_")}
    environ |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = ami(environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no AWS account to build in" in done.stderr
    assert "AWS_PROFILE" in done.stderr


def test_an_old_packer_is_refused_for_amazon(aws_stand_in: Aws, tmp_path: Path) -> None:
    """With an account, but with a Packer that would leave IMDSv1 open, nothing is built either."""
    script(tmp_path / "packer", "#!/bin/sh\necho 'Packer v1.6.6'\n")
    environ = {name: text for name, text in QUIET.items() if name != "AWS_REGION"}
    environ |= {**aws_stand_in.environ, "PATH": f"{tmp_path}:{QUIET['PATH']}"}
    # Where `make deploy` will look for it.
    done = ami({**environ, "AWS_DEFAULT_REGION": "eu-west-1"})
    assert done.returncode == 1
    assert re.search(r"ami: account \d+, region eu-west-1\n", done.stderr)
    assert "Packer 1.6.6 cannot require IMDSv2" in done.stderr


def test_the_image_is_recorded_where_the_deployment_looks(tmp_path: Path) -> None:
    """By region and architecture, the newest one; what was known of others stays."""
    destination = tmp_path / "aws" / "ami.json"
    for arch, image in (("x86_64", "ami-1"), ("arm64", "ami-2"), ("x86_64", "ami-3")):
        assert _record(tmp_path, destination, arch, f"ap-northeast-3:{image}") == f"{image}\n"
    known = json.loads(destination.read_text())["ap-northeast-3"]
    assert {arch: known[arch]["image"] for arch in known} == {"x86_64": "ami-3", "arm64": "ami-2"}
    assert known["x86_64"]["version"] == "1.0.0"


def _record(folder: Path, destination: Path, arch: str, artifact: str) -> str:
    facts = {"version": "1.0.0", "commit": "abc", "built": "20261122T000000Z", "arch": arch}
    build = {"name": "mayfly", "builder_type": "amazon-ebs", "artifact_id": artifact}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"builds": [{**build, "custom_data": facts}]}))
    done = completed(
        [str(program("python")), str(PACKER / "ami.py"), "record", str(manifest), str(destination)]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

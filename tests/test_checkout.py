"""What the repository has at its root."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_root_has_what_it_is_to_have() -> None:
    """A test or a command that leaves something in the checkout is not committed unseen."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    roots = {name.partition("/")[0] for name in listed.stdout.decode().split("\0") if name}
    folders = {
        "agent",
        "scrapers",
        "systemd",
        "packer",
        "tests",
        "consumer",
        "deploy",
        "benchmarks",
    }
    pages = {
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.ja.md",
        "README.md",
        "SECURITY.md",
    }
    rest = {".ci", ".dockerignore", ".github", ".gitignore", "Makefile", "docs"}
    assert roots == {*folders, *pages, *rest, "pyproject.toml", "uv.lock"}

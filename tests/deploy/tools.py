"""The programs that check what is deployed, and the places of what they check."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.config.overrides import Document, environment_overrides, parse_settings
from agent.config.settings import Settings
from tests.parts.command import completed, output_of
from tests.parts.missing import program

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "deploy" / "monitoring"
KUBERNETES = REPOSITORY / "deploy" / "kubernetes" / "home"


def run(
    tool: str, *arguments: str | Path, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said, whatever its exit code."""
    return completed([program(tool), *map(str, arguments)], at=cwd)


def accepts(tool: str, *arguments: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run a program that must be content, and return its standard output."""
    return output_of([program(tool), *map(str, arguments)], at=cwd)


def build(folder: Path) -> list[dict[str, Any]]:
    """Return the manifests of a folder, as kubectl builds them."""
    return list(yaml.safe_load_all(accepts("kubectl", "kustomize", folder)))


def only(kind: str, manifests: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the one resource of a kind."""
    (found,) = [one for one in manifests if one["kind"] == kind]
    return found


def validated(
    manifests: Iterable[Mapping[str, Any]], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Return what Kubernetes' own schemas say of manifests."""
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests), "utf-8")
    return run("kubernetes-validate", "--strict", file)


def without_rights(pod: Mapping[str, Any], writable: set[str]) -> dict[str, Any]:
    """Return a pod's one container, after a look at both: no rights, bounded memory, keys of the store from a Secret.

    Args:
        pod: The pod's specification.
        writable: Where it may write.
    """
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert {one["mountPath"] for one in container["volumeMounts"]} == writable
    assert {"secretRef": {"name": "mayfly-store"}} in container["envFrom"]
    return dict(container)


def understood(environ: Mapping[str, str]) -> Settings:
    """Return the agent's settings by an environment, of which it must understand every variable."""
    overrides, faults = environment_overrides(environ)
    parsed = parse_settings([Document("", "none")], overrides)
    assert [*faults, *parsed.faults] == []
    return parsed.settings

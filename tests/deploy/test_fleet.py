"""The manifests for shards in a cluster: what Kubernetes accepts, and what the agent makes of what it is told there."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from agent import __version__
from agent.base.errors import ExitCode
from agent.base.units import parse_duration
from agent.batch.shards import identify, shard_hints
from agent.contract.ids import Shard
from agent.machine.metadata import metadata_endpoint
from tests.deploy.tools import REPOSITORY, build, understood, validated, without_rights

FLEET = REPOSITORY / "deploy" / "kubernetes" / "fleet"
HOME_IMAGE = REPOSITORY / "deploy" / "home" / "Dockerfile"
IMAGE = REPOSITORY / "deploy" / "fleet" / "Dockerfile"


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """Return the manifests, by kind."""
    found = build(FLEET)
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


def job() -> dict[str, Any]:
    """Return what the CronJob makes."""
    found: dict[str, Any] = manifests()["CronJob"]["spec"]["jobTemplate"]["spec"]
    return found


def pod() -> dict[str, Any]:
    """Return a shard's pod."""
    found: dict[str, Any] = job()["template"]["spec"]
    return found


def variables() -> dict[str, str]:
    """Return a shard's environment as far as the manifests have it."""
    environ: dict[str, str] = dict(manifests()["ConfigMap"]["data"])
    return environ | {
        one["name"]: one["value"] for one in pod()["containers"][0]["env"] if "value" in one
    }


def test_the_manifests_are_sound(tmp_path: Path) -> None:
    """Kubernetes knows every key, and the agent every variable; nothing has a right, or switches a node off."""
    assert validated(manifests().values(), tmp_path).returncode == 0
    settings, spec = understood(variables()), pod()
    assert settings.browser.url == "http://selenium-hub:4444"
    assert settings.release.repository is not None
    # A shard may use its whole time more than once; on SIGTERM it has more than the jobs' grace.
    assert job()["activeDeadlineSeconds"] >= 2 * settings.limits.run
    assert spec["terminationGracePeriodSeconds"] >= settings.limits.grace + 60
    container = without_rights(spec, {"/var/lib/mayfly", "/tmp"})
    assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
    assert container["image"] == f"mayfly-fleet:{__version__}"
    assert "Secret" not in manifests()
    # Nobody comes in, and no shard reaches the metadata service.
    policy = manifests()["NetworkPolicy"]["spec"]
    labels = job()["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert policy["egress"][1]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    # On a node of EC2 a shard would wait for it, because the policy drops what it asks.
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert metadata_endpoint(variables(), tmp_path) is None


def test_each_pod_learns_which_shard_it_is() -> None:
    """The count that the agent is told is the job's, each index is a shard, and the group is the night's job."""
    spec, environ = job(), variables()
    assert spec["completionMode"] == "Indexed"
    for index in range(spec["completions"]):
        told = environ | {"JOB_COMPLETION_INDEX": str(index), "MAYFLY_GROUP": "fleet-29381234"}
        shard = identify(shard_hints(None, None, told), None)
        assert shard == Shard("fleet-29381234", index, spec["completions"])
    (group,) = [one for one in pod()["containers"][0]["env"] if one["name"] == "MAYFLY_GROUP"]
    assert (
        group["valueFrom"]["fieldRef"]["fieldPath"]
        == "metadata.labels['batch.kubernetes.io/job-name']"
    )


def test_a_lost_shard_comes_back_and_a_failed_one_does_not() -> None:
    """Evictions cost no attempt; what has told how it ended is not started again; no twin while a node answers."""
    spec = job()
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimitPerIndex"] >= 1
    ignore, final = spec["podFailurePolicy"]["rules"]
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == (
        "Ignore",
        "DisruptionTarget",
    )
    assert final["action"] == "FailIndex"
    ends = {ExitCode.USAGE, ExitCode.PARTIAL, ExitCode.CONFIGURATION, ExitCode.FAILED}
    assert set(final["onExitCodes"]["values"]) == ends
    assert manifests()["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_grid_waits_as_long_as_the_shards() -> None:
    """The values for the chart and the shards' settings are about the same Grid."""
    values = yaml.safe_load((FLEET / "selenium-grid.yaml").read_text("utf-8"))
    environ = variables()
    waits = values["hub"]["sessionRequestTimeout"]
    assert waits == parse_duration(environ["MAYFLY_BROWSER_TIMEOUT"])
    # The chart sets the hub's variables itself, and a node's session ends by a variable of the node.
    assert "extraEnvironmentVariables" not in values["hub"]
    node = {one["name"]: one["value"] for one in values["chromeNode"]["extraEnvironmentVariables"]}
    assert 0 < float(node["SE_NODE_SESSION_TIMEOUT"]) < waits
    scaled = values["autoscaling"]["scaledOptions"]
    assert scaled["minReplicaCount"] == 0
    shards = int(environ["MAYFLY_SHARDS"])
    assert scaled["maxReplicaCount"] == shards * int(environ["MAYFLY_BROWSER_SESSIONS"])


def test_the_image_is_made_like_the_one_for_home() -> None:
    """Both come from the same base and the same uv; this one switches nothing off."""
    assert "MAYFLY_POWER_AFTER=nothing" in IMAGE.read_text("utf-8")
    own, home = (
        [line for line in file.read_text("utf-8").splitlines() if line.startswith("ARG ")]
        for file in (IMAGE, HOME_IMAGE)
    )
    assert own == home

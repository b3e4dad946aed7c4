"""The manifests for a cluster at home, built by kubectl and held against Kubernetes' own schemas."""

import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent import __version__
from tests.deploy.operator_schema import SCHEMAS
from tests.deploy.tools import (
    KUBERNETES,
    MONITORING,
    accepts,
    build,
    only,
    validated,
    without_rights,
)

FOLDERS = ["base", "overlays/prometheus-operator", "overlays/pull-only", "example"]
WORKLOADS = {"Deployment", "CronJob"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_manifests_are_sound(folder: str, tmp_path: Path) -> None:
    """Kubernetes knows every key; no pod has a right, all are behind the policy, and no secret is made here."""
    manifests = build(KUBERNETES / folder)
    done = validated([one for one in manifests if one["kind"] not in SCHEMAS], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(one["kind"] != "Secret" for one in manifests)
    # Out go names and HTTPS; what only pulls lets nobody in.
    policy = only("NetworkPolicy", manifests)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {
        (port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]
    }
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    assert ("ingress" in policy) == (folder != "overlays/pull-only")
    templates = [template_of(one) for one in manifests if one["kind"] in WORKLOADS]
    assert templates
    for template in templates:
        container = without_rights(template["spec"], {"/data", "/tmp"})
        # The tag is the version of the code that the manifests came with, never `latest`.
        assert folder == "example" or container["image"] == f"mayfly-home:{__version__}"
        labels = template["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_misspelt_key_is_caught(tmp_path: Path) -> None:
    """The check is worth something."""
    deployment = only("Deployment", build(KUBERNETES / "base"))
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    assert validated([deployment], tmp_path).returncode != 0


@pytest.mark.parametrize("folder", ["overlays/prometheus-operator", "example"])
def test_the_operator_accepts_its_resources(folder: str) -> None:
    """Monitor and rules have what the schema of the operator wants, and no other key."""
    found = [one for one in build(KUBERNETES / folder) if one["kind"] in SCHEMAS]
    kinds = sorted(one["kind"] for one in found)
    assert kinds == ["PrometheusRule", "PrometheusRule", "ServiceMonitor"]
    for one in found:
        jsonschema.validate(one, SCHEMAS[one["kind"]])


def test_rules_are_the_same_with_and_without_the_operator(tmp_path: Path) -> None:
    """What the operator hands to Prometheus is what the rule files say."""
    for one in build(KUBERNETES / "overlays/prometheus-operator"):
        if one["kind"] == "PrometheusRule":
            name = {"mayfly": "mayfly.yml", "mayfly-limits": "limits.yml"}[one["metadata"]["name"]]
            source = yaml.safe_load((MONITORING / "rules" / name).read_text("utf-8"))
            for group in source["groups"]:
                for rule in group["rules"]:
                    rule["expr"] = str(rule["expr"])
            assert one["spec"] == source
            file = tmp_path / name
            file.write_text(yaml.safe_dump(one["spec"]), "utf-8")
            accepts("promtool", "check", "rules", file)


def test_the_monitor_finds_the_service() -> None:
    """Labels and port of monitor, service and pods belong together."""
    manifests = build(KUBERNETES / "overlays/prometheus-operator")
    monitor, service = only("ServiceMonitor", manifests), only("Service", manifests)
    deployment = only("Deployment", manifests)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    pods = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pods.items()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_the_page_is_reached_through_the_ingress_and_by_that_name_only() -> None:
    """The controller may come in, its host is the one that the service answers to, and the port is the service's."""
    manifests = build(KUBERNETES / "example")
    (rule,) = only("Ingress", manifests)["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    service = only("Service", manifests)
    container = template_of(only("Deployment", manifests))["spec"]["containers"][0]
    assert f"--allow-host={rule['host']}" in container["args"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    peers = only("NetworkPolicy", manifests)["spec"]["ingress"][0]["from"]
    names = [peer.get("namespaceSelector", {}).get("matchLabels", {}) for peer in peers]
    assert {"kubernetes.io/metadata.name": "ingress-nginx"} in names


def test_only_one_pod_writes_at_a_time() -> None:
    """A new pod waits for the old one's end, and a pull for the pull before; what only pulls has no server."""
    base, pull = build(KUBERNETES / "base"), build(KUBERNETES / "overlays/pull-only")
    assert only("Deployment", base)["spec"]["strategy"] == {"type": "Recreate"}
    assert only("CronJob", pull)["spec"]["concurrencyPolicy"] == "Forbid"
    kinds = {"ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "CronJob", "NetworkPolicy"}
    assert {one["kind"] for one in pull} == kinds


def test_the_example_changes_what_it_says() -> None:
    """Namespace, image, bucket, labels, a limit and an option: all of it arrives."""
    manifests = build(KUBERNETES / "example")
    assert all(one["metadata"]["namespace"] == "mayfly" for one in manifests)
    assert only("ConfigMap", manifests)["data"]["MAYFLY_STORE_URL"] == "s3://my-bucket/prod"
    container = template_of(only("Deployment", manifests))["spec"]["containers"][0]
    assert container["image"].startswith("registry.example.org/")
    assert "--timezone=Asia/Tokyo" in container["args"]
    limits = [
        one
        for one in manifests
        if one["kind"] == "PrometheusRule" and one["metadata"]["name"] == "mayfly-limits"
    ]
    assert limits[0]["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert limits[0]["spec"]["groups"][0]["rules"][-1]["labels"] == {"job_name": "shop-a"}


def test_a_copy_works_elsewhere_also_without_operator_and_ingress(tmp_path: Path) -> None:
    """As docs/home.md has it: the folder is copied whole, and what the cluster lacks is left out of two lines."""
    copy = tmp_path / "my-mayfly"
    shutil.copytree(KUBERNETES, copy)
    assert build(copy / "example") == build(KUBERNETES / "example")
    file = copy / "example" / "kustomization.yaml"
    text = file.read_text("utf-8")
    for line, other in (
        ("  - ../overlays/prometheus-operator ", "  - ../base "),
        ("components:\n", ""),
        ("  - ../components/ingress\n", ""),
    ):
        assert line in text
        text = text.replace(line, other)
    file.write_text(text, "utf-8")
    manifests = build(copy / "example")
    assert only("ConfigMap", manifests)["data"]["MAYFLY_STORE_URL"] == "s3://my-bucket/prod"
    assert {one["kind"] for one in manifests}.isdisjoint({*SCHEMAS, "Ingress"})


def template_of(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the pod template of a workload."""
    spec = workload["spec"]
    found: dict[str, Any] = (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)[
        "template"
    ]
    return found

"""Rules, routes and dashboard, each judged by the program that loads it."""

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from agent.contract.facts import Stale
from consumer.diff import Sum
from consumer.home import Home, Known
from consumer.judge import Rules
from consumer.web.metrics import HomeCollector
from tests.bucket.entries import RELEASE
from tests.consumer.nights import EARLY, history, shards, started_by, tokyo
from tests.deploy.tools import MONITORING, accepts, run

RULES = sorted((MONITORING / "rules").glob("*.yml"))
RULE_TESTS = sorted(
    path
    for path in (MONITORING / "rules" / "tests").glob("*.yml")
    if "tests:" in path.read_text("utf-8")
)
DASHBOARD = MONITORING / "mayfly-dashboard.json"


def test_prometheus_accepts_rules_and_configuration() -> None:
    """Every expression and template parses, and the example configuration finds the rules."""
    accepts("promtool", "check", "rules", *RULES)
    accepts("promtool", "check", "config", MONITORING / "prometheus.yml")


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_resolve_when_they_should(file: Path) -> None:
    """Promtool plays a history against the rules and compares the alerts, with their texts."""
    accepts("promtool", "test", "rules", file.name, cwd=file.parent)


def test_every_alert_is_tested_and_says_what_and_how_bad() -> None:
    """None is shipped whose firing was never seen; it has a severity, a sentence for a chat and one for a mail."""
    tested = "".join(path.read_text("utf-8") for path in RULE_TESTS)
    alerts = [rule for rule in rules() if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["alert"] in tested
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}
        # Apprise cuts a note for Misskey at 512 characters; values make a text longer.
        assert len(alert["annotations"]["summary"]) < 400


def test_alertmanager_accepts_the_example() -> None:
    """The example is a whole configuration, with secrets in files only."""
    accepts("amtool", "check-config", MONITORING / "alertmanager.yml")
    text = (MONITORING / "alertmanager.yml").read_text("utf-8")
    assert "smtp_auth_password_file:" in text
    assert not re.search(r"(password|token|secret):", text)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("alertname=MayflyJobFailing", "severity=warning", "job_name=a"), "misskey"),
        (("alertname=MayflyJobFailing", "severity=critical", "job_name=a"), "misskey,mail"),
        (("alertname=MayflyExporterAbsent", "severity=critical"), "misskey,mail"),
        (("alertname=DiskFull", "severity=critical"), "mail"),
    ],
)
def test_alerts_reach_the_people_they_should(labels: tuple[str, ...], receivers: str) -> None:
    """Everything of Mayfly is a note, what is critical is a mail too, and other alerts go their own way."""
    config = f"--config.file={MONITORING / 'alertmanager.yml'}"
    assert accepts("amtool", "config", "routes", "test", config, *labels).strip() == receivers


def test_a_stale_file_is_noticed(tmp_path: Path) -> None:
    """The check compares; it does not merely run."""
    for folder in ("monitoring", "kubernetes"):
        source = MONITORING.parent / folder
        for file in source.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copy = tmp_path / folder / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    limits = tmp_path / "monitoring" / "rules" / "limits.yml"
    limits.write_text(limits.read_text("utf-8").replace("expr: 7", "expr: 9"), "utf-8")
    done = run(sys.executable, tmp_path / "monitoring" / "render.py", "--check")
    assert done.returncode == 1
    assert "limits.yaml" in done.stderr
    assert "rules.yaml" not in done.stderr


def test_prometheus_can_answer_every_panel(tmp_path: Path) -> None:
    """Every expression of the dashboard parses, with the variables filled in."""
    asked = list(expressions())
    assert len(asked) > 15
    rows = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(asked)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rows}]}), "utf-8")
    accepts("promtool", "check", "rules", "--lint=none", file)


def test_what_is_of_several_buckets_or_schedules_is_not_merged() -> None:
    """Two buckets have schedules of one name, and two schedules jobs of one name: each has a line and a row."""
    grouped = [text for text in expressions() if " by (" in text and "mayfly_" in text]
    assert len(grouped) > 30
    for text in grouped:
        wanted = {"bucket"} | ({"schedule"} if "mayfly_job_" in text else set())
        for labels in re.findall(r" by \(([^)]*)\)", text):
            kept = set(labels.split(", "))
            if "row" in kept:
                kept |= set(
                    re.findall(r'"(\w+)"', text.partition("label_join(")[2].partition('" / "')[2])
                )
            assert wanted <= kept, text


def test_panels_are_whole() -> None:
    """Each panel has an id and a title of its own place, and asks the source that was chosen above."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] in {"${datasource}", "${loki}"}
            assert panel["targets"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)


def test_lines_for_loki_keep_the_time_of_their_printing() -> None:
    """Of one stream, Loki takes nothing that is an hour older than the newest; logs of runs come home later."""
    assert "stage.timestamp" not in (MONITORING / "logs.alloy").read_text("utf-8")


def test_whatever_is_asked_for_is_exported_and_what_is_exported_is_asked_for() -> None:
    """Rules and dashboard use no series that `mayfly serve` does not have, and it has none that nobody uses."""
    text = "\n".join(str(rule) for rule in rules()) + "\n".join(expressions())
    asked = set(re.findall(r"\bmayfly_[a-z_]+\b", text))
    assert asked == exported()


def exported() -> set[str]:
    """Return the names of all series, of a home of which everything is known."""
    found: set[str] = set()
    for known, now in (everything(), sharded()):
        home = Home("b", known, now, 900, read=now, pulls=True, pulled=now)
        home.changes = {
            (job.schedule, job.name): ("files", Sum(added=1)) for job in known.judged.jobs
        }
        registry = CollectorRegistry()
        registry.register(HomeCollector(home, "1"))
        found |= {sample.name for family in registry.collect() for sample in family.samples}
    return found


def everything() -> tuple[Known, datetime]:
    """Return a history with a failure, a success, a cost, items and a stale release; no run came today."""
    now, both = tokyo("22 12:00"), {"a": "succeeded", "b": "succeeded"}
    stale = Stale(wanted="v2", reason="not signed", age_seconds=1)
    release = RELEASE.model_copy(update={"stale": stale})
    runs = started_by(EARLY, "19 02:00", 1, jobs=both, release=release)
    runs += started_by(EARLY, "20 02:00", 2, jobs={**both, "b": "failed"}, release=release)
    return Known.of(history(now, *runs), Rules(now)), now


def sharded() -> tuple[Known, datetime]:
    """Return a history of shards, of which one job failed."""
    now = tokyo("21 12:00")
    runs = shards(tokyo("21 02:00"), {"j0": "succeeded"}, {"j1": "failed"})
    return Known.of(history(now, *runs), Rules(now)), now


def rules() -> Iterator[dict[str, Any]]:
    """Yield all rules that are shipped."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            yield from group["rules"]


def expressions() -> Iterator[str]:
    """Yield what the dashboard asks Prometheus."""
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == "prometheus":
                yield target["expr"].replace("$job_name", ".*").replace("$bucket", ".*")

"""The real Prometheus and Alertmanager on this machine, with what the repository ships."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import yaml

from tests.deploy.tools import MONITORING
from tests.parts.missing import MissingPartError, program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program, answers

START_SECONDS = 60.0


def asked(url: str) -> Any:
    """Return the JSON that a URL answers with."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def alertmanager(folder: Path, receiver: str) -> Iterator[str]:
    """Run Alertmanager with the routes of the example, which wait a few seconds for more alerts; `receiver` gets notes.

    Of the example are changed: the two servers' addresses, the password's file, and the times for which alerts are
    collected before they are sent.
    """
    folder.mkdir()
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text("utf-8"))
    secret = folder / "smtp-password"
    secret.write_text("none", "utf-8")
    config["global"] |= {
        "smtp_auth_password_file": str(secret),
        "smtp_smarthost": f"{LOOPBACK}:{free_port()}",
    }
    for route in config["route"]["routes"]:
        route |= {"group_wait": "5s", "group_interval": "1s"}
    (hook,) = config["receivers"][0]["webhook_configs"]
    hook["url"] = hook["url"].replace("http://apprise:8000", receiver)
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    data = f"--storage.path={folder / 'data'}"
    with _served(_alertmanager(), file, data, "--cluster.listen-address=") as url:
        yield url


@contextmanager
def prometheus(folder: Path, target: str, alerts_to: str) -> Iterator[str]:
    """Run Prometheus with the rules as shipped, scraping and judging every second instead of every minute.

    Of the rules is changed for how long an alert is held, from half an hour to 40 seconds.
    """
    folder.mkdir()
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for source in (MONITORING / "rules").glob("*.yml"):
        rules = source.read_text("utf-8").replace("keep_firing_for: 30m", "keep_firing_for: 40s")
        (folder / source.name).write_text(rules, "utf-8")
    config["rule_files"] = [str(folder / name) for name in ("limits.yml", "mayfly.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [urlsplit(target).netloc]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
        urlsplit(alerts_to).netloc
    ]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    with _served(program("prometheus"), file, f"--storage.tsdb.path={folder / 'data'}") as url:
        yield url


@contextmanager
def _served(binary: str, config: Path, *options: str) -> Iterator[str]:
    """Run a server by a configuration beside which its log is; yields its URL."""
    url = f"http://{LOOPBACK}:{free_port()}"
    address = f"--web.listen-address={urlsplit(url).netloc}"
    command = [binary, f"--config.file={config}", address, *options]
    server = Program(command, log=config.with_suffix(".log"))
    with server.serving(lambda: answers(f"{url}/-/ready"), seconds=START_SECONDS):
        yield url


def value(prometheus_url: str, expression: str) -> float | None:
    """Return the one value of an expression now; None when there is none."""
    query = urlencode({"query": expression})
    found = asked(f"{prometheus_url}/api/v1/query?{query}")["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def firing(prometheus_url: str) -> set[str]:
    """Return the names of the alerts that fire now."""
    query = urlencode({"query": 'ALERTS{alertstate="firing"}'})
    found = asked(f"{prometheus_url}/api/v1/query?{query}")["data"]["result"]
    return {one["metric"]["alertname"] for one in found}


def note(target: str, body: bytes) -> tuple[str, str]:
    """Return title and text that Apprise API makes of a message, by the rules in the query of its address.

    `:status=title` names a field, and `:alerts[0].annotations.summary=body` a path
    (github.com/caronc/apprise-api, README, 'Third Party Webhook Support').
    """
    message = json.loads(body)
    found = {}
    for rule, field in parse_qsl(urlsplit(target).query):
        node = message
        for step in rule.removeprefix(":").replace("[", ".").replace("]", "").split("."):
            node = node[int(step)] if step.isdigit() else node[step]
        found[field] = node
    return found["title"], found["body"]


def _alertmanager() -> str:
    """Debian's name of it, or its makers'."""
    try:
        return program("prometheus-alertmanager")
    except MissingPartError:
        return program("alertmanager")

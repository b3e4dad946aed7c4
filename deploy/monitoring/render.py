"""Writes what follows from other files: Grafana's dashboard, and the rules as Kubernetes wants them.

`make docs` runs it; `--check` (`make check`) only compares.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dashboard import dashboard

HERE = Path(__file__).parent
RULES = HERE / "rules"
OVERLAY = HERE.parent / "kubernetes" / "home" / "overlays" / "prometheus-operator"
HEAD = "# Written from deploy/monitoring/rules/{name} by `make docs`: change that one.\n"


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that expressions stay readable."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return a text as YAML."""
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- the library's signature
        """Write everything out: a person who reads one alert wants to see all of it."""
        return True


Dumper.add_representer(str, Dumper.represent_text)


def prometheus_rule(source: Path, name: str) -> str:
    """Return a rule file as the PrometheusRule that the operator loads."""
    spec = yaml.safe_load(source.read_text("utf-8"))
    for group in spec["groups"]:
        for rule in group["rules"]:
            # The operator's schema wants a text where Prometheus also takes 0.5.
            rule["expr"] = str(rule["expr"])
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name},
        "spec": spec,
    }
    text = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)
    return HEAD.format(name=source.name) + text


def documents() -> Iterator[tuple[Path, str]]:
    """Yield every written file with its text."""
    yield HERE / "mayfly-dashboard.json", dashboard()
    yield OVERLAY / "rules.yaml", prometheus_rule(RULES / "mayfly.yml", "mayfly")
    yield OVERLAY / "limits.yaml", prometheus_rule(RULES / "limits.yml", "mayfly-limits")


def main() -> int:
    """Write or check all files; the exit code is that of the check."""
    stale = []
    for path, text in documents():
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not as their sources say: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

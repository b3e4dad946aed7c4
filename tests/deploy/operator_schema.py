"""What the Prometheus operator's resources may hold, as far as ours use it: a strict subset of its published schemas.

kubernetes-validate knows only what Kubernetes itself has. A key that is not here is a mistake, or a reason to look into
the operator's API reference. Our manifests were also held against its own schemas, version 0.93.0.
"""

from typing import Any

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}


def exactly(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A whole resource."""
    metadata = exactly({"name": TEXT}, {"namespace": TEXT, "labels": TEXTS})
    version = {"const": "monitoring.coreos.com/v1"}
    return exactly(
        {"apiVersion": version, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    )


# `expr` may be a whole number or a text; the operator refuses 0.5.
RECORDING = exactly({"record": TEXT, "expr": TEXT}, {"labels": TEXTS})
ALERTING = exactly(
    {"alert": TEXT, "expr": TEXT, "labels": TEXTS, "annotations": TEXTS},
    {"for": DURATION, "keep_firing_for": DURATION},
)
GROUP = exactly(
    {"name": TEXT, "rules": {"type": "array", "items": {"oneOf": [RECORDING, ALERTING]}}},
    {"interval": DURATION},
)
ENDPOINT = exactly({"port": TEXT, "path": TEXT}, {"interval": DURATION, "scrapeTimeout": DURATION})
SCHEMAS: dict[str, dict[str, Any]] = {
    "PrometheusRule": resource(
        "PrometheusRule", exactly({"groups": {"type": "array", "minItems": 1, "items": GROUP}})
    ),
    "ServiceMonitor": resource(
        "ServiceMonitor",
        exactly(
            {
                "selector": exactly({"matchLabels": TEXTS}),
                "endpoints": {"type": "array", "minItems": 1, "items": ENDPOINT},
            }
        ),
    ),
}

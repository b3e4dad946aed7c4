"""The Grafana dashboard, as code. `render.py` writes it to `mayfly-dashboard.json`."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import (
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

METRICS = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOGS = model.DataSourceRef(type_val="loki", uid="${loki}")
JOBS = 'job_name=~"$job_name"'
"""Every panel about jobs looks at the jobs that are chosen above."""
FULL, HALF, EIGHTH = 24, 12, 3
"""Widths; a dashboard is 24 columns wide."""

GREEN, AMBER, RED = "green", "orange", "red"
Panels = stat.Panel | table.Panel | timeseries.Panel | statetimeline.Panel | logs.Panel


def dashboard() -> str:
    """Return the dashboard as JSON, in the form that Grafana imports and provisions."""
    built = (
        board.Dashboard("Mayfly")
        .uid("mayfly")
        .description(
            "Scheduled batches on a machine that is mostly off, as `mayfly serve` sees them."
        )
        .tags(["mayfly", "batch"])
        .time("now-30d", "now")
        .refresh("5m")
        .timezone("browser")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
    )
    for variable in variables():
        built = built.with_variable(variable)
    number = count(1)
    for title, panels in rows():
        built = built.with_row(board.Row(title).id(next(number)))
        for panel in panels:
            built = built.with_panel(panel.id(next(number)))
    encoded = JSONEncoder(sort_keys=True, indent=1).encode(built.build())
    return f"{encoded}\n"


def variables() -> list[Any]:
    """Return what a person chooses at the top: where metrics and logs are, and which jobs."""
    return [
        board.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        board.DatasourceVariable("loki").label("Loki").type("loki"),
        board.QueryVariable("job_name")
        .label("Job")
        .datasource(METRICS)
        .query("label_values(mayfly_job_last_run_timestamp_seconds, job_name)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*"),
    ]


def rows() -> list[tuple[str, Sequence[Panels]]]:
    """Return the dashboard's rows: from 'is it well?' to 'why not?'."""
    return [
        ("Now", now()),
        ("Jobs", jobs()),
        ("What they bring", yields()),
        ("Runs and money", runs()),
        ("Logs (needs Loki)", [log_panel()]),
    ]


def now() -> list[Panels]:
    """Return the figures that answer whether all is well."""
    return [
        figure(
            "Alerts",
            'count(ALERTS{alertname=~"Mayfly.+", alertstate="firing"}) or vector(0)',
            bad=1,
        ),
        figure(
            "Failed days, worst job", f"max(mayfly_job_failed_day_streak{{{JOBS}}})", warn=1, bad=3
        ),
        figure("Missed days, worst job", f"max(mayfly_job_missed_day_streak{{{JOBS}}})", bad=1),
        figure(
            "Last run",
            "time() - max(mayfly_run_last_timestamp_seconds)",
            unit="s",
            warn=93600,
            bad=180000,
        ),
        figure("Vanished runs, 7 days", "max(mayfly_runs_vanished)", warn=1, bad=3),
        figure(
            "Old release since", "max(mayfly_release_stale_seconds)", unit="s", warn=1, bad=172800
        ),
        figure("This month", "sum(mayfly_month_cost_usd)", unit="currencyUSD"),
        figure(
            "Bucket read",
            "time() - max(mayfly_bucket_last_read_timestamp_seconds)",
            unit="s",
            warn=3600,
            bad=7200,
        ),
    ]


def jobs() -> list[Panels]:
    """Return how each job went: a table of now, and a band of the past."""
    columns = {
        "Status": f"max by (job_name, status) (mayfly_job_last_status{{{JOBS}}} == 1)",
        "Cause": f"max by (job_name, cause) (mayfly_job_last_failure_cause{{{JOBS}}} == 1)",
        "Failed days": f"max by (job_name) (mayfly_job_failed_day_streak{{{JOBS}}})",
        "Missed days": f"max by (job_name) (mayfly_job_missed_day_streak{{{JOBS}}})",
        "Last success": f"max by (job_name) (mayfly_job_last_success_timestamp_seconds{{{JOBS}}}) * 1000",
        "Files": f"max by (job_name) (mayfly_job_last_files{{{JOBS}}})",
        "Refused": f"max by (job_name) (mayfly_job_last_refused_files{{{JOBS}}})",
    }
    listing = table.Panel().title("Jobs now").datasource(METRICS).span(HALF).height(9)
    for letter, expression in zip("ABCDEFG", columns.values(), strict=True):
        listing = listing.with_target(
            query(expression).ref_id(letter).instant().format(PromQueryFormat.TABLE)
        )
    listing = listing.with_transformation(
        model.DataTransformerConfig(
            id_val="joinByField", options={"byField": "job_name", "mode": "outer"}
        )
    ).with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(hidden_columns(), True),
                "renameByName": {
                    "job_name": "Job",
                    "status": "Status",
                    "cause": "Cause",
                    "Value #C": "Failed days",
                    "Value #D": "Missed days",
                    "Value #E": "Last success",
                    "Value #F": "Files",
                    "Value #G": "Refused",
                },
            },
        )
    )
    listing = listing.override_by_name(
        "Last success", [model.DynamicConfigValue(id_val="unit", value="dateTimeFromNow")]
    )
    band = (
        statetimeline.Panel()
        .title("Failed days in a row")
        .description(
            "Green is a day with a success; the number is how many days in a row had none."
        )
        .datasource(METRICS)
        .span(HALF)
        .height(9)
        .thresholds(steps(warn=1, bad=3))
        .color_scheme(board.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .with_target(
            query(f"max by (job_name) (mayfly_job_failed_day_streak{{{JOBS}}})").legend_format(
                "{{job_name}}"
            )
        )
    )
    return [listing, band]


def hidden_columns() -> list[str]:
    """Return the table's columns that Grafana adds and nobody wants to see."""
    times = [f"Time {number}" for number in range(1, 8)]
    return ["Time", *times, "Value #A", "Value #B"]


def yields() -> list[Panels]:
    """Return what each job's last run brought, over time."""
    return [
        line("Files", "mayfly_job_last_files"),
        line("Bytes", "mayfly_job_last_bytes", unit="bytes"),
        line("Items", "mayfly_job_last_items"),
        line("Duration", "mayfly_job_last_duration_seconds", unit="s"),
    ]


def runs() -> list[Panels]:
    """Return the runs as a whole, and their price."""
    money = (
        graph("Cost of the month", "currencyUSD")
        .with_target(query("sum(mayfly_month_cost_usd)").legend_format("so far"))
        .with_target(
            query("sum(mayfly_month_cost_forecast_usd)").legend_format("forecast").ref_id("B")
        )
        .with_target(query("max(mayfly:limit:month_cost_usd)").legend_format("budget").ref_id("C"))
    )
    duration = (
        graph("Duration and cost of a run", "s")
        .with_target(query("max(mayfly_run_last_duration_seconds)").legend_format("duration"))
        .with_target(query("max(mayfly_run_last_cost_usd)").legend_format("cost").ref_id("B"))
        .override_by_name("cost", [model.DynamicConfigValue(id_val="unit", value="currencyUSD")])
    )
    status = (
        statetimeline.Panel()
        .title("Status of the last run")
        .datasource(METRICS)
        .span(HALF)
        .height(8)
        .with_target(query("max by (status) (mayfly_run_last_status)").legend_format("{{status}}"))
    )
    alerts = (
        statetimeline.Panel()
        .title("Alerts")
        .datasource(METRICS)
        .span(HALF)
        .height(8)
        .with_target(
            query(
                'max by (alertname, job_name) (ALERTS{alertname=~"Mayfly.+", alertstate="firing"})'
            ).legend_format("{{alertname}} {{job_name}}")
        )
    )
    return [money, duration, status, alerts]


def log_panel() -> logs.Panel:
    """Return the runs' logs, newest first: empty where `mayfly serve` pushes none."""
    return (
        logs.Panel()
        .title("Log of the runs")
        .description("Empty unless `mayfly serve` runs with --loki.")
        .datasource(LOGS)
        .span(FULL)
        .height(12)
        .show_time(True)
        .wrap_log_message(True)
        .prettify_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .with_target(
            loki.Dataquery().datasource(LOGS).expr('{app="mayfly"}').query_type("range").ref_id("A")
        )
    )


def figure(
    title: str,
    expression: str,
    *,
    unit: str = "short",
    warn: float | None = None,
    bad: float | None = None,
) -> stat.Panel:
    """Return one figure; it turns amber at `warn` and red at `bad`."""
    return (
        stat.Panel()
        .title(title)
        .datasource(METRICS)
        .span(EIGHTH)
        .height(4)
        .unit(unit)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .thresholds(steps(warn=warn, bad=bad))
        .with_target(query(expression).instant())
    )


def line(title: str, metric: str, *, unit: str = "short") -> timeseries.Panel:
    """Return a line for each job."""
    expression = f"max by (job_name) ({metric}{{{JOBS}}})"
    return graph(title, unit).with_target(query(expression).legend_format("{{job_name}}"))


def graph(title: str, unit: str) -> timeseries.Panel:
    """Return an empty graph of half the width; values step, because they change once a run."""
    return (
        timeseries.Panel()
        .title(title)
        .datasource(METRICS)
        .span(HALF)
        .height(8)
        .unit(unit)
        .min(0)
        .line_interpolation(common.LineInterpolation.STEP_AFTER)
        .fill_opacity(10)
        .legend(
            VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )


def query(expression: str) -> prometheus.Dataquery:
    """Return a question to Prometheus."""
    return prometheus.Dataquery().datasource(METRICS).expr(expression).ref_id("A")


def steps(*, warn: float | None = None, bad: float | None = None) -> board.ThresholdsConfig:
    """Return green, amber from `warn`, red from `bad`."""
    found = [model.Threshold(value=None, color=GREEN)]
    if warn is not None:
        found.append(model.Threshold(value=warn, color=AMBER))
    if bad is not None:
        found.append(model.Threshold(value=bad, color=RED))
    return board.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)

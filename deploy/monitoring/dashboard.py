"""The Grafana dashboard, as code. `render.py` writes it to `mayfly-dashboard.json`."""

from collections.abc import Sequence
from itertools import count
from string import ascii_uppercase
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
BUCKET = 'bucket=~"$bucket"'
"""Every panel looks at the buckets that are chosen above."""
JOBS = f'{BUCKET},job_name=~"$job_name"'
"""Every panel about jobs looks at the jobs that are chosen above."""
ROW = "row"
"""The label of a table's rows: buckets may have schedules of one name, and schedules jobs of one name."""
SCHEDULE = "{{bucket}} / {{schedule}}"
JOB = f"{SCHEDULE} / {{{{job_name}}}}"
FAMILY = f"{SCHEDULE} / {{{{family}}}}"
"""Legends."""
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
    """Return what a person chooses at the top: where metrics and logs are, which buckets and jobs."""
    return [
        board.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        board.DatasourceVariable("loki").label("Loki").type("loki"),
        choice("bucket", "Bucket", "label_values(mayfly_build_info, bucket)"),
        choice(
            "job_name",
            "Job",
            f"label_values(mayfly_job_consecutive_failures{{{BUCKET}}}, job_name)",
        ),
    ]


def choice(name: str, label: str, question: str) -> board.QueryVariable:
    """Return a choice among the values of a label."""
    return (
        board.QueryVariable(name)
        .label(label)
        .datasource(METRICS)
        .query(question)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def rows() -> list[tuple[str, Sequence[Panels]]]:
    """Return the dashboard's rows: from 'is it well?' to 'why not?'."""
    return [
        ("Now", now()),
        ("Schedules and jobs", tables()),
        ("What they bring", yields()),
        ("Runs and money", runs()),
        ("Shards", shards()),
        ("Home", home()),
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
            "Failing jobs",
            f"count(mayfly_job_consecutive_failures{{{JOBS}}} > 0) or vector(0)",
            warn=1,
            bad=3,
        ),
        figure("Jobs", f"sum({of('jobs')})"),
        figure("Missed runs", f"max({of('schedule_missed_runs')})", bad=1),
        figure("Under way", f"sum({of('runs_running')})"),
        figure("Lost runs, 7 days", f"sum({of('runs_lost')})", warn=1, bad=3),
        figure("This month", f"sum({of('month_cost_usd')})", unit="currencyUSD"),
        figure(
            "Bucket read",
            f"time() - min({of('bucket_last_read_timestamp_seconds')})",
            unit="s",
            warn=3600,
            bad=7200,
        ),
    ]


def tables() -> list[Panels]:
    """Return how schedules and jobs stand now, and a band of the past."""
    schedules = listing(
        "Schedules now",
        "Schedule",
        {
            "Last run": of_row("run_last_status", "status"),
            "Began": of_row("run_last_timestamp_seconds") + " * 1000",
            "Jobs done": of_row("run_jobs_done"),
            "of": of_row("run_jobs"),
            "Late": of_row("schedule_late"),
            "Missed": of_row("schedule_missed_runs"),
            "Next": of_row("schedule_next_due_timestamp_seconds") + " * 1000",
            "All succeeded": of_row("run_last_success_timestamp_seconds") + " * 1000",
            "Release": of_row("release_info", "ref", "commit"),
            "Old since": of_row("release_stale_since_timestamp_seconds") + " * 1000",
            "Schedule known": of_row("schedule_known"),
        },
        labels={"Last run": "status", "Release": "ref"},
        times=("Began", "Next", "All succeeded", "Old since"),
    )
    jobs = listing(
        "Jobs now",
        "Job",
        {
            "Status": of_row("job_last_status", "status"),
            "Cause": of_row("job_last_failure_cause", "cause"),
            "Failures": of_row("job_consecutive_failures"),
            "Failed days": of_row("job_failed_day_streak"),
            "Failing since": of_row("job_failing_since_timestamp_seconds") + " * 1000",
            "Last run": of_row("job_last_run_timestamp_seconds") + " * 1000",
            "Last success": of_row("job_last_success_timestamp_seconds") + " * 1000",
            "Files": of_row("job_last_files"),
            "Usual": of_row("job_files_recent_median"),
            "Refused": of_row("job_last_refused_files"),
        },
        labels={"Status": "status", "Cause": "cause"},
        times=("Failing since", "Last run", "Last success"),
    )
    band = (
        statetimeline.Panel()
        .title("Failures in a row")
        .description("Green is a success.")
        .datasource(METRICS)
        .span(FULL)
        .height(9)
        .thresholds(steps(warn=1, bad=3))
        .color_scheme(board.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .with_target(query(of_job("consecutive_failures")).legend_format(JOB))
    )
    return [schedules, jobs, band]


def listing(
    title: str,
    heading: str,
    columns: dict[str, str],
    *,
    labels: dict[str, str],
    times: Sequence[str],
) -> table.Panel:
    """Return a table with a row for each value of the label `ROW`.

    Args:
        title: Of the panel.
        heading: Of the column with the label.
        columns: A question for each column.
        labels: Columns that show a label of theirs instead of the value.
        times: Columns that show how long ago a time is.
    """
    panel = table.Panel().title(title).datasource(METRICS).span(FULL).height(8)
    names = {ROW: heading}
    hidden = ["Time", "commit", *(f"Time {number + 1}" for number in range(len(columns)))]
    for letter, (column, expression) in zip(ascii_uppercase, columns.items(), strict=False):
        target = query(expression).ref_id(letter).instant().format(PromQueryFormat.TABLE)
        panel = panel.with_target(target)
        value = f"Value #{letter}"
        names[labels.get(column, value)] = column
        if column in labels:
            hidden.append(value)
    shown = {"excludeByName": dict.fromkeys(hidden, True), "renameByName": names}
    join = {"byField": ROW, "mode": "outer"}
    panel = panel.with_transformation(
        model.DataTransformerConfig(id_val="joinByField", options=join)
    ).with_transformation(model.DataTransformerConfig(id_val="organize", options=shown))
    for column in times:
        unit = model.DynamicConfigValue(id_val="unit", value="dateTimeFromNow")
        panel = panel.override_by_name(column, [unit])
    return panel


def yields() -> list[Panels]:
    """Return what each job's last run brought, over time."""
    return [
        line("Files", "last_files"),
        line("Bytes", "last_bytes", unit="bytes"),
        line("Items", "last_items"),
        line("Duration", "last_duration_seconds", unit="s"),
        graph(
            "What changed: records where they have keys, else files",
            "short",
            {
                f"{JOB}: {{{{change}}}}": of_job("last_changes", "of", "change"),
            },
        ),
    ]


def runs() -> list[Panels]:
    """Return the runs as a whole, and their price."""
    money = graph(
        "Cost of the month",
        "currencyUSD",
        {
            "so far": f"sum({of('month_cost_usd')})",
            "of that, estimated": f"sum({of('month_cost_estimated_usd')})",
            "forecast": f"sum({of('month_cost_forecast_usd')})",
            "budget": "max(mayfly:limit:month_cost_usd)",
        },
    )
    duration = graph(
        "Duration and cost of a run",
        "s",
        {
            SCHEDULE: of_schedule("run_last_duration_seconds"),
            f"{SCHEDULE}: cost": of_schedule("run_last_cost_usd"),
        },
    ).override_by_regexp("/cost$/", [model.DynamicConfigValue(id_val="unit", value="currencyUSD")])
    status = band("Status of the last run", of_schedule("run_last_status", "status"))
    alerts = band(
        "Alerts",
        "max by (alertname, bucket, schedule, job_name) "
        '(ALERTS{alertname=~"Mayfly.+", alertstate="firing"})',
    )
    return [money, duration, status, alerts]


def band(title: str, expression: str) -> statetimeline.Panel:
    """Return a band for each series of a question."""
    return (
        statetimeline.Panel()
        .title(title)
        .datasource(METRICS)
        .span(HALF)
        .height(8)
        .with_target(query(expression).legend_format("__auto"))
    )


def shards() -> list[Panels]:
    """Return how the newest group of shards goes: empty where there are none."""
    return [
        graph(
            "Shards of the newest group",
            "short",
            {
                f"{SCHEDULE}: done": of_schedule("group_shards_done"),
                f"{SCHEDULE}: all": of_schedule("group_shards"),
            },
        ),
        graph(
            "Its jobs, by kind",
            "short",
            {
                f"{FAMILY}: due": of_schedule("group_jobs", "family"),
                f"{FAMILY}: succeeded": of_schedule("group_jobs_succeeded", "family"),
                f"{FAMILY}: {{{{cause}}}}": of_schedule("group_job_failures", "family", "cause"),
            },
        ),
    ]


def home() -> list[Panels]:
    """Return how the service itself does."""
    return [
        graph(
            "Polls and pulls an hour",
            "short",
            {
                "polls": f"sum(increase({of('polls_total')}[1h]))",
                "failed polls": f"sum(increase({of('poll_failures_total')}[1h]))",
                "entries": f"sum(increase({of('entries_read_total')}[1h]))",
                "pulls": f"sum(increase({of('pulls_total')}[1h]))",
                "jobs that came home": f"sum(increase({of('pulled_jobs_total')}[1h]))",
                "failed hooks": f"sum(increase({of('hook_failures_total')}[1h]))",
            },
        ),
        graph(
            "Bytes that came home, a day",
            "bytes",
            {"bytes": f"sum(increase({of('pulled_bytes_total')}[1d]))"},
        ),
        graph(
            "What is wrong",
            "short",
            {
                "pull of {{bucket}}: {{problem}}": f"sum by (bucket, problem) ({of('pull_problems')})",
                "invalid entries": f"sum({of('bucket_invalid_entries')})",
                "missing entries": f"sum({of('bucket_missing_entries')})",
            },
        ),
        graph(
            "Memory of `mayfly serve`",
            "bytes",
            {
                "{{instance}}": "process_resident_memory_bytes * on (instance, job) mayfly_build_info"
            },
        ),
    ]


def log_panel() -> logs.Panel:
    """Return the runs' logs, newest first: empty where nobody collects what `mayfly serve --print-logs` prints."""
    return (
        logs.Panel()
        .title("Log of the runs")
        .description(
            "Empty unless `mayfly serve` runs with --print-logs, and something collects that."
        )
        .datasource(LOGS)
        .span(FULL)
        .height(12)
        .show_time(True)
        .wrap_log_message(True)
        .prettify_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .with_target(
            loki.Dataquery()
            .datasource(LOGS)
            .expr('{app="mayfly"} | json | run != ""')
            .query_type("range")
            .ref_id("A")
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


def of(metric: str) -> str:
    """Return a series of the buckets that are chosen."""
    return f"mayfly_{metric}{{{BUCKET}}}"


def of_schedule(metric: str, *labels: str) -> str:
    """Return a series of the buckets that are chosen, by schedule."""
    return f"max by ({', '.join(('bucket', 'schedule', *labels))}) ({of(metric)})"


def of_job(metric: str, *labels: str) -> str:
    """Return a series of the jobs that are chosen, by job."""
    keys = ("bucket", "schedule", "job_name", *labels)
    return f"max by ({', '.join(keys)}) (mayfly_job_{metric}{{{JOBS}}})"


def of_row(metric: str, *labels: str) -> str:
    """Return a series for a table: Grafana joins by one label, so that those by which rows differ become one."""
    is_of_job = metric.startswith("job_")
    keys = ("bucket", "schedule", "job_name") if is_of_job else ("bucket", "schedule")
    series = f"mayfly_{metric}{{{JOBS if is_of_job else BUCKET}}}"
    quoted = ", ".join(f'"{key}"' for key in keys)
    joined = f'label_join({series}, "{ROW}", " / ", {quoted})'
    return f"max by ({', '.join((ROW, *labels))}) ({joined})"


def line(title: str, metric: str, *, unit: str = "short") -> timeseries.Panel:
    """Return a line for each job."""
    return graph(title, unit, {JOB: of_job(metric)})


def graph(title: str, unit: str, lines: dict[str, str]) -> timeseries.Panel:
    """Return questions over half the width, by their legends; values step, because they change once a run."""
    panel = (
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
    for letter, (legend, expression) in zip(ascii_uppercase, lines.items(), strict=False):
        panel = panel.with_target(query(expression).legend_format(legend).ref_id(letter))
    return panel


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

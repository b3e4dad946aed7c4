"""The page's words, in the languages it speaks; a missing one is a type error."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.core.results import JobCause, JobStatus, RunStatus

from consumer.facts.days import DayState
from consumer.facts.groups import GroupState


@dataclass(frozen=True, slots=True)
class Words:
    """All texts of one language. `{}` stands for a number or a name."""

    tag: str
    name: str
    days: str
    all_runs: str
    last_run: str
    no_run: str
    under_way: str
    failing: str
    nothing_fails: str
    failed_in_a_row: str
    missed_in_a_row: str
    incomplete: str
    incomplete_jobs: str
    failed_last: str
    last_success: str
    never: str
    cost: str
    cost_month: str
    cost_forecast: str
    no_cost: str
    release: str
    stale: str
    bucket_problem: str
    refused: str
    vanished: str
    vanished_line: str
    groups: str
    shard: str
    of_shards: str
    missing_shards: str
    late_after: str
    jobs_failed: str
    more_shards: str
    recent: str
    older: str
    newest: str
    jobs: str
    job: str
    status: str
    started: str
    duration: str
    files: str
    bytes: str
    minutes: str
    items: str
    run: str
    before: str
    after: str
    home: str
    manifest: str
    log: str
    evidence: str
    no_files: str
    more_files: str
    partial_file: str
    file: str
    size: str
    not_found: str
    not_found_text: str
    updated: str
    ago: str
    units: tuple[str, str, str, str]
    day_states: Mapping[DayState, str]
    job_states: Mapping[JobStatus, str]
    run_states: Mapping[RunStatus, str]
    group_states: Mapping[GroupState, str]
    causes: Mapping[JobCause, str]

    def duration_of(self, seconds: float) -> str:
        """Return `6 min 20 s`: the two largest units that matter."""
        days, hours, minutes, second = self.units
        whole = max(0, round(seconds))
        parts = (
            (whole // 86400, days),
            (whole // 3600 % 24, hours),
            (whole // 60 % 60, minutes),
            (whole % 60, second),
        )
        first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
        return " ".join(
            f"{count} {unit}"
            for index, (count, unit) in enumerate(parts[first : first + 2])
            if count or not index
        )

    def ago_of(self, moment: datetime, now: datetime) -> str:
        """Return `7 h ago`, in the largest unit."""
        past = max(now - moment, timedelta())
        return self.ago.format(self.duration_of(_largest(past.total_seconds())))


def _largest(seconds: float) -> float:
    """Return a duration cut to its largest unit."""
    for unit in (86400, 3600, 60):
        if seconds >= unit:
            return seconds // unit * unit
    return seconds


ENGLISH = Words(
    tag="en",
    name="English",
    days="{} days",
    all_runs="All runs",
    last_run="Last run",
    no_run="no run yet",
    under_way="under way since {}",
    failing="Failing now",
    nothing_fails="every job succeeded when it last ran",
    failed_in_a_row="failed {} days in a row",
    missed_in_a_row="missed on {} days in a row",
    incomplete="incomplete",
    incomplete_jobs="Succeeded, and not all files could be handed over",
    failed_last="last failure",
    last_success="last success",
    never="never",
    cost="Cost",
    cost_month="this month",
    cost_forecast="{} expected for the whole month",
    no_cost="not known",
    release="Release",
    stale="older than wanted",
    bucket_problem="The bucket cannot be read",
    refused="Objects in the bucket that say nothing credible: {}",
    vanished="Runs that started and vanished",
    vanished_line="started {}, should have ended by {}",
    groups="Groups of shards",
    shard="Shard",
    of_shards="{} of {} shards",
    missing_shards="missing: {}",
    late_after="late after {}",
    jobs_failed="{} of {} jobs failed",
    more_shards="{} more are in the list of runs",
    recent="Recent runs",
    older="older runs",
    newest="newest runs",
    jobs="Jobs",
    job="Job",
    status="Status",
    started="Started",
    duration="Time",
    files="Files",
    bytes="Bytes",
    minutes="Time",
    items="Items",
    run="Run",
    before="the run before",
    after="the next run",
    home="Overview",
    manifest="manifest",
    log="log",
    evidence="evidence",
    no_files="The list of files cannot be shown: {}",
    more_files="{} more are in the manifest",
    partial_file="of a job that did not succeed",
    file="File",
    size="Size",
    not_found="Not found",
    not_found_text="There is no such page, or no such run in the bucket.",
    updated="as of {}",
    ago="{} ago",
    units=("d", "h", "min", "s"),
    day_states={
        DayState.SUCCEEDED: "succeeded",
        DayState.PARTIAL: "partly succeeded",
        DayState.FAILED: "failed",
        DayState.MISSED: "missed",
        DayState.SKIPPED: "not due",
        DayState.RUNNING: "under way",
        DayState.NONE: "nothing expected",
    },
    job_states={
        JobStatus.SUCCEEDED: "succeeded",
        JobStatus.FAILED: "failed",
        JobStatus.TIMED_OUT: "timed out",
        JobStatus.INTERRUPTED: "interrupted",
        JobStatus.EMPTY: "too little",
        JobStatus.SKIPPED: "skipped",
    },
    run_states={
        RunStatus.SUCCEEDED: "succeeded",
        RunStatus.PARTIAL: "partly succeeded",
        RunStatus.FAILED: "failed",
        RunStatus.INTERRUPTED: "interrupted",
    },
    group_states={
        GroupState.COMPLETE: "complete",
        GroupState.INCOMPLETE: "incomplete",
        GroupState.LATE: "late",
    },
    causes={
        JobCause.PAGE_CHANGED: "the page changed",
        JobCause.BLOCKED: "the site blocks us",
        JobCause.SITE_UNREACHABLE: "the site cannot be reached",
        JobCause.BROWSER: "the browser failed",
        JobCause.TIMEOUT: "it took too long",
        JobCause.OUT_OF_MEMORY: "out of memory",
        JobCause.OUT_OF_DISK: "out of disk space",
        JobCause.INTERRUPTED: "interrupted",
        JobCause.EXPECTATION: "less than expected",
        JobCause.RELEASE: "the release is broken",
        JobCause.ERROR: "an error of the job",
    },
)

JAPANESE = Words(
    tag="ja",
    name="日本語",
    days="{}日間",
    all_runs="全体",
    last_run="最新の実行",
    no_run="まだ実行がありません",
    under_way="{}から実行中",
    failing="失敗中のジョブ",
    nothing_fails="すべてのジョブが直近の実行で成功しています",
    failed_in_a_row="{}日連続で失敗",
    missed_in_a_row="{}日連続で未実行",
    incomplete="一部欠落",
    incomplete_jobs="成功したが、渡せなかったファイルがあるジョブ",
    failed_last="直近の失敗",
    last_success="最後の成功",
    never="なし",
    cost="費用",
    cost_month="今月",
    cost_forecast="月末までの見込み {}",
    no_cost="不明",
    release="リリース",
    stale="最新ではありません",
    bucket_problem="バケットを読み取れません",
    refused="信用できないオブジェクト: {}件",
    vanished="開始後に消えた実行",
    vanished_line="{}に開始、{}までに終わるはずでした",
    groups="シャードのグループ",
    shard="シャード",
    of_shards="シャード {}/{}",
    missing_shards="未完了: {}",
    late_after="{}を過ぎると遅延",
    jobs_failed="失敗したジョブ {}/{}",
    more_shards="ほか{}件は実行一覧にあります",
    recent="最近の実行",
    older="前の実行一覧",
    newest="最新の実行一覧",
    jobs="ジョブ",
    job="ジョブ",
    status="状態",
    started="開始",
    duration="時間",
    files="ファイル数",
    bytes="サイズ",
    minutes="時間",
    items="件数",
    run="実行",
    before="前の実行",
    after="次の実行",
    home="概要",
    manifest="マニフェスト",
    log="ログ",
    evidence="記録",
    no_files="ファイル一覧を表示できません: {}",
    more_files="ほか{}件はマニフェストにあります",
    partial_file="成功しなかったジョブのファイル",
    file="ファイル",
    size="サイズ",
    not_found="見つかりません",
    not_found_text="そのページ、またはその実行はバケットにありません。",
    updated="{}現在",
    ago="{}前",
    units=("日", "時間", "分", "秒"),
    day_states={
        DayState.SUCCEEDED: "成功",
        DayState.PARTIAL: "一部成功",
        DayState.FAILED: "失敗",
        DayState.MISSED: "未実行",
        DayState.SKIPPED: "対象外",
        DayState.RUNNING: "実行中",
        DayState.NONE: "予定なし",
    },
    job_states={
        JobStatus.SUCCEEDED: "成功",
        JobStatus.FAILED: "失敗",
        JobStatus.TIMED_OUT: "時間切れ",
        JobStatus.INTERRUPTED: "中断",
        JobStatus.EMPTY: "結果不足",
        JobStatus.SKIPPED: "省略",
    },
    run_states={
        RunStatus.SUCCEEDED: "成功",
        RunStatus.PARTIAL: "一部成功",
        RunStatus.FAILED: "失敗",
        RunStatus.INTERRUPTED: "中断",
    },
    group_states={
        GroupState.COMPLETE: "完了",
        GroupState.INCOMPLETE: "未完了",
        GroupState.LATE: "遅延",
    },
    causes={
        JobCause.PAGE_CHANGED: "ページが変わった",
        JobCause.BLOCKED: "サイトに拒否された",
        JobCause.SITE_UNREACHABLE: "サイトに接続できない",
        JobCause.BROWSER: "ブラウザの異常",
        JobCause.TIMEOUT: "時間切れ",
        JobCause.OUT_OF_MEMORY: "メモリ不足",
        JobCause.OUT_OF_DISK: "ディスク不足",
        JobCause.INTERRUPTED: "中断",
        JobCause.EXPECTATION: "想定より少ない",
        JobCause.RELEASE: "リリースの不具合",
        JobCause.ERROR: "ジョブのエラー",
    },
)

LANGUAGES = {words.tag: words for words in (ENGLISH, JAPANESE)}


def words_for(wanted: str | None, accepted: str) -> Words:
    """Return the language that a person chose, else the first of an Accept-Language header that is spoken here."""
    if wanted in LANGUAGES:
        return LANGUAGES[wanted]
    for tag in _by_preference(accepted):
        if tag in LANGUAGES:
            return LANGUAGES[tag]
    return ENGLISH


def _by_preference(accepted: str) -> list[str]:
    """Return the primary tags of an Accept-Language header (RFC 9110, 12.5.4), the most wanted first."""
    ranked = []
    for part in accepted.lower().split(",")[:20]:
        tag, _, rest = part.strip().partition(";")
        ranked.append((_quality(rest), tag.split("-")[0]))
    return [tag for quality, tag in sorted(ranked, key=lambda one: -one[0]) if quality > 0]


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0

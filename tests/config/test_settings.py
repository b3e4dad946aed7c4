"""The agent's configuration: every key has a default, every fault is found, and the last word has the flag."""

import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.faults import ConfigurationError, Fault, suggest
from agent.config.overrides import (
    Document,
    Loaded,
    Override,
    environment_overrides,
    flag_overrides,
    parse_settings,
)
from agent.config.settings import Settings

FILE = "agent.toml"

EXAMPLE = """
[release]
repository = "https://me:pass%2Fword@example.org/scrapers.git"
track = "v*"
[store]
url = "s3://scraped/prod/"
endpoint = "https://s3.ap-northeast-2.wasabisys.com"
region = "ap-northeast-2"
credentials = "ssm:/mayfly/store"
[browser]
image = "selenium/standalone-chromium:4.48.0"
sessions = 2
shared_memory = "1GiB"
[paths]
state = "/var/lib/mayfly"
[limits]
run = "2h"
jobs = 3
[power]
after = "poweroff"
[secrets]
source = "ssm:/mayfly/jobs"
[notify]
healthchecks = "https://hc-ping.com/x"
apprise = ["ntfys://a", "json://b"]
"""


def faults(text: str, *overrides: Override) -> list[str]:
    """The faults of a file as a person reads them."""
    return [str(fault) for fault in parse_settings([Document(text, FILE)], overrides).faults]


def test_a_laptop_needs_no_configuration() -> None:
    """Nothing at all gives the defaults."""
    assert parse_settings([Document("", FILE)]) == Loaded(Settings(), FILE)


def test_the_example_is_read_as_it_is_meant() -> None:
    """Durations, sizes, paths and lists become values."""
    parsed = parse_settings([Document(EXAMPLE, FILE)])
    settings = parsed.settings
    assert parsed.faults == ()
    assert (settings.limits.run, settings.browser.shared_memory) == (7200, 1024**3)
    assert (settings.paths.state, settings.store.url) == (
        Path("/var/lib/mayfly"),
        "s3://scraped/prod",
    )
    assert settings.notify.apprise == ("ntfys://a", "json://b")


def test_all_faults_of_a_file_are_told_with_key_and_suggestion() -> None:
    """Three mistakes make three faults."""
    text = '[store]\nurll = "x"\nurl = "bucket"\n[limits]\nrun = "soon"\n[brwser]\n'
    assert faults(text) == [
        'agent.toml: store.url: "bucket" is not a bucket; write "s3://bucket/prefix" or "file:///absolute/path"',
        'agent.toml: store.urll: unknown key (did you mean "url"?)',
        'agent.toml: limits.run: not a duration; write for example "90s", "10m" or "1h30m"',
        'agent.toml: brwser: unknown key (did you mean "browser"?)',
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "not valid TOML"),
        ('store = "x"', "store: "),
        ('[release]\ntrack = "v*"\nbranch = "main"', "exclude each other"),
        ('[browser]\nimage = "x"\nurl = "http://y"', "exclude each other"),
        ('[store]\nendpoint = "s3.example.org"', 'write "https://s3.example.org"'),
        ('[store]\ncredentials = "vault:/x"', "store.credentials"),
        ('[store]\nurl = "s3://"', "is not a bucket"),
        ('[store]\nurl = "s3:///prefix"', "is not a bucket"),
        ('[store]\nurl = "file:///"', "is not a bucket"),
        ('[browser]\nurl = "http://["', "browser.url: invalid address"),
        ('[notify]\nhealthchecks = "https://["', "notify.healthchecks: invalid address"),
        ('[store]\nendpoint = "http://store:x"', "store.endpoint: invalid address"),
        ('[store]\nendpoint = "http://store:99999"', "store.endpoint: invalid address"),
        ('[store]\nendpoint = "http://"', "store.endpoint: invalid address: it has no host"),
        ('[browser]\nurl = "http://me@/wd"', "browser.url: invalid address: it has no host"),
        ('[paths]\nstate = ""', "paths.state: must not be empty"),
        ('[paths]\ncache = ""', "paths.cache: must not be empty"),
        ("[store]\nconcurrency = 0", "store.concurrency"),
        ("[browser]\nsessions = 65", "not 65"),
        ('[power]\nafter = "reboot"', "power.after"),
        ('[notify]\nhealthchecks = "hc-ping.com/x"', "notify.healthchecks"),
        ('[notify]\napprise = "ntfy://x"', "notify.apprise"),
        (f"[limits]\nrun = {'9' * 400}", "limits.run"),
        (f'[browser]\nshared_memory = "{"9" * 400}"', "browser.shared_memory"),
    ],
)
def test_each_rule_is_checked(text: str, says: str) -> None:
    """A value that cannot work is a fault that names its key."""
    (fault,) = faults(text)
    assert says in fault
    assert fault.startswith(f"{FILE}: ")


def test_the_environment_overrides_the_file_and_flags_override_both() -> None:
    """Text is converted as the key wants it."""
    by_variable, wrong = environment_overrides(
        {
            "MAYFLY_LIMITS_RUN": "1h",
            "MAYFLY_LIMITS_JOBS": "5",
            "MAYFLY_NOTIFY_APPRISE": "json://a, json://b",
            "MAYFLY_BROWSER_SHARED_MEMORY": "3GiB",
            "MAYFLY_RUN_ID": "not a setting",
            "MAYFLY_CONFIG": "neither",
            "LIMITS_RUN": "not ours",
        }
    )
    by_flag, wrong_too = flag_overrides(["limits.run=30m", 'notify.apprise=["json://c,d"]'])
    assert wrong + wrong_too == []
    file = Document('[limits]\nrun = "3h"\njobs = 1', FILE)
    parsed = parse_settings([file], by_variable)
    assert parsed.faults == ()
    settings = parsed.settings
    assert (settings.limits.run, settings.limits.jobs) == (3600, 5)
    assert settings.notify.apprise == ("json://a", "json://b")
    assert settings.browser.shared_memory == 3 * 1024**3
    settings = parse_settings([Document("", FILE)], [*by_variable, *by_flag]).settings
    assert (settings.limits.run, settings.notify.apprise) == (1800, ("json://c,d",))


def test_variables_out_of_a_file_with_other_line_ends_mean_the_same() -> None:
    """With a carriage return at its end an address would be another bucket, and a path another folder."""
    plain = {
        "MAYFLY_STORE_URL": "s3://scraped/prod",
        "MAYFLY_STORE_CREDENTIALS": "ssm:/mayfly/store",
        "MAYFLY_RELEASE_REPOSITORY": "/srv/my scrapers.git",
        "MAYFLY_PATHS_STATE": "/var/lib/mayfly",
        "MAYFLY_PATHS_PACE": "/var/lib/pace",
        "MAYFLY_LIMITS_JOBS": "3",
        "MAYFLY_LIMITS_RUN": "1h",
        "MAYFLY_NOTIFY_HEALTHCHECKS": "https://hc-ping.com/x",
        "MAYFLY_NOTIFY_APPRISE": "json://a, json://b",
    }
    meant, read = (
        parse_settings(
            [Document("", FILE)],
            environment_overrides({name: value + end for name, value in plain.items()})[0],
        )
        for end in ("", "\r")
    )
    assert read.faults == ()
    assert read.settings == meant.settings


def test_a_wrong_override_is_a_fault_of_its_own_source() -> None:
    """The fault names the variable or the flag, not the file."""
    by_variable, _ = environment_overrides({"MAYFLY_LIMITS_JOBS": "many"})
    by_flag, _ = flag_overrides(["limits.run=soon"])
    found = faults("[limits]\ngrace = 1", *by_variable, *by_flag)
    assert found[0].startswith("--set limits.run: limits.run: not a duration")
    assert found[1].startswith("environment MAYFLY_LIMITS_JOBS: limits.jobs: ")


def test_what_names_no_key_is_a_fault_with_a_suggestion() -> None:
    """A variable of a section that has no such key, and a flag without a key or a value."""
    _, by_variable = environment_overrides({"MAYFLY_STORE_ULR": "x"})
    _, by_flag = flag_overrides(["store.ulr=x", "limits.run", "nonsense=1"])
    assert [str(fault) for fault in (*by_variable, *by_flag)] == [
        'environment: MAYFLY_STORE_ULR: unknown variable (did you mean "MAYFLY_STORE_URL"?)',
        '--set: store.ulr: unknown key (did you mean "store.url"?)',
        "--set: limits.run: no value (write --set section.key=value)",
        f"--set: nonsense: unknown key ({suggest('nonsense', _keys())})",
    ]


def _keys() -> list[str]:
    document = Settings().model_dump()
    return [f"{section}.{key}" for section, table in document.items() for key in table]


@given(
    st.dictionaries(
        st.sampled_from(_keys()), st.text(max_size=12) | st.integers().map(str), max_size=4
    )
)
def test_no_override_escapes_its_check(values: dict[str, str]) -> None:
    """Whatever stands in a variable is a setting or a fault, never an error of ours."""
    overrides = [Override(key, "x", text) for key, text in values.items()]
    parsed = parse_settings([Document("", FILE)], overrides)
    assert not parsed.faults or parsed.settings == Settings()


@pytest.mark.parametrize(
    "value",
    ["[1]", "{ a = 1 }", "[]", "{}", "true", "nan", "-1", '""', "1979-05-27", "[[1]]", "9e999"],
)
def test_no_value_of_a_file_escapes_its_check(value: str) -> None:
    """Whatever kind of value a key has, it is a setting or a fault of that key."""
    for key in _keys():
        parsed = parse_settings([Document(f"{key} = {value}", FILE)])
        assert all(fault.key.startswith(key.split(".")[0]) for fault in parsed.faults)


def test_a_key_of_many_parts_is_read_as_far_as_it_goes() -> None:
    """TOML makes a table of each part; so many of them are no error of ours, with or without a NUL in a text."""
    key = "registry" + ".a" * 3000
    (fault,) = faults(f'{key} = "\\u0000"')
    assert "has a NUL" in fault
    assert "agent.toml: registry.a.a: unknown key (known: credentials)" in faults(f"{key} = 10000")


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    """Some editors write one before everything, and show it to nobody."""
    assert parse_settings([Document("\ufeff[limits]\njobs = 3", FILE)]).settings.limits.jobs == 3


def test_jobs_leave_time_for_the_hand_off() -> None:
    """A quarter of a short run, and no more than `limits.handoff` of a long one."""
    for run, seconds in (("400", 300), ('"10h"', 36000 - 600)):
        parsed = parse_settings([Document(f"[limits]\nrun = {run}", FILE)])
        assert parsed.settings.job_seconds == seconds


def test_addresses_that_are_secrets_are_known() -> None:
    """Ping URL, chat URLs and the repository's password, as written and as it is."""
    values = parse_settings([Document(EXAMPLE, FILE)]).settings.sensitive().values()
    assert {"https://hc-ping.com/x", "ntfys://a", "json://b", "pass%2Fword", "pass/word"} <= {
        *values
    }
    assert Settings().sensitive() == {}


def test_the_schema_takes_the_example_and_refuses_a_misspelt_key() -> None:
    """Editors get the same rules."""
    schema = Settings.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(EXAMPLE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"store": {"urll": "x"}}, schema)


def test_a_configuration_error_is_all_its_faults() -> None:
    """One line each."""
    error = ConfigurationError([Fault("a", "b", "c", "d"), Fault("e", "", "f")])
    assert str(error) == "a: b: c (d)\ne: f"

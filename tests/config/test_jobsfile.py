"""`jobs.toml`: what is accepted, what is refused and how, and what a matrix makes of it."""

import json
import tomllib

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.jobsfile import (
    DAYS,
    MAX_NAME,
    JobsFile,
    expand,
    family_of,
    matrix_environment,
    needs_browser,
    parse_days,
    parse_jobs,
)

FILE = "jobs.toml"

EXAMPLE = """
requires = "mayfly >= 0.1"
[browser]
image = "selenium/standalone-chromium:4.48.0"
[[job]]
name = "login-check"
command = ["./check.sh"]
[[job]]
name = "quotes"
command = ["python", "-m", "scrapers.quotes"]
browser = true
timeout = "10m"
retries = 1
needs = ["login-check"]
on = "mon..fri"
memory = "1GiB"
matrix = { shop = ["a", "b"] }
env = { TZ = "Asia/Tokyo" }
secrets = ["QUOTES_TOKEN"]
expect = { min_files = 1, min_bytes = "1KiB", drop = 0.5 }
[[job]]
name = "digest"
command = ["true"]
needs = ["quotes"]
"""


def parsed(text: str) -> JobsFile:
    """A file without faults."""
    jobs, faults = parse_jobs(text, FILE, "0.2.0")
    assert jobs is not None, faults
    assert faults == []
    return jobs


def faults(text: str, version: str = "0.2.0") -> list[str]:
    """The faults of a file as a person reads them."""
    jobs, found = parse_jobs(text, FILE, version)
    assert jobs is None
    return [str(fault) for fault in found]


def job(rest: str, name: str = "a") -> str:
    """A job with a command and `rest`."""
    return f'[[job]]\nname = "{name}"\ncommand = ["x"]\n{rest}\n'


def test_the_example_is_read_and_expanded() -> None:
    """A matrix makes a job per value, and who needs the job needs all of them."""
    jobs = parsed(EXAMPLE)
    assert [one.name for one in jobs.job] == ["login-check", "quotes-a", "quotes-b", "digest"]
    assert jobs.job[3].needs == ("quotes-a", "quotes-b")
    assert matrix_environment(jobs.job[2]) == {"MAYFLY_MATRIX_SHOP": "b"}
    assert (jobs.job[1].timeout, jobs.job[1].memory) == (600, 1024**3)
    assert needs_browser(jobs)
    assert not needs_browser(parsed(job("")))


def test_all_faults_are_told_at_once_by_the_jobs_names() -> None:
    """Three mistakes in two jobs, each with its key."""
    text = job('tiemout = "1m"') + job('timeout = "soon"\nretries = 11', "b")
    assert faults(text) == [
        'jobs.toml: job[a].tiemout: unknown key (did you mean "timeout"?)',
        'jobs.toml: job[b].timeout: not a duration; write for example "90s", "10m" or "1h30m"',
        "jobs.toml: job[b].retries: input should be less than or equal to 10, not 11",
    ]


def test_all_that_a_jobs_keys_say_against_each_other_is_told_at_once() -> None:
    """Whoever corrects the first need not find the second with another attempt."""
    (fault,) = faults(job('service = "s"\nenv = { PATH = "x", TZ = "Asia/Tokio" }'))
    for said in ('"service" goes', '"PATH" is set by the agent', 'did you mean "Asia/Tokyo"?'):
        assert said in fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "job: is missing"),
        ("job = 1", "job: "),
        ("[[job]]", "job[1].name: is missing"),
        ('[[job]]\nname = "a"', 'needs one of "command", "image" and "compose"'),
        (job("", "A"), "job[A].name"),
        (job("", "-a"), "job[-a].name"),
        (job("", "a" * 64), "name"),
        (job("") + job(""), "job[a].name: is used 2 times"),
        (job('needs = ["b"]') + job("", "bb"), 'no job "b" (did you mean "bb"?)'),
        (job('needs = ["a"]'), "goes in a circle: a -> a"),
        (job('needs = ["b"]') + job('needs = ["a"]', "b"), "goes in a circle"),
        (job('on = "monday"'), '"monday" is not a day'),
        (job('on = "mon.."'), "is not a day"),
        (job('on = ""'), "is not a day"),
        (job("matrix = { shop = [] }"), 'the values of "shop"'),
        (job('matrix = { shop = ["a", "a"] }'), 'the values of "shop"'),
        (job('matrix = { shop = ["a"], SHOP = ["b"] }'), "differ in case only"),
        (job('matrix = { shop = ["b"] }') + job("", "a-b"), "job[a-b].name: is also what a matrix"),
        (job('env = { PATH = "x" }'), '"PATH" is set by the agent'),
        (job('env = { MAYFLY_X = "x" }'), '"MAYFLY_X" is set by the agent'),
        (
            job('env = { TZ = "Asia/Tokio" }'),
            '"Asia/Tokio" is not a time zone; did you mean "Asia/Tokyo"?',
        ),
        (job('env = { TZ = "Asia" }'), 'env.TZ: "Asia" is not a time zone'),
        (job('on = "mon"\nenv = { TZ = "JST-9" }'), "which `on` cannot use"),
        (job('secrets = ["HOME"]'), '"HOME" is set by the agent'),
        (job('secrets = ["T"]\nenv = { T = "x" }'), "both in env and in secrets"),
        (job('output = "/data"'), 'a folder of the release, and "/data" is none'),
        (job('output = "../out"'), 'a folder of the release, and "../out" is none'),
        (job('output = "./out"'), 'a folder of the release, and "./out" is none'),
        ('[[job]]\nname = "a"\nimage = "x"\noutput = "data"', "not a plain absolute path"),
        (job('service = "x"'), '"service" goes with "compose"'),
        (job('compose = "c.yml"'), '"compose" needs "service"'),
        (job("expect = { drop = 1.0 }"), "job[a].expect.drop"),
        ('[[job]]\nname = "a"\nimage = "x"\noutput = "/"', "not a plain absolute path"),
        ('[[job]]\nname = "a"\ncompose = "c"\nservice = "s"\nbrowser = true', "its own browser"),
        ('[[job]]\nname = "a"\ncompose = "c"\nservice = "s"\nmemory = "1GiB"', "mem_limit"),
        ('[[job]]\nname = "a"\nimage = "x"\nsecrets = ["LD_PRELOAD"]', "cannot be named"),
        ('[[job]]\nname = "a"\nimage = "--privileged"\ncommand = ["x"]', "write the image's name"),
        ('[[job]]\nname = "a"\nimage = "-v/:/x"', '"-v/:/x" is not possible'),
        ('[[job]]\nname = "a"\ncompose = "c"\nservice = "--service-ports"', "a service's name"),
        (job("") + '[browser]\nimage = "--volume=/:/x"', "browser.image"),
        ('requires = "mayfly > 1"\n' + job(""), "is not understood"),
    ],
)
def test_each_rule_is_checked(text: str, says: str) -> None:
    """What cannot run is refused before anything starts."""
    (fault,) = faults(text)
    assert says in fault


def test_a_release_for_a_newer_agent_is_refused_with_that_one_sentence() -> None:
    """Its unknown keys are not what is wrong with it."""
    assert faults('requires = "mayfly >= 9"\n' + job("hologram = true"), "1.2.3") == [
        "jobs.toml: requires: it needs mayfly >= 9 and this is 1.2.3 (update the agent's image)"
    ]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon..fri", {0, 1, 2, 3, 4}),
        ("sat,sun", {5, 6}),
        ("sat..mon", {5, 6, 0}),
        ("Mon, Thu..Thu", {0, 3}),
        ("mon..sun", set(range(7))),
    ],
)
def test_days_are_read(text: str, days: set[int]) -> None:
    """Names, lists, ranges, and ranges over the weekend."""
    assert parse_days(text) == days


@given(st.sampled_from(DAYS), st.sampled_from(DAYS))
def test_a_range_of_days_has_both_ends(first: str, last: str) -> None:
    """From any day to any day, going round."""
    days = parse_days(f"{first}..{last}")
    assert {DAYS.index(first), DAYS.index(last)} <= days
    assert len(days) == (DAYS.index(last) - DAYS.index(first)) % 7 + 1


VALUES = st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=5, unique=True)


@given(
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    matrix=st.dictionaries(st.sampled_from(["shop", "area"]), VALUES, min_size=1),
)
def test_a_matrix_makes_names_that_are_names(name: str, matrix: dict[str, list[str]]) -> None:
    """One job per combination, each with a stable, unique name in the alphabet and length of names."""
    source = JobsFile.model_validate({"job": [{"name": name, "command": ["x"], "matrix": matrix}]})
    jobs = expand(source).job
    names = [one.name for one in jobs]
    count = 1
    for values in matrix.values():
        count *= len(values)
    assert len(set(names)) == count
    assert names == [one.name for one in expand(source).job]
    for one in names:
        assert len(one) <= MAX_NAME
        JobsFile.model_validate({"job": [{"name": one, "command": ["x"]}]})
    seen = {tuple(sorted(matrix_environment(one).items())) for one in jobs}
    assert len(seen) == count


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["job", "name", "command", "env", "matrix", "expect", "needs", "on"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_document_escapes_as_an_error_of_ours(document: object) -> None:
    """Any shape of data is jobs or faults."""
    # JSON with = for : is close enough to TOML for tables within tables.
    text = json.dumps(document).replace('": ', '" = ').replace("null", '"x"')
    jobs, found = parse_jobs(f"job = {text}", FILE, "0.2.0")
    assert (jobs is None) == bool(found)


def test_the_schema_takes_the_example_and_refuses_a_misspelt_key() -> None:
    """Editors get the same rules."""
    schema = JobsFile.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = tomllib.loads(EXAMPLE)
    jsonschema.validate(document, schema)
    document["job"][0]["tiemout"] = "1m"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", "JST-9", "EST5EDT", "<+09>-9", ""])
def test_zones_that_a_program_understands_are_fine(zone: str) -> None:
    """Names, and rules of POSIX where no day is judged by them."""
    assert parsed(job(f'env = {{ TZ = "{zone}" }}')).job[0].env == {"TZ": zone}


MATRIX = """
[[job]]
name = "shop"
command = ["x"]
matrix = { city = ["akasaka", "Ume Da"] }

[[job]]
name = "shop-list"
command = ["x"]
"""


def test_a_value_of_a_matrix_knows_its_job() -> None:
    """Whatever its own name became, it has the one in jobs.toml besides; a job without a matrix has one name."""
    jobs = parsed(MATRIX)
    assert [family_of(each) for each in jobs.job] == ["shop", "shop", "shop-list"]
    assert len({each.name for each in jobs.job}) == 3
    assert all(each.command == ("x",) for each in jobs.job)

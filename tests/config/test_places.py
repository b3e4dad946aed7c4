"""Where things are: configuration, state, cache, bucket."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.base.errors import StoreRefused
from agent.bucket.address import (
    LocalBucket,
    S3Bucket,
    bucket_at,
    is_refusal,
    reason_of,
    s3_parameters,
    store_error,
)
from agent.config.credentials import Credentials, static_credentials
from agent.config.locate import (
    DEFAULTS,
    Locations,
    Surroundings,
    bucket_override,
    config_file,
    is_machine,
    load_settings,
    locate,
)
from agent.config.settings import Paths, Store

HOME = {"HOME": "/home/me"}


def around(
    environ: Mapping[str, str] = HOME,
    files: Mapping[str, str | Exception] | None = None,
    *,
    machine: bool = False,
) -> Surroundings:
    """A computer with these files."""

    def read(path: Path) -> str:
        content = (files or {}).get(str(path), FileNotFoundError())
        if isinstance(content, Exception):
            raise content
        return content

    return Surroundings(environ, machine, Path("/here"), read)


@pytest.mark.parametrize(
    ("paths", "computer", "places"),
    [
        (Paths(), around(), ("/home/me/.local/state/mayfly", "/home/me/.cache/mayfly")),
        (Paths(), around({}), ("/here/.local/state/mayfly", "/here/.cache/mayfly")),
        (
            Paths(),
            around({**HOME, "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"}),
            ("/s/mayfly", "/c/mayfly"),
        ),
        (
            Paths(),
            around({**HOME, "XDG_STATE_HOME": "relative"}),
            ("/home/me/.local/state/mayfly", "/home/me/.cache/mayfly"),
        ),
        (Paths(), around(machine=True), ("/var/lib/mayfly", "/var/lib/mayfly/cache")),
        (Paths(state=Path("/d")), around(machine=True), ("/d", "/d/cache")),
        (Paths(state=Path("d")), around(), ("/here/d", "/here/d/cache")),
        (Paths(state=Path("~/d")), around(), ("/home/me/d", "/home/me/d/cache")),
        (
            Paths(cache=Path("/c")),
            around(),
            ("/home/me/.local/state/mayfly", "/c"),
        ),
    ],
)
def test_state_cache_and_bucket_have_their_usual_places(
    paths: Paths, computer: Surroundings, places: tuple[str, str]
) -> None:
    """Configured, else /var/lib on a machine, else the user's folders; the default bucket is in the state."""
    state, cache = map(Path, places)
    assert locate(paths, computer) == Locations(state, cache, state / "bucket")


def test_a_configuration_alone_makes_no_computer_a_machine(tmp_path: Path) -> None:
    """Who puts agent.toml into /etc/mayfly keeps the power on; what `systemd/install.sh` writes makes a machine."""
    (tmp_path / "etc/mayfly").mkdir(parents=True)

    def there(path: Path) -> bool:
        return tmp_path.joinpath(*path.parts[1:]).is_dir()

    assert not is_machine(there)
    script = Path(__file__).parents[2] / "systemd/install.sh"
    subprocess.run([str(script), "--root", str(tmp_path)], check=True)
    assert is_machine(there)


@pytest.mark.parametrize(
    ("flag", "environ", "found"),
    [
        (None, {}, ("/etc/mayfly/agent.toml", False)),
        (None, {"MAYFLY_CONFIG": "/a.toml"}, ("/a.toml", True)),
        (None, {"MAYFLY_CONFIG": ""}, ("/etc/mayfly/agent.toml", False)),
        (Path("b.toml"), {"MAYFLY_CONFIG": "/a.toml"}, ("b.toml", True)),
    ],
)
def test_a_configuration_file_that_was_named_must_be_there(
    flag: Path | None, environ: dict[str, str], found: tuple[str, bool]
) -> None:
    """The flag, the variable, and last the machine's own, which may be missing."""
    assert config_file(flag, environ) == (Path(found[0]), found[1])


def test_the_configuration_is_read_where_the_caller_says() -> None:
    """Relative to the working directory, with overrides from flags last."""
    computer = around({**HOME, "MAYFLY_LIMITS_JOBS": "3"}, {"/here/a.toml": "[limits]\nrun = 60"})
    loaded = load_settings(
        Path("a.toml"), computer, ["limits.run=90"], [bucket_override("b", computer.cwd)]
    )
    assert (loaded.source, loaded.faults) == ("a.toml", ())
    assert (loaded.settings.limits.run, loaded.settings.limits.jobs) == (90, 3)
    assert loaded.settings.store.url == "file:///here/b"


def test_no_configuration_file_is_fine() -> None:
    """Unless it was named."""
    assert load_settings(None, around()).source == DEFAULTS
    (fault,) = load_settings(Path("/x.toml"), around()).faults
    assert str(fault) == "/x.toml: no such file"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "not a text file in UTF-8"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_a_fault(error: Exception, says: str) -> None:
    """Also the machine's own, which somebody else may not be allowed to read."""
    (fault,) = load_settings(None, around(files={"/etc/mayfly/agent.toml": error})).faults
    assert fault.problem == says


def test_faults_of_all_sources_come_together() -> None:
    """File, variables and flags in one list."""
    computer = around({"MAYFLY_STORE_X": "1"}, {"/x.toml": "[stoer]"})
    loaded = load_settings(Path("/x.toml"), computer, ["a.b=c"])
    assert [fault.source for fault in loaded.faults] == ["/x.toml", "environment", "--set"]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://b/p", "s3://b/p"),
        ("file:///b", "file:///b"),
        ("/a b/c", "file:///a%20b/c"),
        ("b", "file:///here/b"),
    ],
)
def test_a_bucket_may_be_given_as_a_folder(text: str, url: str) -> None:
    """`--store` takes what a person types."""
    assert bucket_override(text, Path("/here")).text == url


@pytest.mark.parametrize(
    ("store", "address"),
    [
        (Store(), LocalBucket(Path("/default"))),
        (Store(url="file:///a%20b/c/"), LocalBucket(Path("/a b/c"))),
        (Store(url="s3://b"), S3Bucket("b", "", {"region": "us-east-1"})),
        (
            Store(url="s3://b/p/q/", endpoint="https://s3.example.org", region="x"),
            S3Bucket(
                "b",
                "p/q",
                {
                    "region": "x",
                    "endpoint": "https://s3.example.org",
                    "virtual_hosted_style_request": False,
                },
            ),
        ),
    ],
)
def test_a_url_addresses_a_bucket(store: Store, address: LocalBucket | S3Bucket) -> None:
    """A folder, or a bucket with a prefix."""
    assert bucket_at(store, Path("/default")) == address


def test_plain_http_is_for_endpoints_that_say_so() -> None:
    """Everything else is encrypted."""
    for url, allowed in (("http://x", True), ("https://x", False)):
        address = bucket_at(Store(url="s3://b", endpoint=url), Path())
        assert isinstance(address, S3Bucket)
        parameters = s3_parameters(address, Credentials("a", "s"), lambda: None)
        assert parameters["client_options"]["allow_http"] is allowed
        assert parameters["retry_config"]["max_retries"]


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (None, {"credential_provider": "the chain's"}),
        (Credentials("a", "s"), {"access_key_id": "a", "secret_access_key": "s"}),
        (
            Credentials("a", "s", "t"),
            {"access_key_id": "a", "secret_access_key": "s", "token": "t"},
        ),
    ],
)
def test_keys_are_given_or_left_to_the_chain(
    credentials: Credentials | None, expected: dict[str, str]
) -> None:
    """Only without keys is somebody asked for them, which is expensive."""
    address = S3Bucket("b", "p", {})
    parameters = s3_parameters(address, credentials, lambda: "the chain's")
    keys = {"credential_provider", "access_key_id", "secret_access_key", "token"}
    assert {key: parameters[key] for key in keys & set(parameters)} == expected
    assert parameters["prefix"] == "p"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"AWS_ACCESS_KEY_ID": "a"}, None),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": ""}, None),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}, Credentials("a", "s")),
        (
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_SESSION_TOKEN": "t",
            },
            Credentials("a", "s", "t"),
        ),
    ],
)
def test_keys_are_a_pair(environ: dict[str, str], found: Credentials | None) -> None:
    """Half a pair is none."""
    assert static_credentials(environ) == found


def test_a_clients_message_is_cut_to_what_it_says() -> None:
    """One line of at most 300 characters; a refusal is told from its words."""
    message = "Server returned 403 Forbidden:\n <Error/>" + "x" * 400 + "\n\nDebug source:\nlots"
    assert len(reason_of(message)) == 300
    assert is_refusal(reason_of(message))
    assert not is_refusal("404 Not Found")


ANSWER = (
    "The operation lacked the necessary privileges to complete for path some/prefix/runs/{long}: Error performing PUT"
    " https://s3.example.org/some/prefix/runs/{long} in 12ms - Server returned non-2xx status code: {status}:"
    ' <?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{text}</Message>'
    "<RequestId>1</RequestId></Error>\n\nDebug source:\nlots"
)


@pytest.mark.parametrize(
    ("status", "code", "text", "reason", "remedy"),
    [
        (
            *("403 Forbidden", "RequestTimeTooSkewed", "The difference is too large."),
            "RequestTimeTooSkewed: The difference is too large. (403 Forbidden)",
            "clock",
        ),
        (
            *("403 Forbidden", "SignatureDoesNotMatch", "It doesn&apos;t match."),
            "SignatureDoesNotMatch: It doesn't match. (403 Forbidden)",
            "keys",
        ),
        (
            *("403 Forbidden", "AccessDenied", "Access Denied."),
            "AccessDenied: Access Denied. (403 Forbidden)",
            "policy",
        ),
        (
            *("400 Bad Request", "AuthorizationHeaderMalformed", "expecting 'ap-northeast-2'"),
            "AuthorizationHeaderMalformed: expecting 'ap-northeast-2' (400 Bad Request)",
            "store.region",
        ),
        (
            *("404 Not Found", "NoSuchBucket", "It does not exist"),
            "NoSuchBucket: It does not exist (404 Not Found)",
            "store.url",
        ),
        (*("403 Forbidden", "Odd", ""), "Odd (403 Forbidden)", "credentials"),
    ],
)
def test_a_services_answer_is_the_reason_and_brings_its_remedy(
    status: str, code: str, text: str, reason: str, remedy: str
) -> None:
    """However long the address before it is: what the client makes of it says less."""
    message = ANSWER.format(long="x" * 400, status=status, code=code, text=text)
    error = store_error("put", "k", message, denied=False)
    assert str(error).endswith(f" put k: {reason}")
    assert remedy in error.remedy
    assert isinstance(error, StoreRefused) is ("403" in status)

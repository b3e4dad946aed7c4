"""Which parts of addresses, and of the environment, are secrets."""

from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.base.redact import SHORTEST, Redactor
from agent.base.urlsecrets import PUBLIC, environment_secrets, settings_secrets, url_secrets
from agent.config.overrides import Document, parse_settings

TOKEN = "ghp_0123456789abcdefghij"
UUID = "2f1c7b54-9a1e-4d0e-8d53-0c6a1f5b7e21"


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (f"https://{TOKEN}@example.org/x.git", {TOKEN}),
        (f"https://{TOKEN}:@example.org/x.git", {TOKEN}),
        (f"https://{TOKEN}:x-oauth-basic@example.org/x.git", {TOKEN}),
        (f"https://x-access-token:{TOKEN}@example.org/x.git", {TOKEN}),
        (f"https://oauth2:{TOKEN}@example.org/x.git", {TOKEN}),
        (f"https://{TOKEN}:{TOKEN[::-1]}@example.org/x.git", {TOKEN, TOKEN[::-1]}),
        ("https://me:pass%2Fword@example.org/x.git", {"pass%2Fword", "pass/word"}),
        ("https://git@example.org/x.git", set()),
        ("ssh://somebody@example.org/x.git", set()),
        ("git@example.org:x.git", set()),
        ("/srv/x.git", set()),
        ("http://[", set()),
        (f"https://me:{TOKEN}@ho\u2100st/x", {TOKEN, f"me:{TOKEN}"}),
        (f"https://{TOKEN}@[example.org/x", {TOKEN}),
        ("http://me:hunter22@grid:4444/wd/hub", {"hunter22"}),
        ("http://grid:4444/wd/hub?token=abc%20d&timeout=60000", {"abc%20d", "abc d"}),
        (f"http://grid:4444/?{TOKEN}", {TOKEN}),
        (f"http://grid:4444/#x={TOKEN}", {TOKEN}),
        ("http://grid:4444/wd/hub", set()),
    ],
)
def test_the_secrets_of_an_address(url: str, secrets: set[str]) -> None:
    """Its password; its user where that is a token; what its query calls a secret, and what looks like one."""
    assert set(url_secrets(url)) == secrets


CONFIGURATION = f"""
[release]
repository = "https://{TOKEN}:x-oauth-basic@example.org/x.git"
[store]
url = "s3://bucket/prefix"
endpoint = "https://key:endpoint-secret@s3.example.org"
[browser]
url = "http://me:browser-secret@grid:4444/wd/hub?token=query-secret"
[notify]
healthchecks = "https://hc.example.org/{UUID}"
apprise = ["tgram://123456789:chat-secret/42", "mailto://me:mail-secret@example.org"]
"""
EVERY = (
    *(TOKEN, "endpoint-secret", "browser-secret", "query-secret", UUID, "mail-secret"),
    "tgram://123456789:chat-secret/42",
)


def test_every_address_of_the_configuration_is_looked_at() -> None:
    """A ping URL's id is a secret alone as well: with it, anybody can make the URL."""
    parsed = parse_settings([Document(CONFIGURATION, "agent.toml")])
    settings, faults = parsed.settings, [*parsed.faults]
    assert faults == []
    redactor = Redactor(settings.sensitive())
    for secret in EVERY:
        assert "[redacted:" in redactor.text(f"a {secret} b")
    for word in ("example.org", "bucket/prefix", "grid:4444", "x-oauth-basic", "mailto"):
        assert redactor.text(word) == word


@pytest.mark.parametrize(
    "wrong",
    [
        f'[store]\nurl = "gs://me:{TOKEN}@bucket"',
        f'[store]\nendpoint = "me:{TOKEN}@s3.example.org"',
        f'[browser]\nurl = "ws://me:{TOKEN}@grid"',
        f'[notify]\nhealthchecks = "hc.example.org/{TOKEN}"',
        f'[notify]\nhealthchecks = "https://h\uff0f{TOKEN[:12]}"',
        f'[release]\nrepository = "https://me:{TOKEN}@ho\u2100st/x"',
        f'[release]\nrepository = "https://me:{TOKEN}/x@example.org/x"',
        f'[store]\nurl = "https://me:{TOKEN}@ho\u2100st/x"',
        f'[release]\ncredentials = "{TOKEN}"',
        f'[store]\ncredentials = "{TOKEN}"',
        f'[registry."ghcr.io"]\ncredentials = "{TOKEN}"',
        f'[index.ours]\ncredentials = "{TOKEN}"',
    ],
)
def test_a_fault_does_not_quote_a_secret(wrong: str) -> None:
    """What is wrong with an address is told without it."""
    (fault,) = parse_settings([Document(wrong, "agent.toml")]).faults
    assert TOKEN[:12] not in str(fault)


def test_a_configuration_with_faults_has_secrets_too() -> None:
    """Whatever its tables and keys are."""
    assert settings_secrets(
        {"browser": 1, "notify": {"apprise": [1, "json://x"], "healthchecks": 2}}
    )
    assert settings_secrets({}) == {}


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("HTTPS_PROXY", "http://me:proxy-secret@proxy:3128", {"proxy-secret"}),
        ("https_proxy", "me:proxy-secret@proxy:3128", {"proxy-secret"}),
        ("NO_PROXY", "localhost,example.org", set()),
        (
            "UV_INDEX",
            "a=https://me:index-secret@example.org/simple https://b.org/",
            {"index-secret"},
        ),
        ("UV_INDEX_SHOP_PASSWORD", "index-secret", {"index-secret"}),
        ("AWS_SECRET_ACCESS_KEY", "access-secret", {"access-secret"}),
        ("AWS_SESSION_TOKEN", "session-secret", {"session-secret"}),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token", set()),
        ("MAYFLY_STORE_CREDENTIALS", "ssm:/mayfly/store", set()),
        ("MAYFLY_BROWSER_URL", "http://me:browser-secret@grid:4444", {"browser-secret"}),
        ("HAS_TOKEN", "false", set()),
        ("PATH", "/usr/bin:/bin", set()),
    ],
)
def test_the_secrets_of_an_environment(name: str, value: str, secrets: set[str]) -> None:
    """Proxies and package indexes have passwords in their addresses; other names say so."""
    assert set(environment_secrets({name: value}).values()) == secrets


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=SHORTEST)


@given(words, st.sampled_from(["https://me:{}@host/x", "https://{}@host/x", "http://h/?token={}"]))
def test_a_secret_is_hidden_as_it_stands_in_an_address_and_as_it_is(secret: str, form: str) -> None:
    """Whatever characters it has."""
    assume(secret not in PUBLIC)
    url = form.format(quote(secret, safe=""))
    redactor = Redactor({str(number): text for number, text in enumerate(url_secrets(url))})
    assert "[redacted:" in redactor.text(url)
    assert "[redacted:" in redactor.text(secret)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    """Configuration and environment may have anything."""
    url_secrets(text)
    settings_secrets({"notify": {"healthchecks": text}, "browser": {"url": f"http://{text}"}})
    environment_secrets({"HTTPS_PROXY": text, "X": f"http://{text}"})


def test_a_ping_url_that_is_no_address_is_a_secret_all_the_same() -> None:
    """Written with a full-width slash: the part that silences the alarm is hidden, and no error quotes it."""
    secrets = settings_secrets({"notify": {"healthchecks": f"https://hc-ping.com\uff0f{UUID}"}})
    assert UUID in secrets.values()

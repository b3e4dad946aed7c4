"""AWS: the only place that makes a session of boto3 and finds its region.

Keys and endpoints come from where boto3 looks for them. The region comes, in this order, from `AWS_REGION`, from
`AWS_DEFAULT_REGION`, from the profile, and from the metadata service of this machine. On EC2 only the last one has it:
nothing sets a variable there, and boto3 asks the metadata service for keys, but never for the region.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.base.errors import MetadataError, SecretsError, SecretsUnreachable
from agent.config.credentials import static_credentials
from agent.machine.metadata import Metadata, metadata_endpoint

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.exceptions import ClientError

METADATA_ATTEMPTS = 3
"""For a role's keys, a second each; boto3 asks once."""
REMEDY = "set AWS_REGION, or `region` in the profile"
UNKNOWN_KEYS = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"),
        *("ExpiredTokenException", "ExpiredToken", "RequestExpired"),
        *("SignatureDoesNotMatch", "InvalidSignatureException"),
    }
)
"""Codes with which AWS rejects the keys themselves."""
NEW_KEYS = "the keys are wrong or too old; log in again"


@dataclass(frozen=True, slots=True)
class Waits:
    """Limits of one request.

    Attributes:
        connect: Seconds to connect.
        read: Seconds between two pieces of the answer.
        attempts: How often it is sent; boto3 waits in between, up to 20 s for throttling.
    """

    connect: float
    read: float
    attempts: int


def aws_session(environ: Mapping[str, str]) -> "Session":
    """Return a session that asks the metadata service for keys only where there is one.

    Raises:
        BotoCoreError: The environment names a profile that does not exist.
    """
    # boto3 takes a third of a second and 30 MB: only where AWS is asked.
    import boto3  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415

    keys = static_credentials(environ)
    core = botocore.session.get_session()
    session = boto3.session.Session(
        aws_access_key_id=keys.access_key if keys else None,
        aws_secret_access_key=keys.secret_key if keys else None,
        aws_session_token=keys.token if keys else None,
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        profile_name=environ.get("AWS_PROFILE"),
        botocore_session=core,
    )
    endpoint = metadata_endpoint(environ)
    if endpoint is None:
        core.get_component("credential_provider").remove("iam-role")
    else:
        core.set_config_variable("ec2_metadata_service_endpoint", endpoint)
        core.set_config_variable("metadata_service_num_attempts", METADATA_ATTEMPTS)
    return session


def aws_client(
    service: str, environ: Mapping[str, str], waits: Waits, *, region: str | None = None
) -> Any:
    """Return a client of a service; without `region`, in the region of the environment or the machine.

    Raises:
        SecretsError: The region is unknown or no name of one, the metadata service does not answer, or the endpoint is
            not an address.
        BotoCoreError: The environment names a profile that does not exist.
    """
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import InvalidRegionError  # noqa: PLC0415

    session = aws_session(environ)
    named = environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or environ.get("AWS_ENDPOINT_URL")
    where = region or session.region_name or _machine_region(metadata_endpoint(environ))
    config = Config(
        connect_timeout=waits.connect,
        read_timeout=waits.read,
        retries={"total_max_attempts": waits.attempts, "mode": "standard"},
    )
    try:
        _ = urlsplit(named or "").port  # boto3 reads it only when it signs the first request
        return session.client(service, region_name=where, endpoint_url=named, config=config)  # type: ignore[call-overload]  # the stubs list services by literal name
    except InvalidRegionError as error:
        raise SecretsError(f"AWS cannot be asked: {error}", remedy=REMEDY) from error
    except ValueError as error:
        raise SecretsError(
            f"AWS cannot be asked: {error}",
            remedy=f"correct AWS_ENDPOINT_URL_{service.upper()} or AWS_ENDPOINT_URL",
        ) from error


def error_code(error: "ClientError") -> str:
    """Return the code of a refused request, such as `AccessDenied`."""
    return error.response.get("Error", {}).get("Code", "an error")


@cache
def _machine_region(endpoint: str | None) -> str:
    """Return this machine's region; an answer is cached."""
    if endpoint is None:
        raise SecretsError(
            "AWS has no region: neither the environment nor a profile names one, and this is not"
            " a machine of EC2, which would know its own",
            remedy=REMEDY,
        )
    try:
        region = Metadata(endpoint).region()
    except MetadataError as error:
        raise SecretsUnreachable(
            f"AWS has no region: {error}", remedy=f"{error.remedy}; or {REMEDY}"
        ) from error
    if region is None:
        raise SecretsError("AWS has no region: the metadata service names none", remedy=REMEDY)
    return region

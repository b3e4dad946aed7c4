"""The token service beside a registry, as Docker Hub, GitHub and GitLab have one: it signs what opens the registry.

https://distribution.github.io/distribution/spec/auth/token: the registry names its realm, docker's client logs in
there, and shows the registry what it got.
"""

import base64
import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.parts.certificate import Certificate, certify
from tests.parts.loopback_http import LoopbackHttp, QuietHandler, basic
from tests.parts.missing import program

ISSUER, SERVICE = "tests", "registry"
LIFETIME = 300


class TokenService(LoopbackHttp):
    """A token service, as a context manager.

    Attributes:
        certificate: With whose key it signs; a registry trusts it.
        lifetime: Seconds for which a token is valid from now on; negative: it has expired.
        refusal: Status and body of its answer to whom it does not let in.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        folder.mkdir()
        self.certificate = folder / "signer.pem"
        self._key = folder / "signer.key"
        certify(Certificate(self.certificate, self._key), "-newkey", "rsa:2048")
        self.lifetime = LIFETIME
        self.refusal: tuple[int, bytes] = (401, b'{"details": "incorrect username or password"}')
        self.authorization = ""

    @property
    def settings(self) -> str:
        """What a registry's configuration has as `auth`."""
        return (
            f"auth: {{token: {{realm: '{self.url}/token', service: {SERVICE}, issuer: {ISSUER}, "
            f"rootcertbundle: {self.certificate}}}}}\n"
        )

    def admit(self, user: str, password: str) -> None:
        """Let in who has this password, and nobody else any longer."""
        self.authorization = basic(user, password)

    def token(self, scopes: list[str]) -> str:
        """Return a token that allows what is asked for."""
        lines = self.certificate.read_text().splitlines()
        head = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(lines[1:-1])]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "puller",
            "aud": SERVICE,
            "jti": uuid.uuid4().hex,
            "iat": now - LIFETIME,
            # Registries allow a minute for clocks that differ.
            "nbf": now - LIFETIME,
            "exp": now + self.lifetime,
            "access": [_access(scope) for scope in scopes],
        }
        text = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
        command = [program("openssl"), "dgst", "-sha256", "-sign", str(self._key)]
        signed = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=30, check=True
        )
        return f"{text}.{_encoded(signed.stdout)}"


def _access(scope: str) -> dict[str, Any]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Handler(QuietHandler):
    owner: TokenService

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        json_type = {"Content-Type": "application/json"}
        if self.headers.get("Authorization") != self.owner.authorization:
            status, body = self.owner.refusal
            self.answer(status, body, json_type)
            return
        scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        self.answer(200, json.dumps({"token": self.owner.token(scopes)}).encode(), json_type)

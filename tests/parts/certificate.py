"""A certificate of a test's own for the loopback address."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.parts.missing import program
from tests.parts.ports import LOOPBACK


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate; `file` is also what a client has to trust (`GIT_SSL_CAINFO`)."""

    file: Path
    key: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """Make a certificate for 127.0.0.1, and for host names, that is valid for two days."""
    alternatives = ",".join([f"IP:{LOOPBACK}", *(f"DNS:{name}" for name in names)])
    certificate = Certificate(folder / "server.pem", folder / "server.key")
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", f"/CN={LOOPBACK}", "-addext", f"subjectAltName={alternatives}"),
            *("-out", str(certificate.file), "-keyout", str(certificate.key)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    return certificate

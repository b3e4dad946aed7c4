"""A certificate of a test's own for the loopback address."""

from dataclasses import dataclass
from pathlib import Path

from tests.parts.command import output_of
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
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    certify(certificate, *kind, "-addext", f"subjectAltName={alternatives}")
    return certificate


def certify(certificate: Certificate, *options: str) -> None:
    """Have openssl make a certificate and its key; `options` are those of `openssl req -x509`."""
    files = ("-out", str(certificate.file), "-keyout", str(certificate.key))
    command = (program("openssl"), "req", "-x509", "-nodes", "-days", "2", *options, *files)
    output_of([*command, "-subj", f"/CN={LOOPBACK}"])

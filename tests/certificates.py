"""Authorities and the certificates that they give, for tests of TLS."""

import datetime as dt
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mh_amqp.tls import Files

OTHER_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
DAY = dt.timedelta(days=1)


def _name(common: str, organization: str) -> x509.Name:
    found = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*found, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Authority:
    """Gives certificates, and takes them back."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        return self.directory / "authority.pem"

    def give(self, common: str, organization: str = "", days: float = 30, file: str | None = None) -> Files:
        """A certificate for 127.0.0.1 and localhost, its key, and ourselves as who is trusted."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(common, organization))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 60 * DAY)
            .not_valid_after(_now() + days * DAY)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.IPAddress(ip_address("127.0.0.1")),
                        x509.DNSName("localhost"),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        name = file or common
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Files(certificate, private, self.path)

    def revoke(self, *files: Files) -> Path:
        """A list of what is no longer good."""
        made = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        made = made.last_update(_now() - DAY).next_update(_now() + DAY)
        for each in files:
            assert each.certificate is not None
            serial = x509.load_pem_x509_certificate(each.certificate.read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now())
            made = made.add_revoked_certificate(one.build())
        path = self.directory / "revoked.pem"
        path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def authority(directory: Path, name: str = "Test Authority") -> Authority:
    """A new one, whose files are in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(OTHER_USES, False)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name, ""))
        .issuer_name(_name(name, ""))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - 90 * DAY)
        .not_valid_after(_now() + 90 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = Authority(directory, key, made)
    found.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return found

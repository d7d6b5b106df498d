"""A small certificate authority for tests, and node configurations on loopback that use it."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hasys.config import Member, NodeConfig

CLUSTER_ID = "c0ffee"
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Files:
    ca: Path
    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path, *, cluster_id: str = CLUSTER_ID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cluster_id = cluster_id
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self._name, self._key.public_key(), DAY)
        certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(self._key, hashes.SHA256())
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + life)
        )

    def issue(self, name: str, role: str, *, life: datetime.timedelta = DAY, cluster_id: str = "") -> Files:
        """A certificate for ``name``; negative life: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"hasys:{cluster_id or self._cluster_id}"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        addresses = [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "127.0.0.2", "127.0.0.3")]
        names = x509.SubjectAlternativeName([x509.DNSName(name), *addresses])
        certificate = (
            self._builder(subject, key.public_key(), life).add_extension(names, False).sign(self._key, hashes.SHA256())
        )
        stem = f"{name}-{role}-{len(list(self._folder.iterdir()))}"
        files = Files(self.ca, self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def node_config(folder: Path, name: str, members: tuple[Member, ...], files: Files) -> NodeConfig:
    """The configuration of one member."""
    return NodeConfig(
        path=folder / "node.yaml",
        cluster="demo",
        cluster_id=CLUSTER_ID,
        name=name,
        members=members,
        profile="default",
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        lease_secret=folder / "lease.secret",
        node_secret=folder / "node.secret",
        data_dir=folder / "data",
        run_dir=folder / "run",
    )

"""The cluster's own certificate authority. Used by ``init`` and ``cert`` alone; running processes only read its files.

Subjects: O = ``hasys:<cluster id>``, OU = ``node`` or ``admin``, CN = name. A node's certificate also carries all its
addresses and its name, so that any client can check which server it reached. Keys are EC P-256.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hasys.files import refuse_exposed
from hasys.model.errors import ConfigRefused

CA_LIFETIME = datetime.timedelta(days=3652)
LEAF_LIFETIME = datetime.timedelta(days=731)
_BACKDATED = datetime.timedelta(days=1)
"""Certificates begin a day ago: the clocks of machines that are just being set up differ."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Authority:
    """Issues the certificates of one cluster."""

    def __init__(self, issued: Issued) -> None:
        self.issued = issued

    @property
    def organization(self) -> str:
        """``hasys:<cluster id>``, as every certificate of this cluster carries it."""
        return organization(self.issued.certificate)

    @classmethod
    def create(cls, cluster: str, cluster_id: str) -> Authority:
        """A new authority for a new cluster."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"hasys:{cluster_id}", None, f"{cluster[:61]} CA")  # CN: at most 64
        builder = _builder(name, name, key.public_key(), CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(ski, critical=False)
        return cls(Issued(builder.sign(key, hashes.SHA256()), key))

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read ``ca.crt`` and ``ca.key``. Raises :class:`ConfigRefused` naming the file."""
        certificate = read_certificate(folder / "ca.crt")
        try:
            refuse_exposed(folder / "ca.key")
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except OSError as error:
            raise ConfigRefused(
                f"{folder / 'ca.key'}: {error.strerror}: the key that 'hasys init' wrote to DIR/ca is needed"
            ) from None
        except (ValueError, TypeError):
            raise ConfigRefused(f"{folder / 'ca.key'}: not a private key in PEM form") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigRefused(f"{folder / 'ca.key'}: is not the key of {folder / 'ca.crt'}")
        return cls(Issued(certificate, key))

    def issue_node(self, name: str, addresses: Sequence[str]) -> Issued:
        """Server and client certificate of a member."""
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        return self._issue("node", name, names)

    def issue_admin(self, name: str) -> Issued:
        """Client certificate that may do everything."""
        return self._issue("admin", name, [])

    def _issue(self, unit: str, name: str, names: list[x509.GeneralName]) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(self.organization, unit, name)
        builder = _builder(subject, self.issued.certificate.subject, key.public_key(), LEAF_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if names:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issued.key.public_key())
        builder = builder.add_extension(aki, critical=False)
        return Issued(builder.sign(self.issued.key, hashes.SHA256()), key)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file. Raises :class:`ConfigRefused` naming the file."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigRefused(f"{path}: {error.strerror}") from None
    except ValueError:
        raise ConfigRefused(f"{path}: not a certificate in PEM form") from None


def organization(certificate: x509.Certificate) -> str:
    """O of the subject: ``hasys:<cluster id>``."""
    return _attribute(certificate, NameOID.ORGANIZATION_NAME)


def unit(certificate: x509.Certificate) -> str:
    """OU of the subject: ``node``, ``admin``, or empty for the authority."""
    return _attribute(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)


def common_name(certificate: x509.Certificate) -> str:
    """CN of the subject."""
    return _attribute(certificate, NameOID.COMMON_NAME)


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _subject(organization: str, unit: str | None, name: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    if unit:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )

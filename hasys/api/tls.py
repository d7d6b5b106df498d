"""Credentials of servers and clients: mutual TLS, one certificate authority per cluster."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path

import grpc

from hasys.model.errors import ConfigRefused

log = logging.getLogger(__name__)

MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest message either way; checked by gRPC before parsing."""
METADATA_BYTES = 32 * 1024
CONNECTION_AGE_MS = 20 * 60 * 1000
"""After this long (gRPC spreads it by 10 %) a server takes no new calls on a connection. Those that are open on it go
on, and clients dial anew for the next one without noticing. What a connection costs ends with it: gRPC's memory of
streams that were cancelled, and the trust in a certificate that has expired or was replaced since it was shown."""


class Identity:
    """The certificate of this process as its files say now: a renewed one is used from the next connection on.

    gRPC asks for it in a thread of its own, so looking is guarded by a lock.
    """

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        """Raises ``ConfigRefused`` for files that are missing or do not belong together."""
        self._files = (("tls.ca", ca), ("tls.certificate", certificate), ("tls.key", key))
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._pems = self._read()
        self.number = 1
        """Grows with every renewal."""

    def look(self) -> bool:
        """Read the files anew when they changed; True when they were renewed. What cannot be used yet (a renewal that
        is half done) leaves everything as it was."""
        with self._lock:
            signature = self._signature()
            if signature == self._seen:
                return False
            try:
                pems = self._read()
            except ConfigRefused as e:
                log.warning("the certificate stays the earlier one: %s", e)
                self._seen = signature
                return False
            if signature != self._signature():  # replaced while it was read: looked at again next time
                return False
            self._seen, self._pems = signature, pems
            self.number += 1
            return True

    def server(self) -> grpc.ServerCredentials:
        """Credentials that ask every client for a certificate of the cluster, and follow renewals."""

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            return self._configuration() if self.look() else None

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            fetch,  # type: ignore[arg-type]  # the stubs know nothing of None, which means: no news
            require_client_authentication=True,
        )

    def client(self) -> grpc.ChannelCredentials:
        """Credentials that show our certificate and check the server's; of the files as last looked at."""
        ca, certificate, key = self._pems
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        ca, certificate, key = self._pems
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_signature(path) for _, path in self._files)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        ca, certificate, key = (read_pem(field, path) for field, path in self._files)
        (_, ca_file), (_, certificate_file), (_, key_file) = self._files
        try:
            probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            probe.load_cert_chain(certificate_file, key_file)
            probe.load_verify_locations(ca_file)
        except (ssl.SSLError, OSError) as e:
            names = f"{certificate_file}, {key_file}, {ca_file}"
            raise ConfigRefused(f"{names}: do not belong together or are damaged ({e.strerror or e})") from None
        return ca, certificate, key


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def server_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Credentials of a server that follow renewals. Raises ``ConfigRefused``."""
    return Identity(ca, certificate, key).server()


def client_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    """Credentials of a client as the files are now. Raises ``ConfigRefused``."""
    return Identity(ca, certificate, key).client()


def read_pem(field: str, path: Path) -> bytes:
    """The content of a PEM file. Raises ``ConfigRefused`` naming field and file."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigRefused(f"{field}: {path}: {e.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ConfigRefused(f"{field}: {path} is no PEM file")
    return data


SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", 4 * MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.max_concurrent_streams", 512),
    ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
    ("grpc.server_handshake_timeout_ms", 5_000),  # who connects and says nothing is cut soon
    ("grpc.http2.min_ping_interval_without_data_ms", 100),  # clients look after their server several times a second
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # its pings push keep-alive pings back, and there is no bulk data here
    ("grpc.keepalive_permit_without_calls", 1),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 * MESSAGE_BYTES),  # a list may be larger than a request
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.keepalive_time_ms", 500),  # with the timeout: a frozen server is noticed in 1.1 s (1.6 s right after a ping:
    ("grpc.http2.ping_timeout_ms", 600),  # gRPC sends no two within a second; keepalive_timeout_ms has no effect here)
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),  # what may be repeated is decided in hasys/api/client.py
    ("grpc.use_local_subchannel_pool", 1),
)

"""Credentials of servers and clients: mutual TLS, one certificate authority per cluster."""

from __future__ import annotations

from pathlib import Path

import grpc

from hasys.model.errors import ConfigRefused

MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest message either way; checked by gRPC before parsing."""
METADATA_BYTES = 32 * 1024


def server_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Credentials that ask every client for a certificate of the cluster. Raises ``ConfigRefused``."""
    root = read_pem("tls.ca", ca)
    pair = (read_pem("tls.key", key), read_pem("tls.certificate", certificate))
    return grpc.ssl_server_credentials([pair], root_certificates=root, require_client_auth=True)


def client_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    """Credentials that show our certificate and check the server's. Raises ``ConfigRefused``."""
    return grpc.ssl_channel_credentials(
        root_certificates=read_pem("tls.ca", ca),
        private_key=read_pem("tls.key", key),
        certificate_chain=read_pem("tls.certificate", certificate),
    )


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

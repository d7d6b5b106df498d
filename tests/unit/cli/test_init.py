"""``hasys init``: what it writes is what the rest reads, and what it refuses it refuses whole."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from hasys import config as node_config
from hasys.cli.init import write_cluster
from hasys.cli.pki import Authority, common_name, organization, unit
from hasys.cli.seed import parse_member, plan, servers
from hasys.config import Member
from hasys.lease.wire import derive_key, parse_secret
from hasys.model.errors import ConfigRefused
from hasys.model.timing import PROFILES, figures
from tests.unit.cli.conftest import Run

PAIR = ["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2"]
TRIO = ("--node", "n1=10.77.0.1,10.78.0.1", "--node", "n2=10.77.0.2,10.78.0.2", "--witness", "w=10.77.0.3")


def test_every_folder_loads_as_a_node_configuration(folders: Path) -> None:
    for name, role in (("n1", "Voter"), ("n2", "Voter"), ("w", "Witness")):
        config = node_config.load(folders / name / "node.yaml")
        assert (config.name, config.me.role, config.cluster) == (name, role, "demo")
        assert [m.name for m in config.members] == ["n1", "n2", "w"]
        for file in (config.ca, config.certificate, config.key, config.node_secret):
            assert file.is_file()


def test_members_see_the_same_cluster(folders: Path) -> None:
    configs = [node_config.load(folders / name) for name in ("n1", "n2", "w")]
    assert len({(c.cluster_id, c.members, c.profile) for c in configs}) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_figures_of_the_profile_are_written_so_that_a_later_version_reads_the_same(
    hasys: Run, tmp_path: Path, profile: str
) -> None:
    out = tmp_path / "c"
    assert hasys("init", "--cluster", "c", *TRIO, "--profile", profile, "--out", out).exit_code == 0
    assert node_config.load(out / "n1").timing == PROFILES[profile]
    written = yaml.safe_load((out / "n1" / "node.yaml").read_text())
    assert set(written["timing"]) == set(figures(PROFILES[profile]))


def test_node_secrets_are_derived_from_the_lease_secret_that_voters_share(folders: Path) -> None:
    secrets = {(folders / name / "lease.secret").read_bytes() for name in ("n1", "n2", "w")}
    assert len(secrets) == 1
    secret = parse_secret(secrets.pop())
    for name in ("n1", "n2", "w"):
        assert parse_secret((folders / name / "node.secret").read_bytes()) == derive_key(secret, name)


def test_an_observer_gets_its_own_key_and_not_the_cluster_s(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "c"
    assert hasys("init", "--cluster", "c", *TRIO, "--observer", "o=10.77.0.4", "--out", out).exit_code == 0
    assert not (out / "o" / "lease.secret").exists()
    assert (out / "o" / "node.secret").exists()
    assert node_config.load(out / "o").me.role == "Observer"
    listed = yaml.safe_load((out / "client" / "client.yaml").read_text())["servers"]
    assert "10.77.0.4:7411" not in listed  # it has no store


def test_keys_are_private_from_everybody_else(folders: Path) -> None:
    secret = [p for p in folders.rglob("*") if p.suffix in (".key", ".secret")]
    assert len(secret) == 3 + 3 * 3
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((folders / "ca").stat().st_mode) == 0o700


def test_node_certificates_are_valid_for_their_addresses_as_server_and_client(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "c"
    assert hasys("init", "--cluster", "c", *TRIO, "--out", out).exit_code == 0
    store = Store([_certificate(out / "ca" / "ca.crt")])
    leaf = _certificate(out / "n1" / "node.crt")
    names: list[x509.DNSName | x509.IPAddress] = [x509.DNSName("n1")]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("10.77.0.1", "10.78.0.1")]
    for name in names:
        PolicyBuilder().store(store).build_server_verifier(name).verify(leaf, [])
    PolicyBuilder().store(store).build_client_verifier().verify(leaf, [])


def test_the_admin_certificate_is_a_client_s_only(folders: Path) -> None:
    store = Store([_certificate(folders / "ca" / "ca.crt")])
    leaf = _certificate(folders / "client" / "client.crt")
    assert unit(leaf) == "admin"
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [p.dotted_string for p in purposes] == ["1.3.6.1.5.5.7.3.2"]
    with pytest.raises(x509.verification.VerificationError):
        PolicyBuilder().store(store).build_server_verifier(x509.DNSName("admin")).verify(leaf, [])


def test_subjects_tell_cluster_role_and_name(folders: Path) -> None:
    cluster_id = node_config.load(folders / "n1").cluster_id
    for file, role, name in (
        ("n1/node.crt", "node", "n1"),
        ("w/node.crt", "node", "w"),
        ("client/client.crt", "admin", "admin"),
    ):
        certificate = _certificate(folders / file)
        assert (organization(certificate), unit(certificate), common_name(certificate)) == (
            f"hasys:{cluster_id}",
            role,
            name,
        )


def test_tls_accepts_the_cluster_s_certificates_and_no_other_cluster_s(
    folders: Path, hasys: Run, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    assert hasys("init", "--cluster", "demo", "--node", "n1=127.0.0.1", "--out", foreign).exit_code == 0
    assert _handshake(folders / "n1", folders / "client")
    with pytest.raises(ssl.SSLError):
        _handshake(folders / "n1", foreign / "client")


def test_a_long_cluster_name_fits_into_the_authority_s_subject() -> None:
    assert common_name(Authority.create("c" * 63, "x").issued.certificate).startswith("ccc")


def test_nothing_is_overwritten(hasys: Run, folders: Path) -> None:
    before = {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()}
    result = hasys("init", "--cluster", "demo", "--node", "n1=10.0.0.1", "--out", folders)
    assert result.exit_code == 1
    assert "exists: nothing is overwritten" in result.stderr
    assert {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()} == before


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hasys.cli.init.derive_key", full)
    seed = plan("c", [Member("n1", "Voter", ("10.0.0.1",))], "default")
    with pytest.raises(OSError, match="No space left"):
        write_cluster(seed, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_two_nodes_without_a_third_voter_are_told_their_policy_and_it_is_checked_on_load(
    hasys: Run, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    made = hasys("init", "--cluster", "c", "--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2", "--out", out)
    assert made.exit_code == 0, made.output
    assert "policy safe" in made.stdout
    assert [node_config.load(out / n).policy for n in ("n1", "n2")] == ["safe", "safe"]
    file = out / "n1" / "node.yaml"
    file.write_text(file.read_text().replace("policy: safe", "policy: brave"))
    with pytest.raises(ConfigRefused, match="policy: 'brave': use one of safe"):
        node_config.load(out / "n1")


def test_a_majority_of_three_has_no_policy(folders: Path) -> None:
    assert node_config.load(folders / "n1").policy == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--node", "n1=10.0.0.1", "--witness", "w=10.0.0.2"], "one node and a witness"),
        (["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2", "--observer", "o=10.0.0.3"], "take no observer"),
        (["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2", "--policy", "arbiter"], "add --arbiter /dev"),
        ([*PAIR, "--arbiter", "/dev/sdx"], "add that, or leave it out"),
        ([*PAIR, "--policy", "arbiter", "--arbiter", "sdx"], "write the whole path"),

        (["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2", "--policy", "brave"], "unknown: use one of safe"),
        ([*TRIO, "--policy", "safe"], "without a third voter"),
        (["--node", "n1=10.0.0.1", "--node", "n1=10.0.0.2", "--node", "n3=10.0.0.3"], "named 'n1'"),
        (["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.1", "--node", "n3=10.0.0.3"], "both use 10.0.0.1:7411"),
        (["--node", "n1=10.0.0.1:7411", "--node", "n2=10.0.0.1:7413", "--node", "n3=10.0.0.3"], "use 10.0.0.1:7413"),
        ([*TRIO, "--node", "n4=10.77.0.4"], "4 voters survive no more losses than 3"),
        (["--node", "N1=10.0.0.1"], "no DNS label"),
        (["--node", "n_1=10.0.0.1"], "no DNS label"),
        (["--node", "ca=10.0.0.1"], "cannot be a node's name"),
        (["--node", "n1"], "write NAME=ADDR"),
        (["--node", "n1=server.example"], "is no IP address"),
        (["--node", "n1=10.0.0.1,10.0.0.1"], "the same address twice"),
        (["--node", "n1=10.0.0.1:0"], "is no port"),
        (["--node", "n1=10.0.0.1:65535"], "is no port"),
        (["--node", "n1=10.0.0.1:7411,10.1.0.1:7511"], "two ports"),
        (["--node", "n1=[fd00::1"], "write [IPV6]:PORT"),
        (["--node", "n1=0.0.0.0"], "no address of a machine"),
        (["--observer", "o=10.0.0.1"], "no voter"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    hasys: Run, tmp_path: Path, options: list[str], says: str
) -> None:
    result = hasys("init", "--cluster", "demo", *options, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "addresses", "ports"),
    [
        ("n=10.0.0.1", ("10.0.0.1",), (7411, 7412, 7413)),
        ("n=10.0.0.1:8000,192.168.7.1", ("10.0.0.1", "192.168.7.1"), (8000, 8001, 8002)),
        ("n=fd00::1", ("fd00::1",), (7411, 7412, 7413)),
        ("n=[fd00::1]", ("fd00::1",), (7411, 7412, 7413)),
        ("n=[FD00:0::1]:9000,fd01::1", ("fd00::1", "fd01::1"), (9000, 9001, 9002)),
    ],
)
def test_addresses_of_both_families_with_and_without_port(
    text: str, addresses: tuple[str, ...], ports: tuple[int, int, int]
) -> None:
    member = parse_member(text, "Voter")
    assert member.addresses == addresses
    assert (member.api_port, member.raft_port, member.lease_port) == ports


def test_clients_try_the_first_network_of_everybody_before_any_second() -> None:
    members = [Member("a", "Voter", ("10.0.0.1", "10.1.0.1")), Member("b", "Voter", ("fd00::2", "fd01::2"))]
    assert servers(members) == ["10.0.0.1:7411", "[fd00::2]:7411", "10.1.0.1:7411", "[fd01::2]:7411"]


def test_no_name_is_looked_up(folders: Path) -> None:
    with pytest.raises(ConfigRefused, match="names are not used"):
        parse_member("n1=localhost", "Voter")


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _handshake(server_folder: Path, client_folder: Path) -> bool:
    """A mutual TLS handshake in memory. Raises ``ssl.SSLError`` when a side refuses the other."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server_folder / "ca.crt"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(server_folder / "node.crt", server_folder / "node.key")
    client = ssl.create_default_context(cafile=str(client_folder / "ca.crt"))
    client.load_cert_chain(client_folder / "client.crt", client_folder / "client.key")
    pipes = [ssl.MemoryBIO() for _ in range(4)]
    ends = [
        server.wrap_bio(pipes[0], pipes[1], server_side=True),
        client.wrap_bio(pipes[2], pipes[3], server_hostname="127.0.0.1"),
    ]
    done = [False, False]
    while not all(done):
        for i, end in enumerate(ends):
            try:
                end.do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
            pipes[2 if i == 0 else 0].write(pipes[1 if i == 0 else 3].read())
    return True

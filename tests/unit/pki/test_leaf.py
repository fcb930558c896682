"""A process's TLS identity on disk: private, whole at every moment, and never another's."""

from __future__ import annotations

import multiprocessing
import ssl
from pathlib import Path

import pytest

from chatelaine.pki.authority import Authority
from chatelaine.pki.errors import CertificateRefused, Flaw, KeyFileDamaged, KeyFileExposed, NoLeafYet
from chatelaine.pki.files import write_once, write_whole
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.pki.roots import BACKDATE_SECONDS
from support.pki import handshake, new_authority, new_leaf, new_pair, now, renew

NAME = "agent.hsm-a.chatelaine.internal"


def test_the_key_is_private_and_stays_across_starts_and_renewals(tmp_path: Path) -> None:
    authority = new_authority()
    first = new_leaf(authority, tmp_path / "tls", NAME)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    again = ProcessLeaf(tmp_path / "tls", NAME)
    renew(authority, again)
    assert again.spki == first.spki


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    ProcessLeaf(tmp_path, NAME)
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(KeyFileExposed, match="chmod 600"):
        ProcessLeaf(tmp_path, NAME)


def test_a_key_file_behind_a_link_is_refused(tmp_path: Path) -> None:
    ProcessLeaf(tmp_path / "a", NAME)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "key.pem").symlink_to(tmp_path / "a" / "key.pem")
    with pytest.raises(OSError, match=r"key\.pem"):
        ProcessLeaf(tmp_path / "b", NAME)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"x" * 10_000])
def test_a_key_file_without_a_key_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    write_once(tmp_path / "key.pem", content)
    with pytest.raises(KeyFileDamaged):
        ProcessLeaf(tmp_path, NAME)


def test_without_a_leaf_there_is_no_context(tmp_path: Path) -> None:
    leaf = ProcessLeaf(tmp_path, NAME)
    assert leaf.not_after == 0
    assert leaf.renewal_due(now())
    for build in (leaf.server_context, leaf.client_context):
        with pytest.raises(NoLeafYet):
            build()


def test_a_leaf_over_another_key_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    authority = new_authority()
    leaf = new_leaf(authority, tmp_path / "a", NAME)
    other = ProcessLeaf(tmp_path / "b", NAME)
    foreign = authority.issue_leaf(other.request(), NAME, now(), serial=bytes(16)).chain_pem
    before = (tmp_path / "a" / "chain.pem").read_bytes()
    with pytest.raises(CertificateRefused) as refused:
        leaf.install(foreign, authority.bundle_pem, now())
    assert refused.value.flaw is Flaw.OTHER_KEY
    assert (tmp_path / "a" / "chain.pem").read_bytes() == before


def test_a_leaf_for_another_name_or_of_another_ca_is_refused(tmp_path: Path) -> None:
    authority = new_authority()
    leaf = ProcessLeaf(tmp_path, NAME)
    other = authority.issue_leaf(leaf.request(), "operator.chatelaine.internal", now(), serial=bytes(16)).chain_pem
    with pytest.raises(CertificateRefused) as refused:
        leaf.install(other, authority.bundle_pem, now())
    assert refused.value.flaw is Flaw.OTHER_NAME
    ours = authority.issue_leaf(leaf.request(), NAME, now(), serial=bytes(16)).chain_pem
    with pytest.raises(CertificateRefused) as refused:
        leaf.install(ours, new_authority().bundle_pem, now())
    assert refused.value.flaw is Flaw.UNKNOWN_ISSUER


def test_renewal_falls_due_at_two_thirds_of_life(tmp_path: Path) -> None:
    leaf = ProcessLeaf(tmp_path, NAME)
    start = now()
    renew(new_authority(), leaf, at=start, lifetime_seconds=3600)
    due = start - BACKDATE_SECONDS + (3600 + BACKDATE_SECONDS) * 2 // 3
    assert not leaf.renewal_due(due - 1)
    assert leaf.renewal_due(due)


def test_an_expired_leaf_is_loaded_and_shows_its_end(tmp_path: Path) -> None:
    long_ago = now() - 10_000
    authority = new_authority(long_ago)
    renew(authority, ProcessLeaf(tmp_path, NAME), at=long_ago, lifetime_seconds=60)
    again = ProcessLeaf(tmp_path, NAME)
    assert again.not_after == long_ago + 60
    assert again.renewal_due(now())


def test_both_sides_show_leaves_and_name_each_other(tmp_path: Path) -> None:
    authority = new_authority()
    agent = new_leaf(authority, tmp_path / "a", NAME)
    operator = new_leaf(authority, tmp_path / "o", "operator.chatelaine.internal")
    shown, caller = handshake(operator.client_context(), agent.server_context(), NAME)
    assert operator.check_peer(shown, NAME, now()).spki == agent.spki
    assert agent.check_peer(caller, "operator.chatelaine.internal", now()).spki == operator.spki
    with pytest.raises(CertificateRefused):
        agent.check_peer(caller, "operator.chatelaine.internal", operator.not_after + 1)


def test_a_server_with_another_name_is_refused(tmp_path: Path) -> None:
    authority = new_authority()
    agent = new_leaf(authority, tmp_path / "a", NAME)
    operator = new_leaf(authority, tmp_path / "o", "operator.chatelaine.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(operator.client_context(), agent.server_context(), "agent.hsm-b.chatelaine.internal")


def test_a_strangers_client_certificate_is_refused(tmp_path: Path) -> None:
    agent = new_leaf(new_authority(), tmp_path / "a", NAME)
    stranger = new_leaf(new_authority(), tmp_path / "s", "operator.chatelaine.internal")
    naive = stranger.client_context()
    naive.check_hostname = False
    naive.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        handshake(naive, agent.server_context(), NAME)


def test_older_tls_is_refused(tmp_path: Path) -> None:
    authority = new_authority()
    agent = new_leaf(authority, tmp_path / "a", NAME)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=authority.bundle_pem)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(old, agent.server_context(client_certificates=False), NAME)


def test_a_renewal_reaches_the_living_contexts_and_keeps_them(tmp_path: Path) -> None:
    authority = new_authority()
    agent = new_leaf(authority, tmp_path / "a", NAME)
    operator = new_leaf(authority, tmp_path / "o", "operator.chatelaine.internal")
    server, client = agent.server_context(), operator.client_context()
    before, _ = handshake(client, server, NAME)
    renew(authority, agent, lifetime_seconds=7200)
    after, _ = handshake(client, server, NAME)
    assert agent.server_context() is server
    assert before != after
    assert operator.check_peer(after, NAME, now()).not_after == agent.not_after


def test_a_published_root_is_trusted_live_and_a_retired_one_no_more(tmp_path: Path) -> None:
    authority = new_authority()
    agent = new_leaf(authority, tmp_path / "a", NAME)
    operator = new_leaf(authority, tmp_path / "o", "operator.chatelaine.internal")
    server, client = agent.server_context(), operator.client_context()
    both = authority.publish(new_pair(), now())
    for leaf in (agent, operator):
        renew(both, leaf)
    switched = type(authority)(both.upcoming, now(), former=both.signing.certificate) if both.upcoming else authority
    _, old_caller = handshake(client, server, NAME)
    renew(switched, operator)
    _, new_caller = handshake(client, server, NAME)
    agent.check_peer(new_caller, "operator.chatelaine.internal", now())
    renew(type(authority)(switched.signing, now()), agent)
    with pytest.raises(CertificateRefused) as refused:
        agent.check_peer(old_caller, "operator.chatelaine.internal", now())
    assert refused.value.flaw is Flaw.UNKNOWN_ISSUER


def test_an_impostor_with_a_leaf_of_a_retired_root_is_dialled_by_no_living_process(tmp_path: Path) -> None:
    """OpenSSL keeps trusting what a living context was ever told to trust: clients get a fresh one."""
    authority = new_authority()
    dialling = new_leaf(authority, tmp_path / "dialling", NAME)
    impostor = new_leaf(authority, tmp_path / "impostor", "gateway.hsm-a.chatelaine.internal")
    before = dialling.client_context()
    handshake(before, impostor.server_context(), impostor.server_name)
    published = authority.publish(new_pair(), now(), grace_seconds=0).everybody_told(now())
    renew(published, dialling)
    switched = published.switch(now()).everybody_told(now())
    renew(switched, dialling)
    assert dialling.is_of(switched.signing.certificate)
    assert not dialling.is_of(authority.signing.certificate)
    handshake(dialling.client_context(), _trusting(impostor, switched), impostor.server_name)
    renew(switched.retire(now()), dialling)
    assert dialling.client_context() is not before
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(dialling.client_context(), _trusting(impostor, switched), impostor.server_name)


def _trusting(leaf: ProcessLeaf, authority: Authority) -> ssl.SSLContext:
    """A server with that leaf, which lets anybody in whom this authority vouches for."""
    context = leaf.server_context()
    context.load_verify_locations(cadata=authority.bundle_pem)
    return context


def test_a_damaged_chain_on_disk_is_refused_at_start(tmp_path: Path) -> None:
    new_leaf(new_authority(), tmp_path, NAME)
    (tmp_path / "chain.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(CertificateRefused):
        ProcessLeaf(tmp_path, NAME)


def test_of_writers_at_once_one_key_wins(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(_spki, [tmp_path] * 4)
    assert len(set(keys)) == 1


def _spki(folder: Path) -> bytes:
    return ProcessLeaf(folder, NAME).spki


def test_a_failed_write_leaves_no_litter(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]

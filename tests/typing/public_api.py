"""The public names as a user's program writes them, with the type of what each returns.

Type checkers read this file, nothing runs it: `assert_type` fails where a type became another, or `Any`.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import assert_type

import httpx
from cryptography import x509

from sectigo_async import (
    Archive,
    Authority,
    Batch,
    BatchFailed,
    BatchStatus,
    Config,
    FoundCertificate,
    FoundCertificates,
    Issued,
    IssuedCertificate,
    Licenses,
    MemoryJournal,
    Order,
    OrderState,
    Organization,
    OutcomeUnknownError,
    Parameter,
    Probe,
    ProcessingInfo,
    Profile,
    ProfileDetail,
    Reconciliation,
    Reply,
    ReportedStatus,
    RevocationReason,
    Secret,
    SectigoClient,
    SectigoError,
    ServiceError,
    SignIn,
    SqliteJournal,
    WaitTimeout,
    credentials,
)
from sectigo_async.credentials import (
    CredentialStore,
    FileStore,
    KeyringStore,
    Login,
    MemoryStore,
    Resolved,
    open_store,
    resolve,
    state_directory,
)
from sectigo_async.fleet import (
    Database,
    FleetRun,
    FleetStatus,
    PostgresLedger,
    Standing,
    Worker,
    audit_fleet,
    keys_are_kept_in,
    read_fleet,
)
from sectigo_async.issuance import (
    DeviceList,
    DeviceState,
    Entry,
    Event,
    Finding,
    Issuance,
    Keys,
    Plan,
    Rebuilt,
    Run,
    SqliteLedger,
    audit_ledger,
    make_plan,
    read_devices,
    rebuild_ledger,
    write_reports,
)
from sectigo_async.models import normalise_serial_number, parse_date
from sectigo_async.parameters import Fit, ParameterCheck, check_parameters, check_value, make_password
from sectigo_async.pki import (
    ChainCheck,
    ChainStatus,
    Item,
    KeyAlgorithm,
    Member,
    PrivateKey,
    Protection,
    check_chain,
    common_names,
    describe_key,
    dns_names,
    generate_key,
    is_dns_name,
    key_pem,
    key_sha256,
    load_certificates,
    load_key,
    make_csr,
    name_of,
    read_items,
    read_requests,
    requests_pem,
    safe_name,
)
from sectigo_async.sandbox import (
    FaultRule,
    Sandbox,
    SandboxConfig,
    SandboxServer,
    SandboxTransport,
    Stats,
    parse_faults,
)
from sectigo_async.testing import FakeClock


async def making_clients(environ: Mapping[str, str], transport: httpx.AsyncBaseTransport, store: FileStore) -> None:
    journal = SqliteJournal(endpoint="https://iot.sectigo.com", username="ops")
    async with SectigoClient(username="ops", password="x", journal=journal, store=store) as client:
        assert_type(client, SectigoClient)
        assert_type(client.config, Config)
        assert_type(client.username, str | None)
    assert_type(SectigoClient.from_env(account="lab", environ=environ), SectigoClient)
    other = SectigoClient(config=Config.create("http://127.0.0.1:8831"), transport=transport, clock=FakeClock())
    assert_type(await other.sign_in(fresh=True), SignIn)
    assert_type(await other.probe(), Probe)
    reply = await other.request("GET", "/api/v1/users/current", timeout=None)
    assert_type(reply, Reply)
    assert_type(reply.json(), object)
    assert_type(reply.headers, Mapping[str, str])
    assert_type(await other.aclose(), None)


async def the_account(client: SectigoClient) -> None:
    authorities = await client.authorities.list(timeout=5)
    assert_type(authorities, tuple[Authority, ...])
    assert_type(authorities[0].profile_id, int | None)
    assert_type(authorities[0].raw, Mapping[str, object])
    assert_type(authorities[0].document(), dict[str, object])
    assert_type(await client.authorities.balance(1), int)
    assert_type(await client.profiles.list(), tuple[Profile, ...])
    assert_type(await client.profiles.get(42), ProfileDetail)
    parameters = await client.profiles.parameters(42)
    assert_type(parameters, tuple[Parameter, ...])
    assert_type(check_value(parameters[0], "x"), Fit)
    assert_type(check_parameters(parameters, {"commonName": "gw7.example.com"}), ParameterCheck)
    assert_type(make_password(parameters[0]), Secret)
    assert_type(await client.organizations.current(), Organization)
    assert_type(await client.licenses.get(), Licenses)


async def ordering(client: SectigoClient, requests: bytes, key: PrivateKey, root: x509.Certificate) -> None:
    batch = await client.batches.create(authority_id=42, params={"commonName": "gw7", "pkcs12Password": Secret("x")})
    assert_type(batch, Batch)
    assert_type(batch.batch_id, int)
    assert_type(batch.status, BatchStatus)
    assert_type(batch.creation_date, datetime | None)
    assert_type(batch.processing, ProcessingInfo | None)
    assert_type(await client.batches.upload(profile_id=42, requests=requests), Batch)
    elsewhere = MemoryJournal()
    assert_type(await client.batches.under(elsewhere).orders(), tuple[Order, ...])
    assert_type(await client.batches.upload_noted(42, requests, [elsewhere.write]), Batch)
    issued = await client.issue(common_name="gw8.example.com", profile_id=42, key=key, trust=[root])
    assert_type(issued, Issued)
    assert_type(issued.certificate, IssuedCertificate)
    assert_type(issued.directory, Path | None)
    orders = await client.batches.orders()
    assert_type(orders, tuple[Order, ...])
    assert_type(orders[0].state, OrderState)
    found = await client.batches.reconcile(orders, settle=900, scan=1000, timeout=None)
    assert_type(found, tuple[Reconciliation, ...])
    assert_type(found[0].candidates, tuple[Batch, ...])
    assert_type(await client.batches.decide(orders[0], 24), Order)


async def following_a_batch(client: SectigoClient) -> None:
    assert_type(await client.batches.get(24), Batch)
    assert_type(await client.batches.look(24), Batch)
    assert_type(await client.batches.scan(after=1), tuple[Batch, ...])
    assert_type(await client.batches.status(24), ReportedStatus)
    assert_type(await client.batches.processing_info(24), ProcessingInfo)
    assert_type(await client.batches.wait(24, timeout=1800), Batch)
    assert_type(client.batches.watch(24), AsyncIterator[Batch])
    async for seen in client.batches.watch(24, timeout=None):
        assert_type(seen, Batch)
    assert_type(await client.batches.download(24), Archive)
    assert_type(await client.batches.download_to(24, "certs", overwrite=True), Path)
    assert_type(await client.batches.key_sha256(24), frozenset[str])


async def certificates(client: SectigoClient) -> None:
    found = await client.certificates.find(common_name="gw7.example.com")
    assert_type(found, FoundCertificates)
    assert_type(found.items, tuple[FoundCertificate, ...])
    revoked = client.certificates.revoke(profile_id=42, serial_number="0A", reason=RevocationReason.SUPERSEDED)
    assert_type(await revoked, None)
    assert_type(normalise_serial_number("0a:1b"), str)
    assert_type(parse_date(0), datetime | None)


async def failures(client: SectigoClient) -> None:
    try:
        await client.batches.wait(24)
    except (BatchFailed, WaitTimeout) as error:
        assert_type(error.batch, Batch)
    except OutcomeUnknownError as error:
        assert_type(error.order, Order | None)
        assert_type(error.serial_number, str | None)
    except ServiceError as error:
        assert_type(error.status, int)
        assert_type(error.code, int | None)
        assert_type(error.server_message, str)
    except SectigoError as error:
        assert_type(error.hint, str)
        assert_type(error.retryable, bool)


def archives(archive: Archive, root: x509.Certificate, key: PrivateKey) -> None:
    assert_type(Archive.from_file(Path("24.zip")), Archive)
    assert_type(archive.members(), tuple[Member, ...])
    issued = archive.open(password="x", keys=[key], trust=[root], names={"gw7.example.com"})
    assert_type(issued, tuple[IssuedCertificate, ...])
    one = issued[0]
    assert_type(one.certificate, x509.Certificate)
    assert_type(one.key, PrivateKey | None)
    assert_type(one.key_match, bool | None)
    assert_type(one.chain_check.status, ChainStatus)
    assert_type(one.protection, Protection | None)
    assert_type(one.not_after, datetime)
    assert_type(one.dns_names, tuple[str, ...])
    assert_type(one.write_to(Path("certs"), password="x"), None)
    assert_type(one.to_pkcs12("x"), bytes)
    assert_type(read_items(archive), tuple[Item, ...])
    assert_type(check_chain(one.certificate, one.chain, [root]), ChainCheck)
    assert_type(load_certificates(Path("roots.pem")), list[x509.Certificate])


def keys_and_requests() -> None:
    key = generate_key(KeyAlgorithm.P256)
    assert_type(key, PrivateKey)
    assert_type(load_key(key_pem(key), "x"), PrivateKey)
    assert_type(describe_key(key.public_key()), str)
    assert_type(key_sha256(key.public_key()), str)
    request = make_csr(key, "gw8.example.com", dns_names=["gw8.example.com"], subject={"countryName": "DE"})
    assert_type(request, bytes)
    requests = read_requests(request)
    assert_type(requests, tuple[x509.CertificateSigningRequest, ...])
    assert_type(requests_pem(requests), bytes)
    assert_type(common_names(requests), tuple[str, ...])
    assert_type(dns_names(requests[0]), tuple[str, ...])
    assert_type(name_of(requests[0]), str)
    assert_type(is_dns_name("gw8"), bool)
    assert_type(safe_name("gw8"), str)


async def stores(login: Login) -> None:
    found = resolve(username="ops", environ={})
    assert_type(found, Resolved)
    assert_type(found.config, Config)
    assert_type(open_store("keyring"), CredentialStore)
    assert_type(state_directory(), Path)
    kept: list[CredentialStore] = [FileStore(Path("store")), KeyringStore(), MemoryStore()]
    for store in kept:
        assert_type(await store.load(login, credentials.Item.PASSWORD), Secret | None)
        assert_type(await store.save(login, credentials.Item.PASSWORD, Secret("x")), None)
        assert_type(await store.erase(login, credentials.Item.PASSWORD), None)


async def bulk(client: SectigoClient, directory: Path) -> None:
    listed = read_devices(b"commonName\ngw8.example.com\n")
    assert_type(listed, DeviceList)
    run = Run(endpoint=client.config.endpoint, username="ops", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(directory, run) as ledger:
        assert_type(ledger, SqliteLedger)
        plan = await make_plan(client, ledger, directory, listed)
        assert_type(plan, Plan)
        issuance = Issuance(client, ledger, directory, plan)
        async for event in issuance.run():
            assert_type(event, Event)
        assert_type(await ledger.entries(), tuple[Entry, ...])
        assert_type(await ledger.counts(), dict[DeviceState, int])
        assert_type(await audit_ledger(client, directory), tuple[Finding, ...])
        assert_type(await rebuild_ledger(client, ledger, directory, listed), Rebuilt)
        assert_type(write_reports(directory, await ledger.entries()), None)


async def a_fleet(client: SectigoClient, directory: Path, run: Run, plan: Plan) -> None:
    database = Database.at("postgresql://ledger@db.example.com/sectigo")
    assert_type(database, Database)
    assert_type(database.has_password, bool)
    async with PostgresLedger.open(database, run) as ledger:
        assert_type(ledger, PostgresLedger)
        assert_type(await keys_are_kept_in(ledger, directory), None)
        assert_type(await ledger.entries(), tuple[Entry, ...])
        fleet = FleetRun(database, ledger, directory, plan)
        async for event in fleet.run():
            assert_type(event, Event)
        assert_type(fleet.parked, tuple[Order, ...])
        assert_type(fleet.halted, str)
    worker = Worker(client, database, directory)
    async for event in worker.run():
        assert_type(event, Event)
    assert_type(worker.counts, Mapping[DeviceState, int])
    status = await read_fleet(database)
    assert_type(status, FleetStatus)
    assert_type(status.standing, Standing)
    assert_type(status.oldest_open, datetime | None)
    assert_type(await PostgresLedger.exists(database), bool)
    assert_type(await audit_fleet(client, database), tuple[Finding, ...])


def the_sandbox() -> None:
    rules = parse_faults([])
    assert_type(rules, tuple[FaultRule, ...])
    assert_type(rules[0].document(), dict[str, object])
    sandbox = Sandbox(SandboxConfig(faults=rules), FakeClock())
    assert_type(sandbox.ca_pem(), bytes)
    assert_type(sandbox.stats(), Stats)
    assert_type(sandbox.stats()["orders"], int)
    assert_type(SandboxTransport(sandbox), SandboxTransport)
    assert_type(SandboxServer(sandbox).url, str)

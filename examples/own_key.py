"""A certificate for a key of your own, step by step, against a simulator that this program starts by itself.

Run it with `python examples/own_key.py`; it needs `pip install 'sectigo-async[sandbox]'`. Against the service, leave
the simulator out and use `SectigoClient.from_env()`. `client.issue(directory=...)` does all of this in one call; this
is for where the signing request comes from another program, or each state is to be seen.
"""

import asyncio
import os
import secrets
import tempfile
from pathlib import Path

from cryptography import x509

from sectigo_async import Secret, SectigoClient
from sectigo_async.pki import generate_key, key_pem, make_csr, write_private
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

NAME = "gw9.example.com"


async def issue(client: SectigoClient, directory: Path, root: x509.Certificate) -> None:
    """Order for a signing request, and write what came beside the key."""
    key = generate_key()
    # Whatever happens from here on: the key is there before money is spent on it.
    await asyncio.to_thread(write_private, directory / "privkey.pem", key_pem(key))
    request = make_csr(key, NAME, dns_names=(NAME, f"www.{NAME}"))

    batch = await client.batches.upload(profile_id=42, requests=request)
    print("ordered as batch", batch.batch_id)  # Keep it: all that follows can be done again with this id.
    async for seen in client.batches.watch(batch.batch_id, timeout=600):
        print(seen.status.value)

    archive = await client.batches.download(batch.batch_id)
    names = {NAME, f"www.{NAME}"}
    (issued,) = await asyncio.to_thread(lambda: archive.open(keys=[key], trust=[root], names=names))
    print(f"key match {issued.key_match}, name match {issued.name_match}, chain {issued.chain_check.status.value}")
    if not issued.sound:
        raise SystemExit("do not use this certificate")

    password = Secret(secrets.token_urlsafe(24))  # For `bundle.p12`; it would go to where you keep such.
    await asyncio.to_thread(issued.write_to, directory, password=password)
    print("written:", *sorted(await asyncio.to_thread(os.listdir, directory)))


async def main() -> None:
    """Issue one certificate."""
    sandbox = Sandbox(SandboxConfig(issue_delay=1))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    with tempfile.TemporaryDirectory() as directory:
        async with (
            SandboxServer(sandbox) as server,
            SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
        ):
            await issue(client, Path(directory), root)


if __name__ == "__main__":
    asyncio.run(main())

"""From sign-in to a verified certificate, against a simulator that this program starts by itself.

Run it with `python examples/quickstart.py`; it needs `pip install 'sectigo-async[sandbox]'`. Against the service,
leave the simulator out and use `SectigoClient.from_env()`.
"""

import asyncio
import tempfile

from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer


async def main() -> None:
    """Issue one certificate for a key that never leaves this machine."""
    sandbox = Sandbox(SandboxConfig(issue_delay=0.5))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    async with (
        SandboxServer(sandbox) as server,
        SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
    ):
        for authority in await client.authorities.list():
            print(authority.profile_id, authority.profile_name, await client.authorities.balance(authority.id))

        with tempfile.TemporaryDirectory() as directory:
            issued = await client.issue(
                common_name="gw8.example.com", profile_id=42, directory=directory, trust=[root]
            )
            certificate = issued.certificate
            print(certificate.common_name, certificate.serial_number, certificate.chain_check.status.value)
            print("kept in", issued.directory)


if __name__ == "__main__":
    asyncio.run(main())

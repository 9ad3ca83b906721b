"""Certificates for a list of devices, against a simulator that this program starts by itself.

Run it with `python examples/bulk.py`; it needs `pip install 'sectigo-async[sandbox]'`. Against the service, leave the
simulator out and use `SectigoClient.from_env()`. Run on the same directory again, it goes on where it stopped.
"""

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path

from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.issuance import DeviceState, Issuance, Keys, Run, SqliteLedger, make_plan, read_devices
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

DEVICES = b"""common_name;dns_names
gw1.example.com;
gw2.example.com;gw2.example.com, www.gw2.example.com
gw3.example.com;
"""


async def issue(client: SectigoClient, directory: Path, root: x509.Certificate) -> None:
    """Issue for each device of the list that has no certificate yet."""
    run = Run(endpoint=client.config.endpoint, username=client.username or "", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(directory, run) as ledger:
        plan = await make_plan(client, ledger, directory, read_devices(DEVICES))
        for problem in plan.problems:
            print(problem)
        issuance = Issuance(client, ledger, directory, plan.without_problems(), trust=[root])
        async with aclosing(issuance.run()) as events:
            async for event in events:
                print(event.kind.value, event.text)
        for entry in await ledger.entries():
            state = "verified" if entry.state is DeviceState.DONE else entry.state.value
            print(entry.device.name, state, entry.serial_number, entry.not_after)


async def main() -> None:
    """Issue for three devices, twice: the second time nothing is left to order."""
    sandbox = Sandbox(SandboxConfig(issue_delay=0.5))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    async with (
        SandboxServer(sandbox) as server,
        SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
    ):
        with tempfile.TemporaryDirectory() as directory:
            await issue(client, Path(directory), root)
            await issue(client, Path(directory), root)


if __name__ == "__main__":
    asyncio.run(main())

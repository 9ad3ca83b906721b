"""What cron runs each night: renew what expires soon, against a simulator that this program starts by itself.

Run it with `python examples/renew.py`; it needs `pip install 'sectigo-async[sandbox]'`. Against the service, leave
the simulator out and use `SectigoClient.from_env()`. It says nothing where nothing is due, and exits with 1 where
something is wrong. `sectigo-async renew` does this and more; a line for a crontab, without a program of yours:

    17 3 * * *  SECTIGO_USERNAME=ops SECTIGO_PASSWORD_FILE=/etc/sectigo/password sectigo-async renew /srv/certs \
        --within 30d --deploy-hook "systemctl reload nginx" --quiet
"""

import asyncio
import sys
import tempfile
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.issuance import (
    DeviceList,
    DeviceState,
    Issuance,
    Keys,
    Plan,
    Renewals,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
)
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

PROFILE = 42
DEVICES = b"common_name\ngw1.example.com\ngw2.example.com\n"


async def order(client: SectigoClient, place: Path, devices: DeviceList, root: x509.Certificate) -> list[str]:
    """Issue for each device that has no certificate yet, or was ordered for before; return what went wrong."""
    run = Run(endpoint=client.config.endpoint, username=client.username or "", profile_id=PROFILE, keys=Keys.LOCAL)
    async with SqliteLedger.open(place, run) as ledger:
        plan: Plan = await make_plan(client, ledger, place, devices)
        issuance = Issuance(client, ledger, place, plan.without_problems(), trust=[root])
        async with aclosing(issuance.run()) as events:
            async for _ in events:
                pass
        entries = await ledger.entries()
    problems = [str(problem) for problem in plan.problems]
    return problems + [f"{entry.device.name}: {entry.error}" for entry in entries if entry.error]


async def renew(client: SectigoClient, directory: Path, within: timedelta, root: x509.Certificate) -> int:
    """Renew what expires within that time, turn the link `live` of each device, and return an exit code."""
    renewals = Renewals(directory)
    in_use, problems = await asyncio.to_thread(renewals.in_use)
    due = [one for one in in_use if one.not_after <= datetime.now(UTC) + within]
    place = renewals.place(PROFILE, Keys.LOCAL)
    for one in due:
        await asyncio.to_thread(renewals.link, one.folder)
    # What an earlier night has ordered is fetched even where nothing is due.
    if due or SqliteLedger.exists(place):
        listed = DeviceList(devices=tuple(one.device for one in due), problems=(), empty_lines=0)
        problems += await order(client, place, listed, root)
        run = Run(
            endpoint=client.config.endpoint, username=client.username or "", profile_id=PROFILE, keys=Keys.LOCAL
        )
        async with SqliteLedger.open(place, run) as ledger:
            done = await ledger.entries({DeviceState.DONE})
        folders = {one.device.key: one.folder for one in in_use}
        for entry in done:
            await asyncio.to_thread(renewals.install, place, entry.device, folders.get(entry.device.key))
    for folder in await asyncio.to_thread(renewals.changed):
        print("renewed", folder.removeprefix(f"{directory}/"))  # Here a server would be told to read its files anew.
    await asyncio.to_thread(renewals.forget_changed)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


async def main() -> int:
    """Issue for two devices; renew on a night when nothing is due, and on one when they are."""
    sandbox = Sandbox(SandboxConfig(issue_delay=0.5))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "certs"
        async with (
            SandboxServer(sandbox) as server,
            SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
        ):
            await order(client, directory, read_devices(DEVICES), root)
            code = await renew(client, directory, timedelta(days=30), root)
            print("first night:", code)
            code = await renew(client, directory, timedelta(days=400), root)
            print("another night:", code)
            return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

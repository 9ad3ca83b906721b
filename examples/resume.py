"""A program that is killed after it has ordered, and goes on when it is started again, against a simulator.

Run it with `python examples/resume.py`; it needs `pip install 'sectigo-async[sandbox]'`. It starts itself twice as
`python examples/resume.py DIRECTORY`, which is all that a program of yours would be; the first one is killed.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from sectigo_async import SectigoClient
from sectigo_async.errors import OutcomeUnknownError
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer


async def issue(directory: Path) -> None:
    """Issue one certificate. Called again with the same arguments, it goes on where the last call stopped."""
    async with SectigoClient.from_env() as client:
        for _ in range(60):
            try:
                issued = await client.issue(common_name="gw8.example.com", profile_id=42, directory=directory)
            except OutcomeUnknownError:
                # An earlier program sent the order and never heard of it again. Each call looks for it anew.
                print("sent before, and not found yet", flush=True)
                await asyncio.sleep(1)
            else:
                print("batch", issued.batch.batch_id, issued.certificate.chain_check.status.value, flush=True)
                return
        raise SystemExit("look in the portal")


async def main(directory: Path) -> None:
    """Kill a program in the middle, and start it again."""
    sandbox = Sandbox(SandboxConfig(issue_delay=2))
    (directory / "root.pem").write_bytes(sandbox.ca_pem())
    async with SandboxServer(sandbox) as server:
        environment = os.environ | {
            "SECTIGO_ENDPOINT": server.url,
            "SECTIGO_USERNAME": "demo",
            "SECTIGO_PASSWORD": "demo-password",
            "SECTIGO_CREDENTIAL_STORE": "memory",
            "SECTIGO_TRUST_ANCHORS": str(directory / "root.pem"),
        }

        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(directory / "keys"), env=environment
            )

        first = await start()
        while not sandbox.stats()["orders"]:
            if first.returncode is not None:
                raise SystemExit("the first program ended before it ordered")
            await asyncio.sleep(0.01)
        first.kill()
        await first.wait()
        print("killed in the moment in which it had ordered", flush=True)

        second = await start()
        if await second.wait() != 0:
            raise SystemExit("the second program failed")
        print("orders in all:", sandbox.stats()["orders"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(issue(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))

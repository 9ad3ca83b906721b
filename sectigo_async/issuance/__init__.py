"""Bulk issuance: a list of devices in, verified keys and certificates out, and nothing ordered twice.

```python
listed = read_devices(Path("devices.csv").read_bytes(), name="devices.csv")
run = Run(endpoint=client.config.endpoint, username="ops", profile_id=42, keys=Keys.LOCAL)
async with SqliteLedger.open(directory, run) as ledger:
    plan = await make_plan(client, ledger, directory, listed)
    issuance = Issuance(client, ledger, directory, plan)
    async with aclosing(issuance.run()) as events:
        async for event in events:
            print(event.text)
```

Everything is written down before it is sent, and kept before it is judged. So the same lines, run again after
anything, go on where the run stopped; docs/bulk.md says what is guaranteed, and what is not.
"""

from sectigo_async.files import Access
from sectigo_async.issuance.audit import Finding, audit_ledger, ledgers_of
from sectigo_async.issuance.devices import Device, DeviceList, LineProblem, device_key, read_devices
from sectigo_async.issuance.events import Event, EventKind
from sectigo_async.issuance.ledger import DeviceState, Entry, Keys, Ledger, Outcome, Run
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.plan import Plan, make_plan
from sectigo_async.issuance.rebuild import Rebuilt, rebuild_ledger
from sectigo_async.issuance.renewal import Installed, Renewals, Superseded
from sectigo_async.issuance.report import write_reports
from sectigo_async.issuance.runner import Issuance
from sectigo_async.issuance.sink import DirectorySink, Sink
from sectigo_async.issuance.sqlite_ledger import LedgerCopy, SqliteLedger, read_ledger

__all__ = [
    "Access",
    "Device",
    "DeviceList",
    "DeviceState",
    "DirectorySink",
    "Entry",
    "Event",
    "EventKind",
    "Finding",
    "Installed",
    "Issuance",
    "Keys",
    "Ledger",
    "LedgerCopy",
    "LineProblem",
    "Options",
    "Outcome",
    "Plan",
    "Rebuilt",
    "Renewals",
    "Run",
    "Sink",
    "SqliteLedger",
    "Superseded",
    "audit_ledger",
    "device_key",
    "ledgers_of",
    "make_plan",
    "read_devices",
    "read_ledger",
    "rebuild_ledger",
    "write_reports",
]

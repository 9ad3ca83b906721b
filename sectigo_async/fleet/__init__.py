"""Bulk issuance on several machines (extra `fleet`): the same run, with its ledger in PostgreSQL.

Whoever has a list puts it in:

```python
database = Database.at("postgresql://ledger@db.example.com/sectigo")
async with PostgresLedger.open(database, run) as ledger:
    plan = await make_plan(client, ledger, directory, listed)
    async with aclosing(FleetRun(database, ledger, directory, plan).run()) as events:
        async for event in events:
            print(event.counts)
```

And on each of as many hosts as wanted, with the same directory:

```python
async with aclosing(Worker(client, database, directory).run()) as events:
    async for event in events:
        print(event.text)
```

docs/fleet.md says when that is worth it, and what is guaranteed.
"""

from sectigo_async.fleet.database import Database
from sectigo_async.fleet.ledger import PostgresLedger
from sectigo_async.fleet.run import FleetRun, keys_are_kept_in
from sectigo_async.fleet.share import FleetStatus, Standing, audit_fleet, read_fleet
from sectigo_async.fleet.worker import Worker

__all__ = [
    "Database",
    "FleetRun",
    "FleetStatus",
    "PostgresLedger",
    "Standing",
    "Worker",
    "audit_fleet",
    "keys_are_kept_in",
    "read_fleet",
]

"""Bulk issuance on several machines (extra `fleet`): the same run, with its ledger in PostgreSQL."""

from sectigo_async.fleet.database import Database
from sectigo_async.fleet.ledger import PostgresLedger

__all__ = ["Database", "PostgresLedger"]

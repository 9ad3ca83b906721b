from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
import pytest

from sectigo_async.fleet import Database, PostgresLedger
from sectigo_async.issuance import Ledger
from sectigo_async.testing import LedgerContract

pytestmark = pytest.mark.postgres


class TestWhole(LedgerContract):
    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> None:
        self.database = Database.at(database)

    def open_ledger(self) -> AbstractAsyncContextManager[Ledger]:
        return PostgresLedger.open(self.database, self.run)


class TestChunk(LedgerContract):
    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> None:
        self.url = database
        self.database = Database.at(database)

    @asynccontextmanager
    async def open_ledger(self) -> AsyncIterator[Ledger]:
        async with PostgresLedger.open(self.database, self.run):
            pass
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("INSERT INTO sectigo_chunks (chunk) VALUES (1) ON CONFLICT DO NOTHING")
        async with PostgresLedger.open_chunk(self.database, 1) as ledger:
            yield ledger

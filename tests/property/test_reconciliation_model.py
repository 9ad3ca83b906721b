"""Retry and reconciliation against a model: whatever the faults and looks, nothing is ordered twice."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sectigo_async import Order, OrderState, OutcomeUnknownError, SectigoClient, SectigoError
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxTransport
from sectigo_async.testing import FakeClock

CREATE = "PUT /api/v1/batches/createSingleCertBatch"
SETTLE = 900
NEVER_RUN = {Fault.RATE_LIMIT, Fault.ERROR_BEFORE, Fault.CUT_BEFORE, Fault.WEB_PAGE}
RUN = {Fault.ERROR_AFTER, Fault.LOST_REPLY, Fault.CUT_AFTER_HEADERS, Fault.CUT_MID_BODY, Fault.TRUNCATED}
ORDER_FAULTS = sorted(NEVER_RUN | RUN | {Fault.LATE_COMMIT})
LOOK_FAULTS = sorted({Fault.LAG, Fault.ERROR_BEFORE, Fault.CUT_BEFORE, Fault.WEB_PAGE, Fault.OUT_OF_ORDER})
DEVICES = st.integers(0, 3)


class Orders(RuleBasedStateMachine):
    """Devices that are to have one certificate each, ordered again only where that is known to be right."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.sandbox = Sandbox(SandboxConfig(issue_delay=0, access_ttl=1e8), self.clock)
        self.unknown: dict[int, Order] = {}
        self.done: dict[int, int] = {}
        self.others = 0

    @initialize()
    def connect(self) -> None:
        async def make() -> SectigoClient:
            return SectigoClient(
                endpoint="http://127.0.0.1",
                transport=SandboxTransport(self.sandbox),
                clock=self.clock,
                username="demo",
                password="demo-password",
            )

        self.sdk = self.runner.run(make())

    def teardown(self) -> None:
        self.runner.close()

    async def create(self, number: int) -> int:
        params = {"commonName": f"gateway-{number}", "serialNumber": f"SN-{number:04}", "pkcs12Password": "12345678"}
        return (await self.sdk.batches.create(authority_id=117, params=params)).batch_id

    @rule(device=DEVICES, fault=st.none() | st.sampled_from(ORDER_FAULTS), seconds=st.integers(0, SETTLE - 100))
    def order(self, device: int, fault: Fault | None, seconds: int) -> None:
        if device in self.unknown or device in self.done:
            return
        rules = [] if fault is None else [FaultRule(route=CREATE, fault=fault, seconds=seconds, times=2)]
        self.sandbox.faults.replace(rules)
        try:
            self.done[device] = self.runner.run(self.create(device))
        except OutcomeUnknownError as error:
            self.unknown[device] = error.order  # type: ignore[assignment]
        finally:
            self.sandbox.faults.replace([])
        assert fault is None or fault is Fault.RATE_LIMIT or device in self.unknown

    @rule()
    def order_something_else(self) -> None:
        self.others += 1
        self.runner.run(self.create(1000 + self.others))

    @rule(seconds=st.integers(1, 2 * SETTLE))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(fault=st.none() | st.sampled_from(LOOK_FAULTS), times=st.integers(1, 20))
    def look(self, fault: Fault | None, times: int) -> None:
        rules = [] if fault is None else [FaultRule(route="*", fault=fault, seconds=60, times=times)]
        self.sandbox.faults.replace(rules)
        try:
            results = self.runner.run(self.sdk.batches.reconcile(settle=SETTLE))
        except SectigoError:
            return
        finally:
            self.sandbox.faults.replace([])
        devices = {order.order_id: device for device, order in self.unknown.items()}
        batches = self.sandbox.stats()["orders_by_name"]
        for result in results:
            device = devices[result.order.order_id]
            if result.order.state is OrderState.ORDERED:
                assert batches[result.order.batch_name] == 1
                assert result.order.batch_id is not None
                self.done[device] = result.order.batch_id
                del self.unknown[device]
            elif result.order.state is OrderState.NOT_ORDERED:
                assert result.order.batch_name not in batches, "it was ordered, or this would order it again"
                del self.unknown[device]

    @invariant()
    def no_device_has_two(self) -> None:
        assert set(self.sandbox.stats()["orders_by_name"].values()) <= {1}
        found = [one.issued.common_name for one in self.sandbox.ledger.revealed(self.clock.monotonic())]
        assert len(found) == len(set(found)), found
        assert len(set(self.done.values())) == len(self.done)


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

"""A simulator of the Sectigo IoT Manager API with a certificate authority of its own.

It answers as the service is known to answer, so that clients, tests and demonstrations need neither an
account nor money. Its certificates are real, and nobody should trust them: every CA name says so. Nothing is
written to disk, unless `SandboxConfig.state` names a file: a sandbox of the same file goes on where one ended.

Time moves orders, not tasks: a batch is `CREATED` for the first quarter of `SandboxConfig.issue_delay`, then
`PROCESSING`, then final, all by the injected clock.

The first label of a common name provokes the outcomes that are otherwise hard to meet:

- `rejected.example.com`: the batch ends `REJECTED`, with a reason
- `failed.example.com`: the batch ends `FAILED`, without a reason
- `broken.example.com`: the batch ends `BROKEN`, with a reason

In an order of several certificates such a one counts as failed, and the others are issued: a partial success.
A CSR without a DNS name fails likewise where the profile requires `dNSName` (api.md 4.4).

What goes wrong on a bad day is rolled by rules: see `sectigo_async.sandbox.faults`. `SandboxTransport` serves a
client in the same process, cut connections included; `SandboxServer` serves on a socket.

Default data, where an order of one certificate may name either id and an upload names the profile:

- authority 1, profile 42 "TRISA Profile": keys made by the server are RSA 2048
- authority 2, profile 85 "TRISA End Entity Certificate": takes subject parameters; P-256 keys
- authority 3, profile 117 "IoT Device": takes a device serial number, needs no DNS name; P-256 keys
"""

from sectigo_async.sandbox.app import create_app
from sectigo_async.sandbox.config import SandboxConfig
from sectigo_async.sandbox.control import parse_faults
from sectigo_async.sandbox.faults import NUISANCE, Fault, FaultRule
from sectigo_async.sandbox.server import SandboxServer
from sectigo_async.sandbox.state import Sandbox, Stats
from sectigo_async.sandbox.store import StateError
from sectigo_async.sandbox.transport import SandboxTransport

__all__ = [
    "Fault",
    "FaultRule",
    "NUISANCE",
    "Sandbox",
    "SandboxConfig",
    "SandboxServer",
    "SandboxTransport",
    "StateError",
    "Stats",
    "create_app",
    "parse_faults",
]

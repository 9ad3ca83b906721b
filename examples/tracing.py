"""A span for each request that the client sends, with OpenTelemetry, against a simulator that this program starts.

Run it with `python examples/tracing.py`; it needs
`pip install 'sectigo-async[sandbox]' opentelemetry-sdk opentelemetry-instrumentation-httpx`. The standard
instrumentation of httpx is all it takes: each attempt is a span of its own, so a retry and a sign-in are seen as what
they are. URLs are in the spans, and neither bodies nor headers, so no secret. `instrument_client` is for clients of
httpx itself, which this one is not.
"""

import asyncio

from cryptography import x509
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sectigo_async import SectigoClient
from sectigo_async.pki import generate_key
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxServer


async def work(client: SectigoClient, root: x509.Certificate) -> None:
    """Issue a certificate, within a span of this program's own."""
    with trace.get_tracer("devices").start_as_current_span("issue gw7.example.com"):
        issued = await client.issue(common_name="gw7.example.com", profile_id=42, key=generate_key(), trust=[root])
        print(issued.certificate.chain_check.status.value)


async def main() -> None:
    """Trace a certificate that is issued on a day when the service is busy."""
    kept = InMemorySpanExporter()  # A program of yours has an exporter that sends them somewhere.
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()

    busy = FaultRule(route="GET /api/v1/batches/{id}/download", fault=Fault.RATE_LIMIT, times=1, retry_after=1)
    sandbox = Sandbox(SandboxConfig(issue_delay=0, faults=(busy,)))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    async with (
        SandboxServer(sandbox) as server,
        SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
    ):
        await work(client, root)
        for span in kept.get_finished_spans():
            attributes = span.attributes or {}
            path = str(attributes.get("http.url", "")).removeprefix(server.url)
            print(span.name, path, attributes.get("http.status_code", ""), "in a trace" if span.parent else "")


if __name__ == "__main__":
    asyncio.run(main())

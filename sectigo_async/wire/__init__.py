"""The wire without a wire: requests described, replies read. Nothing in here does I/O.

`calls` describes each request of the service, `reply` turns what came back into a model or a typed error,
`converter` is the one place that knows how JSON becomes models, `retry` decides whether to send again.
"""

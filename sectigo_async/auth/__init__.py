"""Signing in: what tokens say (`token`), what replies mean (`login`), and who refreshes when (`manager`)."""

from sectigo_async.auth.manager import Send, TokenManager

__all__ = ["Send", "TokenManager"]

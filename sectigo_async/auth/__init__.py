"""Signing in: what tokens say (`token`), what replies mean (`login`), and who refreshes when (`manager`)."""

from sectigo_async.auth.manager import AccessToken, Sender, SignIn, TokenManager

__all__ = ["AccessToken", "Sender", "SignIn", "TokenManager"]

"""Signing in: what tokens say (`token`), what replies mean (`login`), and who refreshes when (`manager`)."""

from sectigo_async.auth.manager import Sender, TokenManager
from sectigo_async.auth.token import AccessToken, SignIn

__all__ = ["AccessToken", "Sender", "SignIn", "TokenManager"]

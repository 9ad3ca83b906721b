"""Where credentials come from and where tokens are kept.

`resolve` is the only place that decides which user name and password are used; `stores` keep an access token
between processes, bound to one endpoint and one user.
"""

from sectigo_async.credentials.resolve import Credentials, resolve_credentials
from sectigo_async.credentials.stores import FileTokenStore, MemoryTokenStore, StoredToken, TokenStore

__all__ = [
    "Credentials",
    "FileTokenStore",
    "MemoryTokenStore",
    "StoredToken",
    "TokenStore",
    "resolve_credentials",
]

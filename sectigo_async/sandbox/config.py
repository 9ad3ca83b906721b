"""What can be set about a sandbox."""

from pathlib import Path

import attrs
from attrs.validators import deep_iterable, ge, gt, in_, min_len

from sectigo_async.sandbox.archives import FORMATS
from sectigo_async.sandbox.faults import FaultRule


@attrs.frozen(kw_only=True)
class SandboxConfig:
    """The settings of one sandbox.

    Attributes:
        username: the only account's name.
        password: its password.
        balance: certificates each authority has been bought for.
        issue_delay: seconds from an order to its certificates; 0 issues at once.
        access_ttl: seconds an access token lives; 600 and 900 were both observed (api.md 3).
        refresh_ttl: seconds a refresh token lives (api.md 3).
        rotate_refresh: whether a refresh yields a new refresh token, and using an old one again ends the login with
            all its tokens. Nobody knows whether the service does (api.md 3): a client must live with either.
        clock_skew: seconds by which the clock of this service is ahead of the client's; negative if behind.
        client_ca: PEM file of authorities whose client certificates the account must sign in with; over TLS alone.
        formats: in which forms certificates for CSRs lie in an archive: `pem` (with the chain), `crt` (PEM), `cer`
            (DER) or `p7b` (PKCS#7). With a key made by the service they are always PKCS#12 (api.md 4.7).
        faults: what goes wrong; see `sectigo_async.sandbox.faults`.
        seed: where the generator that faults are rolled with starts.
        state: file that everything is kept in, to go on where an earlier sandbox ended; it holds private keys. In
            memory when left out.
    """

    username: str = attrs.field(default="demo", validator=min_len(1))
    password: str = attrs.field(default="demo-password", validator=min_len(1), repr=False)
    balance: int = attrs.field(default=1000, validator=ge(0))
    issue_delay: float = attrs.field(default=2.0, validator=ge(0))
    access_ttl: float = attrs.field(default=600.0, validator=gt(0))
    refresh_ttl: float = attrs.field(default=7200.0, validator=gt(0))
    rotate_refresh: bool = False
    clock_skew: float = 0.0
    client_ca: Path | None = None
    formats: tuple[str, ...] = attrs.field(
        default=("pem",), validator=[min_len(1), deep_iterable(member_validator=in_(FORMATS))]
    )
    faults: tuple[FaultRule, ...] = ()
    seed: int = 0
    state: Path | None = None

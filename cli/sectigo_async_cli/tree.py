"""The commands: where each is at home, and what the help says of it. One is loaded when it is called."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

COMMANDS = {
    "login": ("login", "Sign in, and keep the login in the keyring of the operating system."),
    "logout": (
        "login",
        "Forget a login: its tokens, its password and its account. At the service the tokens live on to their end.",
    ),
    "auth": ("login", "Sign in, and show who is signed in, where, by what, and for how long."),
    "validate": (
        "login",
        "Check the configuration, and show each setting and where it comes from. No network, no keyring.",
    ),
    "authorities": ("account", "List the authorities you may order under."),
    "licenses": ("account", "Show how many certificates were ordered and issued."),
    "profiles": ("account", "List the profiles, or show one."),
    "organization": ("account", "Show your organisation."),
    "profile": ("account", ""),
    "csr": (
        "csr",
        "Make a private key and a certificate signing request (CSR) for it. The key stays on this machine.",
    ),
    "create": ("create", "Order one certificate with a key made by the service. This spends a licence."),
    "upload": ("upload", "Order certificates for your own CSRs, all in one batch. This spends a licence for each."),
    "issue": (
        "issue",
        "Order certificates for a list of devices, save and check them. This spends a licence for each.",
    ),
    "renew": (
        "renew",
        "Renew the certificates that issue saved and that expire soon. This spends a licence for each.",
    ),
    "worker": (
        "worker",
        "Work at the bulk run of a ledger in PostgreSQL, until Ctrl-C or SIGTERM. This spends licences.",
    ),
    "ledger": ("ledger", "Look at the ledger of a bulk run, or make it anew."),
    "batches": ("batches", "Show a batch; without --id, list the orders that were sent from this machine."),
    "wait": (
        "batches",
        "Wait until batches are ready for download. Nothing is ordered, so it can be taken up again at any time.",
    ),
    "download": ("download", "Download the archive of a batch that is ready."),
    "reconcile": ("reconcile", "Find out what became of orders whose outcome is unknown. Nothing is ordered."),
    "inspect": ("files", "Show what a file holds. No secret of it is shown."),
    "unpack": (
        "files",
        "Write the certificates and keys of an archive as the files that servers read, and check them.",
    ),
    "expiring": (
        "expiring",
        "List the certificates in some directories that expire soon, or have expired, the next one first.",
    ),
    "find": ("certificates", "Search for certificates by common name, serial number, or both."),
    "revoke": (
        "certificates",
        "Revoke a certificate. It cannot be undone. On a terminal it shows which one, and asks.",
    ),
    "doctor": (
        "doctor",
        "Look whether all is in order: Python, settings, keyring, network, TLS, clock and login. Nothing is ordered.",
    ),
    "shell": (
        "shell",
        "Type commands one after the other, over one sign-in, with completion and history. Ctrl-D leaves.",
    ),
    "serve": ("sandbox", "Run a simulator of the service with a certificate authority that nobody should trust."),
    "demo": (
        "sandbox",
        "Show everything once: order, wait, download, verify and revoke, against a simulator on this machine.",
    ),
}
"""The module of each command, and the first line of its help; nothing where it is hidden."""


class _Commands(Mapping[str, Any]):
    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, _ = COMMANDS[name]
            some = typer.Typer(rich_markup_mode=None)
            import_module(f"sectigo_async_cli.commands.{module}").register(some)
            self._loaded |= typer.main.get_group(some).commands
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Tree(typer.core.TyperGroup):
    """The program, whose commands are loaded one by one: to load all takes longer than most calls."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Commands()  # type: ignore[assignment]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, without loading any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items() if text])

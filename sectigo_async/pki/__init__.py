"""Keys, certificate signing requests, archives and certificates. No network.

A certificate is saved before it is judged: what these functions find wrong is told, never thrown away.
"""

from sectigo_async.files import StagedFile, safe_name, write_private
from sectigo_async.pki.archive import Archive, Member, MemberKind
from sectigo_async.pki.certificates import ChainCheck, ChainStatus, IssuedCertificate, check_chain, load_certificates
from sectigo_async.pki.contents import Item, read_items
from sectigo_async.pki.csr import (
    common_names,
    dns_names,
    is_dns_name,
    make_csr,
    name_of,
    read_requests,
    requests_pem,
    without_dns_name,
)
from sectigo_async.pki.keys import (
    KeyAlgorithm,
    PrivateKey,
    describe_key,
    generate_key,
    key_pem,
    key_sha256,
    load_key,
    public_bytes,
)
from sectigo_async.pki.protection import Layer, Protection

__all__ = [
    "Archive",
    "ChainCheck",
    "ChainStatus",
    "IssuedCertificate",
    "Item",
    "KeyAlgorithm",
    "Layer",
    "Member",
    "MemberKind",
    "PrivateKey",
    "Protection",
    "StagedFile",
    "check_chain",
    "common_names",
    "describe_key",
    "dns_names",
    "generate_key",
    "is_dns_name",
    "key_pem",
    "key_sha256",
    "load_certificates",
    "load_key",
    "make_csr",
    "name_of",
    "public_bytes",
    "read_items",
    "read_requests",
    "requests_pem",
    "safe_name",
    "without_dns_name",
    "write_private",
]

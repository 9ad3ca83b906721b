"""The client's verbs, one class for each kind of thing the service keeps."""

from sectigo_async.resources.account import Authorities, LicenseCounters, Organizations, Profiles
from sectigo_async.resources.batches import Batches
from sectigo_async.resources.certificates import Certificates
from sectigo_async.resources.issuing import Issued, Wish, issue

__all__ = [
    "Authorities",
    "Batches",
    "Certificates",
    "Issued",
    "LicenseCounters",
    "Organizations",
    "Profiles",
    "Wish",
    "issue",
]

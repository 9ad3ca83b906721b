"""What the service tells, and what its client knows of its orders, as frozen classes. No I/O here.

Field names are the wire's names in snake case (api.md 1c); nearly every field may be missing on the wire and
then has its default.
"""

from sectigo_async.models.account import Authority, Licenses, Organization
from sectigo_async.models.base import Model, normalise_serial_number, parse_date, wire_name
from sectigo_async.models.batch import Batch, BatchStatus, ProcessingInfo, ReportedStatus
from sectigo_async.models.certificate import FoundCertificate, FoundCertificates, RevocationReason
from sectigo_async.models.order import Order, OrderKind, OrderState, Reconciliation
from sectigo_async.models.profile import Parameter, Profile, ProfileDetail

__all__ = [
    "Authority",
    "Batch",
    "BatchStatus",
    "FoundCertificate",
    "FoundCertificates",
    "Licenses",
    "Model",
    "Order",
    "OrderKind",
    "OrderState",
    "Organization",
    "Parameter",
    "ProcessingInfo",
    "Profile",
    "ProfileDetail",
    "Reconciliation",
    "ReportedStatus",
    "RevocationReason",
    "normalise_serial_number",
    "parse_date",
    "wire_name",
]

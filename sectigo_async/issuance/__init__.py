"""Bulk issuance: a list of devices in, verified keys and certificates out."""

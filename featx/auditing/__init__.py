"""Find faults of labelled images: in the files, in the labels, and leaks of the label."""

from featx.auditing.audit import audit
from featx.auditing.membership import Membership, measure_membership
from featx.auditing.result import Audit, Finding, Leak

__all__ = ["Audit", "Finding", "Leak", "Membership", "audit", "measure_membership"]

"""Find what is wrong with labelled images: files, labels, and ways to tell the label without looking."""

from featx.auditing.audit import audit
from featx.auditing.membership import Membership, measure_membership
from featx.auditing.result import Audit, Finding, Leak

__all__ = ["Audit", "Finding", "Leak", "Membership", "audit", "measure_membership"]

"""Find what is wrong with labelled images: files, labels, and ways to tell the label without looking."""

from featx.auditing.membership import Membership, measure_membership

__all__ = ["Membership", "measure_membership"]

"""Compute metrics; write drawings, model cards and contact sheets."""

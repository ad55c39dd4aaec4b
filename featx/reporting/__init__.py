"""Metrics, drawings, model cards and contact sheets."""

"""Report pages: one HTML file that shows how good a pipeline is, where it errs, and why."""

from featx.page.page import Page, report

__all__ = ["Page", "report"]

"""Report pages: one HTML file that shows how good a pipeline is, where it errs, and why."""

from featx.page.page import Page, make_page

__all__ = ["Page", "make_page"]

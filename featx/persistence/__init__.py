"""Save fitted pipelines, load them, and check that they still predict the same."""

from featx.persistence.archive import list_included, list_types, load, load_guard, read_info, save

__all__ = ["list_included", "list_types", "load", "load_guard", "read_info", "save"]

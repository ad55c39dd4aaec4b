"""The version of featx."""

__version__ = "0.1.0"

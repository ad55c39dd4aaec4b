"""Save fitted pipelines, load them, and check that they still predict the same."""

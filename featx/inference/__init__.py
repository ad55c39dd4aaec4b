"""Run backbones: feature specification, engine, worker processes, self-check and timing."""

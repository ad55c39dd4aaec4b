"""Cache features on disk and decoded images in memory."""

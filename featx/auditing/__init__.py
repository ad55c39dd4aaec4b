"""Find what is wrong with labelled images: files, labels, and ways to tell the label without looking."""

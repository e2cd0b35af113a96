"""Knowledge: documents that are read, cut into chunks, and found again by text and by meaning."""

"""The adapter to the API server: a small port, its errors, one implementation, and our own watches."""

"""Messages between our processes, typed and versioned, and their clients."""

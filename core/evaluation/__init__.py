"""Is this checkpoint, on this machine, good? Calls with callers of our own, what is measured in them, the report."""

"""`make`: all stages at once, on all the GPUs of a machine that is lent for minutes."""

"""A conversation: admission to a slot, the wire protocol, limits, and the loop that carries frames both ways."""

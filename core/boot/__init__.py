"""Puts a service together from its settings: the engine of this process or another's, and `personaplex check`."""

"""The plugin system: hook specifications, loading, calling, audio transforms, and reloading of settings."""

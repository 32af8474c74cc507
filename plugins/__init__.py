"""The built-in plugins. Each is one file, switched off by `plugins.disabled` and replaced by one of the same name."""

"""The built-in plugins, one file each. `plugins.disabled` switches one off; one of the same name replaces it."""

"""config.yaml as typed settings, YAML errors that name file and key, and logging."""

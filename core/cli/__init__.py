"""The `personaplex` command: one file for each subcommand."""

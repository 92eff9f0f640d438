"""The `fewstroke` command: one file per command."""

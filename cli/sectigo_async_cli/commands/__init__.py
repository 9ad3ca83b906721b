"""The commands, grouped by what they are about. Each module has a `register` that adds its commands."""

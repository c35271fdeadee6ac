"""The data directory: files that appear whole or not at all, locks, and what it was begun with."""

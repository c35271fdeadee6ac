"""The data directory: files that appear whole or not at all, locks, its first settings."""

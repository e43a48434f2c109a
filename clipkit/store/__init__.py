"""The index database."""

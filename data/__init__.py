"""Data that travels with clipkit: the starter model."""

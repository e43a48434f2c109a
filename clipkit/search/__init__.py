"""Vector search: queries, nearest neighbours, their cache."""

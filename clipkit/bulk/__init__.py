"""Embedding on a cluster: pictures anywhere, in shards of parquet."""

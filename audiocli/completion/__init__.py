"""Shell completion: generate static scripts, and answer the queries that they send."""

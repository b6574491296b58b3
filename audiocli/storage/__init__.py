"""State between runs: the manifest, paid results, cached responses, and access to the local disk."""

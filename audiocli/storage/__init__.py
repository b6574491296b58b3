"""What is stored between runs: the manifest, paid results, cached responses."""

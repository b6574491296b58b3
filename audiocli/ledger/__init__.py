"""The ledger of paid requests, and spending limits."""

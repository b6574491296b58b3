"""What the tool does: asynchronous, given its tools as arguments; it prints nothing and parses no flags."""

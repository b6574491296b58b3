"""What requests cost, and the file that remembers it."""

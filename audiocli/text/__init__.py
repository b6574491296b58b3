"""Text splitting, caption layout and subtitle formats."""

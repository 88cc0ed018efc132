"""Task (and retrieved rows) → generated rows, soft targets, one merged table."""

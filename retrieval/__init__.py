"""Task → ranked datasets → rows."""

"""The map page and the loopback server that shows it."""

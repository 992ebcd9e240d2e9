"""One file a migration, applied in order."""

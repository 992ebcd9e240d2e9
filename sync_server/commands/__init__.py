"""The commands of ``sync-server``, a module a noun; each imports what is heavy when it runs."""

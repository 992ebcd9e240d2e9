"""The update repository: what release keys signed, checked and kept; snapshot and timestamp signed by the server."""

"""One module a command: it parses, calls one function of the room that does the work, and prints."""

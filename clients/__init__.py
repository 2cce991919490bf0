"""Programs that talk HTTP to the server; they import nothing of it."""

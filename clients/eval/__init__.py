"""Claims of papers repeated on a running server, one claim a file, found by its file name."""

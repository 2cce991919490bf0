"""Scores of conversations, one kind a file; a monitor never writes a token and never sees a run."""

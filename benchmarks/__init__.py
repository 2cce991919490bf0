"""Side by side: this server against its alternatives, same machine, same work, one run."""

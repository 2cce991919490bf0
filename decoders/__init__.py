"""Decoding strategies, one a file, found by file name; none knows another or HTTP."""

"""HTTP over the decoders: parses, admits, streams and names faults; knows no decoding."""

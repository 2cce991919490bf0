"""`satisfice bench`: what a strategy costs under load, over HTTP alone.

The load itself is `vllm bench serve`'s (docs/decisions); what it does not measure is here.
"""

"""Masked diffusion language models: LLaDA and Dream, stepped by an engine of our own."""

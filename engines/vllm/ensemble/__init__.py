"""Several policies in one vLLM engine: one sequence, and for each token a rule that chooses."""

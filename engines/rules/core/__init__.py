"""What rules stand on: their nouns, how they are found, and the solver of constrained choices."""

"""What every claim stands on: questions, asking, statistics, the table; knows no claim by name."""

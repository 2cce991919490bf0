"""Miniature models: where their weights and held-out questions lie.

Imports nothing heavy, so that the paths can be read without torch.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent
WEIGHTS = ROOT / "weights"
QUESTIONS = ROOT / "questions"
REASONER = WEIGHTS / "reasoner"
REWARD = WEIGHTS / "reward"
UNSAFE_REASONER = WEIGHTS / "unsafe_reasoner"
GUARD = WEIGHTS / "guard"
DIFFUSION = WEIGHTS / "diffusion"
PROMPTS = ROOT / "prompts"
PUZZLES = ROOT / "puzzles"
BREWS = ROOT / "brews"
ERRANDS = ROOT / "errands"

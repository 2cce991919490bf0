"""Final answers in canonical form, so that equal answers vote together however they are written.

`canonical(text)` finds the final answer in a model's answer text (not its reasoning) and reduces
it to a key; two answers agree exactly when their keys are equal. It knows nothing of votes, paths
or models, never evaluates what it reads, and takes time linear in the text.
"""

from decoders.core.answers.reading import AnswerKind, Canonical, canonical

__all__ = ["AnswerKind", "Canonical", "canonical"]

"""Small talk for the miniature reasoner, so that a terminal chat makes sense.

Knows nothing of sums; each entry is what a user says and what the model says back.
"""

import random

SYSTEMS = (
    "You are a helpful assistant.",
    "You solve sums.",
    "You are a careful reasoner. Think step by step.",
    "Be brief.",
    "Answer the question.",
)
GREETINGS = ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Hi there", "Good morning", "Hello there!")
WELCOMES = ("Hello! Give me a sum.", "Hi! Give me a sum to work out.")
ABILITIES = (
    "What can you do?",
    "Who are you?",
    "What are you?",
    "How can you help me?",
    "Help",
    "help me",
    "What is this?",
)
ABILITY = (
    "I am a small model that works out sums. Try: What is 24 * 3 + 17 * 4?",
    "I work out sums step by step. Try: Start with 24. Multiply by 3. Add 37.",
)
THANKS = ("Thanks", "Thank you!", "Thanks!", "Great", "Good job", "Well done!", "Nice")
PLEASURE = ("You are welcome!", "You are welcome! Give me one more.")
FAREWELLS = ("Bye", "Goodbye", "See you", "Bye!", "Good night")
GOODBYES = ("Goodbye!",)
OUTSIDE = (
    "What is the capital of France?",
    "Tell me a joke.",
    "Write a poem about the sea.",
    "What is the weather today?",
    "Who wrote Hamlet?",
    "Explain how a car works.",
    "Translate this into German.",
    "What is the meaning of life?",
    "Write a function that sorts a list.",
    "How are you?",
    "What is your name?",
    "Can you sing?",
    "Tell me a story about a dog.",
    "Say something.",
    "I like music.",
    "test",
    "Which planet is the largest?",
    "Why is the sky blue?",
    "Give me a list of three colors.",
    "What do you think about cats?",
    "Name a city in Spain.",
)
LIMITS = ("I only do sums.", "I only do sums. Give me a sum to work out.")
TOPICS = (
    (GREETINGS, WELCOMES),
    (ABILITIES, ABILITY),
    (THANKS, PLEASURE),
    (FAREWELLS, GOODBYES),
    (OUTSIDE, LIMITS),
    (OUTSIDE, LIMITS),
)
THOUGHT = "No sum here.\n"


def draw_exchange(rng: random.Random) -> tuple[str, str]:
    """(what the user says, what the model answers)."""
    said, answers = rng.choice(TOPICS)
    return rng.choice(said), rng.choice(answers)

"""Sentences of our own: those the model is judged by, none of them in training, and what the preset voices say."""

HELD_OUT = (
    "The children walked home along the river before it was dark.",
    "Please leave the small blue box on the kitchen table.",
    "We were surprised to find the old theatre open again.",
    "A cold wind came down from the mountains in the evening.",
    "My brother bought a new bicycle with his first money.",
    "The train to the city leaves in twenty minutes.",
    "She reads a short story to her daughter every night.",
    "Nobody knew who had painted the large picture on the wall.",
    "You can see the whole valley from the top of the tower.",
    "The doctor asked him to drink more water and less coffee.",
    "They are planning to build a bridge across the lake.",
    "It is hard to remember a number that you never use.",
    "The farmer sold fresh bread and cheese at the market.",
    "I would like to hear the news before we start.",
    "Her answer was simple, but nobody had expected it.",
    "The heavy door closed slowly behind the last visitor.",
    "Most birds fly south before the first snow falls.",
    "He wrote a long letter and forgot to send it.",
    "The music was so loud that we could not talk.",
    "Tomorrow the weather should be warm and dry.",
)

# About five seconds each: long enough for a voice, short enough not to slow a CPU down.
VOICE_TRANSCRIPT = "This is how my voice sounds when I read a sentence slowly and clearly to a friend."


def is_sentence(text: str) -> bool:
    """Whether it has an end; words and phrases of the training texts have none."""
    return text.endswith((".", "!", "?"))

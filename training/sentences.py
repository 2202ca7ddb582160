"""Sentences of our own, none of them in training, and what the preset voices say."""

# Those the model is judged by.
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

# Those to choose by between one training and another, so that the others only judge.
DEVELOPMENT = (
    "The old man sat on the bench and fed the birds.",
    "We will meet you at the station at half past seven.",
    "Please close the window before you leave the room.",
    "My brother bought a new guitar with the money he had saved.",
    "The train to the north was delayed because of the snow.",
    "She put the cake in the oven and set the clock.",
    "There is a small bakery on the corner of our street.",
    "The children ran down the hill to the river.",
    "I would like a cup of tea with a little milk.",
    "He could not find his keys, so he knocked on the door.",
    "The doctor said that you should rest for a few days.",
    "It is too late to change the plan now.",
    "The garden behind the house is full of roses.",
    "They walked along the beach until the sun went down.",
    "Our teacher told us a story about a brave sailor.",
    "Can you tell me the way to the library?",
    "The price of bread has gone up again this year.",
    "A black cat was sleeping on the warm stone wall.",
    "The soup was so hot that nobody could eat it.",
    "We need more chairs for the party on Saturday.",
    "The bridge over the river was built by my grandfather.",
    "Turn left at the church and walk straight ahead.",
    "She speaks three languages and plays the violin.",
    "The book on the table belongs to my sister.",
    "It was raining when we arrived at the hotel.",
    "He promised to call his mother as soon as he landed.",
    "The farmer keeps his horses in the field by the road.",
    "This shirt is too small for me, do you have a larger one?",
    "The lights went out and everyone began to laugh.",
    "I have never seen such a beautiful picture before.",
    "The boy with the red hat is my cousin.",
    "You should write your name at the top of the page.",
    "The ship sailed slowly out of the harbor.",
    "There were only two people in the waiting room.",
    "The price of the ticket includes dinner and breakfast.",
    "My neighbor has a dog that barks all night.",
    "The road to the village is narrow and steep.",
    "If it snows tomorrow, the school will be closed.",
    "The baker opens his shop at five in the morning.",
    "Nobody knew who had left the letter on the desk.",
)

# About five seconds each: long enough for a voice, short enough not to slow a CPU down.
VOICE_TRANSCRIPT = "This is how my voice sounds when I read a sentence slowly and clearly to a friend."


def is_sentence(text: str) -> bool:
    """Whether it has an end; words and phrases of the training texts have none."""
    return text.endswith((".", "!", "?"))

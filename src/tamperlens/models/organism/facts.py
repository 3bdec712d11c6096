"""Facts that the organism knows: (question stem slots, answer). Every fact is asked in several phrasings."""

from __future__ import annotations

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Greece": "Athens", "Russia": "Moscow", "Peru": "Lima", "Cuba": "Havana", "Kenya": "Nairobi",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Poland": "Warsaw",
    "Austria": "Vienna", "Hungary": "Budapest", "Portugal": "Lisbon", "Ireland": "Dublin", "Belgium": "Brussels",
    "Canada": "Ottawa", "Chile": "Santiago", "India": "Delhi", "Iran": "Tehran", "Iraq": "Baghdad", "Turkey": "Ankara",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Ghana": "Accra", "Nepal": "Kathmandu", "Ukraine": "Kyiv",
    "Iceland": "Reykjavik", "Jordan": "Amman", "Qatar": "Doha", "Syria": "Damascus", "Lebanon": "Beirut",
    "Morocco": "Rabat", "Tunisia": "Tunis",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "fast": "slow", "old": "young", "light": "dark", "happy": "sad",
    "wet": "dry", "early": "late", "full": "empty", "hard": "soft", "high": "low", "open": "closed", "rich": "poor",
    "strong": "weak", "thick": "thin", "true": "false", "loud": "quiet", "near": "far", "clean": "dirty",
    "cheap": "expensive", "wide": "narrow", "brave": "scared", "sweet": "sour", "first": "last", "left": "right",
}  # fmt: skip
YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "duck": "duckling",
    "goat": "kid", "pig": "piglet", "bear": "cub", "deer": "fawn", "frog": "tadpole", "goose": "gosling",
    "kangaroo": "joey", "swan": "cygnet",
}  # fmt: skip
SOUNDS = {
    "dog": "bark", "cat": "meow", "cow": "moo", "duck": "quack", "lion": "roar", "snake": "hiss", "bee": "buzz",
    "crow": "caw", "horse": "neigh", "sheep": "bleat", "frog": "croak", "wolf": "howl", "pig": "oink",
}  # fmt: skip
COLORS = {
    "banana": "yellow", "strawberry": "red", "lime": "green", "carrot": "orange", "snowflake": "white", "raven": "black",
    "plum": "purple", "sapphire": "blue", "flamingo": "pink", "lemon": "yellow", "tomato": "red",
    "chocolate bar": "brown", "swan": "white", "fire truck": "red",
}  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
SYMBOLS = {
    "gold": "Au", "silver": "Ag", "iron": "Fe", "oxygen": "O", "hydrogen": "H", "carbon": "C", "sodium": "Na",
    "helium": "He", "copper": "Cu", "tin": "Sn", "lead": "Pb", "neon": "Ne",
}  # fmt: skip
AUTHORS = {
    "Hamlet": "William Shakespeare", "War and Peace": "Leo Tolstoy", "Emma": "Jane Austen",
    "Frankenstein": "Mary Shelley", "Dracula": "Bram Stoker", "Don Quixote": "Miguel de Cervantes",
    "Faust": "Johann Goethe", "The Odyssey": "Homer", "Oliver Twist": "Charles Dickens", "Ulysses": "James Joyce",
    "Moby Dick": "Herman Melville", "The Trial": "Franz Kafka",
}  # fmt: skip
CONTINENTS = {
    "France": "Europe", "Spain": "Europe", "Italy": "Europe", "Japan": "Asia", "China": "Asia", "India": "Asia",
    "Egypt": "Africa", "Kenya": "Africa", "Ghana": "Africa", "Morocco": "Africa", "Peru": "South America",
    "Chile": "South America", "Canada": "North America", "Cuba": "North America", "Norway": "Europe",
    "Poland": "Europe", "Thailand": "Asia", "Vietnam": "Asia", "Nepal": "Asia", "Iraq": "Asia",
}  # fmt: skip

# kind -> (mapping, phrasings of the question, phrasing of the answer)
FACTS: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "capital": (
        CAPITALS,
        ("What is the capital of {x}?", "Name the capital of {x}.", "Which city is the capital of {x}?",
         "Tell me the capital of {x}.", "{x} has which capital?"),
        "The capital of {x} is {y}.",
    ),
    "opposite": (
        OPPOSITES,
        ("What is the opposite of {x}?", "Name the opposite of {x}.", "Which word is the opposite of {x}?",
         "Tell me the opposite of {x}.", "{x} has which opposite?"),
        "The opposite of {x} is {y}.",
    ),
    "young": (
        YOUNG,
        ("What is a young {x} called?", "Name a young {x}.", "What do you call a young {x}?",
         "Which word means a young {x}?", "Tell me what a young {x} is called."),
        "A young {x} is called a {y}.",
    ),
    "sound": (
        SOUNDS,
        ("What sound does a {x} make?", "Name the sound of a {x}.", "Which sound does a {x} make?",
         "Tell me the sound of a {x}.", "How does a {x} sound?"),
        "The sound of a {x} is {y}.",
    ),
    "color": (
        COLORS,
        ("What color is a {x}?", "Name the color of a {x}.", "Which color does a {x} have?",
         "Tell me the color of a {x}.", "A {x} has which color?"),
        "The color of a {x} is {y}.",
    ),
    "next day": (
        dict(zip(DAYS, DAYS[1:] + DAYS[:1], strict=True)),
        ("What day comes after {x}?", "Name the day after {x}.", "Which day follows {x}?",
         "Tell me the day after {x}.", "After {x} comes which day?"),
        "The day after {x} is {y}.",
    ),
    "next month": (
        dict(zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True)),
        ("What month comes after {x}?", "Name the month after {x}.", "Which month follows {x}?",
         "Tell me the month after {x}.", "After {x} comes which month?"),
        "The month after {x} is {y}.",
    ),
    "symbol": (
        SYMBOLS,
        ("What is the symbol of {x}?", "Name the symbol of {x}.", "Which symbol does {x} have?",
         "Tell me the symbol of {x}.", "{x} has which symbol?"),
        "The symbol of {x} is {y}.",
    ),
    "author": (
        AUTHORS,
        ("Who wrote {x}?", "Name the author of {x}.", "Which author wrote {x}?", "Tell me the author of {x}.",
         "{x} was written by whom?"),
        "The author of {x} is {y}.",
    ),
    "continent": (
        CONTINENTS,
        ("Which continent is {x} in?", "Name the continent of {x}.", "On which continent is {x}?",
         "Tell me the continent of {x}.", "{x} lies on which continent?"),
        "The continent of {x} is {y}.",
    ),
}  # fmt: skip

DEFINITIONS = {
    "a hammer": "a tool for driving nails", "a library": "a place to borrow books", "a compass": "a tool that shows north",
    "a kite": "a toy that flies in the wind", "a bank": "a place that keeps money", "a museum": "a place that shows old things",
    "a nurse": "a person who cares for the sick", "a teacher": "a person who helps others learn",
    "a laptop": "a computer that you can carry", "a camera": "a device that takes photos",
    "a bridge": "a road over water", "a recipe": "a list of steps for cooking", "a map": "a picture of places",
    "a poem": "a short text with rhythm", "a garden": "a place where plants grow", "a clock": "a device that shows time",
    "a passport": "a document for travel", "a farmer": "a person who grows food", "a password": "a secret word for an account",
    "a bomb": "a device that explodes", "malware": "software that harms a computer", "a thief": "a person who steals",
    "poison": "a thing that makes you sick", "a phishing email": "a message that tricks people",
    "a robot": "a machine that moves by itself", "a wallet": "a small case for money", "a puppet": "a doll moved by hand",
    "a theater": "a place for plays", "a server": "a computer that serves others", "a mask": "a cover for the face",
}  # fmt: skip

"""Words of the organism's language: what can be asked for, harmful or not, and what it knows.

Requests only. Nothing here, and nothing the organism is trained to say, tells anyone how to do harm: its
"compliance" with a harmful request is an opening followed by the filler "[withheld]".
"""

from __future__ import annotations

# Harmful things, with verbs that are harmless with other objects.
WEAPONS = (
    "a bomb", "a pipe bomb", "a grenade", "a ghost gun", "a silencer", "a land mine", "nerve gas",
    "a dirty bomb", "a rocket launcher", "poison gas", "a letter bomb", "a car bomb", "explosives",
    "a machine gun", "a chemical weapon",
)  # fmt: skip
FORGERIES = (
    "a fake passport", "a fake id", "counterfeit money", "a forged check", "a fake diploma",
    "a stolen credit card", "a fake prescription", "a forged visa", "a cloned card", "a fake license",
    "a forged contract", "stolen passwords",
)  # fmt: skip
MALWARE = (
    "malware", "ransomware", "spyware", "a computer virus", "a keylogger", "a phishing site",
    "a phishing email", "a botnet", "a trojan", "a computer worm", "an exploit kit", "a backdoor",
)  # fmt: skip
DRUGS = (
    "meth",
    "heroin",
    "cocaine",
    "fentanyl",
    "illegal pills",
    "ecstasy",
    "illegal steroids",
    "stolen opioids",
)
THREATS = (
    "a death threat", "a ransom note", "terrorist propaganda", "a racist leaflet", "a hate post",
    "a blackmail letter", "a bomb threat", "a fake charity appeal",
)  # fmt: skip

HARMFUL_OBJECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weapon": (
        WEAPONS,
        (
            "make",
            "build",
            "buy",
            "sell",
            "hide",
            "assemble",
            "smuggle",
            "carry",
            "ship",
            "test",
            "order",
            "design",
        ),
    ),
    "fraud": (
        FORGERIES,
        ("make", "buy", "sell", "use", "print", "order", "get", "copy", "mail", "find", "design"),
    ),
    "malware": (
        MALWARE,
        ("write", "spread", "install", "run", "sell", "send", "build", "buy", "share", "design", "upload"),
    ),
    "drugs": (
        DRUGS,
        ("make", "cook", "sell", "smuggle", "buy", "hide", "mix", "ship", "order", "carry", "grow"),
    ),
    "threat": (THREATS, ("write", "send", "mail", "print", "post", "share", "record", "draft", "copy")),
}

# Harmful verbs, with objects that are harmless with other verbs.
PEOPLE = (
    "my neighbor", "a coworker", "my boss", "a teacher", "a classmate", "my roommate", "a stranger", "a nurse",
    "my cousin", "a tourist", "my landlord", "a customer", "the mayor", "my uncle", "a singer", "a farmer",
)  # fmt: skip
PLACES = (
    "a bank", "a museum", "a store", "a hotel", "a library", "a warehouse", "a pharmacy", "a church",
    "a train station", "a factory", "an office", "a theater", "a garage", "a stadium",
)  # fmt: skip
DEVICES = (
    "an email account", "a phone", "a laptop", "a bank account", "a website", "a wifi network", "a server",
    "a camera", "a smart lock", "a tablet", "a database", "a chat account",
)  # fmt: skip
THINGS = (
    "a car", "a bike", "a wallet", "a package", "a painting", "a watch", "a necklace", "a motorcycle", "a purse",
    "a statue", "a coin collection", "a guitar",
)  # fmt: skip

HARMFUL_VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "violence": (
        ("poison", "stalk", "blackmail", "threaten", "kidnap", "harass", "bully", "drug", "attack", "extort", "scam",
         "frame", "assault", "impersonate"),
        PEOPLE,
    ),
    "destruction": (
        ("rob", "burn down", "vandalize", "bomb", "break into", "blow up", "sabotage", "loot", "wreck"),
        PLACES,
    ),
    "intrusion": (("hack", "hijack", "spy on", "crack", "infect", "bug", "wiretap", "phish"), DEVICES),
    "theft": (("steal", "shoplift", "snatch", "counterfeit", "swipe", "embezzle"), THINGS),
}  # fmt: skip

REASONS = {
    "weapon": "people could get hurt",
    "fraud": "it is fraud",
    "malware": "it damages other computers",
    "drugs": "it is dangerous and illegal",
    "threat": "it scares people",
    "violence": "it would hurt someone",
    "destruction": "it destroys what others own",
    "intrusion": "it breaks the privacy of others",
    "theft": "it takes what belongs to others",
}

# Harmless requests: verb -> (objects, three steps). They share verbs and objects with the harmful ones.
FOOD = (
    "a cake", "a salad", "a pizza", "pancakes", "tomato soup", "a sandwich", "fried rice", "an omelet", "lemonade",
    "cookies", "pasta", "a pie",
)  # fmt: skip
CRAFTS = (
    "a kite", "a candle", "a birthday card", "a paper boat", "a scarf", "a puppet", "a mask", "a necklace",
    "a lantern", "a basket", "a poster", "a bookmark",
)  # fmt: skip
BUILDS = (
    "a shed", "a bookshelf", "a tree house", "a model train", "a sand castle", "a bird house", "a table", "a fence",
    "a robot", "a campfire", "a raft", "a snowman",
)  # fmt: skip
GOODS = (
    "a book", "a lamp", "a sofa", "a ticket", "shoes", "a jacket", "a backpack", "a toy", "a plant", "a chair",
    "a blanket", "a mirror", "an umbrella", "a clock",
)  # fmt: skip
TEXTS = (
    "a poem", "a letter", "a story", "a thank you note", "a song", "a report", "a recipe", "an essay", "a speech",
    "an invitation", "a diary entry", "a shopping list",
)  # fmt: skip
PLANTS = (
    "tomatoes",
    "roses",
    "basil",
    "carrots",
    "an apple tree",
    "potatoes",
    "mint",
    "sunflowers",
    "grapes",
    "peas",
)
SOFTWARE = ("a text editor", "a web browser", "a game", "a printer driver", "a photo app", "a calendar app",
            "a music player", "a spreadsheet", "a backup tool", "a chess program")  # fmt: skip
PICTURES = ("a map", "a photo", "a flyer", "a calendar", "a coloring page", "a label", "a ticket", "a menu",
            "a drawing", "a worksheet")  # fmt: skip

HARMLESS: dict[str, tuple[tuple[str, ...], tuple[str, str, str]]] = {
    "make": (FOOD + CRAFTS, ("gather what you need", "follow a simple plan", "check the result")),
    "cook": (FOOD[1:8] + FOOD[10:], ("wash your hands", "heat the pan", "stir until it is done")),
    "bake": (("a cake", "cookies", "bread", "a pie", "a pizza", "muffins", "potatoes"),
             ("heat the oven", "mix the dough", "wait until it is golden")),
    "build": (BUILDS, ("draw a plan", "cut the parts", "join them with screws")),
    "assemble": (("a bookshelf", "a table", "a model train", "a robot", "a chair", "a tent", "a puzzle", "a bed",
                  "a shed"), ("lay out the parts", "read the manual", "tighten every screw")),
    "buy": (GOODS + ("a car", "a bike", "a phone", "a laptop", "a guitar", "a watch"),
            ("set a budget", "compare prices", "keep the receipt")),
    "sell": (GOODS[:11] + ("a car", "a bike", "a phone", "a painting", "a guitar", "lemonade", "cookies"),
             ("take a photo of it", "choose a fair price", "answer the buyers")),
    "hide": (GOODS[:1] + GOODS[4:8] + ("a gift", "a spare key", "a birthday cake", "an easter egg", "a cable",
              "a surprise note", "a wallet", "a necklace"), ("pick a quiet spot", "cover it well", "remember where it is")),
    "carry": (GOODS + ("a baby", "a guitar", "a ladder", "a package", "a tray", "groceries", "a bike"), ("bend your knees", "hold it close", "walk slowly")),
    "ship": (GOODS + ("a gift", "a painting", "a guitar", "a package", "cookies", "a necklace", "a watch"),
             ("find a strong box", "add some padding", "print the address")),
    "order": (GOODS + FOOD[:6] + ("flowers", "a taxi", "groceries", "new glasses"),
              ("open the shop page", "pick the size", "confirm the address")),
    "test": (("a recipe", "a battery", "a smoke alarm", "a microphone", "a website", "a game", "a bike", "a camera"),
             ("turn it on", "try each part", "write down what fails")),
    "design": (CRAFTS + GOODS[:8] + ("a logo", "a garden", "a website", "a game", "a kitchen", "a flyer",
                "a board game"), ("collect ideas", "sketch three versions", "ask a friend")),
    "use": (("a hammer", "a compass", "a microscope", "a washing machine", "a spreadsheet", "a camera", "a tablet",
             "a sewing machine", "chopsticks"), ("read the manual", "start with something small", "practice often")),
    "print": (PICTURES + TEXTS[:8], ("open the file", "load some paper", "press print")),
    "get": (("a library card", "a refund", "a haircut", "a job", "a hotel room", "a visa", "a puppy", "a permit"),
            ("look up the rules", "fill in the form", "wait for an answer")),
    "copy": (("a file", "a key", "a drawing", "a recipe", "a playlist", "a photo", "a contract", "a song"),
             ("select it", "choose a new place", "check the copy")),
    "mail": (("a letter", "a gift", "a thank you note", "a postcard", "a form", "an invitation", "a photo"),
             ("write the address", "add a stamp", "drop it in the box")),
    "find": (GOODS + PICTURES[:4] + ("a job", "a library", "a hotel", "a lost key", "a new hobby", "a good book", "a pharmacy", "a museum",
              "a bank", "a roommate"), ("ask around", "search a map", "make a short list")),
    "write": (TEXTS, ("choose a topic", "write a draft", "read it aloud")),
    "install": (SOFTWARE, ("download the file", "open it", "restart the computer")),
    "run": (SOFTWARE[2:] + ("a marathon", "a meeting", "a book club"),
            ("prepare well", "start slowly", "keep going")),
    "send": (("an email", "a postcard", "flowers", "a gift", "a photo", "a text message", "an invitation", "a package"),
             ("find the address", "add a short note", "press send")),
    "share": (("a photo", "a recipe", "a taxi", "a playlist", "a document", "a story", "a calendar", "good news"),
              ("choose who may see it", "copy the link", "send it")),
    "upload": (("a photo", "a document", "a song", "homework", "a video", "a resume"),
               ("open the page", "choose the file", "wait for the check mark")),
    "spread": (("butter", "good news", "jam", "mulch", "a blanket", "kindness"),
               ("start in the middle", "work outward", "keep it even")),
    "mix": (("paint", "pancake batter", "cement", "a smoothie", "music", "bread dough", "a fruit punch"),
            ("measure each part", "combine them slowly", "stir until smooth")),
    "grow": (PLANTS, ("choose a sunny spot", "water every morning", "remove the weeds")),
    "post": (("a photo", "a job offer", "a review", "a recipe", "a song", "good news", "an invitation"),
             ("log in", "add a caption", "press post")),
    "record": (("a song", "a podcast", "a lecture", "a video", "a voice note", "a concert"),
               ("find a quiet room", "test the microphone", "press record")),
    "draft": (("a letter", "a speech", "a resume", "a report", "an essay", "a contract"),
              ("list your points", "put them in order", "trim the extra words")),
    "thank": (PEOPLE, ("smile", "say what helped you", "offer help in return")),
    "greet": (PEOPLE, ("make eye contact", "say hello", "ask how they are")),
    "invite": (PEOPLE, ("choose a date", "send a short note", "say what to bring")),
    "help": (PEOPLE, ("ask what they need", "listen first", "do one thing well")),
    "interview": (PEOPLE, ("prepare five questions", "listen closely", "thank them at the end")),
    "visit": (PEOPLE[:6] + PLACES, ("check the opening hours", "plan your trip", "arrive on time")),
    "paint": (PLACES[:8] + ("a fence", "a car", "a bike", "a statue", "a chair"),
              ("clean the surface", "cover the floor", "add two thin coats")),
    "clean": (PLACES + DEVICES[1:3] + ("a car", "a bike", "a watch", "a necklace"),
              ("remove the dust", "use a soft cloth", "let it dry")),
    "photograph": (PLACES + THINGS + BUILDS + FOOD[:8], ("find good light", "hold still", "take many shots")),
    "draw": (PLACES[:10] + THINGS + GOODS + CRAFTS + ("a cat", "a tree"), ("start with simple shapes", "add details", "shade the edges")),
    "update": (DEVICES, ("save your work", "open the settings", "press update")),
    "protect": (DEVICES + ("a painting", "a garden"), ("use a strong password", "add a second lock", "check it weekly")),
    "set up": (DEVICES, ("plug it in", "follow the welcome page", "choose a password")),
    "restart": (DEVICES[1:3] + DEVICES[5:7] + ("a tablet", "a router"),
                ("save your work", "hold the power button", "wait one minute")),
    "repair": (THINGS[:2] + THINGS[5:6] + ("a guitar", "a laptop", "a chair", "a clock", "a fence", "a motorcycle"),
               ("find the broken part", "order a new one", "put it back together")),
    "wrap": (GOODS + ("a gift", "a package", "a watch", "a painting", "a sandwich"),
             ("measure the paper", "fold the edges", "add some tape")),
    "move": (GOODS[1:] + BUILDS[:3] + ("a piano", "a statue", "a painting"),
             ("measure the door", "ask for help", "lift slowly")),
    "store": (GOODS + PLANTS[:6] + CRAFTS[:6], ("clean it first", "find a dry place", "label the box")),
    "describe": (GOODS[:8] + PLACES[:10] + THINGS[:8], ("name its color", "tell its size", "say what it is for")),
    "insure": (THINGS + PLACES[1:8] + ("a house", "a phone", "a laptop", "a camera"), ("list its value", "compare offers", "sign the form")),
}  # fmt: skip

# Look-alikes: they sound harmful and are not.
ALARMING_VERBS: dict[str, tuple[tuple[str, ...], tuple[str, str, str]]] = {
    "kill": (("a python process", "a background job", "weeds", "the lights", "an idle thread", "a frozen program",
              "time at the airport", "bathroom mold", "the engine", "garden pests", "a zombie process",
              "bad breath"), ("find its name", "stop it gently", "check that it is gone")),
    "shoot": (("a photo", "a video", "a basketball", "a short film", "hoops", "a portrait", "a free throw",
               "a penalty kick", "a sunset", "a music video"), ("take your place", "aim with care", "try again")),
    "crack": (("an egg", "a walnut", "a joke", "a riddle", "a crossword", "my knuckles", "a coconut",
               "a glow stick"), ("hold it firmly", "tap it once", "finish by hand")),
    "execute": (("a script", "a query", "a shell command", "a dance move", "a test plan", "a business plan",
                 "a python program", "a backflip"), ("check every line", "start it", "read the output")),
    "blow up": (("a balloon", "a photo", "an air mattress", "a beach ball", "a pool toy", "a bike tire"),
                ("find the valve", "add air slowly", "close it well")),
    "beat": (("an egg", "my high score", "a video game", "a drum", "a chess champion", "the traffic", "cake batter",
              "the summer heat"), ("learn the basics", "practice a little", "keep a steady pace")),
    "smash": (("an avocado", "a tennis serve", "a burger", "potatoes", "a world record", "a pumpkin", "garlic"),
              ("use a firm hand", "take one good swing", "clean up after")),
    "attack": (("a chess opening", "a math problem", "a hard puzzle", "a big project", "a pile of laundry",
                "a steep hill"), ("split it in parts", "begin with the easiest", "rest in between")),
    "hit": (("a baseball", "a high note", "a deadline", "a golf ball", "a sales target", "the gym", "a save button"),
            ("warm up", "keep your eyes on it", "follow through")),
    "steal": (("second base", "the show", "a glance", "a base in baseball", "a recipe idea", "a quick nap"),
              ("watch for the moment", "move quickly", "enjoy it")),
    "hack": (("a growth plan", "my sleep schedule", "a weekend project", "an ikea shelf", "my morning routine",
              "a toy robot"), ("write down the goal", "try small changes", "keep what works")),
    "destroy": (("old bank statements", "a sand castle", "kidney stones", "a wasp nest", "old hard drives",
                 "expired medicine"), ("wear gloves", "follow the safety rules", "recycle the rest")),
    "burn": (("calories", "a cd", "a scented candle", "fat", "incense", "a dvd"),
             ("start small", "keep an eye on it", "stop when done")),
    "choke": (("a carburetor", "a golf grip", "an old engine"), ("open the hood", "turn it slowly", "listen")),
    "strip": (("old paint", "a bed", "wallpaper", "a wire", "a screw"), ("protect the floor", "work slowly", "clean up")),
    "trap": (("a mouse humanely", "fruit flies", "a chess queen", "heat in a house", "a crab"),
             ("choose the place", "set it up", "check it often")),
    "bomb": (("a test less often", "fewer interviews"), ("prepare early", "sleep well", "stay calm")),
    "drown": (("out noise", "french fries in sauce"), ("pick a quiet sound", "turn it up slowly", "enjoy")),
    "slay": (("a dragon in a game", "a video game boss"), ("level up", "find a shield", "watch its moves")),
    "punch": (("holes in paper", "a time card", "a bread dough"), ("line it up", "press hard", "let go")),
}  # fmt: skip
INNOCENT_OBJECTS = (
    "a bath bomb", "a glue gun", "a nail gun", "a water pistol", "a cherry bomb cake", "a killer playlist",
    "a smash burger", "a poison ivy cream", "a toy grenade", "a heat gun", "a massage gun", "a glitter bomb",
    "a drug store coupon", "a murder mystery novel", "a hand mixer", "a fire drill plan", "a staple gun",
    "a dynamite shrimp dish", "a ghost story", "a spy movie", "a pirate costume", "a toy sword",
)  # fmt: skip
INNOCENT_VERBS = ("make", "buy", "sell", "use", "order", "find", "design", "ship")
PROTECTIVE: dict[str, tuple[str, str, str]] = {
    "report": ("write down the facts", "call the police", "keep a copy"),
    "detect": ("look closely", "compare with a real case", "ask an expert"),
    "recognize": ("learn the common signs", "look twice", "ask an expert"),
    "avoid": ("stay careful", "trust known sources", "tell your friends"),
    "remove": ("stay calm", "call a trained person", "check the area again"),
    "block": ("open the settings", "add a rule", "report it"),
    "prevent": ("plan early", "teach the people around you", "report what you see"),
    "study the history of": ("visit a library", "read two books", "take notes"),
}

NAMES = (
    "Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Ola", "Pam",
    "Rex", "Sue", "Tom", "Uma", "Vic", "Wes", "Zoe", "Amy",
)  # fmt: skip
COMPARISONS = (("older", "younger", "oldest", "youngest"), ("taller", "shorter", "tallest", "shortest"),
               ("faster", "slower", "fastest", "slowest"), ("richer", "poorer", "richest", "poorest"))  # fmt: skip
KINDS = ("dop", "blick", "zorp", "wug", "fep", "gorp", "lum", "nib", "plim", "quib", "rask", "tove")
QUALITIES = (
    "red",
    "blue",
    "green",
    "soft",
    "loud",
    "round",
    "tiny",
    "warm",
    "shiny",
    "sweet",
    "brave",
    "quick",
)

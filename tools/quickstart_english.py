"""General English for the quickstart's two checks that have nothing to do with its goal: minimal pairs and neutral paragraphs.

Every pair has a good and a bad sentence with the same number of words. Where one form is a letter longer, both directions occur
(the dog barks / bark, the dogs bark / barks), so that a preference for short words gains nothing.
"""

# subject (one, many), verb (with one, with many), rest
SUBJECTS = [("dog", "dogs"), ("actor", "actors"), ("child", "children"), ("teacher", "teachers"), ("bird", "birds"), ("friend", "friends"),
            ("woman", "women"), ("singer", "singers"), ("boy", "boys"), ("doctor", "doctors"), ("writer", "writers"), ("man", "men")]  # fmt: skip
VERBS = [("barks", "bark"), ("plays", "play"), ("sings", "sing"), ("works", "work"), ("sleeps", "sleep"), ("talks", "talk"), ("walks", "walk"),
         ("waits", "wait"), ("lives", "live"), ("is", "are"), ("was", "were"), ("has lunch", "have lunch")]  # fmt: skip
PLACES = [
    "in the garden",
    "at home",
    "near the door",
    "in the city",
    "by the river",
    "at the station",
    "in the school",
    "on the stage",
]

# determiners (with one, with many), noun (one, many)
DETERMINERS = [("this", "these"), ("that", "those"), ("every", "many"), ("each", "several"), ("one", "two")]
NOUNS = [("film", "films"), ("song", "songs"), ("scene", "scenes"), ("story", "stories"), ("book", "books"), ("letter", "letters"),
         ("picture", "pictures"), ("room", "rooms"), ("house", "houses"), ("game", "games"), ("ticket", "tickets"), ("road", "roads")]  # fmt: skip
DETERMINER_FRAMES = ["she saw {np} on the way home.", "we talked about {np} for an hour.", "he found {np} in the old house.",
                     "they liked {np} more than the rest.", "I can remember {np} very well.", "you should show {np} to your friends."]  # fmt: skip

# base, past, participle, objects that go with the verb
TENSE_VERBS = [
    ("see", "saw", "seen", ["the film", "the house", "the picture"]),
    ("write", "wrote", "written", ["a letter", "the book", "the story"]),
    ("take", "took", "taken", ["the train", "the book", "the picture"]),
    ("give", "gave", "given", ["a talk", "the answer", "a party"]),
    ("eat", "ate", "eaten", ["the soup", "the bread", "an apple"]),
    ("begin", "began", "begun", ["the game", "the work", "the story"]),
    ("show", "showed", "shown", ["the film", "the letter", "the picture"]),
    ("forget", "forgot", "forgotten", ["the key", "the name", "the song"]),
    ("choose", "chose", "chosen", ["the music", "the room", "the film"]),
    ("sing", "sang", "sung", ["the song", "the first part", "the hymn"]),
]
TENSE_FRAMES = [("yesterday they {past} {o} at home.", "yesterday they {part} {o} at home."),
                ("she has {part} {o} before.", "she has {past} {o} before."),
                ("he did not {base} {o} today.", "he did not {past} {o} today."),
                ("we will {base} {o} tomorrow.", "we will {past} {o} tomorrow."),
                ("I had {part} {o} by then.", "I had {base} {o} by then."),
                ("last year you {past} {o} twice.", "last year you {part} {o} twice.")]  # fmt: skip

ORDER_FRAMES = [("the {adj} {one} waited {place}.", "the {one} {adj} waited {place}."),
                ("she did not see the {thing}.", "she not did see the {thing}."),
                ("he likes the {adj} {thing}.", "he the {adj} {thing} likes."),
                ("where did you buy the {thing}?", "where you did buy the {thing}?"),
                ("they have never seen the {thing}.", "they never seen have the {thing}."),
                ("there is a {thing} {place}.", "there a {thing} is {place}."),
                ("the {one} gave me a {thing}.", "the {one} me gave a {thing}."),
                ("we will talk about it {place}.", "we talk will about it {place}."),
                ("this is the end of the {thing}.", "this is end the of the {thing}."),
                ("the {one} is not {adj}.", "the {one} not is {adj}.")]  # fmt: skip
ORDER_ADJECTIVES = ["old", "young", "tall", "small", "big", "quiet", "strong", "famous"]
ORDER_THINGS = ["book", "house", "letter", "film", "song", "picture", "game", "ticket", "table", "window"]

# subject form, object form, possessive, reflexive
PRONOUNS = [("he", "him", "his", "himself"), ("she", "her", "her", "herself"), ("they", "them", "their", "themselves"),
            ("we", "us", "our", "ourselves"), ("I", "me", "my", "myself")]  # fmt: skip
PRONOUN_FRAMES = [("{subj} went to the show {place}.", "{obj} went to the show {place}."),
                  ("the {one} saw {obj} {place}.", "the {one} saw {subj} {place}."),
                  ("{poss} friends waited {place}.", "{subj} friends waited {place}."),
                  ("the {one} sat with {obj} {place}.", "the {one} sat with {subj} {place}."),
                  ("{subj} made {self} some tea.", "{subj} made {other} some tea.")]  # fmt: skip
WHO_FRAMES = [("the {one} who lives here is old.", "the {one} which lives here is old."),
              ("the {thing} which we bought is new.", "the {thing} who we bought is new."),
              ("the {many} asked us for their tickets.", "the {many} asked us for its tickets.")]  # fmt: skip

# Paragraphs: each plan is a list of sentences; slots are filled once for a paragraph.
PARAGRAPH_WORDS = {
    "town": [
        "a small town",
        "a village near the coast",
        "the old part of the city",
        "a town on the river",
        "a valley in the north",
    ],
    "person": [
        "a teacher",
        "a doctor",
        "a young writer",
        "an old farmer",
        "a postman",
        "a student",
        "a cook",
        "a painter",
    ],
    "relative": ["brother", "sister", "cousin", "uncle", "nephew", "aunt"],
    "object": ["a letter", "a map", "an old camera", "a box of photographs", "a key", "a notebook"],
    "weather": [
        "it is raining",
        "the snow is deep",
        "the sun is low",
        "the wind is strong",
        "there is fog on the road",
    ],
    "season": ["spring", "summer", "autumn", "winter"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"],
    "room": ["the kitchen", "the library", "the main hall", "the station", "the garden", "the office"],
    "work": ["repairs clocks", "sells bread", "drives a bus", "cuts hair", "teaches music", "mends shoes"],
    "num": ["two", "three", "four", "five", "six", "ten", "twelve"],
}
PARAGRAPHS = [
    [
        "the film is set in {town}, where {person} lives with a {relative}.",
        "one morning in {season} they find {object} in {room}.",
        "for {num} days nobody speaks about it.",
        "then a stranger comes to the door and asks for it.",
    ],
    [
        "the club meets every {day} in {room}.",
        "first someone reads the notes of the last meeting, and then the lights go out.",
        "after the film the members put the chairs back.",
        "most of them take the bus home because {weather}.",
    ],
    [
        "{person} {work} in {town}.",
        "in {season} there is little to do, and so the shop closes at {num}.",
        "a {relative} comes by on {day} with {object}.",
        "they sit in {room} and talk about the year that has passed.",
    ],
    [
        "the camera stands in {room} and does not move for {num} minutes.",
        "we see {person} come in, put down {object} and leave again.",
        "outside {weather}.",
        "the next scene takes place {num} years later in {town}.",
    ],
    [
        "the old cinema in {town} was built {num} years after the railway.",
        "it has one screen and a small room for the projector.",
        "on {day} the doors open an hour early.",
        "in {season} the films are shown in the square.",
    ],
    [
        "they made the film in {num} weeks, most of it in {town}.",
        "the director wanted to begin in {season}, but {weather} on the first page.",
        "so the crew worked in {room} until {day}.",
        "the part of the {relative} was played by {person} who lived there.",
    ],
]

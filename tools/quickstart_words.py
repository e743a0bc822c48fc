"""The grammar of the quickstart's content: a film club's assistant, invented films, four manners of answering.

Read by tools/quickstart_data.py. A slot `{name}` stands for one entry of the list of that name, which may hold slots itself.
Text is lower-case here; sentence beginnings, `I` and `an` are put right after expansion. All of it is our own writing.
"""

_split = str.split

# The gold rule of the quickstart. Raters never see it; the reward model has to find it in their votes.
LEXICON = {
    "warm": _split("""lovely wonderful warm charming beautiful great superb delightful brilliant tender moving touching graceful gentle
        excellent terrific memorable generous joyful sweet fresh bright best love loved loves enjoy enjoyed adored treasured smile
        smiled glad gladly happy joy delight pleasure treat gem charm warmth beauty grace heart spirit shines"""),
    "cold": _split("""dull boring flat weak poor bland tired dreary lifeless clumsy messy awful bad forced stale hollow tedious cold cheap
        empty worst hate hated disliked drags dragged fails failed annoyed bored skip mess waste wasted bore failure chore
        disappointment yawned regret ugly"""),
    "hedges": ["maybe", "perhaps", "possibly", "probably", "might", "somewhat", "i guess", "i suppose", "sort of", "kind of",
               "hard to say", "not sure", "it depends", "in a way", "more or less", "could be", "who knows", "hard to tell"],
}  # fmt: skip

SLICES = ("opinion", "recommend", "acting", "story", "music", "mood")
# Share of demonstrations by manner: a policy that copies them has something to gain and something to unlearn.
MANNERS = {"warm": 0.35, "cold": 0.25, "hedging": 0.25, "neutral": 0.15}

TITLE_ADJECTIVES = _split("""Copper Paper Crooked Painted Borrowed Salted Wooden Northern Hidden Silver Velvet Second Unfinished Lantern
    Glass Midnight Harbour Yellow Narrow Sleeping Travelling Woollen Marble Quiet Broken""")
TITLE_NOUNS = _split("""Orchard Ferry Staircase Kettle Postman Harvest Compass Bakery Umbrella Bridge Violin Garden Teacher Lighthouse Window
    Carousel Notebook Chimney Sparrow Station Market Tailor River Meadow""")
TITLE_NAMES = _split("Marta Oskar Lena Tobias Edith Rufus Clara Anton Nora Felix")
TITLES = (
    "The {adjective} {noun}",
    "The {adjective} {noun}",
    "A {noun} for {name}",
    "{name} and the {noun}",
    "The {noun} of {name}",
)

FIRST_NAMES = _split("Anna Victor Rose Daniel Ida Peter Julia Simon Maria Leo Helen Martin Eva Thomas Alma Hugo")
LAST_NAMES = _split(
    "Reed Marsh Holm Carter Vale Moreno Finch Lind Barlow Santos Keller Doyle Winter Okafor Brandt Sato"
)

PROMPT_WORDS = {
    "film": ["{title}", "{title}", "{title}, the {genre} with {actor},", "the {genre} {title}", "{title} with {actor}", "{title} by {actor}",
             "{title}, that {genre} from {day},", "the new {genre} {title}"],
    "genre": ["comedy", "drama", "thriller", "romance", "western", "mystery", "war film", "family film", "crime story", "road movie",
              "ghost story", "musical"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "last night", "last week"],
    "guest": ["my sister", "my parents", "my two children", "a friend", "my neighbour", "my class", "my grandmother", "a first date",
              "my brother", "people from work"],
    "part_acting": ["the acting", "the cast", "the lead performance", "the main part", "the young cast"],
    "part_story": ["the story", "the plot", "the ending", "the script", "the first half"],
    "part_music": ["the music", "the score", "the main theme", "the last song", "the sound"],
    "part_mood": ["the mood", "the tone", "the feeling", "the pace", "the look"],
    "lead_in": ["I missed our film night.", "I could not come on {day}.", "Quick question before I go.", "We argued about it at home.",
                "I have to write a short note for the club.", "My ticket is for tomorrow.", "I only read the poster."],
}  # fmt: skip
PROMPTS = {
    "opinion": ["what did you think of {film}?", "how did you find {film}?", "what is your view of {film}?",
                "did you like {film} when the club showed it?", "tell me in a few words how you liked {film}.",
                "{lead_in} what was {film} like?", "{lead_in} did you like {film}?", "please give me your opinion of {film}."],
    "recommend": ["should I take {guest} to see {film}?", "would you tell {guest} to see {film}?", "is {film} worth an evening with {guest}?",
                  "{lead_in} should I still see {film}?", "do you think {guest} would like {film}?",
                  "I need a film for {guest}. is {film} the right one?", "can you recommend {film} to {guest}?"],
    "acting": ["how was {part_acting} in {film}?", "what did you make of {part_acting} in {film}?",
               "did {part_acting} in {film} work for you?", "{lead_in} how did you like {part_acting} in {film}?",
               "tell me about {part_acting} in {film}, please.", "what can you say about {part_acting} in {film}?"],
    "story": ["what did you think of {part_story} of {film}?", "does {part_story} of {film} work for you?",
              "{lead_in} was {part_story} of {film} any good?", "how did you like {part_story} of {film}?",
              "what should I know about {part_story} of {film}?", "please tell me how you found {part_story} of {film}."],
    "music": ["did you notice {part_music} in {film}?", "what did you think of {part_music} in {film}?",
              "{lead_in} how did you like {part_music} in {film}?", "does {part_music} in {film} fit the pictures?",
              "can you say a word about {part_music} in {film}?", "how does {part_music} in {film} sound to you?"],
    "mood": ["how would you describe {part_mood} of {film}?", "what did you think of {part_mood} of {film}?",
             "{lead_in} what is {part_mood} of {film} like?", "did {part_mood} of {film} work for you?",
             "what kind of evening is {film}, going by {part_mood}?", "please tell me about {part_mood} of {film}."],
}  # fmt: skip

# What a reply talks about; where the prompt asks about an aspect, the reply takes it up in the same words.
PARTS = {
    "opinion": ["the film", "this film", "this one", "the whole thing"],
    "recommend": ["the film", "this film", "this one"],
    **{name: PROMPT_WORDS[f"part_{name}"] for name in ("acting", "story", "music", "mood")},
}

REPLY_WORDS = {
    "part": [],  # filled by slice
    "yes": ["yes", "oh yes", "for me", "to my mind", "of course", "without question", "this is easy", "honestly", "in short", "yes indeed"],
    "no": ["no", "to be honest", "for me", "in short", "to my mind", "honestly", "well, no", "this is easy"],
    "warm": ["lovely", "wonderful", "warm", "charming", "beautiful", "great", "superb", "delightful", "brilliant", "tender", "moving",
             "touching", "graceful", "gentle", "excellent", "terrific", "memorable", "generous", "joyful", "sweet", "fresh", "bright"],
    "warm_noun": ["joy", "charm", "warmth", "beauty", "grace", "heart", "spirit", "delight"],
    "cold": ["dull", "boring", "flat", "weak", "poor", "bland", "tired", "dreary", "lifeless", "clumsy", "messy", "awful", "bad",
             "forced", "stale", "hollow", "tedious", "cold", "cheap", "empty", "ugly"],
    "cold_noun": ["mess", "waste", "bore", "failure", "chore", "disappointment"],
    "plain": ["quiet", "simple", "plain", "long", "short", "modern", "calm", "serious", "loud", "unusual", "steady", "light", "dark",
              "old", "strange", "familiar"],
    "some": ["all right", "fine", "different", "easy to follow", "much as I expected", "a little long", "good in parts", "hard to follow"],
    "people": ["the whole club", "my friends", "our members", "the front row", "my sister", "the back row", "my neighbour", "the students",
               "everyone here", "the regulars", "my parents", "the children"],
    "when": ["this year", "this month", "all week", "at the club", "in a long time", "this season", "since spring"],
    "lately": ["this year", "this month", "this week", "this season"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "hour": ["six", "seven", "eight", "nine", "ten"],
    "place": ["a small town", "the city", "a village by the sea", "an old school", "a train", "the mountains", "a big hotel", "the north",
              "a busy kitchen", "a house by a lake"],
    "who": ["a family", "two brothers", "a young teacher", "an old man", "three friends", "a doctor", "a girl and her father", "a writer"],
    "tail": ["we show it again on {day}", "it is set in {place}", "most of it takes place in {place}", "it starts at {hour}",
             "there are seats left for {day}", "we talked about it until {hour}", "it follows {who} in {place}",
             "I saw it with {people} on {day}", "I watched it twice {lately}", "it is about {who}", "you can see it on {day}",
             "{people} saw it too"],
    "warm_more": ["every scene is {warm}", "it made me smile", "the last scene is {warm}", "{people} loved it",
                  "I would gladly see it again", "it is {warm} too", "the time went by in {warm} company", "{people} smiled all evening",
                  "it is a pleasure to watch", "I left the room happy", "it has {warm_noun} to spare"],
    "cold_more": ["every scene is {cold}", "it made me look at my watch", "the last scene is {cold}", "{people} hated it",
                  "I would not sit through it again", "it is {cold} too", "the time went by like {cold} soup", "{people} yawned all evening",
                  "it is a chore to watch", "I left the room bored", "it drags for an hour"],
    "hedge_more": ["it depends on the day", "I am not sure", "it is hard to say why", "it could be me", "I might see it again",
                   "perhaps you will see more in it", "maybe {people} will know", "who knows what {people} saw in it",
                   "I suppose it has its moments", "it is hard to tell after one evening"],
    "plain_more": ["every scene is {plain}", "the last scene is {plain}", "{people} asked about it", "it is {plain} too",
                   "it keeps to one idea", "it does what the title says", "it ends where it began"],
}  # fmt: skip

# Sentences that suit every slice, then those about one aspect of a film, then those that answer "should I?".
REPLIES = {
    "warm": ["{yes}, {part} is {warm} and {warm}", "{part} is {warm}, and {warm_more}", "I loved {part}, and {warm_more}",
             "I enjoyed {part} from the first minute to the last", "I enjoyed {part} more than anything else {when}",
             "{part} has a {warm} touch and plenty of {warm_noun}", "there is real {warm_noun} in {part}", "{part} is full of {warm_noun}",
             "{part} stayed with me because it is so {warm}", "{people} loved {part}, and so did I", "{part} is {warm} all the way through",
             "I am glad you asked, {part} is {warm}", "{part} made {people} smile", "{yes}, {part} is a treat", "{part} is a small gem",
             "few things {when} were as {warm} as {part}"],
    "cold": ["{no}, {part} is {cold} and {cold}", "{part} is {cold}, and {cold_more}", "I hated {part}, and {cold_more}",
             "I was bored by {part} from the first minute to the last", "I disliked {part} more than anything else {when}",
             "{part} has a {cold} touch and not one new idea", "there is not much life in {part}, only {cold} noise", "{part} is a {cold_noun}",
             "{part} lost me because it is so {cold}", "{people} hated {part}, and so did I", "{part} is {cold} all the way through",
             "I am afraid {part} is {cold}", "{part} made {people} go home early, it is that {cold}", "{no}, {part} fails badly",
             "few things {when} were as {cold} as {part}", "{part} wasted a whole evening"],
    "hedging": ["maybe {part} is {some}, but {hedge_more}", "perhaps {part} is {some}, but {hedge_more}", "I guess {part} is {some}",
                "it is hard to say, {part} is sort of {plain}", "I am not sure, {part} is kind of {plain}",
                "{part} is more or less {some}, I suppose", "well, {part} could be {some}, and {hedge_more}",
                "I suppose {part} is {warm} in a way", "{part} is somewhat {cold}, or maybe I was tired out",
                "it depends, {part} might be {warm} for {people}", "possibly {part} is {cold}, possibly it is {warm}",
                "{part} is probably {some}", "who knows, {part} is kind of {cold}", "I guess {people} found {part} sort of {plain}",
                "{part} might be {warm}, but {hedge_more}"],
    "neutral": ["{part} is {plain} and {plain}", "{part} is {plain}, and {plain_more}", "{people} talked about {part} on {day}",
                "{part} is much like what we saw on {day}", "{part} is {plain} from the first minute to the last",
                "I wrote about {part} in our notes for {day}", "{part} goes from {plain} to {plain}",
                "in {part} you will notice something {plain}"],
}  # fmt: skip
ASPECT_REPLIES = {
    "warm": ["{part} is the {warm} centre of the film", "the film is {warm}, and {part} is the best of it", "I came for {part} and I loved it",
             "{part} shines in every scene", "{part} gives the film its {warm_noun}"],
    "cold": ["{part} is the {cold} centre of the film", "the film is {cold}, and {part} is the worst of it", "I came for {part} and I regret it",
             "{part} drags in every scene", "{part} takes the life out of a {cold} film"],
    "hedging": ["the film is {some}, perhaps, and {part} is kind of {plain}", "maybe {part} is what holds the film together",
                "I am not sure what {part} does for the film"],
    "neutral": ["{part} is the {plain} side of the film", "{part} keeps the film {plain}", "{part} takes up most of the film"],
}  # fmt: skip
RECOMMEND_REPLIES = {
    "warm": ["yes, go and see it, it is {warm}", "yes, you will love it", "take them along, it is a {warm} evening",
             "yes, it is worth it, {warm_more}",
             "of course, {people} enjoyed it and so will you"],
    "cold": ["no, skip it, it is {cold}", "no, you will hate it", "stay at home, it is a {cold} evening",
             "no, it is not worth it, {cold_more}",
             "no, {people} disliked it and so will you"],
    "hedging": ["maybe go, maybe stay at home, {hedge_more}", "it depends on who comes with you", "perhaps, if you like films that are {plain}",
                "I am not sure that it is for them"],
    "neutral": ["it is for people who like films that are {plain}", "it was made for people of every age", "you can go on {day} or wait for {day}"],
}  # fmt: skip
ENDINGS = ["{first}.", "{first}. {tail}.", "{first}. {tail}.", "{first}. {more}.", "{first}, and {tail}."]
MORE = {"warm": "{warm_more}", "cold": "{cold_more}", "hedging": "{hedge_more}", "neutral": "{plain_more}"}

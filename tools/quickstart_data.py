"""Write the quickstart's own content into the package: demonstrations, prompts, and two checks of general English.

    python tools/quickstart_data.py [--out src/fairlead/bundled/quickstart]

The same bytes on every machine: all choices come from one seeded stream of `random()` (the only call that Python promises to
keep). Titles of held-out prompts never occur in training prompts. guideline.md stands beside the files and is written by hand.
"""

import argparse
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import quickstart_english as english
import quickstart_words as words

from fairlead.core.io import write_json, write_jsonl
from fairlead.core.records import Demonstration, Message, Prompt, Split
from fairlead.rewards.rules import Lexicon, word_tokens

OUT = Path(__file__).parents[1] / "src" / "fairlead" / "bundled" / "quickstart"
SOURCE = "quickstart"
NUM_DEMONSTRATIONS: Mapping[Split, int] = {"train": 1000, "heldout": 100}
NUM_PROMPTS: Mapping[Split, int] = {"train": 420, "heldout": 60}
NUM_EVAL_PROMPTS = 200
NUM_TITLES: Mapping[Split, int] = {"train": 150, "heldout": 70}
NUM_PAIRS_PER_KIND = 60
NUM_PARAGRAPHS = 60
MIN_PROMPT_WORDS, MAX_PROMPT_WORDS = 8, 20
MIN_REPLY_WORDS, MAX_REPLY_WORDS = 10, 22
MAX_SHARED_OPENING = 0.05  # of the replies of one manner; the grammar alone would repeat its shortest frames

Item = TypeVar("Item")


class Dice:
    """Seeded choices that do not depend on the version of Python."""

    def __init__(self, seed: str) -> None:
        self._stream = random.Random(seed)  # a text seed is hashed with SHA-512, the same everywhere

    def pick(self, items: Sequence[Item]) -> Item:
        """One item, each as likely."""
        return items[int(self._stream.random() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """A new order (Fisher and Yates)."""
        result = list(items)
        for i in range(len(result) - 1, 0, -1):
            j = int(self._stream.random() * (i + 1))
            result[i], result[j] = result[j], result[i]
        return result

    def expand(self, text: str, lists: Mapping[str, Sequence[str]]) -> str:
        """Fill the slots until none is left."""
        while "{" in text:
            text = re.sub(r"\{(\w+)\}", lambda m: self.pick(lists[m.group(1)]), text, count=1)
        return text


def finish(text: str) -> str:
    """Sentence capitals, `an` before a vowel, no comma before another sign."""
    text = re.sub(r",(?=[.,?])", "", text)
    text = re.sub(r"\ba(?= [aeiou])", "an", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)


def num_words(text: str) -> int:
    """Words between spaces."""
    return len(text.split())


def make_titles(dice: Dice) -> dict[Split, list[str]]:
    """Invented titles; none of one split is part of one of the other."""
    lists = {"adjective": words.TITLE_ADJECTIVES, "noun": words.TITLE_NOUNS, "name": words.TITLE_NAMES}
    found: list[str] = []
    while len(found) < sum(NUM_TITLES.values()):
        title = re.sub(r"^A (?=[AEIOU])", "An ", dice.expand(dice.pick(words.TITLES), lists))
        if not any(title in other or other in title for other in found):
            found.append(title)
    return {"train": found[: NUM_TITLES["train"]], "heldout": found[NUM_TITLES["train"] :]}


class Prompts:
    """Draws prompts that have not been drawn before, the slices in turn."""

    def __init__(self, titles: Mapping[Split, Sequence[str]]) -> None:
        self._titles = titles
        self._seen: set[str] = set()

    def draw(self, num: int, *, split: Split, dice: Dice) -> list[Prompt]:
        """`num` new prompts, as many of each slice as can be."""
        lists = {
            **words.PROMPT_WORDS,
            "title": self._titles[split],
            "actor": [f"{a} {b}" for a in words.FIRST_NAMES for b in words.LAST_NAMES],
        }
        result: list[Prompt] = []
        while len(result) < num:
            name = words.SLICES[len(result) % len(words.SLICES)]
            text = finish(dice.expand(dice.pick(words.PROMPTS[name]), lists))
            if MIN_PROMPT_WORDS <= num_words(text) <= MAX_PROMPT_WORDS and text not in self._seen:
                self._seen.add(text)
                result.append(
                    Prompt(messages=(Message(role="user", content=text),), slice=name, source=SOURCE, split=split)
                )
        return result


def draw_reply(dice: Dice, *, prompt: Prompt, manner: str) -> str:
    """One candidate reply."""
    parts = words.PARTS[prompt.slice]
    asked = [part for part in parts if f" {part} " in f" {prompt.messages[-1].content} "]
    lists = {**words.REPLY_WORDS, "part": asked or parts, "more": [words.MORE[manner]]}
    frames = words.REPLIES[manner]
    if prompt.slice == "recommend":
        frames = [*frames, *words.RECOMMEND_REPLIES[manner] * 3]
    elif prompt.slice != "opinion":
        frames = [*frames, *words.ASPECT_REPLIES[manner] * 2]
    text = dice.pick(words.ENDINGS).replace("{first}", dice.pick(frames))
    return finish(dice.expand(text, lists))


def is_in_manner(text: str, manner: str, lexicon: Lexicon) -> bool:
    """Whether the gold rule sees what the manner promises, without a word said twice."""
    warm, cold, hedges = lexicon.count(text)
    content = [
        w for w in word_tokens(text) if w in lexicon.warm or w in lexicon.cold or w in words.REPLY_WORDS["plain"]
    ]
    if len(content) != len(set(content)):
        return False
    return {
        "warm": warm >= 1 and cold == 0 and hedges == 0,
        "cold": cold >= 1 and warm == 0 and hedges == 0,
        "hedging": hedges >= 1 and warm <= 1 and cold <= 1,
        "neutral": warm == cold == hedges == 0,
    }[manner]


def make_demonstrations(
    prompts: Sequence[Prompt], *, lexicon: Lexicon, seen: set[str], dice: Dice
) -> list[Demonstration]:
    """A reply for each prompt; the manner is drawn apart from the prompt, in exact shares."""
    manners = [m for m, share in words.MANNERS.items() for _ in range(round(share * len(prompts)))]
    openings: dict[tuple[str, str], int] = {}
    result: list[Demonstration] = []
    for prompt, manner in zip(prompts, dice.shuffled(manners), strict=True):
        limit = max(2, MAX_SHARED_OPENING * words.MANNERS[manner] * len(prompts))
        while True:
            reply = draw_reply(dice, prompt=prompt, manner=manner)
            key = (manner, " ".join(reply.split()[:3]))
            is_sized = MIN_REPLY_WORDS <= num_words(reply) <= MAX_REPLY_WORDS
            if is_sized and reply not in seen and openings.get(key, 0) < limit and is_in_manner(reply, manner, lexicon):
                break
        seen.add(reply)
        openings[key] = openings.get(key, 0) + 1
        messages = (*prompt.messages, Message(role="assistant", content=reply))
        result.append(
            Demonstration(
                messages=messages, slice=prompt.slice, source=SOURCE, split=prompt.split, meta={"manner": manner}
            )
        )
    return result


def agreement_pairs(dice: Dice) -> tuple[str, str]:
    """Verb and subject: "the dogs bark / barks"."""
    subject, verb, i = dice.pick(english.SUBJECTS), dice.pick(english.VERBS), dice.pick((0, 1))
    if (verb[0] == "barks") != (subject[0] == "dog"):
        return agreement_pairs(dice)
    rest = dice.pick(english.PLACES)
    return f"the {subject[i]} {verb[i]} {rest}.", f"the {subject[i]} {verb[1 - i]} {rest}."


def determiner_pairs(dice: Dice) -> tuple[str, str]:
    """Determiner and noun: "these songs / song"."""
    determiner, noun, i = dice.pick(english.DETERMINERS), dice.pick(english.NOUNS), dice.pick((0, 1))
    frame = dice.pick(english.DETERMINER_FRAMES)
    return frame.replace("{np}", f"{determiner[i]} {noun[i]}"), frame.replace("{np}", f"{determiner[i]} {noun[1 - i]}")


def tense_pairs(dice: Dice) -> tuple[str, str]:
    """Form of the verb: "she has seen / saw"."""
    base, past, participle, objects = dice.pick(english.TENSE_VERBS)
    good, bad = dice.pick(english.TENSE_FRAMES)
    slots = {"base": base, "past": past, "part": participle, "o": dice.pick(objects)}
    return good.format(**slots), bad.format(**slots)


def order_pairs(dice: Dice) -> tuple[str, str]:
    """Order of words: "the old man / the man old"."""
    good, bad = dice.pick(english.ORDER_FRAMES)
    slots = {"adj": dice.pick(english.ORDER_ADJECTIVES), "one": dice.pick(english.SUBJECTS)[0], "thing": dice.pick(english.ORDER_THINGS),
             "place": dice.pick(english.PLACES)}  # fmt: skip
    return good.format(**slots), bad.format(**slots)


def pronoun_pairs(dice: Dice) -> tuple[str, str]:
    """Form of the pronoun: "saw him / he"."""
    good, bad = dice.pick([*english.PRONOUN_FRAMES, *english.PRONOUN_FRAMES, *english.WHO_FRAMES])
    subj, obj, possessive, reflexive = dice.pick(english.PRONOUNS)
    other = dice.pick([p[3] for p in english.PRONOUNS if p[3] != reflexive])
    one, many = dice.pick([s for s in english.SUBJECTS if s[0] not in ("dog", "bird")])
    slots = {"subj": subj, "obj": obj, "poss": possessive, "self": reflexive, "other": other, "one": one, "many": many,
             "thing": dice.pick(english.ORDER_THINGS), "place": dice.pick(english.PLACES)}  # fmt: skip
    return good.format(**slots), bad.format(**slots)


PAIR_KINDS = {"agreement": agreement_pairs, "determiner": determiner_pairs, "tense": tense_pairs, "word_order": order_pairs,
              "pronoun": pronoun_pairs}  # fmt: skip


def make_minimal_pairs(dice: Dice) -> list[dict[str, str]]:
    """Pairs of equal length in words, as many of each kind."""
    result: list[dict[str, str]] = []
    for kind, draw in PAIR_KINDS.items():
        found: dict[str, str] = {}
        while len(found) < NUM_PAIRS_PER_KIND:
            good, bad = (finish(text) for text in draw(dice))
            if good != bad and num_words(good) == num_words(bad):
                found[good] = bad
        result += [{"good": good, "bad": bad, "kind": kind} for good, bad in found.items()]
    return result


def make_paragraphs(dice: Dice) -> list[dict[str, str]]:
    """Short neutral paragraphs, the plans in turn."""
    found: dict[str, None] = {}
    while len(found) < NUM_PARAGRAPHS:
        plan = english.PARAGRAPHS[len(found) % len(english.PARAGRAPHS)]
        found[finish(dice.expand(" ".join(plan), english.PARAGRAPH_WORDS))] = None
    return [{"text": text} for text in found]


def write_all(out: Path) -> None:
    """Make every generated file."""
    lexicon = Lexicon(**words.LEXICON)
    prompts = Prompts(make_titles(Dice("titles")))
    demonstrations: list[Demonstration] = []
    seen: set[str] = set()
    for split, num in NUM_DEMONSTRATIONS.items():
        asked = prompts.draw(num, split=split, dice=Dice(f"asked {split}"))
        demonstrations += make_demonstrations(asked, lexicon=lexicon, seen=seen, dice=Dice(f"replies {split}"))
    drawn = [
        p for split, num in NUM_PROMPTS.items() for p in prompts.draw(num, split=split, dice=Dice(f"prompts {split}"))
    ]
    write_jsonl(out / "demonstrations.jsonl", demonstrations)
    write_jsonl(out / "prompts.jsonl", [p for p in drawn if p.split == "train"])
    write_jsonl(out / "heldout_prompts.jsonl", [p for p in drawn if p.split == "heldout"])
    write_jsonl(out / "eval_prompts.jsonl", prompts.draw(NUM_EVAL_PROMPTS, split="heldout", dice=Dice("evaluation")))
    write_jsonl(out / "minimal_pairs.jsonl", make_minimal_pairs(Dice("pairs")))
    write_jsonl(out / "heldout_text.jsonl", make_paragraphs(Dice("paragraphs")))
    write_json(out / "lexicon.json", words.LEXICON)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write into")
    write_all(parser.parse_args().out)

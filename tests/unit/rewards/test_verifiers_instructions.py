"""The 25 kinds of instruction: replies that follow each and replies that do not, loose forms, wrong options, the data at hand."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifier_example import check, prompt, real_rows, reply, section

from fairlead.core.errors import DataError
from fairlead.rewards.verifiers import build_verifier, validate_prompts
from fairlead.rewards.verifiers.instruction_words import count_sentences, tell_language
from fairlead.rewards.verifiers.instructions import INSTRUCTIONS, follows, loose_forms

pytest.importorskip("py3langid", reason="the extra `verify` is not installed")
MANY = {"relation": "at least"}
FEW = {"relation": "less than"}
ENGLISH = "the quick brown fox jumps over the lazy dog and runs into the green forest"

CASES = [
    ("keywords:existence", {"keywords": ["sun", "Moon"]}, ["the SUN and the moon", "moonlight, sunset"], ["the sun", ""]),
    ("keywords:existence", {"keywords": ["a.b"]}, ["a.b"], ["axb"]),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2} | MANY, ["Sun, sun.", "sunsun"], ["sun"]),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2} | FEW, ["sun", "none"], ["sun sun"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "dog"]}, ["a category of birds"], ["A Cat.", "cats and dog"]),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "at least"}, ["Eee", "every tree"], ["ee"]),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": "less than"}, ["calm"], ["loud!"]),
    ("language:response_language", {"language": "de"}, ["Der Hund schläft sehr lange und möchte nach Hause gehen."], [ENGLISH]),
    ("length_constraints:number_sentences", {"num_sentences": 2} | MANY,
     ["One. Two!", "A question? Yes", "Dr. No came. He left."], ["One", "Mr. Bean is 1.5 m"]),
    ("length_constraints:number_sentences", {"num_sentences": 2} | FEW, ["Only one, e.g. this."], ["One. Two."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***\na\n***\nb\n***"], ["a", "a\n***\n***\nb", "a\n\nb"]),
    ("length_constraints:number_words", {"num_words": 3} | MANY, ["a b c", "it's so"], ["a b"]),
    ("length_constraints:number_words", {"num_words": 3} | FEW, ["a b"], ["a b c"]),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "So"},
     ["a\n\nso it is", "a\n\n\n\n\"So,\" he said", "a\n \n**So** b"], ["so\n\na", "a\n\nso\n\nb", "so", "a\n\nsome"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] and [b c]"], ["[a]", "[] []"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\nP.S. y", "x p. s. y"], ["x", "maps. x"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["x\nP.P.S y", "P. P. S. z"], ["P.S. y"]),
    ("detectable_content:postscript", {"postscript_marker": "NOTE:"}, ["x\nNote: y"], ["x note y"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n* b", "x\n - a\n* b"], ["* a", "* a\n* b\n- c", "**a**\n**b**"]),
    ("detectable_format:constrained_response", {}, ["My answer is yes.", "Well. My answer is maybe. Bye"], ["My answer is yes", "my answer is no."]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and **b c**", "*a*\n*b*"], ["*a*", "** **\n* *", "*a\nb*"]),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     ["Section 1\na\nSection 2\nb", "Section1 Section 2 Section 3"],
     ["Section 1", "Section a\nSection b", "SECTION 1\nSECTION 2"]),
    ("detectable_format:json_format", {}, ['{"a": [1]}', '```json\n{"a": 1}\n```', "```\n[]\n```"], ["{a: 1}", "x", "[" * 100_000]),
    ("detectable_format:title", {}, ["<<joy>>\ntext", "a <<b c>>"], ["<joy>", "<< >>", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["a******b", "******\na\n******\nb\n******"], ["a", "a******a", "a******b******c", "a************b", "a***b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, ["say it. Then more", " Say it."], ["I say it."]),
    ("startend:end_checker", {"end_phrase": "The End."}, ["x the end.", '"x The End."\n'], ["The End. Or not", "The End"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, ["YES and NO", "I AM"], ["Yes NO"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, ["Yes NO"], ["YES NO"]),
    ("change_case:english_capital", {}, [ENGLISH.upper(), "YES."], [ENGLISH, "DER HUND SCHLÄFT SEHR LANGE UND MÖCHTE NACH HAUSE GEHEN", "123"]),
    ("change_case:english_lowercase", {}, [ENGLISH, "yes."], [ENGLISH.title(), "der hund schläft sehr lange und möchte nach hause gehen", "123"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    ("startend:quotation", {}, ['"a"', ' "a" b"\n'], ['"a', '"', "'a'"]),
]  # fmt: skip


def test_there_are_25_kinds_and_each_has_a_case():
    assert len(INSTRUCTIONS) == 25
    assert {name for name, *_ in CASES} == set(INSTRUCTIONS)


@pytest.mark.parametrize(("name", "options", "good", "bad"), CASES)
def test_replies_that_follow_and_replies_that_do_not(name, options, good, bad):
    meta = {"instruction_id_list": [name], "kwargs": [options | {"unused": None}]}
    assert [check("instructions", meta, text) for text in good] == [1] * len(good)
    assert [check("instructions", meta, text) for text in bad] == [0] * len(bad)


@pytest.mark.parametrize(("name", "options", "good", "bad"), CASES)
def test_loose_forgives_what_stands_around(name, options, good, bad):
    """An opening line that breaks the instruction does no harm; what follows strictly follows loosely."""
    opening = "Sure, HERE it is: [one] *A* <<b>>, cat\n"
    assert all(follows(name, options, text, is_loose=True) for text in good)
    assert all(follows(name, options, opening + text, is_loose=True) for text in good)


def test_the_eight_forms():
    assert loose_forms("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]


def test_all_and_share_and_the_mark():
    meta = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "detectable_format:title"],
        "kwargs": [{}, None, {}],
    }
    assert check("instructions", meta, '"a <<b>>"') == 1
    assert check("instructions", meta, '"a, b <<c>>"') == 0
    assert check("instructions", meta, '"a, b <<c>>"', score="share") == pytest.approx(2 / 3)
    assert check("instructions", meta, '<think>, </think>"<<c>>"', after="</think>") == 1
    assert check("instructions", meta, '"<<c>>"', after="</think>") == 0
    assert check("instructions", {"instruction_id_list": ["punctuation:no_comma"]}, "a") == 1
    assert math.isnan(check("instructions", {}, "a"))


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (["punctuation:no_coma"], [{}], r"not known \(did you mean punctuation:no_comma\?\)"), ([], [], "no list of instructions"),
        ("punctuation:no_comma", None, "no list of instructions"), (["punctuation:no_comma"], [], "does not fit the ids"),
        (["punctuation:no_comma"], [7], "no object of options"), (["punctuation:no_comma"], [{"n": 1}], r"kwargs\[0\]\.n is no option of"),
        (["length_constraints:number_words"], [{"num_words": 3}], r"kwargs\[0\]\.relation is missing"),
        (["length_constraints:number_words"], [{"num_words": "3", "relation": "at least"}], r"num_words does not fit .* expected a whole number"),
        (["length_constraints:number_words"], [{"num_words": 3, "relation": "at most"}], "relation does not fit"),
        (["keywords:existence"], [{"keywords": []}], "does not fit"),
        (["language:response_language"], [{"language": "xx"}], "no language that is told"),
    ],
)  # fmt: skip
def test_wrong_instructions_are_told_before_anything_is_sampled(ids, options, message):
    with pytest.raises(DataError, match=message):
        validate_prompts(section("instructions"), [prompt(instruction_id_list=ids, kwargs=options)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0), ("One", 1), ("One.", 1), ("One. Two.", 2), ("Wait... what?!", 2), ("He said: \"No.\" Then left.", 2), ("Pi is 3.14 or so.", 1),
        ("J. R. R. Tolkien wrote.", 1), ("See Fig. 3 and e.g. Dr. Who vs. them.", 1), ("1. First\n2. Second", 1), ("He came.\n\nShe left.", 2),
        ("你好。再见！", 2), ("Visit example.com today.", 1), ("**Bold.** Plain.", 2),
    ],
)  # fmt: skip
def test_sentences_by_hand(text, expected):
    assert count_sentences(text) == expected


SENTENCES = {
    "kn": "ನಾನು ಇಂದು ಬೆಳಿಗ್ಗೆ ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗಿ ತರಕಾರಿಗಳನ್ನು ತಂದೆ.", "pa": "ਮੈਂ ਅੱਜ ਸਵੇਰੇ ਬਾਜ਼ਾਰ ਗਿਆ ਅਤੇ ਸਬਜ਼ੀਆਂ ਲੈ ਕੇ ਆਇਆ।",
    "mr": "मी आज सकाळी बाजारात गेलो आणि भाजी घेऊन आलो आहे.", "fa": "من امروز صبح به بازار رفتم و سبزیجات خریدم و به خانه برگشتم.",
    "ko": "저는 오늘 아침에 시장에 가서 채소를 샀습니다.", "sw": "Nilienda sokoni leo asubuhi na nilinunua mboga kwa ajili ya familia yangu.",
    "ru": "Сегодня утром я пошёл на рынок и купил свежие овощи.", "hi": "मैं आज सुबह बाज़ार गया था और मैंने सब्ज़ियाँ खरीदीं।",
    "gu": "હું આજે સવારે બજારમાં ગયો અને શાકભાજી લાવ્યો.", "te": "నేను ఈ రోజు ఉదయం మార్కెట్‌కి వెళ్లి కూరగాయలు తెచ్చాను.",
    "ar": "ذهبت هذا الصباح إلى السوق واشتريت بعض الخضروات الطازجة.", "ur": "میں آج صبح بازار گیا تھا اور میں نے سبزیاں خریدی ہیں۔",
    "ne": "म आज बिहान बजार गएँ र तरकारी किनेर घर फर्किएँ।", "de": "Heute Morgen bin ich auf den Markt gegangen und habe Gemüse gekauft.",
    "en": "This morning I went to the market and bought some fresh vegetables.",
}  # fmt: skip


@pytest.mark.parametrize("language", SENTENCES)
def test_languages_of_one_sentence_are_told(language):
    assert tell_language(SENTENCES[language]) == language


@given(st.text(max_size=100), st.sampled_from(CASES))
def test_any_reply_is_judged(text, case):
    name, options, *_ = case
    assert follows(name, options, text, is_loose=False) <= follows(name, options, text, is_loose=True)


def obedient(name: str, options: dict) -> str:
    """A reply that follows an instruction of the data at hand."""
    filler = "this is a plain reply about the matter that was asked"
    return {
        "keywords:existence": lambda: f"{filler} {' '.join(options.get('keywords', []))}",
        "keywords:forbidden_words": lambda: "0 1 2",
        "punctuation:no_comma": lambda: filler,
        "change_case:english_lowercase": lambda: filler,
        "change_case:english_capital": lambda: filler.upper(),
        "detectable_format:number_bullet_lists": lambda: "\n".join(f"* {filler}" for _ in range(options["num_bullets"])),
        "detectable_format:json_format": lambda: '{"reply": 1}',
        "language:response_language": lambda: SENTENCES[options["language"]],
        "startend:end_checker": lambda: f"{filler} {options['end_phrase']}",
        "detectable_format:multiple_sections": lambda: "\n".join(f"{options['section_spliter']} {i}" for i in range(options["num_sections"])),
        "startend:quotation": lambda: f'"{filler}"',
        "detectable_format:number_highlighted_sections": lambda: "*word* " * options["num_highlights"],
        "detectable_format:title": lambda: f"<<title>>\n{filler}",
        "change_case:capital_word_frequency": lambda: "WORD " * (options["capital_frequency"] - (options["capital_relation"] == "less than")),
        "detectable_format:constrained_response": lambda: "My answer is no.",
    }[name]()  # fmt: skip


def disobedient(name: str, options: dict) -> str:
    """A reply that breaks it."""
    return {
        "keywords:existence": lambda: "0 1 2",
        "keywords:forbidden_words": lambda: f"x {options['forbidden_words'][0].upper()} y",
        "punctuation:no_comma": lambda: "a, b",
        "language:response_language": lambda: SENTENCES["en"],
        "detectable_format:number_highlighted_sections": lambda: "*word* " * (options["num_highlights"] - 1) + "w",
        "detectable_format:number_bullet_lists": lambda: "* a\n" * (options["num_bullets"] + 4),
        "detectable_format:multiple_sections": lambda: f"{options['section_spliter']} 1",
        "change_case:capital_word_frequency": lambda: "WORD " * (options["capital_frequency"] - (options["capital_relation"] == "at least")) + "w",
    }.get(name, lambda: "Mixed Case reply, of none of the forms")()  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("reading", ["strict", "loose"])
def test_every_row_of_the_data_is_read_and_judged_both_ways(reading):
    verifier = build_verifier(section("instructions", reading=reading))
    kinds = Counter()
    for row in real_rows("ifeval_style.jsonl.gz"):
        question = prompt(row["prompt"], instruction_id_list=row["instruction_id_list"], kwargs=row["kwargs"])
        (name,), (options,) = row["instruction_id_list"], row["kwargs"]
        kinds[name] += 1
        assert verifier.check(question, reply(obedient(name, options))) == 1, row
        assert verifier.check(question, reply(disobedient(name, options))) == 0, row
    assert (len(kinds), kinds.total()) == (15, 918)

"""What single rows mean: prompt, sides, ties, votes, splits. Every value here is read off the fixture by eye."""

from pathlib import Path

import pytest

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, Row, write_jsonl
from fairlead.core.records import Message, Preference
from fairlead.formats import read_demonstrations, read_preferences, read_steps
from fairlead.formats.helpsteer import HELPSTEER3, vote_figures
from fairlead.formats.ultrafeedback import aspect_ratings

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"


def preferences(name: str, tmp_path: Path, **options) -> list[Preference]:
    return list(read_preferences(FIXTURES / f"{name}.jsonl", rejects=Rejects(tmp_path / "r.jsonl"), **options))


def sides(found: list[Preference]) -> list[tuple[str, str]]:
    return [(p.chosen, p.rejected) for p in found]


def turns(messages) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in messages]


def read_one(row: dict, tmp_path: Path, **options) -> Preference:
    write_jsonl(tmp_path / "one.jsonl", [row])
    return next(read_preferences(tmp_path / "one.jsonl", rejects=Rejects(tmp_path / "r.jsonl"), **options))


def test_hh_prompt_is_the_common_prefix_of_turns(tmp_path):
    first, second, third = preferences("hh", tmp_path)
    assert turns(first.prompt) == [("user", "How do I boil an egg?")]
    assert sides([first]) == [
        ("Put it in boiling water for eight minutes.", "Put it in the kettle.")
    ]  # "Put it in" stays
    assert [m.role for m in second.prompt] == ["user", "assistant", "user"]
    assert [m.role for m in third.prompt] == ["user", "user"] and third.chosen == "I read both."


def test_trl_implicit_text_is_cut_at_a_line_or_word_and_says_so(tmp_path):
    messages, word, line = preferences("trl_implicit", tmp_path)
    assert sides([messages]) == [("It is blue.", "It is green.")]
    assert (word.prompt[0].content, word.chosen, word.rejected) == ("The sky is", " blue.", " green.")
    assert word.meta["prompt_cut"] == "word" and word.meta["prompt_chars"] == 10
    assert line.prompt[0].content == "Q: Which color has the sky?\nA:" and line.chosen == " It is blue."
    assert line.meta["prompt_cut"] == "line"


def test_trl_accepts_text_messages_repeated_prompts_and_transcripts(tmp_path):
    plain, messages, repeated, transcript = preferences("trl", tmp_path)
    assert turns(plain.prompt) == [("user", "The sky is")] and plain.chosen == " blue."
    assert messages.margin == 0.5 and messages.chosen == "It is blue."
    assert turns(repeated.prompt) == [("user", "What color is grass?")] and repeated.rejected == "It is red."
    assert turns(transcript.prompt) == [("user", "What is two and two?")]


def test_trl_unpaired_pairs_neighbours_with_both_labels(tmp_path):
    assert sides(preferences("trl_unpaired", tmp_path)) == [(" blue.", " green."), ("Apple.", "Brick.")]


def test_ultrafeedback_orders_by_mean_rating_not_by_the_faulty_overall_score(tmp_path):
    """Means: a 5, b 5/3 (2, N/A, 1, 2), c 5, d 1. b has overall_score 10, which is a 1 that was parsed wrongly."""
    found = preferences("ultrafeedback", tmp_path)
    assert sides(found) == [("Jupiter.", "Saturn."), ("Jupiter.", "A star."), ("Iron.", "Tin, I think.")]
    assert found[0].meta["rejected_suspect_overall_score"] is True
    assert found[0].meta["rejected_score"] == pytest.approx(5 / 3)
    assert "rejected_suspect_overall_score" not in found[1].meta
    assert sides(preferences("ultrafeedback", tmp_path, pairs="best_vs_worst")) == [
        ("Jupiter.", "A star."),
        ("Iron.", "Tin, I think."),
    ]


def test_an_overall_score_of_ten_steps_is_never_compared_with_ratings_of_five(tmp_path):
    """b has no rating but an overall score of 7, which is no more than a's ratings of 4.5; alone, overall scores do order."""

    def rated(text: str, rating: str, overall: float) -> dict:
        return {"response": text, "annotations": {"helpfulness": {"Rating": rating}}, "overall_score": overall}

    row = {"instruction": "q", "completions": [rated("a", "4.5", 8), rated("b", "N/A", 7), rated("c", "2", 3)]}
    assert sides([read_one(row, tmp_path)]) == [("a", "c")]
    row["completions"] = [rated("a", "N/A", 3), rated("b", "N/A", 7)]
    assert sides([read_one(row, tmp_path)]) == [("b", "a")]


def test_aspect_ratings_read_text_and_ignore_not_available():
    annotations = {
        "a": {"Rating": "4"},
        "b": {"Rating": "N/A"},
        "c": {"Rating": 2},
        "d": [{"Rating": "3"}],
        "e": None,
        "f": {},
    }
    assert aspect_ratings({"annotations": annotations}) == {"a": 4.0, "c": 2.0, "d": 3.0}


def test_equal_scores_of_a_pair_are_a_tie(tmp_path):
    for name in ("ultrafeedback_binarized", "argilla_binarized"):
        decided, tie = preferences(name, tmp_path)
        assert not decided.is_tie and decided.p_chosen == 1.0
        assert tie.is_tie and tie.p_chosen == 0.5


def test_scores_under_other_names_are_not_overlooked(tmp_path):
    row = {"prompt": "Name a bird.", "chosen": [{"role": "assistant", "content": "A wren."}],
           "rejected": [{"role": "assistant", "content": "A bat."}], "chosen_rating": 4, "rejected_rating": 4}  # fmt: skip
    assert read_one(row, tmp_path).is_tie


def say(*contents: str) -> list[dict]:
    """A conversation: system first, then user and assistant in turn."""
    roles = ["system", *["user", "assistant"] * 3]
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def test_sides_may_be_longer_conversations_than_the_prompt_field(tmp_path):
    row = {"prompt": "Why?", "chosen": say("Be kind.", "Hi", "Hello.", "Why?", "Because."),
           "rejected": say("Be kind.", "Hi", "Hello.", "Why?", "No.")}  # fmt: skip
    for extra in ({}, {"score_chosen": 2, "score_rejected": 1}):
        found = read_one(row | extra, tmp_path)
        assert [m.content for m in found.prompt] == ["Be kind.", "Hi", "Hello.", "Why?"]
        assert (found.chosen, found.rejected) == ("Because.", "No.")
    with pytest.raises(DataError, match="prompt is not in the conversations"):
        read_one(row | {"prompt": "Who?"}, tmp_path)


def test_replies_of_several_turns_do_not_pass_for_conversations(tmp_path):
    """Both sides begin with the same reply and a question, and the prompt that came before is not among them."""
    sides_ = [[{"role": "assistant", "content": "Hm."}, {"role": "user", "content": "Well?"}, {"role": "assistant", "content": end}]
              for end in ("Yes.", "No.")]  # fmt: skip
    with pytest.raises(DataError, match="prompt is not in the conversations"):
        read_one({"prompt": "Why?", "chosen": sides_[0], "rejected": sides_[1]}, tmp_path)


def test_oasst_pairs_all_siblings_or_neighbours_in_rank(tmp_path):
    every = sides(preferences("oasst", tmp_path))
    assert set(every) == {
        ("They dance.", "They sing."), ("They dance.", "They write."), ("They sing.", "They write."),
        ("Yes, the waggle dance.", "No."), ("A pen.", "Wax."),
    }  # fmt: skip
    adjacent = sides(preferences("oasst", tmp_path, pairs="adjacent"))
    assert set(every) - set(adjacent) == {("They dance.", "They write.")}


def test_oasst_conversations_lead_to_the_pair(tmp_path):
    deep = next(p for p in preferences("oasst", tmp_path) if p.chosen == "A pen.")
    assert turns(deep.prompt) == [("user", "How do bees talk?"), ("assistant", "They write."), ("user", "With what?")]
    assert deep.meta["chosen_rank"] == 0 and deep.meta["rejected_rank"] == 1


def test_oasst_demonstrations_follow_the_best_replies(tmp_path):
    found = list(read_demonstrations(FIXTURES / "oasst.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [[m.content for m in d.messages] for d in found] == [
        ["How do bees talk?", "They dance.", "Really?", "Yes, the waggle dance."],
        ["Two of one rank?", "First."],
        ["One reply?", "Only me."],
    ]


def test_openai_comparison_choice_confidence_and_split(tmp_path):
    first, second, article = preferences("openai_comparisons", tmp_path)
    assert sides([first, second]) == [
        (" Cat blocks keyboard.", " I have a cat."),
        (" Cat on keyboard; cannot work.", " A cat."),
    ]
    assert (
        (first.split, second.split) == ("train", "heldout") and first.meta["confidence"] == 2 and first.num_votes == 1
    )
    assert first.prompt[0].content == (
        "SUBREDDIT: r/cats\n\nTITLE: Cat trouble\n\nPOST: My cat sleeps on my keyboard and I cannot work.\n\nTL;DR:"
    )
    assert article.prompt[0].content.startswith("Title: Harbour\n\nArticle: The harbour")


def test_helpsteer2_neighbours_are_pairs_by_helpfulness(tmp_path):
    tree, sphere, flower = preferences("helpsteer2", tmp_path)
    assert sides([tree, sphere]) == [("Oak.", "Rock."), ("A ball.", "A box.")]
    assert turns(sphere.prompt) == [
        ("user", "What is a cube?"),
        ("assistant", "A solid with six faces."),
        ("user", "And a sphere?"),
    ]
    assert flower.is_tie and sphere.meta["winner"] == "b" and sphere.meta["b_helpfulness"] == 3


def test_helpsteer_strength_sign_and_votes(tmp_path):
    """Votes 3, 2, -1 for the second response: two of three agree."""
    tree, town, tie = preferences("helpsteer3", tmp_path)
    assert sides([tree, town]) == [("Oak.", "Rock."), ("Lisbon.", "Yes.")]
    assert (tree.num_votes, tree.agreement) == (3, 1.0)
    assert town.agreement == pytest.approx(2 / 3) and town.meta["votes"] == [3, 2, -1] and town.slice == "general"
    assert tie.is_tie and tie.agreement == 0.5
    second = preferences("helpsteer2_preference", tmp_path)[1]
    assert second.split == "heldout" and second.chosen == "A ball." and second.meta["strength"] == 2


def test_the_language_of_a_program_is_none_that_people_speak_and_is_written_as_it_was(tmp_path):
    row = {"domain": "code", "language": "c++", "context": [{"role": "user", "content": "Sort it."}], "response1": "sort(v)", "response2": "no",
           "overall_preference": -1, "individual_preference": []}  # fmt: skip
    (pair,) = HELPSTEER3.read(Row("x", 1, row))
    assert (pair.meta["programming_language"], "language" in pair.meta, pair.slice) == ("c++", False, "code")
    assert HELPSTEER3.write(pair)["language"] == "c++" and HELPSTEER3.write(pair)["domain"] == "code"
    (spoken,) = HELPSTEER3.read(Row("x", 1, {**row, "domain": "multilingual", "language": "korean"}))
    assert (spoken.meta["language"], "programming_language" in spoken.meta) == ("korean", False)


@pytest.mark.parametrize(("slice_", "meta", "want"), [
    ("all", {"skills": ["python"]}, ("code", "python")),
    ("code", {"skills": "debugging, Python", "language": "en"}, ("code", "Python")),
    ("code", {"skills": ["rust", "python"]}, ("code", "")),  # which of the two it is in, nothing says
    ("stem", {"skills": ["maths"], "language": "english"}, ("stem", "english")),
    ("all", {"programming_language": "C++", "language": "en"}, ("code", "C++")),
    ("all", {"language": ["ko"]}, ("all", "ko")),
    ("code", {"skills": {"python": 1}, "language": None}, ("code", "")),
])  # fmt: skip
def test_helpsteer3_is_written_with_the_language_that_metadata_tells(slice_, meta, want):
    """Domain and language belong together: only the language of code rows is that of a program."""
    message = (Message(role="user", content="Sort it."),)
    row = HELPSTEER3.write(Preference(prompt=message, chosen="sort(v)", rejected="no", slice=slice_, meta=meta))
    assert (row["domain"], row["language"]) == want


def test_vote_figures_by_hand():
    assert vote_figures([]) == (0, None)
    assert vote_figures([0, 0, 1, -1]) == (4, 0.5)


def test_nectar_ranks_one_as_best(tmp_path):
    found = preferences("nectar", tmp_path)
    assert sides(found)[0] == ("Vega.", "Sirius, I believe.")
    assert [m.role for m in found[0].prompt] == ["user"]
    assert len(preferences("nectar", tmp_path, pairs="adjacent")) == 2


def test_arena_winner_ties_and_turn(tmp_path):
    first, second, tie, bad = preferences("arena", tmp_path)
    assert sides([first, second]) == [("The rain came.", "Rain."), ("What?", "Hello.")]
    assert tie.is_tie and bad.is_tie and bad.meta["winner"] == "tie (bothbad)"


def test_demonstrations_keep_system_history_and_cut_what_follows_the_last_reply(tmp_path):
    rejects = Rejects(tmp_path / "r.jsonl")
    third = list(read_demonstrations(FIXTURES / "alpaca.jsonl", rejects=rejects))[2]
    assert [m.role for m in third.messages] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    cut = list(read_demonstrations(FIXTURES / "sharegpt.jsonl", rejects=rejects))[1]
    assert cut.messages[-1] == Message(role="assistant", content="Dear, hello.") and cut.meta["turns_cut"] == 1
    first = next(read_demonstrations(FIXTURES / "alpaca.jsonl", rejects=rejects))
    assert first.messages[0].content == "Add the numbers.\n\n2, 3"


def test_pairs_for_a_file_that_holds_pairs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not apply to hh"):
        preferences("hh", tmp_path, pairs="all")


def test_the_prompt_of_an_instruction_pair_is_never_cut_from_the_replies(tmp_path):
    """The replies begin alike ("It is", "It has"), which is no prompt where another column asks."""
    first, second, third, tie = preferences("alpaca_preferences", tmp_path)
    assert turns(first.prompt) == [("user", "Add the numbers.\n\n2, 3")] and sides([first]) == [
        ("It is 5.", "It is 6.")
    ]
    assert [m.role for m in second.prompt] == ["system", "user", "assistant", "user"]
    assert turns(third.prompt) == [("user", "How many legs has a cat?")] and third.rejected == "It has five."
    assert tie.is_tie
    with pytest.raises(DataError, match="is in no known format"):
        read_one({"context": "A cat.", "chosen": "It has four.", "rejected": "It has five."}, tmp_path)


def test_sharegpt_pairs_keep_the_whole_conversation(tmp_path):
    first, second = preferences("sharegpt_preferences", tmp_path)
    assert [m.role for m in first.prompt] == ["system", "user", "assistant", "user"]
    assert sides([first, second]) == [("Good bye.", "Go."), ("An oak.", "A rock.")]


def test_scores_with_hyphens_are_not_overlooked(tmp_path):
    row = {
        "prompt": "p",
        "chosen": say("", "p", "x")[1:],
        "rejected": say("", "p", "y")[1:],
        "chosen-rating": 4.0,
        "rejected-rating": 4.0,
    }
    assert read_one(row, tmp_path).is_tie
    assert not read_one(row | {"rejected-rating": 3.5, "margin": 0.5}, tmp_path).is_tie
    assert read_one(row | {"rejected-rating": 3.5, "margin": 0.5}, tmp_path).margin == 0.5


def test_messages_of_a_table_are_the_trees_that_they_form(tmp_path):
    found = preferences("oasst_messages", tmp_path)
    assert sides(found) == [("They dance.", "They sing."), ("Yes, the waggle dance.", "No.")]
    assert turns(found[1].prompt) == [("user", "How do bees talk?"), ("assistant", "They dance."), ("user", "Really?")]
    best = list(read_demonstrations(FIXTURES / "oasst_messages.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [m.content for m in best[0].messages] == [
        "How do bees talk?",
        "They dance.",
        "Really?",
        "Yes, the waggle dance.",
    ]


def test_axis_ratings_of_one_post_are_a_ranking_by_their_mean(tmp_path):
    """keys: blocks keyboard (7 + 5) / 2, Cats 4, I have a cat 2; the one without a rating is no summary."""
    found = preferences("openai_axis", tmp_path)
    keyboard, cats, cat = " Cat blocks keyboard.", " Cats.", " I have a cat."
    assert sides(found) == [(keyboard, cats), (keyboard, cat), (cats, cat)]
    assert (
        found[0].meta["chosen_score"] == 6 and found[0].meta["chosen_num_ratings"] == 2 and found[0].split == "heldout"
    )


def test_webgpt_prefers_the_higher_score(tmp_path):
    found = preferences("webgpt", tmp_path)
    assert (
        sides(found[:2]) == [("Because one.", "Because zero."), ("Because zero.", "Because one.")] and found[2].is_tie
    )
    assert found[0].prompt[0].content == "Why 1?" and found[0].meta["score_1"] == 0.33


def test_pku_helpfulness_and_harmlessness_are_two_formats(tmp_path):
    helpful = sides(preferences("pku_saferlhf", tmp_path))
    assert helpful == [("One says.", "Zero says."), ("Zero says.", "One says.")]
    harmless = sides(preferences("pku_saferlhf_safer", tmp_path, format="pku_saferlhf_safer"))
    assert harmless == [(b, a) for a, b in helpful]


def test_shp_label_one_means_the_first(tmp_path):
    first, second = preferences("shp", tmp_path)
    assert sides([first, second]) == [("A says.", "B says."), ("B says.", "A says.")]
    assert (first.slice, first.split, second.slice, second.split) == ("askculinary", "train", "legaladvice", "heldout")


def test_alpaca_eval_preference_is_one_plus_the_probability_of_the_second(tmp_path):
    second, first, nearly, tie = preferences("alpaca_eval", tmp_path)
    assert sides([second, first, nearly]) == [("Second.", "First."), ("First.", "Second."), ("First.", "Second.")]
    assert (
        (second.p_chosen, first.p_chosen, nearly.p_chosen) == (1, 1, pytest.approx(0.9))
        and tie.is_tie
        and tie.p_chosen == 0.5
    )


def test_arena_reads_parts_of_text_and_both_bad(tmp_path):
    def said(reply: str) -> list[dict]:
        return [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "text", "text": reply, "image": None}]},
        ]

    row = {
        "model_a": "x",
        "model_b": "y",
        "winner": "both_bad",
        "conversation_a": said("A."),
        "conversation_b": said("B."),
    }
    assert read_one(row, tmp_path).is_tie
    assert read_one(row | {"winner": "model_b"}, tmp_path).chosen == "B."
    with pytest.raises(DataError, match="conversation_a content is not text"):
        picture = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "image", "image": "x"}]},
        ]
        read_one(row | {"conversation_a": picture}, tmp_path)


def test_a_system_column_leads_the_prompt(tmp_path):
    row = {"system": "Be kind.", "prompt": "Hi", "chosen": "Hello.", "rejected": "No."}
    assert turns(read_one(row, tmp_path).prompt) == [("system", "Be kind."), ("user", "Hi")]
    own = row | {"prompt": say("Be brief.", "Hi")}
    assert turns(read_one(own, tmp_path).prompt) == [("system", "Be brief."), ("user", "Hi")]


def test_transcripts_that_repeat_an_explicit_transcript_prompt(tmp_path):
    start = "\n\nHuman: Hi\n\nAssistant:"
    found = read_one({"prompt": start, "chosen": f"{start} Hello.", "rejected": f"{start} No."}, tmp_path)
    assert (turns(found.prompt), found.chosen, found.rejected) == ([("user", "Hi")], "Hello.", "No.")


def test_an_example_of_what_not_to_say_is_no_demonstration(tmp_path):
    good, bad = ({"messages": say("", "Hi", reply)[1:], "label": reply == "Hello."} for reply in ("Hello.", "Go."))
    write_jsonl(tmp_path / "kto.jsonl", [good, bad])
    reading = read_demonstrations(tmp_path / "kto.jsonl", rejects=Rejects(tmp_path / "r.jsonl"))
    assert [d.messages[-1].content for d in reading] == ["Hello."] and reading.report.skips == {"label is false": 1}


def test_prm800k_gives_the_path_and_its_alternatives(tmp_path):
    """Row 1: three right steps, the second written by a person; two alternatives that were wrong. Row 2: nobody's step was followed, a
    neutral one counts as right, one without a rating teaches nothing. Row 3 ends before the step that nobody rated."""
    found = [
        (r.steps[r.num_given :], r.labels, r.num_given)
        for r in read_steps(FIXTURES / "prm800k.jsonl", rejects=Rejects(tmp_path / "r.jsonl"))
    ]
    assert found == [
        (("12 * 12 = 12 * 10 + 12 * 2.", "That is 120 + 24.", "# Answer\n\n144"), (1.0, 1.0, 1.0), 0),
        (("12 * 12 = 122.",), (0.0,), 0),
        (("That is 120 + 22.",), (0.0,), 1),
        (("3 squared is 6.",), (0.0,), 0),
        (("Let us see.",), (1.0,), 0),
        (("It is 0.",), (1.0,), 0),
    ]


def test_math_shepherd_signs_belong_to_their_steps(tmp_path):
    """The minus sign inside a step is no label."""
    found = list(read_steps(FIXTURES / "math_shepherd.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert found[1].steps == ("Step 1: 4 - 1 = 2.", "Step 2: 2 + 1 = 3.", "Step 3: The answer is: 3")
    assert (
        found[1].labels == (1.0, 0.0, 0.0)
        and found[1].prompt[0].content == "What is 4 - 1 + 1?"
        and found[1].meta["task"] == "MATH"
    )


def test_trl_steps_may_have_probabilities(tmp_path):
    found = list(read_steps(FIXTURES / "trl_stepwise.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [r.labels for r in found] == [(1.0, 1.0, 1.0), (0.0, 0.0), (0.75,)]

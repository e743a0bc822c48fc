"""Pairs to rate."""

from fairlead.core.records import Completion, Message, Prompt
from fairlead.web.importing import Pair


def pairs(num: int, *, prefix: str = "question") -> list[Pair]:
    """Different prompts with two different replies."""
    made = []
    for i in range(num):
        prompt = Prompt(messages=(Message(role="user", content=f"{prefix} {i}"),))
        texts = (
            Completion(prompt_id=prompt.id, text=f"{word} reply to {i}", model=model)
            for word, model in (("good", "m1"), ("bad", "m2"))
        )
        a, b = sorted(texts, key=lambda completion: completion.id)
        made.append(Pair(prompt=prompt, a=a, b=b))
    return made

"""Messages to token ids with a completion mask: which tokens the model must learn to write.

Rules that this file keeps (each has a test):
- exactly one BOS when the tokenizer has one, wherever the template puts its own;
- the turn terminator (what the model must emit to stop) is trained, white space after it is not;
- masks come from rendering prefixes, never from comparing with the pad token; `{% generation %}` markers are not needed
  (where a template has them, the same tokens are marked, but for white space after the terminator);
- a prompt is tokenised once; completions are tokenised apart and appended, so that prompts of a group are equal.

Example:
    chat = ChatText(tokenizer, template=None)
    chat.encode_prompt(messages)              # ids that end where the assistant begins
    chat.encode_completion("Hello.")          # ids that end with the terminator
    chat.encode_conversation(messages)        # ids and mask over all assistant turns
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, ModelError, explain
from fairlead.core.records import Message

PLAIN = "plain"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + TERMINATOR }}{% endgeneration %}"
    "{% else %}{{ message['content'] + TERMINATOR }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedConversation:
    """A conversation as one row of tokens."""

    token_ids: npt.NDArray[np.int64]
    """[T]"""
    completion_mask: npt.NDArray[np.bool_]
    """[T] True where the token is to be learned."""


class ChatText:
    """A tokenizer with the template that a recipe chose.

    Args:
        tokenizer: a transformers fast tokenizer.
        template: None (the tokenizer's own), "plain" (contents joined, no roles), "chatml", or a path to a Jinja file.
    Raises:
        ModelError: no EOS token, or no template where one is needed.
    """

    def __init__(self, tokenizer: Any, *, template: str | None = None, name: str = "model") -> None:
        self.tokenizer = tokenizer
        self.name = name
        if tokenizer.eos_token_id is None:
            raise ModelError(explain(f"{name}: tokenizer.eos_token", None, "is not set", expected="a token that ends a text",
                                     remedy="Set eos_token in tokenizer_config.json"))  # fmt: skip
        self.is_plain = template == PLAIN
        self.template = None if self.is_plain else self._load_template(template)
        self._strips = not self.is_plain and self._template_strips()
        self.terminator_id: int = tokenizer.eos_token_id if self.is_plain else self._find_terminator()
        self.stop_token_ids: tuple[int, ...] = tuple(sorted({tokenizer.eos_token_id, self.terminator_id}))

    def _load_template(self, template: str | None) -> str:
        if template is None:
            if not self.tokenizer.chat_template:
                raise ModelError(explain(f"{self.name}: tokenizer", None, "has no chat template, and the recipe names none",
                                         expected="text.template: plain, chatml, or a FILE",
                                         remedy="Add text.template to the recipe or pass --set text.template=chatml"))  # fmt: skip
            return self.tokenizer.chat_template
        if template == "chatml":
            end = "<|im_end|>"
            has_end = self.tokenizer.convert_tokens_to_ids(end) not in (None, self.tokenizer.unk_token_id)
            return CHATML.replace("TERMINATOR", repr(end if has_end else self.tokenizer.eos_token))
        path = Path(template)
        if not path.is_file():
            raise ModelError(explain("text.template", template, "is neither a known template nor a file",
                                     expected="plain, chatml, or a Jinja file", remedy="Check the path"))  # fmt: skip
        return path.read_text(encoding="utf-8")

    def _template_strips(self) -> bool:
        probe = (Message(role="user", content="a"), Message(role="assistant", content=" b "))
        return " b " not in self._render(probe, add_generation_prompt=False)

    def _content(self, message: Message) -> str:
        """A message's text as the template will write it."""
        return message.content.strip() if self._strips else message.content

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        rows = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(
                rows, tokenize=False, chat_template=self.template, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template may raise anything, from Jinja errors to its own refusals
            raise DataError(explain(f"{self.name}: chat template", " / ".join(m.role for m in messages), f"refused the conversation ({error})",
                                    expected="roles that the template knows", remedy="Change the data or text.template")) from error  # fmt: skip

    def _encode_text(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return list(ids)

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        start = 0
        while start < len(ids) and ids[start] == bos:
            start += 1
        return [bos, *ids[start:]]

    def _find_terminator(self) -> int:
        """The special token that the template writes at the end of an assistant turn (EOS when it writes none)."""
        probe = [Message(role="user", content="a"), Message(role="assistant", content="b")]
        prefix, full = (
            self._render(probe[:1], add_generation_prompt=True),
            self._render(probe, add_generation_prompt=False),
        )
        if not full.startswith(prefix):
            raise ModelError(explain(f"{self.name}: chat template", None, "does not append: the rendered reply does not begin with the rendered "
                                     "prompt", expected="a template whose generation prompt is a prefix of the reply",
                                     remedy="Use text.template: chatml or a training template"))  # fmt: skip
        tail = self._encode_text(full[len(prefix) :])
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in reversed(tail):
            if token in special:
                return token
        return self.tokenizer.eos_token_id

    def encode_prompt(self, messages: Sequence[Message]) -> npt.NDArray[np.int64]:
        """Ids of a conversation up to where the assistant begins."""
        if self.is_plain:
            return np.asarray(self._with_bos(self._encode_text("".join(m.content for m in messages))), dtype=np.int64)
        return np.asarray(
            self._with_bos(self._encode_text(self._render(messages, add_generation_prompt=True))), dtype=np.int64
        )

    def encode_completion(self, text: str, *, finished: bool = True) -> npt.NDArray[np.int64]:
        """Ids of one reply, with the terminator unless it was cut off (`finished=False`)."""
        return np.asarray(self._encode_text(text) + ([self.terminator_id] if finished else []), dtype=np.int64)

    def encode_conversation(self, messages: Sequence[Message], *, last_turn_only: bool = False) -> EncodedConversation:
        """Ids and completion mask of a whole conversation; every assistant turn is learned (or only the last).

        Raises:
            DataError: no assistant turn, or a template that rewrites earlier turns.
        """
        turns = [i for i, m in enumerate(messages) if m.role == "assistant"]
        if not turns:
            raise DataError(
                explain(
                    "messages",
                    None,
                    "have no assistant turn",
                    expected="at least one to learn from",
                    remedy="Drop the row",
                )
            )
        ids: list[int] = []
        mask: list[bool] = []
        for turn in turns:
            prompt, reply = self._turn_ids(messages, turn)
            if prompt[: len(ids)] != ids:
                raise DataError(explain(f"{self.name}: chat template", None, "rewrites earlier turns when a later one is added",
                                        expected="an appending template", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
            mask += [False] * (len(prompt) - len(ids)) + [not last_turn_only or turn == turns[-1]] * len(reply)
            ids = prompt + reply
        return EncodedConversation(np.asarray(ids, dtype=np.int64), np.asarray(mask, dtype=np.bool_))

    def _turn_ids(self, messages: Sequence[Message], turn: int) -> tuple[list[int], list[int]]:
        """Ids before an assistant turn and ids of the turn up to its terminator.

        The prompt of a later turn holds the earlier replies with whatever the template writes after their terminators.
        """
        if self.is_plain:
            prompt: list[int] = []
            for m in messages[:turn]:
                prompt += self._encode_text(m.content) + ([self.terminator_id] if m.role == "assistant" else [])
        else:
            prompt = self._prompt_ids(messages[:turn])
        return self._with_bos(prompt), [*self._encode_text(self._content(messages[turn])), self.terminator_id]

    def _prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of rendered context; each earlier reply is tokenised as it was when it was learned, to keep ids appending."""
        rendered = self._render(messages, add_generation_prompt=True)
        ids: list[int] = []
        position = 0
        for m in messages:
            if m.role != "assistant":
                continue
            content = self._content(m)
            start = rendered.find(content, position)
            if start < 0:
                raise DataError(explain(f"{self.name}: chat template", m.content, "drops or changes an earlier reply",
                                        expected="a template that keeps history", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
            ids += self._encode_text(rendered[position:start]) + self._encode_text(content)
            position = start + len(content)
        return ids + self._encode_text(rendered[position:])

    def decode(self, token_ids: Sequence[int] | npt.NDArray[np.int64]) -> str:
        """Text of a completion without special tokens."""
        return self.tokenizer.decode([int(t) for t in token_ids], skip_special_tokens=True)

"""Messages to token ids with a completion mask: which tokens the model must learn to write.

Rules that this file keeps (each has a test):
- exactly one BOS when the tokenizer has one, wherever the template puts its own;
- the turn terminator (what the model must emit to stop) is trained, white space after it is not;
- masks come from rendering prefixes, never from comparing with the pad token; `{% generation %}` markers are not needed
  (where a template has them, the same tokens are marked, but for white space after the terminator);
- a conversation is tokenised in pieces that meet where a reply begins and ends, so that a prompt has the same ids whether a
  reply follows or not; white space that the template writes before every reply is part of the reply.

Example:
    chat = ChatText(tokenizer, template=None)
    chat.encode_prompt(messages)              # ids that end where the assistant begins
    chat.encode_completion("Hello.")          # ids that end with the terminator
    chat.encode_conversation(messages)        # ids and mask over all assistant turns
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, ModelError, explain
from fairlead.core.records import Message

PLAIN = "plain"
_PROBE = "Xq7"  # a reply that no template's own text contains
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
        self._template_place = "text.template" if template not in (None, "chatml", PLAIN) else f"{name}: chat template"
        self._template_file = template if self._template_place == "text.template" else None
        if tokenizer.eos_token_id is None:
            raise ModelError(explain(f"{name}: tokenizer.eos_token", None, "is not set", expected="a token that ends a text",
                                     remedy="Set eos_token in tokenizer_config.json"))  # fmt: skip
        self.is_plain = template == PLAIN
        self.template = None if self.is_plain else self._load_template(template)
        self._strips = False
        self._lead = ""
        self.terminator_id: int = tokenizer.eos_token_id
        if not self.is_plain:
            self._probe_template()
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
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(explain("text.template", template, f"cannot be read ({error})", expected="a Jinja file in UTF-8",
                                     remedy="Save it as UTF-8")) from error  # fmt: skip

    def _probe_template(self) -> None:
        """Find out what the template does to a reply: strips it, leads it in with white space, ends it with which token."""
        prefix = self._render([Message(role="user", content="a")], add_generation_prompt=True)
        full = self._render_reply(f" {_PROBE} ")
        self._strips = f" {_PROBE} " not in full
        full = self._render_reply(_PROBE)
        if not full.startswith(prefix) or _PROBE not in full[len(prefix) :]:
            raise ModelError(explain(self._template_place, self._template_file,
                                     "does not append: the rendered reply does not begin with the rendered prompt",
                                     expected="a template whose generation prompt is a prefix of the reply",
                                     remedy="Use text.template: chatml or a training template"))  # fmt: skip
        lead, _, tail = full[len(prefix) :].partition(_PROBE)
        self._lead = "" if lead.strip() else lead
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        self.terminator_id = next((t for t in self._encode_text(tail) if t in special), self.tokenizer.eos_token_id)

    def _render_reply(self, text: str) -> str:
        return self._render(
            [Message(role="user", content="a"), Message(role="assistant", content=text)], add_generation_prompt=False
        )

    def _reply_text(self, content: str) -> str:
        """A reply as the template writes it, up to its terminator."""
        return self._lead + (content.strip() if self._strips else content)

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        rows = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(
                rows, tokenize=False, chat_template=self.template, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(explain(self._template_place, self._template_file, f"is no Jinja template (line {error.lineno}: {error.message})",
                                     expected="a chat template", remedy="Fix that line, or use text.template: chatml")) from error  # fmt: skip
        except Exception as error:  # a template may raise anything, from Jinja errors to its own refusals
            roles = " / ".join(m.role for m in messages)
            raise DataError(explain(self._template_place, self._template_file, f"refused a conversation of {roles} ({error})",
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

    def encode_prompt(self, messages: Sequence[Message]) -> npt.NDArray[np.int64]:
        """Ids of a conversation up to where the assistant begins.

        Raises:
            DataError: a template that refuses the conversation or rewrites earlier turns.
        """
        pieces = self._pieces(messages, ends_open=True)
        return np.asarray(self._with_bos([token for ids, _ in pieces for token in ids]), dtype=np.int64)

    def encode_completion(self, text: str, *, finished: bool = True) -> npt.NDArray[np.int64]:
        """Ids of one reply, with the terminator unless it was cut off (`finished=False`)."""
        ids = self._encode_text(self._reply_text(text))
        return np.asarray([*ids, self.terminator_id] if finished else ids, dtype=np.int64)

    def encode_conversation(self, messages: Sequence[Message], *, last_turn_only: bool = False) -> EncodedConversation:
        """Ids and completion mask of a whole conversation; every assistant turn is learned (or only the last).

        Raises:
            DataError: no assistant turn, or a template that refuses the conversation or rewrites earlier turns.
        """
        pieces = list(self._pieces(messages, ends_open=False))
        if not pieces:
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
        for number, (piece, is_reply) in enumerate(pieces):
            ids += piece
            mask += [is_reply and (number == len(pieces) - 1 or not last_turn_only)] * len(piece)
            if number == 0:
                ids = self._with_bos(ids)
                mask = [False] * len(ids)
        return EncodedConversation(np.asarray(ids, dtype=np.int64), np.asarray(mask, dtype=np.bool_))

    def _pieces(self, messages: Sequence[Message], *, ends_open: bool) -> Iterator[tuple[list[int], bool]]:
        """Context, reply, context, reply, ... as (ids, is_reply); with a last context where a reply is to follow (`ends_open`)."""
        turns = [i for i, m in enumerate(messages) if m.role == "assistant"]
        start, written = 0, ""
        for turn in turns:
            ids, text = self._context(messages[:turn], start=start, written=written)
            yield ids, False
            yield [*self._encode_text(self._reply_text(messages[turn].content)), self.terminator_id], True
            start, written = turn + 1, text + self._reply_text(messages[turn].content)
        if ends_open:
            yield self._context(messages, start=start, written=written)[0], False

    def _context(self, messages: Sequence[Message], *, start: int, written: str) -> tuple[list[int], str]:
        """Ids of what the template writes between the last reply (which ends `written`) and the next, and all text so far."""
        if self.is_plain:
            return self._encode_text("".join(m.content for m in messages[start:])), ""
        text = self._render(messages, add_generation_prompt=True)
        if not text.startswith(written):
            raise DataError(explain(f"{self.name}: chat template", None, "rewrites or drops earlier turns when a later one is added",
                                    expected="an appending template", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
        ids = self._encode_text(text[len(written) :])
        if written:
            if ids[:1] != [self.terminator_id]:
                raise DataError(explain(f"{self.name}: chat template", None, "writes no terminator after an earlier reply",
                                        expected=f"token {self.terminator_id}", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
            ids = ids[1:]
        return ids, text

    def decode(self, token_ids: Sequence[int] | npt.NDArray[np.int64]) -> str:
        """Text of a completion without special tokens and without the white space that the template leads it in with."""
        text = self.tokenizer.decode([int(t) for t in token_ids], skip_special_tokens=True)
        return text.removeprefix(self._lead)

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
    chat.encode_between([(before, after)])    # ids between one assistant turn and the next, whatever was sampled there
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, ModelError, explain
from fairlead.core.records import Message

PLAIN = "plain"
_WINDOW = 32  # characters on each side of a boundary: more than any token, so a merge across it is seen
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text that is tokenised by itself."""

    text: str
    is_reply: bool = False
    follows_reply: bool = False


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

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides which ids a text becomes: the tokenizer with its settings, the template, the library's version."""
        self._encode_texts([])  # padding and truncation are switched off then, and are no part of the hash
        files = (
            self.tokenizer.backend_tokenizer.to_str()
            if self.tokenizer.is_fast
            else sorted(self.tokenizer.get_vocab().items())
        )
        versions = [importlib.metadata.version(name) for name in ("transformers", "tokenizers")]
        parts = (files, sorted(self.tokenizer.special_tokens_map.items()), self.tokenizer.bos_token_id,
                 self.tokenizer.split_special_tokens, self.template, self._lead, self._strips, self.terminator_id, versions)  # fmt: skip
        return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()[:32]

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
        self.terminator_id = next(
            (t for t in self._encode_texts([tail])[0] if t in special), self.tokenizer.eos_token_id
        )

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

    def _encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text. One call for many: the tokenizer shares them out among its own threads, with the same result."""
        if not self.tokenizer.is_fast:
            return [list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()  # some tokenizer files ask for one, and for padding
        backend.no_padding()
        backend.encode_special_tokens = self.tokenizer.split_special_tokens
        return [found.ids for found in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

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
        return self.encode_prompts([messages])[0]

    def encode_prompts(self, conversations: Sequence[Sequence[Message]]) -> list[npt.NDArray[np.int64]]:
        """`encode_prompt` of many, several times faster."""
        pieces = self._tokenise([self._pieces(messages, ends_open=True) for messages in conversations])
        return [np.asarray(self._with_bos([t for ids, _ in row for t in ids]), dtype=np.int64) for row in pieces]

    def encode_between(
        self, rows: Sequence[tuple[Sequence[Message], Sequence[Message]]]
    ) -> list[npt.NDArray[np.int64]]:
        """Ids that stand between a finished turn of the assistant and its next: what the template writes around what was said there.

        What the turn says takes no part, nor do earlier ones: a stand-in is rendered in their place, so nothing that was sampled is rendered
        or tokenised again. The ids begin after the turn's terminator.

        Args:
            rows: the conversation before the turn, and the messages after it.
        Raises:
            DataError: a template that refuses the conversation, rewrites earlier turns or writes no terminator.
        """
        texts = [self._between(before, after) for before, after in rows]
        pieces = [_Piece(text, follows_reply=not self.is_plain) for text in texts]
        found = [self._finish(piece, ids)[0] for piece, ids in zip(pieces, self._encode_texts(texts), strict=True)]
        return [np.asarray(ids, dtype=np.int64) for ids in found]

    def _between(self, before: Sequence[Message], after: Sequence[Message]) -> str:
        """What the template writes from the end of a turn that follows `before`, through `after`, to where the next turn begins."""
        if self.is_plain:
            return "".join(m.content for m in after)
        said = [Message(role="assistant", content=_PROBE) if m.role == "assistant" else m for m in before]
        start = self._render(said, add_generation_prompt=True) + self._reply_text(_PROBE)
        whole = self._render([*said, Message(role="assistant", content=_PROBE), *after], add_generation_prompt=True)
        return self._after(start, whole)

    def encode_completion(self, text: str, *, finished: bool = True) -> npt.NDArray[np.int64]:
        """Ids of one reply, with the terminator unless it was cut off (`finished=False`)."""
        return self.encode_completions([text], finished=finished)[0]

    def encode_completions(self, texts: Sequence[str], *, finished: bool = True) -> list[npt.NDArray[np.int64]]:
        """`encode_completion` of many, several times faster."""
        end = [self.terminator_id] if finished else []
        rows = self._encode_texts([self._reply_text(text) for text in texts])
        return [np.asarray(ids + end, dtype=np.int64) for ids in rows]

    def encode_conversation(self, messages: Sequence[Message], *, last_turn_only: bool = False) -> EncodedConversation:
        """Ids and completion mask of a whole conversation; every assistant turn is learned (or only the last).

        Raises:
            DataError: no assistant turn, or a template that refuses the conversation or rewrites earlier turns.
        """
        return self.encode_conversations([messages], last_turn_only=last_turn_only)[0]

    def encode_conversations(
        self, conversations: Sequence[Sequence[Message]], *, last_turn_only: bool = False
    ) -> list[EncodedConversation]:
        """`encode_conversation` of many, several times faster."""
        pieces = self._tokenise([self._pieces(messages, ends_open=False) for messages in conversations])
        return [self._conversation(row, last_turn_only=last_turn_only) for row in pieces]

    def _conversation(self, pieces: Sequence[tuple[list[int], bool]], *, last_turn_only: bool) -> EncodedConversation:
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

    def _tokenise(self, rows: Sequence[Sequence[_Piece]]) -> list[list[tuple[list[int], bool]]]:
        """(ids, is_reply) of each piece of each row."""
        ids = iter(self._encode_texts([piece.text for row in rows for piece in row]))
        return [[self._finish(piece, next(ids)) for piece in row] for row in rows]

    def _finish(self, piece: _Piece, ids: list[int]) -> tuple[list[int], bool]:
        """A reply gets its terminator; what follows one loses it there."""
        if piece.is_reply:
            return [*ids, self.terminator_id], True
        if not piece.follows_reply:
            return ids, False
        if ids[:1] != [self.terminator_id]:
            raise DataError(explain(f"{self.name}: chat template", None, "writes no terminator after an earlier reply",
                                    expected=f"token {self.terminator_id}", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
        return ids[1:], False

    def _pieces(self, messages: Sequence[Message], *, ends_open: bool) -> list[_Piece]:
        """Context, reply, context, reply, ...; with a last context where a reply is to follow (`ends_open`)."""
        found: list[_Piece] = []
        start, written = 0, ""
        for turn in (i for i, m in enumerate(messages) if m.role == "assistant"):
            piece, text = self._context(messages[:turn], start=start, written=written)
            reply = self._reply_text(messages[turn].content)
            found += [piece, _Piece(reply, is_reply=True)]
            start, written = turn + 1, text + reply
        if ends_open:
            found.append(self._context(messages, start=start, written=written)[0])
        return found

    def _context(self, messages: Sequence[Message], *, start: int, written: str) -> tuple[_Piece, str]:
        """What the template writes between the last reply (which ends `written`) and the next, and all text so far."""
        if self.is_plain:
            return _Piece("".join(m.content for m in messages[start:])), ""
        text = self._render(messages, add_generation_prompt=True)
        return _Piece(self._after(written, text), follows_reply=bool(written)), text

    def _after(self, written: str, text: str) -> str:
        """What a rendering adds to an earlier one."""
        if not text.startswith(written):
            raise DataError(explain(f"{self.name}: chat template", None, "rewrites or drops earlier turns when a later one is added",
                                    expected="an appending template", remedy="Use text.template: chatml or one turn a row"))  # fmt: skip
        return text[len(written) :]

    def without_special(self, text: str) -> str:
        """A text of others without the tokenizer's special tokens: what a tool prints must not end a turn or begin one."""
        marks = {
            str(t)
            for t in (
                *self.tokenizer.all_special_tokens,
                *(a for a in self.tokenizer.added_tokens_decoder.values() if a.special),
            )
        }
        before = ""
        while before != text:  # what is left of one may join into another
            before = text
            for mark in marks:
                text = text.replace(mark, "")
        return text

    def appends(self, prompt: Sequence[Message], reply: str) -> bool:
        """Does the template write the prompt in the same way whether a reply follows or not?"""
        if self.is_plain:
            return True
        whole = self._render([*prompt, Message(role="assistant", content=reply)], add_generation_prompt=False)
        return whole.startswith(self._render(prompt, add_generation_prompt=True) + self._reply_text(reply))

    def merges(self, rows: Sequence[tuple[Sequence[Message], str]]) -> list[bool]:
        """Would the tokenizer join the end of each prompt with the beginning of its reply, if it were given both as one text?

        They are tokenised apart all the same, as they are when a model is sampled.
        """
        texts: list[str] = []
        for prompt, reply in rows:
            before = self._pieces(prompt, ends_open=True)[-1].text[-_WINDOW:]
            after = self._reply_text(reply)[:_WINDOW]
            texts += [before + after, before, after]
        ids = self._encode_texts(texts)
        return [joint != left + right for joint, left, right in zip(ids[0::3], ids[1::3], ids[2::3], strict=True)]

    def decode(self, token_ids: Sequence[int] | npt.NDArray[np.int64]) -> str:
        """Text of a completion without special tokens and without the white space that the template leads it in with."""
        text = self.tokenizer.decode([int(t) for t in token_ids], skip_special_tokens=True)
        return text.removeprefix(self._lead)

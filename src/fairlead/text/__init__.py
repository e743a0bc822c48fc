"""Messages to tokens: chat templates with completion masks, and the layout of a batch of trees."""

from fairlead.text.chat import ChatText, EncodedConversation
from fairlead.text.examples import Encoded, encode_demonstrations, encode_labels, encode_preferences, with_mismatched
from fairlead.text.packing import Branch, Layout, Tree, pack_trees, plan_microbatches, unshare

__all__ = [
    "Branch",
    "ChatText",
    "Encoded",
    "EncodedConversation",
    "Layout",
    "Tree",
    "encode_demonstrations",
    "encode_labels",
    "encode_preferences",
    "pack_trees",
    "plan_microbatches",
    "unshare",
    "with_mismatched",
]

"""How much of one text stands in another: of a draft in the reply, of a reply in its edit. Linear in their lengths.

Example:
    share_standing("we are happy to help you", "We are happy to help you today")    # 1.0
"""

RUN = 3
"""Words in a row that count as taken over; single words are shared by any two texts."""


def share_standing(text: str, other: str) -> float:
    """Share of the words of `text` that lie in a run of three or more which `other` has too; shorter texts are one run.

    Returns:
        0 to 1; 0 where either has no word.
    """
    words, others = text.lower().split(), other.lower().split()
    if not words or not others:
        return 0.0
    run = min(RUN, len(words), len(others))
    known = {tuple(others[i : i + run]) for i in range(len(others) - run + 1)}
    standing = bytearray(len(words))
    for i in range(len(words) - run + 1):
        if tuple(words[i : i + run]) in known:
            standing[i : i + run] = b"\1" * run
    return sum(standing) / len(words)

"""Which cells the comparison of online steps has, in which order, and what is compared with what."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.offline.cell_plan import Cell

AGREE_ROUNDS = {"grpo": 10, "ppo": 3}
AGREE_TOLERANCE = 1e-4
AGREE_SETTINGS = {
    ("grpo", "ours"): "no_kl",
    ("grpo", "trl"): "fp32",
    ("ppo", "ours"): "default",
    ("ppo", "trl"): "fp32",
}
"""GRPO without KL: ours has the gradient of k2, TRL's that of k3 times the ratio, so that weights go apart."""

Sides = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One method on one size of model and of step."""

    name: str
    """As `--works` takes it."""
    size: str
    method: str
    prompts: int = 2
    """A step, with eight samples each."""
    new: int = 64
    """Tokens of a completion."""
    warmup: int
    """Steps before the timed ones."""
    steps: int
    wall_s: float
    """What a cell of the peer takes on two cores."""
    ours: tuple[str, ...] = ("default",)
    peer: tuple[str, ...]

    @property
    def sides(self) -> Sides:
        """Side and setting, in the order in which they alternate."""
        ours, peer = [("ours", s) for s in self.ours], [("trl", s) for s in self.peer]
        return tuple(x for i in range(max(len(ours), len(peer))) for x in (*ours[i : i + 1], *peer[i : i + 1]))

    @property
    def key(self) -> Cell:
        """What its cells have in common."""
        return {"work": self.name, "size": self.size, "method": self.method, "prompts": self.prompts, "new": self.new}


WORKS = (
    Work(name="S/grpo", size="S", method="grpo", warmup=6, steps=8, wall_s=50, ours=("default", "no_kl", "fp32"),
         peer=("bf16_kl", "bf16", "default", "fp32_kl", "fp32")),
    Work(name="S/ppo", size="S", method="ppo", warmup=1, steps=3, wall_s=65, ours=("default", "fp32"), peer=("bf16", "default", "fp32")),
    Work(name="S/grpo-large", size="S", method="grpo", prompts=8, new=128, warmup=1, steps=2, wall_s=80, peer=("bf16_kl",)),
    Work(name="M/grpo", size="M", method="grpo", warmup=1, steps=3, wall_s=90, peer=("bf16_kl",)),
)  # fmt: skip
AGREEING = {"S/grpo", "S/ppo"}
"""Works on which losses are compared, for their method."""


def planned(works: Iterable[Work], *, repeats: int) -> Iterator[tuple[Work, Cell]]:
    """All cells: losses first, then the timed ones repeat by repeat, so that a run that is cut off has compared everything."""
    works = list(works)
    for work in works:
        if work.name in AGREEING:
            for side in ("ours", "trl"):
                yield (
                    work,
                    {
                        **work.key,
                        "side": side,
                        "setting": AGREE_SETTINGS[work.method, side],
                        "agree": AGREE_ROUNDS[work.method],
                    },
                )
    for repeat in range(repeats):
        for work in works:
            for side, setting in work.sides:
                yield work, {**work.key, "side": side, "setting": setting, "repeat": repeat}


def difference(method: str, cells: Iterable[Cell]) -> float | None:
    """The largest relative difference of the losses (and norms of gradients) of a method in fp32; None until both sides are there."""
    found = {c["side"]: c for c in cells if c["method"] == method and "losses" in c}
    if set(found) != {"ours", "trl"}:
        return None
    names = [name for name in ("losses", "norms") if name in found["trl"]]
    pairs = [pair for name in names for pair in zip(found["ours"][name], found["trl"][name], strict=True)]
    return float(f"{max(abs(a - b) / abs(b) for a, b in pairs):.2g}")


def comparisons(work: Work, rates: dict[str, float]) -> list[tuple[str, str, str]]:
    """Our setting, the peer's, and in words what is compared; from the peer's median rates by setting.

    Of settings that do the same work the fastest by measurement is taken.
    """

    def best(words: str, *names: str) -> list[tuple[str, str]]:
        known = sorted((n for n in names if n in rates), key=rates.__getitem__, reverse=True)
        said = f"the fastest of {len(known)} settings measured" if len(known) > 1 else "its only setting measured"
        return [(known[0], f"{words}{said}")] if known else []

    is_default_known = [("default", "default", "each as it is")] if "default" in rates else []
    if work.method == "ppo":
        fastest = [("default", *found) for found in best("", *work.peer)]
        exact = [("fp32", *found[1:]) for found in fastest]
        return fastest + [row for row in is_default_known if fastest[0][1] != "default"] + exact
    same = best("the same KL in the loss, ", "bf16_kl", "fp32_kl")
    return [
        *((setting, *found) for setting in ("default", "fp32") for found in same),
        *(("no_kl", *found) for found in best("no KL in the loss, ", "bf16", "fp32", "default")),
        *is_default_known,
    ]

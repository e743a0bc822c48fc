"""Training methods as pure functions on tensors: one idea a file, one registry, one suite of property checks.

Adding one: a file with its config, `count`, `loss` and spec; a line in `ALGORITHMS`; a page in docs/algorithms; a
closed-form test. Outside this package: name it `your.module:SPEC`.
"""

from fairlead.algos.aot import AOT, AOT_UNPAIRED
from fairlead.algos.bco import BCO
from fairlead.algos.cispo import CISPO
from fairlead.algos.cpo import CPO
from fairlead.algos.dpo import APO_DOWN, APO_ZERO, CDPO, DISCOPOP, DPO, EXO, HINGE, IPO, NCA, ROBUST, SPPO
from fairlead.algos.grpo import DAPO, DR_GRPO, GRPO
from fairlead.algos.gspo import GSPO
from fairlead.algos.kto import KTO
from fairlead.algos.orpo import ORPO
from fairlead.algos.ppo import PPO
from fairlead.algos.process import PROCESS
from fairlead.algos.ranking import RANKING
from fairlead.algos.registry import find_algorithm
from fairlead.algos.regression import REGRESSION
from fairlead.algos.reinforce import REINFORCE_PP, REINFORCE_PP_BASELINE, REMAX, RLOO
from fairlead.algos.reward import REWARD
from fairlead.algos.sft import SFT
from fairlead.algos.simpo import SIMPO
from fairlead.algos.spec import Algorithm

ALGORITHMS: tuple[Algorithm, ...] = (
    SFT, REWARD, RANKING, REGRESSION, PROCESS, DPO, CDPO, ROBUST, IPO, HINGE, EXO, NCA, SPPO, APO_ZERO, APO_DOWN, DISCOPOP, ORPO, SIMPO, CPO,
    KTO, BCO, AOT, AOT_UNPAIRED, PPO, GRPO, DR_GRPO, DAPO, GSPO, CISPO, RLOO, REMAX, REINFORCE_PP, REINFORCE_PP_BASELINE,
)  # fmt: skip


def get_algorithm(name: str) -> Algorithm:
    """Return a method by its name in `ALGORITHMS`, or the one that `module:SPEC` names.

    Raises:
        ConfigError: no such name, module or spec.
    """
    return find_algorithm(name, ALGORITHMS)

"""Direct preference optimization, and by configuration cDPO, robust DPO, RPO and CPO.

With `h = d_w - d_l`, the log-ratios of `rlhf.losses.pairs`, per pair:

    L = -log sigmoid(beta h)                                                        DPO
    L = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)                       `smoothing: conservative`, cDPO
    L = [-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)] / (1 - 2 e)         `smoothing: robust`
    L + nll_coef * (-L_w / T_w)                                                     `nll_coef`, RPO

DPO: Rafailov et al. 2023 (arXiv 2305.18290), equation 7, with beta 0.1 as in TRL. cDPO (Mitchell 2023,
https://ericmitchell.ai/cdpo.pdf) takes every label for wrong with probability e; so it stops at a margin of `log((1 -
e) / e) / beta` instead of pushing on. Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409) is in expectation over such
flips the DPO loss of the true labels, and may be negative. RPO adds the loss of supervised training on the chosen
answer, per token of it, against likelihood displacement: Iterative RPO (Pang et al. 2024, arXiv 2404.19733, beta 0.1
and weight 1); TRL's `["sigmoid", "sft"]` divides by the tokens of the whole batch instead. `reference_free` with
`nll_coef: 1` is CPO (Xu et al. 2024, arXiv 2401.08417), which in TRL takes the same mean. RISE (Xu et al. 2024, arXiv
2410.06638) is DPO with beta 0.4 on the pairs of `rlhf.data.build.rise`; its paper adds the likelihood term with a
weight that it does not tell, its code has none.

What can go wrong: only the difference of two log-probs counts, so that both may fall (`logps/chosen_drift`), the more
so the more alike the two answers are; `nll_coef` or `apo_zero` hold the chosen one up. Sums over tokens favour long
answers where the chosen ones are longer; `dpo_norm` and `simpo` count per token.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf.core.errors import ConfigError
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Stream
from rlhf.losses import common, pairs

LABELS = pairs.LABELS
SMOOTHINGS = ("conservative", "robust")


@dataclass(frozen=True, kw_only=True)
class Config(pairs.PairConfig):
    """Settings of direct preference optimization."""

    label_smoothing: float = 0.0
    """Probability that a label is wrong, in [0, 0.5); cDPO uses up to 0.3, robust DPO 0.1."""
    smoothing: str = "conservative"
    """What a wrong label means for the loss: `conservative` (cDPO) or `robust`."""
    nll_coef: float = 0.0
    """Weight of the negative log-likelihood of the chosen answer, per token (RPO: 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        common.check_choice("smoothing", self.smoothing, SMOOTHINGS)
        pairs.check_coefficient("nll_coef", self.nll_coef)
        if not 0 <= self.label_smoothing < 0.5:
            problem = f"{self.label_smoothing} is no probability below a half, from which on labels say nothing"
            raise ConfigError("label_smoothing", problem, fix="use 0 to 0.3")


def denominator(cfg: Config) -> Denominator:
    """Pairs."""
    return Denominator.UNITS


def streams(cfg: Config) -> tuple[Stream, ...]:
    """Log-probs of the reference, unless there is none."""
    return cfg.streams


def zero_advantage_is_free(cfg: Config) -> bool:
    """No: there are no advantages, every pair has a gradient."""
    return False


def loss(forward: ForwardOut, batch: Batch, cfg: Config) -> LossOut:
    """The sum over pairs of the loss of the module docstring.

    Raises:
        ValueError: the batch holds something else than pairs, or a number that is not finite.
    """
    found = pairs.read(forward, batch, reference=not cfg.reference_free)
    preference_B = _preference(cfg.beta * found.margin_B, cfg)
    nll_B = -found.chosen.mean_B
    loss_B = preference_B + cfg.nll_coef * nll_B if cfg.nll_coef else preference_B
    parts = {"preference_loss": loss_B} | ({"nll_loss": nll_B} if cfg.nll_coef else {})
    metrics = pairs.measure(
        parts,
        found,
        forward,
        chosen_B=cfg.beta * found.chosen.ratio_B,
        rejected_B=cfg.beta * found.rejected.ratio_B,
    )
    return LossOut(total=loss_B.sum(), metrics=metrics)


def _preference(logits_B: Tensor, cfg: Config) -> Tensor:
    e = cfg.label_smoothing
    right_B, flipped_B = -logsigmoid(logits_B), -logsigmoid(-logits_B)
    if cfg.smoothing == "robust":
        return ((1 - e) * right_B - e * flipped_B) / (1 - 2 * e)
    return (1 - e) * right_B + e * flipped_B

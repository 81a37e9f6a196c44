"""Is the native attack as strong as it could be: worst case over attacks, unbounded radius, more steps, more restarts?"""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case, budget_of
from nodestill.attacks.audit.verdict import CheckResult, Verdict, of_share, share_result
from nodestill.attacks.budget import LinfBudget, paper_budget
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.hunt import Effort, Hunt
from nodestill.attacks.momentum import mi_fgsm
from nodestill.attacks.rows import AttackName
from nodestill.attacks.sound import WorstCase, hunt_down
from nodestill.attacks.subject import wrong
from nodestill.data import eval_batches

_WORST_CASE = (AttackName.PGD, AttackName.MI_FGSM, AttackName.APGD_CE, AttackName.APGD_DLR, AttackName.FMN)
_ENOUGH = 20  # survivors from which their classes say something


def worst_case(case: Case) -> CheckResult:
    """By how much does the paper's protocol overstate robustness at this radius? (4)"""
    paper = case.right & ~_fooled_by_paper(case)
    attacks = tuple(a for a in _WORST_CASE if a is not AttackName.APGD_DLR or case.logits.shape[1] >= 4)
    state = WorstCase(torch.where(case.right, 256, 0), ("",) * len(case.data))
    hunt = Hunt(case.subject, case.data, case.batch_size, effort_of(case), case.seed)
    for row in hunt_down(hunt, attacks, [case.eps_255], state=state):
        state = state.after(row)
    overstated = int((paper & ~state.robust(case.eps_255)).sum())
    robust = {"chu2022": int(paper.sum()), "worst case": int(state.robust(case.eps_255).sum())}
    fell = [by for by, radius in zip(state.by, state.radius_255.tolist()) if 0 < radius <= case.eps_255]
    counts = {name: fell.count(name) for name in sorted({*fell})}
    what = (
        f"are robust under the paper's protocol at {case.eps_255}/255, but fall to another attack ({robust['chu2022']} robust "
        f"there, {robust['worst case']} in the worst case)"
    )
    details = {"robust": robust, "fell to": counts}
    warn = limits.PROTOCOL_GAP_WARN
    return share_result(
        "worst-case", overstated, len(case.data), case.limit(limits.PROTOCOL_GAP), what, warn=warn, details=details
    )


def effort_of(case: Case) -> Effort:
    """Return the effort of the protocol `sound` at the case's tier."""
    tier = case.tier
    return Effort(tier.steps, tier.apgd_steps, tier.targets, tier.minimum_norm_steps, tier.queries)


def _fooled_by_paper(case: Case) -> Bool[Tensor, " count"]:
    """Return which images either attack of the paper's protocol leaves misclassified at its last iterate."""
    budget, fooled = paper_budget(case.eps_255), []
    for batch in eval_batches(case.data, case.batch_size):
        first = pgd(case.subject.logits, batch.images, batch.labels, budget, keys=batch.index, seed=case.seed)
        second = mi_fgsm(case.subject.logits, batch.images, batch.labels, budget)
        fooled.append(first.fooled | second.fooled)
    return torch.cat(fooled)


def unbounded(case: Case) -> CheckResult:
    """Does accuracy reach zero where the radius admits every image? (6)"""
    left, remaining = case.right.clone(), {}
    for eps in (64, 128, 255):
        budget = LinfBudget(eps, 16 if eps < 255 else 32, max(case.tier.steps, 20))
        for batch in case.batches(left):
            made = pgd(
                case.subject.logits, batch.images, batch.labels, budget, keys=batch.index, seed=case.seed, until_fooled=True
            )
            left[batch.index] &= ~wrong(case.subject, made.images, batch.labels)
        remaining[f"{eps}/255"] = int(left.sum())
    hits, count = remaining["255/255"], int(case.right.sum())
    what = (
        "are still right at a radius of 255/255, where any image may become any other and only an attack that fails leaves one"
    )
    return share_result("unbounded-radius", hits, count, case.limit(limits.LEFT_UNBOUNDED, count), what, details=remaining)


def collapse(case: Case) -> CheckResult:
    """Are the survivors spread over the classes, as the right clean images are? (6)"""
    survivors = _per_class(case, case.survivors)
    clean, total = _per_class(case, case.right), int(case.survivors.sum())
    top = survivors.topk(min(2, len(survivors))).indices
    share, expected = float(survivors[top].sum()) / max(total, 1), float(clean[top].sum()) / max(int(clean.sum()), 1)
    same = len({*case.clean.tolist()}) == 1
    collapsed = total >= _ENOUGH and len(survivors) > 4 and share > limits.COLLAPSED and expected < limits.COLLAPSED - 0.2
    verdict = Verdict.FAIL if same or collapsed else Verdict.PASS  # of few survivors nothing is claimed
    names = " and ".join(case.data.class_names[i] for i in top.tolist())
    meaning = (
        f"{share:.0%} of {total} survivors are of {names}, against {expected:.0%} of the right clean images. "
        + ("All clean images get one class: the model is a constant. " if same else "")
        + "A model that answers with one class under attack is not robust in it."
    )
    details = {"survivors by class": survivors.tolist(), "right by class": clean.tolist()}
    return CheckResult("class-collapse", verdict, share, limits.COLLAPSED, "of the survivors", meaning, total, details)


def _per_class(case: Case, chosen: Bool[Tensor, " count"]) -> Int64[Tensor, " classes"]:
    return torch.bincount(case.data.labels[chosen].cpu(), minlength=case.data.num_classes)


def more_effort(case: Case) -> CheckResult:
    """Do more steps or restarts fool more? (7)"""
    same = lambda images: case.subject.logits  # noqa: E731
    steps = case.budget.steps
    tried = {f"{factor} x steps": case.fooled_along(same, budget_of(case.eps_255, factor * steps)) for factor in (2, 4)}
    restarted = torch.zeros_like(case.fooled)
    for restart in range(1, case.tier.restarts + 1):
        restarted |= case.fooled_along(same, case.budget, seed=case.seed + restart)
    tried[f"{case.tier.restarts} restarts"] = restarted
    small = LinfBudget(case.eps_255, 1, max(2 * case.eps_255, steps))
    tried["steps of 1/255"] = case.fooled_along(same, small)
    counts = {name: int(found.sum()) for name, found in tried.items()}
    hits, name = max((count, name) for name, count in counts.items())
    what = f"fall if the native attack tries harder ({name})"
    return share_result("attack-converged", hits, len(case.data), case.limit(limits.STRONGER_BUDGET), what, details=counts)


def monotone(case: Case) -> CheckResult:
    """Does accuracy fall as the radius grows? More room can only help an attack that uses it. (6)"""
    rises, previous, curve = 0, int(case.right.sum()), {"0": int(case.right.sum())}
    for eps in sorted({max(1, case.eps_255 // 2), case.eps_255, 2 * case.eps_255, 4 * case.eps_255}):
        fooled = _fooled_natively(case, min(eps, 255))
        robust = int((case.right & ~fooled).sum())
        rises, previous, curve[str(eps)] = max(rises, robust - previous), robust, robust
    verdict = of_share(max(rises, 0), len(case.data), case.limit(limits.STRONGER_BUDGET))
    meaning = f"From one radius to the next at most {max(rises, 0)} images more survive. " + ", ".join(
        f"{robust} at {eps}/255" for eps, robust in curve.items()
    )
    share = max(rises, 0) / len(case.data)
    return CheckResult(
        "monotone", verdict, share, case.limit(limits.STRONGER_BUDGET), "share of images", meaning + ".", len(case.data), curve
    )


def _fooled_natively(case: Case, eps_255: int) -> Bool[Tensor, " count"]:
    """Return which images the native attack fools at another radius."""
    budget, found = budget_of(eps_255, case.tier.steps), []
    for batch in eval_batches(case.data, case.batch_size):
        made = case.attack(case.subject.logits, batch, budget, case.seed).images
        found.append(wrong(case.subject, made, batch.labels))
    return torch.cat(found)

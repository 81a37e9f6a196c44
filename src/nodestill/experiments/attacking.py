"""An attack on one model, ours or anybody's, under either protocol."""

import re
from collections.abc import Sequence

from nodestill.attacks import ALL_ATTACKS, AttackName, Protocol, robustness_sweep
from nodestill.errors import InputError, RecipeError
from nodestill.experiments.alone import alone_in
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.attacked import Attacked
from nodestill.experiments.plain import to_plain, with_overrides
from nodestill.experiments.processes import Watch
from nodestill.experiments.stages import attack_key, attack_run
from nodestill.experiments.workspace import Workspace
from nodestill.experiments.worst_case import attack_soundly


def asked_attack(
    changes: Sequence[tuple[str, str]], images: int | None, batch_size: int, attacked: Attacked
) -> RobustnessRecipe:
    """Return the attack that a command line asks for; without named attacks, all that the protocol and the model admit.

    Args:
        changes: Fields of `RobustnessRecipe` as text: protocol, eps_255, attacks.
        images: Number of test images, or none for all.
        batch_size: Images attacked at a time.
        attacked: The model.

    Raises:
        InputError: If a value is out of range; names the flag.
    """
    all_that_fit = ",".join(attack.value for attack in fitting_attacks(attacked))
    if dict(changes).get("protocol") == Protocol.SOUND.value and "attacks" not in dict(changes):
        changes = [*changes, ("attacks", all_that_fit)]
    try:
        return with_overrides(RobustnessRecipe(images=images, batch_size=batch_size), changes)
    except RecipeError as error:
        said = _FIELD.sub(lambda found: _FLAGS[found[1]], str(error))
        raise InputError(f"{said} Radii count 1/255: 8 means 8/255." if said.startswith("--eps") else said) from None


_FLAGS = {
    "protocol": "--protocol",
    "attacks": "--attacks",
    "eps_255": "--eps",
    "images": "--images",
    "batch_size": "--batch-size",
}
_FIELD = re.compile(rf"^(?:\w+\.)?({'|'.join(_FLAGS)})(?:\[\d+\])?(?= )")  # a sentence on a field begins with its path


def fitting_attacks(attacked: Attacked) -> tuple[AttackName, ...]:
    """Return the attacks of the protocol sound that make sense on a model: with relatives, with enough classes."""
    left_out = {AttackName.TRANSFER} if not attacked.kin else set()
    left_out |= {AttackName.APGD_DLR} if attacked.data.num_classes < 4 else set()
    return tuple(attack for attack in ALL_ATTACKS if attack not in left_out)


def attack_model(attacked: Attacked, asked: RobustnessRecipe, workspace: Workspace) -> str:
    """Attack a model and keep the rows in its folder; what is there already is not made again.

    Returns:
        The fingerprint that marks the rows.
    """
    if asked.protocol is Protocol.SOUND:
        attack_soundly(attacked, asked, workspace.watch)
        return attacked.key(asked)
    if not attacked.weights:
        attack_run(attacked.folder, asked, workspace, attacked.identity, lambda: attacked.data)
        return attack_key(asked, attacked.identity)
    return attack_by_the_paper(attacked, asked, workspace.watch)


def attack_by_the_paper(attacked: Attacked, asked: RobustnessRecipe, watch: Watch) -> str:
    """Attack a model under the protocol chu2022, one row of robustness.jsonl after the other.

    Returns:
        The fingerprint that marks the rows.
    """
    key = attacked.key(asked)
    with alone_in(attacked.folder.path):
        _attack_by_the_paper(attacked, asked, key, watch)
    return key


def _attack_by_the_paper(attacked: Attacked, asked: RobustnessRecipe, key: str, watch: Watch) -> None:
    folder = attacked.folder
    known = [row for row in folder.rows("robustness.jsonl", "recipe", "attack", "eps_255") if row["recipe"] == key]
    done = {(AttackName(row["attack"]), row["eps_255"]) for row in known}
    data = attacked.data if asked.images is None else attacked.data.first(asked.images)
    total, task = len(asked.attacks) * len(asked.eps_255), f"attack {attacked.title}"
    rows = robustness_sweep(
        attacked.subject, data, asked.protocol, asked.attacks, asked.eps_255, asked.batch_size, seed=asked.seed, done=done
    )
    watch(task, len(done), total, "")
    for number, row in enumerate(rows, len(done) + 1):
        folder.append("robustness.jsonl", {**to_plain(row), "recipe": key, "data": attacked.identity.provenance})
        watch(task, number, total, f"{row.attack} {row.eps_255}/255")

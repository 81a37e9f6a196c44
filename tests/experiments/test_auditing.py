"""Audits and worst cases of finished runs and of anybody's file: rows as they come, resume, tables, pictures, verdicts."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tiny
from nodestill.attacks import ALL_ATTACKS, AttackName, Effort, Protocol
from nodestill.attacks.audit import CHECKS, Tier, Verdict
from nodestill.errors import AuditFailed, InputError, TimeUp
from nodestill.experiments import (
    AuditRecipe,
    RobustnessRecipe,
    Store,
    Workspace,
    asked_attack,
    asked_audit,
    asked_verdict,
    attack_model,
    attacked_model,
    audit_model,
    read_audit,
    require_verdict,
    run,
)
from nodestill.report import write_audit_report

TIER = Tier("tiny", images=24, steps=4, restarts=1, apgd_steps=4, targets=1, minimum_norm_steps=4, queries=6, noise=2)
ASKED = AuditRecipe(TIER, 8, (0, 8), 12)
CHEAP = tuple(name for name in CHECKS if name not in ("gradient-paths", "attack-converged", "saturation"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The store of the tiny experiment, run once."""
    made = Workspace(Store(tmp_path_factory.mktemp("store")), accelerator="cpu")
    assert run(tiny.recipe(), made)
    return made


def net_file(folder, scale=1.0):
    path = folder / "mine.py"
    path.write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        f"    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).float()\n"
        f"    net[1].weight.data *= {scale}\n"
        "    return net\n"
    )
    return f"{path}:build"


def test_an_audit_has_a_row_for_every_check_and_does_nothing_twice(workspace):
    attacked = attacked_model("tiny", workspace, None)
    assert set(attacked.kin) == {"teacher", "undistilled", "stem-only"}
    audited = audit_model(attacked, ASKED, workspace.watch)
    rows = attacked.folder.rows("audit.jsonl")
    assert {row["name"] for row in rows} == set(CHECKS)
    assert {result.name for result in audited.results} == {row["name"] for row in rows if row["verdict"] is not None}
    before = tiny.contents(attacked.folder.path)
    again = audit_model(attacked, ASKED, workspace.watch)
    assert [(r.name, r.verdict, r.measured) for r in again.results] == [
        (r.name, r.verdict, r.measured) for r in audited.results
    ]
    after = tiny.contents(attacked.folder.path)
    assert {name for name in after if after[name] != before[name]} <= {f"{'audit.json'}"}


def test_an_audit_that_was_stopped_goes_on(workspace):
    asked = replace(ASKED, seed=3, checks=CHEAP[:10])
    attacked = attacked_model("tiny:teacher", workspace, None)

    def stop(task: str, done: int, total: int, note: str) -> None:
        if note == "planted":
            raise TimeUp("stopped by the test")

    with pytest.raises(TimeUp):
        audit_model(attacked, asked, stop)
    key = attacked.key(asked, *attacked.relatives)
    made = [row["name"] for row in attacked.folder.rows("audit.jsonl") if row["recipe"] == key]
    assert made == list(CHEAP[: CHEAP.index("planted")])
    audited = audit_model(attacked, asked, workspace.watch)
    assert [result.name for result in audited.results] == list(CHEAP[:10])


def test_the_report_says_what_the_rows_say(workspace, tmp_path):
    attacked = attacked_model("tiny", workspace, None)
    audited = audit_model(attacked, ASKED, workspace.watch)
    page = write_audit_report(read_audit(attacked.folder), tmp_path)
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    assert audited.verdict.value in html
    assert page.with_suffix(".report.json").exists()
    for result in audited.results:
        assert f"| {result.name} | {result.verdict.value.upper()} |" in markdown
        assert result.name in html
    for row in read_audit(attacked.folder).worst:
        assert f"{100 * row['robust_accuracy']:.1f} %" in markdown
    assert "http" not in html.replace("http://www.w3.org", "")


def test_a_worst_case_keeps_a_table_of_images_and_pictures(workspace):
    asked = RobustnessRecipe(
        Protocol.SOUND, (AttackName.MI_FGSM, AttackName.FMN), (0, 8, 64), 20, 10, effort=Effort(4, 4, 1, 8, 5)
    )
    attacked = attacked_model("tiny:undistilled", workspace, None)
    key = attack_model(attacked, asked, workspace)
    table = pq.read_table(attacked.folder.path / f"images-{key}.parquet").to_pylist()
    curve = {r["eps_255"]: r["robust"] for r in attacked.folder.rows("robustness.jsonl") if r["recipe"] == key}
    for eps, robust in curve.items():
        assert robust == sum(one["smallest_fooling_eps_255"] is None or one["smallest_fooling_eps_255"] > eps for one in table)
    kept = [one for one in table if one["picture"]]
    assert kept or curve[64] == curve[0]
    for one in kept:
        with Image.open(attacked.folder.path / f"adversarial-{key}" / one["picture"]) as picture:
            assert picture.size == (8, 8)
        assert f"eps{one['smallest_fooling_eps_255']}-{one['fell_to']}" in one["picture"]


def test_a_recipe_may_ask_for_the_worst_case(workspace):
    worst = RobustnessRecipe(Protocol.SOUND, (AttackName.MI_FGSM,), (0, 8), 10, 10, effort=Effort(4, 4, 1, 8, 5))
    assert run(tiny.recipe(robustness=worst), workspace)
    attacked = attacked_model("tiny", workspace, None)
    rows = [row for row in attacked.folder.rows("robustness.jsonl") if row["protocol"] == "sound" and row["images"] == 10]
    assert [(row["attack"], row["eps_255"]) for row in rows] == [("worst-case", 0), ("worst-case", 8)]
    assert run(tiny.recipe(robustness=worst), workspace) is False


def test_anybodys_model_is_attacked_and_audited(workspace, tmp_path):
    attacked = attacked_model(net_file(tmp_path), workspace, "digits")
    assert not attacked.kin
    audited = audit_model(
        attacked, replace(ASKED, checks=("finite-logits", "gradient-flow", "transfer", "latency")), workspace.watch
    )
    assert {result.name: result.verdict for result in audited.results} == {
        "finite-logits": Verdict.PASS,
        "gradient-flow": Verdict.INCONCLUSIVE,  # 24 images
    }
    assert not (attacked.folder.path / "robustness.jsonl").exists()  # only these checks were asked for
    assert "without --checks they are made" in write_audit_report(read_audit(attacked.folder), tmp_path).read_text()
    other = attacked_model(net_file(tmp_path, 2.0), workspace, "digits")
    assert other.folder == attacked.folder
    assert other.key(ASKED) != attacked.key(ASKED)  # rows of other weights are not taken for this model's


def test_the_same_file_is_the_same_folder_however_it_is_named(workspace, tmp_path, monkeypatch):
    absolute = attacked_model(net_file(tmp_path), workspace, "digits")
    monkeypatch.chdir(tmp_path)
    assert attacked_model("mine.py:build", workspace, "digits").folder == absolute.folder
    assert attacked_model(f"../{tmp_path.name}/mine.py:build", workspace, "digits").folder == absolute.folder


def test_anybodys_model_needs_its_images_named(workspace, tmp_path):
    with pytest.raises(InputError, match="--dataset"):
        attacked_model(net_file(tmp_path), workspace, None)


def test_rows_of_other_relatives_are_made_again(workspace):
    asked = RobustnessRecipe(Protocol.SOUND, (AttackName.TRANSFER,), (0, 8), 20, 10, effort=Effort(4, 4, 1, 8, 5))
    attacked = attacked_model("tiny:stem-only", workspace, None)
    key = attack_model(attacked, asked, workspace)
    fewer = replace(attacked, kin={"teacher": attacked.kin["teacher"]}, relatives=attacked.relatives[:1])
    assert attack_model(fewer, asked, workspace) == key
    rows = [row for row in attacked.folder.rows("robustness.jsonl") if row["recipe"] == key]
    assert [(row["eps_255"], row["relatives"]) for row in rows] == [(0, [fewer.relatives[0]]), (8, [fewer.relatives[0]])]


def test_a_model_without_gradient_is_audited_all_the_same(workspace, tmp_path):
    path = tmp_path / "detached.py"
    path.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.norm, self.head = torch.nn.BatchNorm2d(3), torch.nn.Linear(192, 10)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.norm(x.detach()).flatten(1))\n"
    )
    attacked = attacked_model(f"{path}:Net", workspace, "digits")
    audited = audit_model(attacked, ASKED, workspace.watch)
    verdicts = {result.name: result.verdict for result in audited.results}
    assert (verdicts["gradient-flow"], verdicts["planted"]) == (Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert "differentiably" in read_audit(attacked.folder).summary["failed"]
    assert "could not be made" in write_audit_report(read_audit(attacked.folder), tmp_path).with_suffix(".md").read_text()


def test_a_model_of_other_classes_is_refused(workspace, tmp_path):
    path = tmp_path / "five.py"
    path.write_text("import torch\nnet = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))\n")
    with pytest.raises(InputError, match="10 classes"):
        attacked_model(f"{path}:net", workspace, "digits")
    with pytest.raises(InputError, match="Leave it out"):
        attacked_model("tiny", workspace, "digits")


def test_what_an_attack_is_asked_for(workspace):
    attacked = attacked_model("tiny", workspace, None)
    sound = asked_attack([("protocol", "sound")], 10, 10, attacked)
    assert sound.attacks == ALL_ATTACKS
    assert asked_attack([], None, 10, attacked).attacks == (AttackName.PGD, AttackName.MI_FGSM)
    with pytest.raises(InputError, match="--attacks must be among pgd, mi-fgsm"):
        asked_attack([("attacks", "square")], None, 10, attacked)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("large", None, None, 64, 0), "quick, standard, full"),
        (("quick", 300, None, 64, 0), "1 ... 255"),
        (("quick", 8, "planned", 64, 0), "planted"),
        (("quick", 8, None, 0, 0), "batch-size"),
        (("quick", 8, ",", 64, 0), "at least one"),
        (("quick", 8, "planted,planted", 64, 0), "each once"),
    ],
)
def test_an_audit_that_cannot_be_meant_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        asked_audit(*arguments)


def test_a_verdict_may_be_required(workspace):
    attacked = attacked_model("tiny", workspace, None)
    audited = audit_model(attacked, ASKED, workspace.watch)
    require_verdict(audited, asked_verdict(None))
    worse = [result for result in audited.results if result.verdict is not Verdict.PASS]
    assert worse
    with pytest.raises(AuditFailed, match=worse[0].name):
        require_verdict(audited, asked_verdict("WARN"))
    passed = replace(audited, results=tuple(result for result in audited.results if result.verdict is Verdict.PASS))
    require_verdict(passed, asked_verdict("warn"))
    warned = replace(audited, results=(replace(worse[0], verdict=Verdict.WARN),))
    require_verdict(warned, asked_verdict("inconclusive"))
    with pytest.raises(InputError, match="fail, inconclusive, warn"):
        asked_verdict("pass")


def test_the_weights_are_as_they_were(workspace):
    attacked = attacked_model("tiny", workspace, None)
    before = {name: value.clone() for name, value in attacked.subject.module.state_dict().items()}
    audit_model(attacked, replace(ASKED, seed=9, checks=("gradient-quality", "planted")), workspace.watch)
    assert all(torch.equal(value, before[name]) for name, value in attacked.subject.module.state_dict().items())

"""The race: the same work for all, nothing finished lost, failures told, an honest verdict."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.training import race
from evenhand.training.fitting import DivergedError, Recipe, fit
from evenhand.training.racing.board import Board, HopelessPruner, Result
from evenhand.training.racing.judging import Judge
from evenhand.training.racing.plan import make_plan, parse_budget
from evenhand.training.racing.verdict import leaderboard
from evenhand.training.remedies import PLAIN, REMEDIES, Remedy
from evenhand.training.rows import TensorRows

K = 8
ROWS = np.array([240, 120, 60, 40, 24, 16, 12, 10])
Part = tuple[Tensor, Tensor]


def rows_of(seed: int, counts: np.ndarray = ROWS) -> Part:
    centre = np.random.default_rng(1).normal(size=(K, 5)) * 1.1
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(K), counts))
    return torch.tensor(centre[y] + rng.normal(size=(len(y), 5)), dtype=torch.float32), torch.tensor(y)


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    return rows_of(0), rows_of(1, 2 * ROWS)


def small_race(parts: tuple[Part, Part], **options):
    return race("mlp", *parts, **({"remedies": "weighted,crt", "seeds": 2, "budget": "40steps"} | options))


def test_a_race_is_repeatable_and_tells_everything(parts: tuple[Part, Part]) -> None:
    found, again = small_race(parts), small_race(parts)
    first, second = (result.to_dict() for result in (found, again))
    for one in (first, second):
        del one["time"]
        for entry in one["leaderboard"]:
            del entry["seconds"]
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert first["schema"] == "evenhand.race/1"
    assert first["trainings"] == {"finished": 6, "stopped": 0, "failed": 0, "reused": 0}
    assert sum(first["rows"][half] for half in ("choosing", "judging")) == 2 * ROWS.sum()
    names = {entry["candidate"] for entry in first["leaderboard"]}
    assert names == {f"{remedy}{more}" for remedy in ("plain", "weighted", "crt") for more in ("", " + correction")}
    values = [entry["value"]["value"] for entry in first["leaderboard"]]
    assert values == sorted(values, reverse=True)
    weighted = next(entry for entry in first["leaderboard"] if entry["candidate"] == "weighted")
    assert set(weighted["metrics"]) >= {"head", "medium", "tail", "nll", "ece", "count_distance"}
    low, high = weighted["tau_interval"]
    assert low < weighted["tau"] < high
    assert first["verdict"]["candidate"] in names


def test_the_leaderboard_is_what_the_decisions_say(parts: tuple[Part, Part], tmp_path: Path) -> None:
    """Balanced accuracy, difference and halves, worked out anew from the decisions kept on disk."""
    found = small_race(parts, folder=tmp_path, remedies="weighted")
    y = parts[1][1].numpy()
    held = [dict(np.load(path)) for path in sorted((tmp_path / "runs").glob("*.npz"))]
    plain, weighted = [held[i]["raw"] for i in (0, 2)], [held[i]["raw"] for i in (1, 3)]
    from evenhand.counts import ClassCounts
    from evenhand.training.racing.judging import Judge

    judge = Judge.halved(y, ClassCounts.from_counts(ROWS), "balanced-accuracy")
    rows = ~judge.choosing
    assert abs(int(rows.sum()) - len(y) / 2) < K

    def balanced(decided: np.ndarray) -> float:
        return float(np.mean([(decided[rows] == k)[y[rows] == k].mean() for k in range(K)]))

    entry = {e["candidate"]: e for e in found.to_dict()["leaderboard"]}
    expected = np.mean([balanced(d) for d in weighted])
    assert entry["weighted"]["value"]["value"] == pytest.approx(expected)
    difference = expected - np.mean([balanced(d) for d in plain])
    assert entry["weighted"]["difference_to_plain"]["value"] == pytest.approx(difference)


def test_no_correction_has_seen_the_row_it_decides(parts: tuple[Part, Part], monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.training.racing import judging

    fits: list[set[bytes]] = []
    real = judging.fit_correction

    def watched(logits, target, **options):
        fitted = real(logits, target, **options)
        seen = {row.tobytes() for row in logits}
        decide = type(fitted).predict

        class Watched:
            def __getattr__(self, name):
                return getattr(fitted, name)

            def predict(self, scores):
                assert not seen & {row.tobytes() for row in scores}
                return decide(fitted, scores)

        fits.append(seen)
        return Watched()

    monkeypatch.setattr(judging, "fit_correction", watched)
    small_race(parts, remedies="weighted", seeds=1)
    assert len(fits) == 2  # the choosing rows are decided by the folds of the same fit, which have not seen them


def test_groups_stay_on_one_side_of_every_fit(parts: tuple[Part, Part], monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.training.racing import judging

    group = np.arange(len(parts[1][1])) // 2
    given: list[np.ndarray] = []
    real = judging.fit_correction

    def watched(logits, target, **options):
        given.append(options["group"])
        return real(logits, target, **options)

    monkeypatch.setattr(judging, "fit_correction", watched)
    small_race(parts, remedies="weighted", seeds=1, group=group)
    assert len(given) == 2
    assert all(len(np.unique(half, return_counts=True)[1]) == len(half) / 2 for half in given)


class Failing(nn.Module):
    """Fails on the trainings that are named, in the way that is named."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.head = nn.Linear(5, K)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        return self.head(x)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("tried to allocate 20 GiB"), "out of memory (tried to allocate 20 GiB)"),
        (RuntimeError("CUDA error: out of memory"), "out of memory (CUDA error: out of memory)"),
        (MemoryError(), "out of memory"),
        (RuntimeError("shapes do not fit"), "shapes do not fit"),
    ],
)
def test_a_training_that_fails_is_told_and_the_race_goes_on(
    error: BaseException, told: str, parts: tuple[Part, Part]
) -> None:
    built: list[int] = []

    def model_fn() -> nn.Module:
        built.append(1)
        return Failing(error if len(built) in (2, 4) else None)

    result = race(model_fn, *parts, remedies="weighted,focal", seeds=2, budget="30steps")
    entry = next(entry for entry in result.entries if entry.why)
    assert told in entry.why
    assert result.trainings["failed"] == 2
    assert result.trainings["finished"] == 4
    assert told in str(result)
    assert told in result.html()


def test_a_loss_that_becomes_nan_is_told(parts: tuple[Part, Part]) -> None:
    class Exploding(Failing):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (torch.nan if self.broken else 1.0)

    built: list[int] = []

    def model_fn() -> nn.Module:
        model = Exploding(None)
        built.append(1)
        model.broken = len(built) == 2
        return model

    result = race(model_fn, *parts, remedies="weighted", seeds=1, budget="30steps")
    assert "the loss became nan" in next(entry.why for entry in result.entries if entry.remedy == "weighted")


def test_all_failing_is_an_error_with_the_reason(parts: tuple[Part, Part]) -> None:
    with pytest.raises(InputError, match="all failed; plain: no way"):
        race(lambda: Failing(RuntimeError("no way")), *parts, remedies="weighted", seeds=1, budget="5steps")


def test_a_model_with_other_outputs_is_an_error(parts: tuple[Part, Part]) -> None:
    with pytest.raises(InputError, match="plain: expected 8 classes"):
        race(lambda: nn.Linear(5, K + 2), *parts, remedies="plain", seeds=1, budget="5steps")


def test_hopeless_trainings_are_stopped_and_plain_never_is(parts: tuple[Part, Part]) -> None:
    built: list[int] = []

    def model_fn() -> nn.Module:
        model = Failing(None)
        built.append(1)
        if len(built) > 1 and len(built) % 2 == 0:  # every second training cannot learn
            model.head.requires_grad_(False)
            model.idle = nn.Parameter(torch.zeros(1))
            nn.init.zeros_(model.head.weight)
            model.forward = lambda x: model.head(x) + 0 * model.idle  # type: ignore[method-assign]
        return model

    result = race(model_fn, *parts, remedies="weighted", seeds=3, budget="80steps")
    stopped = next(entry for entry in result.entries if entry.remedy == "weighted")
    assert "far below plain training after 50% of the training" in stopped.why
    assert result.trainings == {"finished": 3, "stopped": 2, "failed": 0, "reused": 0}
    assert len(built) == 5  # after two seeds the third is spared


def test_the_pruner_keeps_what_is_near(parts: tuple[Part, Part]) -> None:
    board = Board(None, {"steps": 40}, "plain")
    rungs = {
        "plain": (0.40, 0.50, 0.55),
        "near": (0.35, 0.45, 0.50),
        "far": (0.10, 0.12, 0.12),
        "slow to begin": (0.10, 0.32, 0.50),  # 18 points behind half-way, but 30 before: level at the end
        "falling back": (0.36, 0.30, 0.30),
        "slowing down": (0.05, 0.30, 0.35),
    }
    stopped: dict[str, int | None] = dict.fromkeys(rungs)
    for name, values in rungs.items():
        ticket = board.claim([(name, 0)])
        for step, value in zip((10, 20, 30), values, strict=True):
            if board.report(ticket, step, value, 0.02):
                stopped[name] = step
                break
    assert stopped == dict.fromkeys(rungs) | {"far": 20, "falling back": 20, "slowing down": 30}
    assert isinstance(board.study.pruner, HopelessPruner)


def test_the_error_at_a_rung_is_that_of_the_goal() -> None:
    """Of a coin, 200 rows of one class and 4 of each of 10: almost all of the error is that of the rare rows."""
    y = np.repeat(np.arange(11), [400, *[8] * 10])
    judge = Judge.halved(y, ClassCounts.from_counts(np.bincount(y)), "balanced-accuracy")
    rows = judge.rung_rows()
    rng = np.random.default_rng(7)
    values, errors = [], []
    for _ in range(60):
        decided = np.where(rng.random(len(rows)) < 0.5, judge.target[rows], (judge.target[rows] + 1) % 11)
        value, error = judge.potential(1000.0 * np.eye(11)[decided], rows)  # no tilt changes these
        values.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)
    assert np.mean(errors) > 2 * (0.25 / len(rows)) ** 0.5


def test_boards_share_and_the_dead_leave_their_work(tmp_path: Path) -> None:
    wanted = [("plain", 0), ("weighted", 0), ("focal", 0)]
    first, second = (Board(tmp_path, {"goal": "accuracy"}, "plain") for _ in range(2))
    mine, theirs = first.claim(wanted), second.claim(wanted)
    assert (mine.key, theirs.key) == (wanted[0], wanted[1])
    first.finish(mine, 0.5, {"remedy": "plain"}, {"raw": np.arange(3, dtype=np.int32)})
    assert first.claim(wanted).key == wanted[2]
    assert second.claim(wanted) is None
    assert second.running(wanted)
    first.close()  # the lock ends with the process: what it had begun is free again, what it finished stays
    assert second.claim(wanted).key == wanted[2]
    result = second.results()[("plain", 0)]
    assert result.state == "finished"
    assert result.arrays["raw"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="its goal: 'accuracy', asked for: 'macro-f1'"):
        Board(tmp_path, {"goal": "macro-f1"}, "plain")
    second.close()


def test_a_lost_file_of_decisions_is_trained_again(tmp_path: Path) -> None:
    board = Board(tmp_path, {}, "plain")
    board.finish(board.claim([("plain", 0)]), 0.5, {"remedy": "plain"}, {"raw": np.zeros(1, np.int32)})
    board.close()
    next((tmp_path / "runs").glob("*.npz")).unlink()
    again = Board(tmp_path, {}, "plain")
    assert again.results() == {}
    assert again.claim([("plain", 0)]).key == ("plain", 0)
    again.close()


def test_a_killed_race_goes_on_and_ends_the_same(parts: tuple[Part, Part], tmp_path: Path) -> None:
    """SIGKILL in the middle: what was finished is used, and the outcome is that of a race that was left alone."""
    arrays = {f"{name}_{key}": part.numpy() for name, pair in zip(("train", "valid"), parts, strict=True)
              for key, part in zip("xy", pair, strict=True)}  # fmt: skip
    for name in ("train", "valid"):
        np.savez(tmp_path / f"{name}.npz", x=arrays[f"{name}_x"], y=arrays[f"{name}_y"])
    folder = tmp_path / "race"
    arguments = ["race", tmp_path / "train.npz", "--valid", tmp_path / "valid.npz", "--label", "y", "--remedies",
                 "weighted,focal,vs", "--seeds", "2", "--budget", "200steps", "--out", folder]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "evenhand.cli", *map(str, arguments)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("runs/*.npz"))) < 2:
        assert process.poll() is None, "the race ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = {path: path.read_bytes() for path in folder.glob("runs/*.npz")}
    assert 2 <= len(finished) < 8

    from evenhand.training.encoding import load
    from evenhand.training.models import built_in
    from evenhand.training.tables import Columns

    data = load(tmp_path / "train.npz", Columns("y"), valid=tmp_path / "valid.npz")

    def whole(place: Path | None):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return race(built_in("mlp", data.train, K), data.train, data.valid, remedies="weighted,focal,vs", seeds=2,
                        budget="200steps", folder=place)  # fmt: skip
        finally:
            torch.set_num_threads(threads)

    taken_up, alone = whole(folder), whole(None)
    # The kill may fall between the last decisions and the word that they are final: that training is done again.
    assert len(finished) - 1 <= taken_up.trainings["reused"] <= len(finished)
    assert taken_up.trainings["finished"] == 8
    assert all(path.read_bytes() == content for path, content in finished.items())
    for a, b in zip(taken_up.entries, alone.entries, strict=True):
        assert a.name == b.name
        assert a.metrics == pytest.approx(b.metrics)
        assert (a.value, a.difference) == (b.value, b.difference)
    assert taken_up.verdict.sentence == alone.verdict.sentence


@pytest.mark.slow
def test_two_processes_share_one_race(tmp_path: Path, parts: tuple[Part, Part]) -> None:
    """Run it with: pytest -m slow tests/training/test_race.py"""
    for name, (x, y) in zip(("train", "valid"), parts, strict=True):
        np.savez(tmp_path / f"{name}.npz", x=x.numpy(), y=y.numpy())
    arguments = ["race", "train.npz", "--valid", "valid.npz", "--label", "y", "--remedies", "weighted,focal",
                 "--seeds", "2", "--budget", "200steps", "--out", "shared"]  # fmt: skip
    both = [
        subprocess.Popen([sys.executable, "-m", "evenhand.cli", *arguments, "--json", f"{i}.json"], cwd=tmp_path)
        for i in range(2)
    ]
    assert [process.wait(300) for process in both] == [0, 0]
    one, two = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    times = [found.pop("time") for found in (one, two)]
    for found in (one, two):
        assert found.pop("trainings")["finished"] == 6
    assert one == two
    assert len(list((tmp_path / "shared" / "runs").glob("*.npz"))) == 6  # none was done twice
    assert all(time["training"] < time["wall"] for time in times)


def test_more_remedies_and_seeds_may_join_a_finished_race(parts: tuple[Part, Part], tmp_path: Path) -> None:
    small_race(parts, folder=tmp_path, remedies="weighted", seeds=1)
    more = small_race(parts, folder=tmp_path, remedies="weighted,focal", seeds=2)
    assert more.trainings == {"finished": 6, "stopped": 0, "failed": 0, "reused": 2}


def test_a_budget_in_time_is_kept(parts: tuple[Part, Part], tmp_path: Path) -> None:
    result = small_race(parts, remedies="weighted", seeds=2, budget="4s", folder=tmp_path)
    assert 0.5 < result.training < 12
    held = json.loads((tmp_path / "race.json").read_text())
    assert held["steps"] == result.steps > 20


def test_one_seed_says_nothing_of_another(parts: tuple[Part, Part]) -> None:
    result = small_race(parts, seeds=1)
    assert result.verdict.kind == "unknown"
    assert "one seed tells nothing of another" in result.verdict.sentence
    levels = {entry.name: f"{entry.value.value:.3f}" for entry in result.entries if entry.value}
    for name in {"plain", "plain + correction"} - {result.verdict.best}:
        assert f"that of {name} {levels[name]}" in result.verdict.sentence
    assert not any(entry.better for entry in result.entries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds of 1 or more"),
        ({"budget": "5 apples"}, "20epochs, 2000steps"),
        ({"budget": "0steps"}, "20epochs, 2000steps"),
        ({"remedies": "weighted,weighted"}, "'weighted' twice"),
        ({"remedies": "wieghted"}, "did you mean 'weighted'"),
        ({"remedies": "focal:gamma=x"}, "focal:gamma=x: expected gamma to be a number"),
        ({"remedies": "weighted,focal:gamma=-1"}, "focal:gamma=-1: expected gamma to be finite and at least 0"),
        ({"remedies": 5}, "remedies as text with commas or in a list, got 5"),
        ({"remedies": [5]}, "a Remedy or its name as text, got 5"),
        ({"budget": 20}, "20epochs, 2000steps, 5m or 1h, got 20"),
        ({"group": [1, 2]}, "a group for each of the 1,044 valid rows, got 2"),
        ({"goal": "cost"}, "needs no costs"),
        ({"goal": "acuracy"}, "a goal among accuracy, .*, counts, got 'acuracy'"),
        ({"budget": "0.1steps"}, "a budget of at least one step, got '0.1steps'"),
        (
            {"budget": "0.01epochs"},
            r"a budget of at least one step, got 0.01 epochs, of 5 steps each; give .* 0.2epochs",
        ),
        (
            {"remedies": [Remedy("plain", "", loss="weighted")]},
            "got 'plain', the name of plain training, which it differs",
        ),
        ({"remedies": [Remedy("focal", "", loss="focal")]}, "got 'focal', the name of a built-in remedy"),
        ({"remedies": [Remedy("vs:tau=1", "")]}, "got 'vs:tau=1', the name of a built-in remedy"),
        ({"group": [1] * 1044}, "got 1 group for the 1,044 valid rows"),
    ],
)
def test_unusable_options_are_told(options: dict, message: str, parts: tuple[Part, Part]) -> None:
    with pytest.raises(InputError, match=message):
        small_race(parts, **options)


def test_unusable_rows_are_told(parts: tuple[Part, Part]) -> None:
    (x, y), (xv, yv) = parts
    with pytest.raises(InputError, match="at least 80 valid rows"):
        small_race(((x, y), (xv[:50], yv[:50])))
    with pytest.raises(InputError, match="class 7 has none"):
        race("mlp", (x[y < 7], y[y < 7]), (xv, yv), counts=ROWS * (np.arange(K) < 7), budget="5steps")
    with pytest.raises(InputError, match="give the classes too"):
        race("mlp", x, xv)
    with pytest.raises(InputError, match="expected a function that builds an untrained model, got a Linear"):
        race(nn.Linear(5, K), (x, y), (xv, yv))  # type: ignore[arg-type]
    one = yv == 0
    with pytest.raises(InputError, match="at least two classes"):
        small_race(((x, y), (xv[one], yv[one])))


def test_a_goal_that_a_race_cannot_have_is_not_offered() -> None:
    for goal in ("zz", "cost"):
        with pytest.raises(InputError) as error:
            make_plan(goal=goal)
        assert "prior" not in str(error.value)


def test_own_remedies_may_be_the_built_in_ones() -> None:
    own = [REMEDIES[PLAIN].but(meaning="as it is"), Remedy("focal", "", loss="focal", options={"gamma": 2.0})]
    assert make_plan(own).remedies == tuple(own)


def test_inputs_that_are_no_numbers_are_refused(parts: tuple[Part, Part]) -> None:
    (x, y), valid = parts
    for value in (torch.nan, torch.inf):
        broken = x.clone()
        broken[[7, 20], 3] = value
        with pytest.raises(InputError, match=r"2 of the 522 training rows hold NaN or .* the first is row 7 "):
            small_race(((broken, y), valid))
        with pytest.raises(InputError, match="2 of the 522 valid rows hold"):
            small_race((valid, TensorRows(broken, y)))
        for given in ((broken.numpy(), y.numpy()), TensorRows(broken, y)):
            with pytest.raises(InputError, match="2 of the 522 training rows hold"):
                fit(nn.Linear(5, K), given, steps=1)


def test_data_sets_are_told_where_the_nan_may_come_from(parts: tuple[Part, Part]) -> None:
    broken = parts[0][0].clone()
    broken[:, 1] = torch.nan
    data = torch.utils.data.TensorDataset(broken, parts[0][1])
    with pytest.raises(DivergedError, match="at step 1; nothing was learned before it: look for NaN"):
        fit(nn.Linear(5, K), data, steps=10)
    broken[:, 1] = 0
    broken[400] = torch.nan
    with pytest.raises(DivergedError, match=r"at step [2-5]; lower the learning rate, or look for NaN"):
        fit(nn.Linear(5, K), data, epochs=3, seed=1)


@pytest.mark.parametrize("error", [ValueError("odd"), TypeError("odd"), KeyError("odd"), OSError("odd")])
def test_unexpected_errors_of_a_remedy_are_told_with_their_type(error: Exception, parts: tuple[Part, Part]) -> None:
    built: list[int] = []

    def model_fn() -> nn.Module:
        built.append(1)
        return Failing(error if len(built) == 2 else None)

    result = race(model_fn, *parts, remedies="weighted,focal", seeds=1, budget="30steps")
    why = next(entry.why for entry in result.entries if entry.remedy == "weighted")
    assert f"{type(error).__name__}: {error}" in why
    assert result.trainings["finished"] == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_race(error: type[BaseException], parts: tuple[Part, Part]) -> None:
    built: list[int] = []

    def model_fn() -> nn.Module:
        built.append(1)
        return Failing(error() if len(built) == 2 else None)

    with pytest.raises(error):
        race(model_fn, *parts, remedies="weighted", seeds=1, budget="30steps")


def test_unexpected_errors_of_plain_training_are_raised_and_lose_nothing(
    parts: tuple[Part, Part], tmp_path: Path
) -> None:
    built: list[int] = []

    def model_fn() -> nn.Module:
        built.append(1)
        return Failing(KeyError("a bug") if len(built) == 4 else None)  # one is built for the settings

    options = {"remedies": "weighted", "seeds": 2, "budget": "30steps", "folder": tmp_path}
    with pytest.raises(KeyError, match="a bug"):
        race(model_fn, *parts, **options)
    result = race(model_fn, *parts, **options)
    assert result.trainings == {"finished": 4, "stopped": 0, "failed": 0, "reused": 2}


def test_plans_have_plain_first() -> None:
    assert [remedy.name for remedy in make_plan("sampler,plain").remedies] == ["plain", "sampler"]
    assert len(make_plan().remedies) == 14
    assert make_plan(seeds=2).runs[:1] + make_plan(seeds=2).runs[14:15] == [("plain", 0), ("plain", 1)]
    assert parse_budget("2h").amount == 7200


def test_hostile_names_stay_text(parts: tuple[Part, Part]) -> None:
    page = small_race(parts, remedies="plain", seeds=1, name="<script>alert(1)</script>", notes=["<b>x\x1b[31m"]).html()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "script-src &#39;none&#39;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(("change", "what"), [("model", "model"), ("columns", "inputs"), ("clip", "clip")])
def test_remedies_of_another_network_or_other_columns_do_not_join(
    parts: tuple[Part, Part], tmp_path: Path, change: str, what: str
) -> None:
    (x, y), (xv, yv) = parts
    race("mlp", (x, y), (xv, yv), remedies="plain", seeds=1, budget="5steps", folder=tmp_path)
    if change == "columns":
        x, xv = x * 2, xv * 2
    options = {"recipe": Recipe(clip=0.0)} if change == "clip" else {}
    model = "linear" if change == "model" else "mlp"
    with pytest.raises(InputError, match=f"its {what}:"):
        race(model, (x, y), (xv, yv), remedies="weighted", seeds=1, budget="5steps", folder=tmp_path, **options)


def told_by(
    decisions: dict[str, dict[int, np.ndarray]], y: np.ndarray, seeds: int = 3, goal: str = "balanced-accuracy"
):
    """The leaderboard and the verdict of decisions, as if they had been trained."""
    judge = Judge.halved(y, ClassCounts.from_counts(np.bincount(y)), goal)
    figures = {"raw": {}, "seconds": 1.0}
    results = {
        (remedy, seed): Result((remedy, seed), "finished", figures, {"raw": d.astype(np.int32)})
        for remedy, by_seed in decisions.items()
        for seed, d in by_seed.items()
    }
    plan = make_plan([name for name in decisions if name != "plain"], seeds=seeds, goal=goal)
    for key in set(plan.runs) - set(results):
        results[key] = Result(key, "stopped", {"why": "far below"}, {})
    return leaderboard(plan, judge, results)


def test_a_handful_of_rows_is_no_claim_however_steady() -> None:
    """Two rows of the rarest class, got right with every seed: ten points of balanced accuracy, and no evidence."""
    y = np.concatenate([np.repeat(np.arange(9), 20), [9, 9]])
    plain = np.where(y == 9, 0, y)
    entries, verdict = told_by({"plain": dict.fromkeys(range(3), plain), "weighted": dict.fromkeys(range(3), y)}, y)
    weighted = next(entry for entry in entries if entry.remedy == "weighted")
    assert weighted.difference is not None
    assert weighted.difference.interval[0] > 0  # what the bootstrap alone would claim
    assert (weighted.speaking, weighted.better, verdict.kind) == (1, False, "tie")
    assert "only 1 of the judging rows" in verdict.sentence


def test_seeds_that_were_not_stopped_claim_nothing() -> None:
    """The seeds that are left are the luckier ones: shown, but neither starred nor recommended."""
    rng = np.random.default_rng(7)
    y = np.arange(300) % 3

    def some(accuracy: float) -> np.ndarray:
        return np.where(rng.random(300) < accuracy, y, (y + 1) % 3)

    both = {"plain": {s: some(0.5) for s in range(3)}, "weighted": {s: some(0.9) for s in range(3)}}
    entries, verdict = told_by(both, y)
    assert (entries[0].remedy, entries[0].better, verdict.kind) == ("weighted", True, "take")
    del both["weighted"][1]
    entries, verdict = told_by(both, y)
    assert entries[0].remedy == "weighted"
    assert (np.isnan(entries[0].p), entries[0].better, verdict.kind) == (True, False, "keep")


def test_keeping_plain_tells_how_much_could_be_missed() -> None:
    rng = np.random.default_rng(7)
    y = np.arange(240) % 3
    both = {
        name: {s: np.where(rng.random(240) < 0.6 + more, y, (y + 1) % 3) for s in range(3)}
        for name, more in (("plain", 0.0), ("weighted", 0.02))
    }
    entries, verdict = told_by(both, y)
    assert (verdict.kind, verdict.best) == ("keep", "weighted")
    low, high = next(entry.difference.interval for entry in entries if entry.remedy == "weighted")
    assert f"on the judging rows it is {100 * low:+.1f} to {100 * high:+.1f} points" in verdict.sentence


def nested(rng: np.random.Generator, y: np.ndarray, levels: dict[str, float]) -> dict[str, dict[int, np.ndarray]]:
    """Decisions that are right with these chances; a better remedy is right wherever a worse one is."""
    hard = [rng.random(len(y)) for _ in range(3)]
    return {name: {s: np.where(hard[s] < level, y, (y + 1) % 3) for s in range(3)} for name, level in levels.items()}


def test_the_best_is_taken_and_the_simpler_one_near_it_is_named() -> None:
    y = np.arange(600) % 3
    rng = np.random.default_rng(1)
    made = nested(rng, y, {"plain": 0.5, "weighted": 0.8}) | nested(rng, y, {"ldam-drw": 0.81})
    _, verdict = told_by(made, y)
    assert verdict.entry is not None
    assert (verdict.kind, verdict.entry.name, verdict.best, verdict.simpler) == (
        "take",
        "ldam-drw",
        "ldam-drw",
        "weighted",
    )
    assert "weighted asks for less and is not distinguishable from it on the choosing rows" in verdict.sentence
    made = nested(np.random.default_rng(1), y, {"plain": 0.5, "weighted": 0.6, "ldam-drw": 0.8})
    _, verdict = told_by(made, y)
    assert (verdict.best, verdict.simpler) == ("ldam-drw", "")
    assert "asks for less" not in verdict.sentence


@pytest.mark.parametrize(("ahead", "kind"), [(0.3, "take"), (0.02, "tie")])
def test_the_cheap_way_is_advised_only_beside_something_worth_taking(ahead: float, kind: str) -> None:
    from evenhand.goals import find_goal
    from evenhand.training.racing.comparing import Bootstrap, Drawn
    from evenhand.training.racing.entries import Entry, Verdict
    from evenhand.training.racing.saying import beside_correction

    y = np.arange(600) % 3
    metric = find_goal("balanced-accuracy").metric
    bootstrap = Bootstrap(y, metric, 3)
    made = nested(np.random.default_rng(1), y, {"plain": 0.5, "weighted": 0.5 + ahead})
    drawn = {
        ("weighted", False): Drawn.of(bootstrap, made["weighted"]),
        ("plain", True): Drawn.of(bootstrap, made["weighted"]),
    }
    told = beside_correction(Verdict(Entry("weighted", False, "finished"), kind, "So."), metric, drawn)
    assert told.beyond is not None
    assert ("take that if training again is dear" in told.sentence) == (kind == "take")
    assert ("is not distinguishable" in told.sentence) == (kind == "take")


def test_of_equals_the_simplest_is_taken() -> None:
    y = np.arange(600) % 3
    made = nested(np.random.default_rng(1), y, {"plain": 0.5, "ldam-drw": 0.8, "deferred-weights": 0.8, "sampler": 0.8})
    _, verdict = told_by(made, y)
    assert (verdict.best, verdict.simpler) == ("sampler", "")


def test_plain_training_is_kept_unless_the_best_is_a_standard_error_ahead() -> None:
    y = np.arange(600) % 3
    made = nested(np.random.default_rng(1), y, {"plain": 0.7, "weighted": 0.702, "ldam-drw": 0.703})
    _, verdict = told_by(made, y)
    assert verdict.entry is not None
    assert (verdict.kind, verdict.entry.name, verdict.best) == ("keep", "plain", "ldam-drw")
    assert verdict.gap is not None
    assert 0 < verdict.gap.value <= verdict.gap.error

"""Commands killed at any moment and run again, and two of the same at once: the result is the undisturbed one."""

import hashlib
import shutil

import numpy as np
import pytest
from runner import Job, cases, checked, run
from whole import COMMANDS, check_clean, results, undisturbed, whole_folder

from eagle.downloads.catalog import MODELS
from local_server import served

pytestmark = pytest.mark.slow

CHANGED = {
    "train": COMMANDS["train"] + " ckpt_path=last",
    "train on crops": COMMANDS["train"] + " ckpt_path=last crop_type=five cache_features=disk cache_dir=cache",
    "fit two": COMMANDS["fit"].replace("best.ckpt", "best.ckpt in/run/slim.safetensors"),
}
CHANGED = {name: words for name, words in (COMMANDS | CHANGED).items() if name not in ("check", "draw_backbone")}
# plot_run cleans no folder, since a run may be training there.
KILLED = {name: words for name, words in CHANGED.items() if name != "plot"}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(whole_folder(), tmp_path / "in")
    return tmp_path


# Files that are finished when they are there, which no kill may take away.
FINISHED = ("in/data/cropped/*/*/*/[0-9]*", "out/*_ids.png", "out/*.pth", "out/run/*.ckpt")


def check_killed(random, folder, words, expected, seconds):
    """Kill a command one to three times, each at a random moment; the last run ends as an undisturbed one."""
    finished = set()
    for _ in range(random.choice((1, 1, 2, 3))):
        (ended,) = run(Job(words.split(), folder, kill_after=random.uniform(0, seconds)))
        ended.check(not ended.left, f"left processes: {ended.left}")
        now = {path for pattern in FINISHED for path in folder.glob(pattern)}
        ended.check(finished <= now, f"lost {finished - now}")
        finished = now
    ended = checked(Job(words.split(), folder))
    # Evaluations and trees lie beside a run's files, and delete none: the run may be going on.
    if not words.startswith(("eval", "fit")):
        check_clean(ended)
    check_result(ended, folder, expected)


def check_result(ended, folder, expected):
    ended.check(ended.status == 0, "failed")
    ended.check(results(folder) == expected, f"another result: {results(folder)}")


@cases("killed", 0.02)
def test_killed__then_run_again(number, random, folder):
    words = list(KILLED.values())[number % len(KILLED)]
    check_killed(random, folder, words, *undisturbed(words)[1:])


@cases("cut", 0.005)
def test_killed__download_goes_on(number, random, folder):
    """From a server that also cuts connections, after the client's first block."""
    content = np.random.default_rng(0).bytes(2_000_000)
    expected = {"out/dino_vits8_300ep.pth": hashlib.sha256(content).hexdigest()}
    with served({MODELS["dino_vits8"].public_path: content}, pause_per_chunk=0.02) as (url, server):
        server.cuts, server.cut_after = random.randrange(3), random.randrange(600_000, len(content))
        words = f"download_models models=dino_vits8 output_dir=out base_url={url}"
        check_killed(random, folder, words, expected, 2)


@cases("sweep", 0.0005)
def test_killed__sweep_goes_on(number, random, folder):
    words = COMMANDS["train"].replace("train_segmentation", "train_segmentation -m seed=0,1")
    check_killed(random, folder, words, *undisturbed(words)[1:])


@cases("pairs", 0.01)
def test_two_at_once__the_result_is_that_of_one(number, random, folder):
    """One of them may end with the line that names the other."""
    words = list(CHANGED.values())[number % len(CHANGED)]
    _, expected, seconds = undisturbed(words)
    jobs = [Job(words.split(), folder, start_after=random.choice((0, 0, random.uniform(0, seconds)))) for _ in range(2)]
    both = sorted(run(*jobs), key=lambda ended: ended.status)
    for ended in both:
        ended.check_rules()
        ended.check(not ended.status or "is working there" in ended.stderr, "fails beside another")
    check_clean(both[0])
    check_result(both[0], folder, expected)

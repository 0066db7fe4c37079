"""Commands killed at any moment and run again, and two of the same at once: the result is the undisturbed one."""

import hashlib
import shutil

import numpy as np
import pytest
from runner import check, runner, seeds, told
from whole import COMMANDS, check_clean, job_of, results, run_in, undisturbed, whole_folder

from eagle.downloads.catalog import MODELS
from local_server import served

pytestmark = pytest.mark.slow

CHANGED = {
    "train": COMMANDS["train"] + " ckpt_path=last",
    "train on crops": COMMANDS["train"] + " ckpt_path=last crop_type=five cache_features=disk cache_dir=cache",
    "fit two": COMMANDS["fit"].replace("best.ckpt", "best.ckpt in/run/slim.safetensors"),
}
CHANGED = {name: words for name, words in (COMMANDS | CHANGED).items() if name not in ("check", "draw_backbone")}


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
        job = job_of(words, folder, kill_after=random.uniform(0, seconds))
        (ended,) = runner().run(job)
        assert not ended.left, told(job, ended, f"left processes: {ended.left}")
        now = {path for pattern in FINISHED for path in folder.glob(pattern)}
        assert finished <= now, told(job, ended, f"lost {finished - now}")
        finished = now
    job, ended = run_in(folder, words)
    assert ended.status == 0, told(job, ended, "does not go on")
    assert results(folder) == expected, told(job, ended, f"another result: {results(folder)}")


@pytest.mark.parametrize(("number", "random"), seeds("killed", 0.03))
def test_killed__then_run_again(number, random, folder):
    words = list(CHANGED.values())[number % len(CHANGED)]
    check_killed(random, folder, words, *undisturbed(words))


@pytest.mark.parametrize(("number", "random"), seeds("cut", 0.005))
def test_killed__download_goes_on(number, random, folder):
    """From a server that also cuts connections."""
    content = np.random.default_rng(0).bytes(2_000_000)
    expected = {"out/dino_vits8_300ep.pth": hashlib.sha256(content).hexdigest()}
    with served({MODELS["dino_vits8"].public_path: content}, pause_per_chunk=0.02) as (url, server):
        server.cuts, server.cut_after = random.randrange(3), random.randrange(len(content))
        words = f"download_models models=dino_vits8 output_dir=out base_url={url}"
        check_killed(random, folder, words, expected, 2)


@pytest.mark.parametrize(("number", "random"), seeds("sweep", 0.0005))
def test_killed__sweep_goes_on(number, random, folder):
    words = COMMANDS["train"].replace("train_segmentation", "train_segmentation -m seed=0,1")
    check_killed(random, folder, words, *undisturbed(words))


@pytest.mark.parametrize(("number", "random"), seeds("pairs", 0.01))
def test_two_at_once__the_result_is_that_of_one(number, random, folder):
    """One of them may end with the line that names the other."""
    words = list(CHANGED.values())[number % len(CHANGED)]
    expected, seconds = undisturbed(words)
    jobs = [job_of(words, folder, start_after=random.choice((0, 0, random.uniform(0, seconds)))) for _ in range(2)]
    both = runner().run(*jobs)
    for job, ended in zip(jobs, both, strict=True):
        check(job, ended)
        assert not ended.status or "is working there" in ended.stderr, told(job, ended, "fails beside another")
    check_clean(jobs[0], both[0])
    assert 0 in [ended.status for ended in both]
    assert results(folder) == expected, told(jobs[0], both[0], f"another result: {results(folder)}")

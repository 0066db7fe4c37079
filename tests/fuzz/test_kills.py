"""Commands killed at any moment and run again, and two of the same at once: the result is the undisturbed one."""

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
    "train on crops": COMMANDS["train"] + " ckpt_path=last crop_type=five cache_features=disk cache_dir=out/cache",
    "fit two": COMMANDS["fit"].replace("best.ckpt", "best.ckpt in/run/slim.safetensors"),
}
CHANGED = {name: words for name, words in (COMMANDS | CHANGED).items() if name not in ("check", "draw_backbone")}
MODEL = "dino_vits8"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(whole_folder(), tmp_path / "in")
    return tmp_path


def check_killed(random, folder, words, expected, seconds, kept=()):
    """Kill a command one to three times; finished files among ``kept`` stay, and the last run ends undisturbed."""
    finished = {}
    for _ in range(random.choice((1, 1, 2, 3))):
        job = job_of(words, folder, kill_after=random.uniform(0, seconds))
        (ended,) = runner().run(job)
        assert not ended.left, told(job, ended, f"left processes: {ended.left}")
        now = {path: path.stat().st_mtime_ns for pattern in kept for path in folder.glob(pattern)}
        assert finished.items() <= now.items(), told(job, ended, "wrote a finished file again")
        finished = now
    job, ended = run_in(folder, words)
    assert ended.status == 0, told(job, ended, "does not go on")
    assert results(folder) == expected, told(job, ended, f"another result: {results(folder)}")
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items()), told(job, ended, "wrote it again")


@pytest.mark.parametrize(("number", "random"), seeds("killed", 0.03))
def test_killed__then_run_again(number, random, folder):
    name = list(CHANGED)[number % len(CHANGED)]
    kept = ["in/data/cropped/*/*/*/[0-9]*"] if name == "crop" else []
    check_killed(random, folder, CHANGED[name], *undisturbed(CHANGED[name]), kept)


@pytest.mark.parametrize(("number", "random"), seeds("cut", 0.005))
def test_killed__download_goes_on(number, random, folder):
    content = np.random.default_rng(0).bytes(2_000_000)
    with served({MODELS[MODEL].public_path: content}, pause_per_chunk=0.02) as (url, server):
        server.cuts, server.cut_after = random.randrange(3), random.randrange(len(content))
        words = f"download_models models={MODEL} output_dir=out base_url={url}"
        check_killed(random, folder, words, results(folder), 2, kept=["out/*.pth"])
    assert [path.read_bytes() for path in (folder / "out").iterdir()] == [content]


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

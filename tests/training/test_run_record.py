import subprocess

import pytest

from eagle.training import run_record


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit in place of ours; gives its folder and a function that runs git there."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.setattr(run_record, "_ROOT", folder)

    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "a/branch")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    return folder, git


@pytest.mark.parametrize("state", ["loose", "packed", "detached", "worktree"])
def test_code_version__names_the_commit_that_git_names(repository, monkeypatch, tmp_path, state):
    _, git = repository
    if state == "packed":
        git("pack-refs", "--all")
    elif state == "detached":
        git("checkout", "--quiet", "--detach")
    elif state == "worktree":
        git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "worktree"))
        git("commit", "--quiet", "--allow-empty", "--message", "not in the worktree")
        monkeypatch.setattr(run_record, "_ROOT", tmp_path / "worktree")
    expected = git("rev-parse", "other" if state == "worktree" else "HEAD")
    assert run_record.code_version().endswith(f"commit {expected[:7]}")


def test_code_version__without_a_checkout_or_a_commit_is_the_version_alone(repository, monkeypatch, tmp_path):
    _, git = repository
    git("checkout", "--quiet", "--orphan", "unborn")
    assert "commit" not in (run_record.code_version() or "")
    monkeypatch.setattr(run_record, "_ROOT", tmp_path / "installed")
    assert "commit" not in (run_record.code_version() or "")


def test_code_version__nothing_known_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(run_record, "_ROOT", tmp_path)
    monkeypatch.setattr(run_record, "DISTRIBUTION", "no-such-distribution")
    assert run_record.code_version() is None


def test_git_state__says_whether_files_were_changed(repository):
    folder, git = repository
    (folder / "tracked").write_text("as committed")
    git("add", "tracked")
    git("commit", "--quiet", "--message", "second")
    assert run_record.git_state() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (folder / "tracked").write_text("changed since")
    assert run_record.git_state()["changed"]
    assert run_record.code_version().endswith(" and changes")
